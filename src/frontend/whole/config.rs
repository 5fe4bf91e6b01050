//! CONFIG SET, on every shard: except for what lockstep's promises, or its connections, rest on.

use bytes::Bytes;

use super::{Inquiry, Replied, error, request};
use crate::keyspace::Merge;
use crate::resp::{self, Value};
use crate::txn::names;

/// Settings of a shard that clients may set to what they are, and to nothing else.
const PROTECTED: &[(&str, &str)] = &[
    (
        "maxmemory-policy",
        "this policy can evict what a transaction has promised",
    ),
    ("requirepass", "lockstep itself could not connect any more"),
    (
        "port",
        "Unable to listen on this port: lockstep itself could not connect any more",
    ),
    (
        "tls-port",
        "Unable to listen on this port: lockstep itself could not connect any more",
    ),
    ("bind", "lockstep itself could not connect any more"),
];

impl Inquiry {
    pub(super) async fn config_set(&self) -> Replied {
        let (head, pairs) = self.args.split_at(2.min(self.args.len()));
        let mut words: Vec<&Bytes> = head.iter().collect();
        for pair in pairs.chunks(2) {
            match pair {
                // What is protected and set already is left as it is.
                [name, value] if self.is_protected(name, value).await? => {}
                _ => words.extend(pair),
            }
        }
        if words.len() == head.len() {
            let mut out = bytes::BytesMut::new();
            resp::build::status(&mut out, "OK");
            return Ok(out);
        }
        let engine = &self.context.engine;
        let replies = engine.ask_all(&self.links, &request(words)).all().await?;
        Ok(super::merged(Merge::First, &replies))
    }

    /// Whether this is a protected setting, which has this value.
    ///
    /// # Errors
    /// It has another one.
    async fn is_protected(&self, name: &[u8], value: &[u8]) -> Result<bool, bytes::BytesMut> {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        let found = PROTECTED.iter().find(|(known, _)| *known == name);
        let Some((name, why)) = found.filter(|(name, _)| !self.may_set(name, value)) else {
            return Ok(false);
        };
        if self.is_set_to(name, value).await? {
            return Ok(true);
        }
        Err(error(format!(
            "ERR CONFIG SET failed (possibly related to argument '{name}') - {why}"
        )))
    }

    /// Policies that keep what has no time to live are no danger to what is promised.
    fn may_set(&self, name: &str, value: &[u8]) -> bool {
        let value = value.to_ascii_lowercase();
        name == "maxmemory-policy"
            && (self.context.config().allow_unsafe_eviction || !value.starts_with(b"allkeys-"))
    }

    async fn is_set_to(&self, name: &str, value: &[u8]) -> Result<bool, bytes::BytesMut> {
        let engine = &self.context.engine;
        let question = request([b"CONFIG", &b"GET"[..], name.as_bytes()]);
        let links = engine.first_links();
        let replies = engine.ask_all(&links, &question).all().await?;
        // What CONFIG GET shows is the first shard's.
        let now = replies
            .first()
            .and_then(|reply| resp::elements(reply).nth(1));
        let now = now.and_then(resp::as_bulk);
        Ok(now.is_some_and(|now| now.eq_ignore_ascii_case(value)))
    }

    /// SLOWLOG GET: the newest of all shards' entries.
    pub(super) async fn slow_log(&self) -> Replied {
        let engine = &self.context.engine;
        let replies = engine.ask_all(&self.links, &self.encoded()).all().await?;
        let wanted = self
            .args
            .get(2)
            .and_then(|text| resp::number::parse_i64(text));
        let most = match wanted {
            None => 10,
            Some(-1) => usize::MAX,
            Some(wanted) => usize::try_from(wanted).unwrap_or_default(),
        };
        let mut entries: Vec<(i64, &[u8])> = replies
            .iter()
            .flat_map(|reply| resp::elements(reply))
            .filter(|entry| !is_ours(entry))
            .map(|entry| (at(entry), entry))
            .collect();
        // Stable: each shard's own are newest first.
        entries.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        entries.truncate(most);
        Ok(super::array(entries.iter().map(|(_, entry)| *entry)))
    }

    /// LATENCY HISTOGRAM: of the commands that are named, or of all.
    pub(super) fn latency_histogram(&self) -> bytes::BytesMut {
        let names: Vec<&[u8]> = self.args.iter().skip(2).map(|name| &name[..]).collect();
        let context = &self.context;
        let latencies = &context.latencies;
        context.tally.stopwatch.put_down();
        latencies.show(&context.table, &names, self.lane.protocol)
    }

    /// CONFIG RESETSTAT.
    pub(super) async fn reset_stat(&self) -> Replied {
        let reply = self.every(Merge::First).await?;
        self.context.tally.stopwatch.put_down();
        self.context.latencies.reset();
        Ok(reply)
    }

    /// LATENCY HISTORY: all shards' samples, by time.
    pub(super) async fn latency_history(&self) -> Replied {
        let engine = &self.context.engine;
        let replies = engine.ask_all(&self.links, &self.encoded()).all().await?;
        let mut samples: Vec<&[u8]> = replies
            .iter()
            .flat_map(|reply| resp::elements(reply))
            .collect();
        samples.sort_by_key(|sample| resp::elements(sample).next().and_then(resp::as_int));
        Ok(super::array(samples.into_iter()))
    }

    /// LATENCY LATEST: for each event the newest sample, and the worst of all shards.
    pub(super) async fn latency_latest(&self) -> Replied {
        let engine = &self.context.engine;
        let replies = engine.ask_all(&self.links, &self.encoded()).all().await?;
        let mut events: Vec<(Bytes, [i64; 3])> = Vec::new();
        for reply in &replies {
            let decoded = Value::decode(reply, &resp::Limits::default()).ok();
            let rows = decoded.and_then(Value::into_vec).unwrap_or_default();
            for row in rows.iter().filter_map(Value::as_slice) {
                let name = row.first().and_then(Value::as_bytes).unwrap_or_default();
                let int = |at: usize| row.get(at).and_then(Value::as_int).unwrap_or_default();
                note(&mut events, name, [int(1), int(2), int(3)]);
            }
        }
        let rows = events.iter().map(|(name, [time, latest, worst])| {
            let mut row = bytes::BytesMut::new();
            resp::build::array_header(&mut row, 4);
            resp::build::bulk(&mut row, name);
            for number in [time, latest, worst] {
                resp::build::int(&mut row, *number);
            }
            row
        });
        let rows: Vec<_> = rows.collect();
        Ok(super::array(rows.iter().map(|row| &row[..])))
    }
}

fn note(events: &mut Vec<(Bytes, [i64; 3])>, name: &[u8], [time, latest, worst]: [i64; 3]) {
    match events.iter_mut().find(|(known, _)| known == name) {
        Some((_, known)) => {
            if time > known[0] {
                (known[0], known[1]) = (time, latest);
            }
            known[2] = known[2].max(worst);
        }
        None => events.push((Bytes::copy_from_slice(name), [time, latest, worst])),
    }
}

/// Whether the command is one that lockstep sends on its own account.
fn is_ours(entry: &[u8]) -> bool {
    let words = resp::elements(entry).nth(3).map(resp::elements);
    let mut words = words.into_iter().flatten().filter_map(resp::as_bulk);
    words.any(names::is_reserved)
}

/// When the command of an entry of SLOWLOG ran.
fn at(entry: &[u8]) -> i64 {
    let time = resp::elements(entry).nth(1);
    time.and_then(resp::as_int).unwrap_or_default()
}

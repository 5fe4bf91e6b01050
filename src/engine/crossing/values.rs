//! Whole values: read under a WATCH, and written elsewhere by RESTORE.
//!
//! What is read is bounded (`gather-bytes-max`), by what the shard says that it takes there, before
//! it is read. Shards may run different versions of Redis, and an older one cannot read what a
//! newer one has written: that is found out before anything is changed.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use super::trip::Trip;
use super::{Spot, gather_limit};
use crate::backend::Failure;
use crate::engine::watching::{Unwatched, Wanted, Watched, Watching};
use crate::engine::{Engine, errors};
use crate::metrics::Limit;
use crate::resp::{self, Lane, Protocol, build};
use crate::txn::{Part, names};

const FETCH: &str = include_str!("fetch.lua");

/// The version of what DUMP writes, which is in front of the checksum at its end.
const VERSION: &str = "redis.call('SET', KEYS[1], '') \
    local payload = redis.call('DUMP', KEYS[1]) redis.call('DEL', KEYS[1]) \
    return string.byte(payload, -10) + 256 * string.byte(payload, -9)";

/// A value as DUMP gives it.
#[derive(Clone, Debug)]
pub(super) struct Value {
    /// For RESTORE.
    pub(super) payload: Bytes,
    /// When it expires, in ms since the epoch; 0: never.
    pub(super) expires: Bytes,
}

impl Value {
    fn version(&self) -> i64 {
        let footer = self.payload.iter().rev().skip(8);
        let mut footer = footer.map(|byte| i64::from(*byte));
        let (high, low) = (footer.next(), footer.next());
        high.unwrap_or(0) * 256 + low.unwrap_or(0)
    }
}

/// What was read, under a WATCH that stands.
pub(super) struct Fetched {
    /// By key asked for: its value, if it is there.
    pub(super) values: Vec<Option<Value>>,
    watching: Watching,
}

impl Fetched {
    /// Stops watching.
    pub(super) fn leave(&self) {
        self.watching.leave();
    }

    /// The watching connections; None if one is lost.
    pub(super) fn end(&self) -> Option<Watched> {
        self.watching.end()
    }
}

impl Trip<'_> {
    /// Watches these keys of the client's database and reads their values. The inner error is the
    /// reply to the client.
    pub(super) async fn fetch(&self, keys: &[&Spot]) -> Result<Result<Fetched, Bytes>, Failure> {
        let max = self.crossing.bytes_max;
        let limit = max.to_string();
        let mut wanted = BTreeMap::<Part, Wanted>::new();
        let mut places = Vec::new();
        for spot in keys {
            let of_part = wanted.entry(spot.part()).or_default();
            places.push((spot.part(), of_part.reads.len()));
            let mut read = BytesMut::new();
            let words: [&[u8]; 5] = [b"EVAL", FETCH.as_bytes(), b"1", &spot.key, limit.as_bytes()];
            build::command(&mut read, words);
            of_part.reads.push(read.freeze());
            of_part.keys.push(spot.key.clone());
            let text = Bytes::from(spot.place.slot.to_string());
            of_part.slots.insert(spot.place.slot, text);
        }
        let lane = Lane {
            protocol: Protocol::Resp2,
            db: self.db(),
        };
        let watching = Watching::briefly();
        let seen = match self.engine.watch_reading(&watching, lane, &wanted).await {
            Ok(seen) => seen,
            Err(unwatched) => {
                watching.break_off();
                return match unwatched {
                    Unwatched::Failed(failure) => Err(failure),
                    Unwatched::Refused(error) => Ok(Err(error.freeze())),
                };
            }
        };
        let replies = places.iter().map(|(part, at)| {
            let of_part = seen.get(part);
            of_part
                .and_then(|replies| replies.get(*at))
                .cloned()
                .unwrap_or_default()
        });
        let (mut values, mut bytes) = (Vec::new(), 0);
        for reply in replies {
            let value = match read(&reply) {
                Ok(value) => value,
                Err(Unread::Refused) => {
                    watching.leave();
                    return Ok(Err(reply));
                }
                Err(Unread::TooBig) => {
                    watching.leave();
                    return Ok(Err(self.too_big(max)));
                }
            };
            bytes += value.as_ref().map_or(0, |value| value.payload.len());
            values.push(value);
        }
        if bytes > max {
            watching.leave();
            return Ok(Err(self.too_big(max)));
        }
        Ok(Ok(Fetched { values, watching }))
    }

    fn too_big(&self, max: usize) -> Bytes {
        self.engine.metrics.limits_hit[Limit::GatherBytes].increment(1);
        gather_limit(max)
    }

    /// The reply if this shard cannot read one of the values.
    pub(super) async fn unreadable(
        &self,
        shard: u16,
        values: &[Option<Value>],
    ) -> Result<Option<Bytes>, Failure> {
        let newest = values.iter().flatten().map(Value::version).max();
        let Some(newest) = newest else {
            return Ok(None);
        };
        let readable = self.engine.readable_version(shard, newest).await?;
        Ok(
            (newest > readable)
                .then(|| errors::too_new(self.engine.link(shard).address()).freeze()),
        )
    }
}

impl Engine {
    /// The version of values that this shard can read; it is asked unless it is known to be enough.
    async fn readable_version(self: &Rc<Self>, shard: u16, wanted: i64) -> Result<i64, Failure> {
        let known = self.readable[usize::from(shard)].get();
        if known >= wanted {
            return Ok(known);
        }
        let mut request = BytesMut::new();
        let probe = [names::GATHERED, b"probe"].concat();
        let words: [&[u8]; 4] = [b"EVAL", VERSION.as_bytes(), b"1", &probe];
        build::command(&mut request, words);
        let reply = self.ask(shard, &request).await?;
        // A shard that is full, or read-only, says so when it is asked to promise.
        let version = resp::as_int(&reply).unwrap_or(wanted);
        self.readable[usize::from(shard)].set(version);
        Ok(version)
    }
}

enum Unread {
    /// The shard's own words.
    Refused,
    TooBig,
}

fn read(reply: &[u8]) -> Result<Option<Value>, Unread> {
    if resp::kind(reply).is_null() {
        return Ok(None);
    }
    let mut parts = resp::elements(reply);
    match (parts.next(), parts.next()) {
        (Some(payload), Some(expires)) => {
            let copy = |part| Bytes::copy_from_slice(resp::as_bulk(part).unwrap_or_default());
            Ok(Some(Value {
                payload: copy(payload),
                expires: copy(expires),
            }))
        }
        (Some(_), None) => Err(Unread::TooBig),
        _ => Err(Unread::Refused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_tells_its_version() {
        // Version 10, and eight bytes of a checksum.
        let payload = Bytes::from_static(b"\x00\x01x\x0a\x0012345678");
        let expires = Bytes::from_static(b"0");
        assert_eq!(Value { payload, expires }.version(), 10);
        assert!(matches!(read(b"$-1\r\n"), Ok(None)));
        assert!(matches!(read(b"*1\r\n:99\r\n"), Err(Unread::TooBig)));
        assert!(matches!(read(b"-OOM x\r\n"), Err(Unread::Refused)));
    }
}

//! Commands that wait for data under keys of several shards: from the command to one piece for
//! each key. See [`crate::engine::waiting`].

use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::dispatch::{Dispatcher, Flow};
use super::session::Want;
use crate::backend::Isolation;
use crate::engine::blocking::Taken;
use crate::engine::channels::Hub;
use crate::engine::lanes::Links;
use crate::engine::waiting::{Source, Take, Wait};
use crate::engine::{self, Engine};
use crate::keyspace::{CommandSpec, Topology};
use crate::metrics::Family;
use crate::resp::{self, Command, build};
use crate::txn::names;
use crate::txn::plan::Misplaced;

/// A command taken apart.
struct Parts {
    /// What stands in front of the keys and behind them, for one key.
    before: Vec<Bytes>,
    after: Vec<Bytes>,
    /// Each key, and with a stream the id that belongs to it.
    keys: Vec<(Bytes, Option<Bytes>)>,
    take: Take,
    /// How long; None: for ever.
    limit: Option<Duration>,
}

impl Dispatcher {
    /// A command that waits, with keys in several slots or behind the fence.
    pub(super) fn block_over(&mut self, spec: &CommandSpec, command: &Command<'_>) -> Flow {
        if is_unbalanced(spec, command) {
            // The server says it best.
            return self.forward(self.any_shard(), command, Isolation::None, Family::Read);
        }
        let Some(parts) = take_apart(spec, command) else {
            return self.cross_patiently(spec, command);
        };
        if parts.keys.iter().any(|(key, _)| names::is_reserved(key)) {
            return self.reject_misplaced(spec, Misplaced::Reserved);
        }
        if !self.session.is_now(Want::Idle) {
            return Flow::Wait;
        }
        let slot = self.session.open_slot();
        let session = Rc::clone(&self.session);
        // From here on CLIENT UNBLOCK finds it.
        let taken = self.berth.get_or_insert_default().take();
        let (engine, hub) = (&self.context.engine, &self.context.hub);
        let wait = Wait {
            links: Rc::clone(&self.links),
            protocol: self.lane.protocol,
            db: self.lane.db,
            take: parts.take,
            until: parts.limit.map(|limit| Instant::now() + limit),
            sources: sources(&parts, &self.context.topology),
        };
        let done = move |reply: &[u8]| session.complete(slot, reply);
        self.waiting = Some(if parts.asks_for_new() {
            wait_for_new(
                (Rc::clone(engine), Rc::clone(hub), taken),
                parts,
                wait,
                done,
            )
        } else {
            engine.wait_over(hub, wait, taken, done)
        });
        self.counted(Family::Write);
        Flow::Bar
    }
}

impl Parts {
    /// Whether a stream is read from its present end on.
    fn asks_for_new(&self) -> bool {
        let mut ids = self.keys.iter().filter_map(|(_, id)| id.as_deref());
        self.take == Take::Streams && ids.any(|id| id == b"$")
    }
}

/// One command for each key.
fn sources(parts: &Parts, topology: &Topology) -> Vec<Source> {
    let source = |(key, id): &(Bytes, Option<Bytes>)| {
        let mut command = BytesMut::new();
        let args = parts.before.iter().chain([key]).chain(id);
        let args: Vec<&Bytes> = args.chain(&parts.after).collect();
        build::command(&mut command, args);
        Source {
            key: key.clone(),
            place: topology.place_of(key),
            command: command.freeze(),
        }
    };
    parts.keys.iter().map(source).collect()
}

/// `$` means the end of the stream as it is now, on whichever shard: it is put down as a number
/// before anything is waited for.
fn wait_for_new(
    (engine, hub, taken): (Rc<Engine>, Rc<Hub>, Taken),
    mut parts: Parts,
    mut wait: Wait,
    done: impl FnOnce(&[u8]) + 'static,
) -> tokio::task::AbortHandle {
    let task = spawn_local(async move {
        for (at, (key, id)) in parts.keys.iter_mut().enumerate() {
            if id.as_deref() == Some(b"$") {
                let shard = wait.sources.get(at).map_or(0, |source| source.place.shard);
                if let Some(end) = end_of(&wait.links, shard, key).await {
                    *id = Some(end);
                }
            }
        }
        for (source, (key, id)) in wait.sources.iter_mut().zip(&parts.keys) {
            let mut command = BytesMut::new();
            let args = parts.before.iter().chain([key]).chain(id);
            build::command(&mut command, args.collect::<Vec<_>>());
            source.command = command.freeze();
        }
        engine.wait_here(&hub, wait, taken, done).await;
    });
    task.abort_handle()
}

/// The id of the last entry ever added; None when it cannot be told, which the command itself
/// will explain.
async fn end_of(links: &Links, shard: u16, key: &[u8]) -> Option<Bytes> {
    let mut question = BytesMut::new();
    build::command(&mut question, [&b"XINFO"[..], b"STREAM", key]);
    let reply = engine::ask_over(links.get(usize::from(shard))?, &question)
        .await
        .ok()?;
    if resp::is_error(&reply) {
        let is_missing = resp::error_text(&reply).starts_with(b"ERR no such key");
        return is_missing.then(|| Bytes::from("0-0"));
    }
    let fields: Vec<&[u8]> = resp::elements(&reply).collect();
    let mut pairs = fields.chunks_exact(2);
    let end = pairs.find(|pair| resp::as_bulk(pair[0]) == Some(b"last-generated-id"))?;
    resp::as_bulk(end[1]).map(Bytes::copy_from_slice)
}

/// Whether a stream stands behind STREAMS for which there is no id: keys cannot be told then.
fn is_unbalanced(spec: &CommandSpec, command: &Command<'_>) -> bool {
    // GROUP group consumer: neither is an option, whatever it is called.
    let skip = if spec.name == "xreadgroup" { 4 } else { 1 };
    let mut args = command.args().skip(skip);
    let found = args.find(|arg| arg.eq_ignore_ascii_case(b"streams"));
    found.is_some() && !args.count().is_multiple_of(2)
}

/// Whether a command that waits can be given in pieces, one for each key.
pub(super) fn can_be_taken_apart(spec: &CommandSpec, command: &Command<'_>) -> bool {
    take_apart(spec, command).is_some()
}

fn take_apart(spec: &CommandSpec, command: &Command<'_>) -> Option<Parts> {
    let args: Vec<Bytes> = command.args().map(Bytes::copy_from_slice).collect();
    match spec.name.as_str() {
        "blpop" | "brpop" | "bzpopmin" | "bzpopmax" => {
            let (timeout, keys) = args.get(1..)?.split_last()?;
            Some(Parts {
                before: args[..1].to_vec(),
                after: vec![timeout.clone()],
                keys: keys.iter().map(|key| (key.clone(), None)).collect(),
                take: Take::First,
                limit: seconds(timeout),
            })
        }
        "blmpop" | "bzmpop" => {
            let count: usize = std::str::from_utf8(args.get(2)?).ok()?.parse().ok()?;
            let keys = args.get(3..3usize.checked_add(count)?)?;
            Some(Parts {
                before: vec![args[0].clone(), args[1].clone(), Bytes::from("1")],
                after: args[3 + count..].to_vec(),
                keys: keys.iter().map(|key| (key.clone(), None)).collect(),
                take: Take::First,
                limit: seconds(&args[1]),
            })
        }
        "xread" => streams(&args, Take::Streams),
        "xreadgroup" => streams(&args, Take::Group),
        _ => None,
    }
}

/// `XREAD [COUNT n] [BLOCK ms] STREAMS key… id…`.
fn streams(args: &[Bytes], take: Take) -> Option<Parts> {
    // GROUP group consumer: neither is an option, whatever it is called.
    let options = if take == Take::Group { 4 } else { 1 };
    let word = |at: usize, word: &[u8]| {
        args.get(at)
            .is_some_and(|arg| arg.eq_ignore_ascii_case(word))
    };
    let streams = (options..args.len()).find(|at| word(*at, b"streams"))?;
    let block = (options..streams).find(|at| word(*at, b"block"))?;
    let ms: Option<u64> = std::str::from_utf8(args.get(block + 1)?).ok()?.parse().ok();
    let rest = &args[streams + 1..];
    let (keys, ids) = rest.split_at_checked(rest.len() / 2)?;
    let keys = keys.iter().cloned();
    Some(Parts {
        before: args[..=streams].to_vec(),
        after: Vec::new(),
        keys: keys.zip(ids.iter().map(|id| Some(id.clone()))).collect(),
        take,
        limit: match ms {
            Some(0) => None,
            // Redis refuses a time that is none; the command for the first key will say so.
            ms => Some(Duration::from_millis(ms.unwrap_or(0))),
        },
    })
}

/// A time in seconds; None for 0, which is for ever. One that Redis refuses is over at once.
fn seconds(text: &[u8]) -> Option<Duration> {
    let seconds: Option<f64> = std::str::from_utf8(text).ok().and_then(|t| t.parse().ok());
    match seconds {
        Some(0.0) => None,
        Some(seconds) => Some(Duration::try_from_secs_f64(seconds).unwrap_or_default()),
        None => Some(Duration::ZERO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_redis() {
        assert_eq!(seconds(b"0"), None);
        assert_eq!(seconds(b"0.0"), None);
        assert_eq!(seconds(b"1.5"), Some(Duration::from_millis(1500)));
        assert_eq!(seconds(b"-1"), Some(Duration::ZERO));
        assert_eq!(seconds(b"x"), Some(Duration::ZERO));
    }

    #[test]
    fn streams_are_taken_apart() {
        let args = |line: &str| -> Vec<Bytes> {
            line.split(' ')
                .map(|word| Bytes::from(word.to_owned()))
                .collect()
        };
        let parts = streams(
            &args("XREAD COUNT 2 BLOCK 5 STREAMS a b $ 0"),
            Take::Streams,
        );
        let parts = parts.unwrap();
        assert!(parts.asks_for_new());
        assert_eq!(parts.limit, Some(Duration::from_millis(5)));
        assert_eq!(parts.keys[1], (Bytes::from("b"), Some(Bytes::from("0"))));
        assert_eq!(parts.before.len(), 6);
        // A group may be called anything.
        let line = "XREADGROUP GROUP streams block BLOCK 0 STREAMS a b > >";
        let parts = streams(&args(line), Take::Group).unwrap();
        assert_eq!((parts.limit, parts.keys.len()), (None, 2));
        assert!(streams(&args("XREAD STREAMS a b 0 0"), Take::Streams).is_none());
    }
}

//! From a command whose keys are on several shards to what [`crate::engine::crossing`] does for it.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::dispatch::{Dispatcher, Flow};
use super::patience;
use super::refusal::{self, fixed};
use super::session::Want;
use crate::engine::crossing::{
    Before, Crossing, Deed, Duplicate, End, Gather, Move, Patience, Rename, SetNew, Shift, Spot,
};
use crate::keyspace::{CommandSpec, Cross, Flag, Topology, Treatment};
use crate::metrics::Family;
use crate::resp::number::parse_i64;
use crate::resp::{Command, build};
use crate::txn::names;
use crate::txn::plan::Misplaced;

/// Why a command is not even begun.
enum Unfit {
    /// Redis would say this.
    Error(String),
    /// There is no way to do it over several shards.
    Shape,
}

impl Dispatcher {
    /// A command with keys on several shards. Like a transaction it waits for what the client has
    /// pipelined before it, and what comes behind it waits for it.
    pub(super) fn cross(&mut self, spec: &CommandSpec, command: &Command<'_>) -> Flow {
        let Treatment::Cross(kind) = spec.treatment else {
            return self.reject_misplaced(spec, Misplaced::CrossSlot);
        };
        if !self.session.is_now(Want::Idle) {
            return Flow::Wait;
        }
        let deed = match self.deed(kind, spec, command) {
            Ok(deed) => deed,
            Err(unfit) => return self.unfit(spec, &unfit),
        };
        let slot = self.session.open_slot();
        let session = Rc::clone(&self.session);
        let crossing = self.crossing(deed);
        let engine = &self.context.engine;
        engine.cross(crossing, move |reply| session.complete(slot, reply));
        self.counted(Family::Split);
        Flow::Bar
    }

    /// BLMOVE, BRPOPLPUSH.
    pub(super) fn cross_patiently(&mut self, spec: &CommandSpec, command: &Command<'_>) -> Flow {
        if !matches!(spec.name.as_str(), "blmove" | "brpoplpush") {
            return self.reject_misplaced(spec, Misplaced::CrossSlot);
        }
        if !self.session.is_now(Want::Idle) {
            return Flow::Wait;
        }
        let deed = match self.deed(Cross::Move, spec, command) {
            Ok(deed) => deed,
            Err(unfit) => return self.unfit(spec, &unfit),
        };
        let limit = patience::limit(&spec.name, command);
        let patience = Patience {
            dry: dry(command, &self.keys),
            until: limit.and_then(|limit| Instant::now().checked_add(limit)),
        };
        let slot = self.session.open_slot();
        let session = Rc::clone(&self.session);
        // From here on CLIENT UNBLOCK finds it.
        let taken = self.berth.get_or_insert_default().take();
        let crossing = self.crossing(deed);
        let (engine, hub) = (&self.context.engine, &self.context.hub);
        let done = move |reply: &[u8]| session.complete(slot, reply);
        self.waiting = Some(engine.cross_patiently(hub, crossing, patience, taken, done));
        self.counted(Family::Write);
        Flow::Bar
    }

    fn crossing(&self, deed: Deed) -> Crossing {
        Crossing {
            links: Rc::clone(&self.links),
            lane: self.lane,
            bytes_max: self.context.config().gather_bytes_max,
            deed,
        }
    }

    fn unfit(&mut self, spec: &CommandSpec, unfit: &Unfit) -> Flow {
        match unfit {
            Unfit::Error(text) => self.reject(text),
            Unfit::Shape => self.reject_misplaced(spec, Misplaced::CrossSlot),
        }
    }
}

impl Dispatcher {
    /// What the command wants done; its keys were found last.
    fn deed(&self, kind: Cross, spec: &CommandSpec, command: &Command<'_>) -> Result<Deed, Unfit> {
        let arg = |at: usize| command.arg(at).unwrap_or_default();
        let spot = |at: usize| spot(&self.context.topology, arg(at));
        Ok(match kind {
            Cross::Move => {
                let has_ends = matches!(spec.name.as_str(), "lmove" | "blmove");
                let (pop, push) = match has_ends {
                    true => (end(arg(3))?, end(arg(4))?),
                    false => (End::Right, End::Left),
                };
                Deed::Move(Move {
                    from: spot(1),
                    to: spot(2),
                    pop,
                    push,
                })
            }
            Cross::Shift => Deed::Shift(Shift {
                from: spot(1),
                to: spot(2),
                member: Bytes::copy_from_slice(arg(3)),
            }),
            Cross::Rename => Deed::Rename(Rename {
                from: spot(1),
                to: spot(2),
                before: match spec.name.as_str() {
                    "renamenx" => Before::Kept,
                    _ => Before::Replaced,
                },
            }),
            Cross::Copy => {
                let (db, before) = self.copy_options(command)?;
                Deed::Copy(Duplicate {
                    from: spot(1),
                    to: spot(2),
                    db,
                    before,
                })
            }
            Cross::SetNew => self.set_new(spec, command)?,
            Cross::Gather => self.gather(spec, command)?,
        })
    }

    /// `COPY from to [DB n] [REPLACE]`, refused as Redis would.
    fn copy_options(&self, command: &Command<'_>) -> Result<(u16, Before), Unfit> {
        let (mut db, mut before) = (self.lane.db, Before::Kept);
        let mut options = command.args().skip(3);
        while let Some(option) = options.next() {
            if option.eq_ignore_ascii_case(b"replace") {
                before = Before::Replaced;
            } else if option.eq_ignore_ascii_case(b"db") {
                let number = options.next().ok_or(Unfit::Error(fixed::SYNTAX.into()))?;
                db = self
                    .database(number)
                    .map_err(|why| Unfit::Error(why.into()))?;
            } else {
                return Err(Unfit::Error(fixed::SYNTAX.into()));
            }
        }
        Ok((db, before))
    }

    fn database(&self, number: &[u8]) -> Result<u16, &'static str> {
        let number = parse_i64(number).ok_or(fixed::NOT_AN_INTEGER)?;
        i32::try_from(number).map_err(|_| fixed::NO_INT)?;
        let db = u16::try_from(number).map_err(|_| fixed::DB_OUT_OF_RANGE)?;
        match db < self.context.server.databases {
            true => Ok(db),
            false => Err(fixed::DB_OUT_OF_RANGE),
        }
    }

    /// MSETNX; of a key that is given twice the last value counts.
    fn set_new(&self, spec: &CommandSpec, command: &Command<'_>) -> Result<Deed, Unfit> {
        if command.argc().is_multiple_of(2) {
            return Err(Unfit::Error(refusal::arity(spec)));
        }
        let mut values = BTreeMap::new();
        let args: Vec<&[u8]> = command.args().skip(1).collect();
        for pair in args.chunks_exact(2) {
            values.insert(pair[0], pair[1]);
        }
        let topology = &self.context.topology;
        let pairs = values.into_iter();
        let pairs = pairs.map(|(key, value)| (spot(topology, key), Bytes::copy_from_slice(value)));
        Ok(Deed::SetNew(SetNew {
            pairs: pairs.collect(),
        }))
    }

    /// On the shard of what is written, or else of most of its keys.
    fn gather(&self, spec: &CommandSpec, command: &Command<'_>) -> Result<Deed, Unfit> {
        let args: Vec<Bytes> = command.args().map(Bytes::copy_from_slice).collect();
        let topology = &self.context.topology;
        let key = |at: &usize| Some((*at, spot(topology, args.get(*at)?)));
        let keys: Vec<(usize, Spot)> = self.keys.iter().filter_map(key).collect();
        let written = written(spec, command, &self.keys)?;
        let shard = |(_, spot): &(usize, Spot)| spot.place.shard;
        let mut homes = keys
            .iter()
            .filter(|(at, _)| written.contains(at))
            .map(shard);
        let home = match homes.next() {
            Some(home) if homes.all(|other| other == home) => home,
            Some(_) => return Err(Unfit::Shape),
            None => {
                let count = |home: &u16| keys.iter().filter(|key| shard(key) == *home).count();
                let most = keys.iter().map(shard).max_by_key(count);
                most.ok_or(Unfit::Shape)?
            }
        };
        Ok(Deed::Gather(Gather { args, keys, home }))
    }
}

fn spot(topology: &Topology, key: &[u8]) -> Spot {
    Spot {
        key: Bytes::copy_from_slice(key),
        place: topology.place_of(key),
    }
}

/// Which of these arguments, all keys, are written.
fn written(spec: &CommandSpec, command: &Command<'_>, keys: &[usize]) -> Result<Vec<usize>, Unfit> {
    if spec.name == "sort" {
        // A pattern with a hash tag counts as a key, but stands for others.
        let word = |at: usize| command.arg(at).unwrap_or_default();
        return match keys {
            [1, store] if word(store - 1).eq_ignore_ascii_case(b"store") => Ok(vec![*store]),
            _ => Err(Unfit::Shape),
        };
    }
    if spec.is(Flag::ReadOnly) {
        return Ok(Vec::new());
    }
    let found = spec.keys.find_with(&spec.accesses, command);
    let found = found.map_err(|_| Unfit::Shape)?;
    let written = found.into_iter().filter(|(_, access)| access.writes);
    Ok(written.map(|(at, _)| at).collect())
}

fn end(word: &[u8]) -> Result<End, Unfit> {
    if word.eq_ignore_ascii_case(b"left") {
        Ok(End::Left)
    } else if word.eq_ignore_ascii_case(b"right") {
        Ok(End::Right)
    } else {
        Err(Unfit::Error(fixed::SYNTAX.into()))
    }
}

/// The command with keys that are never there.
fn dry(command: &Command<'_>, keys: &[usize]) -> Bytes {
    let nothing = [names::PREFIX, b"nothing"].concat();
    let args = command.args().enumerate();
    let args = args.map(|(at, arg)| if keys.contains(&at) { &nothing } else { arg });
    let args: Vec<&[u8]> = args.collect();
    let mut out = BytesMut::new();
    build::command(&mut out, args);
    out.freeze()
}

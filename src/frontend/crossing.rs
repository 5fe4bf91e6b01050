//! From a command whose keys are on several shards to what [`crate::engine::crossing`] does for it.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::dispatch::{Dispatcher, Flow};
use super::patience;
use super::refusal::fixed;
use super::session::Want;
use crate::engine::crossing::{Crossing, Deed, End, Move, Patience, Shift, Spot};
use crate::keyspace::{CommandSpec, Cross, Topology, Treatment};
use crate::metrics::Family;
use crate::resp::{Command, build};
use crate::txn::names;
use crate::txn::plan::Misplaced;

/// Why a command is not even begun.
enum Unfit {
    /// Redis would say this.
    Error(&'static str),
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
        let deed = match deed(kind, spec, command, &self.context.topology) {
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
        let deed = match deed(Cross::Move, spec, command, &self.context.topology) {
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

/// What the command wants done.
fn deed(
    kind: Cross,
    spec: &CommandSpec,
    command: &Command<'_>,
    topology: &Topology,
) -> Result<Deed, Unfit> {
    let arg = |at: usize| command.arg(at).unwrap_or_default();
    let spot = |at: usize| Spot {
        key: Bytes::copy_from_slice(arg(at)),
        place: topology.place_of(arg(at)),
    };
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
    })
}

fn end(word: &[u8]) -> Result<End, Unfit> {
    if word.eq_ignore_ascii_case(b"left") {
        Ok(End::Left)
    } else if word.eq_ignore_ascii_case(b"right") {
        Ok(End::Right)
    } else {
        Err(Unfit::Error(fixed::SYNTAX))
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

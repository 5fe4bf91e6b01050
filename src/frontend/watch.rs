//! WATCH and UNWATCH, and EXEC of a client that watches.
//!
//! Like a transaction over several shards, WATCH overtakes nothing and is overtaken by nothing:
//! it runs on connections of its own, so it waits for what the client has pipelined before it,
//! and what comes behind it waits for it.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;

use super::dispatch::{Dispatcher, Flow};
use super::refusal;
use super::session::Want;
use crate::engine::watching::{Wanted, Watching};
use crate::keyspace::CommandSpec;
use crate::metrics::{ErrorKind, Family, Limit};
use crate::resp::{Command, build};
use crate::txn::names;
use crate::txn::plan::Misplaced;
use crate::txn::queue::Queue;
use crate::txn::types::Part;

impl Dispatcher {
    /// WATCH key …, outside MULTI.
    pub(super) fn watch(&mut self, spec: &CommandSpec, command: &Command<'_>) -> Flow {
        let keys = || command.args().skip(1);
        if keys().any(names::is_reserved) {
            return self.reject_misplaced(spec, Misplaced::Reserved);
        }
        if !self.session.is_now(Want::Idle) {
            return Flow::Wait;
        }
        self.counted(Family::Transaction);
        let watching = Rc::clone(self.watching.get_or_insert_default());
        if watching.is_broken() {
            // As in Redis: EXEC is nil whatever else is watched.
            self.session.reply(|out| build::status(out, "OK"));
            return Flow::Next;
        }
        let max = self.context.config().watched_keys_max;
        if !watching.admit(self.lane.db, keys(), max) {
            watching.break_off();
            self.context.metrics.limits_hit[Limit::WatchedKeys].increment(1);
            return self.reject_as(ErrorKind::Limit, refusal::watched_too_many(max));
        }
        let mut wanted = BTreeMap::<Part, Wanted>::new();
        for key in keys() {
            let place = self.context.topology.place_of(key);
            // What a transaction has to do with a shard it does in database 0.
            let part = Part {
                shard: place.shard,
                db: 0,
            };
            let of_part = wanted.entry(part).or_default();
            of_part.keys.push(Bytes::copy_from_slice(key));
            let slot = of_part.slots.entry(place.slot);
            slot.or_insert_with(|| names::slot(place.slot));
        }
        let (slot, session) = (self.session.open_slot(), Rc::clone(&self.session));
        let engine = &self.context.engine;
        engine.watch(&watching, self.lane, wanted, move |reply| {
            session.complete(slot, reply)
        });
        Flow::Bar
    }

    /// Nothing is watched any more.
    pub(super) fn unwatch(&mut self) {
        if let Some(watching) = self.watching.take() {
            watching.leave();
        }
    }

    /// EXEC of a client that watches.
    pub(super) fn exec_watching(&mut self, watching: &Rc<Watching>, queue: &Queue) -> Flow {
        self.counted(Family::Transaction);
        let (plan, lane) = self.plan(queue, watching.any_shard());
        let done = self.done_entering(lane);
        let (engine, watching) = (Rc::clone(&self.context.engine), Rc::clone(watching));
        self.run_filled(plan, move |plan| {
            engine.transact_conditional(plan, &watching, done);
        })
    }
}

//! What happens when a request runs on a shard.

use bytes::Bytes;
use lockstep::txn::participant::{Participant, Promise};
use lockstep::txn::*;

use super::bugs::{Bug, id, part};
use super::model::Protocol;
use super::shared::Shared;
use super::world::*;

/// Lock TTL.
pub(crate) const TTL: Millis = 1;
/// How long after its start, or its deadline, a transaction may create records.
pub(crate) const WINDOW: Millis = 1;
/// How long markers and tombstones live. One more instant than this, since they go *after* it.
pub(crate) const RETENTION: Millis = 1;
/// How long what a machine has seen is good for.
pub(crate) const GIVE_UP: Millis = 2;

/// The key of every branch.
pub(crate) fn key() -> Bytes {
    Bytes::from_static(b"k")
}

impl Protocol {
    /// Runs `request` in one atomic step. Watching of records is kept up, and the truth.
    pub(crate) fn run(&self, world: &mut World, request: Request) -> Event {
        let (at, id) = (request.at, id(request.txn));
        let before = world.shards[at].clone();
        let event = match request.op {
            Op::Exec => self.exec(world, request),
            op => {
                let mut shard = (*before).clone();
                let event = self.operate(&mut shard, world.now, request.txn, at, op);
                world.shards[at] = Shared::new(shard);
                event
            }
        };
        if request.txn == 0 && before.records.get(&id) != world.shards[at].records.get(&id) {
            self.touch_record(world, at);
        }
        if matches!(event, Event::Applied(_, Applied::Now)) {
            self.applied(world, request, &before);
        }
        self.check_others(world, request, &before);
        self.observe(world, &event, request);
        event
    }

    fn operate(&self, shard: &mut Participant, now: Millis, txn: Txn, at: usize, op: Op) -> Event {
        let (id, part) = (id(txn), part(at));
        let leave = |marker| {
            if marker {
                Leave::Marker
            } else {
                Leave::Nothing
            }
        };
        match op {
            Op::Prepare { not_after } => {
                Event::Voted(part, self.prepare(shard, now, txn, not_after))
            }
            Op::Apply => {
                let answer = shard.apply(now, &id);
                if let (Some(Bug::MarkerAtApply), Some(entry)) =
                    (self.bug, shard.records.get_mut(&id))
                {
                    entry.expires_ms = entry.expires_ms.or(Some(now + RETENTION));
                }
                Event::Applied(part, answer)
            }
            Op::Abort { marker, tombstone } => {
                let tombstone = tombstone.filter(|_| self.bug != Some(Bug::NoTombstone));
                let answer = shard.abort(now, &id, leave(marker), tombstone, RETENTION);
                Event::Aborted(part, answer)
            }
            Op::Tombstone { not_after } => {
                Event::Aborted(part, self.tombstone(shard, now, &id, not_after))
            }
            Op::Read => Event::Read(part, shard.read(now, &id)),
            Op::Release { marker } => {
                if self.bug == Some(Bug::ReleaseWithoutOwner) {
                    shard.locks.clear();
                    shard.index.clear();
                    shard.settling.clear();
                }
                Event::Released(part, shard.release(now, &id, leave(marker), RETENTION))
            }
            Op::Exec => unreachable!("not on its own"),
        }
    }

    fn prepare(&self, shard: &mut Participant, now: Millis, txn: Txn, not_after: Millis) -> Vote {
        // The second transaction is always in time, whenever it runs.
        let ttl_ms = if txn == 0 { TTL } else { self.end + 1 - now };
        let id = &id(txn);
        let promise = Promise {
            keys: vec![key()],
            watched: Vec::new(),
            participants: (0..self.parts).map(part).collect(),
            rule: self.rule,
            ttl_ms,
            not_after_ms: not_after,
        };
        if self.bug != Some(Bug::PrepareIgnoresIndex) {
            return shard.prepare(now, id, &promise);
        }
        let index = std::mem::take(&mut shard.index);
        let vote = shard.prepare(now, id, &promise);
        for (key, owner) in index {
            shard.index.entry(key).or_insert(owner);
        }
        vote
    }

    fn tombstone(
        &self,
        shard: &mut Participant,
        now: Millis,
        id: &TxnId,
        until: Millis,
    ) -> Aborted {
        match self.bug {
            Some(Bug::NoTombstone) => Aborted::Done,
            Some(Bug::BlindTombstone) => {
                shard.records.remove(id);
                shard.tombstone(now, id, until, RETENTION)
            }
            _ => shard.tombstone(now, id, until, RETENTION),
        }
    }

    /// MULTI, mark, commands, EXEC on the connection that watches the record. Redis checks the
    /// WATCH and nothing else; what is marked is whatever is there.
    fn exec(&self, world: &mut World, request: Request) -> Event {
        let (at, id) = (request.at, id(request.txn));
        let deciding = self.rule == Rule::Decider(part(at));
        let pin = std::mem::replace(&mut world.pins[at], Pin::None);
        let blind = deciding && self.bug == Some(Bug::DeciderUnwatched);
        let mut shard = (*world.shards[at]).clone();
        shard.expire(world.now);
        if (pin != Pin::Clean && !blind) || (deciding && world.touched) {
            return Event::Applied(part(at), Applied::Not(shard.state(&id)));
        }
        if let Some(entry) = shard.records.get_mut(&id) {
            if entry.state != State::Prepared {
                world.flag(Violation::AppliedUnprepared);
            }
            entry.state = State::Applied;
            for key in &entry.keys {
                shard.settling.insert(key.clone(), id.clone());
            }
        } else {
            world.flag(Violation::AppliedUnprepared);
        }
        world.shards[at] = Shared::new(shard);
        Event::Applied(part(at), Applied::Now)
    }

    /// The record has changed, so who watches it gets nil.
    pub(crate) fn touch_record(&self, world: &mut World, at: usize) {
        if world.pins[at] == Pin::Clean {
            world.pins[at] = Pin::Dirty;
        }
    }

    fn applied(&self, world: &mut World, request: Request, before: &Participant) {
        let (txn, at) = (request.txn, request.at);
        if before.state(&id(txn)) != Some(State::Prepared) {
            world.flag(Violation::AppliedUnprepared);
        }
        if !world.truths[txn].were_all_prepared() {
            world.flag(Violation::AppliedBeforeAllPrepared);
        }
        let half = |truth: &Truth| truth.any_applied() && !truth.all_applied();
        let others = world.truths.iter().enumerate();
        if others
            .filter(|(other, _)| *other != txn)
            .any(|(_, truth)| half(truth))
        {
            world.flag(Violation::Interleaved);
        }
        if txn == 0 && world.touched && self.rule == Rule::Decider(part(at)) {
            world.flag(Violation::AppliedOverWrite);
        }
        world.truths[txn].saw_applied(at);
    }

    /// Index and settling entries of others, and their locks that live, are as they were.
    fn check_others(&self, world: &mut World, request: Request, before: &Participant) {
        let (me, after) = (id(request.txn), &world.shards[request.at]);
        let kept = |from: &std::collections::BTreeMap<Bytes, TxnId>, to: &_| {
            let mut theirs = from.iter().filter(|(_, owner)| **owner != me);
            theirs.all(|(key, owner)| std::collections::BTreeMap::get(to, key) == Some(owner))
        };
        let mut locks = before.locks.iter();
        let locks_kept = locks.all(|(key, lock)| {
            lock.0 == me || lock.1 < world.now || after.locks.get(key) == Some(lock)
        });
        if !locks_kept
            || !kept(&before.index, &after.index)
            || !kept(&before.settling, &after.settling)
        {
            world.flag(Violation::TookAnothers);
        }
    }

    /// Brings the truth up to date with the records.
    fn observe(&self, world: &mut World, event: &Event, request: Request) {
        self.see_event(world, event, request);
        let id = id(request.txn);
        let state = world.shards[request.at].state(&id);
        let states = world.shards.iter().map(|shard| shard.state(&id));
        let standing = |state| matches!(state, Some(State::Prepared | State::Applied));
        let all = states.filter(|state| standing(*state)).count() == self.parts;
        let truth = &mut world.truths[request.txn];
        if state == Some(State::Prepared) {
            truth.saw_prepared(request.at);
        }
        truth.aborted |= state == Some(State::Aborted);
        truth.all_prepared |= all;
    }
}

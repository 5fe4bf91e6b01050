//! Single commands whose keys are on several shards, and which no split could serve: what is
//! written on one depends on what is read on another.
//!
//! Each becomes an optimistic transaction: what its outcome depends on is read, the commands for
//! each shard follow from that, and they are committed under the decider rule if what was read is
//! still so. If not, it begins again, until `lock-wait` has passed. Then the client is told that
//! nothing was applied.
//!
//! # Why nothing written is lost
//!
//! The shard that gives something away is the **decider**. Its commit point *is* the step that
//! takes it, and the same step looks whether it is still what was read: by a condition that the
//! script `apply` checks ([`crate::txn::condition`]), so that a list may be pushed to all the time
//! while its other end is popped; or by a WATCH, where what is read is a whole value. No plain
//! command can come between. What the other shard must be like (of a type that takes the element,
//! or without the key) is asked there behind the prepare, under the locks, before the decider is
//! asked to commit. A transaction of others over several shards cannot come between that and the
//! apply; a plain command can, for two round trips:
//!
//! * LMOVE, SMOVE and their kin: if it makes the destination a key of another type just then, the
//!   element is gone with the list it would have been pushed to, as if the move had come before.
//! * RENAMENX, COPY, MSETNX: replies to plain commands in those slots are held from the prepare
//!   on, so one that creates the destination counts as coming behind, and its value stays. With
//!   `fence = on` there is no such moment.
//!
//! # What is answered without a transaction
//!
//! What one key tells, by a held read like any other: an empty source, one of the wrong type.
//! What takes two to tell (an error for the destination's type needs a source that is there) is
//! read as a transaction.
//!
//! # Order
//!
//! In one process crossings that share a slot come one after the other, in order, and read when it
//! is their turn: they do not outrun each other.

mod block;
mod fresh;
mod gather;
mod moves;
mod names;
mod trip;
mod values;

use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;

use super::lanes::Links;
use super::{Engine, errors, wakeups};
use crate::backend::Failure;
use crate::keyspace::Place;
use crate::metrics::Limit;
use crate::resp::Lane;
use crate::traces::Trace;
use crate::txn::Part;
pub use block::Patience;
pub use fresh::SetNew;
pub use gather::Gather;
use gather::gather_limit;
pub use moves::{End, Move, Shift};
pub use names::{Before, Duplicate, Rename};
use trip::Trip;

/// A key, and where it is.
#[derive(Clone, Debug)]
pub struct Spot {
    /// The key.
    pub key: Bytes,
    /// Its slot and shard.
    pub place: Place,
}

impl Spot {
    /// The participant.
    fn part(&self) -> Part {
        self.in_db(0)
    }

    /// Where its commands run.
    fn in_db(&self, db: u16) -> Part {
        Part {
            shard: self.place.shard,
            db,
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Deed {
    /// LMOVE, RPOPLPUSH.
    Move(Move),
    /// SMOVE.
    Shift(Shift),
    /// RENAME, RENAMENX.
    Rename(Rename),
    /// COPY.
    Copy(Duplicate),
    /// MSETNX.
    SetNew(SetNew),
    /// What reads keys of several shards, and writes on one or none.
    Gather(Gather),
}

/// A command over several shards, of one client.
#[derive(Clone)]
pub struct Crossing {
    /// The client's links.
    pub links: Links,
    /// Its protocol and database.
    pub lane: Lane,
    /// How many bytes of values it may carry from shard to shard.
    pub bytes_max: usize,
    /// The command.
    pub deed: Deed,
}

/// How a try ended: with a reply, or with nothing applied and everything to be read again. A
/// failure is one of reading.
type Tried = Result<Option<Bytes>, Failure>;

impl Crossing {
    fn spots(&self) -> Vec<&Spot> {
        match &self.deed {
            Deed::Move(Move { from, to, .. })
            | Deed::Shift(Shift { from, to, .. })
            | Deed::Rename(Rename { from, to, .. })
            | Deed::Copy(Duplicate { from, to, .. }) => vec![from, to],
            Deed::SetNew(deed) => deed.pairs.iter().map(|(spot, _)| spot).collect(),
            Deed::Gather(deed) => deed.keys.iter().map(|(_, spot)| spot).collect(),
        }
    }

    async fn attempt(&self, trip: &Trip<'_>) -> Tried {
        match &self.deed {
            Deed::Move(deed) => deed.attempt(trip).await,
            Deed::Shift(deed) => deed.attempt(trip).await,
            Deed::Rename(deed) => deed.attempt(trip).await,
            Deed::Copy(deed) => deed.attempt(trip).await,
            Deed::SetNew(deed) => deed.attempt(trip).await,
            Deed::Gather(deed) => deed.attempt(trip).await,
        }
    }
}

impl Engine {
    /// Runs a command over several shards, and calls `done` once with its reply.
    pub fn cross(self: &Rc<Self>, crossing: Crossing, done: impl FnOnce(&[u8]) + 'static) {
        let (engine, trace) = (Rc::clone(self), self.trace());
        self.active.set(self.active.get() + 1);
        tokio::task::spawn_local(async move {
            done(&engine.cross_over(&crossing, trace).await);
            engine.active.set(engine.active.get() - 1);
        });
    }

    async fn cross_over(self: &Rc<Self>, crossing: &Crossing, trace: Option<Rc<Trace>>) -> Bytes {
        let (began, limit) = (Instant::now(), self.times.lock_wait.get());
        let spots = crossing.spots();
        let slots: Vec<String> = spots.iter().map(|s| s.place.slot.to_string()).collect();
        let slots = slots.iter().map(String::as_bytes);
        let Some(ticket) = self.turnstile.pass(slots, limit).await else {
            self.metrics.limits_hit[Limit::LockWait].increment(1);
            return errors::waited_too_long(super::Answer::Parts, limit).freeze();
        };
        let trip = Trip::new(self, crossing, ticket, began, trace);
        let mut tries = 0;
        loop {
            match crossing.attempt(&trip).await {
                Ok(Some(reply)) => return reply,
                Ok(None) => {}
                Err(failure) => return self.not_read(failure),
            }
            tries += 1;
            let wait = wakeups::backoff(tries);
            if began.elapsed() + wait > limit {
                self.metrics.limits_hit[Limit::LockWait].increment(1);
                return errors::outrun(limit).freeze();
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// A read has failed, so nothing was done.
    fn not_read(&self, failure: Failure) -> Bytes {
        let (Failure::NeverSent(cause) | Failure::MaybeSent(cause)) = failure;
        self.failed(&Failure::NeverSent(cause))
    }
}

//! One element from a list or set to another: LMOVE, RPOPLPUSH, SMOVE.

use bytes::{Bytes, BytesMut};

use super::trip::{Ended, Trip, WRONGTYPE};
use super::{Spot, Tried};
use crate::engine::conditional::Guard;
use crate::resp::{self, build};
use crate::txn::condition::Condition;

/// An end of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Its head.
    Left,
    /// Its tail.
    Right,
}

impl End {
    fn index(self) -> &'static [u8] {
        match self {
            Self::Left => b"0",
            Self::Right => b"-1",
        }
    }

    fn pop(self) -> &'static [u8] {
        match self {
            Self::Left => b"LPOP",
            Self::Right => b"RPOP",
        }
    }

    fn push(self) -> &'static [u8] {
        match self {
            Self::Left => b"LPUSH",
            Self::Right => b"RPUSH",
        }
    }
}

/// From one end of a list to one end of another.
#[derive(Clone, Debug)]
pub struct Move {
    /// The list that gives.
    pub from: Spot,
    /// The list that takes.
    pub to: Spot,
    /// The end that gives.
    pub pop: End,
    /// The end that takes.
    pub push: End,
}

impl Move {
    pub(super) async fn attempt(&self, trip: &Trip<'_>) -> Tried {
        let look = [b"LINDEX", &self.from.key[..], self.pop.index()];
        let seen = trip.read(&self.from, &look).await?;
        let Some(element) = resp::as_bulk(&seen) else {
            // Nil or an error, as for the command itself.
            return Ok(Some(seen));
        };
        let mut plan = trip.plan();
        trip.add(&mut plan, &self.from, &[self.pop.pop(), &self.from.key]);
        let push = [self.push.push(), &self.to.key, element];
        trip.add(&mut plan, &self.to, &push);
        let still = Condition::new(trip.db()).and(&look, &[element]);
        plan.require(self.from.part(), still, &[]);
        plan.require(self.to.part(), takes(trip, &self.to, b"list"), &[]);
        let guard = Guard::of_condition(self.from.part());
        match trip.commit(plan, Some(guard)).await {
            Ended::Done(_) => {
                let mut reply = BytesMut::new();
                build::bulk(&mut reply, element);
                Ok(Some(reply.freeze()))
            }
            Ended::Failed(error) => Ok(Some(error)),
            Ended::Broken => self.explain(trip, &look).await,
        }
    }

    /// Why it cannot be, if it is the destination that is wrong.
    async fn explain(&self, trip: &Trip<'_>, look: &[&[u8]]) -> Tried {
        let of_type = [b"TYPE", &self.to.key[..]];
        if is_one_of(&trip.read(&self.to, &of_type).await?, b"list") {
            return Ok(None);
        }
        let reads = [(&self.from, look), (&self.to, &of_type[..])];
        Ok(match trip.read_together(&reads).await {
            Err(error) => Some(error),
            Ok(replies) => match &replies[..] {
                [seen, _] if resp::as_bulk(seen).is_none() => Some(seen.clone()),
                [_, kind] if !is_one_of(kind, b"list") => Some(Bytes::from_static(WRONGTYPE)),
                _ => None,
            },
        })
    }
}

/// A member from one set to another.
#[derive(Clone, Debug)]
pub struct Shift {
    /// The set that gives.
    pub from: Spot,
    /// The set that takes.
    pub to: Spot,
    /// The member.
    pub member: Bytes,
}

impl Shift {
    pub(super) async fn attempt(&self, trip: &Trip<'_>) -> Tried {
        let look = [b"SISMEMBER", &self.from.key[..], &self.member];
        let seen = trip.read(&self.from, &look).await?;
        if resp::is_error(&seen) {
            return Ok(Some(seen));
        }
        if resp::as_int(&seen) != Some(1) {
            return self.explain(trip, &look).await;
        }
        let mut plan = trip.plan();
        let take = [b"SREM", &self.from.key[..], &self.member];
        trip.add(&mut plan, &self.from, &take);
        let give = [b"SADD", &self.to.key[..], &self.member];
        trip.add(&mut plan, &self.to, &give);
        let still = Condition::new(trip.db()).and(&look, &[b"1"]);
        plan.require(self.from.part(), still, &[]);
        plan.require(self.to.part(), takes(trip, &self.to, b"set"), &[]);
        let guard = Guard::of_condition(self.from.part());
        match trip.commit(plan, Some(guard)).await {
            Ended::Done(_) => Ok(Some(Bytes::from_static(b":1\r\n"))),
            Ended::Failed(error) => Ok(Some(error)),
            Ended::Broken => self.explain(trip, &look).await,
        }
    }

    /// Why it cannot be, in the order in which Redis looks; None if it can, by now.
    async fn explain(&self, trip: &Trip<'_>, look: &[&[u8]]) -> Tried {
        let exists = [b"EXISTS", &self.from.key[..]];
        if resp::as_int(&trip.read(&self.from, &exists).await?) == Some(0) {
            return Ok(Some(Bytes::from_static(b":0\r\n")));
        }
        let of_type = [b"TYPE", &self.to.key[..]];
        let reads = [
            (&self.from, &exists[..]),
            (&self.from, look),
            (&self.to, &of_type),
        ];
        Ok(match trip.read_together(&reads).await {
            Err(error) => Some(error),
            Ok(replies) => match &replies[..] {
                [exists, ..] if resp::as_int(exists) == Some(0) => Some(exists.clone()),
                [_, seen, _] if resp::is_error(seen) => Some(seen.clone()),
                [_, _, kind] if !is_one_of(kind, b"set") => Some(Bytes::from_static(WRONGTYPE)),
                [_, seen, _] if resp::as_int(seen) == Some(0) => Some(seen.clone()),
                _ => None,
            },
        })
    }
}

/// What takes an element must be of this type, or not there.
fn takes(trip: &Trip<'_>, to: &Spot, kind: &[u8]) -> Condition {
    Condition::new(trip.db()).and(&[b"TYPE", &to.key], &[kind, b"none"])
}

/// Whether the reply to TYPE is this, or that there is no key.
fn is_one_of(reply: &[u8], kind: &[u8]) -> bool {
    resp::as_status(reply).is_some_and(|found| found == kind || found == b"none")
}

//! Shared connections by protocol and database.
//!
//! Every shard has one link in the first lane (RESP2, database 0). Those of other lanes are
//! opened when the first client needs them, and closed when none has needed them for a while.
//! A link stays in its lane: were it switched to and fro between the commands of different
//! clients, a server that is busy with a slow script could refuse the SELECT and then run what
//! stands behind it, in the wrong database.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::{AbortHandle, spawn_local};

use super::Engine;
use crate::backend::{Cause, Failure, Link};
use crate::resp::Lane;

/// The links of one lane, by shard.
pub type Links = Rc<[Rc<Link>]>;

/// Lanes of a worker at most: both protocols in the 16 databases that a server has by default,
/// and some more.
const LANES_MAX: usize = 64;
/// A lane that nobody has needed for so long is closed.
const UNUSED_MAX: Duration = Duration::from_secs(30);

/// The shared connections of a worker.
pub(super) struct Lanes {
    first: Links,
    others: RefCell<HashMap<Lane, Open>>,
}

/// A lane that can be closed.
struct Open {
    links: Links,
    tasks: Vec<AbortHandle>,
    unused_since: Option<Instant>,
}

impl Open {
    fn new(first: &Links, lane: Lane) -> Self {
        let links: Links = first.iter().map(|link| link.sibling(lane)).collect();
        let run = |link: &Rc<Link>| spawn_local(Rc::clone(link).run()).abort_handle();
        Self {
            tasks: links.iter().map(run).collect(),
            links,
            unused_since: None,
        }
    }

    /// Whether somebody holds the lane, or a reply is owed over it.
    fn is_used(&self) -> bool {
        Rc::strong_count(&self.links) > 1 || !self.links.iter().all(|link| link.is_idle())
    }

    fn is_left(&mut self, now: Instant) -> bool {
        if self.is_used() {
            self.unused_since = None;
            return false;
        }
        let since = *self.unused_since.get_or_insert(now);
        now.saturating_duration_since(since) >= UNUSED_MAX
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Lanes {
    /// With these links of the first lane, which run already.
    pub(super) fn new(first: Links) -> Self {
        Self {
            first,
            others: RefCell::default(),
        }
    }

    fn of(&self, lane: Lane) -> Option<Links> {
        if lane == Lane::FIRST {
            return Some(Rc::clone(&self.first));
        }
        let mut others = self.others.borrow_mut();
        if let Some(open) = others.get(&lane) {
            return Some(Rc::clone(&open.links));
        }
        if others.len() >= LANES_MAX {
            return None;
        }
        let open = Open::new(&self.first, lane);
        let links = Rc::clone(&open.links);
        others.insert(lane, open);
        Some(links)
    }

    /// Closes what nobody needs any more. Called now and then.
    pub(super) fn close_unused(&self, now: Instant) {
        let mut others = self.others.borrow_mut();
        others.retain(|_, open| !open.is_left(now));
    }

    /// Over every link.
    pub(super) fn sum(&self, of: impl Fn(&Link) -> usize) -> usize {
        let sum = std::cell::Cell::new(0);
        self.each(|link| sum.set(sum.get() + of(link)));
        sum.get()
    }

    /// Every link.
    pub(super) fn each(&self, act: impl Fn(&Link)) {
        let others = self.others.borrow();
        let all = others.values().map(|open| &open.links).chain([&self.first]);
        all.flat_map(|links| links.iter())
            .for_each(|link| act(link));
    }
}

impl Engine {
    /// The links of the first lane.
    pub fn first_links(&self) -> Links {
        Rc::clone(&self.lanes.first)
    }

    /// Bytes that wait to be written to shards.
    pub fn unwritten(&self) -> usize {
        self.lanes.sum(|link| link.unwritten())
    }

    /// The links of a lane, opened if need be; None when too many lanes are in use.
    pub fn links_of(&self, lane: Lane) -> Option<Links> {
        self.lanes.of(lane)
    }
}

/// Why [`Engine::links_of`] gave none.
pub fn too_many() -> Failure {
    Failure::NeverSent(Cause::of_limit(format!(
        "clients of this lockstep use {LANES_MAX} combinations of protocol and database already"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::link::{LinkOptions, LinkValues};
    use crate::backend::{Access, Busy, Credentials, Dial};
    use crate::config::Address;
    use crate::metrics::Metrics;
    use crate::resp::Limits;
    use crate::turn::Turn;

    /// A link to a shard that is never there.
    fn first() -> Links {
        let dial = Dial {
            tls: None,
            address: "127.0.0.1:1".to_owned(),
            access: Access::new(Credentials {
                user: String::new(),
                password: String::new(),
                connect_timeout: Duration::from_millis(1),
            }),
            scripts: Rc::new([]),
            member: None,
            busy: Busy::default(),
        };
        let options = LinkOptions::new(LinkValues {
            request_timeout: Duration::from_secs(1),
            backoff: (Duration::from_secs(1), Duration::from_secs(1)),
            inflight_max: 1,
            unwritten_bytes_max: 1,
            wait_max: Duration::ZERO,
            limits: Limits::default(),
        });
        let metrics = Metrics::new(&[Address::new("127.0.0.1", 1)]).unwrap();
        let metrics = metrics.shards[0].clone();
        let turn = Rc::new(Turn::default());
        Rc::new([Link::new(dial, Lane::FIRST, options, turn, metrics)])
    }

    /// Connections are opened for clients that are there, and not kept for ever.
    #[tokio::test]
    async fn lanes_are_bounded_and_closed_when_nobody_needs_them() {
        tokio::task::LocalSet::new()
            .run_until(open_and_close())
            .await;
    }

    async fn open_and_close() {
        let lanes = Lanes::new(first());
        let lane = |db| Lane { db, ..Lane::FIRST };
        let used = lanes.of(lane(1)).unwrap();
        let others: Vec<Links> = (2..=64).map(|db| lanes.of(lane(db)).unwrap()).collect();
        assert!(lanes.of(lane(65)).is_none() && lanes.of(lane(64)).is_some());
        drop(others);
        let now = Instant::now();
        lanes.close_unused(now);
        lanes.close_unused(now + UNUSED_MAX / 2);
        assert_eq!(lanes.others.borrow().len(), 64);
        lanes.close_unused(now + UNUSED_MAX);
        assert!(lanes.others.borrow().keys().eq([&lane(1)]));
        assert!(Rc::ptr_eq(&used, &lanes.of(lane(1)).unwrap()));
        let weak = Rc::downgrade(&used[0]);
        drop(used);
        lanes.close_unused(now + UNUSED_MAX);
        lanes.close_unused(now + UNUSED_MAX * 2);
        tokio::task::yield_now().await;
        assert!(weak.upgrade().is_none(), "its task runs on");
    }
}

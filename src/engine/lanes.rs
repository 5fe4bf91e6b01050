//! Shared connections by protocol and database.
//!
//! Every shard has one link in the first lane (RESP2, database 0). Those of other lanes are
//! opened when the first client needs them, and stay.
//! A link stays in its lane: were it switched to and fro between the commands of different
//! clients, a server that is busy with a slow script could refuse the SELECT and then run what
//! stands behind it, in the wrong database.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use tokio::task::spawn_local;

use super::Engine;
use crate::backend::{Cause, Failure, Link};
use crate::resp::Lane;

/// The links of one lane, by shard.
pub type Links = Rc<[Rc<Link>]>;

/// Lanes of a worker at most: both protocols in the 16 databases that a server has by default,
/// and some more.
const LANES_MAX: usize = 64;

/// The shared connections of a worker.
pub(super) struct Lanes {
    first: Links,
    others: RefCell<HashMap<Lane, Links>>,
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
        if let Some(links) = others.get(&lane) {
            return Some(Rc::clone(links));
        }
        if others.len() >= LANES_MAX {
            return None;
        }
        let open = |link: &Rc<Link>| {
            let link = link.sibling(lane);
            spawn_local(Rc::clone(&link).run());
            link
        };
        let links: Links = self.first.iter().map(open).collect();
        others.insert(lane, Rc::clone(&links));
        Some(links)
    }

    /// Every link.
    pub(super) fn each(&self, act: impl Fn(&Link)) {
        let others = self.others.borrow();
        let all = others.values().chain([&self.first]);
        all.flat_map(|links| links.iter())
            .for_each(|link| act(link));
    }
}

impl Engine {
    /// The links of the first lane.
    pub fn first_links(&self) -> Links {
        Rc::clone(&self.lanes.first)
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

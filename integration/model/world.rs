//! The state of the model: shards, machines, the network between them, and the truth.

use lockstep::txn::coordinator::Coordinator;
use lockstep::txn::participant::Participant;
use lockstep::txn::recovery::Recoverer;
use lockstep::txn::*;

use super::shared::Shared;

/// A transaction of the model: its place in all arrays.
pub(crate) type Txn = usize;

/// What a participant is asked, in a form that has an order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) enum Op {
    Prepare {
        not_after: Millis,
    },
    /// EXEC on the connection that watches the record (and, for the decider, the client's keys).
    Exec,
    Apply,
    Abort {
        marker: bool,
        tombstone: Option<Millis>,
    },
    Tombstone {
        not_after: Millis,
    },
    Read,
    Release {
        marker: bool,
    },
}

/// One request to one participant for one transaction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Request {
    pub(crate) txn: Txn,
    pub(crate) at: usize,
    pub(crate) op: Op,
}

/// How far a request has come.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Stage {
    Sent,
    /// Prepared; WATCH and the look behind it, in the same write, have not run yet.
    Prepared,
    /// It has run at that instant; the answer is on its way until a later one.
    Answered(Millis, Event),
}

/// A request whose answer a machine waits for; at most one for each participant.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Call {
    pub(crate) request: Request,
    pub(crate) stage: Stage,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Machine {
    /// A recoverer that has not met anything yet.
    Idle,
    Coordinator(Coordinator),
    Recoverer(Recoverer),
    Over,
}

/// A process: one machine and what it waits for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Actor {
    pub(crate) txn: Txn,
    pub(crate) machine: Machine,
    pub(crate) timer: Option<Millis>,
    pub(crate) calls: Vec<Call>,
    /// Where it has read that there is no record; for a planted bug.
    pub(crate) absent: Vec<Part>,
}

impl Actor {
    pub(crate) fn idle() -> Self {
        Self {
            txn: 0,
            machine: Machine::Idle,
            timer: None,
            calls: Vec::new(),
            absent: Vec::new(),
        }
    }
}

/// The first coordinator's connection to a participant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Pin {
    None,
    /// It watches the record, which has not changed since.
    Clean,
    /// The record has changed: EXEC will be nil.
    Dirty,
}

/// The second transaction: nothing of it is ever lost or late, and nobody but its coordinator
/// ends it, so few steps are enough to stand in every way of the first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Second {
    /// It has prepared that many branches.
    Preparing(usize),
    Over,
}

/// What the client was told.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Told {
    Nothing,
    Committed,
    RepliesLost,
    Aborted,
    Nil,
    Unknown,
}

/// The most participants there are in any model.
pub(crate) const PARTS_MAX: usize = 3;

/// What is true of a transaction, seen from nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Truth {
    parts: usize,
    /// How often each branch was applied.
    times: [u8; PARTS_MAX],
    /// Which branches were ever prepared.
    prepared: [bool; PARTS_MAX],
    /// All branches were prepared (or further) at the same instant.
    pub(crate) all_prepared: bool,
    /// Some record was ever `aborted`.
    pub(crate) aborted: bool,
    pub(crate) told: Told,
}

impl Truth {
    pub(crate) fn new(parts: usize) -> Self {
        Self {
            parts,
            times: [0; PARTS_MAX],
            prepared: [false; PARTS_MAX],
            all_prepared: false,
            aborted: false,
            told: Told::Nothing,
        }
    }

    /// How often each branch was applied.
    pub(crate) fn applied(&self) -> &[u8] {
        &self.times[..self.parts]
    }

    pub(crate) fn saw_applied(&mut self, at: usize) {
        self.times[at] = self.times[at].saturating_add(1);
    }

    pub(crate) fn saw_prepared(&mut self, at: usize) {
        self.prepared[at] = true;
    }

    /// Whether every branch was prepared at some time.
    pub(crate) fn were_all_prepared(&self) -> bool {
        self.prepared[..self.parts].iter().all(|prepared| *prepared)
    }

    pub(crate) fn any_applied(&self) -> bool {
        self.applied().iter().any(|&times| times > 0)
    }

    pub(crate) fn all_applied(&self) -> bool {
        self.applied().iter().all(|&times| times > 0)
    }
}

/// What must never happen and is seen only in the step in which it does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Violation {
    /// A branch applied before every participant was prepared.
    AppliedBeforeAllPrepared,
    /// A branch applied that was not prepared at that moment.
    AppliedUnprepared,
    /// An entry of another transaction removed.
    TookAnothers,
    /// A transaction applied amid another one that is half applied.
    Interleaved,
    /// The decider applied although a watched key had changed.
    AppliedOverWrite,
    /// A machine said that it was committed, or aborted, and it was not.
    Lied,
    /// A machine said that nothing was left, and something was.
    LeftBehind,
    /// A machine found records that contradict its decision.
    Contradicted,
}

/// A state of the model.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct World {
    pub(crate) now: Millis,
    pub(crate) shards: Vec<Shared<Participant>>,
    /// The first is the coordinator of the first transaction, the others are recoverers.
    pub(crate) actors: Vec<Shared<Actor>>,
    pub(crate) second: Second,
    pub(crate) pins: [Pin; PARTS_MAX],
    /// The client's watched key on the decider has been written from outside.
    pub(crate) touched: bool,
    /// Requests that nobody waits for, or that the network repeats: they may run at any time.
    /// In order, each once.
    pub(crate) ghosts: Vec<Request>,
    pub(crate) truths: [Truth; 2],
    pub(crate) violation: Option<Violation>,
}

impl World {
    /// Adds a ghost.
    pub(crate) fn haunt(&mut self, request: Request) {
        if let Err(at) = self.ghosts.binary_search(&request) {
            self.ghosts.insert(at, request);
        }
    }

    pub(crate) fn flag(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }
}

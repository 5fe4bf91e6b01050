//! What the state machines of a transaction are told, and what they ask for.
//!
//! A machine ([`Coordinator`](super::coordinator::Coordinator),
//! [`Recoverer`](super::recovery::Recoverer)) never waits: its driver calls `step` with an
//! [`Event`] and carries out the [`Action`]s it gets, in their order. The contract:
//!
//! - Every action that names a participant is answered by **exactly one** event that names the
//!   same participant, sooner or later: `Unknown` or [`Reading::Unreachable`] when the driver's
//!   own time limit passes. A machine asks a participant for one thing at a time.
//! - There is one timer. [`Action::SetTimer`] replaces it; [`Event::Timer`] may come at that time
//!   or later.
//! - `now` is a monotonic clock of the driver's process and never goes back.
//! - After [`Action::Done`] nothing more will be asked; answers still on their way are dropped.
//!   Dropping a machine before that is what a crash does: always safe, and work for recovery.
//!
//! Requests may be lost, late, and (all but prepare) repeated on their way.

use super::types::*;

/// What happened.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// Answer to [`Action::Prepare`].
    Voted(Part, Vote),
    /// Answer to [`Action::Apply`].
    Applied(Part, Applied),
    /// Answer to [`Action::Abort`] or [`Action::Tombstone`].
    Aborted(Part, Aborted),
    /// Answer to [`Action::Release`].
    Released(Part, Released),
    /// Answer to [`Action::Read`].
    Read(Part, Reading),
    /// The time last asked for with [`Action::SetTimer`] has come.
    Timer,
}

/// What reading a record gave.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Reading {
    /// There is one.
    Found(Record),
    /// The participant answered that it has none.
    Absent,
    /// No answer.
    Unreachable,
}

/// What must be done.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Prepare the branch; the shard refuses when its own clock is past `not_after_ms`.
    /// Never to be sent twice, whatever happens to the connection.
    Prepare {
        /// Whose branch.
        part: Part,
        /// By the shard's clock.
        not_after_ms: Millis,
    },
    /// Apply the branch if it is prepared.
    Apply {
        /// Whose branch.
        part: Part,
        /// How.
        way: Way,
    },
    /// Abort the branch if it is prepared.
    Abort {
        /// Whose branch.
        part: Part,
        /// What a prepared record leaves.
        leave: Leave,
        /// Where there is no record: write a tombstone, unless the shard's clock is past this.
        /// None: write nothing (abort-if-present).
        tombstone: Option<Millis>,
    },
    /// Where there is no record write a tombstone, unless the shard's clock is past
    /// `not_after_ms`. A record of any state is left as it is.
    Tombstone {
        /// Where.
        part: Part,
        /// By the shard's clock.
        not_after_ms: Millis,
    },
    /// Read the record.
    Read {
        /// Where.
        part: Part,
    },
    /// Drop locks, index and settling entries; the record goes or stays as a marker.
    Release {
        /// Where.
        part: Part,
        /// What stays.
        leave: Leave,
    },
    /// Answer the client; given exactly once by a coordinator, never by a recoverer.
    Reply(Outcome),
    /// Send [`Event::Timer`] at this time of the driver's clock.
    SetTimer(Millis),
    /// Over.
    Done(Ending),
}

/// How a branch is applied.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Way {
    /// After a Yes, for the first time: an EXEC may carry the commands, on the connection whose
    /// WATCH stood when that Yes was given. If that connection is lost, [`Way::Redo`] will do,
    /// but for a decider: its EXEC is the only one, and not to have sent it is
    /// [`Applied::Not`]`(Some(Prepared))`, as when its WATCH had broken.
    Direct,
    /// The stored redo, on condition that the record is `prepared`: by script, or by an EXEC
    /// whose WATCH has begun for it, with a look behind that WATCH. Never on the connection of
    /// the prepare: its WATCH may have begun when the record was applied already.
    Redo,
}

/// What the client is told.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// Every branch was applied by this coordinator: the driver has all replies.
    Committed,
    /// Every branch is applied, but some answer was lost or somebody else applied it. The id may
    /// be named: markers stay.
    CommittedRepliesLost,
    /// Nothing was applied and nothing ever will be.
    Aborted(Cause),
    /// The client's WATCH broke: EXEC is nil. Nothing was applied and nothing ever will be.
    WatchBroken,
    /// Not known yet; the id tells later. Never an EXECABORT.
    Unknown,
}

/// Why a transaction was aborted.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Cause {
    /// This participant refused.
    No(Part, Refusal),
    /// Some participant did not answer its prepare, or too late, and the transaction was found
    /// or made aborted. A new attempt may well succeed.
    Silence,
}

/// How a machine ended. `left`: participants where something of the transaction may be left,
/// for the next recoverer to clean or to finish.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Ending {
    /// Committed for good.
    Committed {
        /// Not known to be applied and released.
        left: Vec<Part>,
    },
    /// Aborted for good.
    Aborted {
        /// Not known to be free of it.
        left: Vec<Part>,
    },
    /// No record was left anywhere; somebody else was done with it. Tells nothing about its fate.
    Nothing,
    /// Undecided as far as could be seen. Start again later, from a fresh reading.
    InDoubt {
        /// Participants that gave no answer.
        unreachable: Vec<Part>,
    },
    /// This participant's record contradicts the decision. Never in a sound run: a shard lost
    /// data, or somebody wrote our keys. Nothing more is done; an operator must look.
    Contradiction(Part),
}

/// The times a transaction lives by; all in milliseconds.
///
/// What must hold between them, `skew` being how much any two clocks of shards and proxies may
/// differ and `retention` what markers and tombstones live: `margin_ms < ttl_ms`,
/// `skew < ttl_ms`, `window_ms + skew < retention`, `give_up_ms + skew < retention`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Limits {
    /// Lock TTL: from prepare to the record's deadline.
    pub ttl_ms: Millis,
    /// The coordinator trusts that nobody else has acted only this long before its TTL is over.
    pub margin_ms: Millis,
    /// Past its start (as the coordinator sees it) or its deadline (as a recoverer reads it) a
    /// transaction may create records for this long: the not-after.
    pub window_ms: Millis,
    /// What a machine has seen is too old to act upon after this long: it ends.
    pub give_up_ms: Millis,
    /// Before the first repetition of what failed; doubles each time.
    pub backoff_ms: Millis,
    /// The longest wait before a repetition.
    pub backoff_max_ms: Millis,
}

/// How long a machine goes on, and when it repeats what failed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Patience {
    /// End of it all, by the driver's clock.
    until: Millis,
    retry_at: Option<Millis>,
    wait_ms: Millis,
    wait_max_ms: Millis,
}

impl Patience {
    /// Starts the clock, and the timer that ends it.
    pub(super) fn start(now: Millis, limits: &Limits, out: &mut Vec<Action>) -> Self {
        let until = now.saturating_add(limits.give_up_ms);
        out.push(Action::SetTimer(until));
        Self {
            until,
            retry_at: None,
            wait_ms: limits.backoff_ms,
            wait_max_ms: limits.backoff_max_ms,
        }
    }

    /// Whether everything seen so far is too old.
    pub(super) fn is_over(&self, now: Millis) -> bool {
        now >= self.until
    }

    /// Something must be repeated: sets the timer for it unless it is set.
    pub(super) fn failed(&mut self, now: Millis, out: &mut Vec<Action>) {
        if self.retry_at.is_some() {
            return;
        }
        let at = now.saturating_add(self.wait_ms);
        self.retry_at = Some(at);
        self.wait_ms = self.wait_ms.saturating_mul(2).min(self.wait_max_ms);
        out.push(Action::SetTimer(at.min(self.until)));
    }

    /// Whether it is time to repeat what failed; if so, only the end is left to wait for.
    pub(super) fn retry_is_due(&mut self, now: Millis, out: &mut Vec<Action>) -> bool {
        if self.retry_at.is_none_or(|at| now < at) {
            return false;
        }
        self.retry_at = None;
        out.push(Action::SetTimer(self.until));
        true
    }
}

//! Carrying out a decision: the last stretch, the same for a coordinator and a recoverer.
//!
//! - **Commit**: apply where it is not applied yet, again and again until it is (a shard that
//!   refuses, for want of memory say, keeps the intent; skipping it would tear the transaction).
//!   If interrupted here, the transaction must be rolled forward. Only when *all* have applied
//!   are they released: a lock that goes earlier shows half a transaction.
//! - **Abort**: each branch for itself, in any order; nothing waits for anything, since nobody
//!   can ever apply. If interrupted here, the rest is rolled back by a recoverer.

use super::step::*;
use super::types::*;

/// What was decided.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Decision {
    Commit,
    Abort,
}

/// Where a participant is on the way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Stage {
    /// Its vote is still on its way (only after another's No).
    Voting,
    /// To be asked (again).
    Due,
    /// Asked.
    Asked,
    /// This stretch is behind it.
    Done,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Seat {
    part: Part,
    stage: Stage,
    /// Commit: there is a record to release. False where it was found absent.
    present: bool,
    /// Commit: how it is asked to apply next.
    way: Way,
    /// Abort: where there is no record, write a tombstone, valid until then.
    tombstone: Option<Millis>,
}

/// A decision being carried out.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Finish {
    decision: Decision,
    seats: Vec<Seat>,
    patience: Patience,
    /// What an aborted, or released, record leaves.
    leave: Leave,
    /// Commit: how branches are applied that have not been asked before.
    way: Way,
    /// Commit: every branch was applied by a request of this machine that was answered.
    ours: bool,
    /// Commit: all answers came before this, so nobody else can have read anything yet and the
    /// records may go outright.
    outright_until: Option<Millis>,
    /// Commit: whether a branch found absent is one that somebody applied and released.
    absent_is_finished: bool,
    releasing: bool,
    contradiction: Option<Part>,
}

impl Finish {
    /// A commit with no participants yet; see [`Self::must_apply`] and [`Self::applied`].
    pub(super) fn commit(patience: Patience, outright_until: Option<Millis>) -> Self {
        Self {
            decision: Decision::Commit,
            seats: Vec::new(),
            patience,
            leave: Leave::Marker,
            way: Way::Redo,
            ours: true,
            outright_until,
            absent_is_finished: false,
            releasing: false,
            contradiction: None,
        }
    }

    /// Applies directly what is asked for the first time: all votes were Yes.
    pub(super) fn directly(mut self) -> Self {
        self.way = Way::Direct;
        self
    }

    /// An abort with no participants yet; see [`Self::must_abort`] and [`Self::voting`].
    pub(super) fn abort(patience: Patience, leave: Leave) -> Self {
        Self {
            decision: Decision::Abort,
            leave,
            ..Self::commit(patience, None)
        }
    }

    /// Takes a branch that is absent for one that was applied and released. Not for the
    /// coordinator: nobody else deletes records outright, and markers outlive its patience, so
    /// what it finds absent was lost by the shard.
    pub(super) fn absent_is_finished(mut self) -> Self {
        self.absent_is_finished = true;
        self
    }

    /// Adds a participant whose branch is to be applied.
    pub(super) fn must_apply(&mut self, part: Part) {
        self.seat(part, Stage::Due, None);
    }

    /// Adds a participant whose branch is applied already, by this machine or not.
    pub(super) fn applied(&mut self, part: Part, ours: bool) {
        self.ours &= ours;
        self.seat(part, Stage::Done, None);
    }

    /// Adds a participant whose branch is to be aborted; where it is absent a tombstone is
    /// written until `tombstone`, if given.
    pub(super) fn must_abort(&mut self, part: Part, tombstone: Option<Millis>) {
        self.seat(part, Stage::Due, tombstone);
    }

    /// Adds a participant whose vote is awaited before it can be aborted.
    pub(super) fn voting(&mut self, part: Part) {
        self.seat(part, Stage::Voting, None);
    }

    /// Notes that this participant's record contradicts the decision.
    pub(super) fn contradicted(&mut self, part: Part) {
        self.contradiction.get_or_insert(part);
    }

    fn seat(&mut self, part: Part, stage: Stage, tombstone: Option<Millis>) {
        self.seats.push(Seat {
            part,
            stage,
            present: true,
            way: self.way,
            tombstone,
        });
    }

    fn find(&mut self, part: Part) -> Option<&mut Seat> {
        self.seats.iter_mut().find(|seat| seat.part == part)
    }

    fn found_absent(&mut self, part: Part) {
        self.ours = false;
        if !self.absent_is_finished {
            return self.contradicted(part);
        }
        if let Some(seat) = self.find(part) {
            seat.present = false;
        }
    }

    /// What was decided.
    pub(super) fn decision(&self) -> Decision {
        self.decision
    }

    /// Whether every branch is known to be applied.
    pub(super) fn all_applied(&self) -> bool {
        self.decision == Decision::Commit
            && self.contradiction.is_none()
            && (self.releasing || self.is_done())
    }

    /// Whether every branch was applied by this machine, with its answer in hand.
    pub(super) fn all_ours(&self) -> bool {
        self.ours
    }

    /// Whether [`Self::release`] has been called.
    pub(super) fn is_releasing(&self) -> bool {
        self.releasing
    }

    /// Starts releasing; to be called once, when [`Self::all_applied`].
    ///
    /// Outright deletion takes three things. All answers in time: then no recoverer has begun,
    /// so none can take the absence for a branch never prepared and bury it under a tombstone.
    /// All branches ours: then the client gets its replies and nobody learns the id, for whose
    /// fate he could ask in vain. And it is the coordinator: a recoverer leaves what it found
    /// to be read by the next.
    pub(super) fn release(&mut self, now: Millis, out: &mut Vec<Action>) {
        let in_time = self.outright_until.is_some_and(|until| now < until);
        self.leave = match in_time && self.ours {
            true => Leave::Nothing,
            false => Leave::Marker,
        };
        self.releasing = true;
        for seat in self.seats.iter_mut().filter(|seat| seat.present) {
            seat.stage = Stage::Due;
        }
        self.ask(out);
    }

    /// Asks every participant that is due.
    pub(super) fn ask(&mut self, out: &mut Vec<Action>) {
        if self.contradiction.is_some() {
            return;
        }
        for seat in self.seats.iter_mut().filter(|s| s.stage == Stage::Due) {
            let (part, leave) = (seat.part, self.leave);
            let way = std::mem::replace(&mut seat.way, Way::Redo);
            seat.stage = Stage::Asked;
            out.push(match (self.decision, self.releasing) {
                (Decision::Commit, false) => Action::Apply { part, way },
                (Decision::Commit, true) => Action::Release { part, leave },
                (Decision::Abort, _) => Action::Abort {
                    part,
                    leave,
                    tombstone: seat.tombstone,
                },
            });
        }
    }

    /// Takes an event; asks again where that is called for.
    pub(super) fn step(&mut self, now: Millis, event: &Event, out: &mut Vec<Action>) {
        if self.patience.is_over(now) {
            return;
        }
        match event {
            Event::Applied(part, answer) if self.asked(*part) => {
                self.on_applied(now, *part, *answer, out);
            }
            Event::Aborted(part, answer) if self.asked(*part) => {
                self.on_aborted(now, *part, *answer, out);
            }
            Event::Released(part, answer) if self.asked(*part) => {
                self.on_released(now, *part, *answer, out);
            }
            Event::Timer if self.patience.retry_is_due(now, out) => self.ask(out),
            _ => {}
        }
    }

    /// Whether an answer of this participant is awaited; any other is stray.
    fn asked(&self, part: Part) -> bool {
        let mut asked = self.seats.iter().filter(|seat| seat.stage == Stage::Asked);
        asked.any(|seat| seat.part == part)
    }

    /// An awaited vote: the branch is, or may yet be, prepared, so it must be aborted too.
    pub(super) fn voted(&mut self, part: Part, tombstone: Option<Millis>) {
        if let Some(seat) = self.find(part).filter(|seat| seat.stage == Stage::Voting) {
            seat.stage = Stage::Due;
            seat.tombstone = tombstone;
        }
    }

    /// An awaited vote: a No as well, nothing to abort.
    pub(super) fn voted_no(&mut self, part: Part) {
        if let Some(seat) = self.find(part).filter(|seat| seat.stage == Stage::Voting) {
            seat.stage = Stage::Done;
        }
    }

    fn on_applied(&mut self, now: Millis, part: Part, answer: Applied, out: &mut Vec<Action>) {
        match answer {
            Applied::Now => self.done(part),
            Applied::Not(Some(State::Applied)) => {
                self.ours = false;
                self.done(part);
            }
            Applied::Not(None) => {
                self.done(part);
                self.found_absent(part);
            }
            Applied::Not(Some(State::Aborted)) => self.contradicted(part),
            Applied::Not(Some(State::Prepared)) | Applied::Refused | Applied::Unknown => {
                self.again(now, part, out);
            }
        }
    }

    fn on_aborted(&mut self, now: Millis, part: Part, answer: Aborted, out: &mut Vec<Action>) {
        match answer {
            Aborted::Done | Aborted::Late => self.done(part),
            Aborted::Applied => self.contradicted(part),
            Aborted::StillPrepared | Aborted::Unknown => self.again(now, part, out),
        }
    }

    fn on_released(&mut self, now: Millis, part: Part, answer: Released, out: &mut Vec<Action>) {
        match answer {
            Released::Done => self.done(part),
            Released::StillPrepared => self.contradicted(part),
            Released::Unknown => self.again(now, part, out),
        }
    }

    fn done(&mut self, part: Part) {
        if let Some(seat) = self.find(part) {
            seat.stage = Stage::Done;
        }
    }

    fn again(&mut self, now: Millis, part: Part, out: &mut Vec<Action>) {
        if let Some(seat) = self.find(part) {
            seat.stage = Stage::Due;
            self.patience.failed(now, out);
        }
    }

    fn is_done(&self) -> bool {
        self.seats.iter().all(|seat| seat.stage == Stage::Done)
    }

    /// How it ended, if it has: everything done, time is up, or a contradiction.
    pub(super) fn ending(&self, now: Millis) -> Option<Ending> {
        if let Some(part) = self.contradiction {
            return Some(Ending::Contradiction(part));
        }
        let over = match self.decision {
            Decision::Commit => self.releasing && self.is_done(),
            Decision::Abort => self.is_done(),
        };
        if !over && !self.patience.is_over(now) {
            return None;
        }
        let held = self.decision == Decision::Commit && !self.releasing;
        let left = self.seats.iter().filter(|s| held || s.stage != Stage::Done);
        let left = left.map(|seat| seat.part).collect();
        Some(match self.decision {
            Decision::Commit => Ending::Committed { left },
            Decision::Abort => Ending::Aborted { left },
        })
    }
}

//! Recovery: finishing a transaction whose coordinator may be dead.
//!
//! Anyone may do it, at the same time as others and as a coordinator that is only slow. So a
//! recoverer never relies on being alone: whatever it does is conditional on the shard on the
//! state it takes for granted, and whatever it concludes would be concluded by any other.
//!
//! # When
//!
//! Only after having read, somewhere, `prepared` or `applied` past the record's **deadline**
//! ([`Recoverer::start`] is that rule). The lock key's absence does not count: locks can be
//! evicted early, and a coordinator that commits in good time deletes its records outright;
//! a recoverer that had begun before would take that for a branch that was never prepared.
//! The coordinator itself may recover at any time, since it knows what it has deleted: nothing.
//!
//! # What the records mean, implicit rule
//!
//! All records are read; then, in this order:
//!
//! 1. Any `applied`: **committed**. It can only be so if all were prepared. The `prepared` ones
//!    are applied from their redo. An absent one is finished and already released, and nothing
//!    is written there, but only if it is absent *after* another was seen applied: it may have
//!    been read before its late prepare ran, and to release now would leave it behind, prepared,
//!    its evidence about to expire. So it is asked to apply as well, which tells. (Asked in the
//!    other order, `{applied, absent}` would be torn.)
//! 2. Any `aborted`: **aborted**. The `prepared` ones are aborted, each if it still is, and
//!    tombstones (see 4) keep late prepares out of the absent ones.
//! 3. All `prepared`: **committed**. Perhaps the coordinator has told its client.
//! 4. Some absent, so their prepare may still be on its way. Going back is only safe once it
//!    cannot succeed: a **tombstone** is written at the absent ones, on condition that they are
//!    still absent (it must not hit a branch that was prepared meanwhile: somebody else may have
//!    read *all prepared* and be applying). Then the rules are asked again, with what the
//!    tombstone has met. *Too late for a tombstone* says that its prepare is refused as well;
//!    it is as good as one, without anything written.
//!
//! # Decider rule
//!
//! *All prepared* does **not** mean committed: the client's WATCH may have broken. Any `applied`
//! (asked first, since the decider may be released and gone): committed. Else the decider's
//! branch is aborted, or a tombstone written, in one step; it answers `applied`: committed. From
//! then on the coordinator's EXEC, which watches the record, can only fail: aborted.
//!
//! # Absence, age
//!
//! An absent record by itself means nothing, neither success nor abort. If everything turns out
//! absent, somebody else was done with it ([`Ending::Nothing`]); only the coordinator, who knows
//! that nobody has told its client anything, writes tombstones everywhere and calls it aborted.
//!
//! Markers and tombstones are deleted by a timer, so what was read grows stale: after
//! `give_up_ms` a recoverer acts no more and ends. Starting again means a new one, with a new
//! reading of the record it starts from.

use super::finish::{Decision, Finish};
use super::step::*;
use super::types::*;

/// What is known of a participant in this round.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Seen {
    /// A request is out.
    Asked,
    /// No answer; to be asked again.
    Unreachable,
    Absent,
    /// Absent, and too late for anything to be written there.
    Never,
    Prepared,
    Applied,
    Aborted,
}

impl From<State> for Seen {
    fn from(state: State) -> Self {
        match state {
            State::Prepared => Self::Prepared,
            State::Applied => Self::Applied,
            State::Aborted => Self::Aborted,
        }
    }
}

/// Who recovers. It makes a difference for absent records only: nobody but the coordinator
/// deletes records outright, so one that is not sure of its transaction knows that it has not.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Who {
    Coordinator,
    Anyone,
}

/// What the rules say about what was seen.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Verdict {
    Decided(Decision),
    /// Write tombstones at the absent ones, then judge again.
    Tombstones,
    /// Abort the decider's branch, then judge again.
    AbortDecider(Part),
    /// Nothing is left.
    Nothing,
    /// Somebody must be asked again.
    Blind,
}

/// Whether a record that was met calls for recovery.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Start {
    /// It does: this machine does it, its first actions are out.
    Recover(Recoverer),
    /// Not before its deadline, this many milliseconds from now. Then read it again.
    Wait(Millis),
    /// No: it is absent or aborted, or could not be read.
    Nothing,
    /// It is not a record of ours: the participant is not in its own list, or the decider is
    /// none. An operator must look.
    Malformed,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Seat {
    part: Part,
    /// Instant by its shard's clock past which nothing may be created there.
    not_after_ms: Millis,
    seen: Seen,
}

/// Recovers one transaction, once.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Recoverer {
    rule: Rule,
    who: Who,
    seats: Vec<Seat>,
    patience: Patience,
    finish: Option<Finish>,
    ended: bool,
}

impl Recoverer {
    /// Decides whether `reading`, met at `part`, is to be recovered, and if so begins.
    ///
    /// The reading only starts it: every record is read again, this one too.
    pub fn start(
        part: Part,
        reading: &Reading,
        limits: &Limits,
        now: Millis,
        out: &mut Vec<Action>,
    ) -> Start {
        let Reading::Found(record) = reading else {
            return Start::Nothing;
        };
        if record.state == State::Aborted {
            return Start::Nothing;
        }
        if record.now_ms < record.deadline_ms {
            return Start::Wait(record.deadline_ms - record.now_ms);
        }
        let listed = |p: &Part| record.participants.contains(p);
        if !listed(&part) || matches!(&record.rule, Rule::Decider(w) if !listed(w)) {
            return Start::Malformed;
        }
        let patience = Patience::start(now, limits, out);
        // Not earlier than the coordinator's own: whoever is too late here can be sure that the
        // prepare is, too.
        let not_after_ms = record.deadline_ms.saturating_add(limits.window_ms);
        let parts = record.participants.iter();
        let parts: Vec<_> = parts.map(|&part| (part, not_after_ms)).collect();
        Start::Recover(Self::begin(Who::Anyone, record.rule, &parts, patience, out))
    }

    /// The coordinator itself, when it does not know how its transaction stands. The instants
    /// are those after which prepares are refused.
    pub(super) fn of_coordinator(
        parts: &[(Part, Millis)],
        rule: Rule,
        patience: Patience,
        out: &mut Vec<Action>,
    ) -> Self {
        Self::begin(Who::Coordinator, rule, parts, patience, out)
    }

    fn begin(
        who: Who,
        rule: Rule,
        parts: &[(Part, Millis)],
        patience: Patience,
        out: &mut Vec<Action>,
    ) -> Self {
        let seat = |&(part, not_after_ms)| Seat {
            part,
            not_after_ms,
            seen: Seen::Unreachable,
        };
        let mut this = Self {
            rule,
            who,
            seats: parts.iter().map(seat).collect(),
            patience,
            finish: None,
            ended: false,
        };
        this.read_unreachable(out);
        this
    }

    /// Takes an event; [`Action::Done`] is the last action.
    pub fn step(&mut self, now: Millis, event: Event, out: &mut Vec<Action>) {
        if self.ended {
            return;
        }
        self.advance(now, &event, out);
        if self.all_applied() {
            self.release(now, out);
        }
        if let Some(ending) = self.ending(now) {
            self.ended = true;
            out.push(Action::Done(ending));
        }
    }

    /// The step without its end, for a coordinator that has a client to answer in between.
    pub(super) fn advance(&mut self, now: Millis, event: &Event, out: &mut Vec<Action>) {
        if self.patience.is_over(now) {
            return;
        }
        if let Some(finish) = &mut self.finish {
            return finish.step(now, event, out);
        }
        match event {
            Event::Read(part, reading) => self.saw(now, *part, seen_by_reading(reading), out),
            Event::Aborted(part, answer) => self.saw(now, *part, seen_by_abort(*answer), out),
            Event::Timer if self.patience.retry_is_due(now, out) => self.read_unreachable(out),
            _ => return,
        }
        if self.is_idle() {
            self.judge(out);
        }
    }

    /// What has been decided, once it has.
    pub(super) fn decision(&self) -> Option<Decision> {
        self.finish.as_ref().map(Finish::decision)
    }

    /// Whether every branch is applied and none released yet.
    pub(super) fn all_applied(&self) -> bool {
        let finish = self.finish.as_ref();
        finish.is_some_and(|finish| finish.all_applied() && !finish.is_releasing())
    }

    /// Whether this machine applied every branch, with its answer in hand.
    pub(super) fn all_ours(&self) -> bool {
        self.finish.as_ref().is_some_and(Finish::all_ours)
    }

    /// Releases what [`Self::all_applied`].
    pub(super) fn release(&mut self, now: Millis, out: &mut Vec<Action>) {
        if let Some(finish) = &mut self.finish {
            finish.release(now, out);
        }
    }

    /// How it ended, if it has.
    pub(super) fn ending(&self, now: Millis) -> Option<Ending> {
        if let Some(finish) = &self.finish {
            return finish.ending(now);
        }
        if self.is_idle() && self.judgement() == Verdict::Nothing {
            return Some(Ending::Nothing);
        }
        self.patience.is_over(now).then(|| Ending::InDoubt {
            unreachable: self.parts(|seen| matches!(seen, Seen::Asked | Seen::Unreachable)),
        })
    }

    fn is_idle(&self) -> bool {
        self.seats.iter().all(|seat| seat.seen != Seen::Asked)
    }

    fn saw(&mut self, now: Millis, part: Part, seen: Seen, out: &mut Vec<Action>) {
        let mut asked = self.seats.iter_mut().filter(|s| s.seen == Seen::Asked);
        if let Some(seat) = asked.find(|seat| seat.part == part) {
            seat.seen = seen;
            if seen == Seen::Unreachable {
                self.patience.failed(now, out);
            }
        }
    }

    fn read_unreachable(&mut self, out: &mut Vec<Action>) {
        for seat in &mut self.seats {
            if seat.seen == Seen::Unreachable {
                seat.seen = Seen::Asked;
                out.push(Action::Read { part: seat.part });
            }
        }
    }

    fn parts(&self, wanted: impl Fn(Seen) -> bool) -> Vec<Part> {
        let seats = self.seats.iter().filter(|seat| wanted(seat.seen));
        seats.map(|seat| seat.part).collect()
    }

    fn any(&self, wanted: Seen) -> bool {
        self.seats.iter().any(|seat| seat.seen == wanted)
    }

    /// The rules of the module's documentation, in their order. Nobody is being asked.
    fn judgement(&self) -> Verdict {
        if self.any(Seen::Applied) {
            return Verdict::Decided(Decision::Commit);
        }
        match self.rule {
            Rule::Implicit => self.implicit(),
            Rule::Decider(part) => self.decider(part),
        }
    }

    fn implicit(&self) -> Verdict {
        if self.any(Seen::Aborted) {
            return Verdict::Decided(Decision::Abort);
        }
        if self.any(Seen::Never) && self.may_bury() {
            return Verdict::Decided(Decision::Abort);
        }
        if self.any(Seen::Absent) && self.may_bury() {
            return Verdict::Tombstones;
        }
        if self.any(Seen::Unreachable) {
            return Verdict::Blind;
        }
        match self.any(Seen::Prepared) {
            true => Verdict::Decided(Decision::Commit),
            false => Verdict::Nothing,
        }
    }

    fn decider(&self, part: Part) -> Verdict {
        let seat = self.seats.iter().find(|seat| seat.part == part);
        match seat.map_or(Seen::Unreachable, |seat| seat.seen) {
            Seen::Aborted | Seen::Never => Verdict::Decided(Decision::Abort),
            Seen::Prepared => Verdict::AbortDecider(part),
            Seen::Absent if self.may_bury() => Verdict::AbortDecider(part),
            _ if self.any(Seen::Unreachable) => Verdict::Blind,
            _ if self.any(Seen::Aborted) => Verdict::Decided(Decision::Abort),
            _ => Verdict::Nothing,
        }
    }

    /// Whether absence may be made final: somebody is seen prepared, so nobody has released
    /// anything, and what is absent has never been applied. The coordinator knows that anyway.
    fn may_bury(&self) -> bool {
        self.who == Who::Coordinator || self.any(Seen::Prepared)
    }

    fn judge(&mut self, out: &mut Vec<Action>) {
        match self.judgement() {
            Verdict::Decided(decision) => self.decided(decision, out),
            Verdict::Tombstones => self.write_tombstones(out),
            Verdict::AbortDecider(part) => self.abort_decider(part, out),
            Verdict::Nothing | Verdict::Blind => {}
        }
    }

    fn write_tombstones(&mut self, out: &mut Vec<Action>) {
        let absent = self.seats.iter_mut().filter(|s| s.seen == Seen::Absent);
        for seat in absent {
            seat.seen = Seen::Asked;
            out.push(Action::Tombstone {
                part: seat.part,
                not_after_ms: seat.not_after_ms,
            });
        }
    }

    fn abort_decider(&mut self, part: Part, out: &mut Vec<Action>) {
        if let Some(seat) = self.seats.iter_mut().find(|seat| seat.part == part) {
            seat.seen = Seen::Asked;
            out.push(Action::Abort {
                part,
                leave: Leave::Marker,
                tombstone: Some(seat.not_after_ms),
            });
        }
    }

    fn decided(&mut self, decision: Decision, out: &mut Vec<Action>) {
        let mut finish = match decision {
            Decision::Commit => self.commit(),
            Decision::Abort => self.abort(),
        };
        finish.ask(out);
        self.finish = Some(finish);
    }

    /// Everybody not seen applied is asked to apply, whatever he was seen to be: he does nothing
    /// if he has. The absent ones too, since they may have been read before they were prepared.
    fn commit(&self) -> Finish {
        let mut finish = Finish::commit(self.patience.clone(), None);
        if self.who == Who::Anyone {
            finish = finish.absent_is_finished();
        }
        for seat in &self.seats {
            // Committed, so the decider has applied; nobody but its EXEC ever does that.
            let is_decider = self.rule == Rule::Decider(seat.part);
            match seat.seen {
                Seen::Never | Seen::Aborted => finish.contradicted(seat.part),
                Seen::Applied => finish.applied(seat.part, false),
                _ if is_decider => finish.applied(seat.part, false),
                _ => finish.must_apply(seat.part),
            }
        }
        finish
    }

    /// Nobody will ever apply. Where the branch is absent, or was not seen, a tombstone keeps a
    /// late prepare out, which would hold its keys until the next recoverer came along.
    fn abort(&self) -> Finish {
        let mut finish = Finish::abort(self.patience.clone(), Leave::Marker);
        for seat in &self.seats {
            match seat.seen {
                Seen::Never | Seen::Aborted => {}
                Seen::Applied => finish.contradicted(seat.part),
                _ => finish.must_abort(seat.part, Some(seat.not_after_ms)),
            }
        }
        finish
    }
}

fn seen_by_reading(reading: &Reading) -> Seen {
    match reading {
        Reading::Found(record) => record.state.into(),
        Reading::Absent => Seen::Absent,
        Reading::Unreachable => Seen::Unreachable,
    }
}

/// Abort and tombstone answer what the record is now.
fn seen_by_abort(answer: Aborted) -> Seen {
    match answer {
        Aborted::Done => Seen::Aborted,
        Aborted::Applied => Seen::Applied,
        Aborted::Late => Seen::Never,
        Aborted::StillPrepared => Seen::Prepared,
        Aborted::Unknown => Seen::Unreachable,
    }
}

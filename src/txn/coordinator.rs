//! The coordinator of one attempt of one transaction.
//!
//! # The story, and what an interruption means at each point
//!
//! 1. **Prepare** goes to all participants at once, and never twice: a second one under the same
//!    id could prepare afresh what was applied and deleted long ago. *If interrupted here, the
//!    transaction may be anything; a recoverer finds out, and rolls back unless all are prepared.*
//! 2. **A No** decides: that branch is not prepared and never will be, so nobody can find all
//!    prepared. The client is answered at once (with nil, if the No says that its WATCH on
//!    several shards has broken on one); what was prepared, or may be, is aborted as the
//!    votes come in. *If interrupted here, recoverers abort the rest.*
//! 3. **All Yes, in time** (before the TTL, counted from before the first prepare, less a
//!    margin): all are prepared *at the same instant*, since no recoverer begins before a
//!    deadline. That instant is the commit point of the implicit rule. *If interrupted here, the
//!    transaction must be rolled forward; nobody may abort it, the coordinator included.*
//!    With a Yes that comes later a recoverer may have aborted an early branch before the late
//!    one was prepared; the votes prove nothing then.
//! 4. Under the **decider rule** there is one step between: the decider's EXEC alone, on the
//!    connection that watches the client's keys and the record. It applies: that is the commit
//!    point. It is nil with the record still `prepared`: the client's WATCH broke, all is
//!    aborted, EXEC is nil. *If interrupted here, recoverers abort the decider, or find that it
//!    has applied.*
//! 5. **Apply**, repeated until it has happened everywhere; then the **reply**; then **release**.
//!
//! Silence at 1 or 4, and votes that are too late, turn the coordinator into a recoverer
//! ([`super::recovery`]): it reads what there is instead of guessing.
//!
//! Its patience ends after `give_up_ms`: what it has seen is too old then (markers are deleted by
//! a timer). If the client has no answer by then it gets [`Outcome::Unknown`], and the coordinator
//! stops, which is no worse than its death.

use super::finish::{Decision, Finish};
use super::recovery::Recoverer;
use super::step::*;
use super::types::*;

/// What is to be coordinated.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Plan {
    /// The participants, each once, at least one; each with its *not-after*, the instant past
    /// which its shard may not create a record of this transaction: the driver's idea of that
    /// shard's clock now, plus [`Limits::window_ms`]. Tombstones go by the same instant as the
    /// prepare, so that *too late for a tombstone* proves *too late for the prepare*.
    pub participants: Vec<(Part, Millis)>,
    /// How it commits; a decider must be one of the participants.
    pub rule: Rule,
}

impl Plan {
    fn not_after(&self, part: Part) -> Millis {
        let mut all = self.participants.iter();
        all.find(|one| one.0 == part).map_or(0, |one| one.1)
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Phase {
    /// Votes come in; None: not yet. No No among them.
    Voting(Vec<(Part, Option<Ballot>)>),
    /// The decider's EXEC is out.
    Deciding(Part),
    /// The outcome is known.
    Finishing(Finish),
    /// The outcome must be found out.
    Recovering(Box<Recoverer>),
    Over,
}

/// A vote that was not No.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Ballot {
    Yes,
    Unknown,
}

/// Coordinates one attempt.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Coordinator {
    plan: Plan,
    phase: Phase,
    patience: Patience,
    /// Until then, by the driver's clock, nobody else can have begun to recover.
    alone_until: Millis,
    replied: bool,
}

impl Coordinator {
    /// Begins: the prepares are out. `now` is taken before anything of it is sent.
    pub fn start(plan: Plan, limits: &Limits, now: Millis, out: &mut Vec<Action>) -> Self {
        let patience = Patience::start(now, limits, out);
        let alone_ms = limits.ttl_ms.saturating_sub(limits.margin_ms);
        let prepare = |&(part, not_after_ms)| Action::Prepare { part, not_after_ms };
        out.extend(plan.participants.iter().map(prepare));
        let votes = plan.participants.iter().map(|&(part, _)| (part, None));
        Self {
            phase: Phase::Voting(votes.collect()),
            plan,
            patience,
            alone_until: now.saturating_add(alone_ms),
            replied: false,
        }
    }

    /// Takes an event. [`Action::Reply`] comes once, [`Action::Done`] once and last.
    pub fn step(&mut self, now: Millis, event: Event, out: &mut Vec<Action>) {
        if !self.patience.is_over(now) {
            self.on_event(now, event, out);
        }
        self.answer(now, out);
        if let Some(ending) = self.ending(now) {
            self.reply(Outcome::Unknown, out);
            self.phase = Phase::Over;
            out.push(Action::Done(ending));
        }
    }

    fn on_event(&mut self, now: Millis, event: Event, out: &mut Vec<Action>) {
        match (&mut self.phase, event) {
            (Phase::Voting(_), Event::Voted(part, vote)) => self.on_vote(now, part, vote, out),
            (Phase::Finishing(finish), Event::Voted(part, vote)) => {
                late_vote(finish, part, &vote, self.plan.not_after(part));
                finish.ask(out);
            }
            (Phase::Deciding(decider), Event::Applied(part, answer)) if *decider == part => {
                self.on_decided(part, answer, out);
            }
            (Phase::Finishing(finish), event) => finish.step(now, &event, out),
            (Phase::Recovering(recoverer), event) => recoverer.advance(now, &event, out),
            _ => {}
        }
    }

    fn on_vote(&mut self, now: Millis, part: Part, vote: Vote, out: &mut Vec<Action>) {
        let Phase::Voting(votes) = &mut self.phase else {
            return;
        };
        let Some(slot) = votes.iter_mut().find(|slot| **slot == (part, None)) else {
            return;
        };
        match vote {
            Vote::Yes => slot.1 = Some(Ballot::Yes),
            Vote::No(refusal) if is_final(&refusal) => {
                return self.refused(part, refusal, out);
            }
            Vote::No(_) | Vote::Unknown => slot.1 = Some(Ballot::Unknown),
        }
        if votes.iter().any(|(_, vote)| vote.is_none()) {
            return;
        }
        let all_yes = votes.iter().all(|(_, vote)| *vote == Some(Ballot::Yes));
        match (all_yes && now < self.alone_until, self.plan.rule) {
            (true, Rule::Implicit) => self.commit(None, out),
            (true, Rule::Decider(part)) => {
                self.phase = Phase::Deciding(part);
                let way = Way::Direct;
                out.push(Action::Apply { part, way });
            }
            (false, _) => self.recover(out),
        }
    }

    /// A No: the client need not wait for the other votes.
    fn refused(&mut self, part: Part, refusal: Refusal, out: &mut Vec<Action>) {
        self.reply(
            match refusal {
                Refusal::WatchBroken => Outcome::WatchBroken,
                refusal => Outcome::Aborted(Cause::No(part, refusal)),
            },
            out,
        );
        let Phase::Voting(votes) = &self.phase else {
            return;
        };
        let mut finish = Finish::abort(self.patience.clone(), Leave::Nothing);
        for &(other, vote) in votes.iter().filter(|(other, _)| *other != part) {
            match vote {
                None => finish.voting(other),
                Some(Ballot::Yes) => finish.must_abort(other, None),
                Some(Ballot::Unknown) => finish.must_abort(other, Some(self.plan.not_after(other))),
            }
        }
        finish.ask(out);
        self.phase = Phase::Finishing(finish);
    }

    /// The decider's EXEC, or what its record was when that was nil.
    fn on_decided(&mut self, part: Part, answer: Applied, out: &mut Vec<Action>) {
        match answer {
            Applied::Now => self.commit(Some((part, true)), out),
            Applied::Not(Some(State::Applied)) => self.commit(Some((part, false)), out),
            Applied::Not(Some(State::Prepared)) => self.roll_back(Outcome::WatchBroken, out),
            Applied::Refused => {
                let why = Refusal::Refused("the watching shard refused to apply".into());
                self.roll_back(Outcome::Aborted(Cause::No(part, why)), out);
            }
            Applied::Not(Some(State::Aborted)) => {
                self.roll_back(Outcome::Aborted(Cause::Silence), out);
            }
            Applied::Not(None) | Applied::Unknown => self.recover(out),
        }
    }

    /// Past the commit point: `decider` has applied, by us (true) or not, the others will.
    fn commit(&mut self, decider: Option<(Part, bool)>, out: &mut Vec<Action>) {
        let finish = Finish::commit(self.patience.clone(), Some(self.alone_until));
        let mut finish = finish.directly();
        for &(part, _) in &self.plan.participants {
            match decider {
                Some((decider, ours)) if decider == part => finish.applied(part, ours),
                _ => finish.must_apply(part),
            }
        }
        finish.ask(out);
        self.phase = Phase::Finishing(finish);
    }

    /// All are prepared, or aborted by now; the decider's EXEC has failed for good.
    fn roll_back(&mut self, outcome: Outcome, out: &mut Vec<Action>) {
        self.reply(outcome, out);
        let mut finish = Finish::abort(self.patience.clone(), Leave::Nothing);
        for &(part, _) in &self.plan.participants {
            finish.must_abort(part, None);
        }
        finish.ask(out);
        self.phase = Phase::Finishing(finish);
    }

    fn recover(&mut self, out: &mut Vec<Action>) {
        let (plan, patience) = (&self.plan, self.patience.clone());
        let recoverer = Recoverer::of_coordinator(&plan.participants, plan.rule, patience, out);
        self.phase = Phase::Recovering(Box::new(recoverer));
    }

    /// Answers the client as soon as the outcome is known, and starts the release.
    fn answer(&mut self, now: Millis, out: &mut Vec<Action>) {
        let (applied, ours) = match &self.phase {
            Phase::Finishing(finish) => (finish.all_applied(), finish.all_ours()),
            Phase::Recovering(recoverer) => {
                if recoverer.decision() == Some(Decision::Abort) {
                    return self.reply(Outcome::Aborted(Cause::Silence), out);
                }
                (recoverer.all_applied(), recoverer.all_ours())
            }
            _ => return,
        };
        if !applied {
            return;
        }
        self.reply(
            if ours {
                Outcome::Committed
            } else {
                Outcome::CommittedRepliesLost
            },
            out,
        );
        match &mut self.phase {
            Phase::Finishing(finish) if !finish.is_releasing() => finish.release(now, out),
            Phase::Recovering(recoverer) => recoverer.release(now, out),
            _ => {}
        }
    }

    fn reply(&mut self, outcome: Outcome, out: &mut Vec<Action>) {
        if !self.replied {
            self.replied = true;
            out.push(Action::Reply(outcome));
        }
    }

    fn ending(&self, now: Millis) -> Option<Ending> {
        match &self.phase {
            Phase::Voting(votes) => self.patience.is_over(now).then(|| Ending::InDoubt {
                unreachable: votes
                    .iter()
                    .filter(|(_, vote)| *vote != Some(Ballot::Yes))
                    .map(|(part, _)| *part)
                    .collect(),
            }),
            Phase::Deciding(part) => self.patience.is_over(now).then(|| Ending::InDoubt {
                unreachable: vec![*part],
            }),
            Phase::Finishing(finish) => finish.ending(now),
            Phase::Recovering(recoverer) => recoverer.ending(now),
            Phase::Over => None,
        }
    }
}

/// Whether this No proves that the branch is not prepared and never will be. A record that is
/// there already and not a tombstone proves something else: ours is not the only prepare.
fn is_final(refusal: &Refusal) -> bool {
    !matches!(refusal, Refusal::Seen(State::Prepared | State::Applied))
}

/// A vote that came after another's No.
fn late_vote(finish: &mut Finish, part: Part, vote: &Vote, not_after_ms: Millis) {
    match vote {
        Vote::Yes => finish.voted(part, None),
        Vote::No(refusal) if is_final(refusal) => finish.voted_no(part),
        Vote::No(_) | Vote::Unknown => finish.voted(part, Some(not_after_ms)),
    }
}

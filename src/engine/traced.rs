//! Steps of transactions that are traced, each with the shard that it was asked of.

use std::rc::Rc;
use std::time::Instant;

use super::Engine;
use crate::metrics::{Label, Outcome as Told, Scope};
use crate::resp::is_error;
use crate::traces::Trace;
use crate::traces::trace::of_shard;
use crate::txn::{Action, Applied, Event, Part, Refusal, Rule, TxnId, Vote};

/// What is traced of one attempt; without a trace nothing is done.
pub(super) struct Steps {
    trace: Option<Rc<Trace>>,
    engine: Rc<Engine>,
    id: TxnId,
    rule: Rule,
    /// What was asked and not answered.
    asked: Vec<(&'static str, Part, Instant)>,
}

impl Steps {
    pub(super) fn new(
        engine: &Rc<Engine>,
        trace: Option<Rc<Trace>>,
        id: &TxnId,
        rule: Rule,
    ) -> Self {
        Self {
            trace,
            engine: Rc::clone(engine),
            id: id.clone(),
            rule,
            asked: Vec::new(),
        }
    }

    /// This is about to be done.
    pub(super) fn asks(&mut self, action: &Action) {
        if self.trace.is_none() {
            return;
        }
        let (name, part) = match action {
            Action::Prepare { part, .. } => ("prepare", part),
            Action::Apply { part, .. } if self.rule == Rule::Decider(*part) => ("decide", part),
            Action::Apply { part, .. } => ("apply", part),
            Action::Abort { part, .. } => ("abort", part),
            Action::Tombstone { part, .. } => ("tombstone", part),
            Action::Read { part } => ("read", part),
            Action::Release { part, .. } => ("release", part),
            Action::Reply(_) | Action::SetTimer(_) | Action::Done(_) => return,
        };
        self.asked.push((name, *part, Instant::now()));
    }

    /// This has come.
    pub(super) fn saw(&mut self, event: &Event) {
        let Some(trace) = &self.trace else { return };
        let (part, answer) = match event {
            Event::Voted(part, vote) => (part, of_vote(vote)),
            Event::Applied(part, applied) => (part, of_applied(*applied)),
            Event::Aborted(part, _) | Event::Released(part, _) | Event::Read(part, _) => {
                (part, Ok("done"))
            }
            Event::Timer => return,
        };
        let Some(at) = self.asked.iter().position(|(_, known, _)| known == part) else {
            return;
        };
        let (name, part, began) = self.asked.swap_remove(at);
        let mut attributes = of_shard(part.shard, self.engine.address(part.shard));
        attributes.push(("lockstep.transaction.id", self.id.as_str().into()));
        let (Ok(said) | Err(said)) = answer;
        attributes.push(("lockstep.answer", said.into()));
        trace.step(name, began, attributes, answer.err().map(str::to_owned));
    }
}

fn of_vote(vote: &Vote) -> Result<&'static str, &'static str> {
    match vote {
        Vote::Yes => Ok("yes"),
        Vote::No(Refusal::Held { .. }) => Err("held"),
        Vote::No(Refusal::WatchBroken) => Err("watch_broken"),
        Vote::No(Refusal::Unreachable(_)) => Err("unreachable"),
        Vote::No(_) => Err("no"),
        Vote::Unknown => Err("unknown"),
    }
}

fn of_applied(applied: Applied) -> Result<&'static str, &'static str> {
    match applied {
        Applied::Now => Ok("applied"),
        Applied::Not(_) => Err("not_applied"),
        Applied::Refused => Err("refused"),
        Applied::Unknown => Err("unknown"),
    }
}

impl Engine {
    /// What is begun from now on is part of this trace, if there is one.
    pub fn under(&self, trace: Option<Rc<Trace>>) {
        *self.trace.borrow_mut() = trace;
    }

    /// The trace that what begins now is part of.
    pub(super) fn trace(&self) -> Option<Rc<Trace>> {
        self.trace.borrow().clone()
    }
}

/// What is said of a transaction over several shards.
pub(super) fn note_end(
    trace: Option<&Rc<Trace>>,
    told: Told,
    id: &TxnId,
    attempts: u32,
    participants: usize,
) {
    let Some(trace) = trace else { return };
    trace.note("lockstep.scope", Scope::Distributed.text());
    trace.note("lockstep.outcome", told.text());
    trace.note("lockstep.transaction.id", id.as_str());
    trace.note("lockstep.attempts", i64::from(attempts));
    trace.note("lockstep.participants", participants as i64);
    if told != Told::Committed {
        trace.fails(told.text());
    }
}

/// The same of one on a single shard, which has no id.
pub(super) fn note_single(trace: Option<&Rc<Trace>>, reply: &[u8]) {
    let Some(trace) = trace else { return };
    trace.note("lockstep.scope", Scope::Single.text());
    if !is_error(reply) {
        trace.note("lockstep.outcome", Told::Committed.text());
    }
}

//! Drives the coordinator of one attempt.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::Engine;
use super::conditional::Guard;
use super::decide::Checks;
use super::inbox::{Inbox, Reply};
use super::moments::{Moments, Who};
use super::seat::{Arrival, Request, Requests, Work};
use super::traced::Steps;
use crate::backend::{How, Pinned};
use crate::metrics::Step;
use crate::traces::Trace;
use crate::txn::coordinator::{Coordinator, Plan};
use crate::txn::script::{self, Prepare};
use crate::txn::{Action, Ending, Event, Millis, Outcome, Part, Rule, TxnId, Way};

/// One attempt of one transaction.
pub struct Attempt {
    /// Its id.
    pub id: TxnId,
    engine: Rc<Engine>,
    requests: Requests,
    work: Rc<[Work]>,
    /// What the client watches, if it does.
    guard: Option<Rc<Guard>>,
    rule: Rule,
    participants: Vec<Part>,
    coordinator: Coordinator,
    actions: Vec<Action>,
    seats: Vec<Seat>,
    timer: Option<Millis>,
    outcome: Option<Outcome>,
    ending: Option<Ending>,
    moments: Moments,
    steps: Steps,
    step_began: Instant,
    step: Step,
}

/// What is kept of one participant.
#[derive(Default)]
struct Seat {
    /// The connection that watches the record.
    pinned: Option<Pinned>,
    /// Replies of its commands.
    replies: Vec<Bytes>,
    was_asked_to_apply: bool,
    /// Where the answers to its condition arrive; the decider's are asked for otherwise.
    checked: Option<Rc<Inbox<Reply>>>,
}

impl Engine {
    /// The ids of transactions of which something may be on the shards, and that are not finished.
    pub fn under_way(&self) -> Vec<TxnId> {
        self.under_way.borrow().iter().cloned().collect()
    }
}

impl Attempt {
    /// Starts the coordinator. Nothing is sent before [`Attempt::drive`].
    pub fn begin(
        engine: &Rc<Engine>,
        work: Rc<[Work]>,
        guard: Option<Rc<Guard>>,
        trace: Option<Rc<Trace>>,
    ) -> Self {
        let id = engine.new_id();
        engine.under_way.borrow_mut().insert(id.clone());
        let rule = guard.as_ref().map_or(Rule::Implicit, |guard| guard.rule);
        let participants: Vec<Part> = work.iter().map(|work| work.part).collect();
        let window_ms = engine.times.limits.window_ms;
        let invited = |&part| (part, engine.shard_clock(part) + window_ms);
        let plan = Plan {
            participants: participants.iter().map(invited).collect(),
            rule,
        };
        let mut actions = Vec::new();
        let coordinator =
            Coordinator::start(plan, &engine.times.limits, engine.now(), &mut actions);
        Self {
            requests: Requests::new(engine, id.clone()),
            steps: Steps::new(engine, trace, &id, rule),
            id,
            engine: Rc::clone(engine),
            seats: work.iter().map(|_| Seat::default()).collect(),
            work,
            guard,
            rule,
            participants,
            coordinator,
            actions,
            timer: None,
            outcome: None,
            ending: None,
            moments: Moments::new(Who::Coordinator, rule),
            step_began: Instant::now(),
            step: Step::Prepare,
        }
    }

    /// Runs until the client can be answered.
    pub async fn drive(&mut self) -> Outcome {
        loop {
            self.act();
            if let Some(outcome) = self.outcome.take() {
                return outcome;
            }
            if self.ending.is_some() {
                return Outcome::Unknown;
            }
            self.step().await;
        }
    }

    /// Runs on until nothing is left to do for it.
    pub async fn finish(mut self) {
        self.actions.extend(self.moments.replied().await);
        loop {
            self.act();
            if let Some(ending) = &self.ending {
                return self.engine.note_ending(&self.id, ending);
            }
            self.step().await;
        }
    }

    /// See [`Requests::held`].
    pub(super) fn held(&self) -> Option<(Part, Bytes)> {
        self.requests.held()
    }

    /// What each participant has to do.
    pub(super) fn work(&self) -> &[Work] {
        &self.work
    }

    pub(super) fn engine(&self) -> &Rc<Engine> {
        &self.engine
    }

    /// The branches whose replies are not here, by number.
    pub(super) fn without_replies(&self) -> Vec<usize> {
        let lacks = |index: &usize| self.seats[*index].replies.len() < self.work[*index].count;
        (0..self.seats.len()).filter(lacks).collect()
    }

    /// Takes replies that another has got and kept, if they are of use to the client.
    pub(super) fn take_stored(&mut self, index: usize, replies: Vec<Bytes>) {
        if replies.len() == self.work[index].count
            && let Some(replies) = self.work[index].stored_replies(replies)
        {
            self.seats[index].replies = replies;
        }
    }

    /// The replies of each branch, once committed.
    pub fn take_replies(&mut self) -> Vec<Vec<Bytes>> {
        self.seats
            .iter_mut()
            .map(|seat| std::mem::take(&mut seat.replies))
            .collect()
    }

    /// Waits for what happens next, and tells the coordinator.
    async fn step(&mut self) {
        let until = self.timer.map(|at| {
            tokio::time::Instant::from_std(self.engine.epoch + Duration::from_millis(at))
        });
        let event = match self.requests.inbox.next(until).await {
            Some(arrival) => self.understand(arrival),
            None => {
                self.timer = None;
                Some(Event::Timer)
            }
        };
        if let Some(event) = event {
            self.steps.saw(&event);
            self.moments.saw(&event, &mut self.actions);
            self.moments.pause(&self.actions).await;
            self.coordinator
                .step(self.engine.now(), event, &mut self.actions);
        }
    }

    fn understand(&mut self, arrival: Arrival) -> Option<Event> {
        let (event, replies) = match arrival {
            Arrival::Reply(reply) => self.requests.understand(reply)?,
            Arrival::Pinned {
                event,
                clock_ms,
                connection,
                replies,
            } => {
                if let (Some(clock_ms), Event::Voted(part, _)) = (clock_ms, &event) {
                    self.engine.learn_clock(*part, clock_ms);
                }
                if let (Some(connection), Event::Voted(part, _)) = (connection, &event) {
                    let index = self.index(*part)?;
                    self.seats[index].pinned = Some(connection);
                }
                (event, replies)
            }
        };
        if let (Event::Applied(part, crate::txn::Applied::Now), Some(replies)) = (&event, replies) {
            let index = self.index(*part)?;
            self.seats[index].replies = self.work[index].replies(replies);
        }
        Some(event)
    }

    fn index(&self, part: Part) -> Option<usize> {
        self.participants.iter().position(|known| *known == part)
    }

    fn act(&mut self) {
        let actions = std::mem::take(&mut self.actions);
        let mut actions = self.moments.admit(actions);
        for action in &actions {
            self.steps.asks(action);
            match action {
                Action::Prepare { part, not_after_ms } => self.prepare(*part, *not_after_ms),
                Action::Apply { part, way } => self.apply(*part, *way),
                Action::Reply(outcome) => {
                    self.enter(Step::Release);
                    self.outcome = Some(outcome.clone());
                }
                Action::SetTimer(at) => self.timer = Some(*at),
                Action::Done(ending) => {
                    self.enter(Step::Release);
                    self.ending = Some(ending.clone());
                }
                other => {
                    self.requests.act(other);
                }
            }
        }
        actions.clear();
        self.actions = actions;
    }

    /// Notes how long the step that ends here has taken.
    fn enter(&mut self, next: Step) {
        let now = Instant::now();
        self.engine.metrics.step[self.step].record((now - self.step_began).as_secs_f64());
        (self.step, self.step_began) = (next, now);
    }

    fn prepare(&mut self, part: Part, not_after_ms: Millis) {
        let Some(index) = self.index(part) else {
            return;
        };
        let work = &self.work[index];
        let limits = &self.engine.times.limits;
        let guard = self.guard.as_ref().filter(|guard| guard.is_checked());
        let checked = guard.and_then(|guard| guard.take(part));
        let prepare = Prepare {
            id: &self.id,
            ttl_ms: limits.ttl_ms,
            not_after_ms,
            participants: &self.participants,
            rule: self.rule,
            intent: &work.intent,
            watched: (checked.is_some() || self.settles(part, work)).then_some(&work.watched),
        };
        let mut request = BytesMut::new();
        if let Some(connection) = checked {
            let requests = self.requests.clone();
            return requests.prepare_checked(connection, &prepare, work);
        }
        // The decider looks at its record when it decides.
        if work.uses_script() || self.is_decider(part) {
            prepare.append(&mut request);
            self.requests.send(Request::Prepare, part, &request);
        } else {
            prepare.append_watching(&mut request);
            tokio::task::spawn_local(self.requests.clone().prepare_pinned(
                part,
                work.protocol,
                request,
            ));
        }
        if let Some(condition) = work.condition.as_ref().filter(|_| !self.is_decider(part)) {
            // Over the same connection, so it is behind the prepare.
            let mut questions = BytesMut::new();
            let how = How::behind(condition.append(&mut questions));
            let inbox = Inbox::<Reply>::new();
            let sink = Rc::<Inbox<Reply>>::clone(&inbox);
            if let Err(failure) = self
                .engine
                .link(part.shard)
                .send(&[&questions], how, sink, 0)
            {
                inbox.push((0, Err(failure)));
            }
            self.seats[index].checked = Some(inbox);
        }
    }

    /// Whether it is conditional on something else than a WATCH, and settles from the prepare on.
    fn settles(&self, part: Part, work: &Work) -> bool {
        work.condition.is_some() && work.has_watched && !self.is_decider(part)
    }

    /// What the decider waits for: the conditions of the others.
    fn checks(&mut self) -> Checks {
        let checked = |(seat, at): (&mut Seat, usize)| Some((seat.checked.take()?, at));
        self.seats.iter_mut().zip(0..).filter_map(checked).collect()
    }

    fn is_decider(&self, part: Part) -> bool {
        self.rule == Rule::Decider(part)
    }

    /// The connection whose EXEC may apply the branch.
    fn pinned(&mut self, index: usize, way: Way) -> Option<Pinned> {
        let pinned = &mut self.seats[index].pinned;
        match way {
            Way::Direct => pinned.take(),
            Way::Redo => None,
        }
    }

    fn apply(&mut self, part: Part, way: Way) {
        let Some(index) = self.index(part) else {
            return;
        };
        if self.step == Step::Prepare {
            self.enter(Step::Apply);
        }
        if std::mem::replace(&mut self.seats[index].was_asked_to_apply, true) {
            self.engine.metrics.shards[usize::from(part.shard)]
                .apply_retries
                .increment(1);
        }
        let (requests, work) = (self.requests.clone(), Rc::clone(&self.work));
        if self.is_decider(part) {
            let connection = self.guard.as_ref().and_then(|guard| guard.take(part));
            let checks = self.checks();
            tokio::task::spawn_local(requests.decide(connection, checks, work, index));
        } else if self.work[index].uses_script() {
            let mut request = BytesMut::new();
            script::append_apply(&mut request, &self.id);
            self.requests.send(Request::Apply, part, &request);
        } else if let Some(connection) = self.pinned(index, way) {
            tokio::task::spawn_local(requests.apply_pinned(connection, work, index));
        } else {
            tokio::task::spawn_local(requests.apply_again(work, index));
        }
    }
}

impl Drop for Attempt {
    /// Connections that still watch the record (an attempt that was aborted) are of use to
    /// others once they do not.
    fn drop(&mut self) {
        self.engine.under_way.borrow_mut().remove(&self.id);
        for seat in &mut self.seats {
            if let Some(connection) = seat.pinned.take() {
                tokio::task::spawn_local(super::seat::unwatch(connection));
            }
        }
    }
}

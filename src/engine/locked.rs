//! Transactions behind locks: attempt after attempt, until one is not merely kept out by others or
//! `lock-wait` is over.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::attempt::Attempt;
use super::conditional::Guard;
use super::seat::Work;
use super::turnstile::Ticket;
use super::{Answer, Engine, compose, errors, traced, wakeups};
use crate::metrics::{Limit, Outcome as Told, Scope, Step};
use crate::traces::Trace;
use crate::txn::plan::Plan;
use crate::txn::{Cause, Outcome, Refusal, TxnId};

/// Takes the reply.
pub(super) type Done = Box<dyn FnOnce(&[u8])>;

/// What a client wants done, as long as it is not answered.
pub(super) struct Job {
    /// How the replies become one; its branches are in `work`.
    pub plan: Plan,
    /// What each participant has to do.
    pub work: Rc<[Work]>,
    /// Form of the reply.
    pub answer: Answer,
    /// What it is conditional on.
    pub guard: Option<Rc<Guard>>,
    /// From when on `lock-wait` counts.
    pub began: Instant,
    /// What it is part of.
    pub trace: Option<Rc<Trace>>,
    /// To be called once, with the reply.
    pub done: Done,
}

/// How the attempts ended.
pub(super) struct Ended {
    /// The last of them, which is not finished yet.
    pub attempt: Attempt,
    pub outcome: Outcome,
    pub attempts: u32,
}

impl Job {
    /// Begins now.
    pub(super) fn new(
        plan: Plan,
        work: Rc<[Work]>,
        answer: Answer,
        trace: Option<Rc<Trace>>,
        done: Done,
    ) -> Self {
        Self {
            plan,
            work,
            answer,
            guard: None,
            began: Instant::now(),
            trace,
            done,
        }
    }

    /// The same on this condition.
    pub(super) fn under(self, guard: Rc<Guard>) -> Self {
        Self {
            guard: Some(guard),
            ..self
        }
    }

    /// The slots of all its keys.
    pub(super) fn slots(&self) -> impl Iterator<Item = &[u8]> {
        self.work
            .iter()
            .flat_map(|work| work.slots.iter().map(|slot| &slot[..]))
    }
}

impl Engine {
    /// Runs a transaction behind the others that want the same keys, or in the place that it has
    /// among them already.
    pub(super) async fn run_locked(self: &Rc<Self>, job: Job, ticket: Option<Rc<Ticket>>) {
        let ticket = match ticket {
            Some(ticket) => Some(ticket),
            None => {
                let limit = self.times.lock_wait.get();
                let left = limit.saturating_sub(job.began.elapsed());
                let passed = self.turnstile.pass(job.slots(), left).await;
                passed.map(Rc::new)
            }
        };
        let guard = job.guard.as_ref();
        let is_checked = guard.is_some_and(|guard| guard.is_checked());
        if ticket.is_none() || (is_checked && !self.wait_for_locks(&job.work, job.began).await) {
            return self.give_up_waiting(job);
        }
        let (work, protocol) = (Rc::clone(&job.work), job.plan.protocol());
        let mut ended = self
            .attempt_until_decided(&work, guard, job.trace.as_ref(), job.began)
            .await;
        self.metrics.group_members.record(1.0);
        self.find_replies(&mut ended).await;
        if is_checked && ended.outcome == Outcome::WatchBroken {
            self.note_told(&job, &ended);
            return self
                .finish_broken(ended.attempt, &work, protocol, job.done)
                .await;
        }
        let replies = ended.attempt.take_replies();
        self.conclude(job, &ended, &replies);
        ended.attempt.finish().await;
    }

    /// Its keys were not free in time.
    pub(super) fn give_up_waiting(&self, job: Job) {
        let limit = self.times.lock_wait.get();
        self.note_waited(job.began.elapsed(), true);
        self.count(Told::Aborted, &job, 0);
        (job.done)(&errors::waited_too_long(job.answer, limit));
    }

    /// Looks for the replies that somebody else has got, if need be.
    pub(super) async fn find_replies(&self, ended: &mut Ended) {
        if ended.outcome == Outcome::CommittedRepliesLost && ended.attempt.find_replies().await {
            ended.outcome = Outcome::Committed;
        }
    }

    /// Answers the client; `replies` are those of its branches.
    pub(super) fn conclude(&self, job: Job, ended: &Ended, replies: &[Vec<Bytes>]) {
        self.note_told(&job, ended);
        let reply = match &ended.outcome {
            Outcome::Committed => compose(&job.plan, job.answer, replies),
            outcome => self.error(outcome, &ended.attempt.id, &job),
        };
        (job.done)(&reply);
    }

    fn error(&self, outcome: &Outcome, id: &TxnId, job: &Job) -> BytesMut {
        let (protocol, limit) = (job.plan.protocol(), self.times.lock_wait.get());
        errors::reply(outcome, id, job.answer, protocol, limit)
    }

    fn note_told(&self, job: &Job, ended: &Ended) {
        let (told, id) = (told(&ended.outcome), &ended.attempt.id);
        self.count(told, job, ended.attempts);
        traced::note_end(job.trace.as_ref(), told, id, ended.attempts, job.work.len());
    }

    /// Attempt after attempt, until one is not merely kept out by others, or the time is up.
    async fn attempt_until_decided(
        self: &Rc<Self>,
        work: &Rc<[Work]>,
        guard: Option<&Rc<Guard>>,
        trace: Option<&Rc<Trace>>,
        began: Instant,
    ) -> Ended {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let waited = began.elapsed();
            let mut attempt = Attempt::begin(self, Rc::clone(work), guard.cloned(), trace.cloned());
            let mut outcome = attempt.drive().await;
            let mut wait = self.retry_after(&outcome, attempts);
            if wait.is_some() && guard.is_some_and(|guard| guard.is_spent()) {
                // Another attempt would not be guarded any more. Nothing was applied.
                (outcome, wait) = (Outcome::WatchBroken, None);
            }
            let Some(wait) = wait.filter(|wait| self.is_in_time(began, *wait)) else {
                self.note_waited(waited, wait.is_some());
                return Ended {
                    attempt,
                    outcome,
                    attempts,
                };
            };
            self.give_way(attempt, &outcome, wait, 1).await;
        }
    }

    /// Ends an attempt of so many transactions that was kept out, and waits until another is worth
    /// it.
    pub(super) async fn give_way(
        self: &Rc<Self>,
        attempt: Attempt,
        outcome: &Outcome,
        wait: Duration,
        members: u32,
    ) {
        self.make_way(outcome).await;
        let id = attempt.id.clone();
        tokio::task::spawn_local(attempt.finish());
        self.wait_for_way(outcome, &id, wait, members).await;
    }

    /// Whether who began then may wait for so long.
    pub(super) fn is_in_time(&self, began: Instant, wait: Duration) -> bool {
        began.elapsed() + wait < self.times.lock_wait.get()
    }

    /// How long to wait before another attempt; None when the outcome is final.
    pub(super) fn retry_after(&self, outcome: &Outcome, attempts: u32) -> Option<Duration> {
        let Outcome::Aborted(cause) = outcome else {
            return None;
        };
        match cause {
            Cause::Silence => Some(Duration::from_millis(1)),
            Cause::No(_, Refusal::Late | Refusal::Seen(_)) => Some(Duration::ZERO),
            Cause::No(_, Refusal::Refused(text)) if text.starts_with("NOSCRIPT") => {
                Some(Duration::from_millis(1))
            }
            Cause::No(_, Refusal::Held { .. }) => Some(wakeups::backoff(attempts)),
            Cause::No(..) => None,
        }
    }

    /// The last attempt began after so long, and there is no time for another that is needed.
    pub(super) fn note_waited(&self, waited: Duration, in_vain: bool) {
        if in_vain {
            self.metrics.limits_hit[Limit::LockWait].increment(1);
        }
        self.metrics.lock_wait.record(waited.as_secs_f64());
    }

    fn count(&self, told: Told, job: &Job, attempts: u32) {
        self.metrics.participants.record(job.work.len() as f64);
        self.metrics.transactions[Scope::Distributed][told].increment(1);
        self.metrics.step[Step::Total].record(job.began.elapsed().as_secs_f64());
        self.metrics.attempts.record(f64::from(attempts));
        if let Some(kind) = errors::kind(told) {
            self.metrics.errors[kind].increment(1);
        }
    }
}

fn told(outcome: &Outcome) -> Told {
    match outcome {
        Outcome::Committed => Told::Committed,
        Outcome::CommittedRepliesLost => Told::RepliesLost,
        Outcome::Aborted(_) => Told::Aborted,
        Outcome::WatchBroken => Told::WatchBroken,
        Outcome::Unknown => Told::Unknown,
    }
}

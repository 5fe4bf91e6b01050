//! Group commit: transactions over the same shards that come together run as one.
//!
//! Two-phase commit costs a shard three scripts per transaction, whatever the transaction does;
//! most of that is the same for one command and for fifty. So the transactions that clients send
//! while others over the same shards are under way wait for their decision, a round trip or two,
//! and then run as **one** transaction: one record per shard, whose redo is theirs, one behind the
//! other.
//!
//! # Why that is sound
//!
//! The group *is* a transaction. Coordinator, recovery and scripts know nothing of its members, so
//! all that is said of transactions ([`crate::txn`]) holds for it: it is applied everywhere or
//! nowhere, and at one instant. On every shard the members' commands stand in the same order, that
//! in which they came, and nothing comes between them: they are serializable in that order. None of
//! them was answered before the group began and none is before it has ended, so it agrees with real
//! time as well. A command that fails (wrong type, say) fails for itself, as between MULTI and
//! EXEC. If the outcome is not known, or the replies are lost, each member is told so with the id
//! of the group, whose fate is its own.
//!
//! # Who runs with whom
//!
//! * **Whose keys are free in this process**, with others whose keys are: as soon as fewer than
//!   [`UNDECIDED_MAX`] members of groups before are undecided, or a group is full, or the first has
//!   waited for [`PATIENCE`].
//! * **Whose keys somebody has** waits for his turn ([`super::turnstile`]) in one group with those
//!   who come later and wait for the same key: they could only run one behind the other anyway. But
//!   not if somebody has another of their keys for whom that group does not wait: then alone.
//!
//! # Nobody suffers for another
//!
//! The members are over the same shards, so that none depends on a shard that is not its own. A
//! group that is kept out by a lock of another process breaks up, since most of its members have
//! no part in that: nothing of it was applied, and each goes on by itself. Unless all of them want
//! that very key: then they stay together, since they would only wait for each other.
//!
//! # How large
//!
//! The more keys a group has, the more likely another process has one of them; and a script keeps
//! its shard for as long as its commands take. So the limit grows by one when a full group was
//! decided, and is halved when a group broke up, took longer than [`SLOW`], or had more than
//! [`REPLIES_MAX`] bytes of replies. It is at most [`MEMBERS_MAX`] members, and [`REDO_MAX`] bytes.
//!
//! Only what is applied by a script joins, without a condition, and without a trace, which would
//! tell of others' steps.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

use super::Engine;
use super::attempt::Attempt;
use super::locked::{Ended, Job};
use super::seat::Work;
use super::turnstile::Ticket;
use crate::resp::Protocol;
use crate::txn::{Cause, Outcome, Part, Refusal, names};

/// Members of one group, at most: a script must not keep a shard for long.
const MEMBERS_MAX: usize = 64;
/// The same at first.
const MEMBERS_AT_FIRST: usize = 16;
/// Groups that take longer to be decided become smaller.
const SLOW: Duration = Duration::from_millis(500);
/// So do those with more bytes of replies.
const REPLIES_MAX: usize = 1024 * 1024;
/// Bytes of the commands of one group on one shard, at most.
const REDO_MAX: usize = 64 * 1024;
/// The same of one member: who has more gains little by company.
const MEMBER_REDO_MAX: usize = REDO_MAX / 8;
/// Participants of one, at most.
const PARTS_MAX: usize = 16;
/// While fewer than so many over the same shards are undecided, nobody waits for them: the company
/// is too small to be worth it.
const UNDECIDED_MAX: usize = 3;
/// Attempts after which what this worker itself has left is not about to go.
const ABORTS_AWAITED: u32 = 3;
/// How long the first of a group waits for the decision of those before it, at most, if they have
/// none of its keys.
const PATIENCE: Duration = Duration::from_millis(20);

/// The transactions of one worker that wait to run together.
#[derive(Default)]
pub(super) struct Groups(RefCell<HashMap<Company, Rc<Gathering>>>);

/// Who may run together.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Company {
    /// The participants, in order.
    parts: Box<[Part]>,
    protocol: Protocol,
}

/// Transactions over the same shards.
struct Gathering {
    company: Company,
    /// Those whose keys were free. Bounded by the number of clients, as is all that waits here.
    waiting: RefCell<VecDeque<Member>>,
    /// Bytes of their commands.
    waiting_bytes: Cell<usize>,
    /// By the key that they wait for: groups that others may still join.
    queued: RefCell<HashMap<u64, Rc<RefCell<Group>>>>,
    /// Members of a group, at most.
    members_max: Cell<usize>,
    /// Members of groups that are not decided yet.
    undecided: Cell<usize>,
    /// A group was decided, or another is full.
    changed: Notify,
    /// Whether a task forms a group of those that wait.
    is_led: Cell<bool>,
}

struct Member {
    job: Job,
    /// What its slots are to the turnstile.
    keys: Vec<u64>,
}

/// Members that run as one, and their common place in the queues.
struct Group {
    members: Vec<Member>,
    members_max: usize,
    bytes: usize,
    ticket: Ticket,
}

impl Group {
    fn new(ticket: Ticket, members_max: usize) -> Self {
        Self {
            members: Vec::new(),
            members_max,
            bytes: 0,
            ticket,
        }
    }

    fn has_room(&self) -> bool {
        !is_full(self.members.len(), self.members_max, self.bytes)
    }

    /// When the first of them began.
    fn began(&self) -> Instant {
        let began = self.members.iter().map(|member| member.job.began);
        began.min().unwrap_or_else(Instant::now)
    }

    /// Takes a member if it has to wait for nobody else than those who are here; or returns it.
    fn take(&mut self, member: Member) -> Option<Member> {
        if !self.has_room() || !self.ticket.take(&member.keys) {
            return Some(member);
        }
        self.bytes += redo_len(&member.job);
        self.members.push(member);
        None
    }
}

fn is_full(members: usize, members_max: usize, bytes: usize) -> bool {
    members >= members_max || bytes > REDO_MAX - MEMBER_REDO_MAX
}

impl Engine {
    /// Runs a transaction over several shards, with others if that can be. It was counted as
    /// active.
    pub(super) fn run_among_others(self: &Rc<Self>, job: Job) {
        if !is_sociable(&job) {
            return self.run_alone(job);
        }
        let keys = self.turnstile.hashes(job.slots());
        let gathering = self.groups.of(&job);
        let member = Member { job, keys };
        match self.turnstile.first_taken(&member.keys) {
            Some(key) => self.queue_up(&gathering, key, member),
            None => {
                gathering.wait(member);
                self.call_leader(&gathering);
            }
        }
    }

    fn run_alone(self: &Rc<Self>, job: Job) {
        let engine = Rc::clone(self);
        tokio::task::spawn_local(async move {
            engine.run_locked(job, None).await;
            engine.is_over(1);
        });
    }

    fn is_over(&self, members: usize) {
        self.active.set(self.active.get() - members);
    }

    /// Somebody waits. Who leads is a task of its own, so who comes in the same turn of the event
    /// loop is in the same group.
    fn call_leader(self: &Rc<Self>, gathering: &Rc<Gathering>) {
        if !gathering.is_led.replace(true) {
            tokio::task::spawn_local(Rc::clone(self).lead(Rc::clone(gathering)));
        }
    }

    /// Forms a group of those that wait, when it may begin, and runs it.
    async fn lead(self: Rc<Self>, gathering: Rc<Gathering>) {
        gathering.turn().await;
        let mut group = gathering.group(self.turnstile.join(Vec::new()).0);
        while group.has_room()
            && let Some(member) = gathering.next_waiting()
        {
            if let Some(member) = group.take(member) {
                // Somebody has one of its keys by now.
                match self.turnstile.first_taken(&member.keys) {
                    Some(key) => self.queue_up(&gathering, key, member),
                    None => self.run_alone(member.job),
                }
            }
        }
        gathering.is_led.set(false);
        if !gathering.waiting.borrow().is_empty() {
            self.call_leader(&gathering);
        }
        self.run_group(&gathering, group).await;
        self.groups.forget_if_idle(&gathering);
    }

    /// Puts one into the queue for this key that it wants and somebody has: with those of its
    /// company who are there already, if it waits for nobody for whom they do not wait.
    fn queue_up(self: &Rc<Self>, gathering: &Rc<Gathering>, key: u64, member: Member) {
        let queued = gathering.queued.borrow().get(&key).cloned();
        let member = match queued {
            None => member,
            Some(group) => {
                let mut group = group.borrow_mut();
                let is_full = !group.has_room();
                match group.take(member) {
                    None => return,
                    Some(member) if is_full => member,
                    Some(member) => return self.run_alone(member.job),
                }
            }
        };
        let (ticket, go) = self.turnstile.join(member.keys.clone());
        let mut group = gathering.group(ticket);
        if let Some(member) = group.take(member) {
            return self.run_alone(member.job);
        }
        let group = Rc::new(RefCell::new(group));
        gathering.queued.borrow_mut().insert(key, Rc::clone(&group));
        let (engine, gathering) = (Rc::clone(self), Rc::clone(gathering));
        tokio::task::spawn_local(async move {
            engine.wait_and_run(&gathering, key, group, go).await;
            engine.groups.forget_if_idle(&gathering);
        });
    }

    /// Runs a group when it has come to the front of all its queues.
    async fn wait_and_run(
        self: &Rc<Self>,
        gathering: &Gathering,
        key: u64,
        group: Rc<RefCell<Group>>,
        go: Option<oneshot::Receiver<()>>,
    ) {
        let began = group.borrow().began();
        let limit = self.times.lock_wait.get();
        let left = limit.saturating_sub(began.elapsed());
        let has_passed = match go {
            None => true,
            Some(go) => matches!(tokio::time::timeout(left, go).await, Ok(Ok(()))),
        };
        let nobody = gathering.group(self.turnstile.join(Vec::new()).0);
        let closed = group.replace(nobody);
        gathering.close(key, &group);
        if has_passed {
            return self.run_group(gathering, closed).await;
        }
        let Group {
            members, ticket, ..
        } = closed;
        drop(ticket);
        self.part(members, |engine, job| engine.give_up_waiting(job));
    }

    /// Members whose group is no more: who has time left goes on alone, the others are told so.
    fn part(self: &Rc<Self>, members: Vec<Member>, mut tell: impl FnMut(&Self, Job)) {
        for Member { job, .. } in members {
            if self.is_in_time(job.began, Duration::ZERO) {
                self.run_alone(job);
            } else {
                tell(self, job);
                self.is_over(1);
            }
        }
    }

    /// Runs these to their end, or until they had better go on each for itself.
    async fn run_group(self: &Rc<Self>, gathering: &Gathering, group: Group) {
        let began = group.began();
        let Group {
            members, ticket, ..
        } = group;
        let Some(work) = gathering.join(&members) else {
            return;
        };
        let tried = self.attempt_together(gathering, &members, &work, began);
        let (mut ended, attempted) = match tried.await {
            Ok(tried) => tried,
            Err(attempt) => {
                tokio::task::spawn_local(attempt.finish());
                drop(ticket);
                return self.part(members, |engine, job| engine.give_up_waiting(job));
            }
        };
        if self.retry_after(&ended.outcome, ended.attempts).is_some() {
            // The time of the first of them is up, and nothing was applied.
            drop(ticket);
            self.part(members, |engine, job| {
                engine.note_waited(attempted - job.began, true);
                engine.conclude(job, &ended, &[]);
            });
            return ended.attempt.finish().await;
        }
        self.metrics.group_members.record(members.len() as f64);
        self.find_replies(&mut ended).await;
        let replies = ended.attempt.take_replies();
        if replies.iter().flatten().map(Bytes::len).sum::<usize>() > REPLIES_MAX {
            gathering.shrink(members.len());
        }
        let mut shares = Shares::of(&work, replies);
        let running = members.len();
        for Member { job, .. } in members {
            let share = shares.next(&job);
            self.note_waited(attempted - job.began, false);
            self.conclude(job, &ended, &share);
        }
        ended.attempt.finish().await;
        self.is_over(running);
    }

    /// Whether another transaction stands in the way. One of our own, since the keys are ours by
    /// the turnstile, is at first taken for an earlier attempt whose abort is under way.
    fn is_kept_out(&self, outcome: &Outcome, attempts: u32) -> bool {
        match outcome {
            Outcome::Aborted(Cause::No(_, Refusal::Held { owner, .. })) => {
                attempts > ABORTS_AWAITED || !owner.as_str().starts_with(&self.boot_id)
            }
            _ => false,
        }
    }

    /// Attempt after attempt of all together, and when the last of them began; as an error the
    /// attempt that was kept out by what only some of them want.
    async fn attempt_together(
        self: &Rc<Self>,
        gathering: &Gathering,
        members: &[Member],
        work: &Rc<[Work]>,
        began: Instant,
    ) -> Result<(Ended, Instant), Attempt> {
        gathering.begins(members.len());
        let mut attempts = 0;
        loop {
            attempts += 1;
            let attempted = Instant::now();
            let mut attempt = Attempt::begin(self, Rc::clone(work), None, None);
            let outcome = attempt.drive().await;
            if attempts == 1 {
                gathering.decided(members.len());
            }
            let wait = self.retry_after(&outcome, attempts);
            let Some(wait) = wait.filter(|wait| self.is_in_time(began, *wait)) else {
                gathering.adapt(members.len(), attempted.elapsed());
                let ended = Ended {
                    attempt,
                    outcome,
                    attempts,
                };
                return Ok((ended, attempted));
            };
            if self.is_kept_out(&outcome, attempts) && !do_all_want(members, attempt.held()) {
                gathering.shrink(members.len());
                return Err(attempt);
            }
            let waiting = members.len() as u32;
            self.give_way(attempt, &outcome, wait, waiting).await;
        }
    }
}

impl Groups {
    fn of(&self, job: &Job) -> Rc<Gathering> {
        let mut parts: Box<[Part]> = job.work.iter().map(|work| work.part).collect();
        parts.sort_unstable();
        let company = Company {
            parts,
            protocol: job.plan.protocol(),
        };
        let mut all = self.0.borrow_mut();
        if let Some(known) = all.get(&company) {
            return Rc::clone(known);
        }
        let gathering = Rc::new(Gathering {
            company: company.clone(),
            waiting: RefCell::default(),
            waiting_bytes: Cell::new(0),
            members_max: Cell::new(MEMBERS_AT_FIRST),
            queued: RefCell::default(),
            undecided: Cell::new(0),
            changed: Notify::new(),
            is_led: Cell::new(false),
        });
        all.insert(company, Rc::clone(&gathering));
        gathering
    }

    /// There are more sets of shards than can be kept.
    fn forget_if_idle(&self, gathering: &Gathering) {
        let mut all = self.0.borrow_mut();
        let known = all.get(&gathering.company);
        let is_known = known.is_some_and(|known| std::ptr::eq(&raw const **known, gathering));
        if is_known && gathering.is_idle() {
            all.remove(&gathering.company);
        }
    }
}

impl Gathering {
    fn is_idle(&self) -> bool {
        !self.is_led.get() && self.undecided.get() == 0 && self.queued.borrow().is_empty()
    }

    fn group(&self, ticket: Ticket) -> Group {
        Group::new(ticket, self.members_max.get())
    }

    fn wait(&self, member: Member) {
        let bytes = self.waiting_bytes.get() + redo_len(&member.job);
        self.waiting_bytes.set(bytes);
        self.waiting.borrow_mut().push_back(member);
        if self.is_full() {
            self.changed.notify_one();
        }
    }

    fn next_waiting(&self) -> Option<Member> {
        let member = self.waiting.borrow_mut().pop_front()?;
        let bytes = self.waiting_bytes.get() - redo_len(&member.job);
        self.waiting_bytes.set(bytes);
        Some(member)
    }

    /// Whether those who wait fill a group.
    fn is_full(&self) -> bool {
        let waiting = self.waiting.borrow().len();
        is_full(waiting, self.members_max.get(), self.waiting_bytes.get())
    }

    /// A group of so many was decided, after so long.
    fn adapt(&self, members: usize, took: Duration) {
        if took > SLOW {
            self.shrink(members);
        } else if members >= self.members_max.get() {
            self.members_max.set(MEMBERS_MAX.min(members + 1));
        }
    }

    /// A group of so many was too many.
    fn shrink(&self, members: usize) {
        let halved = self.members_max.get().min(members) / 2;
        self.members_max.set(halved.max(1));
    }

    /// Nobody joins this group any more.
    fn close(&self, key: u64, group: &Rc<RefCell<Group>>) {
        let mut queued = self.queued.borrow_mut();
        if queued.get(&key).is_some_and(|open| Rc::ptr_eq(open, group)) {
            queued.remove(&key);
        }
    }

    /// What each participant has to do for all of these together; None if there is nobody.
    fn join(&self, members: &[Member]) -> Option<Rc<[Work]>> {
        if let [alone] = members {
            return Some(Rc::clone(&alone.job.work));
        }
        let of = |part: &Part| {
            let works = members.iter().flat_map(|member| member.job.work.iter());
            let works: Vec<&Work> = works.filter(|work| work.part == *part).collect();
            Work::join(&works)
        };
        self.company.parts.iter().map(of).collect()
    }

    fn begins(&self, members: usize) {
        self.undecided.set(self.undecided.get() + members);
    }

    fn decided(&self, members: usize) {
        self.undecided.set(self.undecided.get() - members);
        self.changed.notify_one();
    }

    /// Until another group may begin.
    async fn turn(&self) {
        let first = self.waiting.borrow().front().map(|first| first.job.began);
        let until = first.unwrap_or_else(Instant::now) + PATIENCE;
        while self.undecided.get() >= UNDECIDED_MAX && !self.is_full() {
            let changed = self.changed.notified();
            if tokio::time::timeout_at(until.into(), changed)
                .await
                .is_err()
            {
                break;
            }
        }
    }
}

/// The replies of a group, to be handed out to its members in their order.
struct Shares {
    branches: Vec<(Part, std::vec::IntoIter<Bytes>)>,
}

impl Shares {
    fn of(work: &[Work], replies: Vec<Vec<Bytes>>) -> Self {
        let parts = work.iter().map(|work| work.part);
        let replies = replies.into_iter().map(Vec::into_iter);
        Self {
            branches: parts.zip(replies).collect(),
        }
    }

    /// The replies of the next member's branches; empty if the group has none.
    fn next(&mut self, job: &Job) -> Vec<Vec<Bytes>> {
        let mut share = |work: &Work| {
            let mut branches = self.branches.iter_mut();
            let branch = branches.find(|(part, _)| *part == work.part);
            branch.map_or_else(Vec::new, |(_, replies)| replies.take(work.count).collect())
        };
        job.work.iter().map(&mut share).collect()
    }
}

/// Whether it may run with others, as one.
fn is_sociable(job: &Job) -> bool {
    let may_join = |work: &Work| {
        work.uses_script()
            && work.condition.is_none()
            && !work.has_watched
            && work
                .slots
                .first()
                .is_none_or(|slot| slot != names::EVERY_SLOT)
    };
    job.trace.is_none()
        && job.guard.is_none()
        && job.work.len() <= PARTS_MAX
        && redo_len(job) <= MEMBER_REDO_MAX
        && job.work.iter().all(may_join)
}

/// On the shard that has most of it.
fn redo_len(job: &Job) -> usize {
    let lengths = job.work.iter().map(|work| work.intent.redo.len());
    lengths.max().unwrap_or(0)
}

/// Whether all of them want this key, which another transaction holds.
fn do_all_want(members: &[Member], held: Option<(Part, Bytes)>) -> bool {
    let wants = |member: &Member, part: Part, key: &Bytes| {
        let works = &mut member.job.work.iter();
        key == names::EVERY_SLOT || works.any(|work| work.part == part && work.slots.contains(key))
    };
    match held {
        Some((part, key)) => members.iter().all(|member| wants(member, part, &key)),
        None => members.len() == 1,
    }
}

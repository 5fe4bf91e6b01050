//! An armed connection: where what touches several slots of one shard takes effect.
//!
//! For a command or a MULTI/EXEC over several slots to hold its reply back ([`super::hold`]) is
//! not enough: its effect on one slot is visible to others at once, though another of its slots
//! is settling. It must not *take effect* before all of them are settled. So it runs on a
//! connection that is kept *armed*: `WATCH settling` stands on it, and `EXISTS settling`, asked
//! behind that WATCH, has answered no. Then `MULTI … EXEC` runs only if nothing has begun to
//! settle since; otherwise it answers nil, and nothing was done. Behind each EXEC the next WATCH
//! and its question are sent, so that all of it takes one round trip.
//!
//! # Why that is sound
//!
//! EXEC and the test of what is watched are one step of the shard, so at the instant of the
//! effect nothing settles there: every transaction over several shards that has been applied on
//! this shard has been applied everywhere, and every other one comes behind as a whole, as far
//! as this shard can tell. Nor has anybody been shown an effect of one that comes behind, since
//! those replies are held until it is applied here, too. What the run has read is therefore
//! settled, and its reply leaves at once: the hold rule asks for a look at an instant that is
//! not before the execution, and this one is at it. Towards split reads ([`super::link::Link::epoch`])
//! such a run is a plain command: it moves no epoch, and each of their pieces sees all of it or
//! nothing; its order to the pieces on other shards is no more promised than that of two plain
//! writes.
//!
//! # One connection for all
//!
//! All clients of a worker share it. One EXEC at a time is under way; the runs that come
//! meanwhile wait, and share the next one: a transaction is as atomic inside a larger one, and
//! errors while commands run concern them alone. A command that is refused when it is queued
//! (a full server, say) spoils the whole EXEC: then each run goes again in an EXEC of its own.
//!
//! A nil is followed by another try. When the shard is busy with transactions over several shards
//! that is in vain: the runs are handed back ([`Ended::KeptOut`]) for another way, and others at
//! once for a while, which doubles as long as it stays so.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::hold::{EXISTS_SETTLING, NO};
use super::link::LinkOptions;
use super::{Cause, Dial, Failure, How, Link, ReplySink};
use crate::metrics::{ArmedEnd, Limit, ShardMetrics};
use crate::resp::{self, Kind, Lane, Protocol};
use crate::turn::{Flush, Turn};

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";
const UNWATCH: &[u8] = b"*1\r\n$7\r\nUNWATCH\r\n";
pub(crate) const WATCH_SETTLING: &[u8] = b"*2\r\n$5\r\nWATCH\r\n$19\r\n__lockstep:settling\r\n";

/// Times that a run is sent before it is handed back.
const TRIES_MAX: u32 = 2;
/// What one EXEC holds at most; at least one run.
const RUNS_MAX: usize = 128;
const BYTES_MAX: usize = 256 * 1024;
/// How long everything is handed back at once after the shard was found busy.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(64));

/// How a run ended.
#[derive(Debug)]
pub enum Ended<'a> {
    /// Its commands were executed, as one, with these replies.
    Ran(&'a [&'a [u8]]),
    /// The shard refused the EXEC of this run alone, with this error: nothing was executed.
    Refused(&'a [u8]),
    /// Something was settling whenever it was tried: nothing was executed.
    KeptOut,
    /// No reply.
    Failed(&'a Failure),
}

/// Commands that take effect together.
pub struct Run {
    /// Raw, one behind the other. Behind them the state of the connection is what it was.
    pub commands: Bytes,
    /// How many they are.
    pub count: u32,
    /// Whose they are, if their order counts: when a run is not executed but was to be, all that
    /// its owner has given behind it are handed back right behind it.
    pub owner: Option<u64>,
    /// Called once, from a task of the connection.
    pub done: Box<dyn FnOnce(Ended<'_>)>,
}

struct Waiting {
    run: Run,
    tries: u32,
    /// An EXEC that it shared was refused.
    is_alone: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing is known of what settles, or nothing stands watch.
    Disarmed,
    /// A WATCH and the question behind it are under way; perhaps behind an EXEC.
    Asking,
    /// The WATCH stands on the connection of this number, and the question was answered with no.
    Armed(u64),
}

struct Inner {
    phase: Phase,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// In the EXEC that is under way.
    running: Vec<Waiting>,
    is_dirty: bool,
    /// Everything is handed back until then.
    busy_until: Option<Instant>,
    pause: Duration,
    was_started: bool,
}

/// See the module.
pub struct Armed {
    link: Rc<Link>,
    turn: Rc<Turn>,
    metrics: ShardMetrics,
    bounds: LinkOptions,
    inner: RefCell<Inner>,
}

/// Number of the reply to EXEC.
const RAN: u64 = 0;
/// Number of the reply to the question behind it.
const CHECKED: u64 = 1;

impl Armed {
    /// A connection in database 0 that is opened when it is first needed. Of the options `inflight_max` and
    /// `unwritten_bytes_max` bound what waits for it.
    pub fn new(
        dial: Dial,
        protocol: Protocol,
        options: LinkOptions,
        turn: Rc<Turn>,
        metrics: ShardMetrics,
    ) -> Rc<Self> {
        // What waits, waits here: of the link there is one EXEC at most, and one question.
        let (bounds, options) = (options.clone(), options.unbounded());
        let link = Link::new(
            dial,
            Lane::speaking(protocol),
            options,
            Rc::clone(&turn),
            metrics.clone(),
        );
        Rc::new(Self {
            link,
            turn,
            metrics,
            bounds,
            inner: RefCell::new(Inner {
                phase: Phase::Disarmed,
                waiting: VecDeque::new(),
                waiting_bytes: 0,
                running: Vec::new(),
                is_dirty: false,
                busy_until: None,
                pause: PAUSE.0,
                was_started: false,
            }),
        })
    }

    /// Runs commands together while nothing settles, or says why not. Must be called on a
    /// thread with local tasks.
    pub fn run(self: &Rc<Self>, run: Run) {
        if let Some((run, failure)) = self.enqueue(run) {
            let ended = match &failure {
                None => Ended::KeptOut,
                Some(failure) => Ended::Failed(failure),
            };
            self.end(run, ended);
        }
    }

    /// Gives the run back if it is not to wait; without a failure when the shard is busy.
    fn enqueue(self: &Rc<Self>, run: Run) -> Option<(Run, Option<Failure>)> {
        let mut inner = self.inner.borrow_mut();
        if inner
            .busy_until
            .is_some_and(|until| self.turn.now() < until)
        {
            return Some((run, None));
        }
        if self
            .bounds
            .is_full(inner.waiting.len(), inner.waiting_bytes)
        {
            self.metrics.limits_hit[Limit::ShardInflight].increment(1);
            let failure = Failure::NeverSent(Cause::of_limit(format!(
                "shard {} is overloaded: {} transactions and {} bytes wait for its armed connection",
                self.link.address(),
                inner.waiting.len(),
                inner.waiting_bytes
            )));
            return Some((run, Some(failure)));
        }
        inner.busy_until = None;
        inner.push_back(Waiting {
            run,
            tries: 0,
            is_alone: false,
        });
        if !std::mem::replace(&mut inner.was_started, true) {
            tokio::task::spawn_local(Rc::clone(&self.link).run());
        }
        self.mark_dirty(&mut inner);
        None
    }

    fn mark_dirty(self: &Rc<Self>, inner: &mut Inner) {
        if !inner.is_dirty && !inner.waiting.is_empty() && inner.phase != Phase::Asking {
            inner.is_dirty = true;
            self.turn.shard_is_dirty(Rc::<Self>::clone(self));
        }
    }

    /// Sends the next EXEC, and the question for the one behind it; the question alone, if its
    /// answer is not known.
    fn send(self: &Rc<Self>) {
        {
            let mut inner = self.inner.borrow_mut();
            inner.is_dirty = false;
            if inner.waiting.is_empty() || inner.phase == Phase::Asking {
                return;
            }
            let is_armed = inner.phase == Phase::Armed(self.link.connection());
            inner.phase = Phase::Asking;
            if is_armed {
                inner.take_next();
            }
        }
        let sent = self.send_exec().and_then(|is_behind_exec| {
            // An older WATCH may be broken: a new one would not mend that, unlike an EXEC.
            let unwatch: &[u8] = if is_behind_exec { b"" } else { UNWATCH };
            let how = How::behind(if is_behind_exec { 1 } else { 2 });
            let ask: [&[u8]; 3] = [unwatch, WATCH_SETTLING, EXISTS_SETTLING];
            self.link.send(&ask, how, Rc::<Self>::clone(self), CHECKED)
        });
        if let Err(failure) = sent {
            self.give_up(&failure);
        }
    }

    /// Whether there was something to execute.
    fn send_exec(self: &Rc<Self>) -> Result<bool, Failure> {
        let mut inner = self.inner.borrow_mut();
        let runs = &inner.running;
        if runs.is_empty() {
            return Ok(false);
        }
        let mut pieces: Vec<&[u8]> = Vec::with_capacity(runs.len() + 2);
        pieces.push(MULTI);
        pieces.extend(runs.iter().map(|waiting| &waiting.run.commands[..]));
        pieces.push(EXEC);
        let count: u32 = runs.iter().map(|waiting| waiting.run.count).sum();
        let sink = Rc::<Self>::clone(self);
        let sent = self.link.send(&pieces, How::behind(1 + count), sink, RAN);
        if sent.is_ok() {
            self.metrics.armed_execs.increment(1);
        } else {
            // It was not taken: these are as those that wait.
            while let Some(waiting) = inner.running.pop() {
                inner.push_front(waiting);
            }
        }
        sent.map(|()| true)
    }

    /// Nothing can be sent: the commands of those who wait were not executed.
    fn give_up(self: &Rc<Self>, failure: &Failure) {
        let waiting = {
            let mut inner = self.inner.borrow_mut();
            inner.phase = Phase::Disarmed;
            inner.take_all()
        };
        for waiting in waiting {
            self.end(waiting.run, Ended::Failed(failure));
        }
    }

    fn end(&self, run: Run, ended: Ended<'_>) {
        let end = match ended {
            Ended::Ran(_) => ArmedEnd::Ran,
            Ended::Refused(_) => ArmedEnd::Refused,
            Ended::KeptOut => ArmedEnd::KeptOut,
            Ended::Failed(_) => ArmedEnd::Failed,
        };
        self.metrics.armed_runs[end].increment(1);
        (run.done)(ended);
    }

    /// The reply to EXEC.
    fn on_exec(self: &Rc<Self>, frame: &[u8]) {
        let running = std::mem::take(&mut self.inner.borrow_mut().running);
        match resp::kind(frame) {
            Kind::Array => self.share_out(running, frame),
            Kind::NullArray | Kind::Null => {
                self.metrics.armed_broken.increment(1);
                self.go_again(running);
            }
            _ => self.on_refusal(running, frame),
        }
    }

    /// Everything ran: to each its replies.
    fn share_out(&self, running: Vec<Waiting>, frame: &[u8]) {
        self.inner.borrow_mut().ease();
        let replies: Vec<&[u8]> = resp::elements(frame).collect();
        let lost = Failure::MaybeSent(Cause::new("the reply to EXEC is too short"));
        let mut rest = &replies[..];
        for Waiting { run, .. } in running {
            match rest.split_at_checked(run.count as usize) {
                Some((replies, behind)) => {
                    rest = behind;
                    self.end(run, Ended::Ran(replies));
                }
                None => self.end(run, Ended::Failed(&lost)),
            }
        }
    }

    /// Something began to settle: nothing ran.
    fn go_again(&self, running: Vec<Waiting>) {
        let mut kept_out = Vec::new();
        {
            let mut inner = self.inner.borrow_mut();
            for mut waiting in running.into_iter().rev() {
                waiting.tries += 1;
                if waiting.tries < TRIES_MAX {
                    inner.push_front(waiting);
                } else {
                    kept_out.push(waiting);
                }
            }
            if !kept_out.is_empty() {
                inner.rest(self.turn.now());
                kept_out.reverse();
                // Those behind them must not overtake them, and would hardly fare better.
                kept_out.extend(inner.take_all());
            }
        }
        for waiting in kept_out {
            self.end(waiting.run, Ended::KeptOut);
        }
    }

    /// A command was refused when it was queued, or the EXEC was: nothing ran.
    fn on_refusal(&self, mut running: Vec<Waiting>, frame: &[u8]) {
        if running.len() == 1
            && let Some(waiting) = running.pop()
        {
            let owner = waiting.run.owner;
            let behind = owner.map(|owner| self.inner.borrow_mut().take_of(owner));
            self.end(waiting.run, Ended::Refused(frame));
            for waiting in behind.into_iter().flatten() {
                self.end(waiting.run, Ended::KeptOut);
            }
            return;
        }
        let mut inner = self.inner.borrow_mut();
        for mut waiting in running.into_iter().rev() {
            waiting.is_alone = true;
            inner.push_front(waiting);
        }
    }

    /// The answer to whether something settles, behind a WATCH.
    fn on_check(self: &Rc<Self>, frame: &[u8]) {
        let kept_out = {
            let mut inner = self.inner.borrow_mut();
            if frame == NO {
                inner.phase = Phase::Armed(self.link.connection());
                self.mark_dirty(&mut inner);
                return;
            }
            inner.phase = Phase::Disarmed;
            if inner.waiting.is_empty() {
                return;
            }
            inner.rest(self.turn.now());
            inner.take_all()
        };
        for waiting in kept_out {
            self.end(waiting.run, Ended::KeptOut);
        }
    }

    /// Gives the connection up if a request has waited too long. Called now and then.
    pub fn check_time(&self, now: Instant) {
        self.link.check_time(now);
    }

    /// Brings the metrics up to date.
    pub fn publish(&self) {
        self.link.publish();
    }
}

impl Inner {
    fn push_back(&mut self, waiting: Waiting) {
        self.waiting_bytes += waiting.run.commands.len();
        self.waiting.push_back(waiting);
    }

    fn push_front(&mut self, waiting: Waiting) {
        self.waiting_bytes += waiting.run.commands.len();
        self.waiting.push_front(waiting);
    }

    fn take_all(&mut self) -> VecDeque<Waiting> {
        self.waiting_bytes = 0;
        std::mem::take(&mut self.waiting)
    }

    /// The runs of this owner.
    fn take_of(&mut self, owner: u64) -> Vec<Waiting> {
        let all = self.take_all();
        let (its, others): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|waiting| waiting.run.owner == Some(owner));
        others.into_iter().for_each(|other| self.push_back(other));
        its
    }

    /// Moves what the next EXEC holds from those who wait.
    fn take_next(&mut self) {
        let mut bytes = 0;
        while let Some(next) = self.waiting.front() {
            bytes += next.run.commands.len();
            let is_full = self.running.len() >= RUNS_MAX || bytes > BYTES_MAX || next.is_alone;
            if is_full && !self.running.is_empty() {
                return;
            }
            let is_alone = next.is_alone;
            if let Some(next) = self.waiting.pop_front() {
                self.waiting_bytes -= next.run.commands.len();
                self.running.push(next);
            }
            if is_alone {
                return;
            }
        }
    }

    /// An EXEC went through: the shard may be less busy.
    fn ease(&mut self) {
        self.pause = (self.pause / 2).max(PAUSE.0);
    }

    /// The shard is busy: no more tries for a while.
    fn rest(&mut self, now: Instant) {
        self.busy_until = Some(now + self.pause);
        self.pause = (self.pause * 2).min(PAUSE.1);
    }
}

impl Flush for Armed {
    fn flush(self: Rc<Self>, _now: Instant) {
        self.send();
    }
}

impl ReplySink for Armed {
    fn deliver(self: Rc<Self>, number: u64, reply: &[u8]) {
        if number == RAN {
            self.on_exec(reply);
        } else {
            self.on_check(reply);
        }
    }

    fn fail(self: Rc<Self>, number: u64, failure: &Failure) {
        if number == RAN {
            let running = std::mem::take(&mut self.inner.borrow_mut().running);
            for waiting in running {
                self.end(waiting.run, Ended::Failed(failure));
            }
            return;
        }
        let mut inner = self.inner.borrow_mut();
        inner.phase = Phase::Disarmed;
        self.mark_dirty(&mut inner);
    }
}

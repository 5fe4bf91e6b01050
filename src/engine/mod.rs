//! Carries out what [`crate::txn`] decides: actions become requests to shards, their replies
//! and the clock become events. All waiting is here, no decision is.
//!
//! * [`locked`]: transactions behind locks, attempt after attempt;
//! * [`groups`]: those that run together as one;
//! * [`attempt`]: drives one coordinator;
//! * [`seat`]: one participant of an attempt: its requests, its pinned connection, its replies;
//! * [`recover`]: drives a recoverer;
//! * [`census`]: looks for what nobody finishes, and measures it;
//! * [`turnstile`]: first come, first served inside the process;
//! * [`channels`]: who listens to what, over one connection per shard;
//! * [`blocking`]: commands that wait for data;
//! * [`waiting`]: the same with keys on several shards;
//! * [`patient`]: the same over several slots of one shard;
//! * [`guarded`]: what touches several slots of one shard;
//! * [`fence`]: plain writes that keep away from conditional transactions;
//! * [`watching`]: what clients watch, on connections of their own;
//! * [`conditional`]: EXEC of a client that watches;
//! * [`decide`]: what only the decider and the watching connections do in it;
//! * [`crossing`]: single commands whose keys are on several shards;
//! * [`everywhere`]: asking every shard the same;
//! * [`wakeups`]: for the end of transactions that stand in the way;
//! * [`reload`]: our own scripts, where a shard has lost them;
//! * [`sources`]: scripts that clients have shown;
//! * [`errors`]: what a client is told instead of replies;
//! * [`inbox`]: what has arrived;
//! * [`inspect`]: what operators ask of it;
//! * [`moments`]: where tests stop it;
//! * [`stored`]: replies that a recoverer got in the place of the client;
//! * [`traced`]: steps of transactions that are traced;
//! * [`lanes`]: shared connections by protocol and database.

mod ask;
pub mod attempt;
pub mod blocking;
mod census;
pub mod channels;
mod conditional;
pub mod crossing;
mod decide;
pub mod errors;
pub mod everywhere;
pub mod fence;
mod groups;
mod guarded;
pub mod inbox;
pub mod inspect;
pub mod lanes;
mod locked;
mod moments;
pub mod patient;
pub mod recover;
mod reload;
pub mod seat;
pub mod sources;
mod stored;
mod traced;
pub mod turnstile;
pub mod upload;
pub mod waiting;
mod wakeups;
pub mod watching;

use ask::no_reply;
pub use ask::{ask_as, ask_over};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::backend::{Armed, How, Isolation, Link, Pool, Wakeups};
use crate::failpoint;
use crate::metrics::{Metrics, Outcome as Told, Scope};
use crate::resp::{self, Lane, Protocol};
use crate::traces::Trace;
use crate::txn::plan::{Branch, Plan};
use crate::txn::script;
use crate::txn::{Limits, Millis, Part, TxnId};
use groups::Groups;
use guarded::Guarded;
use inbox::{Inbox, Reply};
use lanes::Lanes;
use locked::Job;
use seat::Work;
use turnstile::Turnstile;

/// Form of the reply to a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// An array, as EXEC gives it.
    Exec,
    /// The reply to the only command.
    Bare,
    /// An array as well, for who makes one reply of it; errors as for `Bare`.
    Parts,
}

/// Times of the transactions that this engine runs.
#[derive(Clone, Debug)]
pub struct Times {
    /// Whether plain commands are isolated from transactions. Never on a single shard, where
    /// nothing is distributed.
    pub strict: bool,
    /// Whether plain writes keep away from transactions whose WATCH spans shards.
    pub fenced: bool,
    /// How long a transaction waits for keys that others hold.
    pub lock_wait: Cell<Duration>,
    /// How long decided records are kept.
    pub retention: Duration,
    /// The limits of coordinators and recoverers.
    pub limits: Limits,
    /// Interval of the background search for what nobody finishes.
    pub scan_interval: Cell<Duration>,
}

/// The ways to one shard.
pub struct Ways {
    /// What all clients share.
    pub link: Rc<Link>,
    /// The same for what touches several slots, by protocol.
    pub armed: [Rc<Armed>; 2],
    /// For transactions that need a connection for themselves.
    pub pool: Rc<Pool>,
    /// For commands that wait for data. Apart from the others, so that clients who wait keep no
    /// transaction waiting.
    pub waiters: Rc<Pool>,
    /// For clients that watch keys: apart, for the same reason.
    pub watchers: Rc<Pool>,
    /// News of transactions that have ended.
    pub wakeups: Rc<Wakeups>,
}

/// The engine of one worker.
pub struct Engine {
    ways: Vec<Ways>,
    /// The shared connections, by lane.
    lanes: Lanes,
    times: Times,
    turnstile: Arc<Turnstile>,
    /// Transactions that are about to run together.
    groups: Groups,
    metrics: Arc<Metrics>,
    /// What [`Millis`] of the machines' clock count from.
    epoch: Instant,
    /// By shard: its clock minus ours, as last seen.
    clock_offsets: Vec<Cell<i64>>,
    boot_id: String,
    next_id: Cell<u64>,
    /// By shard: the version of values (DUMP) that it can read, once it was asked.
    readable: Vec<Cell<i64>>,
    /// Transactions that this worker is recovering.
    recovering: RefCell<HashSet<TxnId>>,
    /// Transactions of this worker that are not finished yet.
    active: Cell<usize>,
    /// Those that have an id.
    under_way: RefCell<HashSet<TxnId>>,
    /// What begins now is part of this.
    trace: RefCell<Option<Rc<Trace>>>,
}

impl Engine {
    /// An engine over these ways, by shard. `boot_id` must be unique among all engines of all
    /// proxies, ever: it makes transaction ids unique.
    pub fn new(
        ways: Vec<Ways>,
        times: Times,
        turnstile: Arc<Turnstile>,
        metrics: Arc<Metrics>,
        boot_id: String,
    ) -> Rc<Self> {
        let wall = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        // Until a shard has told its clock, it is taken to be ours.
        let clock_offsets = ways
            .iter()
            .map(|_| Cell::new(wall.as_millis() as i64))
            .collect();
        Rc::new(Self {
            readable: ways.iter().map(|_| Cell::new(0)).collect(),
            lanes: Lanes::new(ways.iter().map(|ways| Rc::clone(&ways.link)).collect()),
            ways,
            times,
            turnstile,
            groups: Groups::default(),
            metrics,
            epoch: Instant::now(),
            clock_offsets,
            boot_id,
            next_id: Cell::new(1),
            recovering: RefCell::default(),
            active: Cell::new(0),
            under_way: RefCell::default(),
            trace: RefCell::default(),
        })
    }

    /// The shared connection to a shard, in the first lane: for what lockstep asks on its own
    /// account.
    pub fn link(&self, shard: u16) -> &Rc<Link> {
        &self.ways[usize::from(shard)].link
    }

    /// The pinned connections to a shard.
    pub fn pool(&self, shard: u16) -> &Rc<Pool> {
        &self.ways[usize::from(shard)].pool
    }

    fn armed(&self, shard: u16, protocol: Protocol) -> &Rc<Armed> {
        let [resp2, resp3] = &self.ways[usize::from(shard)].armed;
        match protocol {
            Protocol::Resp2 => resp2,
            Protocol::Resp3 => resp3,
        }
    }

    fn waiters(&self, shard: u16) -> &Rc<Pool> {
        &self.ways[usize::from(shard)].waiters
    }

    fn watchers(&self, shard: u16) -> &Rc<Pool> {
        &self.ways[usize::from(shard)].watchers
    }

    /// How replies about a slot are isolated.
    pub fn hold(&self, slot: Option<u16>) -> Isolation {
        match slot {
            Some(slot) if self.times.strict => Isolation::Hold(slot),
            _ => Isolation::None,
        }
    }

    /// Whether what touches several slots of a shard is kept from taking effect while one of them
    /// settles.
    pub fn is_guarded(&self) -> bool {
        self.times.strict && !failpoint::is_planted("no-guards")
    }

    /// Whether plain commands are isolated from transactions over several shards.
    pub fn is_strict(&self) -> bool {
        self.times.strict
    }

    /// Transactions that are not finished: answered or not, something of them is under way.
    pub fn active(&self) -> usize {
        self.active.get()
    }

    /// Runs a plan over several shards as a transaction, and calls `done` once with the reply.
    pub fn transact(
        self: &Rc<Self>,
        mut plan: Plan,
        answer: Answer,
        done: impl FnOnce(&[u8]) + 'static,
    ) {
        self.active.set(self.active.get() + 1);
        let (engine, trace) = (Rc::clone(self), self.trace());
        if plan.branches().len() > 1 {
            let branches = plan.take_branches();
            let work = branches.into_iter().map(Work::new).collect();
            let done = Box::new(done);
            return self.run_among_others(Job::new(plan, work, answer, trace, done));
        }
        tokio::task::spawn_local(async move {
            engine.run(plan, answer, trace, done).await;
            engine.active.set(engine.active.get() - 1);
        });
    }

    async fn run(
        self: &Rc<Self>,
        mut plan: Plan,
        answer: Answer,
        trace: Option<Rc<Trace>>,
        done: impl FnOnce(&[u8]) + 'static,
    ) {
        if self.is_native(&plan) {
            let reply = self.run_natively(plan, answer).await;
            traced::note_single(trace.as_ref(), &reply);
            return done(&reply);
        }
        match self.run_guarded(&mut plan, answer).await {
            Guarded::Answered(reply) => {
                traced::note_single(trace.as_ref(), &reply);
                done(&reply);
            }
            Guarded::ToDo(work) => {
                let job = Job::new(plan, work, answer, trace, Box::new(done));
                self.run_locked(job, None).await;
            }
        }
    }

    /// Whether a plan is a matter of one shard, and of what is isolated there by the hold rule.
    fn is_native(&self, plan: &Plan) -> bool {
        match plan.branches() {
            [] => true,
            [branch] if branch.is_everywhere => false,
            [branch] => {
                branch.slots.len() < 2 - usize::from(self.is_fenced()) || !self.is_guarded()
            }
            _ => false,
        }
    }

    /// Only the answers are put together here.
    async fn run_natively(&self, mut plan: Plan, answer: Answer) -> BytesMut {
        let branch = plan.take_branches().pop();
        let replies = match &branch {
            Some(branch) => self.exec_natively(branch).await,
            None => Ok(Vec::new()),
        };
        match replies {
            Ok(replies) => {
                self.count_single(Told::Committed);
                compose(&plan, answer, &[replies])
            }
            Err(error) => error,
        }
    }

    /// The elements of the reply to EXEC, or the error in its place.
    async fn exec_natively(&self, branch: &Branch) -> Result<Vec<Bytes>, BytesMut> {
        let inbox = Inbox::<Reply>::new();
        let request: [&[u8]; 3] = [script::MULTI, &branch.commands, script::EXEC];
        let slot = branch
            .slots
            .first()
            .and_then(|slot| std::str::from_utf8(slot).ok()?.parse().ok());
        let how = How {
            swallow: 1 + branch.count as u32,
            isolation: self.hold(slot),
            is_script: false,
        };
        let sink = Rc::<Inbox<Reply>>::clone(&inbox);
        let links = self.links_of(Lane::speaking(branch.protocol));
        let sent = match links
            .as_ref()
            .map(|links| &links[usize::from(branch.part.shard)])
        {
            Some(link) => link.send(&request, how, sink, 0),
            None => Err(lanes::too_many()),
        };
        let reply = match sent {
            Ok(()) => inbox
                .next(None)
                .await
                .map_or(Err(no_reply()), |(_, reply)| reply),
            Err(failure) => Err(failure),
        };
        let frame = reply.map_err(|failure| {
            self.count_single(errors::failed_outcome(&failure));
            self.metrics.errors[errors::failed_kind(&failure)].increment(1);
            errors::failed(&failure)
        })?;
        if resp::is_error(&frame) {
            self.count_single(Told::Aborted);
            return Err(BytesMut::from(&frame[..]));
        }
        Ok(resp::elements(&frame)
            .map(|reply| frame.slice_ref(reply))
            .collect())
    }

    /// Brings the metrics of links and pools up to date.
    pub fn publish(&self) {
        self.lanes.each(|link| link.publish());
        for ways in &self.ways {
            ways.armed.iter().for_each(|armed| armed.publish());
            ways.pool.publish();
            ways.waiters.publish();
            ways.watchers.publish();
        }
    }

    /// Gives up connections that have not answered for too long. Called now and then.
    pub fn check_times(&self, now: Instant) {
        self.lanes.each(|link| link.check_time(now));
        self.lanes.close_unused(now);
        let armed = self.ways.iter().flat_map(|ways| &ways.armed);
        armed.for_each(|armed| armed.check_time(now));
    }

    /// Counts a transaction that ran natively on one shard.
    fn count_single(&self, told: Told) {
        self.metrics.transactions[Scope::Single][told].increment(1);
    }

    /// The machines' clock.
    fn now(&self) -> Millis {
        self.epoch.elapsed().as_millis() as Millis
    }

    fn new_id(&self) -> TxnId {
        let number = self.next_id.get();
        self.next_id.set(number + 1);
        TxnId::new(format!("{}-{number:x}", self.boot_id))
    }

    /// A shard told its clock.
    fn learn_clock(&self, part: Part, shard_ms: Millis) {
        let offset = shard_ms as i64 - self.now() as i64;
        self.clock_offsets[usize::from(part.shard)].set(offset);
    }

    /// What a shard's clock says now, as far as known.
    fn shard_clock(&self, part: Part) -> Millis {
        (self.now() as i64 + self.clock_offsets[usize::from(part.shard)].get()).max(0) as Millis
    }
}

fn compose(plan: &Plan, answer: Answer, replies: &[Vec<Bytes>]) -> BytesMut {
    match answer {
        Answer::Exec | Answer::Parts => plan.exec_reply(replies),
        Answer::Bare => plan.bare_reply(replies),
    }
}

/// 64 random bits as text, to tell apart what never meets.
pub(crate) fn random_id() -> String {
    format!("{:016x}", random())
}

/// A random number for spreading load; not for secrets.
pub fn random() -> u64 {
    getrandom::u64().unwrap_or(0x9E37_79B9)
}

#[cfg(test)]
mod tests;

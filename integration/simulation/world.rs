//! The simulated world: proxies and shards, a clock, and a network that misbehaves by dice.
//!
//! Everything happens in the order of a virtual clock; one seed gives one schedule. Proxies die
//! and come back as other processes, or stand still for longer than a lock lives; requests and
//! answers are late by up to twice the retention of markers, or lost; requests but prepare and
//! EXEC are repeated; the shards' clocks differ; locks are evicted; shards refuse to apply for a
//! while; watched keys are written from outside. After a while the weather clears, and what is
//! left must go away by itself.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use lockstep::txn::*;

use super::history::History;
use super::plain::{Move, Person};
use super::proxy::{Proxy, Task};
use super::random::Random;
use super::shard::{Ask, Shard};

pub(crate) const LIMITS: Limits = Limits {
    ttl_ms: 100,
    margin_ms: 10,
    window_ms: 300,
    give_up_ms: 500,
    backoff_ms: 10,
    backoff_max_ms: 80,
};
/// How long markers live.
pub(crate) const RETENTION_MS: Millis = 700;
/// What two shards' clocks may differ; less than the TTL, and than what retention has to spare.
const SKEW_MS: Millis = 60;
/// How wrong a proxy may be about a shard's clock.
pub(crate) const CLOCK_ERROR_MS: Millis = 30;
/// A proxy's own time limit for a request.
const REQUEST_MS: Millis = 60;
const SCAN_MS: Millis = 80;
/// When the weather clears, and when all must be over.
const CLEAR_MS: Millis = 3_000;
const OVER_MS: Millis = CLEAR_MS + 4_000;

/// Bugs to plant, so that the simulator itself is tested.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bug {
    AlwaysOutright,
    AbortForTombstone,
    GuessOnSilence,
    OldWatch,
    /// Replies to plain commands leave when they come.
    NoHold,
    /// An epoch counts as known whatever is in the index.
    IndexUnread,
    /// Plain writes take effect while their key settles.
    FenceOff,
    /// Checked prepares do not settle what they have checked.
    CheckedUnsettled,
}

/// How bad the weather is, in a thousand.
#[derive(Debug)]
pub(crate) struct Weather {
    loss: u64,
    late: u64,
    repeat: u64,
    /// Of a proxy, each time it looks around.
    crash: u64,
    stall: u64,
    evict: u64,
    refuse: u64,
    /// Of a watched key, by somebody else.
    pub(crate) write: u64,
}

impl Weather {
    fn new(dice: &mut Random) -> Self {
        let mut some = |most| match dice.per_mille(400) {
            true => 0,
            false => dice.below(most),
        };
        Self {
            loss: some(150),
            late: some(200),
            repeat: some(200),
            crash: some(150),
            stall: some(100),
            evict: some(100),
            refuse: some(100),
            write: some(600),
        }
    }

    fn clear() -> Self {
        Self {
            loss: 0,
            late: 0,
            repeat: 0,
            crash: 0,
            stall: 0,
            evict: 0,
            refuse: 0,
            write: 0,
        }
    }
}

/// A request on its way.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) task: usize,
    /// The call it belongs to; its answer is dropped if that is not awaited any more.
    pub(crate) call: u64,
    pub(crate) id: TxnId,
    pub(crate) at: usize,
    pub(crate) ask: Ask,
}

/// What happens at some time.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    /// A client sends its transaction.
    Begin(usize),
    /// Somebody else writes a key, around transactions.
    Write {
        shard: usize,
        key: usize,
    },
    Arrive(Request),
    Answer {
        task: usize,
        call: u64,
        event: Event,
    },
    Timer {
        task: usize,
        at: Millis,
    },
    /// A proxy looks for what nobody finishes; and the weather may strike it.
    Scan(usize),
    Restart(usize),
    /// A person's plain command goes on.
    Plain(usize, Move),
}

pub(crate) struct World {
    pub(crate) dice: Random,
    pub(crate) now: Millis,
    pub(crate) weather: Weather,
    queue: BinaryHeap<Reverse<(Millis, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    count: u64,
    pub(crate) shards: Vec<Shard>,
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) tasks: Vec<Task>,
    pub(crate) people: Vec<Person>,
    /// What is known of each shard's epoch.
    pub(crate) epochs: Vec<Option<u64>>,
    /// Plain writes do not take effect while their key settles; clients may watch several shards.
    pub(crate) fence: bool,
    /// People read split, and nobody writes but transactions.
    pub(crate) splits: bool,
    pub(crate) history: History,
    pub(crate) bug: Option<Bug>,
    is_clear: bool,
    /// Tell everything.
    loud: bool,
}

impl World {
    /// Runs one schedule; what went wrong, if anything did, or how much happened.
    pub(crate) fn run(seed: u64, bug: Option<Bug>, loud: bool) -> Result<Tally, String> {
        let mut world = Self::new(seed, bug, loud);
        let mut events = 0;
        while let Some(happening) = world.next() {
            events += 1;
            world.happen(happening);
            if let Some(wrong) = world.history.wrong.take() {
                return Err(format!("at {} ms: {wrong}", world.now));
            }
            if world.now > OVER_MS {
                return Err(format!(
                    "not over after {OVER_MS} ms: {:?}",
                    world.leftovers()
                ));
            }
        }
        match world.leftovers() {
            left if !left.is_empty() => Err(format!("left: {left:?}")),
            _ => world
                .history
                .check(&world.shards)
                .map(|tally| Tally { events, ..tally }),
        }
    }

    fn new(seed: u64, bug: Option<Bug>, loud: bool) -> Self {
        let mut dice = Random::new(seed);
        let shards = dice.between(1, 3) as usize;
        let keys = dice.between(1, 3) as usize;
        let ahead = |dice: &mut Random| 1_000_000 + dice.below(SKEW_MS);
        let mut world = Self {
            weather: Weather::new(&mut dice),
            shards: (0..shards)
                .map(|_| Shard::new(keys, ahead(&mut dice)))
                .collect(),
            proxies: (0..3).map(|_| Proxy::new(dice.below(1000))).collect(),
            dice,
            now: 0,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            count: 0,
            tasks: Vec::new(),
            people: Vec::new(),
            epochs: vec![None; shards],
            fence: false,
            splits: false,
            history: History::default(),
            bug,
            is_clear: false,
            loud,
        };
        world.populate(keys);
        world
    }

    fn populate(&mut self, keys: usize) {
        self.fence = self.dice.per_mille(500);
        self.splits = self.dice.per_mille(400);
        if self.splits {
            self.weather.write = 0;
        }
        self.invite(keys);
        for _ in 0..self.dice.between(2, 8) {
            let (shards, fence) = (self.shards.len(), self.fence);
            let client = self.history.new_client(&mut self.dice, shards, keys, fence);
            let at = self.dice.below(400);
            self.at(at, Happening::Begin(client));
        }
        for proxy in 0..self.proxies.len() {
            let at = self.dice.below(SCAN_MS);
            self.at(at, Happening::Scan(proxy));
        }
        if self.loud {
            println!("{:?}", self.weather);
        }
    }

    pub(crate) fn at(&mut self, at: Millis, happening: Happening) {
        self.count += 1;
        self.queue.push(Reverse((at, self.count)));
        self.happenings.insert(self.count, happening);
    }

    fn next(&mut self) -> Option<Happening> {
        loop {
            let Reverse((at, count)) = self.queue.pop()?;
            let happening = self.happenings.remove(&count)?;
            self.now = self.now.max(at);
            if !self.is_clear && self.now >= CLEAR_MS {
                self.is_clear = true;
                self.weather = Weather::clear();
            }
            match self.paused_until(&happening) {
                Some(until) => self.at(until, happening),
                None => return Some(happening),
            }
        }
    }

    /// What a stalled proxy should see waits for it.
    fn paused_until(&self, happening: &Happening) -> Option<Millis> {
        let proxy = match happening {
            Happening::Answer { task, .. } | Happening::Timer { task, .. } => {
                self.tasks[*task].proxy
            }
            Happening::Scan(proxy) => *proxy,
            _ => return None,
        };
        let until = self.proxies[proxy].stalled_until;
        (self.now < until).then_some(until)
    }

    fn happen(&mut self, happening: Happening) {
        if self.loud {
            println!("{:6} {happening:?}", self.now);
        }
        match happening {
            Happening::Begin(client) => self.begin(client),
            Happening::Write { shard, key } => self.write(shard, key),
            Happening::Arrive(request) => self.arrive(request),
            Happening::Answer { task, call, event } => self.answer(task, call, event),
            Happening::Timer { task, at } => self.timer(task, at),
            Happening::Scan(proxy) => self.look_around(proxy),
            Happening::Restart(proxy) => self.proxies[proxy].is_up = true,
            Happening::Plain(who, now) => self.plain(who, now),
        }
    }

    /// Sends a request through the weather. There will be exactly one answer.
    pub(crate) fn send(&mut self, request: Request) {
        let Request { task, call, .. } = request;
        let part = super::proxy::part(request.at);
        let silence = no_answer(part, &request.ask);
        self.at(
            self.now + REQUEST_MS,
            Happening::Answer {
                task,
                call,
                event: silence,
            },
        );
        if self.dice.per_mille(self.weather.loss) {
            return;
        }
        let repeatable = !matches!(request.ask, Ask::Prepare { .. } | Ask::Watch | Ask::Exec(_));
        if repeatable && self.dice.per_mille(self.weather.repeat) {
            let delay = self.delay() + self.dice.below(2 * RETENTION_MS);
            self.at(self.now + delay, Happening::Arrive(request.clone()));
        }
        let delay = self.delay();
        self.at(self.now + delay, Happening::Arrive(request));
    }

    fn delay(&mut self) -> Millis {
        if !self.dice.per_mille(self.weather.late) {
            return self.dice.between(1, 8);
        }
        match self.dice.below(4) {
            0 => self.dice.below(2 * RETENTION_MS),
            1 => self.dice.below(4 * LIMITS.ttl_ms),
            _ => self.dice.below(LIMITS.ttl_ms),
        }
    }

    fn arrive(&mut self, request: Request) {
        let (id, at) = (&request.id, request.at);
        let part = super::proxy::part(at);
        let event = self.shards[at].run(self.now, id, part, &request.ask);
        let record = self.shards[at].twin.state(id);
        self.history.observe(id, at, &request.ask, &event, record);
        let Request { task, call, .. } = request;
        if self.dice.per_mille(self.weather.loss) {
            return;
        }
        if let Some(event) = self.after_run(&request, event) {
            let delay = self.delay();
            self.at(self.now + delay, Happening::Answer { task, call, event });
        }
    }

    /// A proxy recovers what it finds; or dies, or stands still. And the shards have troubles.
    fn look_around(&mut self, proxy: usize) {
        if !(self.is_clear && self.is_quiet()) {
            let at = self.now + SCAN_MS / 2 + self.dice.below(SCAN_MS);
            self.at(at, Happening::Scan(proxy));
        }
        self.trouble_shards();
        if self.proxies[proxy].is_up && self.dice.per_mille(self.weather.crash) {
            self.proxies[proxy].crash();
            let at = self.now + self.dice.below(3 * LIMITS.ttl_ms);
            self.at(at, Happening::Restart(proxy));
        }
        if self.dice.per_mille(self.weather.stall) {
            let until = self.now + self.dice.below(2 * RETENTION_MS);
            self.proxies[proxy].stalled_until = until;
        } else if self.proxies[proxy].is_up {
            self.scan(proxy);
        }
    }

    fn trouble_shards(&mut self) {
        let at = self.dice.index(self.shards.len());
        let shard = &mut self.shards[at];
        if self.dice.per_mille(self.weather.evict) {
            shard.twin.locks.clear();
        }
        if self.dice.per_mille(self.weather.refuse) {
            shard.refuses_until = self.now + self.dice.below(2 * LIMITS.ttl_ms);
        }
    }

    /// Whether nothing is on its way, and nothing left to do.
    fn is_quiet(&self) -> bool {
        let scan = |happening: &Happening| matches!(happening, Happening::Scan(_));
        self.happenings.values().all(scan)
            && self.tasks.iter().all(|task| !self.is_alive(task))
            && self.leftovers().is_empty()
    }

    fn leftovers(&self) -> Vec<(usize, &Shard)> {
        let shards = self.shards.iter().enumerate();
        let dirty = |shard: &Shard| {
            let mut twin = shard.twin.clone();
            twin.expire(self.now + shard.ahead_ms);
            !twin.is_clean()
        };
        shards.filter(|(_, shard)| dirty(shard)).collect()
    }
}

/// How much happened in a schedule, or in many.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Tally {
    pub(crate) events: u64,
    pub(crate) committed: u64,
    pub(crate) replies_lost: u64,
    pub(crate) aborted: u64,
    pub(crate) watch_broken: u64,
    pub(crate) unknown: u64,
    pub(crate) died: u64,
    pub(crate) recovered: u64,
    /// Plain commands that were answered, and how often a look held a reply.
    pub(crate) plain: u64,
    pub(crate) held: u64,
    /// Checked transactions that committed.
    pub(crate) checked: u64,
}

impl Tally {
    /// Whether nothing that a schedule can end in is missing.
    pub(crate) fn all_happened(&self) -> bool {
        let told = [
            self.committed,
            self.replies_lost,
            self.aborted,
            self.watch_broken,
        ];
        told.iter()
            .chain(&[self.unknown, self.died, self.recovered])
            .chain(&[self.plain, self.held, self.checked])
            .all(|&times| times > 0)
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.committed += other.committed;
        self.replies_lost += other.replies_lost;
        self.aborted += other.aborted;
        self.watch_broken += other.watch_broken;
        self.unknown += other.unknown;
        self.died += other.died;
        self.recovered += other.recovered;
        self.plain += other.plain;
        self.held += other.held;
        self.checked += other.checked;
    }
}

fn no_answer(part: Part, ask: &Ask) -> Event {
    match ask {
        Ask::Prepare { .. } | Ask::Watch => Event::Voted(part, Vote::Unknown),
        Ask::Exec(_) | Ask::Apply => Event::Applied(part, Applied::Unknown),
        Ask::Abort { .. } | Ask::Tombstone(_) => Event::Aborted(part, Aborted::Unknown),
        Ask::Read => Event::Read(part, Reading::Unreachable),
        Ask::Release(_) => Event::Released(part, Released::Unknown),
    }
}

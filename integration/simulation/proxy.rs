//! Proxies: what drives the machines, as the engine does in production.

use lockstep::txn::coordinator::{Coordinator, Plan};
use lockstep::txn::recovery::{Recoverer, Start};
use lockstep::txn::*;

use super::shard::{Ask, Shard, Watching};
use super::world::{Bug, CLOCK_ERROR_MS, Happening, LIMITS, Request, World};

pub(crate) fn part(at: usize) -> Part {
    let shard = u16::try_from(at).expect("few shards");
    Part { shard, db: 0 }
}

#[derive(Debug)]
pub(crate) struct Proxy {
    /// Its monotonic clock is the world's plus this.
    ahead_ms: Millis,
    pub(crate) is_up: bool,
    /// Which process it is by now.
    life: u64,
    pub(crate) stalled_until: Millis,
}

impl Proxy {
    pub(crate) fn new(ahead_ms: Millis) -> Self {
        Self {
            ahead_ms,
            is_up: true,
            life: 0,
            stalled_until: 0,
        }
    }

    pub(crate) fn crash(&mut self) {
        self.is_up = false;
        self.life += 1;
        self.stalled_until = 0;
    }
}

enum Machine {
    /// Reads the record that was met.
    Meeting,
    Coordinator(Coordinator),
    Recoverer(Recoverer),
    Over,
}

/// One machine and what its driver keeps.
pub(crate) struct Task {
    pub(crate) proxy: usize,
    life: u64,
    pub(crate) id: TxnId,
    machine: Machine,
    /// By shard: the call whose answer is awaited.
    calls: Vec<Option<u64>>,
    timer: Option<Millis>,
    /// By shard: what its pinned connection watches.
    watching: Vec<Option<Watching>>,
    client: Option<usize>,
}

impl World {
    pub(crate) fn is_alive(&self, task: &Task) -> bool {
        !matches!(task.machine, Machine::Over) && self.proxies[task.proxy].life == task.life
    }

    fn own_clock(&self, proxy: usize) -> Millis {
        self.now + self.proxies[proxy].ahead_ms
    }

    fn new_task(&mut self, proxy: usize, id: TxnId, client: Option<usize>) -> usize {
        self.tasks.push(Task {
            proxy,
            life: self.proxies[proxy].life,
            id,
            machine: Machine::Meeting,
            calls: vec![None; self.shards.len()],
            timer: None,
            watching: vec![None; self.shards.len()],
            client,
        });
        self.tasks.len() - 1
    }

    /// A client sends its transaction to a proxy that is up; if none is, later.
    pub(crate) fn begin(&mut self, client: usize) {
        let proxy = self.dice.index(self.proxies.len());
        if !self.proxies[proxy].is_up {
            return self.at(self.now + 20, Happening::Begin(client));
        }
        let id = self.history.begin(client, self.now);
        let task = self.new_task(proxy, id, Some(client));
        self.watch(task, client);
        let plan = self.plan(client);
        let mut out = Vec::new();
        let now = self.own_clock(proxy);
        let machine = Coordinator::start(plan, &LIMITS, now, &mut out);
        self.tasks[task].machine = Machine::Coordinator(machine);
        self.act(task, out);
    }

    fn plan(&mut self, client: usize) -> Plan {
        // What a proxy takes for a shard's clock is a little wrong.
        let wrong = self.dice.below(CLOCK_ERROR_MS);
        let invited = |part: &Part| {
            let shard = &self.shards[usize::from(part.shard)];
            (*part, self.now + shard.ahead_ms - wrong + LIMITS.window_ms)
        };
        let wanted = &self.history.clients[client];
        Plan {
            participants: wanted.participants().iter().map(invited).collect(),
            rule: wanted.rule(),
        }
    }

    /// Under the decider rule the client's WATCH runs now; somebody may write that key soon.
    fn watch(&mut self, task: usize, client: usize) {
        let wanted = &self.history.clients[client];
        if wanted.checks() {
            return self.watch_all(task, client);
        }
        let (Rule::Decider(decider), Some(key)) = (wanted.rule(), wanted.watched_key()) else {
            return;
        };
        let shard = usize::from(decider.shard);
        let len = self.shards[shard].data[key].len();
        self.tasks[task].watching[shard] = Some(Watching {
            record: None,
            key: Some((key, len)),
        });
        let id = self.tasks[task].id.clone();
        self.history.watch(&id, vec![(shard, key, len)]);
        if self.dice.per_mille(self.weather.write) {
            let at = self.now + self.dice.below(20);
            self.at(at, Happening::Write { shard, key });
        }
    }

    /// The same for all that it uses, on every shard.
    fn watch_all(&mut self, task: usize, client: usize) {
        let wanted = &self.history.clients[client];
        let mut watched = Vec::new();
        for (at, shard) in self.shards.iter().enumerate() {
            let keys = wanted.keys(at).iter();
            watched.extend(keys.map(|&key| (at, key, shard.data[key].len())));
        }
        for &(shard, key, _) in &watched {
            if self.dice.per_mille(self.weather.write / 4) {
                let at = self.now + self.dice.below(60);
                self.at(at, Happening::Write { shard, key });
            }
        }
        self.history.watch(&self.tasks[task].id, watched);
    }

    /// Looks through the index of every shard it reaches.
    pub(crate) fn scan(&mut self, proxy: usize) {
        for at in 0..self.shards.len() {
            let mut ids: Vec<_> = self.shards[at].twin.index.values().cloned().collect();
            ids.dedup();
            for id in ids {
                let life = self.proxies[proxy].life;
                let mut mine = self
                    .tasks
                    .iter()
                    .filter(|t| (t.proxy, t.life) == (proxy, life));
                if !mine.any(|task| task.id == id && self.is_alive(task)) {
                    self.recover(proxy, id, at);
                }
            }
        }
    }

    fn recover(&mut self, proxy: usize, id: TxnId, at: usize) {
        let task = self.new_task(proxy, id, None);
        self.call(task, at, Ask::Read);
    }

    fn call(&mut self, task: usize, at: usize, ask: Ask) {
        let call = self.history.next_call();
        let id = self.tasks[task].id.clone();
        self.tasks[task].calls[at] = Some(call);
        self.send(Request {
            task,
            call,
            id,
            at,
            ask,
        });
    }

    pub(crate) fn answer(&mut self, task: usize, call: u64, event: Event) {
        let this = &mut self.tasks[task];
        let Some(at) = this.calls.iter().position(|awaited| *awaited == Some(call)) else {
            return;
        };
        this.calls[at] = None;
        if !self.is_alive(&self.tasks[task]) {
            return;
        }
        let event = match (self.bug, event) {
            (Some(Bug::GuessOnSilence), Event::Voted(part, Vote::Unknown)) => {
                Event::Voted(part, Vote::No(Refusal::Late))
            }
            (_, event) => event,
        };
        if let Event::Voted(_, Vote::Unknown) = event {
            self.forget_pin(task, at);
        }
        self.step(task, event);
    }

    /// A connection whose vote was not Yes is not kept.
    fn forget_pin(&mut self, task: usize, at: usize) {
        if self.bug != Some(Bug::OldWatch) {
            self.tasks[task].watching[at] = None;
        }
    }

    pub(crate) fn timer(&mut self, task: usize, at: Millis) {
        if self.tasks[task].timer == Some(at) && self.is_alive(&self.tasks[task]) {
            self.tasks[task].timer = None;
            self.step(task, Event::Timer);
        }
    }

    fn step(&mut self, task: usize, event: Event) {
        let now = self.own_clock(self.tasks[task].proxy);
        let mut out = Vec::new();
        match &mut self.tasks[task].machine {
            Machine::Coordinator(machine) => machine.step(now, event, &mut out),
            Machine::Recoverer(machine) => machine.step(now, event, &mut out),
            Machine::Meeting => return self.met(task, event),
            Machine::Over => return,
        }
        self.act(task, out);
    }

    fn met(&mut self, task: usize, event: Event) {
        let now = self.own_clock(self.tasks[task].proxy);
        let mut out = Vec::new();
        self.tasks[task].machine = Machine::Over;
        if let Event::Read(part, reading) = event
            && let Start::Recover(machine) =
                Recoverer::start(part, &reading, &LIMITS, now, &mut out)
        {
            self.tasks[task].machine = Machine::Recoverer(machine);
        }
        self.act(task, out);
    }

    fn act(&mut self, task: usize, out: Vec<Action>) {
        let proxy = self.tasks[task].proxy;
        for action in out {
            match action {
                Action::SetTimer(at) => {
                    self.tasks[task].timer = Some(at);
                    let world_ms = at - self.proxies[proxy].ahead_ms;
                    self.at(world_ms, Happening::Timer { task, at });
                }
                Action::Reply(outcome) => self.reply(task, outcome),
                Action::Done(ending) => {
                    self.history.ended(&self.tasks[task].id, &ending);
                    self.tasks[task].machine = Machine::Over;
                }
                action => {
                    let (part, ask) = self.ask(task, action);
                    self.call(task, usize::from(part.shard), ask);
                }
            }
        }
    }

    fn ask(&mut self, task: usize, action: Action) -> (Part, Ask) {
        match action {
            Action::Prepare { part, not_after_ms } => {
                (part, self.prepare(task, part, not_after_ms))
            }
            Action::Apply { part, way } => (part, self.apply(task, part, way)),
            Action::Abort {
                part,
                leave,
                tombstone,
            } => (part, Ask::Abort { leave, tombstone }),
            Action::Tombstone { part, not_after_ms } => match self.bug {
                Some(Bug::AbortForTombstone) => {
                    let (leave, tombstone) = (Leave::Marker, Some(not_after_ms));
                    (part, Ask::Abort { leave, tombstone })
                }
                _ => (part, Ask::Tombstone(not_after_ms)),
            },
            Action::Read { part } => (part, Ask::Read),
            Action::Release { part, leave } => match self.bug {
                Some(Bug::AlwaysOutright) => (part, Ask::Release(Leave::Nothing)),
                _ => (part, Ask::Release(leave)),
            },
            Action::Reply(_) | Action::SetTimer(_) | Action::Done(_) => {
                unreachable!("no request")
            }
        }
    }

    fn prepare(&mut self, task: usize, part: Part, not_after_ms: Millis) -> Ask {
        let client = self.tasks[task].client.expect("only coordinators prepare");
        let wanted = &self.history.clients[client];
        let keys = wanted.keys(usize::from(part.shard));
        let at = usize::from(part.shard);
        let checks = self.history.watched_at(&self.tasks[task].id, at);
        Ask::Prepare {
            promise: Shard::promise(keys, wanted.participants(), wanted.rule(), not_after_ms),
            settles: wanted.checks() && self.bug != Some(Bug::CheckedUnsettled),
            checks,
        }
    }

    fn apply(&mut self, task: usize, part: Part, way: Way) -> Ask {
        let old = self.bug == Some(Bug::OldWatch);
        let watching = self.tasks[task].watching[usize::from(part.shard)].take();
        match watching {
            Some(watching) if way == Way::Direct || old => Ask::Exec(watching),
            _ => Ask::Apply,
        }
    }

    /// What the driver makes of an answer before it is on its way back. None: not an answer yet.
    pub(crate) fn after_run(&mut self, request: &Request, event: Event) -> Option<Event> {
        let task = &self.tasks[request.task];
        let client = task.client.map(|client| &self.history.clients[client]);
        let pins = client.is_some_and(|client| client.pins(request.at));
        match (&request.ask, &event) {
            (Ask::Prepare { .. }, Event::Voted(_, Vote::Yes)) if pins => {
                // WATCH and the look behind it were in the same write; they run a little later.
                let gap = if self.dice.per_mille(50) {
                    2 * LIMITS.ttl_ms
                } else {
                    0
                };
                let ask = Ask::Watch;
                self.at(
                    self.now + gap,
                    Happening::Arrive(Request {
                        ask,
                        ..request.clone()
                    }),
                );
                None
            }
            (Ask::Watch, _) => {
                let record = Some(self.shards[request.at].version(&request.id));
                let slot = &mut self.tasks[request.task].watching[request.at];
                let key = slot.take().and_then(|watching| watching.key);
                *slot = Some(Watching { record, key });
                Some(event)
            }
            _ => Some(event),
        }
    }

    fn reply(&mut self, task: usize, outcome: Outcome) {
        let Some(client) = self.tasks[task].client else {
            return;
        };
        let id = self.tasks[task].id.clone();
        self.history.told(client, &id, &outcome, self.now);
        let Outcome::Aborted(Cause::No(
            part,
            Refusal::Held {
                owner,
                remaining_ms,
            },
        )) = outcome
        else {
            return;
        };
        if remaining_ms == 0 {
            self.recover(self.tasks[task].proxy, owner, usize::from(part.shard));
        }
        if self.history.may_try_again(client) {
            let at = self.now + self.dice.between(5, 40);
            self.at(at, Happening::Begin(client));
        }
    }
}

//! The model: the machines of production, every order of events.
//!
//! # The network
//!
//! A machine's request sits at `Sent` until it runs on its shard, which may take any time, and
//! anything may happen in between. Its answer is delivered in the same step: a delivery commutes
//! with everything but the clock, so an order in which it waits differs in nothing from one in
//! which the next request waits instead. Where the clock matters to the machine there is a step
//! in which the answer waits until that has moved. Instead of running a request the network may
//! lose it: the machine is told that there was no answer, and it may still run, later or never.
//! Every request but prepare and EXEC may run again at any later time, for ever.
//!
//! A crash needs no step of its own: a machine that is never scheduled again has crashed, and
//! the model goes on without it in some branch of every state.
//!
//! # Time
//!
//! A few instants; the clock moves on at any moment. At 0 the first transaction starts; a lock
//! taken at `t` is alive through `t + TTL`, its record's deadline is then, and so on with
//! [`shards`](super::shards)' constants, which hold the relations that [`Limits`] asks for as
//! tightly as whole numbers can. The timer of a machine that has failed to reach somebody may
//! fire before or after anything else, but before the clock moves: afterwards makes no
//! difference, since only what it sends could then run, and that may wait. For the same reason
//! a machine whose patience is over ends as the clock moves.

use lockstep::txn::participant::Participant;
use lockstep::txn::*;
use stateright::{Model, Property};

use super::bugs::{Bug, id, part};
use super::laws;
use super::machines::Who;
use super::network::repeatable;
use super::shards::*;
use super::shared::Shared;
use super::sights::{Seen, Sight, Sights};
use super::world::*;

/// One configuration of the model.
#[derive(Clone, Debug)]
pub(crate) struct Protocol {
    /// Participants of every transaction.
    pub(crate) parts: usize,
    pub(crate) rule: Rule,
    /// Branches are applied on the connection they were prepared on (else by script).
    pub(crate) pinned: bool,
    /// Recoverers beside the coordinator of the first transaction.
    pub(crate) recoverers: usize,
    /// Only votes, and answers to EXEC, are lost.
    pub(crate) steady: bool,
    /// A second transaction with the same keys, at any time.
    pub(crate) second: bool,
    /// Locks may be evicted at any time.
    pub(crate) evictions: bool,
    /// The last instant.
    pub(crate) end: Millis,
    pub(crate) bug: Option<Bug>,
    pub(crate) sights: Sights,
    /// From what shards a recoverer was seen to finish.
    pub(crate) settled: Seen,
}

impl Protocol {
    /// Two participants, implicit rule, applied by script, one recoverer, a second transaction.
    pub(crate) fn base() -> Self {
        Self {
            parts: 2,
            rule: Rule::Implicit,
            pinned: false,
            recoverers: 1,
            steady: false,
            second: true,
            evictions: false,
            end: 3,
            bug: None,
            sights: Sights::default(),
            settled: Seen::default(),
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        let ttl_ms = match self.bug {
            Some(Bug::TrustsPastItsTtl | Bug::NoCheckBehindWatch) => 1000,
            _ => TTL,
        };
        Limits {
            ttl_ms,
            margin_ms: 0,
            window_ms: WINDOW,
            give_up_ms: if self.bug == Some(Bug::NoAge) {
                1000
            } else {
                GIVE_UP
            },
            backoff_ms: 0,
            backoff_max_ms: 0,
        }
    }

    fn tick(&self, world: &mut World) {
        world.now += 1;
        for at in 0..self.parts {
            let mut shard = (*world.shards[at]).clone();
            shard.expire(world.now);
            if shard == *world.shards[at] {
                continue;
            }
            if shard.records.get(&id(0)) != world.shards[at].records.get(&id(0)) {
                self.touch_record(world, at);
            }
            world.shards[at] = Shared::new(shard);
        }
        for which in 0..world.actors.len() {
            self.fire(world, which);
        }
    }

    fn take(&self, world: &mut World, step: Step) -> Option<()> {
        match step {
            Step::Run(which, slot) => self.advance_call(world, which, slot, false),
            Step::RunLate(which, slot) => self.advance_call(world, which, slot, true),
            Step::Deliver(which, slot) => self.deliver(world, which, slot),
            Step::Lose(which, slot) => self.lose(world, which, slot),
            Step::Refuse(which, slot) => {
                let mut actor = (*world.actors[which]).clone();
                let call = actor.calls.remove(slot);
                world.actors[which] = Shared::new(actor);
                if call.request.op == Op::Exec {
                    world.pins[call.request.at] = Pin::None;
                }
                let refused = Event::Applied(part(call.request.at), Applied::Refused);
                self.tell_machine(world, which, refused);
            }
            Step::Ghost(request) => {
                if !repeatable(request.op) {
                    world.ghosts.retain(|ghost| *ghost != request);
                }
                self.run(world, request);
            }
            Step::Timer(which) => self.fire(world, which),
            Step::Meet(which, at) => return self.meet(world, which, at),
            Step::Second => self.advance_second(world),
            Step::Tick => self.tick(world),
            Step::Write => world.touched = true,
            Step::Evict(at) => {
                let mut shard = (*world.shards[at]).clone();
                shard.locks.clear();
                world.shards[at] = Shared::new(shard);
            }
        }
        Some(())
    }
}

/// What may happen next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// A machine's request runs on its shard (for a prepare that watches: its next half).
    Run(usize, usize),
    /// The same, but its answer is delivered after the clock has moved.
    RunLate(usize, usize),
    Deliver(usize, usize),
    Lose(usize, usize),
    Refuse(usize, usize),
    /// A request runs that nobody waits for.
    Ghost(Request),
    Timer(usize),
    /// A recoverer reads the record of the first transaction at a participant.
    Meet(usize, usize),
    Second,
    Tick,
    /// The watched key is written from outside.
    Write,
    Evict(usize),
}

impl Model for Protocol {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let mut world = World {
            now: 0,
            shards: vec![Shared::new(Participant::new()); self.parts],
            actors: vec![Shared::new(Actor::idle()); 1 + self.recoverers],
            second: Second::Preparing(0),
            pins: [Pin::None; PARTS_MAX],
            touched: false,
            ghosts: Default::default(),
            truths: [Truth::new(self.parts); 2],
            violation: None,
        };
        let (mut first, out) = self.coordinate(&mut world, 0);
        self.send(&mut world, &mut first, out, Who::First);
        world.actors[0] = Shared::new(first);
        vec![world]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        for (which, actor) in world.actors.iter().enumerate() {
            self.call_steps(world, which, steps);
            if actor.timer.is_some_and(|at| at <= world.now) {
                steps.push(Step::Timer(which));
            }
        }
        let idle = world
            .actors
            .iter()
            .position(|actor| actor.machine == Machine::Idle);
        if let Some(which) = idle {
            steps.extend((0..self.parts).map(|at| Step::Meet(which, at)));
        }
        let ghosts = world.ghosts.iter();
        let ghosts = ghosts.filter(|ghost| self.bug.is_some() || self.acts(world, ghost));
        steps.extend(ghosts.map(|request| Step::Ghost(*request)));
        if self.second_may_go_on(world) {
            steps.push(Step::Second);
        }
        let due = |actor: &Shared<Actor>| actor.timer.is_some_and(|at| at <= world.now);
        if world.now < self.end && !world.actors.iter().any(due) {
            steps.push(Step::Tick);
        }
        if matches!(self.rule, Rule::Decider(_)) && !world.touched {
            steps.push(Step::Write);
        }
        if self.evictions {
            steps.extend((0..self.parts).map(Step::Evict));
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        self.take(&mut next, step)?;
        self.lay_ghosts(&mut next);
        next.normalize();
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        laws::properties()
    }
}

impl World {
    /// One of all states that differ in nothing that matters: recoverers have no order.
    fn normalize(&mut self) {
        for shard in &mut self.shards {
            if shard.epoch != 0 {
                *shard = Shared::new(Participant {
                    epoch: 0,
                    ..(**shard).clone()
                });
            }
        }
        let exec = |ghost: &Request| ghost.op == Op::Exec;
        if self.actors[0].machine == Machine::Over && !self.ghosts.iter().any(exec) {
            self.pins.fill(Pin::None);
        }
        if self.actors.len() > 2 {
            self.actors[1..]
                .sort_by_key(|actor| (actor.machine == Machine::Idle, actor.fingerprint()));
        }
    }
}

/// What was seen along the way.
impl Protocol {
    pub(crate) fn see_event(&self, world: &World, event: &Event, request: Request) {
        if request.txn == 1 && matches!(event, Event::Voted(_, Vote::No(Refusal::Held { .. }))) {
            self.sights.saw(Sight::SecondHeld);
        }
        let recovered = |op| {
            world.actors[1..].iter().any(|actor| {
                actor
                    .calls
                    .iter()
                    .any(|call| call.request == Request { op, ..request })
            })
        };
        match event {
            Event::Applied(_, Applied::Now) if request.txn == 0 && recovered(request.op) => {
                self.sights.saw(Sight::RolledForward);
            }
            Event::Voted(_, Vote::No(Refusal::Seen(State::Aborted))) => {
                self.sights.saw(Sight::PrepareMetTombstone);
            }
            Event::Aborted(_, Aborted::Late) => self.sights.saw(Sight::TombstoneTooLate),
            Event::Aborted(_, Aborted::StillPrepared) => {
                self.sights.saw(Sight::TombstoneMetPrepared);
            }
            Event::Released(_, Released::Done) if request.op == Op::Release { marker: false } => {
                self.sights.saw(Sight::DeletedOutright);
            }
            _ => {}
        }
    }
}

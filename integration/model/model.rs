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

use lockstep::txn::coordinator::{Coordinator, Plan};
use lockstep::txn::participant::Participant;
use lockstep::txn::recovery::{Recoverer, Start};
use lockstep::txn::*;
use stateright::{Model, Property};

use super::bugs::{self, Bug, id, part};
use super::laws;
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

    fn coordinate(&self, world: &mut World, txn: Txn) -> (Actor, Vec<Action>) {
        let invited = |at| (part(at), world.now + WINDOW);
        let plan = Plan {
            participants: (0..self.parts).map(invited).collect(),
            rule: self.rule,
        };
        let mut out = Vec::new();
        let coordinator = Coordinator::start(plan, &self.limits(), world.now, &mut out);
        let machine = Machine::Coordinator(coordinator);
        (
            Actor {
                txn,
                machine,
                ..Actor::idle()
            },
            out,
        )
    }

    /// Sends what the machine asked for.
    fn send(&self, world: &mut World, actor: &mut Actor, out: Vec<Action>, who: Who) {
        for action in out {
            match action {
                Action::SetTimer(at) => actor.timer = Some(at),
                Action::Reply(outcome) => self.tell(world, actor.txn, &outcome),
                Action::Done(ending) => self.end_actor(world, actor, &ending),
                action => {
                    let request = self.request(world, actor.txn, &action, who);
                    // A machine asks one thing at a time; only a planted bug makes this true.
                    self.drop_calls(world, actor, |call| call.request.at == request.at);
                    if repeatable(request.op) {
                        world.haunt(request);
                    }
                    if self.bug == Some(Bug::PrepareTwice)
                        && matches!(request.op, Op::Prepare { .. })
                    {
                        world.haunt(request);
                    }
                    actor.calls.push(Call {
                        request,
                        stage: Stage::Sent,
                    });
                }
            }
        }
        actor.calls.sort_by_key(|call| call.request.at);
    }

    pub(crate) fn request(&self, world: &World, txn: Txn, action: &Action, who: Who) -> Request {
        let (part, op) = match action {
            Action::Prepare { part, not_after_ms } => (
                part,
                Op::Prepare {
                    not_after: *not_after_ms,
                },
            ),
            Action::Apply { part, way } => {
                let careless = self.bug == Some(Bug::RecoversOnOldWatch);
                let direct = who == Who::First && (careless || *way == Way::Direct);
                let pinned = direct && world.pins[part.shard as usize] != Pin::None;
                (part, if pinned { Op::Exec } else { Op::Apply })
            }
            Action::Abort {
                part,
                leave,
                tombstone,
            } => {
                let marker = *leave == Leave::Marker;
                (
                    part,
                    Op::Abort {
                        marker,
                        tombstone: *tombstone,
                    },
                )
            }
            Action::Tombstone { part, not_after_ms } => (
                part,
                Op::Tombstone {
                    not_after: *not_after_ms,
                },
            ),
            Action::Read { part } => (part, Op::Read),
            Action::Release { part, leave } => (
                part,
                Op::Release {
                    marker: *leave == Leave::Marker,
                },
            ),
            Action::Reply(_) | Action::SetTimer(_) | Action::Done(_) => unreachable!("no request"),
        };
        Request {
            txn,
            at: part.shard as usize,
            op: bugs::sent(self.bug, op),
        }
    }

    /// Nobody waits for these calls any more; those that have not run may still do so.
    fn drop_calls(&self, world: &mut World, actor: &mut Actor, which: impl Fn(&Call) -> bool) {
        for call in actor.calls.extract_if(.., |call| which(call)) {
            if call.stage == Stage::Sent && call.request.op != Op::Read {
                world.haunt(call.request);
            }
        }
    }

    fn tell(&self, world: &mut World, txn: Txn, outcome: &Outcome) {
        let told = match outcome {
            Outcome::Committed => Told::Committed,
            Outcome::CommittedRepliesLost => Told::RepliesLost,
            Outcome::Aborted(_) => Told::Aborted,
            Outcome::WatchBroken => Told::Nil,
            Outcome::Unknown => Told::Unknown,
        };
        self.sights.saw_told(txn, told);
        world.truths[txn].told = told;
    }

    fn end_actor(&self, world: &mut World, actor: &mut Actor, ending: &Ending) {
        self.sights.saw_ending(&actor.machine, ending);
        laws::check_ending(self, world, actor.txn, ending);
        self.drop_calls(world, actor, |_| true);
        let txn = actor.txn;
        *actor = Actor {
            txn,
            machine: Machine::Over,
            ..Actor::idle()
        };
    }

    /// Tells a machine what happened and sends what it asks for.
    fn tell_machine(&self, world: &mut World, which: usize, event: Event) {
        let mut actor = (*world.actors[which]).clone();
        if let (Some(Bug::AbsentIsFinished), Event::Read(at, Reading::Absent)) = (self.bug, &event)
        {
            actor.absent.push(*at);
        }
        for event in bugs::told(self.bug, world, &actor, event) {
            let who = if which == 0 {
                Who::First
            } else {
                Who::Recoverer
            };
            self.step(world, &mut actor, event, who);
        }
        world.actors[which] = Shared::new(actor);
    }

    fn step(&self, world: &mut World, actor: &mut Actor, event: Event, who: Who) {
        let mut out = Vec::new();
        match &mut actor.machine {
            Machine::Coordinator(machine) => machine.step(world.now, event, &mut out),
            Machine::Recoverer(machine) => machine.step(world.now, event, &mut out),
            Machine::Idle | Machine::Over => {}
        }
        self.send(world, actor, out, who);
    }

    /// A request in flight runs. Its answer is delivered at once, or after the clock has moved.
    fn advance_call(&self, world: &mut World, which: usize, slot: usize, late: bool) {
        let mut actor = (*world.actors[which]).clone();
        let call = &mut actor.calls[slot];
        let watches = self.watches(call.request);
        let stage = match (&call.stage, self.run_stage(world, call)) {
            (Stage::Sent, Event::Voted(_, Vote::Yes)) if watches => Stage::Prepared,
            (_, event) => Stage::Answered(world.now, event),
        };
        match stage {
            Stage::Answered(_, event) if !late => {
                actor.calls.remove(slot);
                world.actors[which] = Shared::new(actor);
                self.tell_machine(world, which, event);
            }
            stage => {
                call.stage = stage;
                world.actors[which] = Shared::new(actor);
            }
        }
    }

    /// Whether this prepare is followed by WATCH and a look behind it.
    fn watches(&self, request: Request) -> bool {
        let deciding = self.rule == Rule::Decider(part(request.at));
        matches!(request.op, Op::Prepare { .. }) && (self.pinned || deciding)
    }

    fn run_stage(&self, world: &mut World, call: &Call) -> Event {
        let at = call.request.at;
        if call.stage != Stage::Prepared {
            return self.run(world, call.request);
        }
        let mut shard = (*world.shards[at]).clone();
        shard.expire(world.now);
        world.pins[at] = Pin::Clean;
        let prepared = shard.state(&id(call.request.txn)) == Some(State::Prepared);
        let blind = matches!(
            self.bug,
            Some(Bug::NoCheckBehindWatch | Bug::NoLookBehindWatch)
        );
        let yes = prepared || blind;
        Event::Voted(part(at), if yes { Vote::Yes } else { Vote::Unknown })
    }

    /// The machine is told that there was no answer.
    fn lose(&self, world: &mut World, which: usize, slot: usize) {
        let mut actor = (*world.actors[which]).clone();
        let call = actor.calls.remove(slot);
        let Request { at, op, .. } = call.request;
        if matches!(call.stage, Stage::Sent) && op != Op::Read {
            world.haunt(call.request);
        }
        if which == 0 && matches!(op, Op::Prepare { .. }) {
            // The connection is gone; nothing will be sent on it.
            world.pins[at] = Pin::None;
        }
        world.actors[which] = Shared::new(actor);
        self.tell_machine(world, which, no_answer(part(at), op));
    }

    fn deliver(&self, world: &mut World, which: usize, slot: usize) {
        let mut actor = (*world.actors[which]).clone();
        let call = actor.calls.remove(slot);
        world.actors[which] = Shared::new(actor);
        if let Stage::Answered(_, event) = call.stage {
            self.tell_machine(world, which, event);
        }
    }

    fn meet(&self, world: &mut World, which: usize, at: usize) -> Option<()> {
        let mut shard = (*world.shards[at]).clone();
        let reading = bugs::met(self.bug, shard.read(world.now, &id(0)));
        let mut out = Vec::new();
        let start = Recoverer::start(part(at), &reading, &self.limits(), world.now, &mut out);
        let Start::Recover(machine) = start else {
            return None;
        };
        let machine = Machine::Recoverer(machine);
        let mut actor = Actor {
            machine,
            ..Actor::idle()
        };
        self.send(world, &mut actor, out, Who::Recoverer);
        world.actors[which] = Shared::new(actor);
        Some(())
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

    fn fire(&self, world: &mut World, which: usize) {
        if world.actors[which].timer.is_some_and(|at| at <= world.now) {
            let mut actor = (*world.actors[which]).clone();
            actor.timer = None;
            world.actors[which] = Shared::new(actor);
            self.tell_machine(world, which, Event::Timer);
        }
    }

    /// The second transaction prepares one more branch, and aborts what it has at the first No;
    /// or it applies all and releases them outright.
    fn advance_second(&self, world: &mut World) {
        let txn = if self.bug == Some(Bug::SameIdOnRetry) {
            0
        } else {
            1
        };
        let Second::Preparing(done) = world.second else {
            return;
        };
        if done == 0 {
            world.truths[txn] = Truth::new(self.parts);
        }
        let run = |world: &mut World, at, op| self.run(world, Request { txn, at, op });
        if done == self.parts {
            (0..done).for_each(|at| drop(run(world, at, Op::Apply)));
            (0..done).for_each(|at| drop(run(world, at, Op::Release { marker: false })));
            world.truths[txn].told = Told::Committed;
            self.sights.saw_told(txn, Told::Committed);
            if world.truths[0].all_applied() {
                self.sights.saw(Sight::SecondAfterFirst);
            }
            world.second = Second::Over;
            return;
        }
        world.second = Second::Preparing(done + 1);
        let prepare = Op::Prepare {
            not_after: Millis::MAX,
        };
        if run(world, done, prepare) != Event::Voted(part(done), Vote::Yes) {
            let abort = Op::Abort {
                marker: false,
                tombstone: None,
            };
            (0..done).for_each(|at| drop(run(world, at, abort)));
            world.truths[txn].told = Told::Aborted;
            world.second = Second::Over;
        }
    }

    fn second_may_go_on(&self, world: &World) -> bool {
        match world.second {
            Second::Over => false,
            Second::Preparing(0) if self.bug == Some(Bug::SameIdOnRetry) => {
                world.truths[0].told == Told::Aborted
            }
            Second::Preparing(_) => self.second,
        }
    }

    fn call_steps(&self, world: &World, which: usize, steps: &mut Vec<Step>) {
        for (slot, call) in world.actors[which].calls.iter().enumerate() {
            match &call.stage {
                Stage::Answered(at, _) if *at < world.now => steps.push(Step::Deliver(which, slot)),
                Stage::Answered(..) => {}
                Stage::Sent | Stage::Prepared => {
                    steps.push(Step::Run(which, slot));
                    let first_round = matches!(call.request.op, Op::Prepare { .. } | Op::Exec);
                    if (first_round || !self.steady) && self.minds_silence(call) {
                        steps.push(Step::Lose(which, slot));
                    }
                    if which == 0 && self.minds_the_time(call) && world.now < self.end {
                        steps.push(Step::RunLate(which, slot));
                    }
                }
            }
            // A script that is refused is sent again, as if it had waited. An EXEC is not.
            let skips = self.bug == Some(Bug::SkipsRefused) && call.request.op == Op::Apply;
            if skips || (call.request.op == Op::Exec && call.stage == Stage::Sent) {
                steps.push(Step::Refuse(which, slot));
            }
        }
    }

    /// Whether a machine that gets no answer does anything but ask the same again. Where it does
    /// not, and the request may be repeated by the network, a lost one is one that waits.
    fn minds_silence(&self, call: &Call) -> bool {
        let implicit = self.rule == Rule::Implicit;
        match call.request.op {
            Op::Apply | Op::Release { .. } => false,
            Op::Abort { .. } => !implicit,
            _ => true,
        }
    }

    /// Drops the ghosts that can never have an effect again.
    fn lay_ghosts(&self, world: &mut World) {
        if self.bug.is_some() || world.ghosts.is_empty() {
            return;
        }
        let ghosts = std::mem::take(&mut world.ghosts);
        let prepares = |ghost: &Request| {
            let is = |request: &Request| {
                let same = (request.txn, request.at) == (ghost.txn, ghost.at);
                same && matches!(request.op, Op::Prepare { .. })
            };
            let mut calls = world.actors[0].calls.iter();
            ghosts.iter().any(is) || calls.any(|call| is(&call.request))
        };
        let mut alive = ghosts.clone();
        alive.retain(|ghost| {
            prepares(ghost) || self.acts(world, ghost) || self.may_act(world, ghost)
        });
        world.ghosts = alive;
    }

    /// Whether this request would change anything if it ran now.
    fn acts(&self, world: &World, ghost: &Request) -> bool {
        let state = world.shards[ghost.at].state(&id(ghost.txn));
        let prepared = state == Some(State::Prepared);
        let in_time = |until| state.is_none() && world.now <= until;
        match ghost.op {
            Op::Prepare { not_after } => world.now <= not_after,
            Op::Tombstone { not_after } => in_time(not_after),
            Op::Abort { tombstone, .. } => prepared || tombstone.is_some_and(in_time),
            Op::Apply => prepared,
            Op::Release { .. } => state.is_some() && !prepared,
            Op::Exec => true,
            Op::Read => false,
        }
    }

    /// Whether it might when what is there has expired, or is a tombstone some time.
    fn may_act(&self, world: &World, ghost: &Request) -> bool {
        match ghost.op {
            Op::Tombstone { not_after: until }
            | Op::Abort {
                tombstone: Some(until),
                ..
            } => world.now <= until,
            // A release that meets a tombstone prolongs it.
            Op::Release { .. } => world.shards[ghost.at].state(&id(ghost.txn)).is_some(),
            _ => false,
        }
    }

    /// Whether it makes a difference to the coordinator when this answer comes. Everywhere else,
    /// and to recoverers, it only matters whether patience is over, and then late is never.
    fn minds_the_time(&self, call: &Call) -> bool {
        let watches = self.watches(call.request) && call.stage == Stage::Sent;
        matches!(call.request.op, Op::Prepare { .. } | Op::Apply | Op::Exec) && !watches
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

/// What the network may repeat: not prepare, and not EXEC, which is nothing without its WATCH.
fn repeatable(op: Op) -> bool {
    !matches!(op, Op::Prepare { .. } | Op::Exec | Op::Read)
}

fn no_answer(part: Part, op: Op) -> Event {
    match op {
        Op::Prepare { .. } => Event::Voted(part, Vote::Unknown),
        Op::Exec | Op::Apply => Event::Applied(part, Applied::Unknown),
        Op::Abort { .. } | Op::Tombstone { .. } => Event::Aborted(part, Aborted::Unknown),
        Op::Read => Event::Read(part, Reading::Unreachable),
        Op::Release { .. } => Event::Released(part, Released::Unknown),
    }
}

/// On whose behalf something is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Who {
    /// The coordinator of the first transaction.
    First,
    Recoverer,
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

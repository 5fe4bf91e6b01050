//! The network: requests on their way, answers, and ghosts, which nobody waits for.

use lockstep::txn::*;

use super::bugs::{Bug, id, part};
use super::model::{Protocol, Step};
use super::shared::Shared;
use super::world::*;

/// What the network may repeat: not prepare, and not EXEC, which is nothing without its WATCH.
pub(crate) fn repeatable(op: Op) -> bool {
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

impl Protocol {
    pub(crate) fn call_steps(&self, world: &World, which: usize, steps: &mut Vec<Step>) {
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

    /// A request in flight runs. Its answer is delivered at once, or after the clock has moved.
    pub(crate) fn advance_call(&self, world: &mut World, which: usize, slot: usize, late: bool) {
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
    pub(crate) fn watches(&self, request: Request) -> bool {
        let deciding = self.rule == Rule::Decider(part(request.at));
        matches!(request.op, Op::Prepare { .. }) && (self.pinned || deciding)
    }

    pub(crate) fn run_stage(&self, world: &mut World, call: &Call) -> Event {
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
    pub(crate) fn lose(&self, world: &mut World, which: usize, slot: usize) {
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

    pub(crate) fn deliver(&self, world: &mut World, which: usize, slot: usize) {
        let mut actor = (*world.actors[which]).clone();
        let call = actor.calls.remove(slot);
        world.actors[which] = Shared::new(actor);
        if let Stage::Answered(_, event) = call.stage {
            self.tell_machine(world, which, event);
        }
    }

    /// Whether a machine that gets no answer does anything but ask the same again. Where it does
    /// not, and the request may be repeated by the network, a lost one is one that waits.
    pub(crate) fn minds_silence(&self, call: &Call) -> bool {
        let implicit = self.rule == Rule::Implicit;
        match call.request.op {
            Op::Apply | Op::Release { .. } => false,
            Op::Abort { .. } => !implicit,
            _ => true,
        }
    }

    /// Whether it makes a difference to the coordinator when this answer comes. Everywhere else,
    /// and to recoverers, it only matters whether patience is over, and then late is never.
    pub(crate) fn minds_the_time(&self, call: &Call) -> bool {
        let watches = self.watches(call.request) && call.stage == Stage::Sent;
        matches!(call.request.op, Op::Prepare { .. } | Op::Apply | Op::Exec) && !watches
    }

    /// Drops the ghosts that can never have an effect again.
    pub(crate) fn lay_ghosts(&self, world: &mut World) {
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
    pub(crate) fn acts(&self, world: &World, ghost: &Request) -> bool {
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
    pub(crate) fn may_act(&self, world: &World, ghost: &Request) -> bool {
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
}

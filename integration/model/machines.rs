//! What drives the machines: their actions become requests, events are told to them.

use lockstep::txn::coordinator::{Coordinator, Plan};
use lockstep::txn::recovery::{Recoverer, Start};
use lockstep::txn::*;

use super::bugs::{self, Bug, id, part};
use super::laws;
use super::model::Protocol;
use super::network::repeatable;
use super::shards::WINDOW;
use super::shared::Shared;
use super::world::*;

/// On whose behalf something is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Who {
    /// The coordinator of the first transaction.
    First,
    Recoverer,
}

impl Protocol {
    pub(crate) fn coordinate(&self, world: &mut World, txn: Txn) -> (Actor, Vec<Action>) {
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
    pub(crate) fn send(&self, world: &mut World, actor: &mut Actor, out: Vec<Action>, who: Who) {
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
    pub(crate) fn drop_calls(
        &self,
        world: &mut World,
        actor: &mut Actor,
        which: impl Fn(&Call) -> bool,
    ) {
        for call in actor.calls.extract_if(.., |call| which(call)) {
            if call.stage == Stage::Sent && call.request.op != Op::Read {
                world.haunt(call.request);
            }
        }
    }

    pub(crate) fn tell(&self, world: &mut World, txn: Txn, outcome: &Outcome) {
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

    pub(crate) fn end_actor(&self, world: &mut World, actor: &mut Actor, ending: &Ending) {
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
    pub(crate) fn tell_machine(&self, world: &mut World, which: usize, event: Event) {
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

    pub(crate) fn step(&self, world: &mut World, actor: &mut Actor, event: Event, who: Who) {
        let mut out = Vec::new();
        match &mut actor.machine {
            Machine::Coordinator(machine) => machine.step(world.now, event, &mut out),
            Machine::Recoverer(machine) => machine.step(world.now, event, &mut out),
            Machine::Idle | Machine::Over => {}
        }
        self.send(world, actor, out, who);
    }

    pub(crate) fn meet(&self, world: &mut World, which: usize, at: usize) -> Option<()> {
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

    pub(crate) fn fire(&self, world: &mut World, which: usize) {
        if world.actors[which].timer.is_some_and(|at| at <= world.now) {
            let mut actor = (*world.actors[which]).clone();
            actor.timer = None;
            world.actors[which] = Shared::new(actor);
            self.tell_machine(world, which, Event::Timer);
        }
    }
}

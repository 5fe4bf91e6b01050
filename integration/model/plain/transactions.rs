//! Transactions: the production coordinator, on a network and shards without faults. (What
//! faults do to it is the other model's concern: a transaction applies only when it is prepared
//! everywhere, and is released only when it is applied everywhere, whoever does it.)

use bytes::Bytes;
use lockstep::txn::coordinator::{Coordinator, Plan};
use lockstep::txn::participant::Promise;
use lockstep::txn::*;

use super::super::bugs::part;
use super::super::shared::Shared;
use super::super::sights::Sight;
use super::history::Fate;
use super::model::{Bug, Plain};
use super::program::*;
use super::world::*;

const FAR: Millis = 1_000_000;
const LIMITS: Limits = Limits {
    ttl_ms: FAR,
    margin_ms: 0,
    window_ms: FAR,
    give_up_ms: FAR,
    backoff_ms: 0,
    backoff_max_ms: 0,
};
/// It stands still.
const NOW: Millis = 0;

impl Plain {
    /// If the client's next command is a transaction, it may run from now on.
    pub(crate) fn open_next(&self, world: &mut World, client: usize) {
        let text = &self.programs[world.program].clients[client];
        if let Some(&command) = text.get(world.clients[client].at)
            && command.is_transaction()
        {
            self.open(world, client, command);
        }
    }

    /// A plain command becomes a transaction, behind locks.
    pub(crate) fn lock(&self, world: &mut World, client: usize) {
        let command = self.command(world, client);
        let kind = Kind::Transaction;
        self.open(world, client, Command { kind, ..command });
    }

    fn open(&self, world: &mut World, client: usize, command: Command) {
        world.clients[client].stage = Stage::Waiting;
        let watched = command.shards().filter(|shard| command.watches(*shard));
        let mut run = Run {
            number: self.number(world, client),
            client,
            command,
            machine: None,
            calls: watched.map(Call::Watch).collect(),
            watches: [Watch::Off; SHARDS],
            has_begun: false,
            again: false,
        };
        if run.calls.is_empty() {
            start(&mut run);
        }
        world.runs.push(Shared::new(run));
        world.runs.sort_by_key(|run| run.number);
    }

    /// One of a transaction's requests runs, and is answered.
    pub(crate) fn run_call(&self, world: &mut World, which: usize, call: usize) {
        let mut run = (*world.runs[which]).clone();
        match run.calls.remove(call) {
            Call::Watch(shard) => {
                let command = run.command;
                self.run_commands(world, shard, run.number, |slot| {
                    (command.reads(slot), false)
                });
                run.watches[shard] = Watch::Clean;
                if run.calls.is_empty() {
                    start(&mut run);
                }
                world.runs[which] = Shared::new(run);
            }
            Call::Ask(action) => {
                let event = self.ask(world, &mut run, &action);
                self.tell(world, which, run, event);
            }
        }
    }

    /// Tells the coordinator, and does what it asks for.
    fn tell(&self, world: &mut World, which: usize, mut run: Run, event: Event) {
        let mut out = Vec::new();
        if let Some(machine) = &mut run.machine {
            machine.step(NOW, event, &mut out);
        }
        let (mut is_over, mut fate) = (false, None);
        for action in out {
            match action {
                Action::Reply(outcome) => fate = fate.or(self.answer(&mut run, &outcome)),
                Action::Done(Ending::Committed { .. } | Ending::Aborted { .. }) => is_over = true,
                Action::Done(ending) => unreachable!("nothing is lost: {ending:?}"),
                Action::SetTimer(_) => {}
                action => run.calls.push(Call::Ask(action)),
            }
        }
        run.calls.sort_by_key(|call| match call {
            Call::Ask(Action::Prepare { part, .. } | Action::Apply { part, .. }) => part.shard,
            Call::Ask(Action::Abort { part, .. } | Action::Release { part, .. }) => part.shard,
            _ => 0,
        });
        let client = run.client;
        if is_over && run.again {
            start(&mut run);
        } else if is_over {
            world.runs.remove(which);
        }
        if !is_over || run.again {
            run.again &= !is_over;
            world.runs[which] = Shared::new(run);
        }
        if let Some(fate) = fate {
            self.complete(world, client, fate);
        }
    }

    /// What the client is told; None: nothing, another attempt follows.
    fn answer(&self, run: &mut Run, outcome: &Outcome) -> Option<Fate> {
        match outcome {
            Outcome::Committed => {
                self.sights.saw(match run.command.kind {
                    Kind::Decider => Sight::DeciderCommits,
                    Kind::Checked => Sight::CheckedCommits,
                    _ => Sight::Commits,
                });
                Some(Fate::Done)
            }
            Outcome::Aborted(Cause::No(_, Refusal::Held { .. })) => {
                self.sights.saw(Sight::MetAnother);
                run.again = true;
                None
            }
            Outcome::Aborted(_) | Outcome::WatchBroken => {
                self.sights.saw(match run.command.kind {
                    Kind::Decider => Sight::DeciderNil,
                    _ => Sight::CheckedNil,
                });
                Some(Fate::Nil)
            }
            Outcome::CommittedRepliesLost | Outcome::Unknown => unreachable!("nothing is lost"),
        }
    }

    /// A request of the coordinator runs on its shard.
    fn ask(&self, world: &mut World, run: &mut Run, action: &Action) -> Event {
        let (part, shard) = match action {
            Action::Prepare { part, .. }
            | Action::Apply { part, .. }
            | Action::Abort { part, .. }
            | Action::Release { part, .. } => (*part, usize::from(part.shard)),
            _ => unreachable!("nothing is lost: {action:?}"),
        };
        let mut after = (*world.shards[shard]).clone();
        let id = id(run.number);
        let event = match action {
            Action::Prepare { .. } => {
                if !run.has_begun {
                    run.has_begun = true;
                    self.begin(world, run.client);
                }
                Event::Voted(part, self.prepare(&mut after, run, shard))
            }
            Action::Apply { .. } => Event::Applied(part, self.apply(&mut after, run, shard)),
            Action::Abort {
                leave, tombstone, ..
            } => Event::Aborted(part, after.twin.abort(NOW, &id, *leave, *tombstone, FAR)),
            _ => Event::Released(part, after.twin.release(NOW, &id, Leave::Nothing, FAR)),
        };
        self.change_shard(world, shard, after);
        if matches!(event, Event::Applied(_, Applied::Now)) {
            self.run_branch(world, run, shard);
        }
        event
    }

    fn prepare(&self, shard: &mut Shard, run: &Run, at: usize) -> Vote {
        let checks = run.command.kind == Kind::Checked;
        if checks && run.watches[at] != Watch::Clean {
            return Vote::No(Refusal::Refused("a watched key has changed".into()));
        }
        let keys: Vec<Bytes> = run.command.slots_on(at).map(key).collect();
        let promise = Promise {
            watched: match checks && self.bug != Some(Bug::CheckedUnsettled) {
                true => keys.clone(),
                false => Vec::new(),
            },
            keys,
            participants: run.command.shards().map(part).collect(),
            rule: rule(run.command),
            ttl_ms: FAR,
            not_after_ms: FAR,
        };
        shard.twin.prepare(NOW, &id(run.number), &promise)
    }

    fn apply(&self, shard: &mut Shard, run: &Run, at: usize) -> Applied {
        let id = id(run.number);
        if run.command.kind == Kind::Decider && at == 0 && run.watches[at] != Watch::Clean {
            return Applied::Not(shard.twin.state(&id));
        }
        let applied = shard.twin.apply(NOW, &id);
        if self.bug == Some(Bug::ReleasesEarly) {
            shard.twin.release(NOW, &id, Leave::Marker, FAR);
        }
        applied
    }

    /// The commands of a branch. What was watched was read before, and has not changed.
    fn run_branch(&self, world: &mut World, run: &mut Run, shard: usize) {
        let command = run.command;
        let watched = command.watches(shard);
        run.watches[shard] = Watch::Off;
        self.run_commands(world, shard, run.number, |slot| {
            (command.reads(slot) && !watched, command.writes(slot))
        });
    }

    /// What armed connections watch may have changed.
    fn change_shard(&self, world: &mut World, shard: usize, after: Shard) {
        if after.twin.settling != world.shards[shard].twin.settling {
            for client in &mut world.clients {
                match &mut client.arms[shard] {
                    Arm::Off => {}
                    Arm::Watching(changed) | Arm::Armed(changed) => *changed = true,
                }
            }
        }
        world.shards[shard] = Shared::new(after);
    }
}

/// Slots are locked under their decimal text.
fn key(slot: Slot) -> Bytes {
    Bytes::from_static([b"0", b"1", b"2", b"3"][usize::from(slot)])
}

fn rule(command: Command) -> Rule {
    match command.kind {
        Kind::Decider => Rule::Decider(part(0)),
        _ => Rule::Implicit,
    }
}

/// The client sends EXEC, or another attempt begins. It has the id of the last one: that is over
/// everywhere, and nothing of it is on its way.
fn start(run: &mut Run) {
    let plan = Plan {
        participants: run.command.shards().map(|at| (part(at), FAR)).collect(),
        rule: rule(run.command),
    };
    let mut out = Vec::new();
    run.machine = Some(Coordinator::start(plan, &LIMITS, NOW, &mut out));
    run.has_begun = false;
    let calls = out
        .into_iter()
        .filter(|action| !matches!(action, Action::SetTimer(_)));
    run.calls = calls.map(Call::Ask).collect();
}

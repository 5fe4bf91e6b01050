//! The model of plain commands beside transactions.

use std::sync::Arc;

use lockstep::txn::participant::Participant;
use stateright::{Model, Property};

use super::super::shared::{Shared, fingerprint};
use super::super::sights::{Seen, Sights};
use super::history::{Entry, Fate, is_serializable};
use super::program::*;
use super::world::*;

/// Planted bugs: each makes one sentence of the rules untrue, and some history must show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bug {
    /// Replies leave when they come.
    NoHold,
    /// What settles is looked at before the command runs, not behind it.
    ChecksBefore,
    /// Writes of several slots are not guarded; their replies are held.
    HoldsUnguarded,
    /// Nor are they held.
    GuardOff,
    /// A batch is sent behind a WATCH whose look was not read.
    ArmedUnread,
    /// Writes of single slots are not guarded while a checked transaction is prepared.
    FenceOff,
    /// A checked prepare does not settle what it has checked, so that no guard knows of it.
    CheckedUnsettled,
    /// A piece is compared with what is known of its shard when it runs.
    EpochKnownLate,
    /// An epoch counts as known whatever is in the index.
    IndexUnread,
    /// A branch is released where it was applied, before the others have applied.
    ReleasesEarly,
}

pub(crate) const SERIALIZABLE: &str = "P2 every history is strictly serializable";
pub(crate) const NEVER_STUCK: &str = "P5 everything comes to its end";
pub(crate) const NOTHING_LEFT: &str = "I7 nothing is left";

/// One run: all these programs.
#[derive(Clone, Debug)]
pub(crate) struct Plain {
    pub(crate) programs: Arc<Vec<Program>>,
    /// Held replies leave at any time after they may.
    pub(crate) lazy: bool,
    /// Times that a split read is tried before it takes locks.
    pub(crate) reads_max: u8,
    pub(crate) bug: Option<Bug>,
    pub(crate) sights: Sights,
    /// Histories that were checked.
    pub(crate) checked: Seen,
}

impl Plain {
    pub(crate) fn new(programs: Vec<Program>) -> Self {
        Self {
            programs: Arc::new(programs),
            lazy: false,
            reads_max: 2,
            bug: None,
            sights: Sights::default(),
            checked: Seen::default(),
        }
    }

    /// The client's next command.
    pub(crate) fn command(&self, world: &World, client: usize) -> Command {
        self.programs[world.program].clients[client][world.clients[client].at]
    }

    /// Its number.
    pub(crate) fn number(&self, world: &World, client: usize) -> usize {
        self.programs[world.program].number(client, world.clients[client].at)
    }

    fn begin_world(&self, program: usize) -> World {
        let text = &self.programs[program];
        let shard = Shared::new(Shard {
            twin: Participant::new(),
            data: [0; SLOTS],
        });
        let client = Client {
            at: 0,
            stage: Stage::Ready,
            tries: 0,
            arms: [Arm::Off; SHARDS],
        };
        // The shards have been read before.
        let epochs = Epochs {
            known: Some(0),
            seen: None,
        };
        let mut world = World {
            program,
            shards: [shard.clone(), shard],
            clients: vec![client; text.clients.len()],
            runs: Vec::new(),
            epochs: [epochs; SHARDS],
            history: vec![Entry::new(); text.commands.len()],
        };
        for client in 0..text.clients.len() {
            self.open_next(&mut world, client);
        }
        self.normalize(&mut world);
        world
    }

    fn client_steps(&self, world: &World, client: usize, steps: &mut Vec<Step>) {
        let this = &world.clients[client];
        if this.at == self.programs[world.program].clients[client].len() {
            return;
        }
        let command = self.command(world, client);
        let pieces = |missing: u8, steps: &mut Vec<Step>| {
            // Nothing passes the look at the index behind the piece before.
            let free = |shard: &usize| world.epochs[*shard].seen.is_none();
            let shards = command.shards().filter(|shard| missing & (1 << shard) != 0);
            steps.extend(shards.filter(free).map(|shard| Step::Piece(client, shard)));
        };
        match this.stage {
            Stage::Ready if command.kind == Kind::Split && !self.goes_unguarded(command) => {
                pieces(u8::MAX, steps);
            }
            Stage::Ready if self.looks_first(command) && !self.may_leave(world, client) => {}
            Stage::Ready | Stage::Looked => steps.push(Step::Advance(client)),
            Stage::Held if self.lazy && self.may_leave(world, client) => {
                steps.push(Step::Leave(client));
            }
            Stage::Reading(reading) => pieces(reading.missing, steps),
            Stage::Held | Stage::Waiting => {}
        }
    }

    /// Forgets what nothing depends on any more.
    fn normalize(&self, world: &mut World) {
        let program = &self.programs[world.program];
        let mut left = world.clients.iter().zip(&program.clients);
        let reads = left.any(|(client, text)| {
            let mut left = text[client.at..].iter();
            left.any(|command| command.kind == Kind::Split) && client.stage != Stage::Waiting
                || text
                    .iter()
                    .skip(client.at + 1)
                    .any(|command| command.kind == Kind::Split)
        });
        world.rank_epochs(reads);
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// A client's plain or guarded command goes on.
    Advance(usize),
    /// A client's held reply leaves.
    Leave(usize),
    /// A piece of a client's split read runs on a shard.
    Piece(usize, usize),
    /// The look at a shard's index, behind an epoch.
    Index(usize),
    /// A transaction's request runs.
    Call(usize, usize),
}

impl Model for Plain {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        (0..self.programs.len())
            .map(|program| self.begin_world(program))
            .collect()
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        for client in 0..world.clients.len() {
            self.client_steps(world, client, steps);
        }
        let seen = |shard: &usize| world.epochs[*shard].seen.is_some();
        steps.extend((0..SHARDS).filter(seen).map(Step::Index));
        for (which, run) in world.runs.iter().enumerate() {
            steps.extend((0..run.calls.len()).map(|call| Step::Call(which, call)));
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        match step {
            Step::Advance(client) => self.advance(&mut next, client),
            Step::Leave(client) => self.complete(&mut next, client, Fate::Done),
            Step::Piece(client, shard) => self.run_piece(&mut next, client, shard),
            Step::Index(shard) => self.look_at_index(&mut next, shard),
            Step::Call(which, call) => self.run_call(&mut next, which, call),
        }
        if !self.lazy {
            self.let_go(&mut next);
        }
        self.normalize(&mut next);
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(SERIALIZABLE, serializable),
            Property::always(NEVER_STUCK, never_stuck),
            Property::always(NOTHING_LEFT, nothing_left),
        ]
    }
}

/// Every history is whole in the end: nothing is lost here.
fn serializable(model: &Plain, world: &World) -> bool {
    let program = &model.programs[world.program];
    if !world.is_over(program) {
        return true;
    }
    let data = world.data();
    let whole = fingerprint(&(world.program, &world.history, data));
    if model.checked.contains(whole) {
        return true;
    }
    let holds = is_serializable(program, &world.history, &data);
    if holds {
        model.checked.insert(whole);
    }
    holds
}

fn never_stuck(model: &Plain, world: &World) -> bool {
    let mut steps = Vec::new();
    model.actions(world, &mut steps);
    !steps.is_empty() || world.is_over(&model.programs[world.program])
}

fn nothing_left(model: &Plain, world: &World) -> bool {
    !world.is_over(&model.programs[world.program])
        || world.shards.iter().all(|shard| shard.twin.is_clean())
}

//! Plain commands: held replies, split reads by epochs, guarded writes on armed connections.
//!
//! Only what can make a difference is a step of its own. A reply leaves at the first moment at
//! which a look lets it, and a command begins when it first runs somewhere: whatever leaves, or
//! has begun, at another time fits into more orders than that. (`lazy` looks at any time.)

use std::collections::HashSet;

use lockstep::backend::rules::{self, Settling};

use super::super::shared::Shared;
use super::super::sights::Sight;
use super::history::{Fate, answered, value_of};
use super::model::{Bug, Plain};
use super::program::*;
use super::world::*;

/// Times that a guarded command may meet something settling before it takes locks.
const GUARDS_MAX: u8 = 2;

impl Plain {
    /// The next thing that a client's plain or guarded command does.
    pub(crate) fn advance(&self, world: &mut World, client: usize) {
        let command = self.command(world, client);
        if command.kind == Kind::Guarded && !self.goes_unguarded(command) {
            return self.advance_guarded(world, client, command);
        }
        if self.looks_first(command) && world.clients[client].stage == Stage::Ready {
            world.clients[client].stage = Stage::Looked;
            return;
        }
        self.begin(world, client);
        for shard in command.shards() {
            self.execute(world, client, shard);
        }
        let holds = match self.bug {
            Some(Bug::NoHold | Bug::ChecksBefore) => false,
            Some(Bug::GuardOff) => command.kind == Kind::Plain,
            _ => true,
        };
        if holds {
            world.clients[client].stage = Stage::Held;
        } else {
            self.complete(world, client, Fate::Done);
        }
    }

    pub(crate) fn looks_first(&self, command: Command) -> bool {
        self.bug == Some(Bug::ChecksBefore) && command.kind == Kind::Plain
    }

    pub(crate) fn goes_unguarded(&self, command: Command) -> bool {
        match self.bug {
            Some(Bug::GuardOff) => true,
            Some(Bug::HoldsUnguarded) => command.slots().count() > 1,
            Some(Bug::FenceOff) => command.slots().count() == 1,
            _ => false,
        }
    }

    /// Nothing of a command has had an effect before this moment, so it begins now.
    pub(crate) fn begin(&self, world: &mut World, client: usize) {
        let number = self.number(world, client);
        world.history[number].after = answered(&world.history);
    }

    /// Runs a client's command on a shard, or its part of it.
    fn execute(&self, world: &mut World, client: usize, shard: usize) {
        let (command, number) = (self.command(world, client), self.number(world, client));
        self.run_commands(world, shard, number, |slot| {
            (command.reads(slot), command.writes(slot))
        });
    }

    /// Reads and writes slots of a shard, in one atomic step.
    pub(crate) fn run_commands(
        &self,
        world: &mut World,
        shard: usize,
        number: usize,
        access: impl Fn(Slot) -> (bool, bool),
    ) {
        let mut after = (*world.shards[shard]).clone();
        for slot in (0..SLOTS as Slot).filter(|slot| shard_of(*slot) == shard) {
            let (reads, writes) = access(slot);
            if reads {
                let value = after.data[usize::from(slot)];
                world.history[number].saw(slot, value);
            }
            if writes {
                after.data[usize::from(slot)] = value_of(number);
                touch(world, slot, number);
            }
        }
        world.shards[shard] = Shared::new(after);
    }

    /// The client has its reply, and may go on.
    pub(crate) fn complete(&self, world: &mut World, client: usize, fate: Fate) {
        let number = self.number(world, client);
        world.history[number].fate = fate;
        let this = &mut world.clients[client];
        this.at += 1;
        this.tries = 0;
        this.stage = Stage::Ready;
        self.open_next(world, client);
    }

    /// Whether a look now lets a held reply go.
    pub(crate) fn may_leave(&self, world: &World, client: usize) -> bool {
        let command = self.command(world, client);
        command.shards().all(|shard| {
            let slots = settling(&world.shards[shard]);
            let look = match slots.is_empty() {
                true => Settling::Nothing,
                false => Settling::Slots(&slots),
            };
            command
                .slots_on(shard)
                .all(|slot| look.may_leave(u16::from(slot)))
        })
    }

    /// All replies leave that may.
    pub(crate) fn let_go(&self, world: &mut World) {
        for client in 0..world.clients.len() {
            if world.clients[client].stage != Stage::Held {
                continue;
            }
            if self.may_leave(world, client) {
                self.complete(world, client, Fate::Done);
            } else {
                self.sights.saw(Sight::ReplyHeld);
            }
        }
    }

    /// A piece of a split read runs; the look at the epoch is in one step with it, since an epoch
    /// that is read later refuses more.
    pub(crate) fn run_piece(&self, world: &mut World, client: usize, shard: usize) {
        let mut reading = match world.clients[client].stage {
            Stage::Reading(reading) => reading,
            _ => self.begin_reading(world, client),
        };
        self.execute(world, client, shard);
        reading.missing &= !(1 << shard);
        let behind = world.shards[shard].twin.epoch;
        let known = match self.bug {
            Some(Bug::EpochKnownLate) => world.epochs[shard].known,
            _ => reading.known[shard],
        };
        reading.is_consistent &= rules::is_consistent(known.as_ref(), &behind);
        world.epochs[shard].seen = Some(behind);
        world.clients[client].stage = Stage::Reading(reading);
        if reading.missing == 0 {
            self.end_reading(world, client, reading.is_consistent);
        }
    }

    fn begin_reading(&self, world: &mut World, client: usize) -> Reading {
        self.begin(world, client);
        let shards = self.command(world, client).shards();
        Reading {
            known: world.epochs.map(|epochs| epochs.known),
            missing: shards.map(|shard| 1 << shard).sum(),
            is_consistent: true,
        }
    }

    fn end_reading(&self, world: &mut World, client: usize, is_consistent: bool) {
        if is_consistent {
            self.sights.saw(Sight::ReadAtOnce);
            return self.complete(world, client, Fate::Done);
        }
        let this = &mut world.clients[client];
        this.stage = Stage::Ready;
        this.tries += 1;
        if this.tries == self.reads_max {
            self.sights.saw(Sight::ReadLocked);
            self.lock(world, client);
        }
    }

    /// The look at the index behind an epoch.
    pub(crate) fn look_at_index(&self, world: &mut World, shard: usize) {
        let is_empty = world.shards[shard].twin.index.is_empty();
        let blind = self.bug == Some(Bug::IndexUnread);
        let seen = world.epochs[shard].seen.take();
        world.epochs[shard].known = rules::known_epoch(seen, is_empty || blind);
    }

    /// One more step of `WATCH settling, look, MULTI … EXEC`. In production the first two are in
    /// the write of the EXEC before; a WATCH that stands for longer is broken by more.
    fn advance_guarded(&self, world: &mut World, client: usize, command: Command) {
        let shard = command.shards().next().expect("it has keys");
        let nothing_settles = world.shards[shard].twin.settling.is_empty();
        let arm = &mut world.clients[client].arms[shard];
        match *arm {
            Arm::Off => *arm = Arm::Watching(false),
            Arm::Watching(changed) if self.bug == Some(Bug::ArmedUnread) => {
                *arm = Arm::Armed(changed);
                self.advance_guarded(world, client, command);
            }
            Arm::Watching(changed) if nothing_settles => *arm = Arm::Armed(changed),
            Arm::Armed(false) => {
                *arm = Arm::Off;
                self.begin(world, client);
                self.execute(world, client, shard);
                self.complete(world, client, Fate::Done);
            }
            Arm::Watching(_) | Arm::Armed(true) => {
                self.sights.saw(match arm {
                    Arm::Armed(_) => Sight::GuardNil,
                    _ => Sight::GuardBusy,
                });
                *arm = Arm::Off;
                self.guard_in_vain(world, client);
            }
        }
    }

    fn guard_in_vain(&self, world: &mut World, client: usize) {
        world.clients[client].tries += 1;
        if world.clients[client].tries == GUARDS_MAX {
            self.sights.saw(Sight::GuardLocked);
            self.lock(world, client);
        }
    }
}

/// A slot is written: who else watches it will get nil.
fn touch(world: &mut World, slot: Slot, by: usize) {
    for run in &mut world.runs {
        let watch = run.watches[shard_of(slot)];
        if run.number != by && watch == Watch::Clean && run.command.slots().any(|one| one == slot) {
            let mut broken = (**run).clone();
            broken.watches[shard_of(slot)] = Watch::Broken;
            *run = Shared::new(broken);
        }
    }
}

/// The slots that settle on a shard.
fn settling(shard: &Shard) -> HashSet<u16> {
    let slots = shard.twin.settling.keys();
    let slots = slots.filter_map(|slot| std::str::from_utf8(slot).ok()?.parse().ok());
    slots.collect()
}

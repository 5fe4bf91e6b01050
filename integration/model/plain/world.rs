//! The state: two shards, one proxy with its clients, transactions under way, the history.

use lockstep::txn::coordinator::Coordinator;
use lockstep::txn::participant::Participant;
use lockstep::txn::{Action, TxnId};

use super::super::shared::Shared;
use super::history::{Entry, Value};
use super::program::*;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Shard {
    /// What it keeps of transactions.
    pub(crate) twin: Participant,
    /// Who wrote each slot last.
    pub(crate) data: [Value; SLOTS],
}

/// What the proxy knows of a shard's epoch, from its own split reads.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Epochs {
    pub(crate) known: Option<u64>,
    /// Seen; the look at the index behind it is still to come.
    pub(crate) seen: Option<u64>,
}

/// A connection to a shard, kept for guarded commands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Arm {
    Off,
    /// WATCH of what settles has run, not yet the look behind it. Whether that has changed since.
    Watching(bool),
    /// The look behind the WATCH showed that nothing settled. Whether that has changed since.
    Armed(bool),
}

/// A split read under way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Reading {
    /// What was known of each shard's epoch before the first piece.
    pub(crate) known: [Option<u64>; SHARDS],
    /// Shards whose piece has not run, a bit each.
    pub(crate) missing: u8,
    pub(crate) is_consistent: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Stage {
    /// The next command may begin.
    Ready,
    /// The next command's slots were seen not settling; only a planted bug looks that early.
    Looked,
    /// The command has run; its reply is held.
    Held,
    Reading(Reading),
    /// Its transaction is under way.
    Waiting,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Client {
    /// Which of its commands.
    pub(crate) at: usize,
    pub(crate) stage: Stage,
    /// How often that command was in vain.
    pub(crate) tries: u8,
    pub(crate) arms: [Arm; SHARDS],
}

/// A watching connection of a client.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Watch {
    Off,
    Clean,
    /// What it watches has been written.
    Broken,
}

/// What a transaction still waits for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Call {
    /// WATCH and GETs on a shard.
    Watch(usize),
    /// What the coordinator has asked for.
    Ask(Action),
}

/// A transaction under way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Run {
    /// Its command's number.
    pub(crate) number: usize,
    pub(crate) client: usize,
    pub(crate) command: Command,
    /// None: the client has not sent EXEC yet.
    pub(crate) machine: Option<Coordinator>,
    pub(crate) calls: Vec<Call>,
    pub(crate) watches: [Watch; SHARDS],
    /// Some prepare of this attempt has run.
    pub(crate) has_begun: bool,
    /// Refused since others hold its slots: it will try again.
    pub(crate) again: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct World {
    /// Which program.
    pub(crate) program: usize,
    pub(crate) shards: [Shared<Shard>; SHARDS],
    pub(crate) clients: Vec<Client>,
    /// In the order of their numbers.
    pub(crate) runs: Vec<Shared<Run>>,
    pub(crate) epochs: [Epochs; SHARDS],
    pub(crate) history: Vec<Entry>,
}

impl World {
    pub(crate) fn data(&self) -> [Value; SLOTS] {
        let of = |slot: usize| self.shards[slot % SHARDS].data[slot];
        std::array::from_fn(of)
    }

    /// Whether everything is over.
    pub(crate) fn is_over(&self, program: &Program) -> bool {
        let mut clients = self.clients.iter().zip(&program.clients);
        self.runs.is_empty() && clients.all(|(client, text)| client.at == text.len())
    }

    /// Epochs are only ever compared: what matters is which are equal, and their order.
    pub(crate) fn rank_epochs(&mut self, needed: bool) {
        for shard in 0..SHARDS {
            let mut all = vec![self.shards[shard].twin.epoch];
            self.each_epoch(shard, |epoch| all.extend(*epoch));
            all.sort_unstable();
            all.dedup();
            let rank = |epoch: u64| all.binary_search(&epoch).map_or(0, |at| at as u64);
            self.each_epoch(shard, |epoch| *epoch = epoch.filter(|_| needed).map(rank));
            let now = if needed {
                rank(self.shards[shard].twin.epoch)
            } else {
                0
            };
            if self.shards[shard].twin.epoch != now {
                let mut shard_now = (*self.shards[shard]).clone();
                shard_now.twin.epoch = now;
                self.shards[shard] = Shared::new(shard_now);
            }
        }
    }

    fn each_epoch(&mut self, shard: usize, mut tell: impl FnMut(&mut Option<u64>)) {
        tell(&mut self.epochs[shard].known);
        tell(&mut self.epochs[shard].seen);
        for client in &mut self.clients {
            if let Stage::Reading(reading) = &mut client.stage {
                tell(&mut reading.known[shard]);
            }
        }
    }
}

/// The id of the transaction that a command is.
pub(crate) fn id(number: usize) -> TxnId {
    thread_local! {
        static IDS: Vec<TxnId> = (0..16).map(|number| TxnId::new(format!("t{number}"))).collect();
    }
    IDS.with(|ids| ids[number].clone())
}

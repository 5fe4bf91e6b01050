//! The queue of a client's MULTI.

use bytes::BytesMut;

use super::plan::Home;
use crate::keyspace::{Place, Treatment};
use crate::resp::Command;

/// Where a queued command will run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// On one shard, whole; on any if it has no keys.
    Whole(Home),
    /// On several shards, in pieces.
    Split,
    /// On every shard.
    Everywhere,
    /// In lockstep itself.
    Own,
}

impl Target {
    /// The shard it names, if it does.
    pub fn shard(self) -> Option<u16> {
        match self {
            Self::Whole(Home::Slot(Place { shard, .. }) | Home::Shard(shard)) => Some(shard),
            _ => None,
        }
    }
}

/// The commands that a client has queued, in canonical form, and where each will run.
///
/// Nothing else is kept: a queue that turns out to be distributed is scanned again, one that
/// lives on a single shard (the common case) is forwarded as it stands.
#[derive(Debug, Default)]
pub struct Queue {
    raw: BytesMut,
    items: Vec<(usize, Target)>,
    is_broken: bool,
    may_write: bool,
    has_script: bool,
}

impl Queue {
    /// Appends a command that was checked.
    pub fn push(&mut self, command: &Command<'_>, target: Target) {
        command.encode(&mut self.raw);
        self.items.push((self.raw.len(), target));
    }

    /// A command was refused: EXEC will answer EXECABORT.
    pub fn mark_broken(&mut self) {
        self.is_broken = true;
    }

    /// A command that is not known to only read is about to be queued.
    pub fn mark_writing(&mut self, treatment: Treatment) {
        self.may_write |= !matches!(treatment, Treatment::Own(_) | Treatment::Anywhere);
    }

    /// A script is about to be queued.
    pub fn mark_script(&mut self) {
        self.has_script = true;
    }

    /// Whether one of the commands is a script.
    pub fn has_script(&self) -> bool {
        self.has_script
    }

    /// Whether one of the commands may change data.
    pub fn may_write(&self) -> bool {
        self.may_write
    }

    /// Whether EXEC must answer EXECABORT.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Number of queued commands.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// All commands, as they stand on the wire.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Each command's bytes and target, in order.
    pub fn items(&self) -> impl Iterator<Item = (&[u8], Target)> {
        let starts = std::iter::once(0).chain(self.items.iter().map(|(end, _)| *end));
        starts
            .zip(&self.items)
            .map(|(start, (end, target))| (self.raw.get(start..*end).unwrap_or_default(), *target))
    }

    /// Where the whole queue can run natively. None when it must be planned: several shards,
    /// pieces, or answers of our own.
    pub fn home(&self) -> Option<Home> {
        let mut home = Home::Nowhere;
        for (_, target) in &self.items {
            let Target::Whole(this) = target else {
                return None;
            };
            home = home.join(*this)?;
        }
        Some(home)
    }
}

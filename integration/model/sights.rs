//! What must be reachable, lest the model holds because nothing happens in it.
//!
//! Kept beside the states: in them they would multiply the states by what led there.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use lockstep::txn::Ending;

use super::world::{Machine, Told, Txn};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sight {
    FirstCommits,
    FirstAborts,
    FirstLosesReplies,
    FirstUnknown,
    FirstNil,
    SecondCommits,
    SecondHeld,
    RolledForward,
    RecoveredCommitted,
    RecoveredAborted,
    RecoveredNothing,
    RecoveredInDoubt,
    DeletedOutright,
    PrepareMetTombstone,
    TombstoneTooLate,
    TombstoneMetPrepared,
    SecondAfterFirst,
    // Of the model of plain commands.
    Commits,
    DeciderCommits,
    DeciderNil,
    CheckedCommits,
    CheckedNil,
    /// A transaction found its slots held, and tried again.
    MetAnother,
    ReplyHeld,
    /// A split read was consistent.
    ReadAtOnce,
    /// It was not, too often.
    ReadLocked,
    /// Something settled between look and EXEC.
    GuardNil,
    /// Something settled at the look.
    GuardBusy,
    GuardLocked,
}

/// A set of sights that all threads of the checker fill.
#[derive(Clone, Default, Debug)]
pub(crate) struct Sights(Arc<AtomicU32>);

impl Sights {
    pub(crate) fn saw(&self, sight: Sight) {
        self.0.fetch_or(1 << sight as u32, Ordering::Relaxed);
    }

    pub(crate) fn has(&self, sight: Sight) -> bool {
        self.0.load(Ordering::Relaxed) & (1 << sight as u32) != 0
    }

    pub(crate) fn saw_told(&self, txn: Txn, told: Told) {
        match (txn, told) {
            (0, Told::Committed) => self.saw(Sight::FirstCommits),
            (0, Told::Aborted) => self.saw(Sight::FirstAborts),
            (0, Told::RepliesLost) => self.saw(Sight::FirstLosesReplies),
            (0, Told::Unknown) => self.saw(Sight::FirstUnknown),
            (0, Told::Nil) => self.saw(Sight::FirstNil),
            (1, Told::Committed) => self.saw(Sight::SecondCommits),
            _ => {}
        }
    }

    pub(crate) fn saw_ending(&self, machine: &Machine, ending: &Ending) {
        if !matches!(machine, Machine::Recoverer(_)) {
            return;
        }
        self.saw(match ending {
            Ending::Committed { .. } => Sight::RecoveredCommitted,
            Ending::Aborted { .. } => Sight::RecoveredAborted,
            Ending::Nothing => Sight::RecoveredNothing,
            Ending::InDoubt { .. } => Sight::RecoveredInDoubt,
            Ending::Contradiction(_) => return,
        });
    }
}

/// A set of fingerprints that all threads of the checker share.
#[derive(Clone, Default, Debug)]
pub(crate) struct Seen(Arc<Mutex<HashSet<u64>>>);

impl Seen {
    pub(crate) fn contains(&self, fingerprint: u64) -> bool {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.contains(&fingerprint)
    }

    pub(crate) fn insert(&self, fingerprint: u64) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(fingerprint);
    }
}

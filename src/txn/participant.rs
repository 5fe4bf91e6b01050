//! The participant in Rust: the twin of the scripts.
//!
//! In production a participant is a script inside Redis. This is what the scripts mean, written
//! down once more without Redis: the model checker and the simulator run the machines against
//! it, and a conformance test drives it and the scripts with the same random sequences, so that
//! what was proved of the one holds for the other. It keeps what [`super`] says is kept on a
//! shard, for any number of transactions, in one logical database. It runs no commands: who
//! applies a branch learns by [`Applied::Now`] that they run now.
//!
//! Every operation is one atomic step; `now` is the shard's clock. The fields are open, for who
//! wants to look, or to damage something on purpose.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::step::Reading;
use super::types::*;

/// What prepare is given beside the id.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Promise {
    /// Keys of the branch, merely watched ones too.
    pub keys: Vec<Bytes>,
    /// All participants of the transaction.
    pub participants: Vec<Part>,
    /// How it commits.
    pub rule: Rule,
    /// From prepare to the deadline, and what the locks live.
    pub ttl_ms: Millis,
    /// Instant past which it is refused.
    pub not_after_ms: Millis,
}

/// A record as it is kept.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Entry {
    /// Its state.
    pub state: State,
    /// Instant after which others may settle the transaction; none in a tombstone.
    pub deadline_ms: Option<Millis>,
    /// All participants; none in a tombstone.
    pub participants: Vec<Part>,
    /// How it commits.
    pub rule: Rule,
    /// Keys of the branch until it is released.
    pub keys: Vec<Bytes>,
    /// When it is deleted; never, while it is undecided or not released.
    pub expires_ms: Option<Millis>,
}

impl Entry {
    fn tombstone(expires_ms: Millis) -> Self {
        Self {
            state: State::Aborted,
            deadline_ms: None,
            participants: Vec::new(),
            rule: Rule::Implicit,
            keys: Vec::new(),
            expires_ms: Some(expires_ms),
        }
    }
}

/// Everything a shard keeps of transactions.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Participant {
    /// Records by transaction.
    pub records: BTreeMap<TxnId, Entry>,
    /// Locks: who holds the key, and when the lock expires.
    pub locks: BTreeMap<Bytes, (TxnId, Millis)>,
    /// Key → transaction, from prepare to release.
    pub index: BTreeMap<Bytes, TxnId>,
    /// Key → transaction, from apply to release.
    pub settling: BTreeMap<Bytes, TxnId>,
    /// Counts the prepares that succeeded.
    pub epoch: u64,
}

impl Participant {
    /// A shard that knows of no transaction.
    pub fn new() -> Self {
        Self::default()
    }

    /// Deletes what has expired, as every operation does first.
    pub fn expire(&mut self, now: Millis) {
        self.locks.retain(|_, (_, expires)| now <= *expires);
        self.records
            .retain(|_, entry| entry.expires_ms.is_none_or(|expires| now <= expires));
    }

    /// Locks the keys and writes the intent, or changes nothing.
    pub fn prepare(&mut self, now: Millis, id: &TxnId, promise: &Promise) -> Vote {
        self.expire(now);
        if let Some(entry) = self.records.get(id) {
            return Vote::No(Refusal::Seen(entry.state));
        }
        if now > promise.not_after_ms {
            return Vote::No(Refusal::Late);
        }
        if let Some(refusal) = self.held(now, id, &promise.keys) {
            return Vote::No(refusal);
        }
        self.epoch += 1;
        let deadline_ms = now.saturating_add(promise.ttl_ms);
        for key in &promise.keys {
            // An older lock of its own stays as it is (SET NX).
            let lock = self.locks.entry(key.clone());
            lock.or_insert_with(|| (id.clone(), deadline_ms));
            self.index.insert(key.clone(), id.clone());
        }
        let entry = Entry {
            state: State::Prepared,
            deadline_ms: Some(deadline_ms),
            participants: promise.participants.clone(),
            rule: promise.rule,
            keys: promise.keys.clone(),
            expires_ms: None,
        };
        self.records.insert(id.clone(), entry);
        Vote::Yes
    }

    /// Whoever else holds one of the keys: by the index first, since locks may be gone early.
    fn held(&self, now: Millis, id: &TxnId, keys: &[Bytes]) -> Option<Refusal> {
        let index = |key| Some((self.index.get(key)?, key));
        let locks = |key| Some((&self.locks.get(key)?.0, key));
        let mut owners = keys.iter().filter_map(index);
        let mut lockers = keys.iter().filter_map(locks);
        let (owner, key) = owners
            .find(|(owner, _)| *owner != id)
            .or_else(|| lockers.find(|(owner, _)| *owner != id))?;
        let deadline = self.records.get(owner).and_then(|entry| entry.deadline_ms);
        let lock = self.locks.get(key).map(|(_, expires)| *expires);
        Some(Refusal::Held {
            owner: owner.clone(),
            remaining_ms: deadline.or(lock).unwrap_or(0).saturating_sub(now),
        })
    }

    /// Applies the branch if it is prepared.
    pub fn apply(&mut self, now: Millis, id: &TxnId) -> Applied {
        self.expire(now);
        let Some(entry) = self.records.get_mut(id) else {
            return Applied::Not(None);
        };
        if entry.state != State::Prepared {
            return Applied::Not(Some(entry.state));
        }
        entry.state = State::Applied;
        for key in &entry.keys {
            self.settling.insert(key.clone(), id.clone());
        }
        Applied::Now
    }

    /// Aborts the branch if it is prepared. Where there is no record writes a tombstone if one is
    /// asked for, unless the clock is past it. `retention_ms` is what anything left lives.
    pub fn abort(
        &mut self,
        now: Millis,
        id: &TxnId,
        leave: Leave,
        tombstone: Option<Millis>,
        retention_ms: Millis,
    ) -> Aborted {
        self.expire(now);
        let Some(entry) = self.records.get_mut(id) else {
            return match tombstone {
                None => Aborted::Done,
                Some(not_after_ms) => self.bury(now, id, not_after_ms, retention_ms),
            };
        };
        match entry.state {
            State::Applied => return Aborted::Applied,
            State::Aborted => return Aborted::Done,
            State::Prepared => {}
        }
        let keys = std::mem::take(&mut entry.keys);
        entry.state = State::Aborted;
        entry.expires_ms = Some(now.saturating_add(retention_ms));
        if leave == Leave::Nothing {
            self.records.remove(id);
        }
        self.drop_entries(id, &keys);
        Aborted::Done
    }

    /// Writes a tombstone where there is no record, unless the clock is past `not_after_ms`.
    pub fn tombstone(
        &mut self,
        now: Millis,
        id: &TxnId,
        not_after_ms: Millis,
        retention_ms: Millis,
    ) -> Aborted {
        self.expire(now);
        match self.records.get(id).map(|entry| entry.state) {
            None => self.bury(now, id, not_after_ms, retention_ms),
            Some(State::Prepared) => Aborted::StillPrepared,
            Some(State::Applied) => Aborted::Applied,
            Some(State::Aborted) => Aborted::Done,
        }
    }

    fn bury(
        &mut self,
        now: Millis,
        id: &TxnId,
        not_after_ms: Millis,
        retention_ms: Millis,
    ) -> Aborted {
        if now > not_after_ms {
            return Aborted::Late;
        }
        let tombstone = Entry::tombstone(now.saturating_add(retention_ms));
        self.records.insert(id.clone(), tombstone);
        Aborted::Done
    }

    /// Drops what a decided transaction holds; its record goes, or lives for `retention_ms`.
    pub fn release(
        &mut self,
        now: Millis,
        id: &TxnId,
        leave: Leave,
        retention_ms: Millis,
    ) -> Released {
        self.expire(now);
        let Some(entry) = self.records.get_mut(id) else {
            return Released::Done;
        };
        if entry.state == State::Prepared {
            return Released::StillPrepared;
        }
        let keys = std::mem::take(&mut entry.keys);
        entry.expires_ms = Some(now.saturating_add(retention_ms));
        if leave == Leave::Nothing {
            self.records.remove(id);
        }
        self.drop_entries(id, &keys);
        Released::Done
    }

    /// The record, and the clock.
    pub fn read(&mut self, now: Millis, id: &TxnId) -> Reading {
        self.expire(now);
        let Some(entry) = self.records.get(id) else {
            return Reading::Absent;
        };
        Reading::Found(Record {
            state: entry.state,
            deadline_ms: entry.deadline_ms.unwrap_or(0),
            now_ms: now,
            participants: entry.participants.clone(),
            rule: entry.rule,
        })
    }

    /// State of the transaction's record; None: absent (or expired, if not yet deleted).
    pub fn state(&self, id: &TxnId) -> Option<State> {
        self.records.get(id).map(|entry| entry.state)
    }

    /// Whether nothing but markers and tombstones is left: no lock, index or settling entry, no
    /// record that no timer will delete.
    pub fn is_clean(&self) -> bool {
        self.locks.is_empty()
            && self.index.is_empty()
            && self.settling.is_empty()
            && self.records.values().all(|e| e.expires_ms.is_some())
    }

    /// Each entry goes only if it is this transaction's: the key may be another's by now.
    fn drop_entries(&mut self, id: &TxnId, keys: &[Bytes]) {
        for key in keys {
            if self.locks.get(key).is_some_and(|(owner, _)| owner == id) {
                self.locks.remove(key);
            }
            for map in [&mut self.index, &mut self.settling] {
                if map.get(key) == Some(id) {
                    map.remove(key);
                }
            }
        }
    }
}

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

use super::names;
use super::step::Reading;
use super::types::*;

/// What prepare is given beside the id.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Promise {
    /// Keys of the branch, merely watched ones too.
    pub keys: Vec<Bytes>,
    /// Those of them that settle from the prepare on, since it was conditional on the client's
    /// WATCH of them.
    pub watched: Vec<Bytes>,
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
    /// Key → transaction, from apply (watched ones: from a conditional prepare) to release.
    pub settling: BTreeMap<Bytes, TxnId>,
    /// Counts the prepares that succeeded.
    pub epoch: u64,
}

/// What the intention of a transaction on every key lives, at most.
pub const INTENTION_MS: Millis = 250;

/// Whether these keys stand for all there are.
fn is_everywhere(keys: &[Bytes]) -> bool {
    keys.first()
        .is_some_and(|key| &key[..] == names::EVERY_SLOT)
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
        let is_everywhere = is_everywhere(&promise.keys);
        if let Some(refusal) = self.held(now, id, &promise.keys) {
            if is_everywhere && !self.index.contains_key(names::EVERY_SLOT) {
                self.intend(now, id, promise.ttl_ms);
            }
            return Vote::No(refusal);
        }
        self.epoch += 1;
        let deadline_ms = now.saturating_add(promise.ttl_ms);
        if is_everywhere {
            // The intention of an earlier attempt, or of another, is in nobody's way.
            self.locks.remove(names::EVERY_SLOT);
        }
        for key in &promise.keys {
            // An older lock of its own stays as it is (SET NX).
            let lock = self.locks.entry(key.clone());
            lock.or_insert_with(|| (id.clone(), deadline_ms));
            self.index.insert(key.clone(), id.clone());
        }
        for key in &promise.watched {
            self.settling.insert(key.clone(), id.clone());
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

    /// Leaves the lock of every key for a moment, so that what is under way comes to an end.
    fn intend(&mut self, now: Millis, id: &TxnId, ttl_ms: Millis) {
        let every = Bytes::from_static(names::EVERY_SLOT);
        let until = now.saturating_add(ttl_ms.min(INTENTION_MS));
        self.locks.insert(every, (id.clone(), until));
    }

    /// Whoever else holds one of the keys: by the index first, since locks may be gone early.
    /// Every key is held by whoever holds any.
    fn held(&self, now: Millis, id: &TxnId, keys: &[Bytes]) -> Option<Refusal> {
        let index = |key| Some((self.index.get(key)?, key));
        let locks = |key| Some((&self.locks.get(key)?.0, key));
        let every = Bytes::from_static(names::EVERY_SLOT);
        let (indexed, locked): (Vec<&Bytes>, Vec<&Bytes>) = match is_everywhere(keys) {
            // A lock that is not indexed is an intention like ours.
            true => (self.index.keys().collect(), Vec::new()),
            false => {
                let named: Vec<&Bytes> = std::iter::once(&every).chain(keys).collect();
                (named.clone(), named)
            }
        };
        let mut owners = indexed.into_iter().filter_map(index);
        let mut lockers = locked.into_iter().filter_map(locks);
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

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Millis = 10;
    const RETENTION: Millis = 100;

    fn promise(keys: &[&'static str]) -> Promise {
        let keys = keys.iter().map(|key| Bytes::from_static(key.as_bytes()));
        Promise {
            keys: keys.collect(),
            watched: Vec::new(),
            participants: vec![Part { shard: 0, db: 0 }, Part { shard: 1, db: 0 }],
            rule: Rule::Implicit,
            ttl_ms: TTL,
            not_after_ms: 1000,
        }
    }

    fn prepared(id: &TxnId, keys: &[&'static str]) -> Participant {
        let mut shard = Participant::new();
        assert_eq!(shard.prepare(0, id, &promise(keys)), Vote::Yes);
        shard
    }

    fn ids() -> (TxnId, TxnId) {
        (TxnId::new("t1"), TxnId::new("t2"))
    }

    /// I6: the index holds a key whether its lock still lives or not.
    #[test]
    fn a_key_is_held_until_release_even_without_its_lock() {
        let (one, two) = ids();
        let mut shard = prepared(&one, &["a", "b"]);
        let held = |remaining_ms| {
            let owner = one.clone();
            Vote::No(Refusal::Held {
                owner,
                remaining_ms,
            })
        };
        assert_eq!(shard.prepare(4, &two, &promise(&["b"])), held(6));
        shard.locks.clear();
        assert_eq!(shard.prepare(50, &two, &promise(&["b"])), held(0));
        assert_eq!(shard.apply(60, &one), Applied::Now);
        assert_eq!(shard.prepare(60, &two, &promise(&["b"])), held(0));
        assert_eq!(
            shard.release(61, &one, Leave::Nothing, RETENTION),
            Released::Done
        );
        assert_eq!(shard.prepare(62, &two, &promise(&["b"])), Vote::Yes);
    }

    /// P2: what a conditional prepare was conditional on settles until the end, whatever that is.
    #[test]
    fn watched_keys_settle_from_a_conditional_prepare_to_the_end() {
        let (one, _) = ids();
        for commits in [true, false] {
            let mut shard = Participant::new();
            let conditional = Promise {
                watched: vec![Bytes::from_static(b"b")],
                ..promise(&["a", "b"])
            };
            assert_eq!(shard.prepare(0, &one, &conditional), Vote::Yes);
            assert_eq!(shard.settling.len(), 1);
            if commits {
                assert_eq!(shard.apply(1, &one), Applied::Now);
                assert_eq!(shard.settling.len(), 2);
                shard.release(2, &one, Leave::Nothing, RETENTION);
            } else {
                shard.abort(2, &one, Leave::Nothing, None, RETENTION);
            }
            assert!(shard.is_clean());
        }
    }

    /// A refused prepare leaves no trace.
    #[test]
    fn a_no_changes_nothing() {
        let (one, two) = ids();
        let mut shard = prepared(&one, &["b"]);
        let before = shard.clone();
        let late = Promise {
            not_after_ms: 4,
            ..promise(&["a"])
        };
        assert_eq!(shard.prepare(5, &two, &late), Vote::No(Refusal::Late));
        assert!(matches!(
            shard.prepare(5, &two, &promise(&["a", "b"])),
            Vote::No(_)
        ));
        let seen = Vote::No(Refusal::Seen(State::Prepared));
        assert_eq!(shard.prepare(5, &one, &promise(&["a"])), seen);
        assert_eq!(shard, before);
    }

    /// I2.
    #[test]
    fn applies_once_and_only_what_is_prepared() {
        let (one, two) = ids();
        let mut shard = prepared(&one, &["a"]);
        assert_eq!(
            shard.release(1, &one, Leave::Marker, RETENTION),
            Released::StillPrepared
        );
        assert_eq!(shard.apply(1, &two), Applied::Not(None));
        assert_eq!(shard.apply(1, &one), Applied::Now);
        assert_eq!(shard.apply(2, &one), Applied::Not(Some(State::Applied)));
        assert_eq!(
            shard.abort(3, &one, Leave::Nothing, Some(1000), RETENTION),
            Aborted::Applied
        );
        assert!(shard.settling.contains_key(&b"a"[..]));
        assert_eq!(
            shard.release(4, &one, Leave::Marker, RETENTION),
            Released::Done
        );
        assert!(shard.is_clean());
        assert_eq!(shard.apply(5, &one), Applied::Not(Some(State::Applied)));
    }

    /// Only absence is buried: a tombstone never hits what was prepared.
    #[test]
    fn tombstones_keep_prepares_out_and_spare_records() {
        let (one, two) = ids();
        let mut shard = prepared(&one, &["a"]);
        assert_eq!(
            shard.tombstone(1, &one, 1000, RETENTION),
            Aborted::StillPrepared
        );
        assert_eq!(
            shard.abort(1, &two, Leave::Marker, None, RETENTION),
            Aborted::Done
        );
        assert_eq!(shard.state(&two), None);
        assert_eq!(shard.tombstone(9, &two, 8, RETENTION), Aborted::Late);
        assert_eq!(shard.tombstone(9, &two, 9, RETENTION), Aborted::Done);
        let seen = Vote::No(Refusal::Seen(State::Aborted));
        assert_eq!(shard.prepare(9 + RETENTION, &two, &promise(&["c"])), seen);
        assert_eq!(
            shard.prepare(10 + RETENTION, &two, &promise(&["c"])),
            Vote::Yes
        );
    }

    /// Markers tell what was decided; what is undecided or not released outlives everything.
    #[test]
    fn only_what_is_done_with_is_deleted_by_time() {
        let (one, two) = ids();
        let mut shard = prepared(&one, &["a"]);
        assert_eq!(shard.prepare(0, &two, &promise(&["b"])), Vote::Yes);
        assert_eq!(
            shard.abort(1, &two, Leave::Marker, None, RETENTION),
            Aborted::Done
        );
        assert_eq!(shard.state(&two), Some(State::Aborted));
        shard.expire(1_000_000);
        assert_eq!(shard.state(&two), None);
        assert_eq!(shard.state(&one), Some(State::Prepared));
        assert_eq!(shard.apply(1_000_000, &one), Applied::Now);
        shard.expire(2_000_000);
        assert_eq!(shard.state(&one), Some(State::Applied));
    }

    #[test]
    fn a_release_takes_nothing_of_another() {
        let (one, two) = ids();
        let mut shard = prepared(&one, &["a"]);
        assert_eq!(shard.apply(1, &one), Applied::Now);
        let stale = shard.clone();
        assert_eq!(
            shard.release(2, &one, Leave::Nothing, RETENTION),
            Released::Done
        );
        assert_eq!(shard.prepare(3, &two, &promise(&["a"])), Vote::Yes);
        // The record is still there on a shard that released the first time for another reason.
        shard
            .records
            .insert(one.clone(), stale.records[&one].clone());
        let before = (shard.locks.clone(), shard.index.clone());
        assert_eq!(
            shard.release(4, &one, Leave::Nothing, RETENTION),
            Released::Done
        );
        assert_eq!((shard.locks, shard.index), before);
    }
}

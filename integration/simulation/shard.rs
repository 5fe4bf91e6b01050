//! A shard: the participant's twin, its clock, and data that tells who was applied when.

use std::collections::BTreeMap;

use bytes::Bytes;
use lockstep::txn::participant::{Participant, Promise};
use lockstep::txn::*;

use super::world::{LIMITS, RETENTION_MS};

/// What a request asks of a shard.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Prepare {
        promise: Promise,
        /// Watched keys and their versions, where the prepare looks whether they have changed.
        checks: Vec<(usize, usize)>,
        /// What is checked settles from now on.
        settles: bool,
    },
    /// The second half of a prepare on a pinned connection: WATCH, and a look behind it.
    Watch,
    /// EXEC on that connection.
    Exec(Watching),
    Apply,
    Abort {
        leave: Leave,
        tombstone: Option<Millis>,
    },
    Tombstone(Millis),
    Read,
    Release(Leave),
}

/// What a connection watches.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Watching {
    /// Version of the transaction's record when its WATCH ran; None: it has not.
    pub(crate) record: Option<u64>,
    /// The client's watched key and its version at that time, under the decider rule.
    pub(crate) key: Option<(usize, usize)>,
}

#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) twin: Participant,
    /// Its clock is the world's plus this.
    pub(crate) ahead_ms: Millis,
    /// Each key is a list to which every write appends who wrote.
    pub(crate) data: Vec<Vec<TxnId>>,
    /// How often each record was changed.
    versions: BTreeMap<TxnId, u64>,
    /// Refuses to apply until then, as if it were out of memory.
    pub(crate) refuses_until: Millis,
}

/// The key of this number, as Redis sees it.
pub(crate) fn key(number: usize) -> Bytes {
    const KEYS: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];
    Bytes::from_static(KEYS[number])
}

pub(crate) fn number(key: &Bytes) -> usize {
    usize::from(key[0] - b'a')
}

impl Shard {
    pub(crate) fn new(keys: usize, ahead_ms: Millis) -> Self {
        Self {
            twin: Participant::new(),
            ahead_ms,
            data: vec![Vec::new(); keys],
            versions: BTreeMap::new(),
            refuses_until: 0,
        }
    }

    pub(crate) fn version(&self, id: &TxnId) -> u64 {
        self.versions.get(id).copied().unwrap_or(0)
    }

    /// Runs one request in one atomic step.
    pub(crate) fn run(&mut self, world_ms: Millis, id: &TxnId, part: Part, ask: &Ask) -> Event {
        let now = world_ms + self.ahead_ms;
        let before = self.twin.records.get(id).cloned();
        self.twin.expire(now);
        let keys = before.iter().flat_map(|entry| &entry.keys);
        let keys: Vec<_> = keys.map(number).collect();
        let event = self.operate(world_ms, id, part, ask);
        if self.twin.records.get(id) != before.as_ref() {
            *self.versions.entry(id.clone()).or_default() += 1;
        }
        if let Event::Applied(_, Applied::Now) = event {
            for key in keys {
                self.data[key].push(id.clone());
            }
        }
        event
    }

    fn operate(&mut self, world_ms: Millis, id: &TxnId, part: Part, ask: &Ask) -> Event {
        let now = world_ms + self.ahead_ms;
        let twin = &mut self.twin;
        match ask {
            Ask::Prepare {
                promise,
                checks,
                settles,
            } => Event::Voted(part, self.prepare(now, id, promise, checks, *settles)),
            Ask::Watch => Event::Voted(
                part,
                match twin.state(id) {
                    Some(State::Prepared) => Vote::Yes,
                    _ => Vote::Unknown,
                },
            ),
            Ask::Apply | Ask::Exec(_) if world_ms < self.refuses_until => {
                Event::Applied(part, Applied::Refused)
            }
            Ask::Exec(watching) => {
                if !self.is_untouched(id, watching) {
                    return Event::Applied(part, Applied::Not(self.twin.state(id)));
                }
                self.mark(id);
                Event::Applied(part, Applied::Now)
            }
            Ask::Apply => Event::Applied(part, twin.apply(now, id)),
            Ask::Abort { leave, tombstone } => {
                Event::Aborted(part, twin.abort(now, id, *leave, *tombstone, RETENTION_MS))
            }
            Ask::Tombstone(until) => {
                Event::Aborted(part, twin.tombstone(now, id, *until, RETENTION_MS))
            }
            Ask::Read => Event::Read(part, twin.read(now, id)),
            Ask::Release(leave) => {
                Event::Released(part, twin.release(now, id, *leave, RETENTION_MS))
            }
        }
    }

    /// MULTI, prepare, EXEC on the connection that watches the keys, if there are any.
    fn prepare(
        &mut self,
        now: Millis,
        id: &TxnId,
        promise: &Promise,
        checks: &[(usize, usize)],
        settles: bool,
    ) -> Vote {
        let mut checks = checks.iter();
        if checks.any(|&(key, len)| self.data[key].len() != len) {
            return Vote::No(Refusal::Refused("a watched key has changed".into()));
        }
        let vote = self.twin.prepare(now, id, promise);
        if settles && vote == Vote::Yes {
            let keys = promise.keys.iter().map(|key| (key.clone(), id.clone()));
            self.twin.settling.extend(keys);
        }
        vote
    }

    /// What stands in an EXEC asks nothing: the WATCH was all that guarded it.
    fn mark(&mut self, id: &TxnId) {
        let Some(entry) = self.twin.records.get_mut(id) else {
            return;
        };
        entry.state = State::Applied;
        for key in &entry.keys {
            self.twin.settling.insert(key.clone(), id.clone());
        }
    }

    fn is_untouched(&self, id: &TxnId, watching: &Watching) -> bool {
        let key = watching
            .key
            .is_none_or(|(key, len)| self.data[key].len() == len);
        key && watching.record == Some(self.version(id))
    }

    /// What a prepare promises.
    pub(crate) fn promise(
        keys: &[usize],
        participants: &[Part],
        rule: Rule,
        until: Millis,
    ) -> Promise {
        Promise {
            keys: keys.iter().map(|&number| key(number)).collect(),
            watched: Vec::new(),
            participants: participants.to_vec(),
            rule,
            ttl_ms: LIMITS.ttl_ms,
            not_after_ms: until,
        }
    }
}

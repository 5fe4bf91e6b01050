//! The scripts and [`Participant`], their twin in Rust, are the same thing: the same answers and
//! the same state after every step of random sequences over several transactions. So what the
//! model and the simulator show of the twin holds for the shards.

use std::collections::BTreeMap;

use bytes::Bytes;
use lockstep::resp::{as_bulk, as_int, elements};
use lockstep::txn::participant::{Entry, Participant, Promise};
use lockstep::txn::redo::{Intent, decode_keys, encode_keys};
use lockstep::txn::script::{self, Prepare, answer};
use lockstep::txn::{Leave, Millis, Part, Reading, Record, Rule, State, TxnId, names};

use crate::replies::seed;
use crate::server::until;
use crate::shard::{HOUR, Shard, id, intent, parts};
use crate::templates::Random;

const STEPS: usize = 6_000;
const STEPS_PER_KEYSPACE: usize = 60;
/// The scripts' PX and TIME are read an instant apart.
const SLACK_MS: Millis = 10_000;

struct Both {
    shard: Shard,
    twin: Participant,
    random: Random,
    log: Vec<String>,
}

/// What both sides keep, expiry as a yes or no.
#[derive(PartialEq, Eq, Debug)]
struct Kept {
    records: BTreeMap<TxnId, Entry>,
    locks: BTreeMap<Bytes, TxnId>,
    index: BTreeMap<Bytes, TxnId>,
    settling: BTreeMap<Bytes, TxnId>,
    epoch: u64,
}

#[test]
fn random_sequences_answer_alike_and_leave_the_same() {
    let seed = seed();
    let mut both = Both {
        shard: Shard::start(),
        twin: Participant::new(),
        random: Random(seed),
        log: Vec::new(),
    };
    for step in 0..STEPS {
        if step % STEPS_PER_KEYSPACE == 0 {
            both.shard.text("FLUSHALL");
            both.twin = Participant::new();
            both.log = vec![format!("seed {seed}, step {step}")];
        }
        both.step();
        let (kept, expected) = (both.kept(), both.expected());
        assert_eq!(kept, expected, "{:#?}", both.log);
    }
}

impl Both {
    fn step(&mut self) {
        let txn = id(&format!("t{}", self.random.below(5)));
        match self.random.below(20) {
            0..7 => self.prepare(&txn),
            7..10 => self.apply(&txn),
            10..12 => self.abort(&txn),
            12..13 => self.tombstone(&txn),
            13..16 => self.release(&txn),
            16..18 => self.read(&txn),
            18 => self.lose_lock(),
            _ => self.lose_marker(&txn),
        }
    }

    fn same<T: PartialEq + std::fmt::Debug>(&mut self, what: String, real: T, twin: T) {
        self.log.push(format!("{what}: {real:?}"));
        assert_eq!(real, twin, "{:#?}", self.log);
    }

    /// The same branch for the same transaction, as a coordinator would.
    fn prepare(&mut self, txn: &TxnId) {
        let wanted = self.random.below(7);
        let keys: Vec<Bytes> = (0..wanted)
            .map(|_| Bytes::from(format!("k{}", self.random.below(8))))
            .collect();
        let keys: Vec<Bytes> = BTreeMap::from_iter(keys.into_iter().map(|k| (k, ())))
            .into_keys()
            .collect();
        let keys = match self.random.chance(4) {
            true => vec![Bytes::from_static(names::EVERY_SLOT)],
            false => keys,
        };
        let branch = Intent {
            keys: encode_keys(keys.iter().map(Bytes::as_ref).collect::<Vec<_>>()),
            ..intent("", &["PING"])
        };
        let rule = match self.random.chance(30) {
            true => Rule::Decider(Part { shard: 7, db: 3 }),
            false => Rule::Implicit,
        };
        let conditional = rule == Rule::Implicit && self.random.chance(40);
        let watched: Vec<Bytes> = match conditional {
            true => keys.iter().take(self.random.below(9)).cloned().collect(),
            false => Vec::new(),
        };
        let encoded = encode_keys(watched.iter().map(Bytes::as_ref).collect::<Vec<_>>());
        let promise = Promise {
            keys,
            watched,
            participants: parts(),
            rule,
            // Some are overdue at once, and their locks gone.
            ttl_ms: if self.random.chance(20) { 1 } else { HOUR },
            not_after_ms: self.not_after(),
        };
        let voted = self.shard.prepare_with(&Prepare {
            id: txn,
            ttl_ms: promise.ttl_ms,
            not_after_ms: promise.not_after_ms,
            participants: &promise.participants,
            rule,
            intent: &branch,
            watched: conditional.then_some(&encoded),
        });
        let now = voted.now_ms.unwrap_or_else(|| self.shard.now());
        let expected = self.twin.prepare(now, txn, &promise);
        self.same(format!("prepare {txn} {promise:?}"), voted.vote, expected);
        self.drop_intention();
        if promise.ttl_ms == 1 {
            until("short locks have expired", || {
                self.shard.now() > now + 1
                    && !self.real_locks().values().any(|(_, ttl)| *ttl < SLACK_MS)
            });
            self.twin.expire(now + 2);
        }
    }

    /// An intention passes too soon to be compared later on.
    fn drop_intention(&mut self) {
        let every = names::EVERY_SLOT;
        if self.twin.locks.contains_key(every) && !self.twin.index.contains_key(every) {
            self.twin.locks.remove(every);
            self.shard.text("DEL __lockstep:lock:*");
        }
    }

    fn apply(&mut self, txn: &TxnId) {
        let (applied, now) = (self.shard.apply(txn).0, self.shard.now());
        let expected = self.twin.apply(now, txn);
        self.same(format!("apply {txn}"), applied, expected);
    }

    fn abort(&mut self, txn: &TxnId) {
        let leave = self.leave();
        let tombstone = self.random.chance(60).then(|| self.not_after());
        let real = self.shard.abort(txn, leave, tombstone);
        let now = self.shard.now();
        let expected = self.twin.abort(now, txn, leave, tombstone, HOUR);
        self.same(
            format!("abort {txn} {leave:?} {tombstone:?}"),
            real,
            expected,
        );
    }

    fn tombstone(&mut self, txn: &TxnId) {
        let not_after = self.not_after();
        let real = self.shard.tombstone(txn, not_after);
        let now = self.shard.now();
        let expected = self.twin.tombstone(now, txn, not_after, HOUR);
        self.same(format!("tombstone {txn} {not_after}"), real, expected);
    }

    fn release(&mut self, txn: &TxnId) {
        let leave = self.leave();
        let real = self.shard.release(txn, leave);
        let now = self.shard.now();
        let expected = self.twin.release(now, txn, leave, HOUR);
        self.same(format!("release {txn} {leave:?}"), real, expected);
    }

    fn read(&mut self, txn: &TxnId) {
        let record = self.shard.record(txn);
        let now = match &record {
            Some(record) => record.now_ms,
            None => self.shard.now(),
        };
        let real = record.map_or(Reading::Absent, Reading::Found);
        let expected = self.twin.read(now, txn);
        self.same(format!("read {txn}"), real, expected);
    }

    /// A lock goes early: it was evicted, or its time is over.
    fn lose_lock(&mut self) {
        let Some(key) = self.twin.locks.keys().next().cloned() else {
            return;
        };
        self.twin.locks.remove(&key);
        let gone = self
            .shard
            .text(&format!("DEL __lockstep:lock:{}", text(&key)));
        self.same("lock lost".to_owned(), gone.as_str(), ":1\r\n");
    }

    /// A marker's or tombstone's time is over.
    fn lose_marker(&mut self, txn: &TxnId) {
        if self
            .twin
            .records
            .get(txn)
            .is_none_or(|entry| entry.expires_ms.is_none())
        {
            return;
        }
        self.twin.records.remove(txn);
        let gone = self.shard.text(&format!("DEL __lockstep:txn:{txn}"));
        self.same(format!("marker of {txn} lost"), gone.as_str(), ":1\r\n");
    }

    fn leave(&mut self) -> Leave {
        self.random.pick(&[Leave::Nothing, Leave::Marker])
    }

    /// Mostly far in the future, else past.
    fn not_after(&mut self) -> Millis {
        let now = self.shard.now();
        if self.random.chance(85) {
            now + HOUR
        } else {
            now - 1
        }
    }

    fn expected(&self) -> Kept {
        let twin = &self.twin;
        Kept {
            records: twin
                .records
                .iter()
                .map(|(id, entry)| (id.clone(), settled(entry.clone())))
                .collect(),
            locks: twin
                .locks
                .iter()
                .map(|(key, (id, _))| (key.clone(), id.clone()))
                .collect(),
            index: twin.index.clone(),
            settling: twin.settling.clone(),
            epoch: twin.epoch,
        }
    }

    fn kept(&mut self) -> Kept {
        let names = self.shard.keys();
        let ids: Vec<TxnId> = names
            .iter()
            .filter_map(|name| names::record_id(name))
            .collect();
        let epoch = self.shard.text("GET __lockstep:epoch");
        Kept {
            records: ids
                .into_iter()
                .map(|id| (id.clone(), self.entry(&id)))
                .collect(),
            locks: self
                .real_locks()
                .into_iter()
                .map(|(key, (id, _))| (key, id))
                .collect(),
            index: self.hash("__lockstep:index"),
            settling: self.hash("__lockstep:settling"),
            epoch: as_bulk(epoch.as_bytes())
                .and_then(|n| text(n).parse().ok())
                .unwrap_or(0),
        }
    }

    fn entry(&mut self, id: &TxnId) -> Entry {
        let record = self.shard.record(id).expect("it was there");
        let stored = self.shard.ask(|out| script::append_read_intent(out, id));
        let stored = answer::intent(&stored)
            .expect("a reading")
            .expect("it was there");
        let keys = match stored.keys {
            b"" => Vec::new(),
            keys => decode_keys(keys).expect("a list of keys"),
        };
        let ttl = self.shard.text(&format!("PTTL __lockstep:txn:{id}"));
        let Record {
            state,
            deadline_ms,
            participants,
            rule,
            ..
        } = record;
        let ttl = as_int(ttl.as_bytes()).and_then(|ttl| Millis::try_from(ttl).ok());
        if let Some(ttl) = ttl {
            assert!(
                (HOUR - SLACK_MS..=HOUR).contains(&ttl),
                "{id} lives {ttl} ms"
            );
        }
        assert_eq!(
            stored.redo.is_empty(),
            state == State::Aborted || ttl.is_some()
        );
        Entry {
            state,
            deadline_ms: Some(deadline_ms).filter(|deadline| *deadline > 0),
            participants,
            rule,
            keys: keys.into_iter().map(Bytes::copy_from_slice).collect(),
            expires_ms: ttl.map(|_| 0),
        }
    }

    /// Key, holder, time to live.
    fn real_locks(&mut self) -> BTreeMap<Bytes, (TxnId, Millis)> {
        let mut locks = BTreeMap::new();
        for name in self.shard.keys() {
            let Some(key) = name.strip_prefix(names::LOCK) else {
                continue;
            };
            let holder = self.shard.client.call(&[b"GET".as_slice(), &name]);
            let ttl = self.shard.client.call(&[b"PTTL".as_slice(), &name]);
            let ttl = as_int(&ttl).and_then(|ttl| Millis::try_from(ttl).ok());
            if let (Some(holder), Some(ttl)) = (as_bulk(&holder), ttl) {
                locks.insert(Bytes::copy_from_slice(key), (id(&text(holder)), ttl));
            }
        }
        locks
    }

    fn hash(&mut self, name: &str) -> BTreeMap<Bytes, TxnId> {
        let all = self.shard.text(&format!("HGETALL {name}"));
        let all: Vec<&[u8]> = elements(all.as_bytes()).filter_map(as_bulk).collect();
        all.chunks(2)
            .map(|pair| (Bytes::copy_from_slice(pair[0]), id(&text(pair[1]))))
            .collect()
    }
}

/// When it expires does not matter here, only whether.
fn settled(entry: Entry) -> Entry {
    Entry {
        expires_ms: entry.expires_ms.map(|_| 0),
        ..entry
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

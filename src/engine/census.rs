//! Searching the shards for transactions that nobody finishes, and measuring what is found.
//!
//! The search goes through the index of every shard, not through its keys, so it costs little.
//! Most transactions live for milliseconds; only one that is met in two searches is looked at.
//!
//! The measure is that of the audit, over what the index names: the share of its transactions
//! that stand as they should by now. It is 1 for an empty index, 0 for a shard that gives no
//! answer. Measured before anything is recovered, so what a crash has left shows up at least
//! once.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::iter;

use super::Engine;
use crate::resp::{self, build};
use crate::txn::script::{self, answer};
use crate::txn::{Millis, Part, Record, State, TxnId, names};

/// One page of a search through the index of a shard.
const SCAN_COUNT: &[u8] = b"200";
/// Pages at most in one search; a longer index is searched on the next time.
const SCAN_PAGES_MAX: usize = 50;
/// Records of one shard that are read in one search at most.
const READ_MAX: usize = 1_000;
/// Of those, so many at once.
const READ_AT_ONCE: usize = 64;
/// Transactions that are recovered at once: one whose shard is down takes its time, and must
/// not keep the others waiting.
const RECOVER_AT_ONCE: usize = 16;

/// What the last search has found, by shard; None: the shard gave no answer.
type Found = Vec<Option<BTreeSet<TxnId>>>;

/// What is remembered from search to search.
#[derive(Default)]
struct Memory {
    found: Found,
    /// Entries of the index that had no record.
    orphans: BTreeSet<(u16, TxnId)>,
}

/// What one search has measured.
#[derive(Default)]
struct Measure {
    /// Transactions past their deadline, and where one of their records is.
    overdue: HashMap<TxnId, Part>,
    oldest_ms: Millis,
    orphans: BTreeSet<(u16, TxnId)>,
    /// By shard.
    ratios: Vec<f64>,
}

impl Engine {
    /// Looks for transactions past their deadline on all shards, now and then, for ever.
    pub async fn search_for_ever(self: Rc<Self>) {
        // As long as nothing was looked at, nothing is known to be wrong.
        self.publish_measure(&Measure {
            ratios: vec![1.0; self.ways.len()],
            ..Measure::default()
        });
        let mut memory = Memory::default();
        loop {
            // With jitter, so that proxies do not all look at the same time.
            let interval = self.times.scan_interval.get().as_millis() as u64;
            tokio::time::sleep(Duration::from_millis(
                interval / 2 + super::random() % interval.max(1),
            ))
            .await;
            self.search(&mut memory).await;
        }
    }

    async fn search(self: &Rc<Self>, memory: &mut Memory) {
        let mut found = Found::new();
        for shard in 0..self.ways.len() as u16 {
            self.count_locks(shard).await;
            found.push(self.indexed(shard).await);
        }
        let mut measure = Measure::default();
        for (shard, ids) in (0..).zip(&found) {
            let before = memory
                .found
                .get(usize::from(shard))
                .and_then(Option::as_ref);
            let ratio = match ids {
                None => 0.0,
                Some(ids) => {
                    let is_known = |id: &&TxnId| before.is_some_and(|b| b.contains(*id));
                    let twice = some(ids.iter().filter(is_known).cloned().collect());
                    let wrong = self
                        .judge(shard, &twice, &memory.orphans, &mut measure)
                        .await;
                    1.0 - wrong as f64 / ids.len().max(1) as f64
                }
            };
            measure.ratios.push(ratio);
        }
        self.publish_measure(&measure);
        *memory = Memory {
            found,
            orphans: measure.orphans,
        };
        let recoveries = iter(measure.overdue)
            .for_each_concurrent(RECOVER_AT_ONCE, |(id, part)| self.recover(part, id));
        recoveries.await;
    }

    /// How many of these do not stand as they should on this shard.
    async fn judge(
        &self,
        shard: u16,
        ids: &[TxnId],
        orphans_before: &BTreeSet<(u16, TxnId)>,
        measure: &mut Measure,
    ) -> usize {
        let mut wrong = 0;
        let read = iter(ids).map(|id| self.record(shard, id));
        let records: Vec<_> = read.buffered(READ_AT_ONCE).collect().await;
        for (id, record) in ids.iter().zip(records) {
            let orphan = (shard, id.clone());
            match record {
                Some(Some(record)) => {
                    let is_late = record.now_ms >= record.deadline_ms;
                    if is_late && record.state != State::Aborted {
                        let late_ms = record.now_ms - record.deadline_ms;
                        let age_ms = late_ms.saturating_add(self.times.limits.ttl_ms);
                        measure.oldest_ms = measure.oldest_ms.max(age_ms);
                        let part = Part { shard, db: 0 };
                        measure.overdue.entry(id.clone()).or_insert(part);
                        wrong += 1;
                    }
                }
                // Perhaps it has been released since it was found in the index.
                Some(None) => {
                    wrong += usize::from(orphans_before.contains(&orphan));
                    measure.orphans.insert(orphan);
                }
                None => {}
            }
        }
        wrong
    }

    /// None: no answer.
    async fn record(&self, shard: u16, id: &TxnId) -> Option<Option<Record>> {
        let mut request = BytesMut::new();
        script::append_read(&mut request, id);
        answer::record(&self.query(shard, &request).await.ok()?).ok()
    }

    fn publish_measure(&self, measure: &Measure) {
        for (shard, ratio) in self.metrics.shards.iter().zip(&measure.ratios) {
            shard.consistency.set(*ratio);
        }
        let shards = measure.ratios.len().max(1) as f64;
        let mean = measure.ratios.iter().sum::<f64>() / shards;
        self.metrics.consistency_mean.set(mean);
        self.metrics.in_doubt.set(measure.overdue.len() as f64);
        let oldest = Duration::from_millis(measure.oldest_ms);
        self.metrics.in_doubt_oldest.set(oldest.as_secs_f64());
    }

    /// Everything in the index is locked, whether its lock key still lives or not.
    async fn count_locks(&self, shard: u16) {
        let mut request = BytesMut::new();
        build::command(&mut request, [b"HLEN", names::INDEX]);
        let reply = self.ask(shard, &request).await;
        if let Some(held) = reply.ok().and_then(|reply| resp::as_int(&reply)) {
            self.metrics.shards[usize::from(shard)]
                .locks_held
                .set(held as f64);
        }
    }

    /// The transactions in a shard's index; None when it gives no answer.
    async fn indexed(&self, shard: u16) -> Option<BTreeSet<TxnId>> {
        let (mut cursor, mut ids) = (Bytes::from_static(b"0"), BTreeSet::new());
        for _ in 0..SCAN_PAGES_MAX {
            let mut request = BytesMut::new();
            build::command(
                &mut request,
                [b"HSCAN", names::INDEX, &cursor, b"COUNT", SCAN_COUNT],
            );
            let reply = self.ask(shard, &request).await.ok()?;
            let mut parts = resp::elements(&reply);
            let next = parts.next().and_then(resp::as_bulk)?;
            let owners = resp::elements(parts.next()?).skip(1).step_by(2);
            ids.extend(
                owners
                    .filter_map(resp::as_bulk)
                    .map(|id| TxnId::new(String::from_utf8_lossy(id).into_owned())),
            );
            cursor = Bytes::copy_from_slice(next);
            if &cursor[..] == b"0" {
                break;
            }
        }
        Some(ids)
    }
}

/// As many as are read; if there are more, not always the same.
fn some(mut ids: Vec<TxnId>) -> Vec<TxnId> {
    if ids.len() > READ_MAX {
        let first = super::random() as usize % ids.len();
        ids.rotate_left(first);
        ids.truncate(READ_MAX);
    }
    ids
}

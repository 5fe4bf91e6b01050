//! What sessions count for the metrics. Bytes and writes are many, so they are collected here,
//! by worker, and published from its tick.

use std::cell::Cell;
use std::sync::Arc;

use super::latency::Stopwatch;
use crate::metrics::{ErrorKind, Limit, Metrics, Outcome, Scope};

/// The counts of one worker's sessions.
pub struct Tally {
    metrics: Arc<Metrics>,
    /// How long their commands take.
    pub(super) stopwatch: Stopwatch,
    received_bytes: Cell<u64>,
    sent_bytes: Cell<u64>,
    writes: Cell<u64>,
}

impl Tally {
    /// Nothing counted yet.
    pub fn new(metrics: Arc<Metrics>, stopwatch: Stopwatch) -> Self {
        Self {
            metrics,
            stopwatch,
            received_bytes: Cell::new(0),
            sent_bytes: Cell::new(0),
            writes: Cell::new(0),
        }
    }

    pub(super) fn received(&self, bytes: usize) {
        self.received_bytes
            .set(self.received_bytes.get() + bytes as u64);
    }

    /// A write of so many bytes; of none if the socket took nothing.
    pub(super) fn wrote(&self, bytes: usize) {
        self.sent_bytes.set(self.sent_bytes.get() + bytes as u64);
        self.writes.set(self.writes.get() + u64::from(bytes > 0));
    }

    /// An error of our own was given to a client.
    pub(super) fn refused(&self, kind: ErrorKind) {
        self.metrics.errors[kind].increment(1);
    }

    /// A limit was hit.
    pub(super) fn hit(&self, limit: Limit) {
        self.metrics.limits_hit[limit].increment(1);
    }

    /// An EXEC that ran natively on one shard was answered.
    pub(super) fn exec_ended(&self, outcome: Outcome) {
        self.metrics.transactions[Scope::Single][outcome].increment(1);
    }

    /// Adds what was collected to the metrics.
    pub fn publish(&self) {
        self.stopwatch.put_down();
        let metrics = &self.metrics;
        metrics
            .client_received_bytes
            .increment(self.received_bytes.take());
        metrics.client_sent_bytes.increment(self.sent_bytes.take());
        metrics.client_writes.increment(self.writes.take());
    }
}

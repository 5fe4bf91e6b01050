//! What a link adds to the gauges of its shard.

use crate::metrics::{Portion, ShardMetrics};

/// This link's part of the shard's gauges.
pub(super) struct Gauges {
    pub(super) inflight: Portion,
    pub(super) queue_bytes: Portion,
    pub(super) held: Portion,
}

impl Gauges {
    pub(super) fn new(metrics: &ShardMetrics) -> Self {
        Self {
            inflight: Portion::new(&metrics.inflight),
            queue_bytes: Portion::new(&metrics.queue_bytes),
            held: Portion::new(&metrics.held),
        }
    }
}

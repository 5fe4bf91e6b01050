//! Where a worker's circuit breakers stand, in the metrics.

use crate::engine::Engine;
use crate::metrics::{CircuitState, Label, Metrics, Portion};

/// By shard, this worker's part of the gauges.
pub(super) struct Circuits(Vec<Vec<Portion>>);

impl Circuits {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let of = |shard: &crate::metrics::ShardMetrics| {
            let states = CircuitState::ALL.iter();
            states
                .map(|state| Portion::new(&shard.circuit[*state]))
                .collect()
        };
        Self(metrics.shards.iter().map(of).collect())
    }

    /// Brings the gauges up to date.
    pub(super) fn publish(&self, engine: &Engine) {
        for (shard, portions) in self.0.iter().enumerate() {
            let now = engine.link(shard as u16).circuit();
            for (state, portion) in CircuitState::ALL.iter().zip(portions) {
                portion.set(usize::from(*state == now));
            }
        }
    }
}

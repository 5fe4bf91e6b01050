//! Whether a shard can be reached, over all workers: in the metrics, and on `/readyz`.

use std::sync::{Arc, Mutex, PoisonError};

use metrics::Gauge;

use crate::metrics::{Metrics, ShardMetrics};
use crate::readiness::Readiness;

/// The standing of one shard. Taken to be good until a worker says otherwise: nobody starts
/// before every shard has answered.
pub(crate) struct Standing {
    name: String,
    up: Gauge,
    readiness: Readiness,
    /// Workers without a connection.
    without: Mutex<usize>,
}

/// One for each shard, by its number.
pub(super) fn all(
    addresses: &[String],
    metrics: &Metrics,
    readiness: &Readiness,
) -> Arc<[Standing]> {
    let each = addresses.iter().zip(&metrics.shards);
    each.map(|(address, metrics)| Standing::new(address, metrics, readiness))
        .collect()
}

impl Standing {
    /// Of the shard with this address.
    pub(crate) fn new(address: &str, metrics: &ShardMetrics, readiness: &Readiness) -> Self {
        metrics.up.set(1.0);
        Self {
            name: format!("shard {address}"),
            up: metrics.up.clone(),
            readiness: readiness.clone(),
            without: Mutex::default(),
        }
    }

    /// A worker has lost its connection to the shard (`trouble` says how), or has one again. To
    /// be called once for each change: `had_trouble` is what the worker told before.
    pub(crate) fn tell(&self, had_trouble: bool, trouble: Option<&str>) {
        let mut without = self.without.lock().unwrap_or_else(PoisonError::into_inner);
        *without = *without + usize::from(trouble.is_some()) - usize::from(had_trouble);
        match trouble {
            Some(why) => self.readiness.note(&self.name, why),
            None if *without == 0 => self.readiness.clear_note(&self.name),
            None => {}
        }
        self.up.set(if *without == 0 { 1.0 } else { 0.0 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Address;
    use crate::metrics::Metrics;

    #[test]
    fn a_shard_is_up_when_no_worker_misses_it() {
        let metrics = Metrics::new(&[Address::new("a", 1)]).unwrap();
        let readiness = Readiness::new();
        let standing = Standing::new("a:1", &metrics.shards[0], &readiness);
        let is_up = || {
            metrics
                .render()
                .contains("lockstep_shard_up{shard=\"a:1\"} 1")
        };
        assert!(is_up() && readiness.notes().is_empty());
        standing.tell(false, Some("lost"));
        standing.tell(false, Some("refused"));
        standing.tell(true, None);
        assert!(!is_up() && readiness.is_ready());
        assert_eq!(readiness.notes(), ["shard a:1: refused"]);
        standing.tell(true, None);
        assert!(is_up() && readiness.notes().is_empty());
    }
}

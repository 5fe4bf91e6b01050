//! Gauges that several workers share.

use std::cell::Cell;

use metrics::Gauge;

/// What one worker adds to a gauge that stands for all of them. Dropping it takes it back.
#[derive(Debug)]
pub struct Portion {
    gauge: Gauge,
    published: Cell<usize>,
}

impl Portion {
    /// Adds nothing yet.
    pub fn new(gauge: &Gauge) -> Self {
        Self {
            gauge: gauge.clone(),
            published: Cell::new(0),
        }
    }

    /// Makes this worker's part of the gauge so large.
    pub fn set(&self, value: usize) {
        let before = self.published.replace(value);
        // Whole numbers: exact as differences and as sums.
        if value > before {
            self.gauge.increment((value - before) as f64);
        } else if value < before {
            self.gauge.decrement((before - value) as f64);
        }
    }
}

impl Drop for Portion {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Address;
    use crate::metrics::Metrics;

    #[test]
    fn portions_add_up_over_workers_and_are_taken_back() {
        let metrics = Metrics::new(&[Address::new("a", 1)]).unwrap();
        let gauge = &metrics.shards[0].inflight;
        let shown = |value: u32| {
            let line = format!("lockstep_shard_inflight_requests{{shard=\"a:1\"}} {value}\n");
            assert!(metrics.render().contains(&line), "{line}");
        };
        let (one, other) = (Portion::new(gauge), Portion::new(gauge));
        one.set(5);
        other.set(3);
        shown(8);
        one.set(1);
        shown(4);
        drop(other);
        shown(1);
    }
}

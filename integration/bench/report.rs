//! The table.

use std::collections::BTreeMap;

use super::endpoints::Endpoint;
use super::workloads::ALL;

/// What was measured once.
#[derive(Clone, Copy)]
pub struct Sample {
    /// Units.
    pub per_second: f64,
    /// Median latency.
    pub p50_us: f64,
    /// Latency that one of a hundred exceeds.
    pub p99_us: f64,
    /// Processor time of the proxies per unit.
    pub proxy_us: f64,
    /// The same of the shards.
    pub shards_us: f64,
}

/// All samples, by workload and endpoint.
#[derive(Default)]
pub struct Table {
    samples: BTreeMap<(&'static str, String), Vec<Sample>>,
    refused: BTreeMap<(&'static str, String), String>,
}

impl Table {
    /// One more.
    pub fn add(&mut self, workload: &'static str, endpoint: &str, sample: Sample) {
        let samples = self.samples.entry((workload, endpoint.to_owned()));
        samples.or_default().push(sample);
    }

    /// It cannot do that.
    pub fn refuse(&mut self, workload: &'static str, endpoint: &str, why: String) {
        self.refused.insert((workload, endpoint.to_owned()), why);
    }

    /// Whether it cannot.
    pub fn is_refused(&self, workload: &'static str, endpoint: &str) -> bool {
        self.refused.contains_key(&(workload, endpoint.to_owned()))
    }

    /// Prints the medians, as a table in Markdown. Ratios are to the first endpoint, taken round
    /// by round.
    pub fn print(&self, endpoints: &[Endpoint]) {
        let first = endpoints.first().map_or("", |endpoint| &endpoint.name);
        println!(
            "\n| workload | endpoint | per second | x {first} | p50 us | p99 us | proxy us | shards us |"
        );
        println!("|---|---|---|---|---|---|---|---|");
        for workload in ALL {
            for endpoint in endpoints {
                self.print_row(workload.name, &endpoint.name, first);
            }
        }
    }

    fn print_row(&self, workload: &'static str, endpoint: &str, first: &str) {
        let key = (workload, endpoint.to_owned());
        if let Some(why) = self.refused.get(&key) {
            return println!("| {workload} | {endpoint} | {why} | | | | | |");
        }
        let Some(samples) = self.samples.get(&key) else {
            return;
        };
        let of = |of: fn(&Sample) -> f64| median(samples.iter().map(of));
        let yardstick = self.samples.get(&(workload, first.to_owned()));
        let pairs = samples.iter().zip(yardstick.into_iter().flatten());
        let ratio = median(pairs.map(|(a, b)| a.per_second / b.per_second));
        println!(
            "| {workload} | {endpoint} | {:.0} | {ratio:.2} | {:.0} | {:.0} | {:.2} | {:.2} |",
            of(|sample| sample.per_second),
            of(|sample| sample.p50_us),
            of(|sample| sample.p99_us),
            of(|sample| sample.proxy_us),
            of(|sample| sample.shards_us),
        );
    }
}

fn median(all: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = all.collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

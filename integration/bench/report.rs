//! The tables.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::endpoints::Endpoint;
use super::workloads::Workload;

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
    /// What the slowest client got done, as a share of the mean.
    pub slowest: f64,
    /// Writes of lockstep, to clients and to shards, per unit; unknown of others.
    pub sends: f64,
    /// Requests to shards in one write of lockstep; unknown of others.
    pub batch: f64,
}

/// A workload and an endpoint.
type Place = (&'static str, String);
/// Name and words of a measure, and what came of it.
type Figure = (&'static str, &'static str, Result<f64, String>);

/// All samples, by workload and endpoint.
#[derive(Default)]
pub struct Table {
    samples: BTreeMap<Place, Vec<Sample>>,
    refused: BTreeMap<Place, String>,
    figures: Vec<Figure>,
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

    /// A measure that is a single number, or why there is none.
    pub fn figure(&mut self, name: &'static str, what: &'static str, value: Result<f64, String>) {
        self.figures.push((name, what, value));
    }

    /// What [`Table::figure`] was given.
    pub fn figure_of(&self, name: &str) -> Option<f64> {
        let mut figures = self.figures.iter();
        let (_, _, value) = figures.find(|(known, ..)| *known == name)?;
        value.as_ref().ok().copied()
    }

    /// Median over the rounds.
    pub fn median(
        &self,
        workload: &'static str,
        endpoint: &str,
        of: fn(&Sample) -> f64,
    ) -> Option<f64> {
        let samples = self.samples.get(&(workload, endpoint.to_owned()))?;
        Some(median(samples.iter().map(of))).filter(|value| value.is_finite())
    }

    /// Median of the ratios of the rounds.
    pub fn ratio(
        &self,
        one: (&'static str, &str),
        other: (&'static str, &str),
        of: fn(&Sample) -> f64,
    ) -> Option<f64> {
        let samples =
            |(workload, endpoint): (_, &str)| self.samples.get(&(workload, endpoint.to_owned()));
        let pairs = samples(one)?.iter().zip(samples(other)?);
        Some(median(pairs.map(|(a, b)| of(a) / of(b)))).filter(|value| value.is_finite())
    }

    /// Endpoints that did this workload.
    pub fn endpoints(&self, workload: &'static str) -> impl Iterator<Item = &str> {
        let places = self.samples.keys();
        let mine = places.filter(move |(known, _)| *known == workload);
        mine.map(|(_, endpoint)| endpoint.as_str())
    }

    /// The medians of these workloads at these endpoints, as a table in Markdown. Ratios are to the first endpoint,
    /// taken round by round.
    pub fn show(&self, workloads: &[&Workload], endpoints: &[Endpoint]) -> String {
        let first = endpoints.first().map_or("", |endpoint| &endpoint.name);
        let mut out = format!(
            "\n| workload | endpoint | per second | x {first} | p50 us | p99 us | proxy us | \
             shards us | slowest | sends | batch |\n|---|---|---|---|---|---|---|---|---|---|---|\n"
        );
        for workload in workloads {
            for endpoint in endpoints {
                self.show_row(workload.name, &endpoint.name, first, &mut out);
            }
        }
        out
    }

    fn show_row(&self, workload: &'static str, endpoint: &str, first: &str, out: &mut String) {
        if let Some(why) = self.refused.get(&(workload, endpoint.to_owned())) {
            let _ = writeln!(out, "| {workload} | {endpoint} | {why} | | | | | | | | |");
            return;
        }
        let cell = |of: fn(&Sample) -> f64, digits: usize| {
            let value = self.median(workload, endpoint, of);
            value.map_or_else(String::new, |value| format!("{value:.digits$}"))
        };
        let cells = [
            cell(|sample| sample.per_second, 0),
            self.ratio((workload, endpoint), (workload, first), |sample| {
                sample.per_second
            })
            .map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            cell(|sample| sample.p50_us, 0),
            cell(|sample| sample.p99_us, 0),
            cell(|sample| sample.proxy_us, 2),
            cell(|sample| sample.shards_us, 2),
            cell(|sample| sample.slowest, 2),
            cell(|sample| sample.sends, 3),
            cell(|sample| sample.batch, 1),
        ];
        if !cells[0].is_empty() {
            let _ = writeln!(out, "| {workload} | {endpoint} | {} |", cells.join(" | "));
        }
    }

    /// The single numbers.
    pub fn show_figures(&self) -> String {
        if self.figures.is_empty() {
            return String::new();
        }
        let mut out = String::from("\n| memory | | grows by |\n|---|---|---|\n");
        for (name, what, value) in &self.figures {
            let value = match value {
                Ok(value) => format!("{value:.1}"),
                Err(why) => why.clone(),
            };
            let _ = writeln!(out, "| {name} | {what} | {value} |");
        }
        out
    }
}

/// The middle one.
pub fn median(all: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = all.collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

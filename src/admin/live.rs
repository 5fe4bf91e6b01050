//! What the page at `/` shows: every second a row of figures, those of the last minutes kept, so
//! that whoever opens the page sees what has just been. Figures only: no keys, no clients.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::build;
use crate::config::Address;
use crate::metrics::Metrics;
use crate::readiness::Readiness;

/// Rows that are kept: two minutes.
const ROWS_MAX: usize = 120;

/// The page itself. It takes in nothing from elsewhere.
pub(super) const PAGE: &str = include_str!("page.html");

/// What the page may do: its own style and script, and asking where it comes from.
pub(super) const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; \
                                 script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; \
                                 form-action 'none'; frame-ancestors 'none'";

/// The figures of a row, without the name of the program in front.
const SHOWN: &[&str] = &[
    "start_time_seconds",
    "clients_connected",
    "buffered_bytes",
    "commands_total",
    "errors_total",
    "limits_hit_total",
    "transactions_total",
    "transaction_step_seconds_sum",
    "transaction_step_seconds_count",
    "transactions_in_doubt",
    "in_doubt_oldest_seconds",
    "recoveries_total",
    "consistency_ratio",
    "consistency_ratio_mean",
    "shard_up",
    "shard_inflight_requests",
    "shard_requests_total",
    "shard_latency_seconds_sum",
    "shard_latency_seconds_count",
    "shard_circuit_workers",
    "held_replies",
    "locks_held",
];

/// The rows of the last minutes.
#[derive(Debug)]
pub struct History {
    /// In the order of the shard map.
    shards: Vec<String>,
    rows: Mutex<Rows>,
}

#[derive(Debug, Default)]
struct Rows {
    /// Number of the row at the front.
    first: u64,
    rows: VecDeque<Value>,
}

impl History {
    /// With no rows yet, of a lockstep before these shards.
    pub fn new(shards: &[Address]) -> Self {
        Self {
            shards: shards.iter().map(ToString::to_string).collect(),
            rows: Mutex::default(),
        }
    }

    /// Adds a row. To be called every second.
    pub fn note(&self, metrics: &Metrics, readiness: &Readiness) {
        let row = row(&metrics.render(), readiness);
        let mut rows = self.locked();
        if rows.rows.len() == ROWS_MAX {
            rows.rows.pop_front();
            rows.first += 1;
        }
        rows.rows.push_back(row);
    }

    /// The rows from this number on, and the number of the one that comes next.
    pub(super) fn since(&self, number: u64) -> String {
        let rows = self.locked();
        let next = rows.first + rows.rows.len() as u64;
        // Whoever asks for what is yet to come has seen another process.
        let skipped = match number > next {
            true => 0,
            false => number.saturating_sub(rows.first),
        };
        let shown: Vec<&Value> = rows.rows.iter().skip(skipped as usize).collect();
        json!({
            "version": build::VERSION,
            "shards": self.shards,
            "next": next,
            "rows": shown,
        })
        .to_string()
    }

    fn locked(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn row(text: &str, readiness: &Readiness) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut figures = Map::new();
    for (name, labels, value) in text.lines().filter_map(sample) {
        if !SHOWN.contains(&name) {
            continue;
        }
        if labels.is_empty() {
            figures.insert(name.into(), json!(value));
        } else if let Some(by_label) = figures
            .entry(name)
            .or_insert_with(|| json!({}))
            .as_object_mut()
        {
            by_label.insert(labels, json!(value));
        }
    }
    let notes = [readiness.reasons(), readiness.notes()].concat();
    json!({
        "at": now.map_or(0.0, |now| now.as_secs_f64()),
        "ready": readiness.is_ready(),
        "notes": notes,
        "figures": figures,
    })
}

/// Name, values of the labels with spaces between them, and value, of a line of the text format.
fn sample(line: &str) -> Option<(&str, String, f64)> {
    let (series, value) = line.strip_prefix("lockstep_")?.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let labels: Vec<&str> = labels
        .trim_end_matches('}')
        .split("\",")
        .filter_map(|label| Some(label.split_once("=\"")?.1.trim_end_matches('"')))
        .collect();
    Some((name, labels.join(" "), value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart() {
        let with = "lockstep_transactions_total{scope=\"single\",outcome=\"committed\"} 3";
        let labels = "single committed".to_owned();
        assert_eq!(sample(with), Some(("transactions_total", labels, 3.0)));
        assert_eq!(
            sample("lockstep_ready 1"),
            Some(("ready", String::new(), 1.0))
        );
        assert_eq!(sample("# HELP lockstep_ready 1 while"), None);
    }

    #[test]
    fn every_figure_that_is_shown_is_exported() {
        let metrics = Metrics::new(&[Address::new("a", 1)]).unwrap();
        let row = row(&metrics.render(), &Readiness::new());
        for name in SHOWN {
            assert!(row["figures"].get(*name).is_some(), "{name}: {row}");
            assert!(PAGE.contains(name), "{name} is not on the page");
        }
        assert_eq!(row["figures"]["shard_up"]["a:1"], 0.0);
    }

    #[test]
    fn rows_are_bounded_and_given_once() {
        let (history, readiness) = (History::new(&[]), Readiness::new());
        let metrics = Metrics::new(&[Address::new("a", 1)]).unwrap();
        (0..ROWS_MAX + 5).for_each(|_| history.note(&metrics, &readiness));
        let told = |since| {
            let told: Value = serde_json::from_str(&history.since(since)).unwrap();
            (
                told["next"].as_u64().unwrap(),
                told["rows"].as_array().unwrap().len(),
            )
        };
        let next = ROWS_MAX as u64 + 5;
        assert_eq!(told(0), (next, ROWS_MAX));
        assert_eq!(told(next - 2), (next, 2));
        assert_eq!(told(next), (next, 0));
        assert_eq!(told(next + 9), (next, ROWS_MAX));
    }
}

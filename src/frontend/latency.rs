//! LATENCY HISTOGRAM: how long commands take from here, from the read that brought the command to
//! its reply, in the form in which Redis tells how long they keep its processor. LOCKSTEP LATENCY
//! adds how much of that a shard took.
//!
//! What a client queues counts as part of its EXEC; what is refused before it is sent anywhere
//! does not count. Of what takes several rounds to shards, the last one is the shard's part.
//!
//! Each worker has a table of its own, with room for every command that the shards know, and
//! adds to it without a lock: times are taken once for each read, never for a command. Counts
//! begin anew with CONFIG RESETSTAT.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::BytesMut;

use crate::keyspace::{CommandSpec, CommandTable};
use crate::resp::{Protocol, build};

/// Steps of a histogram: up to 1.024 us, up to twice that, and so on. The last, of half an hour,
/// takes what is above it.
const STEPS: usize = 32;

/// What one command has taken.
#[derive(Debug, Default)]
struct Histogram {
    steps: [AtomicU64; STEPS],
    nanos: AtomicU64,
    /// The part of it that was the shards'.
    at_shards: AtomicU64,
}

/// The histograms of one worker, by [`CommandSpec::id`].
#[derive(Debug)]
struct Table {
    histograms: Box<[OnceLock<Box<Histogram>>]>,
    /// Of [`Shared::generation`]: what is in here is of no other one.
    generation: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    /// Moved by whoever resets.
    generation: AtomicU64,
    tables: Box<[Table]>,
}

/// For all workers.
#[derive(Clone, Debug)]
pub struct Latencies(Arc<Shared>);

/// One worker's part of them.
#[derive(Debug)]
pub struct Stopwatch {
    all: Latencies,
    worker: usize,
    /// What was noted last, and how often; not yet put down.
    run: Cell<Run>,
    count: Cell<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    id: u32,
    since: Instant,
    now: Instant,
    asked: Option<Instant>,
}

/// The sum over all workers.
#[derive(Default)]
struct Sum {
    steps: [u64; STEPS],
    nanos: u64,
    at_shards: u64,
}

/// Adds; only the table's own worker does, so nothing comes in between.
fn add(to: &AtomicU64, more: u64) {
    to.store(
        to.load(Ordering::Relaxed).wrapping_add(more),
        Ordering::Relaxed,
    );
}

/// The step of a time.
fn step(nanos: u64) -> usize {
    let beyond = nanos.saturating_sub(1) >> 10;
    ((u64::BITS - beyond.leading_zeros()) as usize).min(STEPS - 1)
}

/// Microseconds up to which a step goes, as Redis writes it: its histograms keep two digits.
fn upto(step: usize) -> i64 {
    let nanos = 1_024_u64 << step;
    ((nanos + nanos / 128 - 1) / 1_000) as i64
}

fn nanos(time: Duration) -> u64 {
    let whole = time.as_secs().saturating_mul(1_000_000_000);
    whole.saturating_add(u64::from(time.subsec_nanos()))
}

impl Latencies {
    /// For so many workers, and commands with ids below `ids`.
    pub fn new(workers: usize, ids: usize) -> Self {
        let table = |_| Table {
            histograms: (0..ids).map(|_| OnceLock::new()).collect(),
            generation: AtomicU64::new(0),
        };
        Self(Arc::new(Shared {
            generation: AtomicU64::new(0),
            tables: (0..workers).map(table).collect(),
        }))
    }

    /// The part of the worker of this number.
    pub fn stopwatch(&self, worker: usize) -> Stopwatch {
        let now = Instant::now();
        let none = Run {
            id: u32::MAX,
            since: now,
            now,
            asked: None,
        };
        Stopwatch {
            all: self.clone(),
            worker,
            run: Cell::new(none),
            count: Cell::new(0),
        }
    }

    /// Forgets everything.
    pub fn reset(&self) {
        self.0.generation.fetch_add(1, Ordering::Relaxed);
    }

    fn sum(&self, id: usize) -> Option<Sum> {
        let generation = self.0.generation.load(Ordering::Relaxed);
        let tables = self.0.tables.iter();
        let current = tables.filter(|table| table.generation.load(Ordering::Acquire) == generation);
        let mut sum = Sum::default();
        for one in current.filter_map(|table| table.histograms.get(id)?.get()) {
            for (sum, step) in sum.steps.iter_mut().zip(&one.steps) {
                *sum += step.load(Ordering::Relaxed);
            }
            sum.nanos = sum.nanos.wrapping_add(one.nanos.load(Ordering::Relaxed));
            let at_shards = one.at_shards.load(Ordering::Relaxed);
            sum.at_shards = sum.at_shards.wrapping_add(at_shards);
        }
        (sum.calls() > 0).then_some(sum)
    }

    /// The reply to LATENCY HISTOGRAM: of these commands, or of all.
    pub fn show(&self, table: &CommandTable, names: &[&[u8]], protocol: Protocol) -> BytesMut {
        self.tell(table, names, protocol, Sum::show)
    }

    /// The reply to LOCKSTEP LATENCY.
    pub fn show_shares(
        &self,
        table: &CommandTable,
        names: &[&[u8]],
        protocol: Protocol,
    ) -> BytesMut {
        self.tell(table, names, protocol, Sum::show_shares)
    }

    fn tell(
        &self,
        table: &CommandTable,
        names: &[&[u8]],
        protocol: Protocol,
        write: impl Fn(&Sum, Protocol, &mut BytesMut),
    ) -> BytesMut {
        let named = |spec: &&CommandSpec| names.is_empty() || is_named(spec, names);
        let specs = table.all().into_iter().filter(named);
        let mut rows: Vec<(&str, Sum)> = specs
            .filter_map(|spec| Some((spec.name.as_str(), self.sum(spec.id)?)))
            .collect();
        // As asked for, else by name.
        let place = |name: &str| {
            let is = |wanted: &&[u8]| is_part_of(name, wanted);
            names.iter().position(is)
        };
        rows.sort_by_key(|(name, _)| (place(name), *name));
        let mut out = BytesMut::new();
        build::map_header(&mut out, protocol, rows.len());
        for (name, sum) in rows {
            build::bulk(&mut out, name);
            write(&sum, protocol, &mut out);
        }
        out
    }
}

fn is_named(spec: &CommandSpec, names: &[&[u8]]) -> bool {
    names.iter().any(|wanted| is_part_of(&spec.name, wanted))
}

/// Whether a command is this one, or a subcommand of it.
fn is_part_of(name: &str, wanted: &[u8]) -> bool {
    let container = name.split('|').next().unwrap_or_default();
    wanted.eq_ignore_ascii_case(name.as_bytes())
        || wanted.eq_ignore_ascii_case(container.as_bytes())
}

impl Sum {
    fn calls(&self) -> u64 {
        self.steps.iter().sum()
    }

    fn show(&self, protocol: Protocol, out: &mut BytesMut) {
        build::map_header(out, protocol, 2);
        build::bulk(out, "calls");
        build::int(out, self.calls() as i64);
        build::bulk(out, "histogram_usec");
        let used = self
            .steps
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0);
        build::map_header(out, protocol, used.clone().count());
        let mut so_far = 0;
        for (step, count) in used {
            so_far += count;
            build::int(out, upto(step));
            build::int(out, so_far as i64);
        }
    }

    fn show_shares(&self, protocol: Protocol, out: &mut BytesMut) {
        build::map_header(out, protocol, 3);
        let figures = [
            ("calls", self.calls()),
            ("usec", self.nanos / 1_000),
            ("shard_usec", self.at_shards / 1_000),
        ];
        for (name, figure) in figures {
            build::bulk(out, name);
            build::int(out, figure as i64);
        }
    }
}

impl Stopwatch {
    /// A command of this id, read then, has its reply now; to a request that was sent to a shard
    /// at that time, if it was. What a client has sent at once and is answered at once is mostly
    /// of one kind: it is put down together.
    #[inline]
    pub fn note(&self, id: u32, since: Instant, now: Instant, asked: Option<Instant>) {
        let run = self.run.get();
        if run.id == id && run.since == since && run.now == now {
            self.count.set(self.count.get() + 1);
            return;
        }
        self.put_down();
        let run = Run {
            id,
            since,
            now,
            asked,
        };
        self.run.set(run);
        self.count.set(1);
    }

    /// Puts down what was noted last, so that it shows.
    pub fn put_down(&self) {
        let (run, count) = (self.run.get(), self.count.take());
        let shared = &*self.all.0;
        let Some(table) = shared.tables.get(self.worker).filter(|_| count > 0) else {
            return;
        };
        let generation = shared.generation.load(Ordering::Relaxed);
        if table.generation.load(Ordering::Relaxed) != generation {
            table.begin(generation);
        }
        let Some(place) = table.histograms.get(run.id as usize) else {
            return;
        };
        let time = |from| nanos(run.now.saturating_duration_since(from));
        let (taken, histogram) = (time(run.since), place.get_or_init(Box::default));
        let at_shard = run.asked.map_or(0, time).min(taken);
        add(&histogram.steps[step(taken)], count);
        add(&histogram.nanos, taken.saturating_mul(count));
        add(&histogram.at_shards, at_shard.saturating_mul(count));
    }
}

impl Table {
    #[cold]
    fn begin(&self, generation: u64) {
        for histogram in self.histograms.iter().filter_map(OnceLock::get) {
            let steps = histogram.steps.iter();
            for cell in steps.chain([&histogram.nanos, &histogram.at_shards]) {
                cell.store(0, Ordering::Relaxed);
            }
        }
        self.generation.store(generation, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_those_of_redis() {
        let shown: Vec<i64> = (0..12).map(upto).collect();
        let redis = [1, 2, 4, 8, 16, 33, 66, 132, 264, 528, 1_056, 2_113];
        assert_eq!(shown, redis);
        assert_eq!((step(0), step(1_024), step(1_025)), (0, 0, 1));
        assert_eq!((step(2_048), step(2_049)), (1, 2));
        assert_eq!(step(u64::MAX), STEPS - 1);
    }

    #[test]
    fn counts_of_all_workers_are_added_and_begin_anew() {
        let all = Latencies::new(2, 3);
        let (one, other) = (all.stopwatch(0), all.stopwatch(1));
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        one.note(1, at(0), at(2), Some(at(1)));
        one.note(1, at(0), at(2), Some(at(1)));
        other.note(1, begin, at(4), Some(begin));
        other.note(9, begin, at(1), None);
        one.put_down();
        other.put_down();
        let sum = all.sum(1).unwrap_or_default();
        assert_eq!(
            (sum.calls(), sum.nanos, sum.at_shards),
            (3, 8_000_000, 6_000_000)
        );
        all.reset();
        assert!(all.sum(1).is_none());
        one.note(2, begin, at(1), None);
        one.put_down();
        assert!(all.sum(1).is_none() && all.sum(2).is_some());
    }
}

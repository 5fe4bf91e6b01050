//! What is measured. All names, helps, labels and buckets are in [`names`], the closed sets of
//! label values in [`labels`]; everything else holds handles made once, by [`Metrics::new`].
//!
//! There is no global recorder: every `Metrics` counts for itself, so that tests can have
//! several. A handle is an atomic number; count per batch where commands are many. A histogram
//! keeps every sample until [`Metrics::upkeep`] runs, so something must run it regularly.

pub mod labels;
pub mod names;
mod portion;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{Counter, Gauge, Histogram, Key, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

pub use labels::{
    ArmedEnd, CircuitState, Denial, ErrorKind, Family, GuardedWay, Label, Limit, Outcome, Per,
    Recovery, Rejection, Reload, Scope, SpanEnd, Step, WaitEnd,
};
use names::{Definition, Type};
pub use portion::Portion;

use crate::config::Address;

/// How often [`Metrics::upkeep`] should run.
pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

/// All handles. Shared by `Arc`.
#[derive(Debug)]
pub struct Metrics {
    /// 1 while ready, else 0.
    pub ready: Gauge,
    /// Times the settings were read again.
    pub config_reloads: Per<Reload, Counter>,
    /// 1 if the settings in the file are those that count, else 0.
    pub config_reload_succeeded: Gauge,
    /// When that was last so, in seconds since the Unix epoch.
    pub config_loaded_at: Gauge,
    /// Clients connected now.
    pub clients_connected: Gauge,
    /// Connections of clients accepted.
    pub clients_accepted: Counter,
    /// Connections of clients refused.
    pub clients_rejected: Per<Rejection, Counter>,
    /// What clients were denied.
    pub denials: Per<Denial, Counter>,
    /// Bytes received from clients.
    pub client_received_bytes: Counter,
    /// Bytes sent to clients.
    pub client_sent_bytes: Counter,
    /// Writes to clients' connections.
    pub client_writes: Counter,
    /// Commands taken from clients.
    pub commands: Per<Family, Counter>,
    /// Errors of our own given to clients.
    pub errors: Per<ErrorKind, Counter>,
    /// Bytes that wait, over all workers.
    pub buffered_bytes: Gauge,
    /// Commands that took longer than `slowlog-slower-than-ms`.
    pub slow_commands: Counter,
    /// Spans by what became of them.
    pub spans: Per<SpanEnd, Counter>,
    /// Limits hit.
    pub limits_hit: Arc<Per<Limit, Counter>>,
    /// Per shard, in the order of the shard map.
    pub shards: Vec<ShardMetrics>,
    /// Subscriptions of clients.
    pub subscriptions: Gauge,
    /// Messages given to clients.
    pub messages: Counter,
    /// Transactions finished: `transactions[scope][outcome]`.
    pub transactions: Per<Scope, Per<Outcome, Counter>>,
    /// Duration of the steps of distributed transactions, in seconds.
    pub step: Per<Step, Histogram>,
    /// Participants of a distributed transaction.
    pub participants: Histogram,
    /// Distributed transactions that shared one two-phase commit.
    pub group_members: Histogram,
    /// Attempts a distributed transaction needed.
    pub attempts: Histogram,
    /// Waits for keys held by others, in seconds.
    pub lock_wait: Histogram,
    /// Recoveries, by what they did.
    pub recoveries: Per<Recovery, Counter>,
    /// Transactions known to be past their deadline and not settled.
    pub in_doubt: Gauge,
    /// Age of the oldest of them, in seconds.
    pub in_doubt_oldest: Gauge,
    /// Mean of the shards' [`ShardMetrics::consistency`].
    pub consistency_mean: Gauge,
    handle: PrometheusHandle,
}

/// Handles of one shard. Several workers share its gauges: each publishes a [`Portion`].
#[derive(Clone, Debug)]
pub struct ShardMetrics {
    /// 1 while the shard answers, else 0.
    pub up: Gauge,
    /// Workers by where their circuit breaker stands.
    pub circuit: Arc<Per<CircuitState, Gauge>>,
    /// Connections that came about.
    pub connects: Counter,
    /// Attempts to connect that failed.
    pub connect_failures: Counter,
    /// Connections lost.
    pub disconnects: Counter,
    /// Requests not answered yet.
    pub inflight: Gauge,
    /// Bytes that wait to be written.
    pub queue_bytes: Gauge,
    /// Requests sent.
    pub requests: Counter,
    /// Writes to its connections.
    pub writes: Counter,
    /// Bytes sent.
    pub sent_bytes: Counter,
    /// Bytes received.
    pub received_bytes: Counter,
    /// Requests per write.
    pub batch: Histogram,
    /// From a write to the first reply to it, in seconds.
    pub latency: Histogram,
    /// Connections set apart for transactions and blocking commands.
    pub pinned: PoolMetrics,
    /// Those set apart for clients that watch keys.
    pub watch: PoolMetrics,
    /// Channels and patterns that it is asked for.
    pub subscriptions: Gauge,
    /// Connections with subscriptions that were lost.
    pub interruptions: Counter,
    /// Replies held since a transaction that has their key is settling.
    pub held: Gauge,
    /// EXECs on the armed connection.
    pub armed_execs: Counter,
    /// Those that something that settles has broken.
    pub armed_broken: Counter,
    /// What was to run there, by its end.
    pub armed_runs: Arc<Per<ArmedEnd, Counter>>,
    /// What touches several slots, by the way it took.
    pub guarded_runs: Arc<Per<GuardedWay, Counter>>,
    /// Prepares refused since another transaction held a key.
    pub lock_conflicts: Counter,
    /// Waits for other transactions, by what ended them.
    pub lock_waits: Arc<Per<WaitEnd, Counter>>,
    /// Applies sent again.
    pub apply_retries: Counter,
    /// Share of the transactions in its index that stand as they should.
    pub consistency: Gauge,
    /// Entries in its index.
    pub locks_held: Gauge,
    /// Limits hit, the same for all shards.
    pub limits_hit: Arc<Per<Limit, Counter>>,
}

/// Handles of connections that are set apart for one user at a time.
#[derive(Clone, Debug)]
pub struct PoolMetrics {
    /// Connections used by somebody.
    pub in_use: Gauge,
    /// Connections that are free.
    pub idle: Gauge,
    /// Waits for a connection.
    pub waits: Counter,
    /// Length of those waits, in seconds.
    pub wait: Histogram,
}

impl Metrics {
    /// Makes all handles.
    ///
    /// # Errors
    ///
    /// If the table of names is wrong (a histogram without buckets).
    pub fn new(shards: &[Address]) -> Result<Self, BuildError> {
        let maker = Maker::new()?;
        maker.build_info();
        let limits_hit = Per::new(|l| maker.counter(&names::LIMITS_HIT, &[text(l)]));
        let limits_hit = Arc::new(limits_hit);
        let shard = |address| maker.shard(address, &limits_hit);
        Ok(Self {
            ready: maker.gauge(&names::READY, &[]),
            config_reloads: Per::new(|l| maker.counter(&names::CONFIG_RELOADS, &[text(l)])),
            config_reload_succeeded: maker.gauge(&names::CONFIG_SUCCEEDED, &[]),
            config_loaded_at: maker.gauge(&names::CONFIG_LOADED_AT, &[]),
            clients_connected: maker.gauge(&names::CLIENTS_CONNECTED, &[]),
            clients_accepted: maker.counter(&names::CLIENTS_ACCEPTED, &[]),
            clients_rejected: Per::new(|l| maker.counter(&names::CLIENTS_REJECTED, &[text(l)])),
            denials: Per::new(|l| maker.counter(&names::DENIALS, &[text(l)])),
            client_received_bytes: maker.counter(&names::CLIENT_RECEIVED, &[]),
            client_sent_bytes: maker.counter(&names::CLIENT_SENT, &[]),
            client_writes: maker.counter(&names::CLIENT_WRITES, &[]),
            commands: Per::new(|l| maker.counter(&names::COMMANDS, &[text(l)])),
            errors: Per::new(|l| maker.counter(&names::ERRORS, &[text(l)])),
            shards: shards.iter().map(shard).collect(),
            limits_hit,
            slow_commands: maker.counter(&names::SLOW_COMMANDS, &[]),
            spans: Per::new(|l| maker.counter(&names::SPANS, &[text(l)])),
            buffered_bytes: maker.gauge(&names::BUFFERED, &[]),
            subscriptions: maker.gauge(&names::SUBSCRIPTIONS, &[]),
            messages: maker.counter(&names::MESSAGES, &[]),
            transactions: Per::new(|scope| {
                Per::new(|l| maker.counter(&names::TRANSACTIONS, &[text(scope), text(l)]))
            }),
            step: Per::new(|l| maker.histogram(&names::STEP, &[text(l)])),
            participants: maker.histogram(&names::PARTICIPANTS_COUNT, &[]),
            group_members: maker.histogram(&names::GROUP_MEMBERS, &[]),
            attempts: maker.histogram(&names::ATTEMPTS_COUNT, &[]),
            lock_wait: maker.histogram(&names::LOCK_WAIT, &[]),
            recoveries: Per::new(|l| maker.counter(&names::RECOVERIES, &[text(l)])),
            in_doubt: maker.gauge(&names::IN_DOUBT, &[]),
            in_doubt_oldest: maker.gauge(&names::IN_DOUBT_OLDEST, &[]),
            consistency_mean: maker.gauge(&names::CONSISTENCY_MEAN, &[]),
            handle: maker.recorder.handle(),
        })
    }

    /// Everything in the text format of Prometheus.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Sorts the samples of histograms into their buckets, which frees them. To be run every
    /// [`UPKEEP_INTERVAL`].
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

fn text<L: Label>(value: L) -> String {
    value.text().to_owned()
}

/// Makes handles from definitions.
struct Maker {
    recorder: PrometheusRecorder,
}

impl Maker {
    fn new() -> Result<Self, BuildError> {
        let mut builder = PrometheusBuilder::new();
        for metric in names::ALL {
            if let Type::Histogram(buckets) = metric.kind {
                let name = Matcher::Full(metric.name.to_owned());
                builder = builder.set_buckets_for_metric(name, buckets)?;
            }
        }
        let recorder = builder.build_recorder();
        for metric in names::ALL {
            describe(&recorder, metric);
        }
        Ok(Self { recorder })
    }

    fn build_info(&self) {
        let build = [
            crate::build::VERSION,
            crate::build::COMMIT,
            crate::build::RUSTC,
        ];
        let labels = build.map(str::to_owned);
        self.gauge(&names::BUILD_INFO, &labels).set(1.0);
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let start = since_epoch.map_or(0.0, |d| d.as_secs_f64());
        self.gauge(&names::START_TIME, &[]).set(start);
    }

    fn shard(&self, address: &Address, limits_hit: &Arc<Per<Limit, Counter>>) -> ShardMetrics {
        let label = [address.to_string()];
        let counter = |metric| self.counter(metric, &label);
        let gauge = |metric| self.gauge(metric, &label);
        let histogram = |metric| self.histogram(metric, &label);
        ShardMetrics {
            up: gauge(&names::SHARD_UP),
            circuit: Arc::new(Per::new(|state| {
                self.gauge(&names::SHARD_CIRCUIT, &[address.to_string(), text(state)])
            })),
            connects: counter(&names::SHARD_CONNECTS),
            connect_failures: counter(&names::SHARD_CONNECT_FAILURES),
            disconnects: counter(&names::SHARD_DISCONNECTS),
            inflight: gauge(&names::SHARD_INFLIGHT),
            queue_bytes: gauge(&names::SHARD_QUEUE),
            requests: counter(&names::SHARD_REQUESTS),
            writes: counter(&names::SHARD_WRITES),
            sent_bytes: counter(&names::SHARD_SENT),
            received_bytes: counter(&names::SHARD_RECEIVED),
            batch: histogram(&names::SHARD_BATCH),
            latency: histogram(&names::SHARD_LATENCY),
            pinned: PoolMetrics {
                in_use: gauge(&names::PINNED_IN_USE),
                idle: gauge(&names::PINNED_IDLE),
                waits: counter(&names::PINNED_WAITS),
                wait: histogram(&names::PINNED_WAIT),
            },
            watch: PoolMetrics {
                in_use: gauge(&names::WATCH_IN_USE),
                idle: gauge(&names::WATCH_IDLE),
                waits: counter(&names::WATCH_WAITS),
                wait: histogram(&names::WATCH_WAIT),
            },
            subscriptions: gauge(&names::SHARD_SUBSCRIPTIONS),
            interruptions: counter(&names::INTERRUPTIONS),
            held: gauge(&names::HELD_REPLIES),
            armed_execs: counter(&names::ARMED_EXECS),
            armed_broken: counter(&names::ARMED_BROKEN),
            armed_runs: Arc::new(Per::new(|end| {
                self.counter(&names::ARMED_RUNS, &[address.to_string(), text(end)])
            })),
            guarded_runs: Arc::new(Per::new(|way| {
                self.counter(&names::GUARDED_RUNS, &[address.to_string(), text(way)])
            })),
            lock_conflicts: counter(&names::LOCK_CONFLICTS),
            lock_waits: Arc::new(Per::new(|end| {
                self.counter(&names::LOCK_WAITS, &[address.to_string(), text(end)])
            })),
            apply_retries: counter(&names::APPLY_RETRIES),
            consistency: gauge(&names::CONSISTENCY),
            locks_held: gauge(&names::LOCKS_HELD),
            limits_hit: Arc::clone(limits_hit),
        }
    }

    fn counter(&self, metric: &'static Definition, labels: &[String]) -> Counter {
        self.recorder
            .register_counter(&key(metric, labels), &METADATA)
    }

    fn gauge(&self, metric: &'static Definition, labels: &[String]) -> Gauge {
        self.recorder
            .register_gauge(&key(metric, labels), &METADATA)
    }

    fn histogram(&self, metric: &'static Definition, labels: &[String]) -> Histogram {
        self.recorder
            .register_histogram(&key(metric, labels), &METADATA)
    }
}

static METADATA: Metadata<'static> = Metadata::new("lockstep", Level::INFO, None);

fn key(metric: &'static Definition, values: &[String]) -> Key {
    debug_assert_eq!(metric.labels.len(), values.len(), "{}", metric.name);
    let pairs = metric.labels.iter().zip(values);
    let labels: Vec<_> = pairs
        .map(|(name, value)| metrics::Label::new(*name, value.clone()))
        .collect();
    Key::from_parts(metric.name, labels)
}

fn describe(recorder: &PrometheusRecorder, metric: &Definition) {
    let (name, help) = (metric.name.into(), metric.help.into());
    match metric.kind {
        Type::Counter => recorder.describe_counter(name, None, help),
        Type::Gauge => recorder.describe_gauge(name, None, help),
        Type::Histogram(_) => recorder.describe_histogram(name, None, help),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        Metrics::new(&[Address::new("10.0.0.1", 6379), Address::new("b", 1)]).unwrap()
    }

    #[test]
    fn every_name_is_exported_with_help_from_the_start() {
        let text = metrics().render();
        for metric in names::ALL {
            assert!(
                text.contains(&format!("# HELP {} ", metric.name)),
                "{}",
                metric.name
            );
            let kind = match metric.kind {
                Type::Counter => "counter",
                Type::Gauge => "gauge",
                Type::Histogram(_) => "histogram",
            };
            let line = format!("# TYPE {} {kind}\n", metric.name);
            assert!(text.contains(&line), "{}", metric.name);
        }
        let ours = |line: &&str| line.starts_with("# TYPE ");
        assert_eq!(text.lines().filter(ours).count(), names::ALL.len());
    }

    #[test]
    fn handles_count_for_themselves() {
        let (one, other) = (metrics(), metrics());
        one.commands[Family::Split].increment(3);
        one.transactions[Scope::Distributed][Outcome::WatchBroken].increment(2);
        one.shards[1].latency.record(0.0003);
        one.upkeep();
        let text = one.render();
        for line in [
            "lockstep_commands_total{family=\"split\"} 3",
            "lockstep_commands_total{family=\"read\"} 0",
            "lockstep_transactions_total{scope=\"distributed\",outcome=\"watch_broken\"} 2",
            "lockstep_shard_latency_seconds_bucket{shard=\"b:1\",le=\"0.0005\"} 1",
            "lockstep_shard_latency_seconds_bucket{shard=\"b:1\",le=\"0.00025\"} 0",
            "lockstep_shard_latency_seconds_count{shard=\"10.0.0.1:6379\"} 0",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(
            other
                .render()
                .contains("lockstep_commands_total{family=\"split\"} 0")
        );
    }
}

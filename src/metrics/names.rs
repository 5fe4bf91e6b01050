//! Every metric that is exported: name, type, label names, buckets, help.

/// What a metric is, with the bounds of its buckets if it has any.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Type {
    /// Only grows; the name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Distribution over these upper bounds.
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Debug)]
pub struct Definition {
    /// Full name, with the unit last.
    pub name: &'static str,
    /// Its type.
    pub kind: Type,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// One sentence for people.
    pub help: &'static str,
}

/// 50 microseconds to 10 seconds.
const LATENCY: &[f64] = &[
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
    2.5, 5.0, 10.0,
];
const PARTICIPANTS: &[f64] = &[1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0, 64.0];
const ATTEMPTS: &[f64] = &[1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0, 34.0, 89.0];
const BATCH: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0];

macro_rules! metrics {
    ($($id:ident = $name:literal $kind:expr, [$($label:literal),*], $help:literal;)*) => {
        $(pub(super) static $id: Definition = Definition {
            name: concat!("lockstep_", $name),
            kind: $kind,
            labels: &[$($label),*],
            help: $help,
        };)*

        /// All metrics, in the order of the source.
        pub static ALL: &[&Definition] = &[$(&$id,)*];
    };
}

use Type::{Counter, Gauge, Histogram};

metrics! {
    BUILD_INFO = "build_info" Gauge, ["version", "commit", "rustc"],
        "Always 1; the labels say what runs.";
    START_TIME = "start_time_seconds" Gauge, [],
        "When the process started, in seconds since the Unix epoch.";
    READY = "ready" Gauge, [],
        "1 while /readyz says so, else 0.";
    CONFIG_RELOADS = "config_reloads_total" Counter, ["result"],
        "How often the settings were read again, on SIGHUP or since a file had changed. invalid and refused: nothing has changed, the log says why.";
    CONFIG_SUCCEEDED = "config_last_reload_successful" Gauge, [],
        "1 if the settings that were read last are those that count, else 0.";
    CONFIG_LOADED_AT = "config_last_success_timestamp_seconds" Gauge, [],
        "When the settings were last read without a mistake, in seconds since the Unix epoch.";

    CLIENTS_CONNECTED = "clients_connected" Gauge, [],
        "Clients connected now.";
    CLIENTS_ACCEPTED = "clients_accepted_total" Counter, [],
        "Connections of clients accepted.";
    CLIENTS_REJECTED = "clients_rejected_total" Counter, ["reason"],
        "Connections of clients refused.";
    DENIALS = "access_denied_total" Counter, ["reason"],
        "What clients were denied: a wrong password, a command before AUTH, or what their user may not do.";
    CLIENT_RECEIVED = "client_received_bytes_total" Counter, [],
        "Bytes received from clients.";
    CLIENT_SENT = "client_sent_bytes_total" Counter, [],
        "Bytes sent to clients.";
    CLIENT_WRITES = "client_writes_total" Counter, [],
        "Writes to clients' connections.";
    COMMANDS = "commands_total" Counter, ["family"],
        "Commands taken from clients, by what is done with them.";
    ERRORS = "errors_total" Counter, ["kind"],
        "Errors that lockstep itself gave to clients; those of shards are passed on and not counted. shard_down: nothing was sent; reply_lost: maybe executed; aborted: an EXEC of which nothing was applied; outcome_unknown and replies_lost: an EXEC that may be, and that is committed.";
    LIMITS_HIT = "limits_hit_total" Counter, ["limit"],
        "How often a limit of the configuration was hit; client_inflight and client_output pause reading from the client, client_output many times over disconnects it. circuit: requests refused since a shard does not answer.";

    SLOW_COMMANDS = "slow_commands_total" Counter, [],
        "Commands and transactions that took slowlog-slower-than-ms or longer; LOCKSTEP SLOWLOG GET shows them.";
    BUFFERED = "buffered_bytes" Gauge, [],
        "Bytes that wait in this process: input of clients, queues of MULTI, replies, and what is not yet written to shards; what memory-bytes-max limits.";

    SPANS = "spans_total" Counter, ["result"],
        "Spans of traced commands and transactions, by what became of them: exported to trace-collector, or dropped since too many waited (queue_full) or since the collector did not take them (export_failed).";

    SHARD_UP = "shard_up" Gauge, ["shard"],
        "1 while every worker has a connection to the shard, else 0.";
    SHARD_CIRCUIT = "shard_circuit_workers" Gauge, ["shard", "state"],
        "Workers whose circuit breaker for the shard is closed (requests are sent), open (refused at once), or half open (refused, while one attempt is under way).";
    SHARD_CONNECTS = "shard_connects_total" Counter, ["shard"],
        "Connections to the shard that came about.";
    SHARD_CONNECT_FAILURES = "shard_connect_failures_total" Counter, ["shard"],
        "Attempts to connect to the shard that failed.";
    SHARD_DISCONNECTS = "shard_disconnects_total" Counter, ["shard"],
        "Connections to the shard that were lost.";
    SHARD_INFLIGHT = "shard_inflight_requests" Gauge, ["shard"],
        "Requests to the shard that are not answered yet, over all workers, ten times a second.";
    SHARD_QUEUE = "shard_queue_bytes" Gauge, ["shard"],
        "Bytes that wait to be written to the shard, over all workers, ten times a second.";
    SHARD_REQUESTS = "shard_requests_total" Counter, ["shard"],
        "Requests sent to the shard.";
    SHARD_WRITES = "shard_writes_total" Counter, ["shard"],
        "Writes to the shard's connections; requests by writes is the mean batch.";
    SHARD_SENT = "shard_sent_bytes_total" Counter, ["shard"],
        "Bytes sent to the shard over the connections that all clients share.";
    SHARD_RECEIVED = "shard_received_bytes_total" Counter, ["shard"],
        "Bytes received from the shard over the connections that all clients share.";
    SHARD_BATCH = "shard_batch_requests" Histogram(BATCH), ["shard"],
        "Requests in one write to the shard.";
    SHARD_LATENCY = "shard_latency_seconds" Histogram(LATENCY), ["shard"],
        "Time from a write to the shard to the reply of its first request; one sample per batch.";
    PINNED_IN_USE = "pinned_connections_in_use" Gauge, ["shard"],
        "Connections set apart for transactions and blocking commands, and used by one now.";
    PINNED_IDLE = "pinned_connections_idle" Gauge, ["shard"],
        "Connections set apart for transactions and blocking commands, and free.";
    PINNED_WAITS = "pinned_waits_total" Counter, ["shard"],
        "How often a transaction or a blocking command had to wait for such a connection.";
    PINNED_WAIT = "pinned_wait_seconds" Histogram(LATENCY), ["shard"],
        "How long those waits took, those in vain included.";
    WATCH_IN_USE = "watch_connections_in_use" Gauge, ["shard"],
        "Connections set apart for clients that WATCH keys, and held by one now.";
    WATCH_IDLE = "watch_connections_idle" Gauge, ["shard"],
        "Connections set apart for clients that WATCH keys, and free.";
    WATCH_WAITS = "watch_waits_total" Counter, ["shard"],
        "How often a WATCH had to wait for such a connection.";
    WATCH_WAIT = "watch_wait_seconds" Histogram(LATENCY), ["shard"],
        "How long those waits took, those in vain included.";
    GUARDED_RUNS = "guarded_runs_total" Counter, ["shard", "way"],
        "Commands and transactions over several slots of one shard, by how they were kept apart from transactions over several shards: on the armed connection, by a script when the shard was busy with those, or behind locks.";
    ARMED_EXECS = "armed_execs_total" Counter, ["shard"],
        "EXECs sent on the armed connection, for what touches several slots of the shard; runs by EXECs is how many share one.";
    ARMED_BROKEN = "armed_broken_total" Counter, ["shard"],
        "Those in vain, since a transaction over several shards began to settle meanwhile.";
    ARMED_RUNS = "armed_runs_total" Counter, ["shard", "result"],
        "Commands and transactions over several slots of one shard, by what became of them on the armed connection. kept_out: the shard was busy with transactions over several shards, so it took another way.";

    SUBSCRIPTIONS = "subscriptions" Gauge, [],
        "Subscriptions of clients to channels and patterns.";
    SHARD_SUBSCRIPTIONS = "shard_subscriptions" Gauge, ["shard"],
        "Channels and patterns that the shard is asked for, by each worker once.";
    MESSAGES = "messages_total" Counter, [],
        "Messages of channels given to clients.";
    INTERRUPTIONS = "subscription_interruptions_total" Counter, ["shard"],
        "How often a connection with subscriptions was lost: what was published until they were renewed is lost to their clients.";

    TRANSACTIONS = "transactions_total" Counter, ["scope", "outcome"],
        "Transactions finished (EXEC, and split writes as distributed ones), as the client was told.";
    STEP = "transaction_step_seconds" Histogram(LATENCY), ["step"],
        "Duration of the steps of distributed transactions.";
    PARTICIPANTS_COUNT = "transaction_participants" Histogram(PARTICIPANTS), [],
        "Shards that took part in a distributed transaction.";
    GROUP_MEMBERS = "transaction_group_members" Histogram(PARTICIPANTS), [],
        "Distributed transactions that shared one two-phase commit.";
    ATTEMPTS_COUNT = "transaction_attempts" Histogram(ATTEMPTS), [],
        "Attempts (ids) that a distributed transaction needed.";
    HELD_REPLIES = "held_replies" Gauge, ["shard"],
        "Replies held since a transaction that has their key is settling.";
    LOCK_CONFLICTS = "lock_conflicts_total" Counter, ["shard"],
        "Prepares refused since another transaction held a key.";
    LOCK_WAITS = "lock_waits_total" Counter, ["shard", "end"],
        "Waits for a transaction of another process to end, by what ended them: its announcement, or the time to look again.";
    LOCK_WAIT = "lock_wait_seconds" Histogram(LATENCY), [],
        "Time that distributed transactions waited for keys held by others: from EXEC to the begin of the last attempt. Next to nothing where nobody was in the way.";
    APPLY_RETRIES = "apply_retries_total" Counter, ["shard"],
        "Applies sent again since the shard refused or did not answer.";
    RECOVERIES = "recoveries_total" Counter, ["action"],
        "Transactions of others, or left in doubt, that this process settled, by what it did.";
    IN_DOUBT = "transactions_in_doubt" Gauge, [],
        "Transactions that this process knows to be past their deadline and not settled.";
    IN_DOUBT_OLDEST = "in_doubt_oldest_seconds" Gauge, [],
        "Age of the oldest of them since its prepare; 0 when there is none.";
    CONSISTENCY = "consistency_ratio" Gauge, ["shard"],
        "Share of the transactions in the shard's index that stand as they should by now; 0 when it gives no answer.";
    CONSISTENCY_MEAN = "consistency_ratio_mean" Gauge, [],
        "Mean of that over all shards: 1 when nothing is in doubt or left over.";
    LOCKS_HELD = "locks_held" Gauge, ["shard"],
        "Keys or slots that transactions hold on the shard, as last looked.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        for (i, metric) in ALL.iter().enumerate() {
            let name = metric.name;
            assert!(!ALL[..i].iter().any(|m| m.name == name), "{name} twice");
            let total = name.ends_with("_total");
            assert_eq!(total, metric.kind == Type::Counter, "{name}");
            assert!(metric.help.ends_with('.'), "{name}");
            if let Type::Histogram(buckets) = metric.kind {
                assert!(buckets.is_sorted(), "{name}");
            }
            if name.contains("bytes") && total {
                assert!(name.ends_with("_bytes_total"), "{name}");
            }
        }
    }
}

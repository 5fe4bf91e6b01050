//! Settings: one table ([`SETTINGS`]) from which come the flags, the environment variables, the
//! keys of the TOML file, `--help`, the README's table and all checks.
//!
//! [`load()`] merges the sources (flag over environment over file over default) into a plain
//! [`Config`], and reports every mistake in all of them at once.

mod address;
mod cli;
mod file;
mod guards;
mod live;
mod load;
mod problem;
mod rules;
mod setting;
mod shown;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use sha2::{Digest, Sha256};

pub use address::Address;
pub use cli::{flags_given, with_flags, with_shard_flags};
pub use file::read_bounded;
pub use live::{Change, Changes};
pub use load::{Loaded, Sources, check_file, load};
pub use problem::{Origin, Problem, Problems};
pub use setting::{Group, Kind, Setting};
pub use shown::markdown_table;
pub use table::SETTINGS;

/// Everything that can be set, validated. `Config::default()` holds the defaults (and no shards).
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where clients connect; port 0 lets the system choose.
    pub listen: Address,
    /// The shards, in the order that decides which slots each one holds. Not empty when serving.
    pub shards: Vec<Address>,
    /// Where TLS clients connect, if at all.
    pub tls_listen: Option<Address>,
    /// Path of the socket where clients on this machine connect, if there is one.
    pub listen_unix: Option<String>,
    /// Whether other processes may listen on the same ports.
    pub reuse_port: bool,
    /// Whether TCP clients come with a header that tells their address.
    pub proxy_protocol: bool,
    /// Where the metrics and health endpoint listens, if at all.
    pub metrics_listen: Option<Address>,

    /// The certificate that TLS clients are shown (PEM), and those that vouch for it.
    pub tls_cert_file: Option<String>,
    /// Its key (PEM).
    pub tls_key_file: Option<String>,
    /// Who vouches for certificates of clients (PEM); None: clients are not asked for any.
    pub tls_client_ca_file: Option<String>,
    /// Whether clients without a certificate are served all the same.
    pub tls_client_optional: bool,
    /// Who vouches for certificates of shards (PEM); None: no TLS towards the shards.
    pub shard_tls_ca_file: Option<String>,
    /// The certificate shown to shards that ask for one (PEM).
    pub shard_tls_cert_file: Option<String>,
    /// Its key (PEM).
    pub shard_tls_key_file: Option<String>,
    /// The name that shards' certificates must bear, if not that of the address.
    pub shard_tls_name: Option<String>,

    /// Worker threads, each with a runtime and shard connections of its own; 0: one per core.
    pub workers: usize,
    /// Whether to serve before every shard has answered.
    pub start_without_shards: bool,
    /// Longest time between the signal to stop and the exit.
    pub drain_timeout: Duration,
    /// Least severe level that is logged.
    pub log_level: LogLevel,
    /// How log lines are written.
    pub log_format: LogFormat,

    /// SHA-256 of the default user's password; None: there is none.
    pub password: Option<[u8; 32]>,
    /// The file of users; None: there is the default user alone.
    pub acl_file: Option<String>,
    /// Whether scripts may be run by users who may not do everything.
    pub acl_trust_scripts: bool,

    /// Commands that no client may run, in lower case, subcommands as `config|set`.
    pub deny_commands: BTreeSet<String>,
    /// Commands that one client may give in a second; 0: any number.
    pub client_commands_per_second_max: usize,
    /// Bytes that may wait in all; 0: no limit.
    pub memory_bytes_max: usize,
    /// Commands that take so long are kept for LOCKSTEP SLOWLOG; zero: none.
    pub slowlog_slower_than: Duration,
    /// How many of them.
    pub slowlog_max_len: usize,
    /// One command in so many is looked at for LOCKSTEP HOTKEYS; 0: none.
    pub hotkeys_sample: usize,

    /// Where traces are sent, if anywhere.
    pub trace_collector: Option<Address>,
    /// One command in so many is traced without being asked for it; 0: none.
    pub trace_sample: usize,

    /// Greatest number of clients connected at once; more are refused with an error.
    pub clients_max: usize,
    /// Greatest number of commands of one client that wait for replies; at this many nothing
    /// more is read from it.
    pub client_inflight_max: usize,
    /// Greatest number of bytes kept of one client's input, the queue of its MULTI included.
    pub client_input_bytes_max: usize,
    /// Bytes of replies that may wait for a client to take them; above this nothing more is
    /// read from it.
    pub client_output_bytes_max: usize,
    /// Bytes of messages that may wait for a subscriber to take them; one that lets more pile up
    /// is disconnected.
    pub pubsub_output_bytes_max: usize,
    /// The same, for a subscriber that stays above it longer than `pubsub_output_soft_time`.
    pub pubsub_output_soft_bytes: usize,
    /// How long a subscriber may stay above `pubsub_output_soft_bytes`.
    pub pubsub_output_soft_time: Duration,
    /// Channels and patterns that one client may be subscribed to.
    pub client_subscriptions_max: usize,
    /// Bytes of scripts that are remembered, so that EVALSHA works where a shard lost them.
    pub script_cache_bytes_max: usize,
    /// Bytes of values that one command may carry from shard to shard.
    pub gather_bytes_max: usize,
    /// A client that sends nothing for this long is disconnected; zero: never.
    pub idle_timeout: Duration,
    /// Interval of TCP keepalive probes on clients' and shards' connections; zero: none.
    pub tcp_keepalive: Duration,
    /// Longest line of an inline command or of a length, in bytes.
    pub inline_bytes_max: usize,
    /// Greatest number of arguments of one command, its name included.
    pub args_max: usize,
    /// Longest single argument, in bytes.
    pub bulk_bytes_max: usize,
    /// Greatest number of keys that one client watches at a time.
    pub watched_keys_max: usize,

    /// Longest time from sending a request to a shard to its reply; blocking commands excepted.
    pub request_timeout: Duration,
    /// Longest time for connecting to a shard, the handshake included.
    pub connect_timeout: Duration,
    /// First pause before connecting again to a shard that could not be reached; doubles up to
    /// `reconnect_backoff_max`.
    pub reconnect_backoff_min: Duration,
    /// Longest pause between two attempts to connect to a shard.
    pub reconnect_backoff_max: Duration,
    /// Greatest number of requests in flight to one shard, per worker; more wait at the client.
    pub shard_inflight_max: usize,
    /// Longest single reply of a shard, in bytes; a longer one closes the connection.
    pub reply_bytes_max: usize,
    /// Greatest number of connections set apart for transactions, per shard and worker.
    pub pinned_connections_max: usize,
    /// Greatest number of connections set apart for clients that watch keys, per shard and worker.
    pub watch_connections_max: usize,
    /// Longest wait for such a connection; then the transaction fails, nothing applied.
    pub pinned_wait: Duration,
    /// User to authenticate as towards the shards (AUTH); None: the default user.
    pub shard_user: Option<String>,
    /// Password towards the shards; None: no AUTH is sent.
    pub shard_password: Option<Secret>,
    /// Whether to serve shards whose eviction policy can tear transactions.
    pub allow_unsafe_eviction: bool,

    /// What plain commands are isolated from.
    pub isolation: IsolationLevel,
    /// Whether plain writes keep away from transactions whose WATCH spans shards.
    pub fence: bool,
    /// How long a transaction's locks live, and after which others may settle it.
    pub lock_ttl: Duration,
    /// How long an EXEC waits for keys that other transactions hold, before EXECABORT.
    pub lock_wait: Duration,
    /// How long the record of a decided transaction is kept when somebody may still ask for it.
    pub decision_retention: Duration,
    /// Interval at which each shard is searched for transactions that nobody finishes.
    pub recovery_scan_interval: Duration,
}

impl Config {
    /// Number of worker threads to start: `workers`, or one per core.
    pub fn workers_effective(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        }
    }

    fn blank() -> Self {
        Self {
            listen: Address::new("", 0),
            shards: Vec::new(),
            tls_listen: None,
            listen_unix: None,
            reuse_port: false,
            proxy_protocol: false,
            metrics_listen: None,
            tls_cert_file: None,
            tls_key_file: None,
            tls_client_ca_file: None,
            tls_client_optional: false,
            shard_tls_ca_file: None,
            shard_tls_cert_file: None,
            shard_tls_key_file: None,
            shard_tls_name: None,
            workers: 0,
            start_without_shards: false,
            drain_timeout: Duration::ZERO,
            log_level: LogLevel::Info,
            log_format: LogFormat::Text,
            password: None,
            acl_file: None,
            acl_trust_scripts: false,
            deny_commands: BTreeSet::new(),
            client_commands_per_second_max: 0,
            memory_bytes_max: 0,
            slowlog_slower_than: Duration::ZERO,
            slowlog_max_len: 0,
            hotkeys_sample: 0,
            trace_collector: None,
            trace_sample: 0,
            clients_max: 0,
            client_inflight_max: 0,
            client_input_bytes_max: 0,
            client_output_bytes_max: 0,
            pubsub_output_bytes_max: 0,
            pubsub_output_soft_bytes: 0,
            pubsub_output_soft_time: Duration::ZERO,
            client_subscriptions_max: 0,
            script_cache_bytes_max: 0,
            gather_bytes_max: 0,
            idle_timeout: Duration::ZERO,
            tcp_keepalive: Duration::ZERO,
            inline_bytes_max: 0,
            args_max: 0,
            bulk_bytes_max: 0,
            watched_keys_max: 0,
            request_timeout: Duration::ZERO,
            connect_timeout: Duration::ZERO,
            reconnect_backoff_min: Duration::ZERO,
            reconnect_backoff_max: Duration::ZERO,
            shard_inflight_max: 0,
            reply_bytes_max: 0,
            pinned_connections_max: 0,
            watch_connections_max: 0,
            pinned_wait: Duration::ZERO,
            shard_user: None,
            shard_password: None,
            allow_unsafe_eviction: false,
            isolation: IsolationLevel::Strict,
            fence: false,
            lock_ttl: Duration::ZERO,
            lock_wait: Duration::ZERO,
            decision_retention: Duration::ZERO,
            recovery_scan_interval: Duration::ZERO,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let mut config = Self::blank();
        for setting in SETTINGS {
            setting.kind.set_default(&mut config);
        }
        config
    }
}

/// Severity of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Nothing is logged.
    Off,
    /// Something is wrong that needs a person.
    Error,
    /// Something is wrong that mends itself, or may.
    Warn,
    /// Start, stop, changes of state.
    Info,
    /// What happened to single transactions and connections.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    pub(crate) const NAMES: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];

    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "off" => Self::Off,
            "error" => Self::Error,
            "warn" => Self::Warn,
            "info" => Self::Info,
            "debug" => Self::Debug,
            "trace" => Self::Trace,
            _ => return None,
        })
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    pub(crate) const NAMES: &[&str] = &["text", "json"];

    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// What plain commands are isolated from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsolationLevel {
    /// From every transaction: nobody sees a part of one.
    Strict,
    /// From none: plain commands may see a transaction on one shard and not yet on another.
    Transactions,
}

impl IsolationLevel {
    pub(crate) const NAMES: &[&str] = &["strict", "transactions"];

    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "strict" => Some(Self::Strict),
            "transactions" => Some(Self::Transactions),
            _ => None,
        }
    }
}

/// A password; never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// What is kept of one that is only compared: its SHA-256.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }

    /// The password itself, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

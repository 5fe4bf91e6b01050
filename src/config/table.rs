//! The table of settings. One row is the whole of a setting: nothing else needs to change.

use super::setting::Kind::{
    Addresses, Bytes, Choice, Count, Listen, Millis, Place, Seconds, Secret, SecretFile, Switch,
    Text,
};
use super::{Group, IsolationLevel, LogFormat, LogLevel, Setting, guards};

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// All settings, in the order in which they are shown.
pub static SETTINGS: &[Setting] = &[
    Setting {
        name: "listen",
        group: Group::Addresses,
        kind: Listen {
            default: ("127.0.0.1", 6380),
            optional: false,
            set: |c, v| {
                if let Some(address) = v {
                    c.listen = address;
                }
            },
        },
        help: "Where clients connect. Port 0 takes a free one.",
    },
    Setting {
        name: "tls-listen",
        group: Group::Addresses,
        kind: Place {
            set: |c, v| c.tls_listen = Some(v),
        },
        help: "Where clients connect by TLS.",
    },
    Setting {
        name: "listen-unix",
        group: Group::Addresses,
        kind: Text {
            set: |c, v| c.listen_unix = Some(v),
        },
        help: "Path of a unix socket where clients on this machine connect, too.",
    },
    Setting {
        name: "reuse-port",
        group: Group::Addresses,
        kind: Switch {
            set: |c, v| c.reuse_port = v,
        },
        help: "Another lockstep with this setting may listen on the same TCP ports at the same time \
               (SO_REUSEPORT), so that one can start before the one it follows stops.",
    },
    guards::PROXY_PROTOCOL,
    Setting {
        name: "shard",
        group: Group::Addresses,
        kind: Addresses {
            set: |c, v| c.shards = v,
        },
        help: "The Redis servers that hold the keys (HOST:PORT, or unix: and a path). Their order decides which keys live where: \
               it must be the same at every lockstep.",
    },
    Setting {
        name: "metrics-listen",
        group: Group::Addresses,
        kind: Listen {
            default: ("127.0.0.1", 9121),
            optional: true,
            set: |c, v| c.metrics_listen = v,
        },
        help: "Where /metrics, /healthz and /readyz are served over HTTP.",
    },
    Setting {
        name: "workers",
        group: Group::Process,
        kind: Count {
            default: 0,
            range: 0..=1024,
            set: |c, v| c.workers = v,
        },
        help: "Worker threads, each with connections of its own to every shard; 0: one per core.",
    },
    guards::MEMORY_MAX,
    guards::SLOWER_THAN,
    guards::SLOWLOG_LEN,
    guards::HOTKEYS_SAMPLE,
    guards::TRACE_COLLECTOR,
    guards::TRACE_SAMPLE,
    Setting {
        name: "start-without-shards",
        group: Group::Process,
        kind: Switch {
            set: |c, v| c.start_without_shards = v,
        },
        help: "Start, and be ready, as soon as one shard answers that notes the shard map; /readyz \
               tells which do not. Without it, start waits for every shard.",
    },
    Setting {
        name: "drain-timeout-ms",
        group: Group::Process,
        kind: Millis {
            default: 10_000,
            range: 0..=HOUR_MS,
            set: |c, v| c.drain_timeout = v,
        },
        help: "Longest time from SIGTERM to the exit: what runs is finished, nothing new starts. \
               A second SIGTERM hurries.",
    },
    Setting {
        name: "log-level",
        group: Group::Process,
        kind: Choice {
            default: "info",
            of: LogLevel::NAMES,
            set: |c, v| LogLevel::named(v).map(|l| c.log_level = l).is_some(),
        },
        help: "Least severe level that is logged, to standard error.",
    },
    Setting {
        name: "log-format",
        group: Group::Process,
        kind: Choice {
            default: "text",
            of: LogFormat::NAMES,
            set: |c, v| LogFormat::named(v).map(|f| c.log_format = f).is_some(),
        },
        help: "Lines for people, or one JSON object per line.",
    },
    Setting {
        name: "password",
        group: Group::Access,
        kind: Secret {
            set: |c, v| c.password = Some(v.digest()),
        },
        help: "What clients must give to AUTH as the default user, like requirepass of Redis. Other users of the machine \
               can see flags: prefer the file.",
    },
    Setting {
        name: "password-file",
        group: Group::Access,
        kind: SecretFile {
            set: |c, v| c.password = Some(v.digest()),
        },
        help: "File that holds this password.",
    },
    Setting {
        name: "acl-file",
        group: Group::Access,
        kind: Text {
            set: |c, v| c.acl_file = Some(v),
        },
        help: "File of users and what they may do, as aclfile of Redis 7.0 but without selectors. ACL LOAD reads it again.",
    },
    Setting {
        name: "acl-trust-scripts",
        group: Group::Access,
        kind: Switch {
            set: |c, v| c.acl_trust_scripts = v,
        },
        help: "Scripts and functions may be run by users who may not do everything. What they call is not checked: \
               the shards do not know the users.",
    },
    guards::DENY_COMMANDS,
    Setting {
        name: "clients-max",
        group: Group::Clients,
        kind: Count {
            default: 10_000,
            range: 1..=1_000_000,
            set: |c, v| c.clients_max = v,
        },
        help: "Greatest number of clients at once; one more is refused with an error.",
    },
    guards::CLIENT_RATE,
    Setting {
        name: "client-inflight-max",
        group: Group::Clients,
        kind: Count {
            default: 1024,
            range: 1..=1_000_000,
            set: |c, v| c.client_inflight_max = v,
        },
        help: "Commands of one client that may wait for replies; at this many nothing more is \
               read from it.",
    },
    Setting {
        name: "client-input-bytes-max",
        group: Group::Clients,
        kind: Bytes {
            default: GIB,
            range: 64 * KIB..=64 * GIB,
            set: |c, v| c.client_input_bytes_max = v,
        },
        help: "Greatest input kept for one client, the queue of its MULTI included; a client \
               that needs more is disconnected.",
    },
    Setting {
        name: "client-output-bytes-max",
        group: Group::Clients,
        kind: Bytes {
            default: 16 * MIB,
            range: 64 * KIB..=64 * GIB,
            set: |c, v| c.client_output_bytes_max = v,
        },
        help: "Replies that may wait for one client to take them; above this nothing more is \
               read from it.",
    },
    Setting {
        name: "pubsub-output-bytes-max",
        group: Group::Clients,
        kind: Bytes {
            default: 32 * MIB,
            range: 64 * KIB..=64 * GIB,
            set: |c, v| c.pubsub_output_bytes_max = v,
        },
        help: "Messages that may wait for one subscriber to take them; it is disconnected when \
               there are more, as by client-output-buffer-limit of Redis.",
    },
    Setting {
        name: "pubsub-output-soft-bytes-max",
        group: Group::Clients,
        kind: Bytes {
            default: 8 * MIB,
            range: 64 * KIB..=64 * GIB,
            set: |c, v| c.pubsub_output_soft_bytes = v,
        },
        help: "The same, when there are more all through pubsub-output-soft-ms.",
    },
    Setting {
        name: "pubsub-output-soft-ms",
        group: Group::Clients,
        kind: Millis {
            default: 60_000,
            range: 0..=HOUR_MS,
            set: |c, v| c.pubsub_output_soft_time = v,
        },
        help: "How long a subscriber may stay above pubsub-output-soft-bytes-max.",
    },
    Setting {
        name: "client-subscriptions-max",
        group: Group::Clients,
        kind: Count {
            default: 100_000,
            range: 1..=100_000_000,
            set: |c, v| c.client_subscriptions_max = v,
        },
        help: "Channels and patterns that one client may be subscribed to.",
    },
    Setting {
        name: "script-cache-bytes-max",
        group: Group::Clients,
        kind: Bytes {
            default: 16 * MIB,
            range: 0..=16 * GIB,
            set: |c, v| c.script_cache_bytes_max = v,
        },
        help: "Sources of scripts that are remembered, so that EVALSHA works on shards that do \
               not know the script; the oldest go first.",
    },
    Setting {
        name: "gather-bytes-max",
        group: Group::Clients,
        kind: Bytes {
            default: 64 * MIB,
            range: 0..=16 * GIB,
            set: |c, v| c.gather_bytes_max = v,
        },
        help: "Values that one command whose keys are on several shards (RENAME, SUNIONSTORE) may \
               carry from one to another, as MEMORY USAGE tells their size; above this it is an \
               error.",
    },
    Setting {
        name: "idle-timeout-ms",
        group: Group::Clients,
        kind: Millis {
            default: 0,
            range: 0..=30 * DAY_MS,
            set: |c, v| c.idle_timeout = v,
        },
        help: "A client that is silent for this long is disconnected; 0: never.",
    },
    Setting {
        name: "tcp-keepalive-s",
        group: Group::Clients,
        kind: Seconds {
            default: 300,
            range: 0..=86_400,
            set: |c, v| c.tcp_keepalive = v,
        },
        help: "Interval of TCP keepalive probes, towards clients and shards; 0: none.",
    },
    Setting {
        name: "inline-bytes-max",
        group: Group::Clients,
        kind: Bytes {
            default: 64 * KIB,
            range: 64..=MIB,
            set: |c, v| c.inline_bytes_max = v,
        },
        help: "Longest line of an inline command or of a length.",
    },
    Setting {
        name: "args-max",
        group: Group::Clients,
        kind: Count {
            default: (1 << 31) - 1,
            range: 16..=(1 << 31) - 1,
            set: |c, v| c.args_max = v,
        },
        help: "Greatest number of arguments of one command, its name included. The default is that \
               of Redis.",
    },
    Setting {
        name: "bulk-bytes-max",
        group: Group::Clients,
        kind: Bytes {
            default: 512 * MIB,
            range: KIB..=16 * GIB,
            set: |c, v| c.bulk_bytes_max = v,
        },
        help: "Longest single argument; like proto-max-bulk-len of Redis.",
    },
    Setting {
        name: "watched-keys-max",
        group: Group::Clients,
        kind: Count {
            default: 10_000,
            range: 1..=1_000_000,
            set: |c, v| c.watched_keys_max = v,
        },
        help: "Keys that one client may WATCH at a time; one more is an error.",
    },
    Setting {
        name: "request-timeout-ms",
        group: Group::Shards,
        kind: Millis {
            default: 5000,
            range: 10..=HOUR_MS,
            set: |c, v| c.request_timeout = v,
        },
        help: "Longest time from sending a request to a shard to its reply; blocking commands \
               excepted.",
    },
    Setting {
        name: "connect-timeout-ms",
        group: Group::Shards,
        kind: Millis {
            default: 1000,
            range: 10..=60_000,
            set: |c, v| c.connect_timeout = v,
        },
        help: "Longest time for connecting to a shard, the handshake included.",
    },
    Setting {
        name: "reconnect-backoff-min-ms",
        group: Group::Shards,
        kind: Millis {
            default: 50,
            range: 1..=60_000,
            set: |c, v| c.reconnect_backoff_min = v,
        },
        help: "First pause before connecting again to a shard; it doubles each time.",
    },
    Setting {
        name: "reconnect-backoff-max-ms",
        group: Group::Shards,
        kind: Millis {
            default: 2000,
            range: 1..=HOUR_MS,
            set: |c, v| c.reconnect_backoff_max = v,
        },
        help: "Longest pause before connecting again to a shard.",
    },
    Setting {
        name: "shard-inflight-max",
        group: Group::Shards,
        kind: Count {
            default: 65_536,
            range: 1..=1 << 24,
            set: |c, v| c.shard_inflight_max = v,
        },
        help: "Requests in flight to one shard, per worker; more wait.",
    },
    Setting {
        name: "reply-bytes-max",
        group: Group::Shards,
        kind: Bytes {
            default: GIB,
            range: MIB..=64 * GIB,
            set: |c, v| c.reply_bytes_max = v,
        },
        help: "Longest single reply of a shard; a longer one is an error and closes the \
               connection to the shard.",
    },
    Setting {
        name: "pinned-connections-max",
        group: Group::Shards,
        kind: Count {
            default: 64,
            range: 1..=65_536,
            set: |c, v| c.pinned_connections_max = v,
        },
        help: "Connections set apart for transactions, per shard and worker; as many again for \
               commands that wait for data, or that are sent on while they come in.",
    },
    Setting {
        name: "pinned-wait-ms",
        group: Group::Shards,
        kind: Millis {
            default: 1000,
            range: 0..=HOUR_MS,
            set: |c, v| c.pinned_wait = v,
        },
        help: "Longest wait for such a connection; then the transaction fails with nothing \
               applied.",
    },
    Setting {
        name: "watch-connections-max",
        group: Group::Shards,
        kind: Count {
            default: 256,
            range: 1..=65_536,
            set: |c, v| c.watch_connections_max = v,
        },
        help: "Connections set apart for clients that WATCH keys, per shard and worker. Such a \
               client holds one per shard until EXEC, DISCARD or UNWATCH; with none free within \
               pinned-wait-ms, WATCH is an error.",
    },
    Setting {
        name: "shard-user",
        group: Group::Shards,
        kind: Text {
            set: |c, v| c.shard_user = Some(v),
        },
        help: "User for AUTH towards the shards, if not the default user.",
    },
    Setting {
        name: "shard-password",
        group: Group::Shards,
        kind: Secret {
            set: |c, v| c.shard_password = Some(v),
        },
        help: "Password for AUTH towards the shards. Other users of the machine can see flags: \
               prefer the file.",
    },
    Setting {
        name: "shard-password-file",
        group: Group::Shards,
        kind: SecretFile {
            set: |c, v| c.shard_password = Some(v),
        },
        help: "File that holds the password for AUTH towards the shards.",
    },
    Setting {
        name: "tls-cert-file",
        group: Group::Tls,
        kind: Text {
            set: |c, v| c.tls_cert_file = Some(v),
        },
        help: "Certificate that TLS clients are shown, with those that vouch for it (PEM). This and the other files are read again when they change.",
    },
    Setting {
        name: "tls-key-file",
        group: Group::Tls,
        kind: Text {
            set: |c, v| c.tls_key_file = Some(v),
        },
        help: "Its private key (PEM).",
    },
    Setting {
        name: "tls-client-ca-file",
        group: Group::Tls,
        kind: Text {
            set: |c, v| c.tls_client_ca_file = Some(v),
        },
        help: "Who vouches for certificates of clients (PEM). If given, clients must show a valid one.",
    },
    Setting {
        name: "tls-client-optional",
        group: Group::Tls,
        kind: Switch {
            set: |c, v| c.tls_client_optional = v,
        },
        help: "Clients that show no certificate are served all the same.",
    },
    Setting {
        name: "shard-tls-ca-file",
        group: Group::Tls,
        kind: Text {
            set: |c, v| c.shard_tls_ca_file = Some(v),
        },
        help: "Who vouches for certificates of shards (PEM). If given, shards are spoken to over TLS only.",
    },
    Setting {
        name: "shard-tls-cert-file",
        group: Group::Tls,
        kind: Text {
            set: |c, v| c.shard_tls_cert_file = Some(v),
        },
        help: "Certificate shown to shards that ask for one (PEM).",
    },
    Setting {
        name: "shard-tls-key-file",
        group: Group::Tls,
        kind: Text {
            set: |c, v| c.shard_tls_key_file = Some(v),
        },
        help: "Its private key (PEM).",
    },
    Setting {
        name: "shard-tls-name",
        group: Group::Tls,
        kind: Text {
            set: |c, v| c.shard_tls_name = Some(v),
        },
        help: "Name that the shards' certificates must bear, if not the host of their address.",
    },
    Setting {
        name: "isolation",
        group: Group::Transactions,
        kind: Choice {
            default: "strict",
            of: IsolationLevel::NAMES,
            set: |c, v| IsolationLevel::named(v).map(|l| c.isolation = l).is_some(),
        },
        help: "Against what plain commands are isolated: strict, from every transaction that is \
               being applied; transactions, from none (transactions stay isolated from each other).",
    },
    Setting {
        name: "fence",
        group: Group::Transactions,
        kind: Choice {
            default: "off",
            of: &["off", "on"],
            set: |c, v| {
                c.fence = v == "on";
                matches!(v, "off" | "on")
            },
        },
        help: "on: plain writes, and EXECs without WATCH, wait for transactions that WATCH keys on \
               several shards, so that none comes between their check and their effect. Holds only \
               if it is on at every lockstep.",
    },
    Setting {
        name: "allow-unsafe-eviction",
        group: Group::Shards,
        kind: Switch {
            set: |c, v| c.allow_unsafe_eviction = v,
        },
        help: "Start even if a shard's maxmemory-policy is allkeys-…, which can evict what a \
               transaction has promised and so tear it.",
    },
    Setting {
        name: "lock-ttl-ms",
        group: Group::Transactions,
        kind: Millis {
            default: 5000,
            range: 100..=HOUR_MS,
            set: |c, v| c.lock_ttl = v,
        },
        help: "How long a transaction's locks live. After this anybody may settle what a dead \
               lockstep left; its keys are blocked no longer than that.",
    },
    Setting {
        name: "lock-wait-ms",
        group: Group::Transactions,
        kind: Millis {
            default: 5000,
            range: 0..=HOUR_MS,
            set: |c, v| c.lock_wait = v,
        },
        help: "How long an EXEC waits for keys that other transactions hold, before EXECABORT.",
    },
    Setting {
        name: "decision-retention-ms",
        group: Group::Transactions,
        kind: Millis {
            default: HOUR_MS,
            range: 1_000..=365 * DAY_MS,
            set: |c, v| c.decision_retention = v,
        },
        help: "How long a decided transaction's record is kept where its fate may still be \
               asked for. At least four times lock-ttl-ms.",
    },
    Setting {
        name: "recovery-scan-interval-ms",
        group: Group::Transactions,
        kind: Millis {
            default: 1000,
            range: 50..=HOUR_MS,
            set: |c, v| c.recovery_scan_interval = v,
        },
        help: "Interval at which every shard is searched for transactions that nobody finishes.",
    },
];

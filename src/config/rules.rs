//! Values that are fine alone and wrong together.

use super::{Config, IsolationLevel};

/// A rule: the settings it is about (the first one gets the blame), whether it is broken, and
/// what to say then.
pub(super) struct Rule {
    pub(super) about: &'static [&'static str],
    pub(super) broken: fn(&Config) -> bool,
    pub(super) message: &'static str,
}

/// Rules over the values. Rules over *which* settings are given are in [`EXCLUSIVE`].
pub(super) static RULES: &[Rule] = &[
    Rule {
        about: &["decision-retention-ms", "lock-ttl-ms"],
        broken: |c| c.decision_retention < c.lock_ttl.saturating_mul(4),
        message: "must be at least four times lock-ttl-ms: a late message of a transaction must \
                  still find how it was decided",
    },
    Rule {
        about: &["fence", "isolation"],
        broken: |c| c.fence && c.isolation != IsolationLevel::Strict,
        message: "needs isolation strict: plain commands are isolated from nothing otherwise",
    },
    Rule {
        about: &["reconnect-backoff-max-ms", "reconnect-backoff-min-ms"],
        broken: |c| c.reconnect_backoff_max < c.reconnect_backoff_min,
        message: "must not be less than reconnect-backoff-min-ms",
    },
    Rule {
        about: &["client-input-bytes-max", "bulk-bytes-max"],
        broken: |c| c.client_input_bytes_max < c.bulk_bytes_max,
        message: "must not be less than bulk-bytes-max: the longest argument must fit",
    },
    Rule {
        about: &["client-input-bytes-max", "inline-bytes-max"],
        broken: |c| c.client_input_bytes_max < c.inline_bytes_max,
        message: "must not be less than inline-bytes-max: the longest line must fit",
    },
    Rule {
        about: &["metrics-listen", "listen"],
        broken: |c| c.listen.port() != 0 && c.metrics_listen.as_ref() == Some(&c.listen),
        message: "must differ from listen",
    },
    Rule {
        about: &["shard", "listen"],
        broken: |c| c.shards.contains(&c.listen),
        message: "contains the address given by listen: lockstep would connect to itself",
    },
    Rule {
        about: &["shard", "metrics-listen"],
        broken: |c| {
            c.metrics_listen
                .as_ref()
                .is_some_and(|a| c.shards.contains(a))
        },
        message: "contains the address given by metrics-listen",
    },
    Rule {
        about: &["tls-listen", "tls-cert-file", "tls-key-file"],
        broken: |c| {
            c.tls_listen.is_some() && (c.tls_cert_file.is_none() || c.tls_key_file.is_none())
        },
        message: "needs tls-cert-file and tls-key-file",
    },
    Rule {
        about: &["tls-client-optional", "tls-client-ca-file"],
        broken: |c| c.tls_client_optional && c.tls_client_ca_file.is_none(),
        message: "needs tls-client-ca-file",
    },
    Rule {
        about: &["shard-tls-cert-file", "shard-tls-key-file"],
        broken: |c| c.shard_tls_cert_file.is_some() != c.shard_tls_key_file.is_some(),
        message: "goes together with shard-tls-key-file",
    },
    Rule {
        about: &["shard-tls-cert-file", "shard-tls-ca-file"],
        broken: |c| {
            c.shard_tls_ca_file.is_none()
                && (c.shard_tls_cert_file.is_some() || c.shard_tls_name.is_some())
        },
        message: "needs shard-tls-ca-file: without it there is no TLS towards the shards",
    },
    Rule {
        about: &["trace-sample", "trace-collector"],
        broken: |c| c.trace_sample > 0 && c.trace_collector.is_none(),
        message: "needs trace-collector: there is nowhere to send traces to",
    },
    Rule {
        about: &["acl-trust-scripts", "acl-file"],
        broken: |c| c.acl_trust_scripts && c.acl_file.is_none(),
        message: "needs acl-file: without it there are no users to trust",
    },
    Rule {
        about: &["shard-user", "shard-password"],
        broken: |c| c.shard_user.is_some() && c.shard_password.is_none(),
        message: "needs shard-password or shard-password-file",
    },
];

/// Pairs of settings of which only one may be given.
pub(super) static EXCLUSIVE: &[(&str, &str)] = &[
    ("shard-password-file", "shard-password"),
    ("password-file", "password"),
    ("acl-file", "password"),
    ("acl-file", "password-file"),
];

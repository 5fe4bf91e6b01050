//! Which settings can be changed while lockstep runs, and what differs between two loads.

use super::{Loaded, SETTINGS, Setting};

/// When a changed value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// At once.
    AtOnce,
    /// For connections that are made from then on; those that are there keep what they have.
    NewConnections,
    /// When lockstep is started again.
    Restart,
}

impl Change {
    /// For the README's table.
    pub fn text(self) -> &'static str {
        match self {
            Self::AtOnce => "at once",
            Self::NewConnections => "new connections",
            Self::Restart => "restart",
        }
    }
}

/// What only a restart changes, and why.
const RESTART: &[(&str, &str)] = &[
    ("listen", LISTENERS),
    ("tls-listen", LISTENERS),
    ("listen-unix", LISTENERS),
    ("metrics-listen", LISTENERS),
    ("reuse-port", LISTENERS),
    ("start-without-shards", "it is about the start"),
    (
        "shard",
        "the shards are fixed: no key is moved, and every lockstep must have the same ones",
    ),
    ("trace-collector", "the way to it is made once"),
    ("workers", "worker threads are started once"),
    ("log-format", "the log is opened once"),
    (
        "acl-file",
        "clients are under its users or not from their first command on (what it holds is read again)",
    ),
    (
        "acl-trust-scripts",
        "clients are under it from their first command on",
    ),
    ("script-cache-bytes-max", "the cache is made once"),
    ("pinned-connections-max", POOLS),
    ("watch-connections-max", POOLS),
    ("tls-cert-file", CERTIFICATES),
    ("tls-key-file", CERTIFICATES),
    ("tls-client-ca-file", CERTIFICATES),
    ("tls-client-optional", CERTIFICATES),
    ("shard-tls-ca-file", CERTIFICATES),
    ("shard-tls-cert-file", CERTIFICATES),
    ("shard-tls-key-file", CERTIFICATES),
    ("shard-tls-name", CERTIFICATES),
    (
        "allow-unsafe-eviction",
        "the shards are looked at before the first client is served",
    ),
    ("isolation", PROMISES),
    ("fence", PROMISES),
    ("lock-ttl-ms", PROMISES),
    ("decision-retention-ms", PROMISES),
];

const LISTENERS: &str = "sockets are opened once";
const POOLS: &str = "the pools are made once";
const CERTIFICATES: &str = "the names of the files are read once (what they hold is read again)";
const PROMISES: &str = "transactions that are under way rest on it";

/// What counts for new connections.
const NEW_CONNECTIONS: &[&str] = &[
    "proxy-protocol",
    "client-inflight-max",
    "client-input-bytes-max",
    "client-output-bytes-max",
    "tcp-keepalive-s",
    "inline-bytes-max",
    "args-max",
    "bulk-bytes-max",
    "reply-bytes-max",
    "password",
    "password-file",
    "shard-user",
    "shard-password",
    "shard-password-file",
];

impl Setting {
    /// When a changed value counts.
    pub fn change(&self) -> Change {
        if RESTART.iter().any(|(name, _)| *name == self.name) {
            Change::Restart
        } else if NEW_CONNECTIONS.contains(&self.name) {
            Change::NewConnections
        } else {
            Change::AtOnce
        }
    }
}

/// What differs between two loads.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Settings that were given another value, those whose secret is in a file included.
    pub names: Vec<&'static str>,
    /// Those of them that only a restart changes, and why.
    pub refused: Vec<(&'static str, &'static str)>,
}

impl Changes {
    /// From one load to the next.
    pub fn between(before: &Loaded, now: &Loaded) -> Self {
        let mut changes = Self::default();
        for setting in SETTINGS {
            let secret = match setting.name {
                "password" | "password-file" => before.config.password != now.config.password,
                "shard-password" | "shard-password-file" => {
                    before.config.shard_password != now.config.shard_password
                }
                _ => false,
            };
            let is_given = now.text_of(setting).is_some();
            if before.value_of(setting) == now.value_of(setting) && !(secret && is_given) {
                continue;
            }
            changes.names.push(setting.name);
            let reason = RESTART.iter().find(|(name, _)| *name == setting.name);
            changes.refused.extend(reason.copied());
        }
        changes
    }
}

impl Loaded {
    fn text_of(&self, setting: &Setting) -> Option<&str> {
        self.given()
            .find_map(|(name, text)| (name == setting.name).then_some(text))
    }

    /// As it was written, or the default.
    fn value_of(&self, setting: &Setting) -> String {
        let text = self.text_of(setting).map(str::to_owned);
        text.unwrap_or_else(|| setting.kind.default_text())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Sources, load};
    use super::*;

    fn loaded(flags: &[(&str, &str)]) -> Loaded {
        let flags = flags.iter();
        let flags = flags.map(|(name, value)| ((*name).to_owned(), vec![(*value).to_owned()]));
        let sources = Sources {
            flags: flags.collect(),
            ..Sources::default()
        };
        load(&sources).unwrap()
    }

    #[test]
    fn every_name_is_one_of_a_setting() {
        let restart = RESTART.iter().map(|(name, _)| name);
        for name in restart.chain(NEW_CONNECTIONS) {
            assert!(SETTINGS.iter().any(|s| s.name == *name), "{name}");
        }
        assert!(
            !NEW_CONNECTIONS
                .iter()
                .any(|new| RESTART.iter().any(|(r, _)| r == new))
        );
    }

    #[test]
    fn changes_are_told_by_name_and_what_cannot_be_with_a_reason() {
        let (old, new) = (
            loaded(&[("clients-max", "5"), ("password", "a"), ("workers", "1")]),
            loaded(&[("clients-max", "6"), ("password", "b"), ("shard", "h:1")]),
        );
        let changes = Changes::between(&old, &new);
        assert_eq!(
            changes.names,
            ["shard", "workers", "password", "clients-max"]
        );
        let refused: Vec<_> = changes.refused.iter().map(|(name, _)| *name).collect();
        assert_eq!(refused, ["shard", "workers"]);
        assert_eq!(Changes::between(&new, &new), Changes::default());
        // A default that is written out is no change.
        assert_eq!(
            Changes::between(&loaded(&[]), &loaded(&[("fence", "off")])),
            Changes::default()
        );
    }
}

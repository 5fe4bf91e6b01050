//! What a worker's connections and transactions look at of the settings, shared by all of them, so
//! that it can be set anew while they run.

use crate::backend::link::{LinkOptions, LinkValues};
use crate::backend::pinned::{Bound, PoolOptions};
use crate::backend::{Access, Credentials};
use crate::config::Config;
use crate::engine::Engine;
use crate::resp::Limits;

/// See the module.
pub(crate) struct Knobs {
    /// Who lockstep is towards the shards.
    pub access: Access,
    /// Bounds and times of connections to them.
    pub links: LinkOptions,
}

impl Knobs {
    /// As the settings have it.
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            access: Access::new(credentials(config)),
            links: LinkOptions::new(link_values(config)),
        }
    }

    /// The same for a pool of connections that are set apart.
    pub(super) fn pool(&self, config: &Config, bound: Bound) -> PoolOptions {
        PoolOptions {
            connections_max: match bound {
                Bound::Pinned => config.pinned_connections_max,
                Bound::Watch => config.watch_connections_max,
            },
            bound,
            shared: self.links.clone(),
        }
    }

    /// From now on this counts.
    pub(super) fn set(&self, config: &Config, engine: &Engine) {
        self.access.set(credentials(config));
        self.links.set(link_values(config));
        let times = engine.times();
        times.lock_wait.set(config.lock_wait);
        times.scan_interval.set(config.recovery_scan_interval);
    }
}

/// Who lockstep is towards the shards.
pub(super) fn credentials(config: &Config) -> Credentials {
    let password = config.shard_password.as_ref();
    Credentials {
        user: config.shard_user.clone().unwrap_or_default(),
        password: password
            .map(|secret| secret.reveal().to_owned())
            .unwrap_or_default(),
        connect_timeout: config.connect_timeout,
    }
}

fn link_values(config: &Config) -> LinkValues {
    LinkValues {
        request_timeout: config.request_timeout,
        backoff: (config.reconnect_backoff_min, config.reconnect_backoff_max),
        inflight_max: config.shard_inflight_max,
        unwritten_bytes_max: config.client_input_bytes_max,
        wait_max: config.pinned_wait,
        limits: Limits {
            reply_bytes_max: config.reply_bytes_max,
            ..Limits::default()
        },
    }
}

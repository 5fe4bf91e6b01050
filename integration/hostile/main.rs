//! Bytes, clients and shards that misbehave: the proxy lives, its memory stays bounded, and
//! everybody else is answered as before.
//!
//! Beside each attack a well-behaved client goes on with reads, writes and transactions over
//! all shards ([`bystander::Bystander`]), and must neither fail nor wait.

// A test program has no outside that could reach its items.
#![allow(unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod bystander;
mod bytes;
mod clients;
mod crowd;
mod large;
mod leaks;
mod shards;
mod slow;
mod uploads;

use bystander::Bystander;
use std::sync::{Mutex, MutexGuard, PoisonError};
use support::{Cluster, Options};

/// Attacks take the whole machine and compare memory: one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The proxy under attack.
struct Target {
    cluster: Cluster,
    resident_kib: u64,
    _turn: MutexGuard<'static, ()>,
}

impl Target {
    /// Starts three shards and a proxy with these settings, warm.
    fn start(settings: &[(&str, &str)]) -> Target {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let proxy = settings.iter().map(own).collect();
        let cluster = Cluster::start(&Options {
            proxy,
            ..Options::default()
        });
        Bystander::start(&cluster).finish_after(std::time::Duration::from_millis(200));
        let resident_kib = cluster.resident_kib(0);
        Target {
            cluster,
            resident_kib,
            _turn: turn,
        }
    }

    /// Memory since the start may have grown by so much and no more. A plain redis-server keeps
    /// what clients do not read, so in its place nothing is said.
    fn check_memory(&self, limit_mib: u64) {
        let now = self.cluster.resident_kib(0);
        let grown = now.saturating_sub(self.resident_kib) / 1_024;
        println!(
            "memory: {} KiB at the start, {now} KiB now",
            self.resident_kib
        );
        assert!(
            grown <= limit_mib || !self.cluster.is_lockstep(),
            "memory has grown by {grown} MiB, {limit_mib} are allowed"
        );
    }
}

//! Random input at every door, from a seed: what clients send, and balancers in front of
//! them, what shards answer, the HTTP port, the files. The proxy lives, gives every client an end to what it waits for, keeps its
//! memory within bounds, serves the healthy shards as before, and stops when told to.
//!
//! `LOCKSTEP_FUZZ_SECONDS` is how long each part goes on, `LOCKSTEP_SEED` repeats its input (what
//! several clients and shards make of it at once differs from run to run).

// A test program has no outside that could reach its items.
#![allow(unreachable_pub)]

#[allow(dead_code)]
#[path = "../hostile/bystander.rs"]
mod bystander;
#[path = "../support/mod.rs"]
mod support;

mod clients;
mod commands;
mod files;
mod headers;
mod http;
mod liar;
mod lies;
mod mutate;
mod shards;

use std::time::{Duration, Instant};
use support::{Cluster, Options, Proxy, Seed, long, number_from_env};

/// How long each part goes on.
fn duration() -> Duration {
    let default = if long() { 60 } else { 3 };
    Duration::from_secs(number_from_env("LOCKSTEP_FUZZ_SECONDS", default))
}

/// What a busy machine needs, at most, to stop.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// The proxy has not died, has not grown by more than so much, and stops when told to.
fn check_end(proxy: &mut Proxy, resident_kib: u64, growth_mib_max: u64) {
    let now = proxy.resident_kib();
    println!("memory: {resident_kib} KiB at the start, {now} KiB at the end");
    check_alive(proxy);
    assert!(
        now.saturating_sub(resident_kib) <= growth_mib_max * 1_024,
        "memory has grown from {resident_kib} KiB to {now} KiB"
    );
    proxy.terminate();
    let status = proxy.wait(STOP_LIMIT);
    assert!(status.is_some(), "it does not stop\n{}", proxy.log());
    check_no_panic(proxy);
}

fn check_alive(proxy: &mut Proxy) {
    check_no_panic(proxy);
    assert!(proxy.is_running(), "it has died\n{}", proxy.log());
}

fn check_no_panic(proxy: &Proxy) {
    let log = proxy.log();
    assert!(!log.contains("panicked at"), "{log}");
}

/// Three shards and a proxy whose limits are short.
fn start() -> Cluster {
    let settings = [
        ("request-timeout-ms", "500"),
        ("connect-timeout-ms", "500"),
        ("lock-wait-ms", "500"),
        ("lock-ttl-ms", "500"),
        ("pinned-wait-ms", "500"),
        ("reconnect-backoff-max-ms", "200"),
        ("drain-timeout-ms", "3000"),
        ("reply-bytes-max", "8mb"),
        ("client-input-bytes-max", "8mb"),
        ("bulk-bytes-max", "4mb"),
    ];
    Cluster::start(&Options {
        proxy: settings
            .map(|(name, value)| (name.into(), value.into()))
            .into(),
        ..Options::default()
    })
}

fn seed(name: &str) -> (Seed, Instant) {
    let seed = Seed::take();
    println!("{name}: LOCKSTEP_SEED={}, {:?}", seed.0, duration());
    (seed, Instant::now() + duration())
}

//! What lockstep looks at before it serves a shard, and what it then measures.

use std::process::Command;
use std::time::Duration;

use crate::plant::{Plan, Shards};
use crate::support::eventually;

const PATIENCE: Duration = Duration::from_secs(30);

/// Starts lockstep before the shards and expects it to refuse, for this reason.
fn refuses(shards: &Shards, reason: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_lockstep"))
        .args(["--listen", "127.0.0.1:0", "--metrics-listen", ""])
        .args(
            shards
                .addresses()
                .iter()
                .flat_map(|shard| ["--shard", shard]),
        )
        .env_clear()
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(reason), "{reason} in {said}");
}

/// P1: a promise that can be evicted is none.
#[test]
fn a_shard_that_may_evict_promises_is_refused() {
    let shards = Shards::start(2);
    shards
        .client(1)
        .say("CONFIG SET maxmemory-policy allkeys-lru");
    refuses(&shards, "maxmemory-policy allkeys-lru");
    // INFO tells it to who may not ask CONFIG.
    shards.client(1).say("ACL SETUSER default -config");
    refuses(&shards, "maxmemory-policy allkeys-lru");
    let proxy = shards.proxy(&[("allow-unsafe-eviction", "true")]);
    proxy.expect_log("can evict what transactions have promised");
    assert_eq!(proxy.client().say("PING").to_string(), "+PONG");
}

#[test]
fn a_shard_that_may_evict_locks_is_served_with_a_warning() {
    let shards = Shards::start(1);
    shards
        .client(0)
        .say("CONFIG SET maxmemory-policy volatile-lru");
    let proxy = shards.proxy(&[]);
    proxy.expect_log("can evict locks");
    assert!(proxy.log().contains("volatile-lru"));
}

#[test]
fn a_replica_is_refused() {
    let shards = Shards::start(2);
    let primary = shards.servers[0].port();
    shards
        .client(1)
        .say(&format!("REPLICAOF 127.0.0.1 {primary}"));
    refuses(&shards, &format!("is a replica of 127.0.0.1:{primary}"));
}

/// P5, and what operators watch: the search finds what nobody finishes, counts it, settles it.
#[test]
fn what_is_in_doubt_is_measured_and_then_settled() {
    let shards = Shards::start(3);
    let proxy = shards.proxy(&[("recovery-scan-interval-ms", "300")]);
    let ratio = |shard: usize| {
        let address = shards.servers[shard].address();
        proxy.metric("lockstep_consistency_ratio", &address)
    };
    assert_eq!(proxy.metric("lockstep_consistency_ratio_mean", ""), 1.0);
    assert_eq!((ratio(0), ratio(1), ratio(2)), (1.0, 1.0, 1.0));
    // Held until it is measured: as long as a shard is silent nothing can be settled.
    shards.prepare_all(Plan::overdue("b0-1", &[0, 1]));
    shards.prepare_all(Plan::early("b0-2", &[0, 2]));
    eventually("it is counted", PATIENCE, || {
        proxy.metric("lockstep_locks_held", "") >= 2.0
    });
    eventually("it is settled", PATIENCE, || {
        proxy.metric("lockstep_recoveries_total", "committed") == 1.0
    });
    shards.assert_applied("b0-1", &[0, 1]);
    eventually("all is well again", PATIENCE, || {
        proxy.metric("lockstep_transactions_in_doubt", "") == 0.0
            && proxy.metric("lockstep_consistency_ratio_mean", "") == 1.0
    });
    // One before its deadline is not in doubt.
    assert_eq!(proxy.metric("lockstep_locks_held", ""), 2.0);
}

/// The measure stays below 1 as long as something cannot be settled, and names the shard.
#[test]
fn what_cannot_be_settled_stays_in_the_measure() {
    let mut shards = Shards::start(3);
    let proxy = shards.proxy(&[("recovery-scan-interval-ms", "200"), ("lock-ttl-ms", "500")]);
    proxy.expect_log("shard");
    proxy.expect_log("left to recovery");
    shards.servers[2].kill();
    shards.prepare(Plan::overdue("b0-1", &[0, 2]), 0);
    let address = |shard: usize| shards.servers[shard].address();
    eventually("it is measured", PATIENCE, || {
        proxy.metric("lockstep_transactions_in_doubt", "") == 1.0
            && proxy.metric("lockstep_consistency_ratio", &address(0)) == 0.0
    });
    assert!(proxy.metric("lockstep_in_doubt_oldest_seconds", "") >= 0.5);
    assert_eq!(proxy.metric("lockstep_consistency_ratio", &address(1)), 1.0);
    assert_eq!(proxy.metric("lockstep_consistency_ratio", &address(2)), 0.0);
    shards.servers[2].restart();
    eventually("all is well again", PATIENCE, || {
        proxy.metric("lockstep_consistency_ratio_mean", "") == 1.0
    });
    shards.assert_not_applied("b0-1");
}

/// Entries without a record are nobody's transaction, but hold keys all the same.
#[test]
fn what_is_left_over_lowers_the_measure() {
    let shards = Shards::start(2);
    let proxy = shards.proxy(&[("recovery-scan-interval-ms", "100")]);
    shards.prepare(Plan::early("b0-1", &[0, 1]), 0);
    shards.lose_record("b0-1", 0);
    let address = shards.servers[0].address();
    eventually("it is measured", PATIENCE, || {
        proxy.metric("lockstep_consistency_ratio", &address) == 0.0
    });
    proxy.client().say("LOCKSTEP TXN RESOLVE b0-1 FORGET");
    eventually("all is well again", PATIENCE, || {
        proxy.metric("lockstep_consistency_ratio_mean", "") == 1.0
    });
}

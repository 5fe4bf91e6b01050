//! What operators see is what happened: each metric moves when its cause is there, and only a
//! silent client is disconnected.

use std::time::Duration;

use crate::running::until;
use crate::support::{Client, Cluster, Options, Proxy, encode, key_on, keys_on};

const SHARDS: usize = 3;

fn started(settings: &[(&str, &str)]) -> Cluster {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Cluster::start(&Options {
        proxy: settings.iter().map(own).collect(),
        ..Options::default()
    })
}

fn proxy(cluster: &Cluster) -> &Proxy {
    &cluster.proxies()[0]
}

/// Waits until a metric (labels: those that contain `label`) has this value.
fn reaches(proxy: &Proxy, name: &str, label: &str, value: f64) {
    until(&format!("{name} {label} is {value}"), || {
        proxy.metric(name, label) == value
    });
}

/// Waits until it is above zero: what is published from a worker's tick comes a little later.
fn moves(proxy: &Proxy, name: &str, label: &str) {
    until(&format!("{name} {label} moves"), || {
        proxy.metric(name, label) > 0.0
    });
}

/// The error kinds moved by `act`, and by how much.
fn errors_of(proxy: &Proxy, act: impl FnOnce()) -> Vec<(&'static str, f64)> {
    const KINDS: [&str; 9] = [
        "protocol",
        "command",
        "cross_slot",
        "shard_down",
        "reply_lost",
        "aborted",
        "outcome_unknown",
        "replies_lost",
        "limit",
    ];
    let read = || KINDS.map(|kind| proxy.metric("lockstep_errors_total", &format!("\"{kind}\"")));
    let before = read();
    act();
    let moved = KINDS.into_iter().zip(read().into_iter().zip(before));
    let moved = moved.map(|(kind, (now, before))| (kind, now - before));
    moved.filter(|(_, by)| *by != 0.0).collect()
}

fn transfer(client: &mut Client, keys: &[String]) {
    client.say("MULTI");
    for key in keys {
        client.say(&format!("INCR {key}"));
    }
    client.say("EXEC").elements();
}

#[test]
fn every_family_of_commands_and_both_kinds_of_transactions_count() {
    let cluster = started(&[]);
    let (proxy, mut client) = (proxy(&cluster), cluster.client());
    let keys: Vec<_> = (0..SHARDS)
        .map(|shard| key_on("k", shard, SHARDS))
        .collect();
    let all = keys.join(" ");
    client.say(&format!("SET {} 1", keys[0]));
    client.say(&format!("GET {}", keys[0]));
    client.say("PING");
    client.say(&format!("MGET {all}"));
    client.say("NOSUCH");
    transfer(&mut client, &keys[..1]);
    let single = "scope=\"single\",outcome=\"committed\"";
    reaches(proxy, "lockstep_transactions_total", single, 1.0);
    // A split read may have been repeated behind locks, and count.
    let distributed = "scope=\"distributed\",outcome=\"committed\"";
    let counts = [
        ("lockstep_transactions_total", distributed, 1.0),
        ("lockstep_transaction_participants_sum", "", SHARDS as f64),
        ("lockstep_transaction_attempts_count", "", 1.0),
        ("lockstep_lock_wait_seconds_count", "", 1.0),
    ];
    let before = counts.map(|(name, label, _)| proxy.metric(name, label));
    transfer(&mut client, &keys);
    for ((name, label, by), before) in counts.into_iter().zip(before) {
        reaches(proxy, name, label, before + by);
    }
    for family in ["read", "write", "transaction", "local", "split", "refused"] {
        moves(proxy, "lockstep_commands_total", &format!("\"{family}\""));
    }
    for step in ["prepare", "apply", "release", "total"] {
        let label = format!("step=\"{step}\"");
        moves(proxy, "lockstep_transaction_step_seconds_count", &label);
    }
    for name in ["received_bytes", "sent_bytes", "writes"] {
        moves(proxy, &format!("lockstep_client_{name}_total"), "");
    }
    for shard in cluster.shards() {
        for name in ["requests", "writes", "sent_bytes", "received_bytes"] {
            moves(
                proxy,
                &format!("lockstep_shard_{name}_total"),
                &shard.address(),
            );
        }
        moves(
            proxy,
            "lockstep_shard_batch_requests_count",
            &shard.address(),
        );
        moves(
            proxy,
            "lockstep_shard_latency_seconds_count",
            &shard.address(),
        );
        reaches(proxy, "lockstep_shard_up", &shard.address(), 1.0);
        reaches(
            proxy,
            "lockstep_shard_inflight_requests",
            &shard.address(),
            0.0,
        );
        reaches(proxy, "lockstep_shard_queue_bytes", &shard.address(), 0.0);
    }
    reaches(proxy, "lockstep_transactions_in_doubt", "", 0.0);
}

#[test]
fn errors_count_once_each_and_by_their_kind() {
    let cluster = started(&[]);
    let (proxy, mut client) = (proxy(&cluster), cluster.client());
    let (a, b) = (key_on("a", 0, SHARDS), key_on("b", 1, SHARDS));
    for (line, kind) in [
        ("NOSUCH x".to_owned(), "command"),
        ("GET".to_owned(), "command"),
        ("EXEC".to_owned(), "command"),
        ("SELECT 99".to_owned(), "command"),
        ("SET __lockstep:x 1".to_owned(), "command"),
        (format!("LMPOP 2 {a} {b} LEFT"), "cross_slot"),
    ] {
        let moved = errors_of(proxy, || {
            assert!(client.say(&line).error().is_some(), "{line}")
        });
        assert_eq!(moved, [(kind, 1.0)], "{line}");
    }
    let moved = errors_of(proxy, || {
        client.say("MULTI");
        client.say("NOSUCH");
        client.say("EXEC");
    });
    assert_eq!(moved, [("command", 1.0), ("aborted", 1.0)]);
    // The shard's own error is no business of ours.
    client.say(&format!("SET {a} text"));
    let moved = errors_of(proxy, || {
        assert!(client.say(&format!("INCR {a}")).error().is_some())
    });
    assert_eq!(moved, []);
    let moved = errors_of(proxy, || {
        cluster.client().send(b"*1\r\n!\r\n").unwrap();
        moves(proxy, "lockstep_errors_total", "\"protocol\"");
    });
    assert_eq!(moved, [("protocol", 1.0)]);
}

#[test]
fn limits_count_when_they_are_hit() {
    let cluster = started(&[
        ("clients-max", "2"),
        ("args-max", "16"),
        ("bulk-bytes-max", "1kb"),
        ("inline-bytes-max", "64"),
        ("client-inflight-max", "2"),
    ]);
    let proxy = proxy(&cluster);
    let hit = |limit: &str| {
        moves(proxy, "lockstep_limits_hit_total", &format!("\"{limit}\""));
    };
    for (bytes, limit) in [
        (&b"*17\r\n"[..], "args"),
        (b"*1\r\n$2000\r\n", "bulk_bytes"),
        (&[b'x'; 100], "inline_bytes"),
    ] {
        let mut client = cluster.client();
        client.send(bytes).unwrap();
        hit(limit);
        assert!(client.is_closed_within(Duration::from_secs(5)), "{limit}");
        reaches(proxy, "lockstep_clients_connected", "", 0.0);
    }
    let mut client = cluster.client();
    let get = encode(&["GET", "k"]);
    client.send(&get.repeat(50)).unwrap();
    (0..50).for_each(|_| assert!(client.read().unwrap().value.error().is_none()));
    hit("client_inflight");
    let _second = cluster.client();
    reaches(proxy, "lockstep_clients_connected", "", 2.0);
    let mut third = cluster.client();
    assert!(third.read().unwrap().value.error().is_some());
    hit("clients");
    reaches(proxy, "lockstep_errors_total", "\"limit\"", 4.0);
}

#[test]
fn a_conflict_shows_as_a_wait_and_a_limit() {
    // Two proxies: inside one, transactions on the same keys do not meet on the shards.
    let wait = ("lock-wait-ms".to_owned(), "150".to_owned());
    let cluster = Cluster::start(&Options {
        proxies: 2,
        proxy: vec![
            wait,
            ("lock-ttl-ms".to_owned(), "30000".to_owned()),
            ("decision-retention-ms".to_owned(), "120000".to_owned()),
        ],
        ..Options::default()
    });
    cluster.expect_log("");
    let keys: Vec<_> = (0..2).map(|shard| key_on("c", shard, SHARDS)).collect();
    let (mut first, mut second) = (cluster.client_at(0), cluster.client_at(1));
    // The first one's prepare is done on one shard and waits for ever at the other.
    cluster.shards()[1].pause();
    first.say("MULTI");
    keys.iter()
        .for_each(|key| drop(first.say(&format!("INCR {key}"))));
    first.send(&encode(&["EXEC"])).unwrap();
    let mut direct = cluster.shards()[0].client();
    until("the first key is locked", || {
        direct.say("HLEN __lockstep:index") != direct.say("HLEN __lockstep:nothing")
    });
    let other = key_on("d", 2, SHARDS);
    second.say("MULTI");
    second.say(&format!("INCR {}", keys[0]));
    second.say(&format!("INCR {other}"));
    assert!(second.say("EXEC").error().is_some());
    let proxy = &cluster.proxies()[1];
    moves(proxy, "lockstep_lock_conflicts_total", "");
    reaches(proxy, "lockstep_limits_hit_total", "\"lock_wait\"", 1.0);
    reaches(proxy, "lockstep_errors_total", "\"aborted\"", 1.0);
    reaches(proxy, "lockstep_lock_wait_seconds_count", "", 1.0);
    cluster.shards()[1].resume();
}

#[test]
fn a_lost_shard_shows_in_errors_and_on_readyz_but_the_proxy_stays_ready() {
    let mut cluster = started(&[("reconnect-backoff-max-ms", "100")]);
    cluster.expect_log("shard");
    let address = cluster.shards()[1].address();
    let (lost, kept) = (key_on("k", 1, SHARDS), key_on("k", 0, SHARDS));
    let mut client = cluster.client();
    let mut waiting = cluster.client();
    // An answer that never comes: the shard is stopped, then gone.
    cluster.shards()[1].pause();
    waiting.send(&encode(&["GET", &lost])).unwrap();
    moves(
        proxy(&cluster),
        "lockstep_shard_inflight_requests",
        &address,
    );
    cluster.shard_mut(1).kill();
    assert!(waiting.read().unwrap().value.error().is_some());
    let proxy_now = proxy(&cluster);
    // Whether it had been written when the shard went is a matter of microseconds.
    until("the lost answer is counted", || {
        let count = |kind| proxy_now.metric("lockstep_errors_total", kind);
        count("\"reply_lost\"") + count("\"shard_down\"") == 1.0
    });
    reaches(proxy_now, "lockstep_shard_up", &address, 0.0);
    reaches(proxy_now, "lockstep_shard_inflight_requests", &address, 0.0);
    let moved = errors_of(proxy_now, || {
        assert!(client.say(&format!("GET {lost}")).error().is_some());
        assert!(client.say(&format!("MGET {lost} {kept}")).error().is_some());
    });
    assert_eq!(moved, [("shard_down", 2.0)]);
    let moved = errors_of(proxy_now, || {
        client.say("MULTI");
        client.say(&format!("INCR {lost}"));
        assert!(client.say("EXEC").error().is_some());
    });
    assert_eq!(moved, [("aborted", 1.0)]);
    assert!(client.say(&format!("GET {kept}")).error().is_none());
    let answer = proxy_now.http_get("/readyz");
    let note = format!("\r\n\r\nready\nshard {address}: ");
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains(&note),
        "{answer}"
    );
    cluster.shard_mut(1).restart();
    let proxy_now = proxy(&cluster);
    reaches(proxy_now, "lockstep_shard_up", &address, 1.0);
    until("nothing is noted", || {
        proxy_now.http_get("/readyz").ends_with("ready\n")
    });
}

#[test]
fn only_who_is_silent_and_owed_nothing_is_disconnected() {
    let cluster = started(&[("idle-timeout-ms", "2000")]);
    let (mut silent, mut waiting, mut talking) =
        (cluster.client(), cluster.client(), cluster.client());
    silent.say("PING");
    let list = keys_on("list", 2, SHARDS, 1).remove(0);
    waiting.send(&encode(&["BLPOP", &list, "0"])).unwrap();
    until("the silent client is sent away", || {
        talking.say("PING");
        proxy(&cluster).metric("lockstep_limits_hit_total", "idle_timeout") >= 1.0
    });
    assert!(silent.is_closed_within(Duration::from_secs(5)));
    talking.say(&format!("RPUSH {list} x"));
    assert_eq!(waiting.read().unwrap().value.elements().len(), 2);
}

//! `start-without-shards`: the proxy serves what there is, and says what there is not.

use crate::support::{Proxy, Redis, eventually, key_on};
use std::time::Duration;

const SHARDS: usize = 3;
const SOON: Duration = Duration::from_secs(5);

fn settings() -> Vec<(String, String)> {
    let settings = [
        ("start-without-shards", "true"),
        ("connect-timeout-ms", "300"),
        ("reconnect-backoff-max-ms", "100"),
    ];
    settings
        .map(|(name, value)| (name.into(), value.into()))
        .into()
}

#[test]
fn with_one_shard_away() {
    let mut shards: Vec<Redis> = (0..SHARDS).map(|_| Redis::start_durable(&[])).collect();
    let addresses: Vec<String> = shards.iter().map(Redis::address).collect();
    drop(Proxy::start(&addresses, &[]));
    shards[1].kill();
    let proxy = Proxy::start(&addresses, &settings());
    proxy.expect_log("shard");
    let ready = proxy.http_get("/readyz");
    assert!(
        ready.starts_with("HTTP/1.1 200") && ready.contains(&addresses[1]),
        "{ready}"
    );
    let mut client = proxy.client();
    let (here, away) = (key_on("a", 0, SHARDS), key_on("a", 1, SHARDS));
    assert_eq!(client.say(&format!("SET {here} 1")).to_string(), "+OK");
    assert!(client.say(&format!("SET {away} 1")).error().is_some());
    shards[1].restart();
    eventually("the shard is used", SOON, || {
        proxy.client().say(&format!("SET {away} 1")).to_string() == "+OK"
    });
    eventually("nothing is said of it any more", SOON, || {
        proxy.http_get("/readyz").ends_with("ready\n")
    });
}

/// One that comes later and is of another map is not served.
#[test]
fn with_a_stranger_that_comes_later() {
    let mut shards: Vec<Redis> = (0..SHARDS).map(|_| Redis::start_durable(&[])).collect();
    let addresses: Vec<String> = shards.iter().map(Redis::address).collect();
    drop(Proxy::start(&addresses, &[]));
    shards[1]
        .client()
        .call(&["SET", "__lockstep:map", "other 1 3 crc16/16384"]);
    shards[1].kill();
    let proxy = Proxy::start(&addresses, &settings());
    proxy.expect_log("shard");
    shards[1].restart();
    let away = key_on("a", 1, SHARDS);
    std::thread::sleep(Duration::from_millis(700));
    let value = proxy.client().say(&format!("SET {away} 1"));
    assert!(value.error().is_some(), "{value}");
    assert_eq!(
        shards[1].client().value(&["EXISTS", &away]).integer(),
        Some(0)
    );
}

/// Nobody notes a map yet: all are needed.
#[test]
fn the_first_start_waits_for_all() {
    let mut shards: Vec<Redis> = (0..SHARDS).map(|_| Redis::start_durable(&[])).collect();
    let addresses: Vec<String> = shards.iter().map(Redis::address).collect();
    shards[1].kill();
    let mut proxy = Proxy::prepared(&addresses, &settings());
    proxy.expect_log("shard");
    proxy.launch();
    eventually("it says what it waits for", SOON, || {
        proxy.log().contains("waiting for all of them")
    });
    assert!(proxy.http_get("/readyz").starts_with("HTTP/1.1 503"));
    shards[1].restart();
    eventually("it serves", SOON, || {
        proxy.http_get("/readyz").starts_with("HTTP/1.1 200")
    });
    let away = key_on("a", 1, SHARDS);
    eventually("it takes clients", SOON, || {
        crate::support::Client::connect(proxy.port())
            .is_ok_and(|mut client| client.say(&format!("SET {away} 1")).to_string() == "+OK")
    });
}

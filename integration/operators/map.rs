//! All lockstep before the same shards must have the same map of them.

use std::process::Command;
use std::time::Duration;

use crate::plant::{Plan, Shards};
use crate::support::{Proxy, eventually_with, key_on};

/// Starts lockstep before these shards; what it says when it refuses.
fn refusal(addresses: &[String]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_lockstep"))
        .args(["--listen", "127.0.0.1:0", "--metrics-listen", ""])
        .args(addresses.iter().flat_map(|shard| ["--shard", shard]))
        .env_clear()
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

/// P1: another order, a shard missing or one too many would look for keys where they are not.
#[test]
fn who_has_another_map_is_refused() {
    let shards = Shards::start(4);
    let all = shards.addresses();
    let of = |numbers: &[usize]| -> Vec<String> {
        numbers.iter().map(|number| all[*number].clone()).collect()
    };
    let proxy = Proxy::start(&of(&[0, 1, 2]), &[]);
    for (numbers, here, noted) in [
        (&[1, 0, 2][..], "is number 0 of 3 here", "number 1 of 3"),
        (&[0, 1], "is number 0 of 2 here", "number 0 of 3"),
        (&[0, 1, 2, 3], "is number 0 of 4 here", "number 0 of 3"),
        (&[3, 1, 0], "is number 2 of 3 here", "number 0 of 3"),
    ] {
        let said = refusal(&of(numbers));
        assert!(said.contains(here) && said.contains(noted), "{said}");
        let said = shards.lockstep_over(&["map", "show"], &of(numbers));
        said.expect(1, &[here, noted]);
        let said = shards.lockstep_over(&["audit"], &of(numbers));
        said.expect(1, &[here, noted]);
    }
    let shown = shards.lockstep_over(&["map", "show"], &of(&[0, 1, 2]));
    shown.expect(0, &["notes that it is number 2 of 3"]);
    drop(proxy);
}

/// P1: whoever is first names the map; nobody who starts at the same time has another.
#[test]
fn all_who_start_at_once_agree() {
    let shards = Shards::start(3);
    let addresses = shards.addresses();
    let proxies: Vec<Proxy> = std::thread::scope(|scope| {
        let start = || Proxy::start(&addresses, &[]);
        let starting: Vec<_> = (0..3).map(|_| scope.spawn(start)).collect();
        let started = starting.into_iter().map(|thread| thread.join());
        started.map(|proxy| proxy.expect("it starts")).collect()
    });
    for (number, proxy) in proxies.iter().enumerate() {
        for shard in 0..3 {
            let key = key_on(&format!("k{number}"), shard, 3);
            let said = proxy.client().say(&format!("SET {key} 1"));
            assert_eq!(said.to_string(), "+OK");
        }
    }
    shards.lockstep(&["map", "show"]).expect(0, &[]);
}

/// I1: the map is not changed under a transaction, nor is one resolved by another map.
#[test]
fn a_map_is_adopted_when_nothing_is_in_doubt() {
    let shards = Shards::start(2);
    let proxy = shards.proxy(&[]);
    let mut turned = shards.addresses();
    turned.reverse();
    let said = shards.lockstep_over(&["map", "adopt"], &turned);
    said.expect(1, &["a lockstep is connected to it", "stop every lockstep"]);
    drop(proxy);
    shards.prepare_all(Plan::overdue("b0-1", &[0, 1]));
    let said = shards.lockstep_over(&["txn", "resolve", "b0-1"], &turned);
    said.expect(1, &["is number 0 of 2 here"]);
    let said = shards.lockstep_over(&["map", "adopt"], &turned);
    said.expect(1, &["transactions that are not finished"]);
    shards.lockstep(&["txn", "resolve", "b0-1"]).expect(0, &[]);
    let said = shards.lockstep_over(&["map", "adopt"], &turned);
    said.expect(0, &["number 1 of 2"]);
    assert!(refusal(&shards.addresses()).contains("is number 0 of 2 here"));
    drop(Proxy::start(&turned, &[]));
}

/// A shard that notes another map is not used from the next connection on.
#[test]
fn a_shard_of_another_map_is_not_used() {
    let shards = Shards::start(2);
    let proxy = shards.proxy(&[]);
    proxy.expect_log("shard");
    let key = key_on("k", 1, 2);
    let mut client = proxy.client();
    assert_eq!(client.say(&format!("SET {key} 1")).to_string(), "+OK");
    let mut direct = shards.client(1);
    let noted = direct.value(&["GET", "__lockstep:map"]);
    direct.call(&["SET", "__lockstep:map", "00 0 1 crc16/16384"]);
    direct.say("CLIENT KILL TYPE normal SKIPME yes");
    let limit = Duration::from_secs(10);
    eventually_with("it is refused", limit, || {
        let said = client.say(&format!("GET {key}")).to_string();
        said.contains("another shard map").then_some(()).ok_or(said)
    });
    let noted = String::from_utf8_lossy(noted.bytes().expect("a note")).into_owned();
    direct.call(&["SET", "__lockstep:map", &noted]);
    eventually_with("it is served again", limit, || {
        let said = client.value(&["GET", &key]);
        (said.bytes() == Some(b"1")).then_some(()).ok_or(said)
    });
}

/// A shard that keeps nothing on disk comes back empty, without its note. That is no reason to
/// keep it out; and it notes the same as before, so that others still find the map.
#[test]
fn a_shard_that_comes_back_empty_is_used_again() {
    let mut shards = Shards::start(2);
    let proxy = shards.proxy(&[]);
    proxy.expect_log("shard");
    let note = |shards: &Shards| shards.client(1).value(&["GET", "__lockstep:map"]);
    let noted = note(&shards);
    shards.servers[1].restart();
    let key = key_on("k", 1, 2);
    let mut client = proxy.client();
    eventually_with("it is served again", Duration::from_secs(10), || {
        let said = client.say(&format!("SET {key} 1")).to_string();
        (said == "+OK").then_some(()).ok_or(said)
    });
    assert_eq!(note(&shards), noted);
    drop(proxy);
    shards.servers[0].restart();
    drop(shards.proxy(&[]));
    assert_eq!(note(&shards), noted);
    shards
        .lockstep(&["map", "show"])
        .expect(0, &["number 0 of 2"]);
}

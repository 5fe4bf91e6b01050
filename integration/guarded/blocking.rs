//! Commands that wait for data over several slots of one shard: nothing is lost, nothing is taken
//! twice, and none of it happens while a slot is settling.

use super::support::{Client, Cluster, Options, Value, key_on, keys_on};
use super::{LIMIT, ONE_AT_A_TIME, SHARDS, seconds, words};
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// P3: they answer as one server would, also when there is nothing.
#[test]
fn they_wait_and_answer_as_one_server() {
    let cluster = Cluster::start(&Options::default());
    let keys = keys_on("patient:", 0, SHARDS, 2);
    let (from, to) = (&keys[0], &keys[1]);
    let mut client = cluster.client();
    let began = Instant::now();
    let nothing = client.call(&["BLMOVE", from, to, "LEFT", "RIGHT", "0.2"]);
    assert_eq!(nothing.text(), r"*-1\r\n");
    assert_eq!(client.call(&["BLPOP", from, to, "0.1"]).text(), r"*-1\r\n");
    assert!(began.elapsed() >= Duration::from_millis(300));
    client.value(&["RPUSH", from, "a", "b"]);
    let moved = client.value(&["BLMOVE", from, to, "LEFT", "RIGHT", "5"]);
    assert_eq!(moved, Value::Bulk(b"a".to_vec()));
    let popped = client.value(&["BRPOP", from, to, "5"]);
    assert_eq!(popped.elements()[1], Value::Bulk(b"b".to_vec()));
    client.value(&["SET", from, "text"]);
    let wrong = client.value(&["BLMOVE", from, to, "LEFT", "RIGHT", "0"]);
    assert!(
        wrong
            .error()
            .is_some_and(|text| text.starts_with("WRONGTYPE"))
    );
    let bad = client.value(&["BLPOP", from, to, "never"]);
    assert!(bad.error().is_some(), "{bad}");
}

/// P1: every element arrives once, through two proxies, beside transactions over several shards.
#[test]
fn nothing_is_lost_and_nothing_taken_twice() {
    let _turn = ONE_AT_A_TIME.lock();
    let cluster = Cluster::start(&Options {
        proxies: 2,
        ..Options::default()
    });
    let keys = keys_on("moved:", 0, SHARDS, 2);
    let elsewhere = key_on("elsewhere:", 1, SHARDS);
    let (pushed, taken) = (AtomicU64::new(0), Mutex::new(HashSet::new()));
    let end = Instant::now() + seconds();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let mut client = cluster.client_at(number % 2);
            let (keys, elsewhere, pushed, taken) = (&keys, &elsewhere, &pushed, &taken);
            scope.spawn(move || {
                while Instant::now() < end {
                    if number < 2 {
                        let value = pushed.fetch_add(1, Ordering::Relaxed).to_string();
                        push(&mut client, &keys[0], elsewhere, &value);
                    } else if number < 5 {
                        client.value(&["BLMOVE", &keys[0], &keys[1], "LEFT", "RIGHT", "0.1"]);
                    } else {
                        pop(&mut client, keys, taken);
                    }
                }
            });
        }
    });
    let mut client = cluster.client();
    while pop(&mut client, &keys, &taken) {}
    cluster.wait_settled(LIMIT);
    let (pushed, taken) = (
        pushed.into_inner(),
        taken.into_inner().expect("not poisoned"),
    );
    println!("{pushed} elements pushed, {} taken", taken.len());
    assert!(pushed > 50, "only {pushed}");
    assert_eq!(taken.len() as u64, pushed, "P1: lost");
}

fn push(client: &mut Client, list: &str, elsewhere: &str, value: &str) {
    let reply = client.try_transaction(&[
        words(["RPUSH", list, value]),
        words(["SET", elsewhere, value]),
    ]);
    assert!(reply.expect("a reply").error().is_none());
}

fn pop(client: &mut Client, keys: &[String], taken: &Mutex<HashSet<Vec<u8>>>) -> bool {
    let reply = client.value(&["BLPOP", &keys[1], &keys[0], "0.1"]);
    let Value::Array(pair) = reply else {
        return false;
    };
    let value = pair[1].bytes().expect("a value").to_vec();
    let is_new = taken.lock().expect("not poisoned").insert(value);
    assert!(is_new, "P1: taken twice");
    true
}

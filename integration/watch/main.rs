//! P2, WATCH: EXEC runs only if nothing that is watched has changed, whichever shards that is on
//! and whichever proxy the change came through.
//!
//! What WATCH answers in every form is compared with one Redis in `oracle` (`scripts/watch.txt`).

// A test program has no outside that could reach its items.
#![allow(unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod counter;
mod fence;
mod limits;

use std::time::Duration;
use support::{Client, Cluster, Options, Value, eventually, key_on, slot_of};

const SHARDS: usize = 3;
const LIMIT: Duration = Duration::from_secs(10);
/// How long something is watched that must not happen.
const WHILE: Duration = Duration::from_millis(150);

fn cluster(proxies: usize, settings: &[(&str, &str)]) -> Option<Cluster> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let cluster = Cluster::start(&Options {
        shards: SHARDS,
        proxies,
        proxy: settings.iter().map(owned).collect(),
        ..Options::default()
    });
    cluster.is_lockstep().then_some(cluster)
}

/// A key on each of the shards.
fn keys() -> [String; SHARDS] {
    std::array::from_fn(|shard| key_on("w", shard, SHARDS))
}

fn ok(client: &mut Client, line: &str) {
    assert_eq!(
        client.say(line),
        Value::Simple(b"OK".to_vec()),
        "{line} is answered OK"
    );
}

/// EXEC of a queue that writes these keys; whether it ran.
fn exec(client: &mut Client, written: &[&str]) -> bool {
    ok(client, "MULTI");
    for key in written {
        client.say(&format!("SET {key} mine"));
    }
    match client.say("EXEC") {
        Value::Array(replies) => {
            assert_eq!(replies.len(), written.len());
            true
        }
        Value::Nil => false,
        other => panic!("EXEC: {other}"),
    }
}

/// Never unguarded: a watching connection that is lost makes EXEC nil, once.
#[test]
fn a_lost_watching_connection_makes_exec_nil() {
    let Some(cluster) = cluster(1, &[]) else {
        return;
    };
    for pattern in ["shard", "connection"] {
        cluster.expect_log(pattern);
    }
    let [a, b, c] = &keys();
    let (one, two) = (format!("WATCH {a}"), format!("WATCH {a} {b}"));
    let cases: [(&str, &[&str]); 4] = [(&one, &[a]), (&one, &[b, c]), (&two, &[c]), (&two, &[])];
    for (watch, written) in cases {
        let mut client = cluster.client();
        ok(&mut client, watch);
        let mut shard = cluster.shards()[0].client();
        assert!(shard.value(&["CLIENT", "KILL", "TYPE", "normal"]).integer() > Some(0));
        eventually("the shared connections are back", LIMIT, || {
            client.say(&format!("GET {a}")).error().is_none()
        });
        assert!(!exec(&mut client, written), "{watch}, {written:?}");
        ok(&mut client, watch);
        assert!(exec(&mut client, written), "again: {watch}, {written:?}");
    }
    cluster.wait_settled(LIMIT);
}

/// A shard that cannot be reached when WATCH comes: the WATCH says so, and EXEC is nil.
#[test]
fn a_watch_that_failed_makes_exec_nil() {
    let Some(mut cluster) = cluster(1, &[]) else {
        return;
    };
    for pattern in ["shard", "connect", "transaction"] {
        cluster.expect_log(pattern);
    }
    let [a, b, c] = &keys();
    cluster.shard_mut(0).kill();
    let mut client = cluster.client();
    for watch in [format!("WATCH {a}"), format!("WATCH {b} {a}")] {
        let error = client.say(&watch).error().expect("an error");
        assert!(error.contains("the keys are not watched"), "{error}");
        ok(&mut client, &format!("WATCH {b}"));
        assert!(!exec(&mut client, &[c]), "{watch}");
    }
    ok(&mut client, &format!("WATCH {b} {c}"));
    assert!(exec(&mut client, &[b]), "who does not need it is served");
}

/// The hold rule: `+OK` does not leave while a transaction that is applied on a watched slot is
/// not applied everywhere; nor does the nil that shows what it wrote.
#[test]
fn replies_about_settling_slots_are_held() {
    let Some(cluster) = cluster(1, &[]) else {
        return;
    };
    let [a, b, _] = &keys();
    let slot = slot_of(a.as_bytes()).to_string();
    let mut shard = cluster.shards()[0].client();
    for (watched, written) in [(vec![a], vec![a]), (vec![a, b], vec![b])] {
        let mut client = cluster.client();
        let mut words = vec!["WATCH"];
        words.extend(watched.iter().map(|key| key.as_str()));
        settles(&mut shard, &slot);
        held(&mut client, &mut shard, &slot, &words, "+OK\r\n");

        shard.call(&["SET", a, "other"]);
        settles(&mut shard, &slot);
        ok(&mut client, "MULTI");
        client.say(&format!("SET {} mine", written[0]));
        held(&mut client, &mut shard, &slot, &["EXEC"], "*-1\r\n");
    }
    cluster.wait_settled(LIMIT);
}

fn settles(shard: &mut Client, slot: &str) {
    shard.call(&["HSET", "__lockstep:settling", slot, "t0"]);
}

/// The reply comes, but not before the slot has settled.
fn held(client: &mut Client, shard: &mut Client, slot: &str, words: &[&str], reply: &str) {
    client.send(&support::encode(words)).expect("sent");
    let (early, _) = client.drain(WHILE);
    assert!(early.is_empty(), "{words:?} was answered at once");
    shard.call(&["HDEL", "__lockstep:settling", slot]);
    client.reply_limit(LIMIT);
    let got = client.read().expect("a reply");
    assert_eq!(got.raw, reply.as_bytes(), "{words:?}");
}

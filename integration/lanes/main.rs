//! Every protocol and every database keeps the promises of RESP2 in database 0: what is isolated
//! is held, what is promised is recovered, and nothing runs in another database than its own.

// A test program has no outside that could reach its items.
#![allow(unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

use bytes::{Bytes, BytesMut};
use lockstep::resp::{CommandScanner, Limits, Protocol, Scan};
use lockstep::txn::plan::Plan;
use lockstep::txn::script::{self, Prepare, answer};
use lockstep::txn::{Part, Rule, TxnId, Vote};
use std::io::ErrorKind;
use std::time::{Duration, Instant};
use support::{Client, Cluster, Options, Value, encode, eventually, slot_of, spread};

const LANES: [(&str, &str); 4] = [("2", "0"), ("3", "0"), ("2", "5"), ("3", "5")];
const PATIENCE: Duration = Duration::from_secs(20);
const SETTLING: &str = "__lockstep:settling";

fn client(cluster: &Cluster, (protocol, db): (&str, &str)) -> Client {
    let mut client = cluster.client();
    client.call(&["HELLO", protocol]);
    client.call(&["SELECT", db]);
    client
}

/// P2, the hold rule: as long as a slot settles, nobody is shown anything of it, in whatever
/// database and protocol; and what is in other slots is not held up.
#[test]
fn replies_are_held_in_every_lane() {
    let cluster = Cluster::start(&Options::default());
    let [held, free] = ["{held}k", "{free}k"];
    for lane in LANES {
        let (mut one, mut other) = (client(&cluster, lane), client(&cluster, lane));
        let home = support::shard_of(held.as_bytes(), 3);
        let mut shard = cluster.shards()[home].client();
        let slot = slot_of(held.as_bytes()).to_string();
        assert_eq!(one.say(&format!("SET {held} 1")).to_string(), "+OK");
        shard.call(&["HSET", SETTLING, &slot, "t1"]);
        one.send(&encode(&["GET", held])).expect("sent");
        one.reply_limit(Duration::from_millis(150));
        let early = one.read().expect_err("held");
        assert!(
            matches!(early.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            "{lane:?}: {early}"
        );
        assert_eq!(other.say(&format!("EXISTS {free}")), Value::Integer(0));
        shard.call(&["HDEL", SETTLING, &slot]);
        one.reply_limit(PATIENCE);
        let reply = one.read().expect("released");
        assert_eq!(reply.value.bytes(), Some(&b"1"[..]), "{lane:?}");
        one.say(&format!("DEL {held}"));
    }
}

/// A script that takes this server about so long, or longer.
fn script_of(duration: Duration, shard: &mut Client) -> String {
    let mut steps = 500_000_u64;
    loop {
        steps *= 2;
        let script = format!("local x = 0 for i = 1, {steps} do x = x + i end return x");
        let began = Instant::now();
        shard.call(&["EVAL", &script, "0"]);
        if began.elapsed() >= duration {
            return script;
        }
    }
}

/// A server that is busy with a script refuses what comes, SELECT too, until it is not: nothing
/// may then run in another database than the client's.
#[test]
fn a_busy_shard_runs_nothing_in_another_database() {
    let options = Options {
        shards: 1,
        ..Options::default()
    };
    let cluster = Cluster::start(&options);
    cluster.expect_log("");
    let mut shard = cluster.shards()[0].client();
    shard.call(&["CONFIG", "SET", "busy-reply-threshold", "5"]);
    let mut busy = cluster.shards()[0].client();
    let mut writers: Vec<Client> = LANES.iter().map(|lane| client(&cluster, *lane)).collect();
    let mut refused = 0;
    let script = script_of(Duration::from_millis(30), &mut shard);
    for round in 0..20 {
        busy.send(&encode(&["EVAL", &script, "0"])).expect("sent");
        for (number, writer) in writers.iter_mut().enumerate() {
            let db = LANES[number].1;
            let mut bytes = Vec::new();
            for each in 0..50 {
                let key = format!("db{db}:{round}:{number}:{each}");
                bytes.extend(encode(&["SET", &key, db]));
                bytes.extend(encode(&["MULTI"]));
                bytes.extend(encode(&["SELECT", db]));
                bytes.extend(encode(&["INCR", &format!("db{db}:counter")]));
                bytes.extend(encode(&["EXEC"]));
            }
            writer.send(&bytes).expect("sent");
        }
        for writer in &mut writers {
            for _ in 0..250 {
                let error = writer.read().expect("a reply").value.error();
                refused += usize::from(error.is_some_and(|text| text.contains("BUSY")));
            }
        }
        busy.read().expect("its end");
        // A connection that the shard was too busy to greet is tried again after a while only.
        for (number, writer) in writers.iter_mut().enumerate() {
            let db = LANES[number].1;
            let write = ["SET", &format!("db{db}:{round}:{number}"), db];
            eventually("the shard serves again", PATIENCE, || {
                writer.call(&write).value.error().is_none()
            });
        }
    }
    assert!(refused > 0, "the shard was never busy");
    for db in ["0", "5"] {
        shard.call(&["SELECT", db]);
        let keys = shard.value(&["KEYS", "db*"]);
        let start = format!("db{db}:");
        for key in keys.elements() {
            let key = String::from_utf8_lossy(key.bytes().expect("a name")).into_owned();
            assert!(key.starts_with(&start), "{key} in database {db}");
        }
        assert!(!keys.elements().is_empty());
    }
}

/// P1 over databases: what a dead coordinator has promised is applied where it was promised, by
/// whoever finds it.
#[test]
fn what_was_promised_in_other_databases_is_recovered() {
    let cluster = Cluster::start(&Options::default());
    let keys = spread("r", 3, 2);
    let (a, b) = (&keys[0], &keys[1]);
    let place = |key: &str, db| Part {
        shard: support::shard_of(key.as_bytes(), 3) as u16,
        db,
    };
    let mut plan = Plan::new(Protocol::Resp3);
    let queued = [(a, 0, "0"), (a, 7, "7"), (b, 3, "3"), (b, 0, "00")];
    for (key, db, value) in queued {
        add(&mut plan, place(key, db), &["SET", key, value]);
    }
    let branches = plan.take_branches();
    let parts: Vec<Part> = branches.iter().map(|branch| branch.part).collect();
    assert_eq!(
        parts,
        [place(a, 0), place(b, 0)],
        "a shard each, in database 0"
    );
    let id = TxnId::new("dead-1");
    for branch in branches {
        let intent = branch
            .intent
            .finish(branch.slots.iter().map(|slot: &Bytes| &slot[..]));
        let prepare = Prepare {
            id: &id,
            ttl_ms: 1,
            not_after_ms: u64::MAX >> 12,
            participants: &parts,
            watched: None,
            rule: Rule::Implicit,
            intent: &intent,
        };
        let mut request = BytesMut::new();
        prepare.append(&mut request);
        let mut shard = cluster.shards()[usize::from(branch.part.shard)].client();
        shard.call(&["SCRIPT", "LOAD", script::PREPARE.source()]);
        shard.send(&request).expect("sent");
        let voted = answer::vote(&shard.read().expect("a vote").raw);
        assert_eq!(voted.vote, Vote::Yes);
    }
    for (key, db, value) in queued {
        let mut client = client(&cluster, ("3", &db.to_string()));
        eventually("what was promised is there", PATIENCE, || {
            client.value(&["GET", key]).bytes() == Some(value.as_bytes())
        });
    }
    for (key, db) in [(a, "3"), (b, "7")] {
        let found = client(&cluster, ("2", db)).value(&["GET", key]);
        assert_eq!(found, Value::Nil, "{key} in database {db}");
    }
    cluster.wait_settled(PATIENCE);
}

fn add(plan: &mut Plan, place: Part, words: &[&str]) {
    let bytes = encode(words);
    let mut scanner = CommandScanner::new(Limits::default());
    assert!(matches!(scanner.scan(&bytes), Ok(Scan::Command { .. })));
    plan.add_whole(place, &scanner.command(&bytes), &[1]);
}

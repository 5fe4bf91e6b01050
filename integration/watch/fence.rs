//! The fence: no plain write comes between the check and the effect of an EXEC whose client
//! watches keys on several shards.

use crate::support::{Client, Cluster, Value, encode, eventually, number_from_env, spread};
use crate::{LIMIT, SHARDS, cluster, keys, ok};
use std::sync::atomic::{AtomicBool, Ordering};

/// Between the votes, which have checked what is watched, and the apply.
const STALL: &str = "coordinator-after-votes";
const FENCED: [(&str, &str); 1] = [("fence", "on")];

fn integer(client: &mut Client, key: &str) -> i64 {
    client.value(&["GET", key]).integer().unwrap_or_default()
}

/// WATCHes keys, and writes each of them one higher; whether that was done.
fn count_up(client: &mut Client, keys: &[&str]) -> bool {
    let mut watch = vec!["WATCH"];
    watch.extend(keys);
    assert_eq!(client.value(&watch), Value::Simple(b"OK".to_vec()));
    let next = |key: &&str| {
        let next = integer(client, key) + 1;
        vec!["SET".to_owned(), (*key).to_owned(), next.to_string()]
    };
    let queue: Vec<_> = keys.iter().map(next).collect();
    match client.try_transaction(&queue).expect("connected") {
        Value::Array(replies) => replies.len() == keys.len(),
        Value::Nil => false,
        other => panic!("{other}"),
    }
}

/// Somebody else's writes to a key, as they are sent, and how many replies there are.
fn writes(key: &str) -> [(Vec<u8>, usize); 4] {
    let script = "return redis.call('INCR', KEYS[1])";
    let exec = [
        encode(&["MULTI"]),
        encode(&["INCR", key]),
        encode(&["EXEC"]),
    ];
    let elsewhere = [
        encode(&["SELECT", "0"]),
        encode(&["EVAL", script, "1", key]),
    ];
    [
        (encode(&["INCR", key]), 1),
        (encode(&["EVAL", script, "1", key]), 1),
        (exec.concat(), 3),
        (elsewhere.concat(), 2),
    ]
}

/// What a key is after somebody's write and an EXEC that watched it, one each; the write comes
/// through another proxy while the EXEC is between its votes and its apply. `comes` waits for the
/// write to get where it can.
fn meet(cluster: &Cluster, key: &str, write: &(Vec<u8>, usize), comes: impl FnOnce()) -> i64 {
    let (mut watcher, mut other) = (cluster.client_at(0), cluster.client_at(1));
    let proxy = &cluster.proxies()[0];
    let elsewhere = &keys()[1];
    watcher.value(&["DEL", key, elsewhere]);
    proxy.arm(STALL);
    std::thread::scope(|scope| {
        let counted = scope.spawn(|| count_up(&mut watcher, &[key, elsewhere]));
        eventually("it has voted", LIMIT, || proxy.is_at(STALL));
        other.send(&write.0).expect("sent");
        comes();
        proxy.disarm(STALL);
        assert!(counted.join().expect("no panic"), "EXEC was not done");
    });
    other.reply_limit(LIMIT);
    for _ in 0..write.1 {
        let reply = other.read().expect("a reply");
        assert!(!reply.raw.starts_with(b"-"), "{}", reply.text());
    }
    integer(&mut other, key)
}

/// P2: without the fence such a write is executed at once, and overwritten; with it, it waits.
#[test]
fn no_write_comes_between_the_check_and_the_effect() {
    for (settings, expected) in [(&[][..], 1), (&FENCED[..], 2)] {
        let Some(cluster) = cluster(2, settings) else {
            return;
        };
        if !cfg!(debug_assertions) {
            return;
        }
        cluster.expect_log("transaction");
        let [key, _, _] = &keys();
        let is_fenced = expected == 2;
        for write in writes(key) {
            let mut shard = cluster.shards()[0].client();
            let second = &cluster.proxies()[1];
            let kept_out = || second.metric("lockstep_armed_runs_total", "result=\"kept_out\"");
            let before = kept_out();
            let comes = || {
                if is_fenced {
                    eventually("it is kept out", LIMIT, || kept_out() > before);
                    assert_eq!(integer(&mut shard, key), 0, "it was executed");
                } else {
                    eventually("it is executed", LIMIT, || integer(&mut shard, key) == 1);
                }
            };
            let found = meet(&cluster, key, &write, comes);
            let sent = String::from_utf8_lossy(&write.0).into_owned();
            assert_eq!(found, expected, "{settings:?}: {sent}");
        }
        cluster.wait_settled(LIMIT);
    }
}

/// What waits for data takes it as late as any write.
#[test]
fn nothing_is_taken_between_the_check_and_the_effect() {
    let Some(cluster) = cluster(2, &FENCED) else {
        return;
    };
    if !cfg!(debug_assertions) {
        return;
    }
    let [list, elsewhere, _] = &keys();
    let (mut watcher, mut other) = (cluster.client_at(0), cluster.client_at(1));
    let proxy = &cluster.proxies()[0];
    watcher.value(&["RPUSH", list, "one"]);
    proxy.arm(STALL);
    std::thread::scope(|scope| {
        let taken = scope.spawn(|| {
            ok(&mut watcher, &format!("WATCH {list} {elsewhere}"));
            let queue = [vec!["LPOP", list], vec!["SET", elsewhere, "1"]];
            watcher.try_transaction(&queue).expect("connected")
        });
        eventually("it has voted", LIMIT, || proxy.is_at(STALL));
        other.send(&encode(&["BLPOP", list, "0"])).expect("sent");
        let second = &cluster.proxies()[1];
        eventually("it is kept out", LIMIT, || {
            second.metric("lockstep_armed_runs_total", "result=\"kept_out\"") > 0.0
        });
        proxy.disarm(STALL);
        let taken = taken.join().expect("no panic");
        assert_eq!(taken.elements()[0], Value::Bulk(b"one".to_vec()));
    });
    cluster.client_at(0).value(&["RPUSH", list, "two"]);
    other.reply_limit(LIMIT);
    let reply = other.read().expect("a reply");
    assert!(reply.text().contains("two"), "{}", reply.text());
    cluster.wait_settled(LIMIT);
}

/// P2: every acknowledged INCR counts, and every EXEC that was done.
#[test]
fn every_update_counts_with_the_fence_up() {
    let Some(cluster) = cluster(2, &FENCED) else {
        return;
    };
    let each = number_from_env("LOCKSTEP_FENCE_COUNTS", 60) as i64;
    let [a, b, _] = &keys();
    let done = AtomicBool::new(false);
    let counted = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|number| {
                let (mut client, done, key) = (cluster.client_at(1), &done, [a, b][number % 2]);
                scope.spawn(move || {
                    let mut count = 0;
                    while !done.load(Ordering::Relaxed) {
                        assert!(client.value(&["INCR", key]).integer().is_some());
                        count += 1;
                        std::thread::sleep(std::time::Duration::from_millis(3));
                    }
                    (number % 2, count)
                })
            })
            .collect();
        let watchers: Vec<_> = (0..2)
            .map(|_| {
                let mut client = cluster.client_at(0);
                scope.spawn(move || {
                    let mut left = each;
                    while left > 0 {
                        left -= i64::from(count_up(&mut client, &[a, b]));
                    }
                })
            })
            .collect();
        watchers
            .into_iter()
            .for_each(|w| w.join().expect("no panic"));
        done.store(true, Ordering::Relaxed);
        let mut counted = [2 * each; 2];
        for writer in writers {
            let (index, count): (usize, i64) = writer.join().expect("no panic");
            counted[index] += count;
        }
        counted
    });
    let mut client = cluster.client();
    let found = [a, b].map(|key| integer(&mut client, key));
    println!("{counted:?}");
    assert_eq!(found, counted);
    cluster.wait_settled(LIMIT);
}

/// What one client pipelines to a shard runs in order, whichever way its writes take: transactions
/// over all shards are busy on other slots, so that some are handed back.
#[test]
fn a_pipeline_keeps_its_order_behind_the_fence() {
    let Some(cluster) = cluster(2, &FENCED) else {
        return;
    };
    let rounds = number_from_env("LOCKSTEP_FENCE_ROUNDS", 60);
    let done = AtomicBool::new(false);
    let busy = spread("busy:", SHARDS, SHARDS);
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (mut client, busy, done) = (cluster.client_at(number % 2), &busy, &done);
            scope.spawn(move || {
                let mut mset = vec!["MSET"];
                busy.iter().for_each(|key| mset.extend([key.as_str(), "1"]));
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(client.value(&mset), Value::Simple(b"OK".to_vec()));
                }
            });
        }
        let pipelines: Vec<_> = (0..4)
            .map(|number| {
                let mut client = cluster.client_at(number % 2);
                scope.spawn(move || {
                    (0..rounds).for_each(|round| pipeline(&mut client, number, round))
                })
            })
            .collect();
        let ended: Vec<_> = pipelines.into_iter().map(|p| p.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok));
    });
    let kept_out = |proxy: &crate::support::Proxy| {
        proxy.metric("lockstep_armed_runs_total", "result=\"kept_out\"")
    };
    let kept_out: f64 = cluster.proxies().iter().map(kept_out).sum();
    println!("{kept_out} handed back");
    assert!(kept_out > 0.0, "nothing was handed back");
    cluster.wait_settled(LIMIT);
}

/// A pipeline of writes, reads, EXECs and scripts, in which each reply tells how many came before.
fn pipeline(client: &mut Client, number: usize, round: u64) {
    let (key, other) = (format!("p:{number}:{round}"), format!("q:{number}:{round}"));
    let script = "return redis.call('INCR', KEYS[1])";
    let (mut commands, mut wanted) = (Vec::new(), Vec::new());
    let mut count = 0;
    for step in 0..40_u64 {
        let incr: Vec<&str> = match (step * 7 + round) % 11 {
            0 | 1 => vec!["GET", &key],
            2 => vec!["EVAL", script, "1", &key],
            3 => vec!["INCRBY", &other, "1"],
            4 => vec!["MULTI"],
            _ => vec!["INCR", &key],
        };
        match incr[0] {
            "GET" => wanted.push(Some(count)),
            "INCRBY" => wanted.push(None),
            "MULTI" => {
                commands.extend([vec!["MULTI"], vec!["INCR", &key]]);
                wanted.extend([None, None, None]);
                count += 1;
            }
            _ => {
                count += 1;
                wanted.push(Some(count));
            }
        }
        commands.push(if incr[0] == "MULTI" {
            vec!["EXEC"]
        } else {
            incr
        });
    }
    let replies = client.try_pipeline(&commands).expect("replies");
    for (at, (reply, wanted)) in replies.iter().zip(wanted).enumerate() {
        assert!(!reply.raw.starts_with(b"-"), "{}", reply.text());
        if let Some(wanted) = wanted {
            let got = reply.value.integer().unwrap_or_default();
            assert_eq!(got, wanted, "{at}: {:?}", commands[at]);
        }
    }
}

//! Commands that wait for data obey the same rule: who was given a value by a transaction finds
//! what else that transaction wrote.

use super::support::{Client, Value, key_on, number_from_env};
use super::{ONE_AT_A_TIME, SHARDS, cluster};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// P2 for BLPOP, which is often served by the transaction's own apply, and for BLMOVE.
#[test]
fn what_waited_for_a_transaction_finds_all_of_it() {
    let _turn = ONE_AT_A_TIME.lock();
    let cluster = cluster("strict");
    let seconds = number_from_env("LOCKSTEP_HISTORY_SECONDS", 3);
    let queue = key_on("queue:", 0, SHARDS);
    let others: Vec<String> = (1..SHARDS)
        .map(|shard| key_on("other:", shard, SHARDS))
        .collect();
    let (stop, found) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for number in 0..8 {
            let mut client = cluster.client_at(number % 3);
            let (queue, others, stop, found) = (&queue, &others, &stop, &found);
            scope.spawn(move || {
                let mut turn = 0;
                while !stop.load(Ordering::Relaxed) {
                    turn += 1;
                    if number < 3 {
                        write(&mut client, queue, others, &format!("{number}-{turn}"));
                    } else if let Some(value) = pop(&mut client, queue, number % 2 == 0) {
                        stop.fetch_or(!finds(&mut client, others, &value), Ordering::Relaxed);
                        found.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(seconds) && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let failed = stop.swap(true, Ordering::Relaxed);
        assert!(
            !failed,
            "P2: a value was popped, and its fellows were not there"
        );
    });
    let found = found.load(Ordering::Relaxed);
    println!("{found} values popped, all of them with their fellows");
    assert!(found > 100, "only {found} values");
}

/// The value goes into the queue first, the others are on other shards.
fn write(client: &mut Client, queue: &str, others: &[String], value: &str) {
    let set = |name: &String| words(&["SADD", name, value]);
    let mut commands = vec![words(&["RPUSH", queue, value])];
    commands.extend(others.iter().map(set));
    let reply = client.try_transaction(&commands).expect("a reply");
    assert!(reply.error().is_none(), "{reply}");
}

fn pop(client: &mut Client, queue: &str, moves: bool) -> Option<String> {
    let target = format!("{{{queue}}}:taken");
    let command = if moves {
        words(&["BLMOVE", queue, &target, "LEFT", "RIGHT", "0.2"])
    } else {
        words(&["BLPOP", queue, "0.2"])
    };
    let reply = client.value(&command);
    let value = match &reply {
        Value::Nil => return None,
        Value::Array(pair) => pair.last().and_then(Value::bytes),
        other => other.bytes(),
    };
    let value = value.unwrap_or_else(|| panic!("{command:?}: {reply}"));
    Some(String::from_utf8_lossy(value).into_owned())
}

fn finds(client: &mut Client, others: &[String], value: &str) -> bool {
    let mut all = others.iter().rev();
    all.all(|name| client.value(&words(&["SISMEMBER", name, value])) == Value::Integer(1))
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

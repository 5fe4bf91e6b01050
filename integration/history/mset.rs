//! Split commands: what one MSET or DEL over shards wrote is seen by an MGET as a whole.

use super::support::{Client, Value, number_from_env, spread};
use super::{ONE_AT_A_TIME, SHARDS, cluster};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest pause of a writer between two writes.
const PAUSE_US_MAX: u64 = 6_000;

/// P2 for split reads and writes.
#[test]
fn an_mset_is_seen_as_a_whole() {
    let _turn = ONE_AT_A_TIME.lock();
    let cluster = cluster("strict");
    let seconds = number_from_env("LOCKSTEP_HISTORY_SECONDS", 3);
    let keys = spread("whole:", SHARDS, 2 * SHARDS);
    let (stop, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for number in 0..9 {
            let (mut client, keys) = (cluster.client_at(number % 3), &keys);
            let (stop, reads) = (&stop, &reads);
            scope.spawn(move || {
                let mut turn = 0;
                while !stop.load(Ordering::Relaxed) {
                    turn += 1;
                    if number < 3 {
                        write(&mut client, keys, number, turn);
                        // Reads are consistent at once only while nobody writes; both ways of
                        // reading, that one and behind locks, are wanted.
                        std::thread::sleep(Duration::from_micros(turn * 7_919 % PAUSE_US_MAX));
                    } else if !read(&mut client, keys) {
                        stop.store(true, Ordering::Relaxed);
                        panic!("P2: an MGET saw half of an MSET or DEL");
                    } else {
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(seconds) && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let reads = reads.load(Ordering::Relaxed);
    println!("{reads} whole reads");
    assert!(reads > 100, "only {reads} reads");
}

fn write(client: &mut Client, keys: &[String], writer: usize, turn: u64) {
    let mut words;
    if turn.is_multiple_of(5) {
        words = vec!["DEL".to_owned()];
        words.extend(keys.iter().cloned());
    } else {
        words = vec!["MSET".to_owned()];
        for key in keys {
            words.extend([key.clone(), format!("{writer}-{turn}")]);
        }
    }
    let reply = client.value(&words);
    assert!(reply.error().is_none(), "{words:?}: {reply}");
}

/// Whether all values are the same.
fn read(client: &mut Client, keys: &[String]) -> bool {
    let mut words = vec!["MGET".to_owned()];
    words.extend(keys.iter().cloned());
    let reply = client.value(&words);
    let Value::Array(values) = &reply else {
        panic!("{words:?}: {reply}");
    };
    values.windows(2).all(|pair| pair[0] == pair[1])
}

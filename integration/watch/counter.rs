//! The oldest test of WATCH: counters that are read, and written one higher, by many at a time.

use crate::support::{Client, Value, number_from_env, spread};
use crate::{LIMIT, SHARDS, cluster};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const CLIENTS: usize = 10;
const PROXIES: usize = 2;
/// Until a client must have had its turn.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a client counts up.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Watches and writes one key: natively.
    One,
    /// Watches one, writes it and something on another shard: its shard decides.
    Decider,
    /// Watches and writes keys on two shards: each checks.
    Two,
    /// The same, with a reply that no script can carry.
    TwoNatively,
    /// Watches keys on three shards, writes two of them.
    Three,
}

impl Way {
    const ALL: [Way; 5] = [
        Way::One,
        Way::Decider,
        Way::Two,
        Way::TwoNatively,
        Way::Three,
    ];

    /// How many of the counters it counts up, and how many it watches.
    fn counters(self) -> (usize, usize) {
        match self {
            Way::One | Way::Decider => (1, 1),
            Way::Two | Way::TwoNatively => (2, 2),
            Way::Three => (2, 3),
        }
    }
}

/// P2: no update is lost, whichever ways and proxies the clients take.
#[test]
fn no_update_is_lost() {
    for isolation in ["strict", "transactions"] {
        let Some(cluster) = cluster(PROXIES, &[("isolation", isolation)]) else {
            return;
        };
        let each = number_from_env("LOCKSTEP_WATCH_COUNTS", 30);
        let keys = spread("count:", SHARDS, 2 * SHARDS);
        let tries = AtomicU64::new(0);
        let begin = Instant::now();
        std::thread::scope(|scope| {
            for number in 0..CLIENTS {
                let (mut client, keys, tries) =
                    (cluster.client_at(number % PROXIES), &keys, &tries);
                let way = Way::ALL[number / PROXIES % Way::ALL.len()];
                scope.spawn(move || {
                    for _ in 0..each {
                        let mut mine = 1;
                        while !count_up(&mut client, keys, way) {
                            assert!(begin.elapsed() < PATIENCE, "{way:?}: always nil");
                            mine += 1;
                        }
                        tries.fetch_add(mine, Ordering::Relaxed);
                    }
                });
            }
        });
        let ways = (0..CLIENTS).map(|number| Way::ALL[number / PROXIES % Way::ALL.len()]);
        let mut client = cluster.client();
        for (index, key) in keys.iter().take(2).enumerate() {
            let counting = ways.clone().filter(|way| way.counters().0 > index).count() as u64;
            let value = client.value(&["GET", key]);
            let wanted = (counting * each).to_string().into_bytes();
            assert_eq!(value, Value::Bulk(wanted), "{isolation}: counter {index}");
        }
        let all = CLIENTS as u64 * each;
        let tries = tries.load(Ordering::Relaxed);
        println!("{isolation}: {all} in {tries} tries, {:?}", begin.elapsed());
        cluster.wait_settled(LIMIT);
    }
}

/// One try; whether it counted.
fn count_up(client: &mut Client, keys: &[String], way: Way) -> bool {
    let (counted, watched) = way.counters();
    let mut watch = vec!["WATCH"];
    watch.extend(keys[..watched].iter().map(String::as_str));
    assert_eq!(client.value(&watch), Value::Simple(b"OK".to_vec()));
    let mut queue: Vec<Vec<String>> = Vec::new();
    for key in &keys[..counted] {
        let now = client.value(&["GET", key]);
        let now = now
            .bytes()
            .map_or("0", |bytes| std::str::from_utf8(bytes).expect("digits"));
        let next = now.parse::<u64>().expect("a number") + 1;
        queue.push(vec!["SET".into(), key.clone(), next.to_string()]);
    }
    match way {
        Way::Decider => queue.push(vec!["INCR".into(), keys[SHARDS + 1].clone()]),
        Way::TwoNatively => queue.push(vec!["LPOP".into(), keys[SHARDS + 2].clone(), "2".into()]),
        Way::One | Way::Two | Way::Three => {}
    }
    match client.try_transaction(&queue).expect("connected") {
        Value::Array(replies) => {
            assert_eq!(replies.len(), queue.len());
            true
        }
        Value::Nil => false,
        other => panic!("{way:?}: {other}"),
    }
}

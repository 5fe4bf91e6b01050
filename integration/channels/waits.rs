//! Commands that wait for data under keys of several shards: `a`, `b` and `c` are on different
//! ones.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::RngExt;

use crate::support::{
    Client, Cluster, Options, Seed, Value, encode, eventually, keys_on, seed::PrintOnFailure,
    shard_of, spread,
};

const LIMIT: Duration = Duration::from_secs(20);

/// See `play`.
pub const SCENES: &[(&str, &[&str])] = &[
    (
        "the first key with data wins",
        &[
            "p 1 RPUSH b 1 2",
            "p 1 RPUSH c 3",
            "w 1 BLPOP a b c 0",
            "w 1 BRPOP c b a 0",
            "w 1 BLPOP a b c 1",
            "w 1 BLPOP a b c 0.01",
            "p 1 ZADD b 1 x 2 y",
            "w 1 BZPOPMIN a b 0",
            "w 1 BZPOPMAX c b 0",
            "w 1 BZPOPMIN c b 0.01",
            "p 1 EXISTS a b c",
        ],
    ),
    (
        "several at once",
        &[
            "p 1 RPUSH b 1 2 3",
            "w 1 BLMPOP 0 2 a b LEFT",
            "w 1 BLMPOP 0 2 a b RIGHT COUNT 5",
            "w 1 BLMPOP 0.01 3 a b c LEFT",
            "p 1 ZADD c 1 x 2 y",
            "w 1 BZMPOP 0 2 b c MIN COUNT 2",
            "w 1 BZMPOP 0.01 2 b c MAX",
        ],
    ),
    (
        "woken by another client",
        &[
            "w 0 BLPOP a b c 0",
            "w -",
            "p 1 RPUSH c x",
            "w 1",
            "w 0 BLMPOP 0 2 a b LEFT COUNT 2",
            "w -",
            "p 1 RPUSH a x y z",
            "w 1",
            "w 0 BZPOPMIN b c 0",
            "w -",
            "p 1 ZADD b 1 m",
            "w 1",
            "p 1 DEL a b c",
        ],
    ),
    (
        "woken by a transaction over all of them",
        &[
            "w 0 BLPOP a b c 0",
            "w -",
            "p 1 MULTI",
            "p 1 RPUSH a 1",
            "p 1 RPUSH b 2",
            "p 1 RPUSH c 3",
            "p 1 EXEC",
            "w 1",
            "p 1 DEL a b c",
        ],
    ),
    (
        "wrong types and wrong arguments",
        &[
            "p 1 SET b x",
            "w 1 BLPOP a b 0",
            "p 1 RPUSH a 1",
            "w 1 BLPOP a b 0",
            "w 1 BLPOP a b nonsense",
            "w 1 BLPOP a b -1",
            "w 1 BLPOP a c nonsense",
            "w 1 BLMPOP 0 2 a c NOWHERE",
            "w 1 BLMPOP x 2 a c LEFT",
            "w 1 BLMPOP 0 0 a c LEFT",
            "w 1 BLMPOP 0 5 a c LEFT",
            "w 1 BZPOPMIN a b 0",
            "p 1 DEL a b",
        ],
    ),
    (
        "streams",
        &[
            "p 1 XADD a 1-1 f 1",
            "p 1 XADD b 2-1 f 2",
            "w 1 XREAD BLOCK 0 STREAMS a b 0 0",
            "w 1 XREAD COUNT 1 BLOCK 0 STREAMS c b a 0 0 0",
            "w 1 XREAD BLOCK 10 STREAMS a b 1-1 2-1",
            "w 1 XREAD BLOCK 10 STREAMS a b $ $",
            "w 0 XREAD BLOCK 0 STREAMS a b $ $",
            "w -",
            "p 1 XADD b 3-1 f 3",
            "w 1",
            "w 0 XREAD BLOCK 0 STREAMS c a $ $",
            "w -",
            "p 1 XADD c 3-1 f 3",
            "w 1",
            "w 1 XREAD BLOCK x STREAMS a b $ $",
            "w 1 XREAD BLOCK -1 STREAMS a b $ $",
            "w 1 XREAD BLOCK 1 STREAMS a b c $ $",
            "p 1 SET d x",
            "w 1 XREAD BLOCK 0 STREAMS d b $ $",
            "p 1 DEL a b c d",
        ],
    ),
    (
        "groups",
        &[
            "p 1 XGROUP CREATE a g $ MKSTREAM",
            "p 1 XGROUP CREATE b g $ MKSTREAM",
            "w 1 XREADGROUP GROUP g me BLOCK 10 STREAMS a b > >",
            "w 0 XREADGROUP GROUP g me BLOCK 0 STREAMS a b > >",
            "w -",
            "p 1 XADD b 1-1 f 1",
            "w 1",
            "p 1 XADD a 2-1 f 1",
            "p 1 XADD b 2-1 f 1",
            "w 1 XREADGROUP GROUP g me BLOCK 0 STREAMS a b > >",
            "w 1 XREADGROUP GROUP g me BLOCK 0 STREAMS a b 0 0",
            "w 1 XREADGROUP GROUP nobody me BLOCK 0 STREAMS a b > >",
            "p 1 DEL a b",
        ],
    ),
];

/// Issue: losing nothing. Values pushed to six keys on three shards, through two proxies, by
/// transactions too, are each popped exactly once by clients that wait on all keys and give up
/// again and again.
#[test]
fn nothing_popped_is_lost() {
    let seed = Seed::take();
    let _print = PrintOnFailure(seed);
    let options = Options {
        proxies: 2,
        ..Options::default()
    };
    let cluster = Cluster::start(&options);
    let keys = spread("q", cluster.shards().len(), 6);
    let values = 1_500;
    let popped = AtomicUsize::new(0);
    let begin = Instant::now();
    let all: Vec<Vec<u8>> = std::thread::scope(|scope| {
        for pusher in 0..2_usize {
            let (cluster, keys) = (&cluster, &keys);
            scope.spawn(move || push(cluster, keys, seed, pusher, values));
        }
        let waiters: Vec<_> = (0..6_usize)
            .map(|waiter| {
                let (cluster, keys, popped) = (&cluster, &keys, &popped);
                scope.spawn(move || {
                    let mut random = seed.rng(100 + waiter as u64);
                    let mut client = cluster.client_at(waiter % 2);
                    let mut mine = Vec::new();
                    while popped.load(Ordering::Relaxed) < 2 * values && begin.elapsed() < LIMIT {
                        let mut command = vec!["BLPOP".to_owned()];
                        command.extend_from_slice(keys);
                        command.push(format!("0.{:03}", random.random_range(1..30)));
                        if let Value::Array(pair) = client.value(&command)
                            && let [_, Value::Bulk(value)] = &pair[..]
                        {
                            popped.fetch_add(1, Ordering::Relaxed);
                            mine.push(value.clone());
                        }
                    }
                    mine
                })
            })
            .collect();
        let joined = waiters
            .into_iter()
            .map(|waiter| waiter.join().expect("no panic"));
        joined.flatten().collect()
    });
    let unique: HashSet<&Vec<u8>> = all.iter().collect();
    assert_eq!((all.len(), unique.len()), (2 * values, 2 * values));
    cluster.wait_settled(LIMIT);
}

fn push(cluster: &Cluster, keys: &[String], seed: Seed, pusher: usize, values: usize) {
    let mut random = seed.rng(pusher as u64);
    let mut client = cluster.client_at(pusher);
    let mut number = 0;
    while number < values {
        let mut commands = Vec::new();
        for _ in 0..random.random_range(1..4).min(values - number) {
            let key = keys[random.random_range(0..keys.len())].clone();
            commands.push(vec!["RPUSH".to_owned(), key, format!("{pusher}-{number}")]);
            number += 1;
        }
        let done = client.try_transaction(&commands).expect("an answer");
        assert!(done.error().is_none(), "{done}");
    }
}

/// Issue: disconnect releases at once. A client that is gone takes nothing, and nothing of its
/// waiting is left.
#[test]
fn who_is_gone_takes_nothing() {
    let cluster = Cluster::start(&Options::default());
    let keys = spread("q", cluster.shards().len(), 3);
    assert_ne!(
        shard_of(keys[0].as_bytes(), 3),
        shard_of(keys[1].as_bytes(), 3)
    );
    let mut command = vec!["BLPOP".to_owned()];
    command.extend_from_slice(&keys);
    command.push("0".to_owned());
    let gone: Vec<Client> = (0..20)
        .map(|_| {
            let mut client = cluster.client();
            client.send(&encode(&command)).expect("sent");
            client
        })
        .collect();
    let mut last = cluster.client();
    last.send(&encode(&command)).expect("sent");
    drop(gone);
    eventually("the others are gone", LIMIT, || {
        cluster.proxies()[0].metric("lockstep_clients_connected", "") == 1.0
    });
    let mut pusher = cluster.client();
    pusher.value(&["RPUSH", &keys[2], "x"]);
    let pair = last.read().expect("a reply").value;
    let bulk = |text: &str| Value::Bulk(text.as_bytes().to_vec());
    assert_eq!(pair, Value::Array(vec![bulk(&keys[2]), bulk("x")]));
}

/// Issue: CLIENT UNBLOCK releases at once, on several shards and on several slots of one, too; and
/// whoever waits is counted as one Redis counts.
#[test]
fn unblocked_by_another_client() {
    let cluster = Cluster::start(&Options::default());
    let (mut waiter, mut other) = (cluster.client(), cluster.client());
    let Value::Integer(id) = waiter.value(&["CLIENT", "ID"]) else {
        panic!("an id");
    };
    let id = id.to_string();
    let shards = cluster.shards().len();
    let places = [
        spread("over", shards, 3),
        keys_on("one", 1, shards, 3),
        vec!["single".to_owned()],
    ];
    let hows = [
        ("TIMEOUT", "*-1\\r\\n"),
        (
            "ERROR",
            "-UNBLOCKED client unblocked via CLIENT UNBLOCK\\r\\n",
        ),
    ];
    for (keys, (how, wanted)) in places.iter().flat_map(|keys| hows.map(|how| (keys, how))) {
        let words = [&["BLPOP".to_owned()], keys.as_slice(), &["0".to_owned()]].concat();
        waiter.send(&encode(&words)).expect("sent");
        eventually("it is counted", LIMIT, || {
            let info = other.call(&["INFO", "clients"]).text();
            info.contains("blocked_clients:1\\r")
        });
        let unblocked = other.value(&["CLIENT", "UNBLOCK", &id, how]);
        assert_eq!(unblocked, Value::Integer(1), "{keys:?}");
        assert_eq!(waiter.read().expect("a reply").text(), wanted, "{keys:?}");
    }
    eventually("nobody waits", LIMIT, || blocked(&mut other) == 0);
    assert_eq!(other.value(&["CLIENT", "UNBLOCK", &id]), Value::Integer(0));
}

/// How many clients wait, as INFO tells.
fn blocked(client: &mut Client) -> usize {
    let text = client.value(&["INFO", "clients"]).to_string();
    let (_, behind) = text.split_once("blocked_clients:").expect("a line");
    let digits = behind.split(|c: char| !c.is_ascii_digit()).next();
    digits
        .and_then(|digits| digits.parse().ok())
        .expect("a number")
}

//! Clients that end at any moment: killed by another client, gone by themselves, or disconnected
//! for their silence; in the midst of a MULTI, a WATCH, a wait for data, a subscription, an EXEC
//! over several shards, a script, or half a command. Nothing of them may be left.

use crate::Target;
use crate::bystander::Bystander;
use crate::support::seed::PrintOnFailure;
use crate::support::{
    Client, Cluster, Seed, Value, encode, eventually_with, keys_on, long, number_from_env, spread,
};
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const THREADS: usize = 4;
/// Clients that one thread leaves to the idle timeout at a time.
const SILENT_MAX: usize = 40;
const IDLE_TIMEOUT_MS: &str = "300";
const PINNED_MAX: usize = 24;
const WATCH_MAX: usize = 64;
const LIMIT: Duration = Duration::from_secs(15);

/// How many ended in which way.
#[derive(Default)]
struct Ends {
    killed: AtomicUsize,
    gone: AtomicUsize,
    silent: AtomicUsize,
}

#[test]
fn clients_that_end_at_any_moment_leave_nothing() {
    let count = number_from_env("LOCKSTEP_ENDS", if long() { 50_000 } else { 10_000 });
    let seed = Seed::take();
    let _print = PrintOnFailure(seed);
    let (pinned, watch) = (PINNED_MAX.to_string(), WATCH_MAX.to_string());
    let target = Target::start(&[
        ("idle-timeout-ms", IDLE_TIMEOUT_MS),
        ("pinned-connections-max", &pinned),
        ("watch-connections-max", &watch),
    ]);
    let cluster = &target.cluster;
    if !cluster.is_lockstep() {
        return;
    }
    let bystander = Bystander::start(cluster);
    let (begin, ends) = (Instant::now(), Ends::default());
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (random, ends) = (seed.rng(thread as u64), &ends);
            scope.spawn(move || end_many(cluster, random, count as usize / THREADS, ends));
        }
    });
    println!(
        "{} killed, {} gone, {} disconnected for their silence, in {:?}",
        ends.killed.load(Ordering::Relaxed),
        ends.gone.load(Ordering::Relaxed),
        ends.silent.load(Ordering::Relaxed),
        begin.elapsed()
    );
    bystander.finish();
    eventually_with("nothing in the metrics", LIMIT, || in_metrics(cluster));
    eventually_with("nothing on the shards", LIMIT, || on_shards(cluster));
    cluster.wait_settled(LIMIT);
    all_connections_are_free(cluster);
    target.check_memory(64);
}

/// One thread's clients, one after the other.
fn end_many(cluster: &Cluster, mut random: StdRng, count: usize, ends: &Ends) {
    let mut silent: VecDeque<Client> = VecDeque::new();
    for _ in 0..count {
        let mut client = cluster.client();
        let id = client.value(&["CLIENT", "ID"]).integer().expect("an id");
        let (mut words, waits) = last_words(&mut random, cluster.shards().len());
        if random.random_bool(0.1) {
            words.truncate(random.random_range(0..words.len()));
        }
        client.send(&words).expect("sent");
        thread::sleep(Duration::from_micros(random.random_range(0..1_500)));
        match random.random_range(0..10) {
            0..5 => {
                let kill = ["CLIENT", "KILL", "ID", &id.to_string()];
                let killed = cluster.client().value(&kill);
                assert_eq!(killed, Value::Integer(1));
                assert!(
                    client.is_closed_within(LIMIT),
                    "killed, but still connected"
                );
                ends.killed.fetch_add(1, Ordering::Relaxed);
            }
            5..7 if !waits => {
                silent.push_back(client);
                ends.silent.fetch_add(1, Ordering::Relaxed);
            }
            _ => {
                drop(client);
                ends.gone.fetch_add(1, Ordering::Relaxed);
            }
        }
        while silent.len() > SILENT_MAX {
            let mut oldest = silent.pop_front().expect("more than none");
            assert!(
                oldest.is_closed_within(LIMIT),
                "silent, but still connected"
            );
        }
    }
    for mut client in silent {
        assert!(
            client.is_closed_within(LIMIT),
            "silent, but still connected"
        );
    }
}

/// What a client says last, and whether it may wait for data or messages after that: who does is
/// not disconnected for its silence.
fn last_words(random: &mut StdRng, shards: usize) -> (Vec<u8>, bool) {
    let number = random.random_range(0..6);
    let all = spread(&format!("leak{number}:"), shards, 3);
    let slots = keys_on(&format!("leak{number}:"), number % shards, shards, 2);
    let (a, b, c) = (all[0].as_str(), all[1].as_str(), all[2].as_str());
    let transaction = format!("MULTI\r\nINCR {a}\r\nINCR {b}\r\nAPPEND {c} x\r\nEXEC\r\n");
    let busy =
        "\"local n = 0 for i = 1, 20000 do n = n + i end return redis.call('INCR', KEYS[1])\"";
    let nothing = format!("{a}:nothing {b}:nothing {c}:nothing");
    let lines = match random.random_range(0..16) {
        0 => format!("MULTI\r\nSET {a} 1\r\nSET {b} 2\r\n"),
        1 => format!("SELECT 3\r\nMULTI\r\nSET {a} 1\r\n"),
        2 | 3 => transaction,
        4 => format!("WATCH {a} {b}\r\nGET {a}\r\n"),
        5 => format!("WATCH {a}\r\n{transaction}"),
        6 => format!("WATCH {a} {b} {c}\r\n{transaction}WATCH {b}\r\n"),
        7 => format!("EVAL {busy} 1 {a}\r\nEVAL {busy} 1 {b}\r\n"),
        8 => format!("MSET {a} 1 {b} 2 {c} 3\r\nMGET {a} {b} {c}\r\n"),
        9 => format!(
            "SET {} 1\r\nMSET {} 1 {} 2\r\n",
            slots[0], slots[0], slots[1]
        ),
        10 => format!("BLPOP {a}:nothing 0\r\n"),
        11 => format!("BLPOP {nothing} 0\r\n"),
        12 => format!("BLPOP {}:x {}:x 0\r\nPING\r\n", slots[0], slots[1]),
        13 => format!("XREAD BLOCK 0 STREAMS {a}:stream {b}:stream $ $\r\n"),
        14 => format!("SUBSCRIBE {a} {b}\r\nPSUBSCRIBE leak* {c}*\r\n"),
        _ => format!(
            "HELLO 3\r\nSSUBSCRIBE {a}\r\nSUBSCRIBE {b}\r\nUNSUBSCRIBE {b}\r\n{transaction}"
        ),
    };
    let waits = lines.contains("BL") || lines.contains("SUBSCRIBE");
    (lines.into_bytes(), waits)
}

/// What the proxy itself says it still has.
fn in_metrics(cluster: &Cluster) -> Result<(), Vec<String>> {
    let proxy = &cluster.proxies()[0];
    let names = [
        "lockstep_clients_connected",
        "lockstep_subscriptions",
        "lockstep_shard_subscriptions",
        "lockstep_pinned_connections_in_use",
        "lockstep_watch_connections_in_use",
        "lockstep_shard_inflight_requests",
        "lockstep_shard_queue_bytes",
        "lockstep_held_replies",
        "lockstep_locks_held",
        "lockstep_transactions_in_doubt",
    ];
    let left: Vec<String> = names
        .iter()
        .map(|name| (name, proxy.metric(name, "")))
        .filter(|(_, value)| *value != 0.0)
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    if left.is_empty() { Ok(()) } else { Err(left) }
}

/// What the shards see: connections that are blocked, in MULTI or subscribed; channels; and more
/// connections than the proxy says it has.
fn on_shards(cluster: &Cluster) -> Result<(), Vec<String>> {
    let mut left = Vec::new();
    let proxy = &cluster.proxies()[0];
    for (number, shard) in cluster.shards().iter().enumerate() {
        let mut client = shard.client();
        let list = client.value(&["CLIENT", "LIST"]);
        let list = String::from_utf8_lossy(list.bytes().expect("a list")).into_owned();
        let ours: Vec<&str> = list
            .lines()
            .filter(|line| line.contains("name=lockstep"))
            .collect();
        let is_quiet = |line: &str| {
            let flags = line
                .split(' ')
                .find_map(|field| field.strip_prefix("flags="));
            !flags.unwrap_or_default().contains(['b', 'x', 'P', 'u'])
                && [" sub=0 ", " psub=0 ", " ssub=0 ", " multi=-1 "]
                    .iter()
                    .all(|field| line.contains(field))
        };
        left.extend(
            ours.iter()
                .filter(|line| !is_quiet(line))
                .map(ToString::to_string),
        );
        for of in ["CHANNELS", "SHARDCHANNELS"] {
            let channels = client.value(&["PUBSUB", of]);
            if !channels.elements().is_empty() {
                left.push(format!("shard {number}: {of} {channels}"));
            }
        }
        let label = format!("shard=\"{}\"", shard.address());
        let idle = ["pinned", "watch"]
            .map(|pool| proxy.metric(&format!("lockstep_{pool}_connections_idle"), &label));
        if ours.len() as f64 > idle.iter().sum::<f64>() + SHARED_MAX {
            left.push(format!(
                "shard {number}: {} connections, idle {idle:?}",
                ours.len()
            ));
        }
    }
    if left.is_empty() { Ok(()) } else { Err(left) }
}

/// Connections to a shard that all clients share: by protocol and database, the feed, what
/// watches for wake-ups and scans, and the armed one.
const SHARED_MAX: f64 = 8.0;

/// As many clients as there may be can wait, and watch, at once: no connection is lost to the pool.
fn all_connections_are_free(cluster: &Cluster) {
    let all = spread("free:", cluster.shards().len(), 3);
    let mut waiting: Vec<Client> = (0..PINNED_MAX - 2).map(|_| cluster.client()).collect();
    for client in &mut waiting {
        client
            .send(&encode(&["BLPOP", &all[0], "0"]))
            .expect("sent");
    }
    let mut watching: Vec<Client> = (0..WATCH_MAX).map(|_| cluster.client()).collect();
    for client in &mut watching {
        let watched = client.value(&["WATCH", &all[0], &all[1], &all[2]]);
        assert_eq!(watched, Value::Simple(b"OK".to_vec()));
    }
    drop(watching);
    // They are served in the order in which they came to the shard, which is not that of the list.
    let mut pusher = cluster.client();
    for _ in &waiting {
        pusher.value(&["RPUSH", &all[0], "x"]);
    }
    for client in &mut waiting {
        let popped = client.read().expect("an element").value;
        assert_eq!(popped.elements().len(), 2, "{popped}");
    }
}

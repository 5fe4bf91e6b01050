//! FLUSHALL in the middle of transfers: it is a transaction like any other.
//!
//! Accounts begin empty, and money is moved from what is not there: the sum over all of them is
//! 0 at any time, before a FLUSHALL and after it. Half a FLUSHALL, or half a transfer spared by
//! one, makes it something else.

use crate::support::{Client, Cluster, Seed, keys_on, spread};
use crate::{LOCK_TTL, ONE_AT_A_TIME, faults, options};
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

const ACCOUNTS: usize = 12;
const MOVERS: usize = 8;
const READERS: usize = 3;
const LASTING: Duration = Duration::from_secs(4);

/// What all clients together have seen.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    moved: AtomicU64,
    sums: AtomicU64,
    flushes: AtomicU64,
    refused: AtomicU64,
}

impl Seen {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

fn move_money(cluster: &Ports, number: usize, accounts: &[String], seen: &Seen, rng: &mut StdRng) {
    let mut client = None;
    while seen.goes_on() {
        let Some(open) = cluster.connected(&mut client, number) else {
            continue;
        };
        let from = rng.random_range(0..accounts.len());
        let to = (from + rng.random_range(1..accounts.len())) % accounts.len();
        let amount = rng.random_range(1..=50).to_string();
        let reply = open.try_transaction(&[
            words(&["DECRBY", &accounts[from], &amount]),
            words(&["INCRBY", &accounts[to], &amount]),
        ]);
        match reply {
            Ok(reply) if reply.error().is_none() => seen.moved.fetch_add(1, Ordering::Relaxed),
            Ok(_) => seen.refused.fetch_add(1, Ordering::Relaxed),
            Err(_) => {
                client = None;
                0
            }
        };
        sleep(Duration::from_millis(rng.random_range(0..4)));
    }
}

fn sum_up(cluster: &Ports, number: usize, accounts: &[String], seen: &Seen) {
    let mut client = None;
    let gets: Vec<_> = accounts.iter().map(|name| words(&["GET", name])).collect();
    while seen.goes_on() {
        let Some(open) = cluster.connected(&mut client, number) else {
            continue;
        };
        match open.try_transaction(&gets) {
            Ok(reply) if reply.error().is_none() => {
                let sum: i64 = reply.elements().iter().filter_map(|v| v.integer()).sum();
                assert_eq!(sum, 0, "P1, P2: a torn FLUSHALL or transfer: {reply}");
                seen.sums.fetch_add(1, Ordering::Relaxed);
            }
            Ok(_) => {}
            Err(_) => client = None,
        }
        sleep(Duration::from_millis(5));
    }
}

/// In turn FLUSHALL alone, and one that seeds in the same transaction.
fn flush(cluster: &Ports, accounts: &[String], seen: &Seen, faults: bool) {
    let (mut client, mut turn) = (None, 0);
    while seen.goes_on() {
        turn += 1;
        let Some(open) = cluster.connected(&mut client, turn) else {
            continue;
        };
        let reply = match turn % 3 {
            0 => open.try_call(&["FLUSHALL"]).map(|reply| reply.value),
            1 => open
                .try_call(&["FLUSHDB", "ASYNC"])
                .map(|reply| reply.value),
            _ => open.try_transaction(&[
                words(&["INCRBY", &accounts[0], "7"]),
                words(&["FLUSHALL", "SYNC"]),
                words(&["MSET", &accounts[1], "1000", &accounts[2], "-1000"]),
            ]),
        };
        match reply {
            Ok(reply) if reply.error().is_none() => seen.flushes.fetch_add(1, Ordering::Relaxed),
            Ok(reply) => {
                assert!(faults, "FLUSHALL must get through under load: {reply}");
                seen.refused.fetch_add(1, Ordering::Relaxed)
            }
            Err(_) => {
                client = None;
                0
            }
        };
        sleep(Duration::from_millis(40));
    }
}

struct Ports([u16; 2]);

impl Ports {
    fn connected<'c>(
        &self,
        client: &'c mut Option<Client>,
        number: usize,
    ) -> Option<&'c mut Client> {
        if client.is_none() {
            *client = Client::connect(self.0[number % 2]).ok();
            if client.is_none() {
                sleep(Duration::from_millis(20));
            }
        }
        client.as_mut()
    }
}

/// A decided record on every shard, of a kind that a late prepare needs to be refused by.
fn plant_tombstones(cluster: &Cluster) {
    for shard in cluster.shards() {
        let mut client = shard.client();
        client.call(&["HSET", "__lockstep:txn:planted-1", "state", "aborted"]);
        client.call(&["PEXPIRE", "__lockstep:txn:planted-1", "600000"]);
        client.call(&["ZADD", "__lockstep:markers", "99999999999999", "planted-1"]);
    }
}

fn check_tombstones(cluster: &Cluster) {
    for (number, shard) in cluster.shards().iter().enumerate() {
        let mut client = shard.client();
        let state = client.call(&["HGET", "__lockstep:txn:planted-1", "state"]);
        assert_eq!(
            state.raw, b"$7\r\naborted\r\n",
            "I6: shard {number} lost it"
        );
        let epoch = client.value(&["GET", "__lockstep:epoch"]).integer();
        assert!(epoch > Some(0), "the epoch never goes back: {epoch:?}");
        client.call(&["DEL", "__lockstep:txn:planted-1"]);
    }
}

fn run(cluster: &mut Cluster, faults: Option<u64>) -> Seen {
    let seed = Seed::take();
    let _print = crate::PrintOnFailure(seed);
    let ports = Ports([cluster.port(0), cluster.port(1)]);
    let accounts = spread("acc", cluster.shards().len(), ACCOUNTS);
    if cluster.is_lockstep() {
        plant_tombstones(cluster);
    }
    let seen = Seen::default();
    scope(|scope| {
        let (seen, ports, accounts) = (&seen, &ports, &accounts[..]);
        let mut threads = Vec::new();
        for number in 0..MOVERS {
            let mut rng = seed.rng(number as u64);
            threads.push(scope.spawn(move || move_money(ports, number, accounts, seen, &mut rng)));
        }
        for number in 0..READERS {
            threads.push(scope.spawn(move || sum_up(ports, number, accounts, seen)));
        }
        threads.push(scope.spawn(move || flush(ports, accounts, seen, faults.is_some())));
        match faults {
            Some(kills) => {
                faults::kill_proxies(cluster, &mut seed.rng(u64::MAX), kills);
            }
            None => {
                let begin = Instant::now();
                while begin.elapsed() < LASTING && !threads.iter().any(|t| t.is_finished()) {
                    sleep(Duration::from_millis(20));
                }
            }
        }
        seen.stop.store(true, Ordering::Relaxed);
    });
    println!(
        "{:?} transfers, {:?} sums, {:?} flushes, {:?} refused",
        seen.moved, seen.sums, seen.flushes, seen.refused
    );
    seen
}

/// P1, P2, I6: whoever flushes, nothing is torn and nothing of ours is lost; and FLUSHALL gets
/// through although transfers never pause.
#[test]
fn flushing_tears_nothing() {
    let _turn = ONE_AT_A_TIME.lock();
    let mut cluster = Cluster::start(&options(false));
    let seen = run(&mut cluster, None);
    assert!(seen.moved.into_inner() > 0 && seen.sums.into_inner() > 0);
    assert!(seen.flushes.into_inner() > 10);
    if cluster.is_lockstep() {
        cluster.wait_settled(LOCK_TTL);
        check_tombstones(&cluster);
    }
}

/// P1, P5: the same with kill -9 of the proxies: half a FLUSHALL is finished by others.
#[test]
fn a_flush_outlives_its_coordinator() {
    let _turn = ONE_AT_A_TIME.lock();
    let mut cluster = Cluster::start(&options(true));
    let seen = run(&mut cluster, Some(6));
    assert!(seen.sums.into_inner() > 0 && seen.flushes.into_inner() > 0);
    if cluster.is_lockstep() {
        cluster.wait_settled(LOCK_TTL + Duration::from_secs(3));
        check_tombstones(&cluster);
    }
}

/// With one shard nothing is distributed, and what is kept there must stay all the same.
#[test]
fn a_single_shard_keeps_what_is_ours() {
    let cluster = Cluster::start(&crate::Options {
        shards: 1,
        ..crate::Options::default()
    });
    let mut client = cluster.client();
    let names: BTreeMap<usize, String> = keys_on("k", 0, 1, 3).into_iter().enumerate().collect();
    for name in names.values() {
        client.call(&["SET", name, "1"]);
    }
    if cluster.is_lockstep() {
        plant_tombstones(&cluster);
    }
    assert_eq!(client.call(&["FLUSHALL"]).raw, b"+OK\r\n");
    assert_eq!(
        client.call(&["EXISTS", &names[&0], &names[&2]]).raw,
        b":0\r\n"
    );
    if cluster.is_lockstep() {
        cluster.wait_settled(LOCK_TTL);
        check_tombstones(&cluster);
    }
}

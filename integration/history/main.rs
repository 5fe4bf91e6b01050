//! P2, with histories: whatever 16 clients do at once through three proxies, plain or in
//! transactions, on one slot, one shard or several, one order of it all explains every reply and
//! agrees with real time; also while proxies and shards die and stop.
//!
//! - `LOCKSTEP_HISTORY_SECONDS`: the length of each test's load (8 without faults and 6 with,
//!   unless told; 60 and 300 with `LOCKSTEP_LONG`);
//! - `LOCKSTEP_HISTORY_CLIENTS`: 16 unless told.
//!
//! The judge ([`judge`]) is tested with planted histories ([`planted`]), and on a cluster whose
//! plain commands are not isolated, where it must find something.

// A test program has no outside that could reach its items.
#![allow(unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod blocking;
mod draft;
mod faults;
mod graph;
mod judge;
mod lists;
mod load;
mod mset;
mod planted;
mod record;

use faults::Fault;
use judge::{Anomaly, judge};
use lists::Lists;
use load::{Load, Round};
use record::Outcome;
use std::sync::Mutex;
use std::time::Duration;
use support::seed::PrintOnFailure;
use support::{Cluster, Options, Seed, long, number_from_env};

const SHARDS: usize = 3;
const PROXIES: usize = 3;
const LOCK_TTL: Duration = Duration::from_millis(1_000);
/// A history is judged in pieces of this length, so that it fits in memory.
const ROUND_MAX: Duration = Duration::from_secs(10);

/// Every test loads the machine fully; one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn cluster(durable: bool, isolation: &str) -> Cluster {
    let setting = |name: &str, value: String| (name.to_owned(), value);
    Cluster::start(&Options {
        shards: SHARDS,
        proxies: PROXIES,
        durable,
        proxy: vec![
            setting("isolation", isolation.to_owned()),
            setting("workers", "2".to_owned()),
            setting("lock-ttl-ms", LOCK_TTL.as_millis().to_string()),
        ],
        ..Options::default()
    })
}

fn seconds(short: u64, of_long: u64) -> Duration {
    let default = if long() { of_long } else { short };
    Duration::from_secs(number_from_env("LOCKSTEP_HISTORY_SECONDS", default))
}

/// One piece of a history, with its lists read at the end, when all is settled.
fn round(cluster: &mut Cluster, load: &Load, faults: &[Fault], length: Duration) -> (Round, u64) {
    let lists = Lists::new(SHARDS, load.round);
    let mut strikes = 0;
    let mut rng = load.seed.rng(u64::MAX - load.round as u64);
    let mut round = load.run(cluster, &lists, |cluster| {
        strikes = faults::strike(cluster, faults, &mut rng, (length, LOCK_TTL));
    });
    cluster.wait_settled(LOCK_TTL + Duration::from_secs(5));
    (round.history.lists, round.history.names) = lists.read_all(cluster);
    (round, strikes)
}

/// Load with these faults for so long; panics with the first anomaly.
fn run(faults: &[Fault], length: Duration) {
    let _turn = ONE_AT_A_TIME.lock();
    let seed = Seed::take();
    let _print = PrintOnFailure(seed);
    let mut cluster = cluster(faults.contains(&Fault::KillShard), "strict");
    if !faults.is_empty() {
        expect_faults(&cluster);
    }
    let rounds = length.as_secs_f64() / ROUND_MAX.as_secs_f64();
    let rounds = rounds.ceil().max(1.0) as u32;
    let mut strikes = 0;
    for number in 0..rounds {
        let load = Load {
            clients: clients(),
            seed,
            round: number as usize,
        };
        let (round, struck) = round(&mut cluster, &load, faults, length / rounds);
        strikes += struck;
        print(&round);
        let found = judge(&round.history);
        assert!(found.is_empty(), "P2: {}", tell(&found));
        check_sanity(&round, !faults.is_empty());
    }
    println!("{strikes} faults, no anomaly");
    assert!(faults.is_empty() || strikes > 0, "no fault struck");
}

/// What proxies say to a fault.
fn expect_faults(cluster: &Cluster) {
    for pattern in ["recover", "settled", "shard", "late"] {
        cluster.expect_log(pattern);
    }
}

fn clients() -> usize {
    number_from_env("LOCKSTEP_HISTORY_CLIENTS", 16) as usize
}

fn print(round: &Round) {
    println!(
        "{} operations committed, {} aborted, {} unknown, on {} lists: {:?}",
        round.count(Outcome::Committed),
        round.count(Outcome::Aborted),
        round.count(Outcome::Unknown),
        round.history.lists.len(),
        round.forms()
    );
    for (text, count) in &round.errors {
        println!("  {count} x {text}");
    }
}

fn tell(found: &[Anomaly]) -> String {
    let lines = found
        .iter()
        .take(10)
        .map(|one| format!("{:?}: {}", one.kind, one.text));
    let lines: Vec<String> = lines.collect();
    format!("{} anomalies\n{}", found.len(), lines.join("\n"))
}

/// A history of nothing proves nothing.
fn check_sanity(round: &Round, faulty: bool) {
    assert!(round.forms().len() >= 8, "forms: {:?}", round.forms());
    let committed = round.count(Outcome::Committed);
    let least = if faulty { 300 } else { 1_000 };
    assert!(committed > least, "only {committed} operations");
    if !faulty {
        let aborted = round.count(Outcome::Aborted);
        assert_eq!(round.count(Outcome::Unknown), 0, "{:?}", round.errors);
        assert!(aborted * 50 <= committed, "{:?}", round.errors);
    }
}

/// P2 without faults.
#[test]
fn one_order_explains_everything() {
    run(&[], seconds(8, 60));
}

/// P1, P2, P4, P5 with kill -9 of proxies.
#[test]
fn one_order_while_proxies_die() {
    run(&[Fault::KillProxy], seconds(6, 300));
}

/// The same with proxies that stop for longer than locks live and go on.
#[test]
fn one_order_while_proxies_stop() {
    run(&[Fault::PauseProxy], seconds(6, 300));
}

/// The same with kill -9 of shards that keep what they acknowledged.
#[test]
fn one_order_while_shards_die() {
    run(&[Fault::KillShard], seconds(6, 300));
}

/// The same with shards that stop for a while: transactions stay half applied for that long.
#[test]
fn one_order_while_shards_stop() {
    run(&[Fault::PauseShard], seconds(6, 60));
}

/// The same with everything.
#[test]
fn one_order_whatever_happens() {
    run(&Fault::ALL, seconds(6, 300));
}

/// The test of the test: with plain commands that see transactions half way, the judge finds it.
/// Each round does with a chance of one in two to five; so many in vain are not chance.
#[test]
fn without_isolation_of_plain_commands_it_shows() {
    const ROUNDS: usize = 50;
    let _turn = ONE_AT_A_TIME.lock();
    let seed = Seed::take();
    let _print = PrintOnFailure(seed);
    let mut cluster = cluster(false, "transactions");
    for number in 0..ROUNDS {
        let load = Load {
            clients: clients(),
            seed,
            round: number,
        };
        let (round, _) = round(&mut cluster, &load, &[], Duration::from_secs(2));
        print(&round);
        let found = judge(&round.history);
        if !found.is_empty() {
            println!("found, as it should be: {}", tell(&found[..1]));
            return;
        }
    }
    panic!("nothing was found in {ROUNDS} rounds");
}

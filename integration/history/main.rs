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
/// Where connections can be half open.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(1_000);
/// A history is judged in pieces of this length, so that it fits in memory.
const ROUND_MAX: Duration = Duration::from_secs(10);

/// Every test loads the machine fully; one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn options(isolation: &str) -> Options {
    let setting = |name: &str, value: String| (name.to_owned(), value);
    Options {
        shards: SHARDS,
        proxies: PROXIES,
        proxy: vec![
            setting("isolation", isolation.to_owned()),
            setting("workers", "2".to_owned()),
            setting("lock-ttl-ms", LOCK_TTL.as_millis().to_string()),
        ],
        ..Options::default()
    }
}

fn cluster(isolation: &str) -> Cluster {
    Cluster::start(&options(isolation))
}

/// For a run with these faults.
fn options_for(faults: &[Fault]) -> Options {
    let mut options = options("strict");
    options.durable = faults.contains(&Fault::KillShard);
    options.relayed = faults.contains(&Fault::Network);
    if options.relayed {
        // A half-open connection shows by nothing else.
        let timeout = (
            "request-timeout-ms",
            REQUEST_TIMEOUT.as_millis().to_string(),
        );
        options.proxy.push((timeout.0.to_owned(), timeout.1));
    }
    options
}

/// The setting that keeps plain writes out of WATCHes over several shards.
fn fence() -> (String, String) {
    ("fence".to_owned(), "on".to_owned())
}

fn is_fenced(options: &Options) -> bool {
    let everywhere = std::env::var("LOCKSTEP_SUBJECT_FENCE").is_ok_and(|value| value == "on");
    everywhere || options.proxy.contains(&fence())
}

/// The same with the fence up: then what is watched on several shards may be read and written too.
fn fenced_for(faults: &[Fault]) -> Options {
    let mut options = options_for(faults);
    options.proxy.push(fence());
    options
}

fn seconds(short: u64, of_long: u64) -> Duration {
    let default = if long() { of_long } else { short };
    Duration::from_secs(number_from_env("LOCKSTEP_HISTORY_SECONDS", default))
}

/// One piece of a history, with its lists read at the end, when all is settled.
fn round(cluster: &mut Cluster, load: &Load, faults: &[Fault], length: Duration) -> (Round, u64) {
    let mut lists = Lists::new(SHARDS, load.round);
    lists.touch_watched = load.touch_watched;
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
    run_on(&options_for(faults), faults, length);
}

fn run_on(options: &Options, faults: &[Fault], length: Duration) {
    let _turn = ONE_AT_A_TIME.lock();
    let seed = Seed::take();
    let _print = PrintOnFailure(seed);
    let mut cluster = Cluster::start(options);
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
            touch_watched: is_fenced(options),
        };
        let (round, struck) = round(&mut cluster, &load, faults, length / rounds);
        strikes += struck;
        print(&round);
        let found = judge(&round.history);
        assert!(found.is_empty(), "P2: {}", tell(&found));
        check_sanity(&round, !faults.is_empty());
    }
    // The mean over the shards: 1 only if each is wholly consistent.
    let p = cluster.consistency();
    println!("{strikes} faults, no anomaly, P = {p}");
    assert_eq!(p, 1.0, "P at rest");
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
        "{} operations committed, {} nil, {} aborted, {} unknown, on {} lists: {:?}",
        round.count(Outcome::Committed),
        round.nils,
        round.count(Outcome::Aborted) - round.nils,
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
    let forms = if faulty { 8 } else { 12 };
    assert!(round.forms().len() >= forms, "forms: {:?}", round.forms());
    let committed = round.count(Outcome::Committed);
    let least = if faulty { 300 } else { 600 };
    assert!(committed > least, "only {committed} operations");
    if !faulty {
        let aborted = round.count(Outcome::Aborted) - round.nils;
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

/// The same with connections that are cut, slow, or open on one side only.
#[test]
fn one_order_while_the_network_fails() {
    run(&[Fault::Network], seconds(6, 60));
}

/// The same with everything.
#[test]
fn one_order_whatever_happens() {
    run(&Fault::ALL, seconds(6, 300));
}

/// P2 behind the fence, when transactions stay half applied for a while.
#[test]
fn one_order_behind_the_fence() {
    let mut options = fenced_for(&[]);
    options.faults = "slow-apply";
    run_on(&options, &[], seconds(6, 60));
}

/// The same with everything that can fail.
#[test]
fn one_order_behind_the_fence_whatever_happens() {
    run_on(&fenced_for(&Fault::ALL), &Fault::ALL, seconds(6, 300));
}

/// The test of the test: with this cluster, the judge finds something. Each round shows it with
/// a chance of one in two to five; so many in vain are not chance.
fn it_shows(mut cluster: Cluster, touch_watched: bool) {
    const ROUNDS: usize = 50;
    let seed = Seed::take();
    let _print = PrintOnFailure(seed);
    for number in 0..ROUNDS {
        let load = Load {
            clients: clients(),
            seed,
            round: number,
            touch_watched,
        };
        let (round, _) = round(&mut cluster, &load, &[], Duration::from_secs(1));
        print(&round);
        let found = judge(&round.history);
        if !found.is_empty() {
            println!("found, as it should be: {}", tell(&found[..1]));
            return;
        }
    }
    panic!("nothing was found in {ROUNDS} rounds");
}

/// The same when this is done wrong, and transactions stay half applied for a while.
fn it_shows_with(faults: &'static str) {
    let _turn = ONE_AT_A_TIME.lock();
    let mut options = options("strict");
    options.faults = faults;
    it_shows(Cluster::start(&options), false);
}

/// P2 without faults, when transactions stay half applied for a while.
#[test]
fn one_order_while_applies_are_slow() {
    let mut options = options("strict");
    options.faults = "slow-apply";
    run_on(&options, &[], seconds(4, 60));
}

/// Plain commands that see transactions half way.
#[test]
fn without_isolation_of_plain_commands_it_shows() {
    let _turn = ONE_AT_A_TIME.lock();
    it_shows(cluster("transactions"), false);
}

/// I6, broken on purpose: a branch is released while another is not applied yet.
#[test]
fn when_released_before_the_last_apply_it_shows() {
    it_shows_with("release-before-last-apply");
}

/// What is promised only if the transaction leaves the slots of what it watches alone: a plain
/// write to what is watched on several shards may come between the vote and the apply.
#[test]
fn without_a_fence_it_shows() {
    let _turn = ONE_AT_A_TIME.lock();
    let mut options = options("strict");
    options.faults = "slow-apply";
    it_shows(Cluster::start(&options), true);
}

/// WATCH does nothing.
#[test]
fn without_watch_it_shows() {
    it_shows_with("no-watch");
}

/// What touches several slots of a shard takes effect while one of them settles; only its reply
/// is held.
#[test]
fn without_the_guard_of_several_slots_it_shows() {
    it_shows_with("no-guards,slow-apply");
}

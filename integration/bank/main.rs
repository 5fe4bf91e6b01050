//! P1 and P2 with money: whoever looks, and whatever dies, the sum over all accounts is right.
//!
//! 50 clients through two proxies move random amounts between 100 accounts on three shards with
//! MULTI/EXEC, while readers sum all accounts with one MULTI/GET/EXEC over all shards.
//!
//! - `sums_are_always_right`: `LOCKSTEP_BANK_SECONDS` of it (8 unless told);
//! - `kill_in_the_middle`: `LOCKSTEP_BANK_KILLS` (10 unless told) times kill -9 of one of the
//!   proxies; every transfer also writes a line to a ledger beside each account, so that each
//!   reply can be held against what was done.

// A test program has no outside that could reach its items.
#![allow(unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod books;
mod load;

use books::{Books, Outcome};
use load::{Load, Totals};
use rand::RngExt;
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};
use support::seed::PrintOnFailure;
use support::{Cluster, Options, Seed, eventually_with, number_from_env};

const MOVERS: usize = 50;
const READERS: usize = 4;
/// As the support starts its proxies.
const LOCK_TTL: Duration = Duration::from_millis(2_000);
const DECISION_RETENTION: Duration = Duration::from_millis(8_000);

/// Both tests load the machine fully; one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn options(durable: bool) -> Options {
    Options {
        proxies: 2,
        durable,
        ..Options::default()
    }
}

#[test]
fn sums_are_always_right() {
    let _turn = ONE_AT_A_TIME.lock();
    let seed = Seed::take();
    let _print = PrintOnFailure(seed);
    let seconds = number_from_env("LOCKSTEP_BANK_SECONDS", 8);
    let cluster = Cluster::start(&options(false));
    let books = Books::open(&cluster);
    let load = Load::new(&books, seed, [cluster.port(0), cluster.port(1)]);
    let totals = std::thread::scope(|scope| {
        let running = load.start(scope, MOVERS, READERS);
        sleep(Duration::from_secs(seconds));
        load.stop_movers();
        load.stop_readers();
        running.join()
    });
    totals.print(Duration::from_secs(seconds));
    check_readers(&totals);
    assert!(
        totals.moved > 0,
        "no transfer went through: {:?}",
        totals.errors
    );
    assert_eq!(
        totals.unknown, 0,
        "unknown outcomes without a fault: {:?}",
        totals.errors
    );
    assert!(
        totals.aborted * 20 <= totals.moved,
        "more than one in twenty was given up: {:?}",
        totals.errors
    );
    cluster.wait_settled(LOCK_TTL);
    books.check_sum(&cluster);
    books.check_ledgers(&cluster, &totals.outcomes);
    cluster.wait_clean(DECISION_RETENTION + Duration::from_secs(2));
}

#[test]
fn kill_in_the_middle() {
    let _turn = ONE_AT_A_TIME.lock();
    let seed = Seed::take();
    let _print = PrintOnFailure(seed);
    let kills = number_from_env("LOCKSTEP_BANK_KILLS", 10);
    let mut cluster = Cluster::start(&options(false));
    // A proxy that meets what a dead one has left says so.
    cluster.expect_log("recover");
    let books = Books::open(&cluster);
    let load = Load::new(&books, seed, [cluster.port(0), cluster.port(1)]);
    let begin = Instant::now();
    let (totals, lasted, settled, recovered) = std::thread::scope(|scope| {
        let running = load.start(scope, MOVERS, READERS);
        let recovered = kill_proxies(&mut cluster, seed, kills);
        load.stop_movers();
        let lasted = begin.elapsed();
        // The readers go on: whoever meets a key of a dead coordinator settles it.
        let settled = wait_settled(&cluster, LOCK_TTL + Duration::from_secs(2));
        load.stop_readers();
        (running.join(), lasted, settled, recovered)
    });
    totals.print(lasted);
    let recovered = recovered
        + (0..2)
            .map(|number| recoveries(&cluster, number))
            .sum::<f64>();
    println!("{kills} kills; {recovered} recoveries; all settled {settled:?} after the load");
    assert!(
        recovered > 0.0 || kills < 10 || !cluster.is_lockstep(),
        "nothing was ever left in doubt: this run has shown nothing"
    );
    check_readers(&totals);
    assert!(
        totals.moved > 0,
        "no transfer went through: {:?}",
        totals.errors
    );
    books.check_sum(&cluster);
    books.check_ledgers(&cluster, &totals.outcomes);
    cluster.wait_clean(DECISION_RETENTION + Duration::from_secs(2));
}

/// Kills one proxy after another at random moments under full load, each time starting it again;
/// how many recoveries the killed ones had made.
fn kill_proxies(cluster: &mut Cluster, seed: Seed, kills: u64) -> f64 {
    let mut rng = seed.rng(u64::MAX);
    let mut recovered = 0.0;
    for kill in 0..kills {
        sleep(Duration::from_millis(rng.random_range(300..1_200)));
        let victim = usize::from(kill % 2 == 1);
        recovered += recoveries(cluster, victim);
        cluster.kill(victim);
        sleep(Duration::from_millis(rng.random_range(0..300)));
        cluster.restart(victim);
    }
    // Whatever the last one left is still there, and its clients are back.
    sleep(Duration::from_millis(100));
    recovered
}

/// Recoveries that proxy `number` has made since its start.
fn recoveries(cluster: &Cluster, number: usize) -> f64 {
    let proxy = cluster.proxies().get(number);
    proxy.map_or(0.0, |proxy| proxy.metric("lockstep_recoveries_total", ""))
}

fn wait_settled(cluster: &Cluster, limit: Duration) -> Duration {
    let begin = Instant::now();
    eventually_with("everything in doubt is settled (P5)", limit, || {
        let found = cluster.leftovers();
        if found.is_settled() {
            Ok(())
        } else {
            Err(found.in_doubt)
        }
    });
    begin.elapsed()
}

fn check_readers(totals: &Totals) {
    assert!(
        totals.wrong_sums.is_empty(),
        "P2: wrong sums were read: {:?}",
        totals.wrong_sums
    );
    assert!(
        totals.sums > 0,
        "no reader got an answer: {:?}",
        totals.errors
    );
}

/// The test of the test: money moved on one side only is found, whatever its client was told.
#[test]
#[should_panic(expected = "P1: transfer planted was Unknown")]
fn half_a_transfer_is_found() {
    let cluster = Cluster::start(&Options::default());
    let books = Books::open(&cluster);
    plant(&cluster, &books.accounts()[0], -5);
    books.check_ledgers(&cluster, &[("planted".to_owned(), Outcome::Unknown)].into());
}

/// The test of the test: what was told to be aborted must not be there (P4).
#[test]
#[should_panic(expected = "P1: transfer planted was Aborted")]
fn an_aborted_transfer_that_is_there_is_found() {
    let cluster = Cluster::start(&Options::default());
    let books = Books::open(&cluster);
    plant(&cluster, &books.accounts()[0], -5);
    plant(&cluster, &books.accounts()[1], 5);
    books.check_sum(&cluster);
    books.check_ledgers(&cluster, &[("planted".to_owned(), Outcome::Aborted)].into());
}

/// One side of a transfer, directly on its shard.
fn plant(cluster: &Cluster, account: &str, amount: i64) {
    let shards = cluster.shards();
    let mut client = shards[support::shard_of(account.as_bytes(), shards.len())].client();
    client.call(&["INCRBY", account, &amount.to_string()]);
    client.call(&[
        "RPUSH",
        &Books::ledger(account),
        &format!("planted {amount}"),
    ]);
}

//! P1 and P2 with money: whoever looks, and whatever dies, the sum over all accounts is right.
//!
//! 50 clients through two proxies move random amounts between 100 accounts on three shards with
//! MULTI/EXEC, while readers sum all accounts with one MULTI/GET/EXEC over all shards, or with one
//! MGET, and others follow transfers from one end to the other with plain commands.
//!
//! - `told`: what a client is told of what went wrong;
//! - `flushes`: FLUSHALL again and again among the transfers;
//! - `sums_are_always_right`: `LOCKSTEP_BANK_SECONDS` of it (8 unless told);
//! - `kill_in_the_middle`: `LOCKSTEP_BANK_KILLS` (10 unless told) times kill -9 of one of the
//!   proxies; every transfer also writes a line to a ledger beside each account, so that each
//!   reply can be held against what was done;
//! - `pause_in_the_middle`, `shards_die_in_the_middle`: the same with proxies stopped for longer
//!   than their locks live (`LOCKSTEP_BANK_PAUSES`), and with kill -9 of shards that keep an AOF
//!   (`LOCKSTEP_BANK_SHARD_KILLS`).

// A test program has no outside that could reach its items.
#![allow(unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod books;
mod faults;
mod flushes;
mod load;
mod told;

use books::{Books, Outcome};
use load::{Load, Totals};
use rand::rngs::StdRng;
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};
use support::seed::PrintOnFailure;
use support::{Cluster, Options, Seed, eventually_with, number_from_env};

const MOVERS: usize = 50;
/// Of each kind: sums in transactions, sums by MGET, and plain commands.
const READERS: usize = 6;
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

/// Full load, faults in the middle of it, and the books afterwards. The faults tell how many
/// recoveries the proxies had made that they killed; the result is what all have made.
fn run_under_faults(durable: bool, faults: impl FnOnce(&mut Cluster, &mut StdRng) -> f64) -> Seen {
    let _turn = ONE_AT_A_TIME.lock();
    let seed = Seed::take();
    let _print = PrintOnFailure(seed);
    let mut cluster = Cluster::start(&options(durable));
    let books = Books::open(&cluster);
    let load = Load::new(&books, seed, [cluster.port(0), cluster.port(1)]);
    let begin = Instant::now();
    let (totals, lasted, settled, recovered) = std::thread::scope(|scope| {
        let running = load.start(scope, MOVERS, READERS);
        let recovered = faults(&mut cluster, &mut seed.rng(u64::MAX));
        // Whatever the last fault left is still there, and its clients are back.
        sleep(Duration::from_millis(100));
        load.stop_movers();
        let lasted = begin.elapsed();
        // The readers go on: whoever meets a key of a dead coordinator settles it.
        let settled = wait_settled(&cluster, LOCK_TTL + Duration::from_secs(2));
        load.stop_readers();
        (running.join(), lasted, settled, recovered)
    });
    let recovered = recovered + faults::recoveries(&cluster, 0) + faults::recoveries(&cluster, 1);
    totals.print(lasted);
    println!("{recovered} recoveries; all settled {settled:?} after the load");
    check_readers(&totals);
    assert!(
        totals.moved > 0,
        "no transfer went through: {:?}",
        totals.errors
    );
    books.check_sum(&cluster);
    books.check_ledgers(&cluster, &totals.outcomes);
    cluster.wait_clean(DECISION_RETENTION + Duration::from_secs(2));
    Seen {
        recovered: recovered > 0.0 || !cluster.is_lockstep(),
        failed: !totals.errors.is_empty(),
    }
}

/// Whether the faults hit anything: a run without shows nothing.
struct Seen {
    recovered: bool,
    failed: bool,
}

/// P1, P2, P5 against kill -9 of the proxies.
#[test]
fn kill_in_the_middle() {
    let kills = number_from_env("LOCKSTEP_BANK_KILLS", 10);
    let seen = run_under_faults(false, |cluster, rng| {
        faults::kill_proxies(cluster, rng, kills)
    });
    assert!(seen.recovered, "nothing was ever left in doubt");
}

/// P1, P2, P5 against proxies that stop for longer than their locks live, and then go on as if
/// nothing had happened. Whether a pause finds a transaction half done is left to chance.
#[test]
fn pause_in_the_middle() {
    let pauses = number_from_env("LOCKSTEP_BANK_PAUSES", 3);
    let length = LOCK_TTL + Duration::from_millis(700);
    run_under_faults(false, |cluster, rng| {
        faults::pause_proxies(cluster, rng, pauses, length)
    });
}

/// P1, P2, P5 against kill -9 of shards that keep what they acknowledged.
#[test]
fn shards_die_in_the_middle() {
    let kills = number_from_env("LOCKSTEP_BANK_SHARD_KILLS", 5);
    let seen = run_under_faults(true, |cluster, rng| {
        faults::kill_shards(cluster, rng, kills)
    });
    assert!(seen.failed, "nobody noticed that shards died");
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
    assert_eq!(totals.halves, 0, "P2: plain commands saw half a transfer");
    assert!(
        totals.sums > 0 && totals.mget_sums > 0 && totals.followed > 0,
        "some readers got no answer: {:?}",
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

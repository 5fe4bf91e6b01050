//! The simulator: the machines of production, many transactions on few keys from several
//! proxies, and plain commands beside them, in virtual time, by dice. [`world`] tells what may go
//! wrong, [`history`] what must not.
//!
//! `LOCKSTEP_SCHEDULES=n` sets the number of schedules; the first that fails is printed with its
//! seed, and `LOCKSTEP_SEED=seed` replays that one and tells everything that happens in it.

mod history;
mod plain;
mod proxy;
mod random;
mod shard;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use world::{Bug, Tally, World};

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number")),
    )
}

/// Runs schedules on all cores until one fails; which, and how.
fn run_all(schedules: u64, bug: Option<Bug>) -> Result<Tally, (u64, String)> {
    let next = AtomicU64::new(0);
    let run = || {
        let mut tally = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= schedules {
                return Ok(tally);
            }
            match World::run(seed, bug, false) {
                Ok(one) => tally.add(&one),
                Err(wrong) => {
                    next.store(schedules, Ordering::Relaxed);
                    return Err((seed, wrong));
                }
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(run)).collect();
        let mut total = Tally::default();
        for thread in threads {
            total.add(&thread.join().expect("a schedule panicked")?);
        }
        Ok(total)
    })
}

#[test]
fn schedules() {
    if let Some(seed) = variable("LOCKSTEP_SEED") {
        let told = World::run(seed, None, true);
        println!("{told:?}");
        return assert!(told.is_ok(), "seed {seed} fails");
    }
    let long = std::env::var("LOCKSTEP_LONG").is_ok_and(|long| long == "1");
    let usual = if long { 1_000_000 } else { 20_000 };
    let schedules = variable("LOCKSTEP_SCHEDULES").unwrap_or(usual);
    let began = Instant::now();
    match run_all(schedules, None) {
        Ok(tally) => {
            println!(
                "{schedules} schedules in {:.1} s: {tally:?}",
                began.elapsed().as_secs_f32()
            );
            assert!(
                tally.all_happened() || schedules < 1000,
                "too little happens: {tally:?}"
            );
        }
        Err((seed, wrong)) => panic!("seed {seed}: {wrong}\nLOCKSTEP_SEED={seed} replays it"),
    }
}

/// The simulator can fail: it finds bugs that are planted around the machines.
#[test]
fn planted_bugs_are_found() {
    for bug in [
        Bug::AlwaysOutright,
        Bug::AbortForTombstone,
        Bug::GuessOnSilence,
        Bug::OldWatch,
        Bug::NoHold,
        Bug::IndexUnread,
        Bug::FenceOff,
        Bug::CheckedUnsettled,
    ] {
        let (seed, wrong) = run_all(200_000, Some(bug)).expect_err("went unnoticed");
        println!(
            "{bug:?}: seed {seed}: {}",
            wrong.chars().take(120).collect::<String>()
        );
    }
}

/// A seed is a schedule: it comes out the same each time.
#[test]
fn seeds_replay() {
    let run = || (0..50).map(|seed| World::run(seed, None, false));
    let told = |all: Vec<Result<Tally, String>>| format!("{all:?}");
    assert_eq!(told(run().collect()), told(run().collect()));
}

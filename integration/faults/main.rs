//! P1, P4 and P5 at every moment: the process that coordinates or recovers a transaction is
//! stopped at a failpoint (`src/failpoint.rs`) and then killed with -9, or goes on only when its
//! locks have died and others have settled what it left. Each time: all of the transaction is
//! applied or nothing, the client was told the truth, `LOCKSTEP TXN STATUS` tells it, nothing is
//! left on the shards, and the audit finds P = 1.
//!
//! The table of [`cases`] must name every failpoint that there is in the source.

// A test program has no outside that could reach its items.
#![allow(unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod cases;
mod network;
mod stage;

use cases::{CASES, Case};
use stage::{Ending, Stage};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Cases mostly wait, so several run at once, each on servers of its own.
const LANES: usize = 4;

/// P1, P4, P5 at each failpoint, by kill -9 and by a stall.
#[test]
fn whatever_dies_or_stops_at_any_moment() {
    let only = std::env::var("LOCKSTEP_FAILPOINT").unwrap_or_default();
    let all: Vec<(&Case, Ending)> = CASES
        .iter()
        .filter(|case| case.failpoint.contains(&only))
        .flat_map(|case| [(case, Ending::Kill), (case, Ending::Stall)])
        .collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..LANES.min(all.len()) {
            scope.spawn(|| {
                let mut stage = Stage::start();
                while let Some((case, ending)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    stage.run(case, *ending);
                }
            });
        }
    });
    println!("{} cases", all.len());
}

/// No failpoint is forgotten, and none that is listed is gone.
#[test]
fn every_failpoint_in_the_source_is_hit() {
    let mut named = BTreeSet::new();
    collect(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut named,
    );
    let hit: BTreeSet<String> = CASES.iter().map(|case| case.failpoint.to_owned()).collect();
    let missed: Vec<_> = named.difference(&hit).collect();
    let gone: Vec<_> = hit.difference(&named).collect();
    assert!(missed.is_empty(), "in the source and not hit: {missed:?}");
    assert!(gone.is_empty(), "not in the source any more: {gone:?}");
}

/// Texts in quotes that are named by who and when.
fn collect(folder: &Path, named: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, named);
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a text");
        let quoted = text.split('"').skip(1).step_by(2);
        let is_name = |word: &&str| {
            let who = ["coordinator-", "recoverer-", "single-", "watch-", "locked-"];
            who.iter().any(|who| word.starts_with(who))
                && (word.contains("-before-") || word.contains("-after-"))
                && !word.contains(char::is_whitespace)
        };
        named.extend(quoted.filter(is_name).map(str::to_owned));
    }
}

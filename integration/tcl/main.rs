//! Redis's own test suite, unchanged, in its mode for a server that somebody else started, against
//! lockstep over three shards. Only for who has the suite: `LOCKSTEP_TCL_SUITE` names an unpacked
//! source tree of Redis 7.0.15 (`apt-get source redis` on Debian 12). Needs tclsh.
//!
//! `expected.txt` beside this file says how many tests run in each unit, and which of them fail and
//! why. A failure that is not in there fails this test, and so does one that is and passes.
//!
//! One unit: `LOCKSTEP_TCL_UNITS=unit/sort,unit/multi`. Against redis-server: `LOCKSTEP_SUBJECT=redis`.

// A test program has no outside that could reach its items.
#![allow(unreachable_pub)]

mod expected;
mod outcome;
mod suite;
#[path = "../support/mod.rs"]
mod support;

use expected::{Databases, Expected};
use outcome::Outcome;
use std::path::PathBuf;
use std::sync::Mutex;
use suite::Suite;
use support::{Cluster, Options};

/// One run at a time: the suite measures times, too.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn one_database() {
    run(Databases::One);
}

#[test]
fn sixteen_databases() {
    run(Databases::Sixteen);
}

fn run(databases: Databases) {
    let Some(path) = std::env::var_os("LOCKSTEP_TCL_SUITE").map(PathBuf::from) else {
        println!("skipped: LOCKSTEP_TCL_SUITE names no source tree of Redis");
        return;
    };
    let _turn = TURN
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let suite = Suite::new(&path, databases);
    let cluster = Cluster::start(&Options {
        proxy: vec![("workers".into(), "2".into())],
        ..Options::default()
    });
    // The suite provokes whatever it likes.
    cluster.expect_log("");
    let expected = Expected::read(databases);
    let mut outcomes = Vec::new();
    for unit in units(&suite) {
        let outcome = suite.run(&unit, cluster.port(0));
        println!("{}", outcome.line());
        outcomes.push(outcome);
    }
    let passed: usize = outcomes.iter().map(Outcome::passed).sum();
    let ran: usize = outcomes.iter().map(|outcome| outcome.tests.len()).sum();
    println!("{databases:?}: {passed} of {ran} passed");
    if cluster.is_lockstep() {
        let surprises: Vec<String> = outcomes
            .iter()
            .flat_map(|outcome| expected.surprises(outcome))
            .collect();
        assert!(surprises.is_empty(), "{}", surprises.join("\n"));
    }
}

fn units(suite: &Suite) -> Vec<String> {
    match std::env::var("LOCKSTEP_TCL_UNITS") {
        Ok(some) => some.split(',').map(str::to_owned).collect(),
        Err(_) => suite.units(),
    }
}

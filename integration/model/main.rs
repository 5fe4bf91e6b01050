//! The model checker: the coordinator and the recoverer of production against the participant's
//! twin, in every order of events.

mod bugs;
mod laws;
mod model;
mod shards;
mod sights;
mod world;

use lockstep::txn::Rule;
use model::Protocol;
use stateright::{Checker, Model};

fn check(name: &str, protocol: Protocol) {
    let started = std::time::Instant::now();
    let sights = protocol.sights.clone();
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    println!(
        "{name}: {} states, depth {}, {:?}",
        checker.unique_state_count(),
        checker.max_depth(),
        started.elapsed()
    );
    println!("{sights:?}");
    checker.assert_properties();
}

#[test]
fn base() {
    check("base", Protocol::base());
}

#[test]
fn tiny() {
    check(
        "tiny",
        Protocol {
            recoverers: 0,
            second: false,
            repeats: false,
            ..Protocol::base()
        },
    );
}
#[test]
fn tiny_r() {
    check(
        "tiny_r",
        Protocol {
            recoverers: 0,
            second: false,
            ..Protocol::base()
        },
    );
}
#[test]
fn one() {
    check(
        "one",
        Protocol {
            recoverers: 1,
            second: false,
            ..Protocol::base()
        },
    );
}
#[test]
fn dec() {
    check(
        "dec",
        Protocol {
            rule: Rule::Decider(bugs::part(0)),
            second: false,
            ..Protocol::base()
        },
    );
}

#[test]
fn two() {
    check(
        "two",
        Protocol {
            recoverers: 2,
            second: false,
            ..Protocol::base()
        },
    );
}
#[test]
fn pinned() {
    check(
        "pinned",
        Protocol {
            pinned: true,
            second: false,
            ..Protocol::base()
        },
    );
}

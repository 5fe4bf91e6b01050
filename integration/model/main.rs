//! The model checker: the coordinator and the recoverer of production against the participant's
//! twin, in every order of events.
//!
//! [`model`] tells what can happen, [`laws`] what must hold, [`sights`] what must be reachable,
//! [`bugs`] what must be noticed. Every run explores all its states; their number is pinned, so
//! that nobody makes the model smaller, or the protocol different, without saying so: it is in
//! the panic, and goes in here once it is understood.
//!
//! [`plain`] is a model of its own: plain commands beside transactions.
//!
//! Runs with three participants, or with two recoverers and every loss, take minutes; they run
//! with `LOCKSTEP_LONG=1`.

mod bugs;
mod laws;
mod machines;
mod model;
mod network;
mod plain;
mod planted;
mod second;
mod shards;
mod shared;
mod sights;
mod world;

use std::time::Instant;

use lockstep::txn::Rule;
use stateright::{Checker, HasDiscoveries, Model};

use bugs::part;
use model::Protocol;
use sights::Sight::{self, *};
use sights::Sights;

/// Explores everything, and compares with what is known of this run.
fn check(name: &str, protocol: Protocol, states: usize, sights: &[Sight]) {
    let (began, seen) = (Instant::now(), protocol.sights.clone());
    let checker = protocol.clone().checker().threads(2).spawn_dfs().join();
    let (count, seconds) = (checker.unique_state_count(), began.elapsed().as_secs_f32());
    println!("{name}: {count} states in {seconds:.1} s");
    if !checker.discoveries().is_empty() {
        tell_shortest(protocol);
    }
    assert_eq!(
        count, states,
        "{name}: another number of states than before"
    );
    expect_sights(name, &seen, sights);
}

/// Depth first is fast and small, but what it finds is long: look again, breadth first.
fn tell_shortest(protocol: Protocol) {
    let checker = protocol
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AnyFailures);
    checker.spawn_bfs().join().assert_properties();
}

fn expect_sights(name: &str, seen: &Sights, sights: &[Sight]) {
    let unseen: Vec<_> = sights.iter().filter(|sight| !seen.has(**sight)).collect();
    assert!(unseen.is_empty(), "{name}: never seen: {unseen:?}");
}

fn is_long() -> bool {
    let long = std::env::var_os("LOCKSTEP_LONG").is_some_and(|long| long == "1");
    if !long {
        println!("skipped: LOCKSTEP_LONG=1 runs it");
    }
    long
}

/// What happens with one recoverer, whatever else there is.
const ALWAYS: &[Sight] = &[
    FirstCommits,
    FirstAborts,
    FirstLosesReplies,
    FirstUnknown,
    RolledForward,
    RecoveredCommitted,
    RecoveredAborted,
    RecoveredNothing,
    RecoveredInDoubt,
    DeletedOutright,
    PrepareMetTombstone,
    TombstoneTooLate,
];

fn and(more: &[Sight]) -> Vec<Sight> {
    [ALWAYS, more].concat()
}

fn decider() -> Protocol {
    Protocol {
        rule: Rule::Decider(part(0)),
        ..Protocol::base()
    }
}

/// The heart: two participants, applied by script, a recoverer, a second transaction.
#[test]
fn implicit_rule_with_a_second_transaction() {
    let sights = and(&[
        TombstoneMetPrepared,
        SecondCommits,
        SecondHeld,
        SecondAfterFirst,
    ]);
    check("implicit", Protocol::base(), 605_713, &sights);
}

/// Applied on the connection of the prepare, which watches the record.
#[test]
fn implicit_rule_on_watching_connections() {
    let protocol = Protocol {
        pinned: true,
        second: false,
        ..Protocol::base()
    };
    check("watching", protocol, 279_398, &and(&[TombstoneMetPrepared]));
}

/// The client's WATCH on one shard; its key is written from outside at any moment.
#[test]
fn decider_rule() {
    let protocol = Protocol {
        second: false,
        ..decider()
    };
    check("decider", protocol, 132_181, &and(&[FirstNil]));
}

#[test]
fn decider_rule_with_a_second_transaction() {
    let sights = [FirstNil, SecondCommits, SecondHeld, SecondAfterFirst];
    let protocol = Protocol {
        steady: true,
        ..decider()
    };
    check("decider, second", protocol, 107_622, &sights);
}

/// A transaction with a single participant, as plain commands use it that must not meet others.
#[test]
fn one_participant() {
    let protocol = Protocol {
        parts: 1,
        recoverers: 2,
        ..Protocol::base()
    };
    let sights = [
        FirstCommits,
        FirstAborts,
        RolledForward,
        SecondCommits,
        SecondAfterFirst,
    ];
    check("one", protocol, 12_823, &sights);
}

#[test]
fn two_recoverers() {
    let protocol = Protocol {
        recoverers: 2,
        steady: true,
        second: false,
        end: 2,
        ..Protocol::base()
    };
    check(
        "two recoverers",
        protocol,
        856_730,
        &[FirstCommits, RolledForward, RecoveredAborted],
    );
}

#[test]
fn two_recoverers_of_a_decider() {
    let protocol = Protocol {
        recoverers: 2,
        steady: true,
        second: false,
        end: 2,
        ..decider()
    };
    check(
        "two recoverers, decider",
        protocol,
        127_437,
        &[FirstCommits, FirstNil, RecoveredAborted],
    );
}

/// Locks are volatile keys and may be evicted early: the index and the deadline do their work.
#[test]
fn locks_evicted_early() {
    let protocol = Protocol {
        evictions: true,
        second: false,
        ..Protocol::base()
    };
    check("evictions", protocol, 258_701, ALWAYS);
}

#[test]
fn long_two_recoverers() {
    if is_long() {
        let protocol = Protocol {
            recoverers: 2,
            second: false,
            ..Protocol::base()
        };
        check("two recoverers, every loss", protocol, 4_152_967, ALWAYS);
    }
}

#[test]
fn long_two_recoverers_of_a_decider() {
    if is_long() {
        let protocol = Protocol {
            recoverers: 2,
            second: false,
            ..decider()
        };
        check(
            "two recoverers, decider, every loss",
            protocol,
            2_036_672,
            &and(&[FirstNil]),
        );
    }
}

#[test]
fn long_decider_with_a_second_transaction() {
    if is_long() {
        let sights = and(&[FirstNil, SecondCommits, SecondHeld, SecondAfterFirst]);
        check("decider, second, every loss", decider(), 691_108, &sights);
    }
}

#[test]
fn long_evictions_with_a_second_transaction() {
    if is_long() {
        let protocol = Protocol {
            evictions: true,
            ..Protocol::base()
        };
        let sights = and(&[SecondCommits, SecondAfterFirst]);
        check("evictions, second", protocol, 1_351_482, &sights);
    }
}

#[test]
fn long_watching_with_a_second_transaction() {
    if is_long() {
        let protocol = Protocol {
            pinned: true,
            ..Protocol::base()
        };
        let sights = and(&[SecondCommits, SecondAfterFirst]);
        check("watching, second", protocol, 1_317_758, &sights);
    }
}

/// A branch applied before the WATCH began is not applied again, for two reasons, and either is
/// enough: the look behind the WATCH, which needs no clock, and the coordinator's clock, which
/// needs no look. (Without both: [`bugs::Bug::NoCheckBehindWatch`].)
#[test]
fn long_the_clock_alone_guards_the_watch() {
    if is_long() {
        let bug = Some(bugs::Bug::NoLookBehindWatch);
        let protocol = Protocol {
            pinned: true,
            second: false,
            bug,
            ..Protocol::base()
        };
        check("watching without looking", protocol, 353_358, ALWAYS);
    }
}

/// Three participants.
fn three(base: Protocol) -> Protocol {
    Protocol { parts: 3, ..base }
}

/// What can be explored with three participants and a recoverer.
fn small(base: Protocol) -> Protocol {
    Protocol {
        steady: true,
        second: false,
        end: 2,
        ..base
    }
}

#[test]
fn long_three_participants_with_a_second_transaction() {
    if is_long() {
        let protocol = Protocol {
            recoverers: 0,
            ..three(Protocol::base())
        };
        let sights = [FirstCommits, SecondCommits, SecondAfterFirst];
        check("three, second", protocol, 1_306_851, &sights);
    }
}

#[test]
fn long_three_participants() {
    if is_long() {
        let sights = [FirstCommits, FirstAborts, RolledForward, RecoveredAborted];
        check("three", small(three(Protocol::base())), 5_241_468, &sights);
    }
}

#[test]
fn long_three_participants_of_a_decider() {
    if is_long() {
        let sights = [FirstCommits, FirstNil, RolledForward, RecoveredAborted];
        check("three, decider", small(three(decider())), 476_450, &sights);
    }
}

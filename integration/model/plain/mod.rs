//! The second model: small programs of plain commands beside transactions, every history checked
//! for strict serializability against all orders.
//!
//! [`program`] tells what clients do, [`commands`] how plain commands go, [`transactions`] how the
//! production coordinator is driven, [`history`] what must hold. All programs of a kind are
//! explored in one run, whose number of states is pinned.

mod commands;
mod history;
mod model;
mod planted;
mod program;
mod transactions;
mod world;

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use super::sights::Sight::{self, *};
use model::Plain;
use program::Access::*;
use program::*;

/// Explores everything, and compares with what is known of this run.
fn check(name: &str, model: Plain, states: usize, sights: &[Sight]) {
    let (began, seen) = (Instant::now(), model.sights.clone());
    let checker = model.clone().checker().threads(2).spawn_dfs().join();
    let (count, programs) = (checker.unique_state_count(), model.programs.len());
    let seconds = began.elapsed().as_secs_f32();
    println!("{name}: {programs} programs, {count} states in {seconds:.1} s");
    if !checker.discoveries().is_empty() {
        tell_shortest(model);
    }
    assert_eq!(
        count, states,
        "{name}: another number of states than before"
    );
    super::expect_sights(name, &seen, sights);
}

/// Depth first is fast and small, but what it finds is long: look again, breadth first.
fn tell_shortest(model: Plain) {
    let checker = model
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.spawn_bfs().join();
    for (law, path) in checker.discoveries() {
        let (last, programs) = (path.last_state().clone(), &checker.model().programs);
        println!("{law}: {:?}", programs[last.program]);
        println!("{:#?}\n{:#?}", path.into_actions(), last.history);
    }
    checker.assert_properties();
}

const AB: &[Slot] = &[A, B];
const AC: &[Slot] = &[A, C];
const BD: &[Slot] = &[B, D];
const CB: &[Slot] = &[C, B];
const AD: &[Slot] = &[A, D];
const CD: &[Slot] = &[C, D];

/// Over both shards.
fn across(slots: &[Slot]) -> Command {
    transaction(Kind::Transaction, slots)
}

/// The hold rule: commands on one slot beside one transaction.
#[test]
fn single_slots() {
    let programs = programs(&[across(AB)], &[get(A), set(A), get(B), set(B)], &[2, 2]);
    check(
        "single slots",
        Plain::new(programs),
        236_568,
        &[Commits, ReplyHeld],
    );
}

/// The same, where replies leave at any time after they may.
#[test]
fn single_slots_at_leisure() {
    let programs = programs(&[across(AB)], &[get(A), set(A), get(B), set(B)], &[1, 2]);
    let lazy = Plain {
        lazy: true,
        ..Plain::new(programs)
    };
    check("at leisure", lazy, 112_208, &[Commits]);
}

/// Writes of several slots of a shard are guarded.
#[test]
fn guarded_writes() {
    let alphabet = [write(Both, AC), get(A), get(B), get(C)];
    let programs = programs(&[across(AB)], &alphabet, &[1, 2]);
    let sights = [
        Commits,
        ReplyHeld,
        GuardNil,
        GuardBusy,
        GuardLocked,
        MetAnother,
    ];
    check("guarded writes", Plain::new(programs), 62_452, &sights);
}

/// Reads of several slots, on one shard and over both, and commands on one slot, but no plain
/// writes: those are not promised to be seen in order by split reads.
fn reads(lens: &[usize], reads_max: u8) -> Plain {
    let alphabet = [read(AB), read(AC), read(CB), get(A), get(B)];
    Plain {
        reads_max,
        ..Plain::new(programs(&[across(AB)], &alphabet, lens))
    }
}

#[test]
fn split_reads() {
    let sights = [Commits, ReadAtOnce, ReadLocked];
    check("split reads", reads(&[1, 1], 1), 382_448, &sights);
}

#[test]
fn split_reads_that_are_read_again() {
    let sights = [Commits, ReadAtOnce, ReadLocked];
    check("reads again", reads(&[2], 2), 135_553, &sights);
}

#[test]
fn long_split_reads() {
    if super::is_long() {
        let sights = [Commits, ReadAtOnce, ReadLocked];
        check(
            "split reads, read again",
            reads(&[1, 1], 2),
            1_603_472,
            &sights,
        );
    }
}

/// Two transactions, whose order all must see alike.
#[test]
fn two_transactions() {
    let programs = programs(&[across(AB), across(CD)], &[read(AC), read(BD)], &[1, 1]);
    let model = Plain {
        reads_max: 1,
        ..Plain::new(programs)
    };
    check(
        "two transactions",
        model,
        94_525,
        &[Commits, ReadAtOnce, ReadLocked],
    );
}

#[test]
fn two_transactions_and_guarded_writes() {
    let alphabet = [write(Both, AC), write(Both, BD), get(A), get(D)];
    let programs = programs(&[across(AB), across(CD)], &alphabet, &[1, 1]);
    let sights = [Commits, GuardLocked];
    check(
        "two transactions, guarded",
        Plain::new(programs),
        200_685,
        &sights,
    );
}

/// Two transactions with a slot in common.
#[test]
fn two_transactions_that_meet() {
    let alphabet = [get(A), get(B), get(D), set(A)];
    let programs = programs(&[across(AB), across(AD)], &alphabet, &[1, 1]);
    let sights = [Commits, MetAnother];
    check(
        "two transactions that meet",
        Plain::new(programs),
        75_654,
        &sights,
    );
}

/// The client watches what it uses of one shard, which decides; the hold rule beside that.
#[test]
fn a_decider() {
    let alphabet = [get(A), set(A), get(B), set(B)];
    let programs = programs(&[transaction(Kind::Decider, AB)], &alphabet, &[1, 2]);
    let sights = [DeciderCommits, DeciderNil, ReplyHeld];
    check("decider", Plain::new(programs), 28_798, &sights);
}

/// What is watched is not written: it is prepared and settles all the same.
#[test]
fn a_decider_that_only_watches() {
    let alphabet = [get(A), set(A), get(B), set(B)];
    let watching = Command::new(Kind::Decider, Read, &[A]).and(Both, &[B]);
    let programs = programs(&[watching], &alphabet, &[1, 2]);
    check(
        "decider, only watched",
        Plain::new(programs),
        27_978,
        &[DeciderNil],
    );
}

#[test]
fn a_decider_and_guarded_writes() {
    let alphabet = [write(Both, AC), read(AC), get(B), get(C)];
    let programs = programs(&[transaction(Kind::Decider, AB)], &alphabet, &[1, 2]);
    check(
        "decider, guarded",
        Plain::new(programs),
        116_888,
        &[DeciderNil],
    );
}

/// What the client watches lives on both shards; the fence guards all plain writes.
#[test]
fn checked_prepares_behind_the_fence() {
    let alphabet = [get(A), get(B), fenced_set(A), fenced_set(B)];
    let programs = programs(&[transaction(Kind::Checked, AB)], &alphabet, &[1, 2]);
    let sights = [CheckedCommits, CheckedNil, ReplyHeld, GuardLocked];
    check("checked", Plain::new(programs), 118_020, &sights);
}

/// The same beside a transaction on one of the slots.
#[test]
fn checked_prepares_beside_a_transaction() {
    let alphabet = [get(A), get(B), fenced_set(A), fenced_set(B)];
    let watching = Command::new(Kind::Checked, Read, &[A]).and(Both, &[B]);
    let programs = programs(&[watching, across(AD)], &alphabet, &[1, 1]);
    let sights = [CheckedCommits, CheckedNil, MetAnother];
    check("checked, two", Plain::new(programs), 322_086, &sights);
}

#[test]
fn long_single_slots() {
    if super::is_long() {
        let alphabet = [get(A), set(A), get(B), set(B), get(C), set(C)];
        let programs = programs(&[across(AB)], &alphabet, &[2, 2]);
        let sights = [Commits, ReplyHeld];
        check(
            "single slots, three",
            Plain::new(programs),
            1_034_722,
            &sights,
        );
    }
}

#[test]
fn long_guarded_writes() {
    if super::is_long() {
        let alphabet = [write(Both, AC), get(A), set(A), get(B), get(C)];
        let programs = programs(&[across(AB)], &alphabet, &[2, 2]);
        let sights = [Commits, ReplyHeld, GuardNil, GuardBusy, GuardLocked];
        check(
            "guarded writes, four",
            Plain::new(programs),
            1_017_557,
            &sights,
        );
    }
}

#[test]
fn long_deciders() {
    if super::is_long() {
        let alphabet = [get(A), set(A), get(B), set(B), write(Both, AC)];
        let programs = programs(&[transaction(Kind::Decider, AB)], &alphabet, &[2, 2]);
        let sights = [DeciderCommits, DeciderNil, ReplyHeld, GuardLocked];
        check("decider, four", Plain::new(programs), 846_520, &sights);
    }
}

#[test]
fn long_two_transactions() {
    if super::is_long() {
        let alphabet = [
            read(AC),
            read(BD),
            read(AD),
            write(Both, AC),
            get(A),
            get(D),
        ];
        let model = Plain {
            reads_max: 1,
            ..Plain::new(programs(&[across(AB), across(CD)], &alphabet, &[1, 1]))
        };
        let sights = [Commits, ReadAtOnce, ReadLocked, GuardLocked];
        check("two transactions, more", model, 7_157_561, &sights);
    }
}

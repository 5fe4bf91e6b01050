//! Each planted bug breaks the law that it should, in a run of few programs.

use std::collections::BTreeSet;
use std::time::Duration;

use stateright::{Checker, HasDiscoveries, Model};

use super::model::{Bug, Plain, SERIALIZABLE};
use super::*;

/// Searches until a history has no order; and that it always has one without the bug.
#[track_caller]
fn caught(bug: Bug, programs: Vec<Program>) {
    let model = |bug| Plain {
        bug,
        // Only one of them needs more.
        reads_max: if bug == Some(Bug::IndexUnread) { 2 } else { 1 },
        ..Plain::new(programs.clone())
    };
    let (bugged, sound) = (model(Some(bug)), model(None));
    let checker = bugged
        .checker()
        .finish_when(HasDiscoveries::AnyOf(BTreeSet::from([SERIALIZABLE])))
        // Only so that a test that has lost its teeth says so; they bite in seconds.
        .timeout(Duration::from_secs(300))
        .spawn_bfs()
        .join();
    let path = checker
        .discovery(SERIALIZABLE)
        .unwrap_or_else(|| panic!("{bug:?} went unnoticed"));
    let (states, last) = (checker.unique_state_count(), path.last_state().clone());
    let (program, steps) = (
        &checker.model().programs[last.program],
        path.into_actions().len(),
    );
    println!(
        "{bug:?}: after {steps} steps, {states} states: {:?}",
        program.clients
    );
    sound.checker().spawn_dfs().join().assert_properties();
}

#[test]
fn bugs_of_held_replies() {
    let readers = || programs(&[across(AB)], &[get(A), get(B)], &[2]);
    caught(Bug::NoHold, readers());
    caught(Bug::ChecksBefore, readers());
    caught(Bug::ReleasesEarly, readers());
}

#[test]
fn bugs_of_guards() {
    let alphabet = [write(Write, AC), get(C), get(B)];
    let programs = || programs(&[across(AB)], &alphabet, &[1, 2]);
    caught(Bug::HoldsUnguarded, programs());
    caught(Bug::GuardOff, programs());
    caught(Bug::ArmedUnread, programs());
}

/// With two transactions reads of several slots are enough.
#[test]
fn reads_that_are_held_only() {
    let readers = programs(&[across(AB), across(CD)], &[read(AC), read(BD)], &[1, 1]);
    caught(Bug::HoldsUnguarded, readers);
}

#[test]
fn bugs_of_epochs() {
    let reads = programs(&[across(AB)], &[read(AB)], &[1, 1]);
    caught(Bug::EpochKnownLate, reads);
    caught(Bug::IndexUnread, programs(&[across(AB)], &[read(AB)], &[1]));
}

/// WATCH over two shards against plain writes.
#[test]
fn bugs_of_the_fence() {
    let watching = transaction(Kind::Checked, AB);
    let programs = || programs(&[watching], &[fenced_set(A), get(A), get(B)], &[1, 1]);
    caught(Bug::FenceOff, programs());
    caught(Bug::CheckedUnsettled, programs());
}

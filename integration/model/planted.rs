//! Each planted bug breaks the law that it should, in the smallest model that can tell.

use std::collections::BTreeSet;
use std::time::Duration;

use lockstep::txn::Rule;
use stateright::{Checker, HasDiscoveries, Model};

use super::bugs::{Bug, part};
use super::laws;
use super::model::Protocol;

fn base() -> Protocol {
    Protocol {
        second: false,
        ..Protocol::base()
    }
}

fn watching() -> Protocol {
    Protocol {
        pinned: true,
        ..base()
    }
}

fn decider() -> Protocol {
    Protocol {
        rule: Rule::Decider(part(0)),
        ..base()
    }
}

/// Searches until `law` is broken.
#[track_caller]
fn caught(bug: Bug, protocol: Protocol, law: &'static str) {
    let checker = Protocol {
        bug: Some(bug),
        ..protocol
    }
    .checker()
    .finish_when(HasDiscoveries::AnyOf(BTreeSet::from([law])))
    // Only so that a test that has lost its teeth says so; they bite in seconds.
    .timeout(Duration::from_secs(300))
    .spawn_bfs()
    .join();
    let path = checker
        .discovery(law)
        .unwrap_or_else(|| panic!("{bug:?} went unnoticed"));
    let (states, steps) = (checker.unique_state_count(), path.into_actions().len());
    println!("{bug:?}: {law}, after {steps} steps, {states} states");
}

#[test]
fn bugs_of_the_vote() {
    caught(Bug::CommitsOnFirstYes, base(), laws::ALL_PREPARED_FIRST);
    caught(Bug::GuessOnSilence, base(), laws::COMMITTED_STAYS);
    caught(Bug::PrepareTwice, base(), laws::APPLIED_ONCE);
    caught(Bug::SameIdOnRetry, base(), laws::COMMITTED_STAYS);
    caught(
        Bug::PrepareIgnoresIndex,
        Protocol::base(),
        laws::RELEASED_LAST,
    );
    caught(Bug::NoNotAfter, base(), laws::COMMITTED_STAYS);
    caught(Bug::TrustsPastItsTtl, base(), laws::ONE_FATE);
}

#[test]
fn bugs_of_the_apply() {
    caught(Bug::NoCheckBehindWatch, watching(), laws::APPLIED_ONCE);
    caught(Bug::RecoversOnOldWatch, watching(), laws::APPLIED_ONCE);
    caught(Bug::SkipsRefused, base(), laws::REPLIES_HOLD);
    caught(Bug::DeciderUnwatched, decider(), laws::APPLIED_ONCE);
    caught(Bug::NilOnSilence, decider(), laws::REPLIES_HOLD);
}

#[test]
fn bugs_of_the_release() {
    caught(Bug::ReleaseBeforeAllApplied, base(), laws::RELEASED_LAST);
    caught(
        Bug::ReleaseWithoutOwner,
        Protocol::base(),
        laws::RELEASED_LAST,
    );
    caught(Bug::AlwaysOutright, base(), laws::NOTHING_LEFT);
    caught(Bug::MarkerAtApply, base(), laws::NOTHING_LEFT);
}

#[test]
fn bugs_of_recovery() {
    caught(Bug::RecoversBeforeDeadline, base(), laws::ONE_FATE);
    caught(Bug::AbsentMeansSuccess, base(), laws::REPLIES_HOLD);
    caught(Bug::AppliedAbsentAborts, base(), laws::ONE_FATE);
    caught(Bug::AbsentIsFinished, base(), laws::RELEASED_LAST);
    caught(Bug::BuriesTheFinished, base(), laws::ONE_FATE);
    caught(Bug::NoAge, base(), laws::ONE_FATE);
}

#[test]
fn bugs_of_tombstones() {
    caught(Bug::NoTombstone, base(), laws::COMMITTED_STAYS);
    caught(Bug::BlindTombstone, base(), laws::COMMITTED_STAYS);
    caught(Bug::AbortForTombstone, base(), laws::COMMITTED_STAYS);
    caught(Bug::TombstonesTooLate, base(), laws::REPLIES_HOLD);
}

#[test]
fn bugs_of_the_decider_rule() {
    caught(Bug::DeciderByAllPrepared, decider(), laws::WATCH_GUARDS);
    caught(Bug::AsksOnlyDecider, decider(), laws::NOTHING_LEFT);
}

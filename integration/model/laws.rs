//! The invariants, as properties of states.

use lockstep::txn::recovery::{Recoverer, Start};
use lockstep::txn::*;
use stateright::Property;

use super::bugs::{id, part};
use super::machines::Who;
use super::model::Protocol;
use super::shards::key;
use super::shared::fingerprint;
use super::world::*;

pub(crate) const ONE_FATE: &str = "I1 never applied and aborted";
pub(crate) const APPLIED_ONCE: &str = "I2 applied at most once, and only from prepared";
pub(crate) const COMMITTED_STAYS: &str = "I3 past the commit point every path ends in commit";
pub(crate) const TRUTH: &str = "I4 machines end with the truth";
pub(crate) const ALL_PREPARED_FIRST: &str = "I5 none applies before all are prepared";
pub(crate) const RELEASED_LAST: &str = "I6 released after all have applied, and only one's own";
pub(crate) const NOTHING_LEFT: &str = "I7 a recoverer alone leaves nothing, and nothing half";
pub(crate) const REPLIES_HOLD: &str = "I8 replies hold for ever";
pub(crate) const NOT_INTERLEAVED: &str = "P2 no transaction applies amid another";
pub(crate) const WATCH_GUARDS: &str = "P2 nothing is applied over a broken WATCH";

pub(crate) fn properties() -> Vec<Property<Protocol>> {
    vec![
        Property::always(ONE_FATE, one_fate),
        Property::always(APPLIED_ONCE, applied_once),
        Property::always(COMMITTED_STAYS, committed_stays),
        Property::always(TRUTH, truth),
        Property::always(ALL_PREPARED_FIRST, prepared_first),
        Property::always(RELEASED_LAST, release_last),
        Property::always(NOTHING_LEFT, nothing_left),
        Property::always(REPLIES_HOLD, replies_hold),
        Property::always(NOT_INTERLEAVED, not_interleaved),
        Property::always(WATCH_GUARDS, watch_guards),
    ]
}

fn not(world: &World, violation: Violation) -> bool {
    world.violation != Some(violation)
}

fn one_fate(_: &Protocol, world: &World) -> bool {
    let torn = |truth: &Truth| truth.any_applied() && truth.aborted;
    !world.truths.iter().any(torn) && not(world, Violation::Contradicted)
}

fn applied_once(_: &Protocol, world: &World) -> bool {
    let mut times = world.truths.iter().flat_map(Truth::applied);
    times.all(|&times| times <= 1) && not(world, Violation::AppliedUnprepared)
}

/// Whether the transaction is past its commit point.
fn is_committed(model: &Protocol, truth: &Truth) -> bool {
    match model.rule {
        Rule::Implicit => truth.all_prepared,
        Rule::Decider(part) => truth.applied()[part.shard as usize] > 0,
    }
}

fn committed_stays(model: &Protocol, world: &World) -> bool {
    let broken = |truth: &Truth| {
        let denied = matches!(truth.told, Told::Aborted | Told::Nil);
        is_committed(model, truth) && (truth.aborted || denied)
    };
    !world.truths.iter().any(broken)
}

fn truth(_: &Protocol, world: &World) -> bool {
    not(world, Violation::Lied)
}

fn prepared_first(_: &Protocol, world: &World) -> bool {
    not(world, Violation::AppliedBeforeAllPrepared)
}

/// While some branch has applied and another has not, the applied ones hold their keys.
fn release_last(_: &Protocol, world: &World) -> bool {
    let holds = |txn: usize, at: usize| {
        let (shard, id) = (&world.shards[at], id(txn));
        shard.index.get(&key()) == Some(&id) && shard.settling.get(&key()) == Some(&id)
    };
    let kept = |(txn, truth): (usize, &Truth)| {
        let mut applied = truth.applied().iter().enumerate();
        truth.all_applied() || applied.all(|(at, &times)| times == 0 || holds(txn, at))
    };
    world.truths.iter().enumerate().all(kept) && not(world, Violation::TookAnothers)
}

fn replies_hold(_: &Protocol, world: &World) -> bool {
    world.truths.iter().all(|truth| match truth.told {
        Told::Committed | Told::RepliesLost => truth.all_applied(),
        Told::Aborted | Told::Nil => !truth.any_applied(),
        Told::Nothing | Told::Unknown => true,
    })
}

fn not_interleaved(_: &Protocol, world: &World) -> bool {
    not(world, Violation::Interleaved)
}

fn watch_guards(_: &Protocol, world: &World) -> bool {
    not(world, Violation::AppliedOverWrite)
}

/// What a machine says when it ends is true, and stays so.
pub(crate) fn check_ending(model: &Protocol, world: &mut World, txn: Txn, ending: &Ending) {
    let truth = &world.truths[txn];
    let left = match ending {
        Ending::Committed { left }
            if !is_committed(model, truth) || !truth.all_applied() && left.is_empty() =>
        {
            return world.flag(Violation::Lied);
        }
        Ending::Aborted { .. } if truth.any_applied() || is_committed(model, truth) => {
            return world.flag(Violation::Lied);
        }
        Ending::Contradiction(_) => return world.flag(Violation::Contradicted),
        Ending::Committed { left } | Ending::Aborted { left } => left,
        Ending::Nothing | Ending::InDoubt { .. } => return,
    };
    let id = id(txn);
    let held = |at: usize| {
        let shard = &world.shards[at];
        let lock = shard.locks.get(&key()).is_some_and(|lock| lock.0 == id);
        let undecided = shard
            .records
            .get(&id)
            .is_some_and(|entry| entry.expires_ms.is_none());
        lock || undecided
            || shard.index.get(&key()) == Some(&id)
            || shard.settling.get(&key()) == Some(&id)
    };
    if (0..model.parts).any(|at| !left.contains(&part(at)) && held(at)) {
        world.flag(Violation::LeftBehind);
    }
}

/// From here, with every process dead, one recoverer at a time and a network without faults
/// finish everything: at once when the deadlines have passed, and also if nobody comes until
/// long after all markers are gone.
fn nothing_left(model: &Protocol, world: &World) -> bool {
    if world.violation == Some(Violation::LeftBehind) {
        return false;
    }
    // All that it depends on; many states have it in common.
    let applied = world.truths.iter().map(Truth::applied);
    let whole = fingerprint(&(world.now, &world.shards, applied.collect::<Vec<_>>()));
    if model.settled.contains(whole) {
        return true;
    }
    let settled = settles(model, world);
    if settled {
        model.settled.insert(whole);
    }
    settled
}

fn settles(model: &Protocol, world: &World) -> bool {
    let entries = world.shards.iter().flat_map(|shard| shard.records.values());
    let deadlines = entries.filter_map(|entry| entry.deadline_ms).max();
    let soon = world.now.max(deadlines.unwrap_or(0));
    [soon, soon + 10].into_iter().all(|now| {
        let mut world = world.clone();
        world.now = now;
        recover_all(model, &mut world);
        let whole = |truth: &Truth| truth.all_applied() || !truth.any_applied();
        world.shards.iter().all(|shard| {
            let mut shard = (**shard).clone();
            shard.expire(world.now);
            shard.is_clean()
        }) && world.truths.iter().all(whole)
    })
}

fn recover_all(model: &Protocol, world: &mut World) {
    for txn in 0..2 {
        for at in 0..model.parts {
            let needs = |entry: &participant::Entry| entry.expires_ms.is_none();
            if world.shards[at].records.get(&id(txn)).is_some_and(needs) {
                recover(model, world, txn, at);
            }
        }
    }
}

fn recover(model: &Protocol, world: &mut World, txn: Txn, at: usize) {
    let mut shard = (*world.shards[at]).clone();
    let reading = shard.read(world.now, &id(txn));
    let (limits, mut queue) = (model.limits(), Vec::new());
    let start = Recoverer::start(part(at), &reading, &limits, world.now, &mut queue);
    let Start::Recover(mut machine) = start else {
        return;
    };
    // Bounded, so that a machine that asks for ever is found out by what it leaves.
    for _ in 0..100 {
        let Some(action) = (!queue.is_empty()).then(|| queue.remove(0)) else {
            break;
        };
        if matches!(action, Action::SetTimer(_) | Action::Done(_)) {
            continue;
        }
        let request = model.request(world, txn, &action, Who::Recoverer);
        let event = model.run(world, request);
        machine.step(world.now, event, &mut queue);
    }
}

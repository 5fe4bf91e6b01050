//! The invariants, as properties of states.

use lockstep::txn::recovery::{Recoverer, Start};
use lockstep::txn::*;
use stateright::Property;

use super::bugs::{id, part};
use super::model::{Protocol, Who};
use super::shards::key;
use super::sights::fingerprint;
use super::world::*;

pub(crate) fn properties() -> Vec<Property<Protocol>> {
    vec![
        Property::always("I1 never applied and aborted", one_fate),
        Property::always("I2 applied at most once, from prepared", applied_once),
        Property::always(
            "I3 past the commit point every path commits",
            committed_stays,
        ),
        Property::always("I4 machines tell the truth", no_lies),
        Property::always("I5 all prepared before any applies", prepared_first),
        Property::always(
            "I6 released only after all applied, and only one's own",
            release_last,
        ),
        Property::always("I7 nothing is left", nothing_left),
        Property::always("I8 replies hold", replies_hold),
        Property::always("P2 transactions do not interleave", no_interleaving),
        Property::always("P2 WATCH guards", watch_guards),
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
    let mut times = world.truths.iter().flat_map(|truth| &truth.applied);
    times.all(|&times| times <= 1) && not(world, Violation::AppliedUnprepared)
}

/// Whether the transaction is past its commit point.
fn is_committed(model: &Protocol, truth: &Truth) -> bool {
    match model.rule {
        Rule::Implicit => truth.all_prepared,
        Rule::Decider(part) => truth.applied[part.shard as usize] > 0,
    }
}

fn committed_stays(model: &Protocol, world: &World) -> bool {
    let broken = |truth: &Truth| {
        let denied = matches!(truth.told, Told::Aborted | Told::Nil);
        is_committed(model, truth) && (truth.aborted || denied)
    };
    !world.truths.iter().any(broken)
}

fn no_lies(_: &Protocol, world: &World) -> bool {
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
        let mut applied = truth.applied.iter().enumerate();
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

fn no_interleaving(_: &Protocol, world: &World) -> bool {
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
    let applied = world.truths.iter().map(|truth| &truth.applied);
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
    [2, 10].into_iter().all(|later| {
        let mut world = world.clone();
        world.now += later;
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

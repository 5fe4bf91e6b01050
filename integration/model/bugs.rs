//! Planted bugs: each makes one sentence of the protocol untrue, and the model must notice.
//!
//! The machines and the twin carry no switches. A bug is planted around them: in what they are
//! told, in what they asked for on its way out, or in what a shard does with it.

use lockstep::txn::*;

use super::world::*;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bug {
    /// The first Yes counts for all.
    CommitsOnFirstYes,
    /// Nothing is written where a branch is absent.
    NoTombstone,
    /// An absent branch is taken for an applied one.
    AbsentMeansSuccess,
    /// The first branch applied counts for all.
    ReleaseBeforeAllApplied,
    /// A tombstone replaces whatever is there.
    BlindTombstone,
    /// Release does not look whose lock it deletes.
    ReleaseWithoutOwner,
    /// No answer to prepare is taken for a No.
    GuessOnSilence,
    /// No markers.
    AlwaysOutright,
    /// Recoverers do not wait for the deadline.
    RecoversBeforeDeadline,
    /// Prepare looks at locks only.
    PrepareIgnoresIndex,
    /// Recovery asks for absent records before it asks for applied ones.
    AppliedAbsentAborts,
    /// The second attempt has the id of the first.
    SameIdOnRetry,
    /// The state is not read again behind the WATCH, and a Yes past the TTL counts like any
    /// other. Either alone is enough against a branch that was applied before the WATCH.
    NoCheckBehindWatch,
    /// Only the first half of that.
    NoLookBehindWatch,
    /// A coordinator that recovers applies on the connection of the prepare.
    RecoversOnOldWatch,
    /// A branch read as absent counts as finished once another is seen applied, even if it was
    /// read before its prepare ran.
    AbsentIsFinished,
    /// The coordinator's tombstones are refused before its prepares are.
    TombstonesTooLate,
    /// The marker's time to live is set when the branch is applied.
    MarkerAtApply,
    /// A decider transaction is recovered as if all prepared meant committed.
    DeciderByAllPrepared,
    /// The decider's EXEC does not watch the record.
    DeciderUnwatched,
    /// Silence of the decider's EXEC is taken for nil.
    NilOnSilence,
    /// Recovery of a decider transaction asks the decider only.
    AsksOnlyDecider,
    /// Recovery aborts what it read as absent, whatever it is by now.
    AbortForTombstone,
    /// Recovery writes tombstones although nothing is prepared any more.
    BuriesTheFinished,
    /// Prepare runs at any time, however late.
    NoNotAfter,
    /// What was read never grows stale.
    NoAge,
    /// A branch that a shard refuses to apply is skipped.
    SkipsRefused,
    /// The network, or a client library, repeats prepares.
    PrepareTwice,
    /// The coordinator's TTL never ends: a late Yes counts, and records go outright.
    TrustsPastItsTtl,
}

/// What a machine is told instead of `event`. Forged answers come first.
pub(crate) fn told(bug: Option<Bug>, world: &World, actor: &Actor, event: Event) -> Vec<Event> {
    let others = |event: &dyn Fn(Part) -> Event, me: Part| {
        let parts = (0..world.shards.len()).map(part);
        parts
            .filter(|&part| part != me)
            .map(event)
            .collect::<Vec<_>>()
    };
    let recovering = matches!(actor.machine, Machine::Recoverer(_));
    let mut events = Vec::new();
    let event = match (bug, event) {
        (Some(Bug::CommitsOnFirstYes), Event::Voted(at, Vote::Yes)) => {
            events = others(&|part| Event::Voted(part, Vote::Yes), at);
            Event::Voted(at, Vote::Yes)
        }
        (Some(Bug::ReleaseBeforeAllApplied), Event::Applied(at, Applied::Now)) => {
            events = others(&|part| Event::Applied(part, Applied::Now), at);
            Event::Applied(at, Applied::Now)
        }
        (Some(Bug::GuessOnSilence), Event::Voted(at, Vote::Unknown)) => {
            Event::Voted(at, Vote::No(Refusal::Late))
        }
        (Some(Bug::NilOnSilence), Event::Applied(at, Applied::Unknown)) => {
            Event::Applied(at, Applied::Not(Some(State::Prepared)))
        }
        (Some(Bug::SkipsRefused), Event::Applied(at, Applied::Refused)) => {
            Event::Applied(at, Applied::Now)
        }
        (Some(Bug::AbsentMeansSuccess), Event::Read(at, Reading::Absent)) => {
            Event::Read(at, forged(State::Applied))
        }
        (Some(Bug::BuriesTheFinished), Event::Read(at, Reading::Absent)) if recovering => {
            events = others(&|part| Event::Read(part, forged(State::Prepared)), at);
            Event::Read(at, Reading::Absent)
        }
        (Some(Bug::AppliedAbsentAborts), Event::Read(at, Reading::Found(record)))
            if record.state == State::Applied && one_is_absent(world, actor.txn) =>
        {
            Event::Read(at, forged(State::Aborted))
        }
        (Some(Bug::AsksOnlyDecider), Event::Read(at, Reading::Found(record)))
            if recovering && record.state == State::Applied =>
        {
            Event::Read(at, forged(State::Prepared))
        }
        (Some(Bug::AbsentIsFinished), Event::Read(at, Reading::Found(record)))
            if record.state == State::Applied =>
        {
            events = others(&|part| Event::Applied(part, Applied::Not(None)), at);
            events.retain(|event| read_absent(actor, event));
            events.insert(0, Event::Read(at, Reading::Found(record)));
            return events;
        }
        (_, event) => event,
    };
    events.push(event);
    events
}

/// Whether this machine has read that record and found none.
fn read_absent(actor: &Actor, event: &Event) -> bool {
    matches!(event, Event::Applied(part, _) if actor.absent.contains(part))
}

fn one_is_absent(world: &World, txn: Txn) -> bool {
    let id = id(txn);
    world.shards.iter().any(|shard| shard.state(&id).is_none())
}

fn forged(state: State) -> Reading {
    Reading::Found(Record {
        state,
        deadline_ms: 0,
        now_ms: 0,
        participants: Vec::new(),
        rule: Rule::Implicit,
    })
}

/// What goes out instead of `op`.
pub(crate) fn sent(bug: Option<Bug>, op: Op) -> Op {
    match (bug, op) {
        (Some(Bug::AlwaysOutright), Op::Release { .. }) => Op::Release { marker: false },
        (Some(Bug::AbortForTombstone), Op::Tombstone { not_after }) => Op::Abort {
            marker: true,
            tombstone: Some(not_after),
        },
        (Some(Bug::NoNotAfter), Op::Prepare { .. }) => Op::Prepare {
            not_after: Millis::MAX,
        },
        (Some(Bug::TombstonesTooLate), Op::Tombstone { .. }) => Op::Tombstone { not_after: 0 },
        (_, op) => op,
    }
}

/// What a recoverer reads first instead of `reading`.
pub(crate) fn met(bug: Option<Bug>, mut reading: Reading) -> Reading {
    if let Reading::Found(record) = &mut reading {
        match bug {
            Some(Bug::RecoversBeforeDeadline) => record.deadline_ms = record.now_ms,
            Some(Bug::DeciderByAllPrepared) => record.rule = Rule::Implicit,
            _ => {}
        }
    }
    reading
}

/// The id of a transaction of the model.
pub(crate) fn id(txn: Txn) -> TxnId {
    thread_local! {
        static IDS: [TxnId; 2] = [TxnId::new("t1"), TxnId::new("t2")];
    }
    IDS.with(|ids| ids[txn].clone())
}

/// The participant with this number.
pub(crate) fn part(at: usize) -> Part {
    let shard = u16::try_from(at).expect("few shards");
    Part { shard, db: 0 }
}

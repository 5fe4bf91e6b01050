//! What the clients wanted and were told, what the shards did, and whether it fits together.

use std::collections::{BTreeMap, BTreeSet};

use lockstep::txn::*;

use super::proxy::part;
use super::random::Random;
use super::shard::{Ask, Shard};
use super::world::Tally;

const ATTEMPTS: u32 = 6;

/// A client with one transaction.
#[derive(Debug)]
pub(crate) struct Client {
    /// Keys by shard; empty: no branch there.
    keys: Vec<Vec<usize>>,
    participants: Vec<Part>,
    rule: Rule,
    /// Applies on pinned connections.
    pinned: bool,
    /// Watches all its keys; its prepares look whether they have changed.
    checks: bool,
    attempts: u32,
}

/// What is known of a plain command.
#[derive(Debug)]
pub(crate) struct Plain {
    pub(crate) id: TxnId,
    pub(crate) began: Millis,
    pub(crate) told: Option<Millis>,
    /// Shard, key, and how many had written it.
    pub(crate) reads: Vec<(usize, usize, usize)>,
}

impl Client {
    pub(crate) fn keys(&self, shard: usize) -> &[usize] {
        &self.keys[shard]
    }

    pub(crate) fn participants(&self) -> &[Part] {
        &self.participants
    }

    pub(crate) fn rule(&self) -> Rule {
        self.rule
    }

    pub(crate) fn checks(&self) -> bool {
        self.checks
    }

    /// The key on the decider that the client watches.
    pub(crate) fn watched_key(&self) -> Option<usize> {
        match self.rule {
            Rule::Decider(part) => self.keys[usize::from(part.shard)].first().copied(),
            Rule::Implicit => None,
        }
    }

    /// Whether its branch on this shard is prepared and applied on a pinned connection.
    pub(crate) fn pins(&self, shard: usize) -> bool {
        self.pinned || self.rule == Rule::Decider(part(shard))
    }
}

/// What is known of one attempt.
#[derive(Debug)]
struct Attempt {
    client: usize,
    began: Millis,
    told: Option<(Millis, Outcome)>,
    prepared: BTreeSet<usize>,
    applied: BTreeSet<usize>,
    /// Shard, key, and how many had written it when its WATCH ran.
    watched: Vec<(usize, usize, usize)>,
    aborted: bool,
    /// All branches prepared, or applied, at the same instant.
    standing: BTreeMap<usize, Option<State>>,
    all_stood: bool,
}

#[derive(Default)]
pub(crate) struct History {
    pub(crate) clients: Vec<Client>,
    attempts: BTreeMap<TxnId, Attempt>,
    pub(crate) plain: Vec<Plain>,
    /// How often a look held a reply.
    pub(crate) held: u64,
    calls: u64,
    recovered: u64,
    /// The first thing that was wrong.
    pub(crate) wrong: Option<String>,
}

impl History {
    pub(crate) fn new_client(
        &mut self,
        dice: &mut Random,
        shards: usize,
        keys: usize,
        fence: bool,
    ) -> usize {
        let mut wanted: Vec<Vec<usize>> = Vec::new();
        for _ in 0..shards {
            let branch = (0..keys).filter(|_| dice.per_mille(500)).collect();
            wanted.push(branch);
        }
        if wanted.iter().all(Vec::is_empty) {
            wanted[0].push(0);
        }
        let with_keys = (0..shards).filter(|&shard| !wanted[shard].is_empty());
        let participants: Vec<_> = with_keys.map(part).collect();
        let rule = match dice.per_mille(300) {
            true => Rule::Decider(participants[dice.index(participants.len())]),
            false => Rule::Implicit,
        };
        let pinned = dice.per_mille(400);
        let checks = fence && rule == Rule::Implicit && dice.per_mille(500);
        self.clients.push(Client {
            keys: wanted,
            participants,
            rule,
            pinned,
            checks,
            attempts: 0,
        });
        self.clients.len() - 1
    }

    pub(crate) fn next_call(&mut self) -> u64 {
        self.calls += 1;
        self.calls
    }

    /// A new attempt has a new id.
    pub(crate) fn begin(&mut self, client: usize, now: Millis) -> TxnId {
        let attempts = &mut self.clients[client].attempts;
        *attempts += 1;
        let id = TxnId::new(format!("c{client}-{attempts}"));
        let attempt = Attempt {
            client,
            began: now,
            told: None,
            prepared: BTreeSet::new(),
            applied: BTreeSet::new(),
            watched: Vec::new(),
            aborted: false,
            standing: BTreeMap::new(),
            all_stood: false,
        };
        self.attempts.insert(id.clone(), attempt);
        id
    }

    pub(crate) fn begin_plain(&mut self, now: Millis) -> usize {
        let number = self.plain.len();
        self.plain.push(Plain::new(number, now));
        number
    }

    /// What the WATCH of an attempt saw.
    pub(crate) fn watch(&mut self, id: &TxnId, watched: Vec<(usize, usize, usize)>) {
        if let Some(attempt) = self.attempts.get_mut(id) {
            attempt.watched = watched;
        }
    }

    /// What its prepare on this shard must check: keys, and how many had written them.
    pub(crate) fn watched_at(&self, id: &TxnId, at: usize) -> Vec<(usize, usize)> {
        let checked = self.attempts.get(id);
        let checked = checked.filter(|attempt| self.clients[attempt.client].checks);
        let watched = checked.iter().flat_map(|attempt| &attempt.watched);
        let here = watched.filter(|(shard, ..)| *shard == at);
        here.map(|&(_, key, len)| (key, len)).collect()
    }

    pub(crate) fn may_try_again(&self, client: usize) -> bool {
        self.clients[client].attempts < ATTEMPTS
    }

    fn wrong(&mut self, id: &TxnId, what: &str) {
        if self.wrong.is_none() {
            self.wrong = Some(format!("{id}: {what}: {:?}", self.attempts.get(id)));
        }
    }

    /// After a request has run: invariants that can be seen at once.
    pub(crate) fn observe(
        &mut self,
        id: &TxnId,
        at: usize,
        ask: &Ask,
        event: &Event,
        record: Option<State>,
    ) {
        let Some(attempt) = self.attempts.get_mut(id) else {
            return;
        };
        let client = &self.clients[attempt.client];
        let all = client.participants.len();
        attempt.standing.insert(at, record);
        let stand =
            |state: &&Option<State>| matches!(state, Some(State::Prepared | State::Applied));
        attempt.all_stood |= attempt.standing.values().filter(stand).count() == all;
        attempt.aborted |= record == Some(State::Aborted);
        if record == Some(State::Prepared) {
            attempt.prepared.insert(at);
        }
        let mut what = None;
        if let Event::Applied(_, Applied::Now) = event {
            if attempt.prepared.len() < all {
                what = Some("applied before all were prepared");
            }
            if client.rule == Rule::Decider(part(at)) && !matches!(ask, Ask::Exec(_)) {
                what = Some("the decider applied, not by its EXEC");
            }
            if !attempt.applied.insert(at) {
                what = Some("applied twice");
            }
        }
        if attempt.aborted && !attempt.applied.is_empty() {
            what = Some("applied and aborted");
        }
        if attempt.aborted && attempt.all_stood && client.rule == Rule::Implicit {
            what = Some("aborted past the commit point");
        }
        if let Event::Released(_, Released::Done) = event
            && record != Some(State::Aborted)
            && (1..all).contains(&attempt.applied.len())
        {
            what = Some("released before all have applied");
        }
        if let Some(what) = what {
            self.wrong(id, what);
        }
    }

    pub(crate) fn told(&mut self, client: usize, id: &TxnId, outcome: &Outcome, now: Millis) {
        let all = self.clients[client].participants.len();
        let Some(attempt) = self.attempts.get_mut(id) else {
            return;
        };
        let committed = matches!(outcome, Outcome::Committed | Outcome::CommittedRepliesLost);
        let first = attempt.told.replace((now, outcome.clone())).is_none();
        if committed && attempt.applied.len() < all {
            self.wrong(id, "told committed before all have applied");
        } else if !first {
            self.wrong(id, "told twice");
        }
    }

    /// What a machine said at its end.
    pub(crate) fn ended(&mut self, id: &TxnId, ending: &Ending) {
        self.recovered += 1;
        let Some(attempt) = self.attempts.get(id) else {
            return;
        };
        let all = self.clients[attempt.client].participants.len();
        let what = match ending {
            Ending::Contradiction(_) => "found a contradiction",
            Ending::Aborted { .. } if !attempt.applied.is_empty() => "ended aborted, but applied",
            Ending::Committed { left } if left.is_empty() && attempt.applied.len() < all => {
                "ended committed, but not all have applied"
            }
            _ => return,
        };
        self.wrong(id, what);
    }

    /// When all is over: every transaction whole or not at all, replies true, one order of all.
    pub(crate) fn check(&self, shards: &[Shard]) -> Result<Tally, String> {
        for (id, attempt) in &self.attempts {
            let client = &self.clients[attempt.client];
            let (applied, all) = (attempt.applied.len(), client.participants.len());
            let fits = match attempt.told.as_ref().map(|told| &told.1) {
                Some(Outcome::Committed | Outcome::CommittedRepliesLost) => applied == all,
                Some(Outcome::Aborted(_) | Outcome::WatchBroken) => applied == 0,
                Some(Outcome::Unknown) | None => applied == 0 || applied == all,
            };
            if !fits {
                return Err(format!("{id}: {attempt:?}"));
            }
            for &(at, key, len) in attempt.watched.iter().filter(|_| applied == all) {
                if shards[at].data[key].get(len) != Some(id) {
                    return Err(format!("{id}: applied over a broken WATCH: {attempt:?}"));
                }
            }
            for (at, shard) in shards.iter().enumerate() {
                for (key, list) in shard.data.iter().enumerate() {
                    let wrote = client.keys[at].contains(&key) && applied == all;
                    if list.iter().filter(|one| *one == id).count() != usize::from(wrote) {
                        return Err(format!("{id}: key {key} of shard {at} has {list:?}"));
                    }
                }
            }
        }
        self.check_order(shards)?;
        Ok(self.tally())
    }

    /// The order of writes to each key, what plain reads saw, and who came after another's reply,
    /// have no circle: there is one order in which everything could have run alone.
    fn check_order(&self, shards: &[Shard]) -> Result<(), String> {
        let mut before: BTreeMap<&TxnId, BTreeSet<&TxnId>> = BTreeMap::new();
        for list in shards.iter().flat_map(|shard| &shard.data) {
            for pair in list.windows(2) {
                before.entry(&pair[1]).or_default().insert(&pair[0]);
            }
        }
        for plain in &self.plain {
            for &(at, key, seen) in &plain.reads {
                let list = &shards[at].data[key];
                if let Some(writer) = seen.checked_sub(1).and_then(|last| list.get(last)) {
                    before.entry(&plain.id).or_default().insert(writer);
                }
                if let Some(later) = list.get(seen) {
                    before.entry(later).or_default().insert(&plain.id);
                }
            }
        }
        let all = self.all_that_ran();
        for (later, began, _) in &all {
            let answered = |told: &Option<Millis>| told.is_some_and(|told| told < *began);
            let earlier = all.iter().filter(|(.., told)| answered(told));
            before
                .entry(later)
                .or_default()
                .extend(earlier.map(|(id, ..)| *id));
        }
        let mut left: BTreeSet<&TxnId> = all.iter().map(|(id, ..)| *id).collect();
        while !left.is_empty() {
            let free = |id: &&&TxnId| {
                let first = before.get(**id);
                first.is_none_or(|first| first.iter().all(|id| !left.contains(id)))
            };
            let Some(&next) = left.iter().find(free) else {
                return Err(format!("no order: {left:?}: {:?}", self.plain));
            };
            left.remove(next);
        }
        Ok(())
    }

    /// Everything that took effect or saw something: when it began, and when its client knew.
    fn all_that_ran(&self) -> Vec<(&TxnId, Millis, Option<Millis>)> {
        let applied = self
            .attempts
            .iter()
            .filter(|(_, attempt)| !attempt.applied.is_empty());
        let applied = applied.map(|(id, attempt)| {
            let knows = |told: &&(Millis, Outcome)| {
                matches!(told.1, Outcome::Committed | Outcome::CommittedRepliesLost)
            };
            (
                id,
                attempt.began,
                attempt.told.as_ref().filter(knows).map(|told| told.0),
            )
        });
        let plain = self.plain.iter();
        applied
            .chain(plain.map(|plain| (&plain.id, plain.began, plain.told)))
            .collect()
    }

    fn tally(&self) -> Tally {
        let mut tally = Tally {
            recovered: self.recovered,
            held: self.held,
            plain: self
                .plain
                .iter()
                .filter(|plain| plain.told.is_some())
                .count() as u64,
            ..Tally::default()
        };
        for attempt in self.attempts.values() {
            let told = attempt.told.as_ref().map(|told| &told.1);
            let checks = self.clients[attempt.client].checks;
            tally.checked += u64::from(checks && told == Some(&Outcome::Committed));
            *match attempt.told.as_ref().map(|told| &told.1) {
                Some(Outcome::Committed) => &mut tally.committed,
                Some(Outcome::CommittedRepliesLost) => &mut tally.replies_lost,
                Some(Outcome::Aborted(_)) => &mut tally.aborted,
                Some(Outcome::WatchBroken) => &mut tally.watch_broken,
                Some(Outcome::Unknown) => &mut tally.unknown,
                None => &mut tally.died,
            } += 1;
        }
        tally
    }
}

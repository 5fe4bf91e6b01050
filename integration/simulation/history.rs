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
    attempts: u32,
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
    aborted: bool,
    /// All branches prepared, or applied, at the same instant.
    standing: BTreeMap<usize, Option<State>>,
    all_stood: bool,
}

#[derive(Default)]
pub(crate) struct History {
    pub(crate) clients: Vec<Client>,
    attempts: BTreeMap<TxnId, Attempt>,
    calls: u64,
    recovered: u64,
    /// The first thing that was wrong.
    pub(crate) wrong: Option<String>,
}

impl History {
    pub(crate) fn new_client(&mut self, dice: &mut Random, shards: usize, keys: usize) -> usize {
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
        self.clients.push(Client {
            keys: wanted,
            participants,
            rule,
            pinned,
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
            aborted: false,
            standing: BTreeMap::new(),
            all_stood: false,
        };
        self.attempts.insert(id.clone(), attempt);
        id
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

    /// The order of writes to each key, and of clients that came after another's reply, have no
    /// circle: there is one order in which everything could have run alone.
    fn check_order(&self, shards: &[Shard]) -> Result<(), String> {
        let mut before: BTreeMap<&TxnId, BTreeSet<&TxnId>> = BTreeMap::new();
        for list in shards.iter().flat_map(|shard| &shard.data) {
            let ours: Vec<_> = list
                .iter()
                .filter(|id| self.attempts.contains_key(id))
                .collect();
            for pair in ours.windows(2) {
                before.entry(pair[1]).or_default().insert(pair[0]);
            }
        }
        let committed = || {
            self.attempts
                .iter()
                .filter(|(_, attempt)| !attempt.applied.is_empty())
        };
        for (later, attempt) in committed() {
            for (earlier, other) in committed() {
                if other
                    .told
                    .as_ref()
                    .is_some_and(|(at, _)| *at < attempt.began)
                {
                    before.entry(later).or_default().insert(earlier);
                }
            }
        }
        let mut left: BTreeSet<&TxnId> = committed().map(|(id, _)| id).collect();
        while !left.is_empty() {
            let free = |id: &&&TxnId| {
                before
                    .get(**id)
                    .is_none_or(|first| first.iter().all(|id| !left.contains(id)))
            };
            let Some(&next) = left.iter().find(free) else {
                return Err(format!("no order: {left:?}"));
            };
            left.remove(next);
        }
        Ok(())
    }

    fn tally(&self) -> Tally {
        let mut tally = Tally {
            recovered: self.recovered,
            ..Tally::default()
        };
        for attempt in self.attempts.values() {
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

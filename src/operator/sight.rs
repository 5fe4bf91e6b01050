//! What the shards say of one transaction, and what follows from it.

use crate::txn::{Millis, Part, Reading, Record, Rule, State, TxnId};

/// The logical database that is served.
pub(super) const DB: u16 = 0;

/// What one shard says of a transaction's record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    /// No answer, or one that makes no sense: its text.
    Unreadable(String),
    /// There is no record.
    Absent,
    /// There is one.
    Found(Found),
}

/// A record, and what of it is left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// The record.
    pub record: Record,
    /// Whether it is decided and released: only a marker, or a tombstone.
    pub released: bool,
    /// How long a marker or tombstone still stays; None: until it is settled.
    pub expires_ms: Option<Millis>,
}

/// Entries on one shard that name a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Held {
    /// Lock keys. Counted only by a look at all keys of the shard.
    pub locks: usize,
    /// Entries in the index.
    pub index: usize,
    /// Entries in the settling set.
    pub settling: usize,
}

impl Held {
    /// Whether there are none.
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }

    /// Adds others to them.
    pub fn add(&mut self, more: Self) {
        self.locks += more.locks;
        self.index += more.index;
        self.settling += more.settling;
    }
}

/// One transaction on one shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sight {
    /// The shard.
    pub shard: u16,
    /// Its record.
    pub seen: Seen,
    /// What it holds there.
    pub held: Held,
}

impl Sight {
    /// The shard as a participant.
    pub fn part(&self) -> Part {
        let shard = self.shard;
        Part { shard, db: DB }
    }

    /// The record, if there is one.
    pub fn found(&self) -> Option<&Found> {
        match &self.seen {
            Seen::Found(found) => Some(found),
            Seen::Unreadable(_) | Seen::Absent => None,
        }
    }

    /// The record's state, if there is one.
    pub fn state(&self) -> Option<State> {
        self.found().map(|found| found.record.state)
    }

    /// As the state machines are told.
    pub fn reading(&self) -> Reading {
        match &self.seen {
            Seen::Unreadable(_) => Reading::Unreachable,
            Seen::Absent => Reading::Absent,
            Seen::Found(found) => Reading::Found(found.record.clone()),
        }
    }

    /// Whether something is still to be done here, as far as the record says.
    pub fn is_unsettled(&self) -> bool {
        self.found().is_some_and(|found| !found.released)
    }

    /// Whether it should have been done by now.
    pub fn is_overdue(&self) -> bool {
        let late = |found: &Found| found.record.now_ms >= found.record.deadline_ms;
        self.is_unsettled() && self.found().is_some_and(late)
    }

    /// Whether entries are left here that no record accounts for.
    pub fn is_orphaned(&self) -> bool {
        let explained = self.is_unsettled() || matches!(self.seen, Seen::Unreadable(_));
        !explained && !self.held.is_nothing()
    }

    /// Whether the shard knows anything of the transaction.
    pub fn knows(&self) -> bool {
        self.found().is_some() || !self.held.is_nothing()
    }
}

/// How a transaction stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Condition {
    /// Before its deadline: its coordinator is at it, or may be.
    Running,
    /// Past its deadline and not settled everywhere.
    InDoubt,
    /// Its records are gone or settled, but entries are left that hold keys.
    Orphaned,
    /// Applied on one shard and aborted on another: a shard has lost data.
    Contradicted,
    /// Applied, everywhere as far as records tell.
    Committed,
    /// Aborted.
    Aborted,
    /// No shard that answered knows anything of it.
    Unknown,
}

impl Condition {
    /// For people and programs.
    pub fn text(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::InDoubt => "in-doubt",
            Self::Orphaned => "orphaned",
            Self::Contradicted => "contradicted",
            Self::Committed => "committed",
            Self::Aborted => "aborted",
            Self::Unknown => "unknown",
        }
    }

    /// Whether an operator may have to do something.
    pub fn is_bad(self) -> bool {
        matches!(self, Self::InDoubt | Self::Orphaned | Self::Contradicted)
    }
}

/// What became of a transaction, by its records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Applied somewhere, so it is or will be applied everywhere.
    Committed,
    /// Aborted somewhere, so it is applied nowhere.
    Aborted,
    /// Prepared and before its deadline.
    Pending,
    /// Prepared and past its deadline here: to be recovered from there.
    Recoverable(Part),
    /// No record anywhere. It says nothing, least of all that it was aborted.
    Unknown,
    /// A shard whose record would tell gives no answer.
    Blind(u16),
}

/// One transaction on all shards.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    /// Its id.
    pub id: TxnId,
    /// By shard.
    pub sights: Vec<Sight>,
}

impl Case {
    /// How it stands.
    pub fn condition(&self) -> Condition {
        let any = |holds: fn(&Sight) -> bool| self.sights.iter().any(holds);
        let (applied, aborted) = (self.any(State::Applied), self.any(State::Aborted));
        match () {
            () if applied && aborted => Condition::Contradicted,
            () if any(Sight::is_overdue) => Condition::InDoubt,
            () if any(Sight::is_unsettled) => Condition::Running,
            () if any(Sight::is_orphaned) => Condition::Orphaned,
            () if applied => Condition::Committed,
            () if aborted => Condition::Aborted,
            () => Condition::Unknown,
        }
    }

    /// What became of it, in the order of what proves most.
    pub fn fate(&self) -> Fate {
        if self.any(State::Applied) {
            return Fate::Committed;
        }
        if self.any(State::Aborted) {
            return Fate::Aborted;
        }
        if let Some(shard) = self.blind() {
            return Fate::Blind(shard);
        }
        if let Some(sight) = self.sights.iter().find(|sight| sight.is_overdue()) {
            return Fate::Recoverable(sight.part());
        }
        match self.any(State::Prepared) {
            true => Fate::Pending,
            false => Fate::Unknown,
        }
    }

    /// Whether any record is in this state.
    pub fn any(&self, state: State) -> bool {
        self.sights.iter().any(|s| s.state() == Some(state))
    }

    /// Its participants, as its records name them; empty when only tombstones, or nothing, are
    /// left.
    pub fn participants(&self) -> &[Part] {
        let of_record = |sight: &'_ Sight| sight.found().map(|f| f.record.participants.len());
        let named = self.sights.iter().find(|s| of_record(s) > Some(0));
        named.map_or(&[], |sight| match &sight.seen {
            Seen::Found(found) => &found.record.participants,
            Seen::Unreadable(_) | Seen::Absent => &[],
        })
    }

    /// How it commits, if a record tells.
    pub fn rule(&self) -> Option<Rule> {
        let told = |found: &&Found| !found.record.participants.is_empty();
        let mut found = self.sights.iter().filter_map(Sight::found).filter(told);
        found.next().map(|found| found.record.rule)
    }

    /// Whether this shard takes part, or may, since nothing tells who does.
    pub fn concerns(&self, shard: u16) -> bool {
        let participants = self.participants();
        participants.is_empty() || participants.iter().any(|part| part.shard == shard)
    }

    /// A shard that takes part, or may, and gives no answer.
    pub fn blind(&self) -> Option<u16> {
        let blind = |s: &&Sight| matches!(s.seen, Seen::Unreadable(_)) && self.concerns(s.shard);
        self.sights.iter().find(blind).map(|sight| sight.shard)
    }

    /// A participant that is not in the shard map given, or a record on a shard that is not in
    /// its own list: the shards are not those, or not in the order, of the lockstep that wrote
    /// it.
    pub fn is_of_another_map(&self) -> bool {
        let shards = self.sights.len();
        let stray = |part: &Part| usize::from(part.shard) >= shards || part.db != DB;
        let unlisted = |sight: &Sight| {
            sight.found().is_some_and(|found| {
                let listed = &found.record.participants;
                !listed.is_empty() && !listed.contains(&sight.part())
            })
        };
        self.participants().iter().any(stray) || self.sights.iter().any(unlisted)
    }

    /// The record of an unsettled branch whose deadline is the latest, and how long that is past
    /// (below zero: still ahead) in milliseconds.
    pub fn overdue_ms(&self) -> Option<i64> {
        let unsettled = self.sights.iter().filter(|sight| sight.is_unsettled());
        let past = |found: &Found| found.record.now_ms as i64 - found.record.deadline_ms as i64;
        unsettled.filter_map(Sight::found).map(past).min()
    }

    /// Since when it is unsettled: from its prepare, if the lockstep that wrote it has this lock
    /// TTL.
    pub fn age_ms(&self, lock_ttl_ms: Millis) -> Option<u64> {
        let age = self.overdue_ms()?.saturating_add(lock_ttl_ms as i64);
        Some(age.max(0) as u64)
    }

    /// All entries that name it.
    pub fn held(&self) -> Held {
        let mut all = Held::default();
        self.sights.iter().for_each(|sight| all.add(sight.held));
        all
    }

    /// The process that began it: ids are `<boot id>-<counter>`.
    pub fn owner(&self) -> &str {
        let id = self.id.as_str();
        id.rsplit_once('-').map_or(id, |(boot, _)| boot)
    }

    /// Whether the shard's part of it is not as it should be by now.
    pub fn is_wrong_on(&self, shard: u16) -> bool {
        let Some(sight) = self.sights.iter().find(|sight| sight.shard == shard) else {
            return false;
        };
        let decided = matches!(sight.state(), Some(State::Applied | State::Aborted));
        let contradicted = self.condition() == Condition::Contradicted && decided;
        contradicted || sight.is_overdue() || sight.is_orphaned()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn part(shard: u16) -> Part {
        Part { shard, db: DB }
    }

    /// A record of a transaction on shards 0 and 1, 1 s past its deadline.
    pub(crate) fn record(state: State) -> Found {
        Found {
            record: Record {
                state,
                deadline_ms: 5_000,
                now_ms: 6_000,
                participants: vec![part(0), part(1)],
                rule: Rule::Implicit,
            },
            released: false,
            expires_ms: None,
        }
    }

    pub(crate) fn marker(state: State) -> Found {
        Found {
            released: true,
            expires_ms: Some(1),
            ..record(state)
        }
    }

    pub(crate) fn early(state: State) -> Found {
        let mut found = record(state);
        found.record.now_ms = 4_000;
        found
    }

    pub(crate) fn case(seen: impl IntoIterator<Item = Seen>) -> Case {
        let sights = seen.into_iter().zip(0..).map(|(seen, shard)| Sight {
            shard,
            seen,
            held: Held::default(),
        });
        Case {
            id: TxnId::new("b0-1"),
            sights: sights.collect(),
        }
    }

    fn down() -> Seen {
        Seen::Unreadable("down".into())
    }

    fn fate(seen: [Seen; 3]) -> Fate {
        case(seen).fate()
    }

    use Seen::{Absent, Found as Is};
    use State::{Aborted, Applied, Prepared};

    /// I4: absence says nothing; and what one record proves no other shard can take back.
    #[test]
    fn a_fate_is_told_by_what_proves_most() {
        assert_eq!(fate([Is(record(Applied)), Absent, Absent]), Fate::Committed);
        assert_eq!(
            fate([Is(record(Prepared)), Is(marker(Applied)), down()]),
            Fate::Committed
        );
        assert_eq!(fate([Is(marker(Aborted)), down(), Absent]), Fate::Aborted);
        assert_eq!(
            fate([Is(record(Prepared)), Absent, Absent]),
            Fate::Recoverable(part(0))
        );
        assert_eq!(fate([Absent, Is(early(Prepared)), Absent]), Fate::Pending);
        assert_eq!(fate([Absent, Absent, Absent]), Fate::Unknown);
        assert_eq!(fate([Absent, Absent, down()]), Fate::Blind(2));
        assert_eq!(fate([Is(record(Prepared)), down(), Absent]), Fate::Blind(1));
    }

    #[test]
    fn a_shard_that_takes_no_part_need_not_answer() {
        assert_eq!(
            fate([Is(record(Prepared)), Absent, down()]),
            Fate::Recoverable(part(0))
        );
    }

    #[test]
    fn conditions_are_told_apart() {
        let condition = |seen: [Seen; 2]| case(seen).condition();
        assert_eq!(condition([Is(early(Prepared)), Absent]), Condition::Running);
        assert_eq!(
            condition([Is(early(Prepared)), Is(record(Prepared))]),
            Condition::InDoubt
        );
        assert_eq!(
            condition([Is(record(Applied)), Is(marker(Applied))]),
            Condition::InDoubt
        );
        assert_eq!(
            condition([Is(marker(Applied)), Is(marker(Applied))]),
            Condition::Committed
        );
        assert_eq!(condition([Is(marker(Aborted)), Absent]), Condition::Aborted);
        assert_eq!(
            condition([Is(record(Applied)), Is(marker(Aborted))]),
            Condition::Contradicted
        );
        assert_eq!(condition([Absent, Absent]), Condition::Unknown);
        let mut orphaned = case([Absent, Is(marker(Applied))]);
        orphaned.sights[0].held.index = 1;
        assert_eq!(orphaned.condition(), Condition::Orphaned);
        assert!(orphaned.is_wrong_on(0) && !orphaned.is_wrong_on(1));
    }

    #[test]
    fn times_are_those_of_the_branch_that_is_due_last() {
        let case = case([Is(record(Prepared)), Is(early(Prepared))]);
        assert_eq!(case.overdue_ms(), Some(-1_000));
        assert_eq!(case.age_ms(5_000), Some(4_000));
        assert_eq!(case.owner(), "b0");
    }

    #[test]
    fn shards_in_another_order_are_noticed() {
        assert!(!case([Is(record(Prepared)), Absent, Absent]).is_of_another_map());
        assert!(case([Absent, Absent, Is(record(Prepared))]).is_of_another_map());
        assert!(case([Is(record(Prepared))]).is_of_another_map());
    }
}

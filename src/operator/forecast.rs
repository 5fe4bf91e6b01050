//! What recovery would do: the production [`Recoverer`], run against a picture of the shards
//! instead of the shards. Nothing is decided here a second time.

use std::collections::{BTreeMap, VecDeque};

use super::sight::{Case, Seen};
use crate::txn::recovery::{Recoverer, Start};
use crate::txn::{
    Aborted, Action, Applied, Ending, Event, Leave, Limits, Millis, Part, Reading, Released, State,
};

/// Steps of one recovery at most; a real one takes four per participant.
const STEPS_MAX: usize = 10_000;

/// What is done to one participant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// The branch is applied from its redo.
    Apply,
    /// The branch is aborted.
    Abort,
    /// An aborted record is written where there is none, against a late prepare.
    Tombstone,
    /// Locks, index and settling entries go.
    Release,
}

impl Step {
    /// For people and programs.
    pub fn text(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Abort => "abort",
            Self::Tombstone => "tombstone",
            Self::Release => "release",
        }
    }
}

/// How a recovery would go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Forecast {
    /// It would end so, after these steps.
    Ends(Ending, Vec<(Part, Step)>),
    /// It cannot go on without this participant.
    Blind(Part),
    /// Not before so many milliseconds have passed.
    Early(Millis),
    /// There is nothing to start from.
    Nothing,
    /// A record belongs to another shard map, or is none of ours.
    Malformed,
}

impl Forecast {
    /// Of a recovery now, with the deadline or (`force`) without.
    pub fn of(case: &Case, limits: &Limits, force: bool) -> Self {
        let Some(from) = start_of(case) else {
            return Self::Nothing;
        };
        let picture = Picture::of(case, limits);
        let mut reading = picture.read(from);
        if let (true, Reading::Found(record)) = (force, &mut reading) {
            record.now_ms = record.now_ms.max(record.deadline_ms);
        }
        let mut actions = Vec::new();
        match Recoverer::start(from, &reading, limits, 0, &mut actions) {
            Start::Recover(recoverer) => picture.run(recoverer, actions),
            Start::Wait(ms) => Self::Early(ms),
            Start::Nothing => Self::Nothing,
            Start::Malformed => Self::Malformed,
        }
    }

    /// Whether it would end in a commit.
    pub fn is_commit(&self) -> bool {
        matches!(self, Self::Ends(Ending::Committed { .. }, _))
    }

    /// Whether it would end in an abort.
    pub fn is_abort(&self) -> bool {
        matches!(self, Self::Ends(Ending::Aborted { .. }, _))
    }
}

/// Where a recovery starts: an unsettled record, past its deadline if there is one.
pub fn start_of(case: &Case) -> Option<Part> {
    let unsettled = || case.sights.iter().filter(|sight| sight.is_unsettled());
    let overdue = unsettled().find(|sight| sight.is_overdue());
    overdue.or_else(|| unsettled().next()).map(|s| s.part())
}

/// The records of a transaction, which the steps change as they would change the real ones.
struct Picture {
    readings: BTreeMap<(u16, u16), Reading>,
    /// The latest clock of any shard: what time it is where a record is absent.
    now_ms: Millis,
    steps: Vec<(Part, Step)>,
    blind: Option<Part>,
}

impl Picture {
    fn of(case: &Case, limits: &Limits) -> Self {
        let found = case.sights.iter().filter_map(|sight| match &sight.seen {
            Seen::Found(found) => Some(found.record.now_ms),
            Seen::Unreadable(_) | Seen::Absent => None,
        });
        // A clock that is not known is taken to be well past: tombstones come late then, which
        // ends as those do that come in time.
        let unknown = Millis::MAX - limits.window_ms;
        Self {
            now_ms: found.max().unwrap_or(unknown),
            readings: case
                .sights
                .iter()
                .map(|sight| (key(sight.part()), sight.reading()))
                .collect(),
            steps: Vec::new(),
            blind: None,
        }
    }

    fn run(mut self, mut recoverer: Recoverer, actions: Vec<Action>) -> Forecast {
        let mut due: VecDeque<Action> = actions.into();
        let mut more = Vec::new();
        for _ in 0..STEPS_MAX {
            let Some(action) = due.pop_front() else { break };
            if let Action::Done(ending) = action {
                return Forecast::Ends(ending, self.steps);
            }
            if let Some(event) = self.take(&action) {
                recoverer.step(0, event, &mut more);
                due.extend(more.drain(..));
            }
        }
        match self.blind {
            Some(part) => Forecast::Blind(part),
            None => Forecast::Ends(
                Ending::InDoubt {
                    unreachable: Vec::new(),
                },
                self.steps,
            ),
        }
    }

    /// Carries an action out on the picture.
    fn take(&mut self, action: &Action) -> Option<Event> {
        Some(match *action {
            Action::Read { part } => Event::Read(part, self.see(part)),
            Action::Apply { part, .. } => Event::Applied(part, self.apply(part)),
            Action::Abort {
                part, tombstone, ..
            } => Event::Aborted(part, self.abort(part, tombstone)),
            Action::Tombstone { part, not_after_ms } => {
                Event::Aborted(part, self.tombstone(part, not_after_ms))
            }
            Action::Release { part, leave } => Event::Released(part, self.release(part, leave)),
            Action::Prepare { .. } | Action::Reply(_) | Action::SetTimer(_) | Action::Done(_) => {
                return None;
            }
        })
    }

    fn read(&self, part: Part) -> Reading {
        self.readings
            .get(&key(part))
            .cloned()
            .unwrap_or(Reading::Unreachable)
    }

    fn see(&mut self, part: Part) -> Reading {
        let reading = self.read(part);
        if reading == Reading::Unreachable {
            self.blind.get_or_insert(part);
        }
        reading
    }

    fn become_state(&mut self, part: Part, state: State, step: Step) {
        if let Some(Reading::Found(record)) = self.readings.get_mut(&key(part)) {
            record.state = state;
        }
        self.steps.push((part, step));
    }

    fn apply(&mut self, part: Part) -> Applied {
        match self.see(part) {
            Reading::Unreachable => Applied::Unknown,
            Reading::Absent => Applied::Not(None),
            Reading::Found(record) if record.state == State::Prepared => {
                self.become_state(part, State::Applied, Step::Apply);
                Applied::Now
            }
            Reading::Found(record) => Applied::Not(Some(record.state)),
        }
    }

    fn abort(&mut self, part: Part, tombstone: Option<Millis>) -> Aborted {
        match (self.see(part), tombstone) {
            (Reading::Unreachable, _) => Aborted::Unknown,
            (Reading::Absent, Some(not_after_ms)) => self.tombstone(part, not_after_ms),
            (Reading::Absent, None) => Aborted::Done,
            (Reading::Found(record), _) => match record.state {
                State::Applied => Aborted::Applied,
                State::Aborted => Aborted::Done,
                State::Prepared => {
                    self.become_state(part, State::Aborted, Step::Abort);
                    Aborted::Done
                }
            },
        }
    }

    fn tombstone(&mut self, part: Part, not_after_ms: Millis) -> Aborted {
        match self.see(part) {
            Reading::Unreachable => Aborted::Unknown,
            Reading::Absent if self.now_ms > not_after_ms => Aborted::Late,
            Reading::Absent => {
                self.steps.push((part, Step::Tombstone));
                Aborted::Done
            }
            Reading::Found(record) => match record.state {
                State::Applied => Aborted::Applied,
                State::Aborted => Aborted::Done,
                State::Prepared => Aborted::StillPrepared,
            },
        }
    }

    fn release(&mut self, part: Part, _leave: Leave) -> Released {
        match self.see(part) {
            Reading::Unreachable => Released::Unknown,
            Reading::Found(record) if record.state == State::Prepared => Released::StillPrepared,
            Reading::Found(_) | Reading::Absent => {
                self.steps.push((part, Step::Release));
                Released::Done
            }
        }
    }
}

fn key(part: Part) -> (u16, u16) {
    (part.shard, part.db)
}

#[cfg(test)]
mod tests {
    use super::super::sight::tests::{case, early, marker, part, record};
    use super::*;
    use Seen::{Absent, Found as Is};
    use State::{Aborted as AbortedState, Applied as AppliedState, Prepared};

    const LIMITS: Limits = Limits {
        ttl_ms: 5_000,
        margin_ms: 1_000,
        window_ms: 5_000,
        give_up_ms: 10_000,
        backoff_ms: 5,
        backoff_max_ms: 100,
    };

    fn forecast(seen: [Seen; 2]) -> Forecast {
        Forecast::of(&case(seen), &LIMITS, false)
    }

    fn down() -> Seen {
        Seen::Unreadable("down".into())
    }

    /// I3: once all are prepared there is no way back, and nobody is told otherwise.
    #[test]
    fn all_prepared_ends_in_commit() {
        let forecast = forecast([Is(record(Prepared)), Is(record(Prepared))]);
        let Forecast::Ends(Ending::Committed { left }, steps) = forecast else {
            panic!("{forecast:?}");
        };
        assert!(left.is_empty());
        let all = [Step::Apply, Step::Release].map(|step| [(part(0), step), (part(1), step)]);
        assert_eq!(steps, all.concat());
    }

    #[test]
    fn an_absent_branch_is_buried_and_the_other_aborted() {
        let forecast = forecast([Is(record(Prepared)), Absent]);
        assert!(forecast.is_abort(), "{forecast:?}");
        let Forecast::Ends(_, steps) = forecast else {
            return;
        };
        assert_eq!(steps, [(part(1), Step::Tombstone), (part(0), Step::Abort)]);
    }

    #[test]
    fn what_is_applied_anywhere_is_finished() {
        let forecast = forecast([Is(marker(AppliedState)), Is(record(Prepared))]);
        assert!(forecast.is_commit(), "{forecast:?}");
    }

    #[test]
    fn what_cannot_go_on_says_why() {
        assert_eq!(
            forecast([Is(record(Prepared)), down()]),
            Forecast::Blind(part(1))
        );
        assert_eq!(
            forecast([Is(early(Prepared)), Absent]),
            Forecast::Early(1_000)
        );
        assert_eq!(forecast([Absent, Absent]), Forecast::Nothing);
        assert_eq!(
            forecast([Absent, Is(marker(AbortedState))]),
            Forecast::Nothing
        );
        let stray = case([Absent, Absent, Is(record(Prepared))]);
        assert_eq!(Forecast::of(&stray, &LIMITS, false), Forecast::Malformed);
    }

    #[test]
    fn force_does_not_wait_for_the_deadline() {
        let case = case([Is(early(Prepared)), Absent]);
        assert!(Forecast::of(&case, &LIMITS, true).is_abort());
    }

    #[test]
    fn a_contradiction_is_forecast_as_one() {
        let forecast = forecast([Is(record(AppliedState)), Is(marker(AbortedState))]);
        let Forecast::Ends(Ending::Contradiction(at), _) = forecast else {
            panic!("{forecast:?}");
        };
        assert_eq!(at, part(1));
    }
}

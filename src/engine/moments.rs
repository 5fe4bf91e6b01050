//! The moments in the life of a transaction at which a process can die: between what a machine
//! asks for and what it is told. Tests stop it there; see [`crate::failpoint`].
//!
//! What is asked of several participants at once has three moments: before any is asked, after
//! the first has answered and before the others are asked (which are kept back for it), and
//! after all have answered, before the machine is told. In a release build everything passes.

use crate::txn::{Action, Event};

/// Whose moments they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Who {
    Coordinator,
    Recoverer,
}

#[cfg(debug_assertions)]
pub(super) use on::Moments;

#[cfg(not(debug_assertions))]
pub(super) use off::Moments;

#[cfg(debug_assertions)]
mod on {
    use std::time::Duration;

    use super::{Action, Event, Who};
    use crate::failpoint::{at, is_armed, is_planted};
    use crate::txn::{Leave, Part, Rule, Way};

    /// Wrong: a branch that is applied is released before another is.
    const RELEASE_EARLY: &str = "release-before-last-apply";
    /// Right, but slow: one apply after the other, with a pause, so that what goes wrong in
    /// between can be seen.
    const SLOW_APPLY: &str = "slow-apply";
    const PAUSE: Duration = Duration::from_millis(4);
    /// Long enough for what was answered to leave, and for the shards to do what was sent.
    const TURN: Duration = Duration::from_millis(30);

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Kind {
        Prepare,
        /// The apply at the decider.
        Decide,
        Apply,
        Abort,
        Tombstone,
        Read,
        Release,
    }

    fn asks(action: &Action) -> Option<(Kind, Part)> {
        Some(match action {
            Action::Prepare { part, .. } => (Kind::Prepare, *part),
            Action::Apply { part, .. } => (Kind::Apply, *part),
            Action::Abort { part, .. } => (Kind::Abort, *part),
            Action::Tombstone { part, .. } => (Kind::Tombstone, *part),
            Action::Read { part } => (Kind::Read, *part),
            Action::Release { part, .. } => (Kind::Release, *part),
            Action::Reply(_) | Action::SetTimer(_) | Action::Done(_) => return None,
        })
    }

    fn of(event: &Event) -> Option<Part> {
        match event {
            Event::Voted(part, _)
            | Event::Applied(part, _)
            | Event::Aborted(part, _)
            | Event::Released(part, _)
            | Event::Read(part, _) => Some(*part),
            Event::Timer => None,
        }
    }

    /// Before any is asked; after the first answer; after all answers.
    fn names(who: Who, kind: Kind) -> [&'static str; 3] {
        match (who, kind) {
            (_, Kind::Prepare) => [
                "coordinator-before-prepare",
                "coordinator-after-first-vote",
                "coordinator-after-votes",
            ],
            (_, Kind::Decide) => [
                "coordinator-before-decision",
                "coordinator-after-decision",
                "coordinator-after-decision",
            ],
            (Who::Coordinator, Kind::Apply) => [
                "coordinator-before-apply",
                "coordinator-after-first-apply",
                "coordinator-after-applies-before-reply",
            ],
            (Who::Coordinator, Kind::Abort) => [
                "coordinator-before-abort",
                "coordinator-after-first-abort",
                "coordinator-after-aborts",
            ],
            (Who::Coordinator, Kind::Tombstone) => [
                "coordinator-before-tombstone",
                "coordinator-after-first-tombstone",
                "coordinator-after-tombstones",
            ],
            (Who::Coordinator, Kind::Read) => [
                "coordinator-before-read",
                "coordinator-after-first-read",
                "coordinator-after-reads",
            ],
            (Who::Coordinator, Kind::Release) => [
                "coordinator-before-release",
                "coordinator-after-first-release",
                "coordinator-after-releases",
            ],
            (Who::Recoverer, Kind::Apply) => [
                "recoverer-before-apply",
                "recoverer-after-first-apply",
                "recoverer-after-applies",
            ],
            (Who::Recoverer, Kind::Abort) => [
                "recoverer-before-abort",
                "recoverer-after-first-abort",
                "recoverer-after-aborts",
            ],
            (Who::Recoverer, Kind::Tombstone) => [
                "recoverer-before-tombstone",
                "recoverer-after-first-tombstone",
                "recoverer-after-tombstones",
            ],
            (Who::Recoverer, Kind::Read) => [
                "recoverer-before-read",
                "recoverer-after-first-read",
                "recoverer-after-reads",
            ],
            (Who::Recoverer, Kind::Release) => [
                "recoverer-before-release",
                "recoverer-after-first-release",
                "recoverer-after-releases",
            ],
        }
    }

    /// Watches over one machine.
    pub(in crate::engine) struct Moments {
        who: Who,
        rule: Rule,
        /// What was asked and not answered.
        asked: Vec<(Kind, Part)>,
        /// What is kept back until another was answered.
        kept: Vec<Action>,
        /// Releases that are kept back until the client has its reply.
        behind_reply: Vec<Action>,
    }

    impl Moments {
        pub(in crate::engine) fn new(who: Who, rule: Rule) -> Self {
            Self {
                who,
                rule,
                asked: Vec::new(),
                kept: Vec::new(),
                behind_reply: Vec::new(),
            }
        }

        /// What of this is to be done now.
        pub(in crate::engine) fn admit(&mut self, actions: Vec<Action>) -> Vec<Action> {
            let replies = actions.iter().any(|a| matches!(a, Action::Reply(_)));
            let mut now = Vec::with_capacity(actions.len());
            for action in actions {
                let Some((mut kind, part)) = asks(&action) else {
                    now.push(action);
                    continue;
                };
                if kind == Kind::Apply && self.rule == Rule::Decider(part) {
                    kind = Kind::Decide;
                }
                if replies && kind == Kind::Release && is_armed("coordinator-after-reply") {
                    self.behind_reply.push(action);
                    continue;
                }
                let [before, first, _] = names(self.who, kind);
                at(before);
                if self.is_under_way(kind) && (is_armed(first) || too_early(&action)) {
                    self.kept.push(action);
                } else {
                    self.asked.push((kind, part));
                    now.push(action);
                }
            }
            now
        }

        fn is_under_way(&self, kind: Kind) -> bool {
            self.asked.iter().any(|(known, _)| *known == kind)
        }

        /// Something has happened that the machine is about to be told; adds what is to be done
        /// because of it.
        pub(in crate::engine) fn saw(&mut self, event: &Event, actions: &mut Vec<Action>) {
            let Some(part) = of(event) else { return };
            let Some(index) = self.asked.iter().position(|(_, known)| *known == part) else {
                return;
            };
            let (kind, _) = self.asked.swap_remove(index);
            let [_, first, all] = names(self.who, kind);
            at(first);
            if is_planted(RELEASE_EARLY) && kind == Kind::Apply {
                return self.release_early(part, actions);
            }
            if self.kept.is_empty() && !self.is_under_way(kind) {
                at(all);
            }
            actions.append(&mut self.kept);
        }

        /// Planted: a branch that was applied is released while another is not applied yet.
        fn release_early(&mut self, part: Part, actions: &mut Vec<Action>) {
            if !self.kept.is_empty() {
                let leave = Leave::Marker;
                actions.push(Action::Release { part, leave });
            }
        }

        /// To be called when [`Self::saw`] was.
        pub(in crate::engine) async fn pause(&self, actions: &[Action]) {
            let applies = actions.iter().any(|a| matches!(a, Action::Apply { .. }));
            if applies && is_planted(SLOW_APPLY) {
                tokio::time::sleep(PAUSE).await;
            }
        }

        /// The reply was handed to the client's session.
        pub(in crate::engine) async fn replied(&mut self) -> Vec<Action> {
            if !self.behind_reply.is_empty() {
                tokio::time::sleep(TURN).await;
                at("coordinator-after-reply");
            }
            std::mem::take(&mut self.behind_reply)
        }
    }

    /// Planted: an apply is kept back while another is under way.
    fn too_early(action: &Action) -> bool {
        let is_direct = |way: &Way| *way == Way::Direct;
        matches!(action, Action::Apply { way, .. } if is_direct(way))
            && (is_planted(RELEASE_EARLY) || is_planted(SLOW_APPLY))
    }
}

#[cfg(not(debug_assertions))]
mod off {
    use super::{Action, Event, Who};
    use crate::txn::Rule;

    /// Nothing.
    pub(in crate::engine) struct Moments;

    impl Moments {
        #[inline(always)]
        pub(in crate::engine) fn new(_: Who, _: Rule) -> Self {
            Self
        }

        #[inline(always)]
        pub(in crate::engine) fn admit(&mut self, actions: Vec<Action>) -> Vec<Action> {
            actions
        }

        #[inline(always)]
        pub(in crate::engine) fn saw(&mut self, _: &Event, _: &mut Vec<Action>) {}

        #[inline(always)]
        pub(in crate::engine) async fn pause(&self, _: &[Action]) {}

        #[inline(always)]
        pub(in crate::engine) async fn replied(&mut self) -> Vec<Action> {
            Vec::new()
        }
    }
}

//! Every failpoint, and what must be going on for the process to come to it.

/// What is going on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Setting {
    /// A transaction over three shards that meets no obstacle.
    Commit,
    /// One of its shards refuses.
    Refused,
    /// Two of its shards never get their prepare.
    LostPrepare,
    /// A transaction on one slot of a shard.
    Single,
    /// A transaction on two slots of a shard.
    Guarded,
    /// A transaction over three shards of a client that watches on one of them.
    Watch,
    /// The same with a watched key on each.
    WatchAll,
    /// A transaction on a slot that is watched.
    WatchSlot,
    /// A coordinator has died when the decider had applied.
    RecoverDecided,
    /// A coordinator has died when all were prepared and the decider was not asked yet.
    RecoverUndecided,
    /// A coordinator has died when all were prepared; this is about who recovers.
    RecoverForward,
    /// A coordinator has died when one was prepared.
    RecoverBack,
}

impl Setting {
    /// Whether it is about who recovers.
    pub fn recovers(self) -> bool {
        matches!(
            self,
            RecoverForward | RecoverBack | RecoverDecided | RecoverUndecided
        )
    }

    /// On how many shards the client watches.
    pub fn watched(self) -> usize {
        match self {
            Watch | WatchSlot | RecoverDecided | RecoverUndecided => 1,
            WatchAll => 3,
            _ => 0,
        }
    }
}

/// One failpoint, in one setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Case {
    pub failpoint: &'static str,
    pub setting: Setting,
}

const fn case(failpoint: &'static str, setting: Setting) -> Case {
    Case { failpoint, setting }
}

use Setting::{
    Commit, Guarded, LostPrepare, RecoverBack, RecoverDecided, RecoverForward, RecoverUndecided,
    Refused, Single, Watch, WatchAll, WatchSlot,
};

/// All of them.
pub const CASES: &[Case] = &[
    case("coordinator-before-prepare", Commit),
    case("coordinator-after-first-vote", Commit),
    case("coordinator-after-votes", Commit),
    case("coordinator-before-apply", Commit),
    case("coordinator-after-first-apply", Commit),
    case("coordinator-after-applies-before-reply", Commit),
    case("coordinator-before-release", Commit),
    case("coordinator-after-reply", Commit),
    case("coordinator-after-first-release", Commit),
    case("coordinator-after-releases", Commit),
    case("coordinator-before-abort", Refused),
    case("coordinator-after-first-abort", Refused),
    case("coordinator-after-aborts", Refused),
    case("coordinator-before-read", LostPrepare),
    case("coordinator-after-first-read", LostPrepare),
    case("coordinator-after-reads", LostPrepare),
    case("coordinator-before-tombstone", LostPrepare),
    case("coordinator-after-first-tombstone", LostPrepare),
    case("coordinator-after-tombstones", LostPrepare),
    case("recoverer-before-read", RecoverForward),
    case("recoverer-after-first-read", RecoverForward),
    case("recoverer-after-reads", RecoverForward),
    case("recoverer-before-apply", RecoverForward),
    case("recoverer-after-first-apply", RecoverForward),
    case("recoverer-after-applies", RecoverForward),
    case("recoverer-before-release", RecoverForward),
    case("recoverer-after-first-release", RecoverForward),
    case("recoverer-after-releases", RecoverForward),
    case("recoverer-before-tombstone", RecoverBack),
    case("recoverer-after-first-tombstone", RecoverBack),
    case("recoverer-after-tombstones", RecoverBack),
    case("recoverer-before-abort", RecoverBack),
    case("recoverer-after-first-abort", RecoverBack),
    case("recoverer-after-aborts", RecoverBack),
    case("single-before-exec", Single),
    case("single-after-exec-before-reply", Single),
    case("coordinator-after-first-vote", Watch),
    case("coordinator-after-votes", Watch),
    case("coordinator-before-decision", Watch),
    case("coordinator-after-decision", Watch),
    case("coordinator-after-first-apply", Watch),
    case("coordinator-after-applies-before-reply", Watch),
    case("coordinator-after-first-release", Watch),
    case("coordinator-after-first-vote", WatchAll),
    case("coordinator-after-votes", WatchAll),
    case("coordinator-after-first-apply", WatchAll),
    case("coordinator-after-applies-before-reply", WatchAll),
    case("watch-before-exec", WatchSlot),
    case("watch-after-exec-before-reply", WatchSlot),
    case("recoverer-after-reads", RecoverDecided),
    case("recoverer-after-first-apply", RecoverDecided),
    case("recoverer-after-first-release", RecoverDecided),
    case("recoverer-after-reads", RecoverUndecided),
    case("recoverer-before-abort", RecoverUndecided),
    case("recoverer-after-first-abort", RecoverUndecided),
    case("recoverer-after-aborts", RecoverUndecided),
    case("single-before-guarded-exec", Guarded),
    case("single-after-guarded-exec-before-reply", Guarded),
];

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
    /// A transaction on one shard.
    Single,
    /// A coordinator has died when all were prepared; this is about who recovers.
    RecoverForward,
    /// A coordinator has died when one was prepared.
    RecoverBack,
}

/// One failpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Case {
    pub failpoint: &'static str,
    pub setting: Setting,
}

const fn case(failpoint: &'static str, setting: Setting) -> Case {
    Case { failpoint, setting }
}

use Setting::{Commit, LostPrepare, RecoverBack, RecoverForward, Refused, Single};

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
];

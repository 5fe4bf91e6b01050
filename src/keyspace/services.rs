//! Commands about what a server does beside keeping data: channels, and scripts.

use super::treatment::Treatment;

/// What can be subscribed to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ChannelKind {
    /// A channel: SUBSCRIBE, PUBLISH.
    Plain = 0,
    /// A pattern of channels: PSUBSCRIBE.
    Pattern = 1,
    /// A shard channel: SSUBSCRIBE, SPUBLISH.
    Shard = 2,
}

impl ChannelKind {
    /// All of them, in the order of their numbers.
    pub const ALL: &'static [Self] = &[Self::Plain, Self::Pattern, Self::Shard];

    /// The command that subscribes, in lower case as it stands in confirmations.
    pub fn subscribe(self) -> &'static str {
        ["subscribe", "psubscribe", "ssubscribe"][self as usize]
    }

    /// The command that takes it back.
    pub fn unsubscribe(self) -> &'static str {
        ["unsubscribe", "punsubscribe", "sunsubscribe"][self as usize]
    }
}

/// Commands about channels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channels {
    /// SUBSCRIBE and its kin.
    Subscribe(ChannelKind),
    /// UNSUBSCRIBE and its kin.
    Unsubscribe(ChannelKind),
    /// PUBLISH, SPUBLISH.
    Publish(ChannelKind),
    /// PUBSUB NUMSUB, SHARDNUMSUB.
    Count(ChannelKind),
}

/// Commands about scripts and functions as such.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Library {
    /// SCRIPT LOAD.
    Load,
    /// SCRIPT FLUSH.
    Forget,
    /// SCRIPT EXISTS.
    Exists,
    /// FUNCTION LOAD, DELETE, FLUSH and RESTORE.
    Change,
    /// SCRIPT KILL, FUNCTION KILL.
    Kill,
    /// FUNCTION STATS.
    Stats,
}

pub(super) fn by_name(name: &str, sub: &str) -> Option<Treatment> {
    match name {
        "script" | "function" => library(name, sub),
        _ => channels(name, sub),
    }
}

fn channels(name: &str, sub: &str) -> Option<Treatment> {
    use ChannelKind::{Pattern, Plain, Shard};
    Some(Treatment::Channels(match (name, sub) {
        ("subscribe", _) => Channels::Subscribe(Plain),
        ("psubscribe", _) => Channels::Subscribe(Pattern),
        ("ssubscribe", _) => Channels::Subscribe(Shard),
        ("unsubscribe", _) => Channels::Unsubscribe(Plain),
        ("punsubscribe", _) => Channels::Unsubscribe(Pattern),
        ("sunsubscribe", _) => Channels::Unsubscribe(Shard),
        ("publish", _) => Channels::Publish(Plain),
        ("spublish", _) => Channels::Publish(Shard),
        ("pubsub", "numsub") => Channels::Count(Plain),
        ("pubsub", "shardnumsub") => Channels::Count(Shard),
        // Every subscription is on every shard.
        ("pubsub", _) => return Some(Treatment::Anywhere),
        _ => return None,
    }))
}

fn library(name: &str, sub: &str) -> Option<Treatment> {
    Some(Treatment::Library(match (name, sub) {
        ("script", "load") => Library::Load,
        ("script", "flush") => Library::Forget,
        ("script", "exists") => Library::Exists,
        (_, "kill") => Library::Kill,
        (_, "stats") => Library::Stats,
        ("function", "load" | "delete" | "flush" | "restore") => Library::Change,
        // Every library is on every shard.
        ("function", "list" | "dump") => return Some(Treatment::Anywhere),
        (_, "") => return Some(Treatment::Anywhere),
        _ => return None,
    }))
}

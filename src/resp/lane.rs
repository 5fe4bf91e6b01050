//! What a connection is set to.

use super::Protocol;

/// What a connection is set to: how it is answered, and the logical database that its commands
/// mean. A client's commands go to the shards over connections of the same lane, so that replies
/// can be handed on as they are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Lane {
    /// The form of replies.
    pub protocol: Protocol,
    /// The logical database.
    pub db: u16,
}

impl Lane {
    /// What every connection begins with; also that of whatever lockstep asks on its own account,
    /// since all it keeps on a shard is in database 0.
    pub const FIRST: Self = Self {
        protocol: Protocol::Resp2,
        db: 0,
    };

    /// Database 0 in this protocol.
    pub const fn speaking(protocol: Protocol) -> Self {
        Self { protocol, db: 0 }
    }
}

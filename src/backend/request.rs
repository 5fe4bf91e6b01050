//! What a link remembers of a request until its reply is there.

use std::time::Instant;

use super::hold::{Check, Isolation, Receiver};

/// How a request is answered.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// Replies that nobody wants come first: the +OK and +QUEUED before the reply to EXEC.
    pub swallow: u32,
    /// How the reply depends on what happens on the shard.
    pub isolation: Isolation,
    /// A client's script, which may run for ever.
    pub is_script: bool,
}

impl How {
    /// One reply, which leaves when it comes.
    pub const PLAIN: Self = Self {
        swallow: 0,
        isolation: Isolation::None,
        is_script: false,
    };

    /// The same for a script, or not.
    pub const fn of_script(self, is_script: bool) -> Self {
        Self { is_script, ..self }
    }

    /// Behind so many that nobody wants.
    pub const fn behind(swallow: u32) -> Self {
        Self {
            swallow,
            isolation: Isolation::None,
            is_script: false,
        }
    }

    /// One reply.
    pub const fn isolated(isolation: Isolation) -> Self {
        Self {
            swallow: 0,
            isolation,
            is_script: false,
        }
    }
}

/// What the next reply is.
pub(super) enum Expected {
    Reply(Pending),
    /// To the check at the end of a batch.
    Check(Check),
}

/// A request that waits for its reply.
pub(super) struct Pending {
    pub(super) receiver: Receiver,
    pub(super) isolation: Isolation,
    pub(super) is_script: bool,
    /// Where its bytes end, counted like `appended`.
    pub(super) end: u64,
    /// Replies to swallow first (the +OK and +QUEUED before the reply to EXEC).
    pub(super) swallow: u32,
}

/// The requests up to number `upto` were written at this time.
pub(super) struct Batch {
    pub(super) upto: u64,
    pub(super) at: Instant,
}

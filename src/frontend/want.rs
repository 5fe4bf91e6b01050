//! What a session's task waits for.

/// What a client's task waits for before it handles more commands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want {
    /// Every reply has come in.
    Idle,
    /// At most so many replies are missing, and at most so many bytes wait to be sent.
    Room {
        /// Replies.
        slots: usize,
        /// Bytes.
        bytes: usize,
    },
}

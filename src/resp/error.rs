//! What can be wrong with bytes.

use bytes::{BufMut, BytesMut};
use thiserror::Error;

/// A client broke the protocol. It is told ([`ProtocolError::encode`]) and its connection is
/// closed. The texts are those of redis-server 7.0, but for the last three.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ProtocolError {
    /// No line end within the limit, in an inline command.
    #[error("Protocol error: too big inline request")]
    InlineTooBig,
    /// An inline command whose quotes do not pair up.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// No line end within the limit, behind `*`.
    #[error("Protocol error: too big mbulk count string")]
    CountLineTooBig,
    /// Not a number behind `*`.
    #[error("Protocol error: invalid multibulk length")]
    InvalidCount,
    /// A number behind `*` beyond [`args_max`](super::Limits::args_max); in the same words.
    #[error("Protocol error: invalid multibulk length")]
    TooManyArgs,
    /// Too many arguments announced by a client that has not authenticated.
    #[error("Protocol error: unauthenticated multibulk length")]
    UnauthenticatedCount,
    /// No line end within the limit, where a `$` line should be.
    #[error("Protocol error: too big bulk count string")]
    BulkLineTooBig,
    /// An argument that does not start with `$`, and the byte it starts with.
    #[error("Protocol error: expected '$', got '{}'", .0.escape_ascii())]
    ExpectedBulk(u8),
    /// Not a length behind `$`.
    #[error("Protocol error: invalid bulk length")]
    InvalidBulkLength,
    /// A length behind `$` beyond [`bulk_bytes_max`](super::Limits::bulk_bytes_max); in the same
    /// words.
    #[error("Protocol error: invalid bulk length")]
    BulkTooBig,
    /// Too long an argument announced by a client that has not authenticated.
    #[error("Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulkLength,
    /// The command exceeds [`command_bytes_max`](super::Limits::command_bytes_max). (Redis hangs
    /// up in silence.)
    #[error("Protocol error: too big command")]
    CommandTooBig,
    /// A line end that is not CRLF, in a command that is sent on while it comes. (Redis does not
    /// look at it.)
    #[error("Protocol error: a line of a large command does not end in CRLF")]
    SloppyLine,
    /// The caller went back: it showed fewer bytes of a frame than it had shown before.
    #[error("Protocol error: input was taken back")]
    InputTakenBack,
}

impl ProtocolError {
    /// Appends the error reply that the client gets, byte for byte Redis's:
    /// `-ERR Protocol error: …\r\n`.
    pub fn encode(self, out: &mut BytesMut) {
        out.put_slice(b"-ERR ");
        match self {
            // Redis prints the byte as it is, and a line end as a space.
            Self::ExpectedBulk(byte) => {
                out.put_slice(b"Protocol error: expected '$', got '");
                out.put_u8(if matches!(byte, b'\r' | b'\n') {
                    b' '
                } else {
                    byte
                });
                out.put_u8(b'\'');
            }
            other => out.put_slice(other.to_string().as_bytes()),
        }
        out.put_slice(b"\r\n");
    }
}

/// A shard broke the protocol, or exceeded a limit. Nothing that follows on its connection can
/// be understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ReplyError {
    /// A reply starts with a byte that announces none.
    #[error("a reply starts with byte {0:#04x}")]
    UnknownType(u8),
    /// Not a length behind a type that needs one; streamed replies (`*?`, `$?`) as well.
    #[error("a reply has an invalid length")]
    InvalidLength,
    /// A null or boolean that is neither, or a bulk without its line end.
    #[error("a reply is malformed")]
    Malformed,
    /// The reply is, or announces to be, beyond
    /// [`reply_bytes_max`](super::Limits::reply_bytes_max).
    #[error("a reply is too big")]
    TooBig,
}

/// A complete reply cannot be turned into a [`Value`](super::Value).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum DecodeError {
    /// It breaks the protocol.
    #[error(transparent)]
    Broken(#[from] ReplyError),
    /// It ends early, or has bytes behind its end.
    #[error("not exactly one whole reply")]
    NotOneReply,
    /// More aggregates inside one another than [`depth_max`](super::Limits::depth_max).
    #[error("a reply is nested too deeply")]
    TooDeep,
    /// A number that is none, or out of range.
    #[error("a reply has an invalid number")]
    InvalidNumber,
}

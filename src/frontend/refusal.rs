//! Every error text that lockstep gives on its own account, in Redis's style. What redis-server
//! would refuse as well is refused in its words.

use crate::keyspace::CommandSpec;
use crate::metrics::{ErrorKind, Limit};
use crate::resp::{Command, ProtocolError};
use crate::txn::plan::Misplaced;

/// Texts that need no argument (redis-server 7.0, `multi.c`, `networking.c`, `acl.c`).
pub mod fixed {
    #![allow(missing_docs, reason = "the texts say it")]
    pub const EXEC_WITHOUT_MULTI: &str = "ERR EXEC without MULTI";
    pub const DISCARD_WITHOUT_MULTI: &str = "ERR DISCARD without MULTI";
    pub const NESTED_MULTI: &str = "ERR MULTI calls can not be nested";
    pub const WATCH_IN_MULTI: &str = "ERR WATCH inside MULTI is not allowed";
    pub const NO_MULTI: &str = "ERR Command not allowed inside a transaction";
    pub const EXECABORT: &str = "EXECABORT Transaction discarded because of previous errors.";
    pub const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
    pub const DB_OUT_OF_RANGE: &str = "ERR DB index is out of range";
    pub const NO_INT: &str =
        "ERR value is out of range, value must between -2147483648 and 2147483647";
    pub const RESERVED: &str =
        "ERR keys that begin with '__lockstep:' are reserved for lockstep itself";
    pub const SYNTAX: &str = "ERR syntax error";
    pub const CLIENT_NAME: &str =
        "ERR Client names cannot contain spaces, newlines or special characters.";
    pub const NOPROTO: &str = "NOPROTO unsupported protocol version";
    pub const PROTO_NOT_INT: &str = "ERR Protocol version is not an integer or out of range";
    pub const AUTH_UNSET: &str = "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?";
    pub const NOAUTH: &str = "NOAUTH Authentication required.";
    pub const NOAUTH_HELLO: &str = "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time";
    pub const WRONGPASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";
    pub const MAX_CLIENTS: &str = "ERR max number of clients reached";
    pub const MEMORY_MAX: &str =
        "ERR this lockstep holds more than memory-bytes-max for its clients; try again later";
    pub const NOSCRIPT: &str = "NOSCRIPT No matching script. Please use EVAL.";
    pub const RESERVED_CHANNEL: &str =
        "ERR channels that begin with '__lockstep:' are reserved for lockstep itself";
    pub const TOO_MANY_SUBSCRIPTIONS: &str =
        "ERR this client would have more subscriptions than client-subscriptions-max";
    pub const QUEUE_TOO_BIG: &str = "ERR the queue of this MULTI exceeds client-input-bytes-max";
}

/// `unknown command`, with the beginning of its arguments, as redis-server 7.0 words it.
pub fn unknown_command(command: &Command<'_>) -> Vec<u8> {
    const SHOWN_MAX: usize = 128;
    let mut args = Vec::new();
    for arg in command.args().skip(1) {
        if args.len() >= SHOWN_MAX {
            break;
        }
        args.push(b'\'');
        args.extend_from_slice(c_string(arg, SHOWN_MAX - args.len() + 1));
        args.extend_from_slice(b"' ");
    }
    let name = c_string(command.name(), SHOWN_MAX);
    [
        b"ERR unknown command '",
        name,
        b"', with args beginning with: ",
        &args,
    ]
    .concat()
}

/// `unknown subcommand`, as redis-server 7.0 words it.
pub fn unknown_subcommand(container: &CommandSpec, command: &Command<'_>) -> Vec<u8> {
    let sub = c_string(command.arg(1).unwrap_or_default(), 128);
    let container = container.name.to_uppercase();
    [
        b"ERR unknown subcommand '",
        sub,
        b"'. Try ",
        container.as_bytes(),
        b" HELP.",
    ]
    .concat()
}

/// What C's `%.*s` shows of an argument.
fn c_string(bytes: &[u8], max: usize) -> &[u8] {
    let shown = &bytes[..bytes.len().min(max)];
    shown.split(|&b| b == 0).next().unwrap_or_default()
}

/// An option that HELLO does not know, or that lacks arguments.
pub fn hello_option(option: &[u8]) -> Vec<u8> {
    let option = c_string(option, usize::MAX);
    [b"ERR Syntax error in HELLO option '", option, b"'"].concat()
}

/// Wrong number of arguments.
pub fn arity(spec: &CommandSpec) -> String {
    format!("ERR wrong number of arguments for '{}' command", spec.name)
}

/// A command that a client cannot give while it listens, in RESP2.
pub fn listens(spec: &CommandSpec) -> String {
    format!(
        "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
        spec.name
    )
}

/// A command that lockstep does not serve.
pub fn refused(spec: &CommandSpec, reason: &str) -> String {
    format!(
        "ERR {} {reason}",
        spec.name.replace('|', " ").to_uppercase()
    )
}

/// One key more than a client may watch.
pub fn watched_too_many(max: usize) -> String {
    format!(
        "ERR too many keys are watched (watched-keys-max is {max}); the next EXEC will be nil: UNWATCH, or watch fewer"
    )
}

/// How a command whose keys are where it cannot have them counts.
pub fn misplaced_kind(why: Misplaced) -> ErrorKind {
    match why {
        Misplaced::CrossSlot | Misplaced::Hidden | Misplaced::Undeclared => ErrorKind::CrossSlot,
        Misplaced::Reserved => ErrorKind::Command,
    }
}

/// The limit that bytes were beyond, if they were no nonsense.
pub fn limit_of(error: ProtocolError) -> Option<Limit> {
    match error {
        ProtocolError::InlineTooBig
        | ProtocolError::CountLineTooBig
        | ProtocolError::BulkLineTooBig => Some(Limit::InlineBytes),
        ProtocolError::TooManyArgs => Some(Limit::Args),
        ProtocolError::BulkTooBig => Some(Limit::BulkBytes),
        ProtocolError::CommandTooBig => Some(Limit::ClientInput),
        _ => None,
    }
}

/// A command whose keys are where it cannot have them.
pub fn misplaced(spec: &CommandSpec, why: Misplaced) -> String {
    let name = spec.name.replace('|', " ").to_uppercase();
    match why {
        Misplaced::CrossSlot => format!(
            "CROSSSLOT Keys of {name} live on different shards: give them one hash tag, as in {{tag}}key, or use single-key commands in MULTI/EXEC"
        ),
        Misplaced::Hidden => format!(
            "CROSSSLOT {name} touches keys that are not among its arguments: give its patterns a hash tag, as in {{tag}}key_*"
        ),
        Misplaced::Undeclared => format!(
            "CROSSSLOT {name} declares no key, so lockstep cannot tell its shard: declare the keys that it touches"
        ),
        Misplaced::Reserved => fixed::RESERVED.into(),
    }
}

//! What a client is told when EXEC has no replies. Every text says whether anything was applied.

use std::time::Duration;

use bytes::BytesMut;

use super::Answer;
use crate::backend::Failure;
use crate::metrics::{ErrorKind, Outcome as Told};
use crate::resp::{self, Protocol, build};
use crate::txn::{Cause, Outcome, Refusal, TxnId};

/// The keys were not free within `lock-wait`.
pub(super) fn waited_too_long(answer: Answer, lock_wait: Duration) -> BytesMut {
    discarded(&held(None, lock_wait), answer)
}

/// What a command over several shards was based on has changed again and again.
pub(super) fn outrun(lock_wait: Duration) -> BytesMut {
    let limit = lock_wait.as_millis();
    error(format!(
        "ERR its keys were changed by others again and again for {limit} ms (lock-wait-ms); nothing was applied"
    ))
}

/// A value that another shard has written is to stand on this one, for good or for a moment.
pub(super) fn too_new(shard: &str) -> BytesMut {
    error(format!(
        "ERR shard {shard} runs an older Redis, which cannot read values of the shard they are on; nothing was applied"
    ))
}

/// An EXEC that ran natively on one shard and got no reply.
///
/// It has no id: nothing of it is written to the shard but its commands (a record for each would
/// cost every EXEC two writes there), so an id would be one that nobody can ever look up. The
/// text says so, and what is certain all the same.
pub fn failed(failure: &Failure) -> BytesMut {
    error(match failure {
        Failure::NeverSent(cause) => {
            format!("EXECABORT Transaction discarded because of: {cause}; nothing was applied")
        }
        Failure::MaybeSent(cause) => {
            format!(
                "ERR {cause}; the outcome of the transaction is not known: it was sent to this shard alone, as a MULTI/EXEC of its own, so all of it was applied or nothing; there is no id to ask for, its keys tell"
            )
        }
    })
}

/// The same for what ran there otherwise.
pub(super) fn lost(failure: &Failure, answer: Answer) -> BytesMut {
    match answer {
        Answer::Exec => failed(failure),
        Answer::Bare | Answer::Parts => error(failure.to_string()),
    }
}

/// How that counts as an error.
pub fn failed_kind(failure: &Failure) -> ErrorKind {
    match failure {
        Failure::NeverSent(_) => ErrorKind::Aborted,
        Failure::MaybeSent(_) => ErrorKind::OutcomeUnknown,
    }
}

/// The same for [`lost`].
pub(super) fn lost_kind(failure: &Failure, answer: Answer) -> ErrorKind {
    match answer {
        Answer::Exec => failed_kind(failure),
        Answer::Bare | Answer::Parts => failure.kind(),
    }
}

/// How it counts as the end of a transaction.
pub fn failed_outcome(failure: &Failure) -> Told {
    match failure {
        Failure::NeverSent(_) => Told::Aborted,
        Failure::MaybeSent(_) => Told::Unknown,
    }
}

/// What the reply to an EXEC that ran natively on one shard says of its end.
pub fn native_outcome(reply: &[u8]) -> Told {
    match resp::kind(reply) {
        _ if resp::is_error(reply) => Told::Aborted,
        resp::Kind::NullArray | resp::Kind::Null => Told::WatchBroken,
        _ => Told::Committed,
    }
}

/// How the end of a transaction over several shards counts as an error, if it is one.
pub(super) fn kind(told: Told) -> Option<ErrorKind> {
    match told {
        Told::Committed | Told::WatchBroken => None,
        Told::Aborted => Some(ErrorKind::Aborted),
        Told::RepliesLost => Some(ErrorKind::RepliesLost),
        Told::Unknown => Some(ErrorKind::OutcomeUnknown),
    }
}

/// The reply for an outcome without replies.
pub(super) fn reply(
    outcome: &Outcome,
    id: &TxnId,
    answer: Answer,
    protocol: Protocol,
    lock_wait: Duration,
) -> BytesMut {
    match outcome {
        Outcome::Aborted(cause) => aborted(cause, answer, lock_wait),
        Outcome::CommittedRepliesLost => error(format!(
            "ERR transaction {id} is committed, but its replies were lost (LOCKSTEP TXN STATUS {id} confirms)"
        )),
        Outcome::WatchBroken => null_array(protocol),
        Outcome::Committed | Outcome::Unknown => error(format!(
            "ERR the outcome of transaction {id} is not known yet: it will be applied as a whole or not at all; ask LOCKSTEP TXN STATUS {id}"
        )),
    }
}

fn aborted(cause: &Cause, answer: Answer, lock_wait: Duration) -> BytesMut {
    let why = match cause {
        Cause::No(_, Refusal::Held { owner, .. }) => held(Some(owner), lock_wait),
        // The shard's own words, as a single Redis would have used them.
        Cause::No(_, Refusal::Refused(text)) if answer == Answer::Bare => {
            return error(text.clone());
        }
        Cause::No(_, Refusal::Refused(text)) if answer == Answer::Parts => {
            // Our own about a decider have no code in front.
            let has_code = text.starts_with(|first: char| first.is_ascii_uppercase());
            return error(match has_code {
                true => text.clone(),
                false => format!("ERR {text}; nothing was applied"),
            });
        }
        Cause::No(_, Refusal::Refused(text)) => text.clone(),
        Cause::No(_, Refusal::Unreachable(text)) => format!("{text}; nothing was applied"),
        Cause::No(_, Refusal::Late | Refusal::Seen(_) | Refusal::WatchBroken) | Cause::Silence => {
            "a shard did not answer in time; nothing was applied".to_owned()
        }
    };
    discarded(&why, answer)
}

/// Nothing was applied, for this reason.
fn discarded(why: &str, answer: Answer) -> BytesMut {
    match answer {
        Answer::Exec => error(format!("EXECABORT Transaction discarded because of: {why}")),
        Answer::Bare | Answer::Parts => error(format!("ERR {why}")),
    }
}

fn held(owner: Option<&TxnId>, lock_wait: Duration) -> String {
    let by = owner.map_or(String::new(), |id| format!(" {id}"));
    let limit = lock_wait.as_millis();
    format!(
        "its keys were held by other transactions{by} for {limit} ms (lock-wait-ms); nothing was applied"
    )
}

fn error(text: String) -> BytesMut {
    let mut out = BytesMut::new();
    build::error(&mut out, text);
    out
}

pub(super) fn null_array(protocol: Protocol) -> BytesMut {
    let mut out = BytesMut::new();
    build::null_array(&mut out, protocol);
    out
}

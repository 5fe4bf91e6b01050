//! What the shards answered, in the vocabulary of [`crate::txn`].
//!
//! An error reply is read as *definitely nothing was done* only if its code proves it: Redis
//! sends these before a command or script has changed anything. Every other error, and every
//! reply of an unexpected shape, is `Unknown`: it may have run.

use std::borrow::Cow;

use bytes::BytesMut;
use thiserror::Error;

use crate::resp::build::{self, Protocol};
use crate::resp::{as_bulk, as_int, as_status, elements, error_text, is_error, kind};
use crate::txn::Vote;
use crate::txn::{Aborted, Applied, Millis, Part, Record, Refusal, Released, Rule, State, TxnId};

/// Codes of errors that are given before anything is done.
const DEFINITE: &[&[u8]] = &[
    b"ASK",
    b"BUSY",
    b"CLUSTERDOWN",
    b"CROSSSLOT",
    b"EXECABORT",
    b"LOADING",
    b"MASTERDOWN",
    b"MISCONF",
    b"MOVED",
    b"NOAUTH",
    b"NOPERM",
    b"NOREPLICAS",
    b"NOSCRIPT",
    b"OOM",
    b"READONLY",
    b"TOOLONG",
    b"TRYAGAIN",
];

/// The vote and what it says about the shard's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voted {
    /// The vote.
    pub vote: Vote,
    /// The shard's clock (milliseconds since the Unix epoch) when the prepare ran, if it told.
    pub now_ms: Option<Millis>,
}

impl Voted {
    fn new(vote: Vote) -> Self {
        Self { vote, now_ms: None }
    }
}

/// The answer to apply by script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplyAnswer<'a> {
    /// What happened.
    pub applied: Applied,
    /// After [`Applied::Now`]: the commands' replies as RESP2 sends them natively, in order.
    pub replies: Vec<Cow<'a, [u8]>>,
    /// The shard's own words when it refused, or answered what is not understood.
    pub error: Option<String>,
}

/// The answer to a native `MULTI … EXEC` under the WATCH of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exec<'a> {
    /// It ran; the commands' replies in order.
    Ran(Vec<&'a [u8]>),
    /// Nothing was done, since something watched has changed: read the record and go by it.
    Broken,
    /// Nothing was done, the shard refused the whole (its words). The WATCH is gone.
    Refused(String),
    /// It may have run (the shard's words).
    Unknown(String),
}

/// What a record promises, for those who finish another's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredIntent<'a> {
    /// The record's state.
    pub state: State,
    /// For [`crate::txn::redo::decode`]; empty once applied or aborted.
    pub redo: &'a [u8],
    /// For [`crate::txn::redo::decode_keys`]; empty in a marker.
    pub keys: &'a [u8],
}

/// A reading that gave no record nor proved its absence.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("cannot read the transaction's record: {0}")]
pub struct Unreadable(pub String);

/// Whether the shard does not know the script: load it ([`super::Script::append_load`]) and send
/// the request again; a prepare only under a new id.
pub fn is_noscript(frame: &[u8]) -> bool {
    code(error_text(frame)) == b"NOSCRIPT"
}

/// Whether this error reply proves that its command did nothing.
pub fn proves_nothing_done(frame: &[u8]) -> bool {
    let text = error_text(frame);
    // A script that was denied one of its commands may have run others.
    let inside = code(text) == b"NOPERM" && text.windows(8).any(|word| word == b"script: ");
    is_error(frame) && DEFINITE.contains(&code(text)) && !inside
}

/// The answer to [`super::Prepare::append`].
pub fn vote(frame: &[u8]) -> Voted {
    if is_error(frame) {
        return Voted::new(if proves_nothing_done(frame) {
            Vote::No(Refusal::Refused(text(error_text(frame))))
        } else {
            Vote::Unknown
        });
    }
    if let Some(now_ms) = as_millis(frame) {
        return Voted {
            vote: Vote::Yes,
            now_ms: Some(now_ms),
        };
    }
    let parts: Vec<&[u8]> = elements(frame).take(4).collect();
    no(&parts).unwrap_or(Voted::new(Vote::Unknown))
}

fn no(parts: &[&[u8]]) -> Option<Voted> {
    let (refusal, now) = match (as_bulk(parts.first()?)?, parts) {
        (b"seen", [_, seen]) => (Refusal::Seen(state(seen)?), None),
        (b"late", [_, now]) => (Refusal::Late, Some(as_millis(now)?)),
        (b"held", [_, owner, left, now]) => {
            let owner = TxnId::new(text(as_bulk(owner)?));
            let remaining_ms = as_millis(left)?;
            (
                Refusal::Held {
                    owner,
                    remaining_ms,
                },
                Some(as_millis(now)?),
            )
        }
        _ => return None,
    };
    Some(Voted {
        vote: Vote::No(refusal),
        now_ms: now,
    })
}

/// The key of the prepare that another transaction holds, if that is why [`vote`] is No.
pub fn held_key(frame: &[u8]) -> Option<&[u8]> {
    let mut parts = elements(frame);
    let is_held = as_bulk(parts.next()?) == Some(b"held");
    parts.nth(3).and_then(as_bulk).filter(|_| is_held)
}

/// The answers to [`super::Prepare::append_watching`]. Yes only if the record was `prepared` also
/// behind the WATCH: before it, somebody may have settled the transaction. After anything but
/// Yes the connection still watches the record.
pub fn vote_watching(replies: [&[u8]; super::VOTE_WATCHING_REPLIES]) -> Voted {
    let [prepare, watch, behind] = replies;
    let mut voted = vote(prepare);
    if voted.vote == Vote::Yes {
        let watched = as_status(watch) == Some(b"OK");
        if !watched || state(behind) != Some(State::Prepared) {
            voted.vote = Vote::Unknown;
        }
    }
    voted
}

/// The answers to [`super::Prepare::append_checked`]; None: what the connection watched has
/// changed, and nothing was prepared.
pub fn vote_checked(replies: [&[u8]; super::VOTE_CHECKED_REPLIES]) -> Option<Voted> {
    let [_, _, exec, watch, behind] = replies;
    if kind(exec).is_null() {
        return None;
    }
    match elements(exec).next() {
        Some(prepare) => Some(vote_watching([prepare, watch, behind])),
        None => Some(vote(exec)),
    }
}

/// The answer to the EXEC of [`super::Prepare::append_in_exec`]; None as for [`vote_checked`].
pub fn vote_in_exec(exec: &[u8]) -> Option<Voted> {
    match elements(exec).next() {
        _ if kind(exec).is_null() => None,
        Some(prepare) => Some(vote(prepare)),
        None => Some(vote(exec)),
    }
}

/// The answer to [`super::append_apply`].
pub fn applied(frame: &[u8]) -> ApplyAnswer<'_> {
    let answer = |applied| ApplyAnswer {
        applied,
        replies: Vec::new(),
        error: None,
    };
    if is_error(frame) {
        let refused = proves_nothing_done(frame);
        return ApplyAnswer {
            error: Some(text(error_text(frame))),
            ..answer(if refused {
                Applied::Refused
            } else {
                Applied::Unknown
            })
        };
    }
    let mut parts = elements(frame);
    match parts.next() {
        Some(first) if as_bulk(first) == Some(b"now") => ApplyAnswer {
            replies: parts.map(native).collect(),
            ..answer(Applied::Now)
        },
        Some(first) if kind(first).is_null() => answer(Applied::Not(None)),
        Some(first) => match state(first) {
            Some(state) => answer(Applied::Not(Some(state))),
            None => answer(Applied::Unknown),
        },
        None => answer(Applied::Unknown),
    }
}

/// The answer to [`super::append_guarded`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guarded<'a> {
    /// The commands were executed, as one, with these replies.
    Ran(Vec<Cow<'a, [u8]>>),
    /// A key was settling, in this transaction: nothing was executed.
    Settling(TxnId),
    /// The shard refused the whole: nothing was executed.
    Refused,
    /// This error proves neither.
    Unknown(String),
}

/// See [`Guarded`].
pub fn guarded(frame: &[u8]) -> Guarded<'_> {
    let mut parts = elements(frame).filter_map(as_bulk);
    if let (Some(b"settling"), Some(owner)) = (parts.next(), parts.next()) {
        return Guarded::Settling(TxnId::new(text(owner)));
    }
    let answer = applied(frame);
    match answer.applied {
        Applied::Now => Guarded::Ran(answer.replies),
        Applied::Refused => Guarded::Refused,
        _ => Guarded::Unknown(answer.error.unwrap_or_default()),
    }
}

/// What the script could not hand back as it was: an integer beyond 2^53 stands as the status
/// `:<digits>`, which no command answers.
fn native(reply: &[u8]) -> Cow<'_, [u8]> {
    match reply {
        [b'+', integer @ ..] if integer.first() == Some(&b':') => Cow::Borrowed(integer),
        _ => Cow::Borrowed(reply),
    }
}

/// A reply of a command whose [`Fidelity`](crate::txn::redo::Fidelity) is `Exact`, as RESP3 sends
/// it: its nulls have another form.
pub fn to_resp3(reply: &[u8]) -> Cow<'_, [u8]> {
    if kind(reply).is_null() {
        return Cow::Borrowed(b"_\r\n");
    }
    if !elements(reply).any(|element| kind(element).is_null()) {
        return Cow::Borrowed(reply);
    }
    let mut out = BytesMut::with_capacity(reply.len());
    build::array_header(&mut out, elements(reply).count());
    for element in elements(reply) {
        match kind(element).is_null() {
            true => build::null_bulk(&mut out, Protocol::Resp3),
            false => out.extend_from_slice(element),
        }
    }
    Cow::Owned(out.to_vec())
}

/// The answer to the EXEC of [`super::ApplyPinned`]; `marks` as it told.
pub fn exec(frame: &[u8], marks: usize) -> Exec<'_> {
    if kind(frame).is_null() {
        return Exec::Broken;
    }
    if is_error(frame) {
        let words = text(error_text(frame));
        return if proves_nothing_done(frame) {
            Exec::Refused(words)
        } else {
            Exec::Unknown(words)
        };
    }
    let replies: Vec<&[u8]> = elements(frame).collect();
    match replies.get(marks..) {
        Some(replies) => Exec::Ran(replies.to_vec()),
        None => Exec::Unknown("EXEC answered too little".to_owned()),
    }
}

/// The answer to [`super::Abort`] and [`super::Tombstone`].
pub fn aborted(frame: &[u8]) -> Aborted {
    match as_bulk(frame) {
        Some(b"done") => Aborted::Done,
        Some(b"applied") => Aborted::Applied,
        Some(b"late") => Aborted::Late,
        Some(b"prepared") => Aborted::StillPrepared,
        _ => Aborted::Unknown,
    }
}

/// The answer to [`super::Release`].
pub fn released(frame: &[u8]) -> Released {
    match as_bulk(frame) {
        Some(b"done") => Released::Done,
        Some(b"prepared") => Released::StillPrepared,
        _ => Released::Unknown,
    }
}

/// The answer to [`super::append_read`]; None: there is no record.
///
/// # Errors
/// [`Unreadable`] with the shard's words, or when the record is not one of ours.
pub fn record(frame: &[u8]) -> Result<Option<Record>, Unreadable> {
    let parts: Vec<&[u8]> = elements(frame).take(5).collect();
    let [now, state, deadline, participants, decider] = parts[..] else {
        return Err(unreadable(frame));
    };
    if kind(state).is_null() {
        return Ok(None);
    }
    parse_record(now, state, deadline, participants, decider)
        .map(Some)
        .ok_or_else(|| unreadable(frame))
}

fn parse_record(
    now: &[u8],
    state_text: &[u8],
    deadline: &[u8],
    participants: &[u8],
    decider: &[u8],
) -> Option<Record> {
    let deadline_ms = match as_bulk(deadline) {
        Some(digits) => {
            let parsed = std::str::from_utf8(digits).ok()?.parse().ok();
            parsed.filter(is_a_time)?
        }
        None => 0,
    };
    let rule = match as_bulk(decider) {
        Some(text) => Rule::Decider(part(text)?),
        None => Rule::Implicit,
    };
    let participants = match as_bulk(participants) {
        None | Some(b"") => Vec::new(),
        Some(text) => text
            .split(|byte| *byte == b',')
            .map(part)
            .collect::<Option<_>>()?,
    };
    Some(Record {
        state: state(state_text)?,
        deadline_ms,
        now_ms: as_millis(now)?,
        participants,
        rule,
    })
}

/// The answer to [`super::append_read_intent`]; None: there is no record.
///
/// # Errors
/// [`Unreadable`] with the shard's words, or when the record is not one of ours.
pub fn intent(frame: &[u8]) -> Result<Option<StoredIntent<'_>>, Unreadable> {
    let parts: Vec<&[u8]> = elements(frame).take(3).collect();
    let [state_text, redo, keys] = parts[..] else {
        return Err(unreadable(frame));
    };
    if kind(state_text).is_null() {
        return Ok(None);
    }
    let state = state(state_text).ok_or_else(|| unreadable(frame))?;
    let (redo, keys) = (
        as_bulk(redo).unwrap_or_default(),
        as_bulk(keys).unwrap_or_default(),
    );
    Ok(Some(StoredIntent { state, redo, keys }))
}

fn unreadable(frame: &[u8]) -> Unreadable {
    Unreadable(match error_text(frame) {
        b"" => "not a record of ours".to_owned(),
        words => text(words),
    })
}

fn state(frame: &[u8]) -> Option<State> {
    match as_bulk(frame)? {
        b"prepared" => Some(State::Prepared),
        b"applied" => Some(State::Applied),
        b"aborted" => Some(State::Aborted),
        _ => None,
    }
}

fn part(text: &[u8]) -> Option<Part> {
    let (shard, db) = std::str::from_utf8(text).ok()?.split_once('/')?;
    Some(Part {
        shard: shard.parse().ok()?,
        db: db.parse().ok()?,
    })
}

fn as_millis(frame: &[u8]) -> Option<Millis> {
    Millis::try_from(as_int(frame)?).ok().filter(is_a_time)
}

/// No clock tells more, and no script can; beyond it nothing can be reckoned with.
fn is_a_time(ms: &Millis) -> bool {
    *ms <= 1 << 53
}

fn code(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == b' ').next().unwrap_or_default()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests;

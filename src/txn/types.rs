//! The vocabulary of transactions: ids, participants, votes, outcomes.

use std::fmt;
use std::sync::Arc;

/// Milliseconds; of which clock is said where it is used. Differences only are meaningful
/// on a monotonic clock, the shard's own clock counts from the Unix epoch.
pub type Millis = u64;

/// The id of one attempt of a transaction: printable ASCII, unique over all proxies and all
/// time (`<boot id>-<counter>`). A second attempt of the same EXEC has another id.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TxnId(Arc<str>);

impl TxnId {
    /// Takes any text; ids made by lockstep are `[0-9a-z-]{1,64}`.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }
    /// The id as it stands in keys, records and error texts.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A participant: a shard (its number in the shard map) and the logical database that its record
/// is in. Written `<shard>/<db>` in records. That database is 0 for every participant, whatever
/// databases its commands are in: slots are locked in all of them at once. Where a command is
/// added to a plan, it is the place where the command runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Part {
    /// Number of the shard in the map, from 0.
    pub shard: u16,
    /// Logical database.
    pub db: u16,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.shard, self.db)
    }
}

/// Which rule tells whether a transaction is committed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Rule {
    /// Committed as soon as every participant is prepared.
    Implicit,
    /// Committed as soon as this participant has applied (it alone carries the client's WATCH).
    Decider(Part),
}

/// State of a transaction's record on one participant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum State {
    /// The branch can be applied at any time; undecided as far as this participant knows.
    Prepared,
    /// The branch has run, exactly once.
    Applied,
    /// The branch will never run. Also a tombstone, written where nothing was.
    Aborted,
}

/// Answer to prepare.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Vote {
    /// Prepared.
    Yes,
    /// Definitely not prepared, and never will be under this id through this request.
    No(Refusal),
    /// No answer, or one that proves neither: the prepare may run at any later time.
    Unknown,
}

/// Why a participant refused to prepare.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// A key is held by another transaction.
    Held {
        /// Who holds it.
        owner: TxnId,
        /// Until the owner's deadline, by the shard's clock; 0 when it has passed.
        remaining_ms: Millis,
    },
    /// Past the not-after.
    Late,
    /// A record of this id is there already: somebody settled it (a tombstone).
    Seen(State),
    /// What the client watches there has changed: a conditional prepare did nothing.
    WatchBroken,
    /// The shard refuses writes or the request as a whole; its own error text.
    Refused(String),
    /// The request was never sent.
    Unreachable(String),
}

/// Answer to apply.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Applied {
    /// This request applied the branch; the driver has its replies.
    Now,
    /// Nothing was done, since the record is not `prepared`; what it is (None: absent).
    Not(Option<State>),
    /// The shard refused the whole request (memory, read-only …) or it was never sent; the
    /// intent is still there, so apply can be sent again.
    Refused,
    /// No answer.
    Unknown,
}

/// Answer to abort, abort-if-present and tombstone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Aborted {
    /// There is an `aborted` record now, or (abort-if-present, or delete) there is none.
    Done,
    /// The record is `applied`; nothing was changed.
    Applied,
    /// The record is absent and it is too late to write a tombstone; nothing was changed.
    Late,
    /// The record is `prepared` and was left so (answer to tombstone only).
    StillPrepared,
    /// No answer.
    Unknown,
}

/// Answer to release.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Released {
    /// Nothing of this transaction is left but, if asked for, a marker.
    Done,
    /// The record is still `prepared`: nothing was changed. (Never in a sound run.)
    StillPrepared,
    /// No answer.
    Unknown,
}

/// What release leaves behind.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Leave {
    /// Nothing.
    Nothing,
    /// The decided record, for the decision retention.
    Marker,
}

/// What reading a record gave.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Record {
    /// Its state.
    pub state: State,
    /// Instant after which others may settle the transaction, by the shard's clock.
    pub deadline_ms: Millis,
    /// The shard's clock when it was read.
    pub now_ms: Millis,
    /// All participants of the transaction (empty in a tombstone).
    pub participants: Vec<Part>,
    /// How it commits.
    pub rule: Rule,
}

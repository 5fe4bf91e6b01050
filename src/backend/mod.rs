//! The way to the shards.
//!
//! * [`link`]: the connection that all clients of a worker share, pipelined;
//! * [`circuit`]: when it tries to reach its shard again;
//! * [`feed`]: the connection on which a shard speaks unasked: messages of channels;
//! * [`checks`]: what is asked behind a batch;
//! * [`hold`]: replies that may not leave yet; [`afar`]: what they wait for;
//! * [`rules`]: when they may, and when a split read holds together;
//! * [`armed`]: the one on which what touches several slots of a shard takes effect;
//! * [`marks`]: what was sent once on it and need not be sent again;
//! * [`pinned`]: connections that one transaction has for itself, from a bounded pool;
//! * [`reader`]: its incoming half, from bytes to replies; [`stream`]: large ones as they come;
//! * [`wakeups`]: news of transactions that have ended;
//! * [`orphans`]: scripts that were given up; [`busy`]: those that keep a shard from all else;
//! * [`request`]: what is remembered of a request until its reply is there;
//! * [`connect`]: opening either, with the same greeting;
//! * [`gauges`]: what links add to the gauges of their shard; [`options`]: their settings.
//!
//! Whatever fails says whether the request was *never sent* or *maybe executed*: see [`Failure`].

mod afar;
pub mod armed;
mod busy;
mod checks;
mod circuit;
pub mod connect;
pub mod feed;
mod gauges;
pub mod hold;
pub mod link;
pub mod marks;
mod options;
mod orphans;
pub mod pinned;
mod reader;
mod request;
pub mod rules;
mod stream;
pub mod wakeups;

use std::fmt;
use std::rc::Rc;
use std::task::Context;

pub use armed::Armed;
pub use busy::Busy;
pub use connect::Dial;
#[cfg(test)]
pub(crate) use connect::MAP;
pub use hold::Isolation;
pub use link::Link;
pub use options::{Access, Credentials};
pub use pinned::{Pinned, Pool};
pub use request::How;
pub use wakeups::Wakeups;

use crate::metrics::ErrorKind;

/// Why a request has no reply, and what that means for its effect.
#[derive(Clone, Debug)]
pub enum Failure {
    /// No shard has seen the whole request: it has no effect, now or later.
    NeverSent(Cause),
    /// The request may have been executed, or may yet be.
    MaybeSent(Cause),
}

/// What went wrong, for logs and error replies: which shard, and how.
#[derive(Clone, Debug)]
pub struct Cause {
    text: Rc<str>,
    is_limit: bool,
    /// The shard's own error, which says all there is to say.
    told: Option<Rc<str>>,
}

impl Cause {
    /// From any text without line breaks.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into().into(),
            is_limit: false,
            told: None,
        }
    }

    /// The same for an error with which a shard refuses whatever it is asked, if this is one.
    pub fn of_shard(text: impl Into<String>, told: &str) -> Self {
        let code = told.split(' ').next().unwrap_or_default();
        let is_state = ["LOADING", "BUSY", "MASTERDOWN"].contains(&code);
        Self {
            told: is_state.then(|| told.into()),
            ..Self::new(text)
        }
    }

    /// The same for a limit of the settings that was hit.
    pub fn of_limit(text: impl Into<String>) -> Self {
        Self {
            is_limit: true,
            ..Self::new(text)
        }
    }
}

impl Failure {
    /// How it counts, as an error that a client is given.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NeverSent(cause) if cause.is_limit => ErrorKind::Limit,
            Self::NeverSent(_) => ErrorKind::ShardDown,
            Self::MaybeSent(_) => ErrorKind::ReplyLost,
        }
    }
}

impl Cause {
    /// The shard's own error, if that is all there is to say.
    pub fn told(&self) -> Option<&str> {
        self.told.as_deref()
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Failure {
    /// The text of the error reply that a client gets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverSent(Cause {
                told: Some(told), ..
            }) => f.write_str(told),
            Self::NeverSent(cause) => write!(f, "ERR {cause}; the command was not sent"),
            Self::MaybeSent(cause) => write!(
                f,
                "ERR {cause}; the command may or may not have been executed"
            ),
        }
    }
}

/// Who waits for a reply. Called from the link's task, never from inside [`Link::send`].
pub trait ReplySink {
    /// The complete reply frame to the request that was sent with this number.
    fn deliver(self: Rc<Self>, number: u64, reply: &[u8]);
    /// The same for a piece of a split read, with the shard's epoch behind it (None: there has
    /// never been one).
    fn deliver_at(self: Rc<Self>, number: u64, reply: &[u8], _epoch: Option<&[u8]>) {
        self.deliver(number, reply);
    }
    /// There will be no reply. After [`ReplySink::part`]: the rest of it will not come.
    fn fail(self: Rc<Self>, number: u64, failure: &Failure);
    /// Whether the reply may be delivered in parts, for which nobody needs it as a whole.
    fn takes_parts(&self, _number: u64) -> bool {
        false
    }
    /// The beginning of a reply, or more of it; its last part is delivered.
    fn part(self: Rc<Self>, _number: u64, _part: &[u8]) {}
    /// Bytes of parts that have not left yet; with more than this the task is to be woken when
    /// they have.
    fn unsent(&self, _number: u64, _enough: usize, _task: &Context<'_>) -> usize {
        0
    }
}

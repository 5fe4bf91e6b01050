//! The settings of connections to shards, which may change while they are used: everything of a
//! worker looks here, and finds what was set last.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use crate::resp::Limits;

/// Bounds and times of a link.
#[derive(Clone, Copy, Debug)]
pub struct LinkValues {
    /// A request without a reply for that long: the connection is given up.
    pub request_timeout: Duration,
    /// Wait between attempts to connect, doubled from the least to the most.
    pub backoff: (Duration, Duration),
    /// Requests waiting for replies at most; more are refused.
    pub inflight_max: usize,
    /// Bytes not yet written at most; more are refused.
    pub unwritten_bytes_max: usize,
    /// How long to wait for a connection set apart at most.
    pub wait_max: Duration,
    /// The limits put on what the shard sends, on connections that are opened from now on.
    pub limits: Limits,
}

/// What was set last. Clones share it.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    values: Rc<Cell<LinkValues>>,
    /// What waits is bounded elsewhere.
    is_unbounded: bool,
}

impl LinkOptions {
    /// With these values, until they are set anew.
    pub fn new(values: LinkValues) -> Self {
        Self {
            values: Rc::new(Cell::new(values)),
            is_unbounded: false,
        }
    }

    /// The same, whatever is set, but without a bound for what waits.
    pub(super) fn unbounded(&self) -> Self {
        Self {
            values: Rc::clone(&self.values),
            is_unbounded: true,
        }
    }

    /// From now on these count.
    pub fn set(&self, values: LinkValues) {
        self.values.set(values);
    }

    /// See [`LinkValues`].
    pub fn request_timeout(&self) -> Duration {
        self.values.get().request_timeout
    }

    /// See [`LinkValues`].
    pub fn backoff(&self) -> (Duration, Duration) {
        self.values.get().backoff
    }

    /// See [`LinkValues`].
    pub fn wait_max(&self) -> Duration {
        self.values.get().wait_max
    }

    /// See [`LinkValues`].
    pub fn limits(&self) -> Limits {
        self.values.get().limits
    }

    /// Whether so many requests, or unwritten bytes, are as many as may wait.
    pub fn is_full(&self, requests: usize, bytes: usize) -> bool {
        let values = self.values.get();
        !self.is_unbounded
            && (requests >= values.inflight_max || bytes >= values.unwritten_bytes_max)
    }
}

/// Who lockstep is towards the shards, and how long a greeting may take. Clones share it; what is
/// set counts for connections that are opened from then on.
#[derive(Clone, Debug)]
pub struct Access(Rc<RefCell<Credentials>>);

/// See [`Access`].
#[derive(Clone)]
pub struct Credentials {
    /// User towards the shard; empty for the default user.
    pub user: String,
    /// Password towards the shard; empty for none.
    pub password: String,
    /// For the connection and the greeting together.
    pub connect_timeout: Duration,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

impl Access {
    /// With these, until they are set anew.
    pub fn new(credentials: Credentials) -> Self {
        Self(Rc::new(RefCell::new(credentials)))
    }

    /// From now on these count.
    pub fn set(&self, credentials: Credentials) {
        self.0.replace(credentials);
    }

    /// What counts now.
    pub fn get(&self) -> Credentials {
        self.0.borrow().clone()
    }

    /// How long connecting may take.
    pub fn connect_timeout(&self) -> Duration {
        self.0.borrow().connect_timeout
    }
}

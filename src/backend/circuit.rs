//! When a link tries to reach its shard: the circuit breaker.
//!
//! * *closed*: there is a connection, or the first attempt after its loss is under way, and what is
//!   sent meanwhile waits for it;
//! * *open*: the last attempt failed, or a request had no reply in time: whoever asks is answered
//!   at once with an error, for a pause that doubles each time;
//! * *half open*: the one next attempt is under way, and everybody else is still refused. It is
//!   the connection and its greeting, which the shard must answer.
//!
//! A shard that takes connections and greets, but never answers a request, leaves the pause as long
//! as it was: only replies make it short again.
//!
//! A shard that answers the greeting with what keeps it from serving (-BUSY, -LOADING) is alive, and
//! may serve at any moment; what it said is told to whoever asks, so it must not be told for longer
//! than it is true. The pause does not grow then.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::link::{Link, Phase};
use super::{Cause, Failure};
use crate::metrics::{CircuitState, Limit, ShardMetrics};

/// The state of one link.
pub(super) struct Circuit {
    state: Cell<CircuitState>,
    has_timed_out: Cell<bool>,
    /// What the shard said at the last attempt that it answered so.
    told: RefCell<Option<Rc<str>>>,
}

impl Default for Circuit {
    fn default() -> Self {
        Self {
            state: Cell::new(CircuitState::Closed),
            has_timed_out: Cell::new(false),
            told: RefCell::default(),
        }
    }
}

impl Circuit {
    /// A request had no reply in time, so the connection is given up.
    pub(super) fn timed_out(&self) {
        self.has_timed_out.set(true);
    }

    /// Whether what keeps the shard from serving is not what it was at the last attempt. Asked
    /// again so soon, it need not be logged each time.
    fn says_anew(&self, cause: &Cause) -> bool {
        let told: Option<Rc<str>> = cause.told().map(Rc::from);
        let before = self.told.replace(told.clone());
        told.is_none() || told != before
    }

    /// What whoever asks is told while it is not closed.
    pub(super) fn refuse(&self, cause: &Cause, metrics: &ShardMetrics) -> Failure {
        metrics.limits_hit[Limit::Circuit].increment(1);
        Failure::NeverSent(cause.clone())
    }
}

impl Link {
    /// Where the circuit breaker stands.
    pub fn circuit(&self) -> CircuitState {
        self.circuit.state.get()
    }

    /// Connects, serves, reconnects; ends never.
    pub async fn run(self: Rc<Self>) {
        let state = |state| self.circuit.state.set(state);
        let mut backoff = self.options.backoff().0;
        loop {
            let mut is_alive = false;
            let cause = match self.dial.connect(self.lane).await {
                Ok(stream) => {
                    state(CircuitState::Closed);
                    self.circuit.told.take();
                    self.forget_orphans();
                    let cause = self.serve(stream).await;
                    tracing::warn!(shard = self.dial.address, %cause, "connection to shard lost");
                    if self.received() > 0 {
                        backoff = self.options.backoff().0;
                    }
                    if !self.circuit.has_timed_out.take() {
                        self.lose(Phase::Connecting, &cause);
                        continue;
                    }
                    cause
                }
                Err(cause) => {
                    self.metrics.connect_failures.increment(1);
                    is_alive = cause.told().is_some();
                    if self.circuit.says_anew(&cause) {
                        tracing::warn!(shard = self.dial.address, %cause, "cannot connect to shard");
                    }
                    cause
                }
            };
            state(CircuitState::Open);
            self.lose(Phase::Down(cause.clone()), &cause);
            self.end_orphan().await;
            let (least, most) = self.options.backoff();
            let pause = if is_alive { least } else { backoff };
            tokio::time::sleep(pause).await;
            backoff = if is_alive {
                least
            } else {
                (backoff * 2).min(most)
            };
            state(CircuitState::HalfOpen);
        }
    }
}

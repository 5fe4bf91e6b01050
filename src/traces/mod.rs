//! Traces: what became of single commands and transactions, told to a collector as spans.
//!
//! * [`parent`]: whose work it is part of (W3C Trace Context);
//! * [`trace`]: one command or transaction that is traced, and its steps;
//! * [`export`]: the way to the collector (OTLP over HTTP, in JSON; [`otlp`]).
//!
//! Nothing here is on the path of what is not traced. Spans wait in a queue of fixed length; when
//! the collector is slower, or is not there, they are dropped and counted, and nobody waits.

pub mod export;
pub mod otlp;
pub mod parent;
pub mod trace;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

pub use export::export_for_ever;
pub use parent::Parent;
pub use trace::{Span, Trace, Value};

use crate::metrics::{Metrics, SpanEnd};

/// Spans that wait to be sent.
const QUEUE_MAX: usize = 4096;

/// Where spans go, for all workers.
pub struct Tracer {
    queue: Option<mpsc::Sender<Span>>,
    metrics: Arc<Metrics>,
    /// Commands that may have been traced on our own account.
    seen: AtomicUsize,
}

impl Tracer {
    /// One that records nothing.
    pub fn off(metrics: &Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self::over(None, metrics))
    }

    /// One that records, and what it has recorded.
    pub fn on(metrics: &Arc<Metrics>) -> (Arc<Self>, mpsc::Receiver<Span>) {
        let (queue, spans) = mpsc::channel(QUEUE_MAX);
        (Arc::new(Self::over(Some(queue), metrics)), spans)
    }

    fn over(queue: Option<mpsc::Sender<Span>>, metrics: &Arc<Metrics>) -> Self {
        Self {
            queue,
            metrics: Arc::clone(metrics),
            seen: AtomicUsize::new(0),
        }
    }

    /// Whether there is a collector.
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Whether it is the turn of this command, of which one in so many is traced.
    pub fn is_turn(&self, one_in: usize) -> bool {
        one_in > 0
            && self.is_on()
            && self
                .seen
                .fetch_add(1, Ordering::Relaxed)
                .is_multiple_of(one_in)
    }

    fn take(&self, span: Span) {
        if let Some(queue) = &self.queue
            && queue.try_send(span).is_err()
        {
            self.metrics.spans[SpanEnd::QueueFull].increment(1);
        }
    }
}

//! The settings of a link.

use std::time::Duration;

/// Bounds and times of a link.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// A request without a reply for that long: the connection is given up.
    pub request_timeout: Duration,
    /// Wait between attempts to connect, doubled from the least to the most.
    pub backoff: (Duration, Duration),
    /// Requests waiting for replies at most; more are refused.
    pub inflight_max: usize,
    /// Bytes not yet written at most; more are refused.
    pub unwritten_bytes_max: usize,
    /// The limits put on what the shard sends.
    pub limits: crate::resp::Limits,
}

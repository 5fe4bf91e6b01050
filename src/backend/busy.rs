//! Whether a shard is busy with a script.
//!
//! A script that runs for longer than the shard's `busy-reply-threshold` makes it answer -BUSY to
//! everything but a few commands. On one Redis every client is told so. Here the script has come
//! over a connection that many clients share, and the shard reads nothing more from that one
//! before the script has ended: who sends on it would hear nothing. So when a script has not been
//! answered for [`STUCK_AFTER`], the shard is asked over a connection of its own, again and again
//! until it is well; as long as its answer is -BUSY, with that answer
//!
//! * whatever would be sent behind the script is refused at once ([`Link::send`]), and so is
//!   what needs every shard, before any of them has done its part;
//! * PING is refused as well. An application that was made for one Redis learns from PING whether
//!   its server serves, and waits for PONG after its SCRIPT KILL. A shard says -BUSY only when one
//!   Redis in its place would have said so to everybody; commands for other shards go on. (Who
//!   wants to know whether lockstep itself is well asks `/healthz`.)
//!
//! SCRIPT KILL, FUNCTION KILL and, while a shard is busy, FUNCTION STATS go over connections of
//! their own. What was sent behind a script before its shard was known to be busy waits for its
//! end, as what one client pipelines behind its own script does.
//!
//! Known to all workers. One task asks at a time, so it costs one connection.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::spawn_local;

use super::link::{Inner, Link};
use super::request::Expected;
use super::{Cause, Dial, Failure};
use crate::resp;

/// A script that has been away for so long is asked after.
const STUCK_AFTER: Duration = Duration::from_millis(20);
/// Between two questions while the answer is -BUSY.
const ASK_AGAIN: Duration = Duration::from_millis(25);

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// What is known of one shard. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Busy(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    is_busy: AtomicBool,
    /// What the shard said.
    told: Mutex<Arc<str>>,
    is_asking: AtomicBool,
    /// Scripts that have ended: an answer that was asked for before counts no more.
    ended: AtomicU64,
}

/// Whether this reply of a shard says that it is busy.
fn tells(reply: &[u8]) -> bool {
    // Most are told by their first byte, without a call.
    reply.first() == Some(&b'-') && reply.starts_with(b"-BUSY ")
}

impl Busy {
    /// What the shard says as long as it is busy.
    pub fn told(&self) -> Option<Arc<str>> {
        self.0.is_busy.load(Ordering::Relaxed).then(|| {
            let told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(&told)
        })
    }

    /// What whoever needs the shard is told.
    pub fn refusal(&self) -> Option<Failure> {
        let told = self.told()?;
        Some(Failure::NeverSent(Cause::of_shard(&*told, &told)))
    }

    /// What may have kept the shard busy has been answered.
    fn is_over(&self) {
        if !self.0.is_asking.load(Ordering::Relaxed) {
            return;
        }
        self.0.ended.fetch_add(1, Ordering::Relaxed);
        self.0.is_busy.store(false, Ordering::Relaxed);
    }

    fn set(&self, reply: &[u8]) {
        let text = String::from_utf8_lossy(resp::error_text(reply));
        *self.0.told.lock().unwrap_or_else(PoisonError::into_inner) = text.into();
        self.0.is_busy.store(true, Ordering::Relaxed);
    }

    /// Asks until the shard is not busy, unless somebody does already.
    fn look(dial: &Dial) {
        if !dial.busy.0.is_asking.swap(true, Ordering::Relaxed) {
            let asking = Asking(dial.busy.clone());
            let dial = dial.clone();
            spawn_local(async move { asking.until_it_is_not(&dial).await });
        }
    }
}

/// Whoever asks; gone, somebody else may.
struct Asking(Busy);

impl Asking {
    /// A shard that gives no answer is not known to be busy: it has not come to say so, or is down.
    async fn until_it_is_not(&self, dial: &Dial) {
        let known = &*self.0.0;
        loop {
            let ended = known.ended.load(Ordering::Relaxed);
            let Some(reply) = dial.ask_apart(PING).await.ok().filter(|reply| tells(reply)) else {
                return;
            };
            if known.ended.load(Ordering::Relaxed) == ended {
                if !known.is_busy.load(Ordering::Relaxed) {
                    tracing::warn!(shard = dial.address, "the shard is busy with a script");
                }
                self.0.set(&reply);
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.0.is_busy.store(false, Ordering::Relaxed);
        self.0.0.is_asking.store(false, Ordering::Relaxed);
    }
}

impl Link {
    /// Why nothing may be sent now, if it would have to wait for the end of a script.
    #[inline]
    pub(super) fn behind_script(&self, inner: &Inner) -> Option<Failure> {
        match inner.is_stuck {
            false => None,
            true => self.dial.busy.refusal(),
        }
    }

    /// The next reply is there.
    pub(super) fn note_of_script(&self, inner: &mut Inner, reply: &[u8]) {
        if tells(reply) {
            Busy::look(&self.dial);
        }
        let is_of_script = |next: &Expected| matches!(next, Expected::Reply(one) if one.is_script);
        if std::mem::take(&mut inner.is_stuck) || inner.pending.front().is_some_and(is_of_script) {
            self.dial.busy.is_over();
        }
    }

    /// The oldest of what was sent has waited for so long.
    pub(super) fn look_for_script(&self, inner: &mut Inner, waited: Duration) {
        if waited >= STUCK_AFTER && inner.scripts_under_way() > 0 {
            inner.is_stuck = true;
            Busy::look(&self.dial);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shard_says_reaches_the_client_unchanged() {
        let busy = Busy::default();
        assert!(busy.refusal().is_none());
        busy.0.is_asking.store(true, Ordering::Relaxed);
        busy.set(b"-BUSY Redis is busy running a script.\r\n");
        let refusal = busy.refusal().map(|failure| failure.to_string());
        assert_eq!(
            refusal.as_deref(),
            Some("BUSY Redis is busy running a script.")
        );
        busy.is_over();
        assert!(busy.told().is_none());
    }

    #[test]
    fn other_errors_tell_nothing() {
        assert!(tells(b"-BUSY x\r\n"));
        assert!(!tells(b"-BUSYKEY x\r\n") && !tells(b"$5\r\n-BUSY\r\n"));
    }
}

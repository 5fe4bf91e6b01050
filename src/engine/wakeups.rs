//! What to do about a transaction that stands in the way of another.
//!
//! If its coordinator has had its time, it is settled ([`super::recover`]); otherwise its end is
//! waited for. The news of it ([`crate::backend::wakeups`]) reaches everybody at about the same
//! time. Two that held parts of each other's slots have both given up, and would meet again: of
//! those one goes on at once and the other a moment later, by a coin that both throw alike.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::time::Duration;

use super::{Engine, random};
use crate::txn::{Cause, Outcome, Part, Refusal, TxnId};

/// What the loser of the coin waits.
const A_MOMENT: Duration = Duration::from_millis(1);
/// Looking again is for news that was missed: it comes later by this when news is listened for.
const PATIENCE: u32 = 8;

impl Engine {
    /// Settles what stands in the way if its coordinator has had its time.
    pub(super) async fn make_way(self: &Rc<Self>, outcome: &Outcome) {
        let Outcome::Aborted(Cause::No(
            part,
            Refusal::Held {
                owner,
                remaining_ms,
            },
        )) = outcome
        else {
            return;
        };
        self.metrics.shards[usize::from(part.shard)]
            .lock_conflicts
            .increment(1);
        if *remaining_ms == 0 {
            self.recover(*part, owner.clone()).await;
        }
    }

    /// Waits until what stood in the way of this attempt, by so many transactions, has ended, or it
    /// is time to look again.
    pub(super) async fn wait_for_way(
        &self,
        outcome: &Outcome,
        id: &TxnId,
        wait: Duration,
        waiting: u32,
    ) {
        match outcome {
            Outcome::Aborted(Cause::No(part, Refusal::Held { owner, .. })) => {
                let released = self.wait_for_release(*part, owner, wait, waiting);
                let was_released = released.await;
                if was_released && !goes_first(id, owner) {
                    tokio::time::sleep(A_MOMENT).await;
                }
            }
            _ => tokio::time::sleep(wait).await,
        }
    }

    /// Whether the transaction has ended on this shard before the time is up.
    pub(super) async fn wait_for_release(
        &self,
        part: Part,
        id: &TxnId,
        wait: Duration,
        waiting: u32,
    ) -> bool {
        let wakeups = &self.ways[usize::from(part.shard)].wakeups;
        let patience = if wakeups.is_listening() { PATIENCE } else { 1 };
        wakeups
            .released(id.as_str(), wait * patience, waiting)
            .await
    }
}

/// Whether the first of two goes first; the other way round it says the opposite.
fn goes_first(this: &TxnId, other: &TxnId) -> bool {
    let number = |id: &TxnId| {
        let mut hasher = DefaultHasher::new();
        id.as_str().hash(&mut hasher);
        hasher.finish()
    };
    (number(this), this) < (number(other), other)
}

/// Half a millisecond, doubled up to 16 ms, less a random part, so that two proxies that met
/// once do not meet again and again.
pub(super) fn backoff(attempts: u32) -> Duration {
    let most = 500 << attempts.min(6).saturating_sub(1);
    Duration::from_micros(most / 2 + random() % (most / 2))
}

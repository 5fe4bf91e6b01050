//! First come, first served inside one process.
//!
//! Transactions over several shards that want the same key queue here, in the order of their
//! EXECs, instead of fighting for locks on the shards. A transaction joins the queues of all
//! its keys in one step, so no two can wait for each other.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// The queues, shared by all workers of the process. One mutex: only transactions over several
/// shards come here, and hold it for as long as it takes to look at their keys.
#[derive(Default)]
pub struct Turnstile {
    queues: Mutex<Queues>,
    /// Keys are told apart by their hash. Two that collide share a queue: slower, not wrong.
    hasher: RandomState,
}

#[derive(Default)]
struct Queues {
    by_key: HashMap<u64, VecDeque<u64>>,
    waiting: HashMap<u64, Waiting>,
    next_ticket: u64,
}

/// A transaction that is not at the front of all its queues.
struct Waiting {
    /// In how many queues somebody is in front of it.
    behind: usize,
    go: oneshot::Sender<()>,
}

/// A place in the queues; leaving it (drop) lets the next one pass.
pub struct Ticket {
    turnstile: Arc<Turnstile>,
    number: u64,
    keys: Vec<u64>,
}

impl Turnstile {
    /// Waits until nobody who came earlier has any of these keys. None after the limit.
    pub async fn pass<'a>(
        self: &Arc<Self>,
        keys: impl Iterator<Item = &'a [u8]>,
        limit: Duration,
    ) -> Option<Ticket> {
        let mut keys: Vec<u64> = keys.map(|key| self.hasher.hash_one(key)).collect();
        keys.sort_unstable();
        keys.dedup();
        let (ticket, go) = self.join(keys);
        match go {
            None => Some(ticket),
            Some(go) => tokio::time::timeout(limit, go)
                .await
                .ok()?
                .ok()
                .map(|()| ticket),
        }
    }

    fn join(self: &Arc<Self>, keys: Vec<u64>) -> (Ticket, Option<oneshot::Receiver<()>>) {
        let mut queues = self.lock();
        let number = queues.next_ticket;
        queues.next_ticket += 1;
        let mut behind = 0;
        for key in &keys {
            let queue = queues.by_key.entry(*key).or_default();
            behind += usize::from(!queue.is_empty());
            queue.push_back(number);
        }
        let ticket = Ticket {
            turnstile: Arc::clone(self),
            number,
            keys,
        };
        if behind == 0 {
            return (ticket, None);
        }
        let (go, wait) = oneshot::channel();
        queues.waiting.insert(number, Waiting { behind, go });
        (ticket, Some(wait))
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        // Nothing in the critical sections panics half way.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queues {
    fn leave(&mut self, number: u64, key: u64) {
        let Some(queue) = self.by_key.get_mut(&key) else {
            return;
        };
        let was_first = queue.front() == Some(&number);
        queue.retain(|other| *other != number);
        let Some(first) = queue.front().copied() else {
            self.by_key.remove(&key);
            return;
        };
        if was_first {
            self.advance(first);
        }
    }

    /// One of the queues in which it waited has come to it.
    fn advance(&mut self, number: u64) {
        let Some(waiting) = self.waiting.get_mut(&number) else {
            return;
        };
        waiting.behind -= 1;
        if waiting.behind == 0
            && let Some(waiting) = self.waiting.remove(&number)
        {
            // It may have given up meanwhile; its ticket's drop takes it out of the queues.
            let _ = waiting.go.send(());
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut queues = self.turnstile.lock();
        queues.waiting.remove(&self.number);
        for key in &self.keys {
            queues.leave(self.number, *key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    fn keys<'a>(text: &'a [&'a str]) -> impl Iterator<Item = &'a [u8]> {
        text.iter().map(|key| key.as_bytes())
    }

    #[tokio::test]
    async fn those_with_other_keys_do_not_wait() {
        let turnstile = Arc::new(Turnstile::default());
        let _a = turnstile.pass(keys(&["a", "b", "a"]), LIMIT).await.unwrap();
        assert!(turnstile.pass(keys(&["c", "d"]), LIMIT).await.is_some());
    }

    #[tokio::test]
    async fn they_pass_in_the_order_they_came() {
        let turnstile = Arc::new(Turnstile::default());
        let first = turnstile.pass(keys(&["a", "b"]), LIMIT).await.unwrap();
        let (second, go2) = turnstile.join(vec![
            turnstile.hasher.hash_one(&b"b"[..]),
            turnstile.hasher.hash_one(&b"c"[..]),
        ]);
        let (third, go3) = turnstile.join(vec![turnstile.hasher.hash_one(&b"c"[..])]);
        let (mut go2, mut go3) = (go2.unwrap(), go3.unwrap());
        assert!(go2.try_recv().is_err() && go3.try_recv().is_err());
        drop(first);
        assert!(go2.try_recv().is_ok() && go3.try_recv().is_err());
        drop(second);
        assert!(go3.try_recv().is_ok());
        drop(third);
        assert!(turnstile.lock().by_key.is_empty() && turnstile.lock().waiting.is_empty());
    }

    #[tokio::test]
    async fn one_that_gives_up_stands_in_nobodys_way() {
        let turnstile = Arc::new(Turnstile::default());
        let first = turnstile.pass(keys(&["a"]), LIMIT).await.unwrap();
        assert!(
            turnstile
                .pass(keys(&["a", "b"]), Duration::from_millis(5))
                .await
                .is_none()
        );
        assert!(turnstile.pass(keys(&["b"]), LIMIT).await.is_some());
        drop(first);
        assert!(turnstile.lock().by_key.is_empty() && turnstile.lock().waiting.is_empty());
    }
}

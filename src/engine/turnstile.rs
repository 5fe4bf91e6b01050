//! First come, first served inside one process.
//!
//! Transactions over several shards that want the same key queue here, in the order of their
//! EXECs, instead of fighting for locks on the shards. A transaction joins the queues of all
//! its keys in one step, so no two can wait for each other. One that may run together with a group
//! that waits ([`super::groups`]) has the group's place: it passes with it before those who came in
//! between. A group is bounded, and takes nobody any more once it has passed.

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
    /// What stands for these keys, each once.
    pub fn hashes<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> Vec<u64> {
        let mut keys: Vec<u64> = keys.map(|key| self.hasher.hash_one(key)).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// The first of these keys that somebody has or waits for.
    pub fn first_taken(&self, keys: &[u64]) -> Option<u64> {
        let queues = self.lock();
        let mut keys = keys.iter().copied();
        keys.find(|key| queues.by_key.contains_key(key))
    }

    /// Waits until nobody who came earlier has any of these keys. None after the limit.
    pub async fn pass<'a>(
        self: &Arc<Self>,
        keys: impl Iterator<Item = &'a [u8]>,
        limit: Duration,
    ) -> Option<Ticket> {
        let (ticket, go) = self.join(self.hashes(keys));
        match go {
            None => Some(ticket),
            Some(go) => tokio::time::timeout(limit, go)
                .await
                .ok()?
                .ok()
                .map(|()| ticket),
        }
    }

    /// A place in the queues of these keys, each named once; and when it is at the front of all of
    /// them, if it is not at once.
    pub fn join(self: &Arc<Self>, keys: Vec<u64>) -> (Ticket, Option<oneshot::Receiver<()>>) {
        let mut queues = self.lock();
        let number = queues.next_ticket;
        queues.next_ticket += 1;
        let mut behind = 0;
        for key in &keys {
            behind += usize::from(queues.enter(number, *key));
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
    /// Who is to pass before this ticket, which has these keys.
    fn in_front(&self, number: u64, keys: &[u64]) -> Vec<u64> {
        if !self.waiting.contains_key(&number) {
            return Vec::new();
        }
        let queues = keys.iter().filter_map(|key| self.by_key.get(key));
        let before = |queue: &VecDeque<u64>| {
            let others = queue.iter().copied();
            others
                .take_while(|other| *other != number)
                .collect::<Vec<u64>>()
        };
        queues.flat_map(before).collect()
    }

    /// Gives the ticket the last place in the queue of this key; whether somebody is in front of
    /// it. A ticket that waits already waits for that, too.
    fn enter(&mut self, number: u64, key: u64) -> bool {
        let queue = self.by_key.entry(key).or_default();
        let must_wait = !queue.is_empty();
        queue.push_back(number);
        if must_wait && let Some(waiting) = self.waiting.get_mut(&number) {
            waiting.behind += 1;
        }
        must_wait
    }

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

impl Ticket {
    /// Takes these keys, too, if nobody has them or waits for them but who is in front of this
    /// ticket already; else none. No two can come to wait for each other by that, since it waits for
    /// nobody for whom it did not wait before.
    pub fn take(&mut self, keys: &[u64]) -> bool {
        let mut queues = self.turnstile.lock();
        let missing = keys.iter().filter(|key| !self.keys.contains(key));
        let missing: Vec<u64> = missing.copied().collect();
        let taken = missing.iter().filter_map(|key| queues.by_key.get(key));
        let mut holders = taken.flatten().peekable();
        // Most often nobody has them; the queues can be long.
        if holders.peek().is_some() {
            let in_front = queues.in_front(self.number, &self.keys);
            if holders.any(|holder| !in_front.contains(holder)) {
                return false;
            }
        }
        for key in missing {
            queues.enter(self.number, key);
            self.keys.push(key);
        }
        true
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
    use proptest::prelude::*;

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
    async fn a_ticket_takes_more_if_it_is_free() {
        let turnstile = Arc::new(Turnstile::default());
        let named = |text: &[&str]| turnstile.hashes(keys(text));
        let (mut first, _) = turnstile.join(named(&["a"]));
        assert!(first.take(&named(&["a", "b"])));
        let (mut second, go) = turnstile.join(named(&["a", "c"]));
        let mut go = go.unwrap();
        assert!(!first.take(&named(&["c", "d"])), "c is the second's");
        assert_eq!(turnstile.first_taken(&named(&["d"])), None);
        // Who waits may take as well: what is free, and what they have for whom he waits.
        assert!(second.take(&named(&["a", "b", "d"])));
        assert!(!first.take(&named(&["d"])));
        let (third, _) = turnstile.join(named(&["e"]));
        assert!(
            !second.take(&named(&["e"])),
            "the third is not in front of it"
        );
        drop(third);
        assert!(second.take(&named(&["e"])));
        assert!(go.try_recv().is_err());
        drop(first);
        assert!(go.try_recv().is_ok());
        let (last, go) = turnstile.join(named(&["b"]));
        assert!(go.is_some());
        drop((second, last));
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

    /// What one of the tickets does in the test below.
    #[derive(Clone, Debug)]
    enum Move {
        Join(Vec<u64>),
        /// By number, modulo how many there are.
        Take(usize, Vec<u64>),
        /// The same, of those who have passed.
        Leave(usize),
        /// Whether it has passed or not.
        GiveUp(usize),
    }

    fn moves() -> impl Strategy<Value = Vec<Move>> {
        let keys = || {
            prop::collection::btree_set(0_u64..6, 1..4).prop_map(|keys| keys.into_iter().collect())
        };
        let one = prop_oneof![
            3 => keys().prop_map(Move::Join),
            4 => (any::<usize>(), keys()).prop_map(|(who, keys)| Move::Take(who, keys)),
            2 => any::<usize>().prop_map(Move::Leave),
            1 => any::<usize>().prop_map(Move::GiveUp),
        ];
        prop::collection::vec(one, 1..60)
    }

    struct Waiter {
        ticket: Ticket,
        go: Option<oneshot::Receiver<()>>,
    }

    impl Waiter {
        fn has_passed(&mut self) -> bool {
            let has_passed = match &mut self.go {
                None => true,
                Some(go) => go.try_recv().is_ok(),
            };
            if has_passed {
                self.go = None;
            }
            has_passed
        }
    }

    /// Who has passed; no two of them have a key in common.
    fn passed(all: &mut [Waiter]) -> Vec<usize> {
        let passed = all.iter_mut().enumerate();
        let passed = passed.filter_map(|(at, waiter)| waiter.has_passed().then_some(at));
        let passed: Vec<usize> = passed.collect();
        let mut keys: Vec<u64> = passed
            .iter()
            .flat_map(|at| all[*at].ticket.keys.clone())
            .collect();
        let len = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), len, "two have the same key");
        passed
    }

    proptest! {
        /// Mutual exclusion, and that everybody passes in the end, whatever waiting tickets take.
        #[test]
        fn nobody_waits_in_a_circle(moves in moves()) {
            let turnstile = Arc::new(Turnstile::default());
            let mut all: Vec<Waiter> = Vec::new();
            for one in moves {
                match one {
                    Move::Join(keys) => {
                        let (ticket, go) = turnstile.join(keys);
                        all.push(Waiter { ticket, go });
                    }
                    Move::Take(who, keys) if !all.is_empty() => {
                        let who = who % all.len();
                        all[who].ticket.take(&keys);
                    }
                    Move::Leave(who) => {
                        let passed = passed(&mut all);
                        if !passed.is_empty() {
                            all.swap_remove(passed[who % passed.len()]);
                        }
                    }
                    Move::GiveUp(who) if !all.is_empty() => {
                        all.swap_remove(who % all.len());
                    }
                    Move::Take(..) | Move::GiveUp(_) => {}
                }
                passed(&mut all);
            }
            while !all.is_empty() {
                let passed = passed(&mut all);
                prop_assert!(!passed.is_empty(), "{} wait in a circle", all.len());
                all.swap_remove(passed[0]);
            }
            prop_assert!(turnstile.lock().by_key.is_empty());
            prop_assert!(turnstile.lock().waiting.is_empty());
        }
    }
}

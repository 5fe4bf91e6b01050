//! How many listen, over all workers of the process.
//!
//! A shard sees one subscriber where several clients of a worker listen to the same, so what it
//! counts (PUBLISH, PUBSUB NUMSUB) is corrected by what is known here. Clients of other
//! lockstep processes are counted as the shard sees them: one for each of their workers that
//! has any.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::keyspace::{ChannelKind, glob_matches};

/// Shared by all workers. Its mutex is taken when a subscription changes, and by a PUBLISH while
/// anybody is subscribed to anything.
#[derive(Debug, Default)]
pub struct Audience {
    topics: [Mutex<HashMap<Bytes, Crowd>>; 3],
    /// The lengths of those, to be looked at without their mutexes.
    sizes: [AtomicUsize; 3],
}

/// Who listens to one channel or pattern.
#[derive(Clone, Copy, Debug, Default)]
struct Crowd {
    clients: i64,
    workers: i64,
}

impl Crowd {
    /// What is missing in a shard's count.
    fn surplus(self) -> i64 {
        self.clients - self.workers
    }
}

impl Audience {
    /// Whether nobody is subscribed to anything.
    pub fn is_empty(&self) -> bool {
        let mut sizes = self.sizes.iter();
        sizes.all(|size| size.load(Ordering::Relaxed) == 0)
    }

    /// One client more listens to this; `is_first`: for it the shards are asked.
    pub(super) fn enter(&self, kind: ChannelKind, name: &Bytes, is_first: bool) {
        self.change(kind, name, 1, i64::from(is_first));
    }

    /// One client less listens to this.
    pub(super) fn leave(&self, kind: ChannelKind, name: &Bytes) {
        self.change(kind, name, -1, 0);
    }

    /// The shards have confirmed that they are asked for this no more. Not before that: until
    /// then they may count it or not, and neither is to be told.
    pub(super) fn depart(&self, kind: ChannelKind, name: &Bytes) {
        self.change(kind, name, 0, -1);
    }

    fn change(&self, kind: ChannelKind, name: &Bytes, clients: i64, workers: i64) {
        let mut topics = self.lock(kind);
        let crowd = topics.entry(name.clone()).or_default();
        crowd.clients += clients;
        crowd.workers += workers;
        if crowd.clients == 0 && crowd.workers == 0 {
            topics.remove(name);
        }
        self.sizes[kind as usize].store(topics.len(), Ordering::Relaxed);
    }

    /// The number of receivers of a message, of which a shard counted so many.
    pub fn receivers(&self, kind: ChannelKind, channel: &[u8], counted: i64) -> i64 {
        let mut receivers = self.subscribers(kind, channel, counted);
        if kind == ChannelKind::Plain {
            let patterns = self.lock(ChannelKind::Pattern);
            let matching = patterns.iter().filter(|(p, _)| glob_matches(p, channel));
            let more = matching.map(|(_, crowd)| crowd.surplus()).sum();
            receivers = receivers.saturating_add(more);
        }
        receivers.max(0)
    }

    /// The number of subscribers to just this channel, of which a shard counted so many.
    pub fn subscribers(&self, kind: ChannelKind, channel: &[u8], counted: i64) -> i64 {
        let crowd = self.lock(kind).get(channel).copied().unwrap_or_default();
        counted.saturating_add(crowd.surplus()).max(0)
    }

    fn lock(&self, kind: ChannelKind) -> MutexGuard<'_, HashMap<Bytes, Crowd>> {
        // Nothing in the critical sections panics half way.
        self.topics[kind as usize]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ChannelKind::{Pattern, Plain};

    /// P3: PUBLISH counts clients, each as often as it is subscribed, not connections of ours.
    #[test]
    fn every_client_counts() {
        let audience = Audience::default();
        assert!(audience.is_empty());
        let (channel, pattern) = (Bytes::from("news.a"), Bytes::from("news.*"));
        audience.enter(Plain, &channel, true);
        audience.enter(Plain, &channel, false);
        audience.enter(Pattern, &pattern, true);
        audience.enter(Pattern, &pattern, false);
        audience.enter(Pattern, &pattern, false);
        // The shard sees one channel and one pattern.
        assert_eq!(audience.receivers(Plain, &channel, 2), 5);
        assert_eq!(audience.subscribers(Plain, &channel, 1), 2);
        // Others, of whom nothing is known here, count as the shard says.
        assert_eq!(audience.receivers(Plain, b"other", 3), 3);
        audience.leave(Plain, &channel);
        audience.leave(Plain, &channel);
        (0..3).for_each(|_| audience.leave(Pattern, &pattern));
        // Taken back, but not yet by the shard, or not yet told by it.
        assert_eq!(audience.receivers(Plain, &channel, 2), 0);
        assert_eq!(audience.receivers(Plain, &channel, 0), 0);
        audience.depart(Plain, &channel);
        audience.depart(Pattern, &pattern);
        assert!(audience.is_empty());
        assert_eq!(audience.receivers(Plain, &channel, 0), 0);
    }
}

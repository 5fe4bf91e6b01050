//! The sources of scripts that clients have shown, so that EVALSHA works where a shard does not
//! know the script (any more): shared by all workers, bounded by bytes, the oldest go first.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use std::cell::{Cell, RefCell};

use bytes::Bytes;
use sha1::{Digest, Sha1};

/// The name of a script: its SHA1 in lower-case hex.
pub type Sha = [u8; 40];

/// The name that a server gives to a script.
pub fn sha_of(source: &[u8]) -> Sha {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut sha = [0; 40];
    for (pair, byte) in sha.chunks_exact_mut(2).zip(Sha1::digest(source)) {
        pair.copy_from_slice(&[
            DIGITS[usize::from(byte >> 4)],
            DIGITS[usize::from(byte & 15)],
        ]);
    }
    sha
}

/// An argument as the name of a script, in whichever case it is written.
pub fn sha_named(argument: &[u8]) -> Option<Sha> {
    let mut sha: Sha = argument.try_into().ok()?;
    sha.make_ascii_lowercase();
    Some(sha)
}

/// See the module.
#[derive(Debug)]
pub struct Sources {
    bytes_max: usize,
    known: Mutex<Known>,
    /// How often anything was forgotten.
    forgotten: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    by_sha: HashMap<Sha, Bytes>,
    /// The oldest in front.
    order: VecDeque<Sha>,
    bytes: usize,
}

impl Sources {
    /// Keeps so many bytes of sources at most.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            known: Mutex::default(),
            forgotten: AtomicU64::new(0),
        }
    }

    /// The source of this name, if it was shown and is not forgotten.
    pub fn get(&self, sha: &Sha) -> Option<Bytes> {
        self.lock().by_sha.get(sha).cloned()
    }

    /// Forgets all: SCRIPT FLUSH.
    pub fn clear(&self) {
        *self.lock() = Known::default();
        self.forgotten.fetch_add(1, Ordering::Relaxed);
    }

    fn learn(&self, source: &[u8]) {
        let sha = sha_of(source);
        let mut known = self.lock();
        if source.len() > self.bytes_max || known.by_sha.contains_key(&sha) {
            return;
        }
        while known.bytes + source.len() > self.bytes_max {
            let Some(oldest) = known.order.pop_front() else {
                break;
            };
            let gone = known.by_sha.remove(&oldest).unwrap_or_default();
            known.bytes -= gone.len();
            self.forgotten.fetch_add(1, Ordering::Relaxed);
        }
        known.bytes += source.len();
        known.order.push_back(sha);
        known.by_sha.insert(sha, Bytes::copy_from_slice(source));
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Nothing in the critical sections panics half way.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One worker's view: a script that is shown again and again is not hashed by SHA1 each time.
#[derive(Debug)]
pub struct Shown {
    sources: Arc<Sources>,
    /// Hashes of sources that are known. Two that collide: the second is not learned, and its
    /// EVALSHA fares as without a proxy.
    seen: RefCell<HashSet<u64>>,
    /// What `sources.forgotten` was when `seen` was begun.
    since: Cell<u64>,
    hasher: RandomState,
}

/// Beyond this `seen` is begun anew.
const SEEN_MAX: usize = 10_000;

impl Shown {
    /// Over what all workers share.
    pub fn new(sources: Arc<Sources>) -> Self {
        Self {
            sources,
            seen: RefCell::default(),
            since: Cell::new(0),
            hasher: RandomState::new(),
        }
    }

    /// A client has shown a source.
    pub fn learn(&self, source: &[u8]) {
        let forgotten = self.sources.forgotten.load(Ordering::Relaxed);
        let mut seen = self.seen.borrow_mut();
        if self.since.replace(forgotten) != forgotten || seen.len() >= SEEN_MAX {
            seen.clear();
        }
        if seen.insert(self.hasher.hash_one(source)) {
            self.sources.learn(source);
        }
    }

    /// The source of this name, if it is known.
    pub fn get(&self, sha: &Sha) -> Option<Bytes> {
        self.sources.get(sha)
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.sources.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_redis() {
        let sha = sha_of(b"return 1");
        assert_eq!(&sha, b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        assert_eq!(sha_named(&sha.to_ascii_uppercase()), Some(sha));
        assert_eq!(sha_named(b"e0e1"), None);
    }

    #[test]
    fn the_oldest_go_when_there_is_no_room() {
        let shown = Shown::new(Arc::new(Sources::new(10)));
        for source in [b"aaaa", b"bbbb", b"cccc"] {
            shown.learn(source);
        }
        assert_eq!(shown.get(&sha_of(b"aaaa")), None);
        assert!(shown.get(&sha_of(b"bbbb")).is_some() && shown.get(&sha_of(b"cccc")).is_some());
        // Shown again, it is learned again, though this worker has seen it before.
        shown.learn(b"aaaa");
        assert!(shown.get(&sha_of(b"aaaa")).is_some());
        shown.learn(b"longer than all");
        assert_eq!(shown.get(&sha_of(b"longer than all")), None);
        shown.clear();
        assert_eq!(shown.get(&sha_of(b"aaaa")), None);
    }
}

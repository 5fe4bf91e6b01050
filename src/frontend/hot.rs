//! LOCKSTEP HOTKEYS: the keys that are asked for most, by a sketch of bounded size ("space-saving"):
//! a key that is not in it takes the place of the rarest one, and its count with it. What is asked
//! for in more than one of [`KEYS_MAX`] commands is in it for certain; a count is too high by what
//! was taken over, which is shown beside it, and never too low.
//!
//! Off unless `hotkeys-sample` is set; then one command in that many is looked at.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};

use crate::resp::build;

/// Keys that are kept at most.
const KEYS_MAX: usize = 128;
/// Bytes that are kept of one.
const KEY_BYTES_MAX: usize = 256;
/// When so many were counted, all counts are halved: what was hot is forgotten.
const COUNTED_MAX: u64 = 1 << 20;

/// See the module. For all workers: what is sampled is little.
#[derive(Default)]
pub struct HotKeys(Mutex<Sketch>);

#[derive(Default)]
struct Sketch {
    counted: u64,
    counters: Vec<Counter>,
}

struct Counter {
    key: Bytes,
    count: u64,
    error: u64,
}

impl HotKeys {
    /// A key was asked for.
    pub fn note(&self, key: &[u8]) {
        let key = &key[..key.len().min(KEY_BYTES_MAX)];
        self.locked().note(key);
    }

    /// Forgets everything.
    pub fn reset(&self) {
        *self.locked() = Sketch::default();
    }

    /// The most asked for: key, count, how much of that may be another's, both in samples.
    pub fn show(&self, most: usize, out: &mut BytesMut) {
        let mut sketch = self.locked();
        sketch
            .counters
            .sort_by_key(|counter| std::cmp::Reverse(counter.count));
        let shown = sketch.counters.len().min(most);
        build::array_header(out, shown);
        for counter in sketch.counters.iter().take(shown) {
            build::array_header(out, 3);
            build::bulk(out, &counter.key);
            build::int(out, counter.count as i64);
            build::int(out, counter.error as i64);
        }
    }

    fn locked(&self) -> MutexGuard<'_, Sketch> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sketch {
    fn note(&mut self, key: &[u8]) {
        self.counted += 1;
        if self.counted >= COUNTED_MAX {
            self.halve();
        }
        if let Some(known) = self.counters.iter_mut().find(|counter| counter.key == key) {
            known.count += 1;
            return;
        }
        let key = Bytes::copy_from_slice(key);
        if self.counters.len() < KEYS_MAX {
            let (count, error) = (1, 0);
            self.counters.push(Counter { key, count, error });
        } else if let Some(rarest) = self.counters.iter_mut().min_by_key(|counter| counter.count) {
            let error = rarest.count;
            let count = error + 1;
            *rarest = Counter { key, count, error };
        }
    }

    fn halve(&mut self) {
        self.counted /= 2;
        for counter in &mut self.counters {
            counter.count /= 2;
            counter.error /= 2;
        }
        self.counters.retain(|counter| counter.count > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hot_is_found_among_what_is_not() {
        let mut sketch = Sketch::default();
        for i in 0..20_000_u32 {
            let cold = format!("cold:{i}");
            sketch.note(if i % 10 == 0 { b"hot" } else { cold.as_bytes() });
        }
        assert_eq!(sketch.counters.len(), KEYS_MAX);
        let hottest = sketch
            .counters
            .iter()
            .max_by_key(|counter| counter.count)
            .unwrap();
        assert_eq!(&hottest.key[..], b"hot");
        assert!(hottest.count >= 2_000 && hottest.count - hottest.error <= 2_000);
        sketch.halve();
        assert!(
            sketch
                .counters
                .iter()
                .any(|counter| &counter.key[..] == b"hot")
        );
    }
}

//! The lists: few slots, so that clients meet, and ever new names, so that no list grows long.
//!
//! On each shard four lists at a time: two that share a slot by their hash tag, and two in slots
//! of their own. After some appends a list is left and a new one begun in the same slot.

use super::draft::values;
use super::record::{Key, Value};
use crate::support::{Cluster, Redis, keys_on};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use std::sync::atomic::{AtomicU32, Ordering};

const PER_SHARD: usize = 4;
const APPENDS_MAX: u32 = 48;

/// All lists of a round. Key `k` is list `k / bases` in place `k % bases`.
#[derive(Debug)]
pub struct Lists {
    shards: usize,
    round: usize,
    /// By place: the name up to the number.
    bases: Vec<String>,
    /// By place: how many appends were drawn up.
    appends: Vec<AtomicU32>,
    values: AtomicU32,
    /// Whether a transaction that watches lists on several shards touches their slots itself.
    pub touch_watched: bool,
}

impl Lists {
    /// New ones.
    pub fn new(shards: usize, round: usize) -> Lists {
        let tags: Vec<Vec<String>> = (0..shards)
            .map(|shard| keys_on("tag", shard, shards, PER_SHARD - 1))
            .collect();
        let bases: Vec<String> = tags
            .iter()
            .flat_map(|tags| {
                let [a, b, c] = [0, 1, 2].map(|number| format!("{{{}}}", tags[number]));
                [
                    format!("{a}x"),
                    format!("{a}y"),
                    format!("{b}x"),
                    format!("{c}x"),
                ]
            })
            .collect();
        Lists {
            shards,
            round,
            appends: bases.iter().map(|_| AtomicU32::new(0)).collect(),
            bases,
            values: AtomicU32::new(1),
            touch_watched: false,
        }
    }

    fn current(&self, base: usize) -> Key {
        let generation = self.appends[base].load(Ordering::Relaxed) / APPENDS_MAX;
        generation as usize * self.bases.len() + base
    }

    /// The name of a list.
    pub fn name(&self, key: Key) -> String {
        let (generation, base) = (key / self.bases.len(), key % self.bases.len());
        format!("{}:{}:{generation}", self.bases[base], self.round)
    }

    /// The shard of a list.
    pub fn shard(&self, key: Key) -> usize {
        key % self.bases.len() / PER_SHARD
    }

    /// A value that was never appended, to be appended to this list.
    pub fn next_value(&self, key: Key) -> Value {
        self.appends[key % self.bases.len()].fetch_add(1, Ordering::Relaxed);
        self.values.fetch_add(1, Ordering::Relaxed)
    }

    /// Any list.
    pub fn one(&self, rng: &mut StdRng) -> Key {
        self.current(rng.random_range(0..self.bases.len()))
    }

    /// Two that share a slot.
    pub fn slot_mates(&self, rng: &mut StdRng) -> Vec<Key> {
        let first = rng.random_range(0..self.shards) * PER_SHARD;
        let pair = if rng.random() {
            [first, first + 1]
        } else {
            [first + 1, first]
        };
        pair.map(|base| self.current(base)).to_vec()
    }

    /// Two of one shard in different slots.
    pub fn shard_mates(&self, rng: &mut StdRng) -> Vec<Key> {
        let first = rng.random_range(0..self.shards) * PER_SHARD;
        let pairs = [[0, 2], [1, 2], [2, 3], [3, 0], [1, 3]];
        let pair = pairs[rng.random_range(0..pairs.len())];
        pair.map(|base| self.current(first + base)).to_vec()
    }

    /// Whether two lists are in the same slot.
    pub fn share_slot(&self, one: Key, other: Key) -> bool {
        let tag = |key: Key| match key % self.bases.len() {
            base if base % PER_SHARD == 1 => base - 1,
            base => base,
        };
        tag(one) == tag(other)
    }

    /// One on each of two shards.
    pub fn on_two_shards(&self, rng: &mut StdRng) -> Vec<Key> {
        let shards = (0..self.shards).sample(rng, 2);
        let mut on = |shard| self.current(shard * PER_SHARD + rng.random_range(0..PER_SHARD));
        shards.into_iter().map(&mut on).collect()
    }

    /// Two to four, mostly over several shards.
    pub fn anywhere(&self, rng: &mut StdRng) -> Vec<Key> {
        let count = rng.random_range(2..=4);
        let bases = (0..self.bases.len()).sample(rng, count);
        bases.into_iter().map(|base| self.current(base)).collect()
    }

    /// What all lists hold, read directly on the shards; and their names.
    pub fn read_all(&self, cluster: &Cluster) -> (Vec<Vec<Value>>, Vec<String>) {
        let mut clients: Vec<_> = cluster.shards().iter().map(Redis::client).collect();
        let generations = self
            .appends
            .iter()
            .map(|appends| appends.load(Ordering::Relaxed) / APPENDS_MAX + 1)
            .max();
        let keys = 0..generations.unwrap_or(0) as usize * self.bases.len();
        let names: Vec<String> = keys.clone().map(|key| self.name(key)).collect();
        let mut read = |key: Key| {
            let reply = clients[self.shard(key)].value(&["LRANGE", &names[key], "0", "-1"]);
            values(reply.elements()).expect("only numbers were appended")
        };
        (keys.map(&mut read).collect(), names)
    }
}

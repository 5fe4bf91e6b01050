//! Slot → shard: an immutable snapshot of the shard map.

use super::slot::{SLOTS, key_slot};

/// Where a key lives: its slot, and the shard that owns it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Place {
    /// Number of the shard in the map.
    pub shard: u16,
    /// Slot, as in Redis Cluster.
    pub slot: u16,
}

/// A shard map. The slots are spread evenly and in order: shard `i` of `n` owns the slots
/// `s` with `s * n / 16384 == i`, as `redis-cli --cluster create` lays them out.
#[derive(Clone, Debug)]
pub struct Topology {
    addresses: Vec<String>,
    shard_of_slot: Box<[u16]>,
}

impl Topology {
    /// A map over these shards, in this order (the order is part of the map).
    pub fn new(addresses: Vec<String>) -> Self {
        let shards = addresses.len() as u32;
        let shard_of_slot = (0..u32::from(SLOTS))
            .map(|slot| (slot * shards / u32::from(SLOTS)) as u16)
            .collect();
        Self {
            addresses,
            shard_of_slot,
        }
    }

    /// The number of shards.
    pub fn shards(&self) -> usize {
        self.addresses.len()
    }

    /// The addresses, `host:port`, by shard number.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Where a key lives.
    pub fn place_of(&self, key: &[u8]) -> Place {
        let slot = key_slot(key) % SLOTS;
        Place {
            shard: self.shard_of_slot[usize::from(slot)],
            slot,
        }
    }

    /// The shard a key lives on.
    pub fn shard_of(&self, key: &[u8]) -> u16 {
        self.place_of(key).shard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_spread_evenly_over_the_shards() {
        for shards in 1..40 {
            let map = Topology::new((0..shards).map(|i| format!("h:{i}")).collect());
            let mut count = vec![0u32; shards];
            for &shard in &map.shard_of_slot {
                count[usize::from(shard)] += 1;
            }
            let (least, most) = (count.iter().min().unwrap(), count.iter().max().unwrap());
            assert!(most - least <= 1, "{shards} shards: {count:?}");
            assert!(map.shard_of_slot.is_sorted());
        }
    }
}

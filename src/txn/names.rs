//! Names of everything lockstep keeps on a shard.
//!
//! All keys live under one reserved [`PREFIX`], in database 0, whatever databases the data is in
//! that they speak of. The prefix is hidden from clients and refused as a client key, so nobody but
//! lockstep can give these keys another type or value. The scripts beside this file spell the
//! same names out; a test holds both together.

use std::sync::LazyLock;

use bytes::Bytes;

use super::TxnId;
use crate::resp::number::Decimal;

/// What every key and channel of ours begins with.
pub const PREFIX: &[u8] = b"__lockstep:";
/// Prefix of a lock: a string with the id of the transaction that holds the key.
pub const LOCK: &[u8] = b"__lockstep:lock:";
/// Prefix of a record: a hash, see [`super`].
pub const RECORD: &[u8] = b"__lockstep:txn:";
/// The hash key → id, from prepare to release.
pub const INDEX: &[u8] = b"__lockstep:index";
/// The hash key → id, from apply (watched keys: from a conditional prepare) to release.
pub const SETTLING: &[u8] = b"__lockstep:settling";
/// A counter that every successful prepare increments. It is never deleted.
pub const EPOCH: &[u8] = b"__lockstep:epoch";
/// A sorted set of the ids that left a marker or a tombstone, by when it expires: so that a FLUSHALL
/// and DBSIZE find them without looking at every key. It may name some that are gone.
pub const MARKERS: &[u8] = b"__lockstep:markers";
/// This shard's part in the shard map, see [`crate::keyspace::membership`].
pub const MAP: &[u8] = b"__lockstep:map";
/// Prefix of what holds values of other shards, within one atomic step: see
/// [`crate::engine::crossing`].
pub const GATHERED: &[u8] = b"__lockstep:gathered:";
/// What stands for every slot of a shard, among slots: held by transactions that touch the whole
/// keyspace, like FLUSHALL. It conflicts with every other, and stands alone in its list of keys.
pub const EVERY_SLOT: &[u8] = b"*";
/// The lock of [`EVERY_SLOT`]. Also left, for a moment, by a FLUSHALL that found others under way:
/// who comes later waits then, so that those others come to an end.
pub const LOCK_OF_EVERY_SLOT: &[u8] = b"__lockstep:lock:*";
/// The keys with names of their own: what outlives a FLUSHALL beside the records.
pub const SINGLE: [&[u8]; 6] = [INDEX, SETTLING, EPOCH, MARKERS, MAP, LOCK_OF_EVERY_SLOT];
/// Prefix of the channel on which release and abort announce that keys are free.
pub const RELEASED: &[u8] = b"__lockstep:released:";

/// The decimal text of a slot, which is what is locked; copies nothing.
pub fn slot(slot: u16) -> Bytes {
    static TEXTS: LazyLock<Vec<(u8, [u8; 5])>> = LazyLock::new(|| {
        let text = |slot: u16| {
            let (mut text, decimal) = ([0; 5], Decimal::of_unsigned(u64::from(slot)));
            let decimal = decimal.as_bytes();
            text[..decimal.len()].copy_from_slice(decimal);
            (decimal.len() as u8, text)
        };
        (0..=u16::MAX).map(text).collect()
    });
    let (len, text) = &TEXTS[usize::from(slot)];
    Bytes::from_static(&text[..usize::from(*len)])
}

/// What a conditional prepare locks beside each slot (decimal text) that it is conditional on: a
/// name that no other prepare locks, so that who watches its lock learns of conditional prepares
/// alone.
pub fn fence(slot: &[u8]) -> Vec<u8> {
    [slot, b"!"].concat()
}

/// Whether a client must not name this key: it is one of ours.
pub fn is_reserved(key: &[u8]) -> bool {
    // Most are told by their first byte, without a call.
    key.first() == PREFIX.first() && key.starts_with(PREFIX)
}

/// The key of the lock of `key`.
pub fn lock(key: &[u8]) -> Vec<u8> {
    [LOCK, key].concat()
}

/// The key of the record of `id`.
pub fn record(id: &TxnId) -> Vec<u8> {
    [RECORD, id.as_str().as_bytes()].concat()
}

/// The channel on which the end of `id` is announced.
pub fn released(id: &TxnId) -> Vec<u8> {
    [RELEASED, id.as_str().as_bytes()].concat()
}

/// The id whose record `key` is, if it is one: for scans over a shard's records.
pub fn record_id(key: &[u8]) -> Option<TxnId> {
    suffix(key, RECORD)
}

/// The id whose end `channel` announces, if it is such a channel.
pub fn released_id(channel: &[u8]) -> Option<TxnId> {
    suffix(channel, RELEASED)
}

fn suffix(name: &[u8], prefix: &[u8]) -> Option<TxnId> {
    let id = std::str::from_utf8(name.strip_prefix(prefix)?).ok()?;
    Some(TxnId::new(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_written_as_numbers_are() {
        for number in [0, 9, 10, 16_383, u16::MAX] {
            assert_eq!(slot(number), number.to_string());
        }
    }

    #[test]
    fn every_name_is_reserved_and_reads_back() {
        let id = TxnId::new("a1-7");
        for name in [
            lock(b"k\0\xff"),
            record(&id),
            released(&id),
            INDEX.to_vec(),
            SETTLING.to_vec(),
            EPOCH.to_vec(),
            MARKERS.to_vec(),
            MAP.to_vec(),
        ] {
            assert!(is_reserved(&name));
        }
        assert_eq!(record_id(&record(&id)), Some(id.clone()));
        assert_eq!(released_id(&released(&id)), Some(id));
        assert_eq!(record_id(INDEX), None);
        assert_eq!(record_id(b"__lockstep:txn:\xff"), None);
        assert!(!is_reserved(b"__lockstep"));
        assert!(!is_reserved(b"x__lockstep:"));
    }
}

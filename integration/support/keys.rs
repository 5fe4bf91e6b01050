//! Where a key belongs: written here a second time, so that the proxy's own answer is checked
//! and not repeated.

/// Number of slots, as in Redis Cluster.
pub const SLOTS: usize = 16_384;

/// CRC16 (XMODEM), bit by bit.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            let shifted = crc << 1;
            if crc & 0x8000 == 0 {
                shifted
            } else {
                shifted ^ 0x1021
            }
        })
    })
}

/// The part of the key that is hashed: between the first `{` and the next `}`, if not empty.
fn hashed_part(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|byte| *byte == b'{') else {
        return key;
    };
    let rest = &key[open + 1..];
    match rest.iter().position(|byte| *byte == b'}') {
        Some(length) if length > 0 => &rest[..length],
        _ => key,
    }
}

/// The slot of a key: what `CLUSTER KEYSLOT` answers.
pub fn slot_of(key: &[u8]) -> usize {
    usize::from(crc16(hashed_part(key))) % SLOTS
}

/// The shard of a key when the slots are spread evenly over `shards`.
pub fn shard_of(key: &[u8], shards: usize) -> usize {
    slot_of(key) * shards / SLOTS
}

/// `count` keys that start with `name` and live on `shard`.
pub fn keys_on(name: &str, shard: usize, shards: usize, count: usize) -> Vec<String> {
    (0..)
        .map(|number| format!("{name}{number}"))
        .filter(|key| shard_of(key.as_bytes(), shards) == shard)
        .take(count)
        .collect()
}

/// One key that starts with `name` and lives on `shard`.
pub fn key_on(name: &str, shard: usize, shards: usize) -> String {
    keys_on(name, shard, shards, 1).remove(0)
}

/// `count` keys that start with `name`, on the shards in turn: key `i` on shard `i % shards`.
pub fn spread(name: &str, shards: usize, count: usize) -> Vec<String> {
    let per_shard: Vec<_> = (0..shards)
        .map(|shard| keys_on(name, shard, shards, count.div_ceil(shards)))
        .collect();
    (0..count)
        .map(|index| per_shard[index % shards][index / shards].clone())
        .collect()
}

#[test]
fn slots_are_those_of_redis_cluster() {
    // From the Redis Cluster specification.
    assert_eq!(crc16(b"123456789"), 0x31C3);
    assert_eq!(slot_of(b"foo"), 12_182);
    assert_eq!(slot_of(b"{foo}bar"), 12_182);
    assert_eq!(slot_of(b"x{{bar}}zap"), slot_of(b"{bar"));
    assert_eq!(slot_of(b"x{bar}{zap}"), slot_of(b"bar"));
}

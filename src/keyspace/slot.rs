//! Key → slot, as in Redis Cluster: CRC16 of the key, or of its hash tag, modulo 16384.

/// Number of slots (Redis Cluster specification).
pub const SLOTS: u16 = 16384;

/// The slot of a key: the same as `CLUSTER KEYSLOT` says, hash tags included.
pub fn key_slot(key: &[u8]) -> u16 {
    redis_protocol::redis_keyslot(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis_cluster() {
        assert_eq!(key_slot(b"123456789"), 12739);
        assert_eq!(key_slot(b"foo"), 12182);
        assert_eq!(key_slot(b""), 0);
        assert_eq!(
            key_slot(b"{user1000}.following"),
            key_slot(b"{user1000}.followers")
        );
        assert_eq!(key_slot(b"foo{}{bar}"), key_slot_of_whole(b"foo{}{bar}"));
        assert_eq!(key_slot(b"foo{{bar}}zap"), key_slot(b"{{bar}"));
        assert_eq!(key_slot(b"foo{bar}{zap}"), key_slot(b"bar"));
        assert_eq!(key_slot(b"open{"), key_slot_of_whole(b"open{"));
    }

    /// CRC16/XMODEM, bit by bit, from the cluster specification.
    fn key_slot_of_whole(key: &[u8]) -> u16 {
        let crc = key.iter().fold(0u16, |crc, &byte| {
            (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
                if crc & 0x8000 == 0 {
                    crc << 1
                } else {
                    (crc << 1) ^ 0x1021
                }
            })
        });
        crc % SLOTS
    }
}

//! Key → slot, as in Redis Cluster: CRC16 of the key, or of its hash tag, modulo 16384.
//!
//! Every command with a key comes through here. `redis-protocol` takes a byte at a time, a good tenth
//! of what a pipelined GET costs in instructions; so keys without a hash tag, which are most, are done
//! here, four bytes at a time.

/// Number of slots (Redis Cluster specification).
pub const SLOTS: u16 = 16384;

/// The slot of a key: the same as `CLUSTER KEYSLOT` says, hash tags included.
pub fn key_slot(key: &[u8]) -> u16 {
    match crc16(key) {
        Some(crc) => crc % SLOTS,
        None => redis_protocol::redis_keyslot(key),
    }
}

/// By how many bytes are still to come: what a byte does to the checksum.
static TABLES: [[u16; 256]; 4] = tables();

/// CRC16/XMODEM, as the cluster specification has it.
const fn tables() -> [[u16; 256]; 4] {
    let mut tables = [[0u16; 256]; 4];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            let carry = crc & 0x8000 != 0;
            crc <<= 1;
            if carry {
                crc ^= 0x1021;
            }
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut behind = 1;
    while behind < 4 {
        let mut byte = 0;
        while byte < 256 {
            let crc = tables[behind - 1][byte];
            tables[behind][byte] = (crc << 8) ^ tables[0][(crc >> 8) as usize];
            byte += 1;
        }
        behind += 1;
    }
    tables
}

/// None if there is a brace, which may begin a hash tag.
fn crc16(bytes: &[u8]) -> Option<u16> {
    const EACH: u32 = 0x0101_0101;
    let [last, third, second, first] = &TABLES;
    let (fours, rest) = bytes.as_chunks::<4>();
    let (mut crc, mut braces) = (0u16, 0u32);
    for four in fours {
        // A byte becomes zero where there is a brace; what finds a zero may find the byte behind a
        // zero as well, but none where there is none.
        let differs = u32::from_le_bytes(*four) ^ (u32::from(b'{') * EACH);
        braces |= differs.wrapping_sub(EACH) & !differs & (0x80 * EACH);
        let [a, b, c, d] = four;
        let [high, low] = crc.to_be_bytes();
        crc = first[usize::from(a ^ high)]
            ^ second[usize::from(b ^ low)]
            ^ third[usize::from(*c)]
            ^ last[usize::from(*d)];
    }
    for byte in rest {
        braces |= u32::from(*byte == b'{');
        crc = (crc << 8) ^ last[usize::from((crc >> 8) as u8 ^ byte)];
    }
    (braces == 0).then_some(crc)
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

    /// The same slots as by `redis-protocol`, for keys of all lengths and bytes.
    #[test]
    fn slots_of_keys_without_tags_are_those_of_the_crate() {
        let mut state = 1u32;
        let mut key = Vec::new();
        for length in 0..200 {
            for _ in 0..20 {
                key.clear();
                for _ in 0..length {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    key.push((state >> 24) as u8);
                }
                assert_eq!(
                    key_slot(&key),
                    redis_protocol::redis_keyslot(&key),
                    "{key:?}"
                );
                key.retain(|byte| *byte != b'{');
                assert_eq!(
                    key_slot(&key),
                    redis_protocol::redis_keyslot(&key),
                    "{key:?}"
                );
            }
        }
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

    /// Wherever it stands, a brace is seen, and nothing else is taken for one.
    #[test]
    fn braces_are_seen() {
        for length in 1..20 {
            for at in 0..length {
                for byte in 0..=u8::MAX {
                    let mut key = vec![b'x'; length];
                    key[at] = byte;
                    assert_eq!(crc16(&key).is_none(), byte == b'{', "{key:?}");
                }
            }
        }
    }
}

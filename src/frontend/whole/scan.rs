//! SCAN: one cursor that visits every shard, one after another.
//!
//! What Redis promises holds: a key that is there from the first call to the last is returned
//! (its shard is scanned from beginning to end, and it never moves), one that is never there is
//! not, some may come twice, and a call may return none. The cursor is `c * shards + shard` for
//! cursor `c` of that shard, so that nothing has to be kept between calls and any lockstep can
//! go on where another stopped. A shard's cursor is below the size of its table (its bits are
//! counted up in reverse order, but within the table's mask), so this fits 64 bits.

use bytes::{Bytes, BytesMut};

use super::{Inquiry, Replied, error, request};
use crate::resp::{self, build};
use crate::txn::names;

const INVALID_CURSOR: &str = "ERR invalid cursor";

impl Inquiry {
    pub(super) async fn scan(&self) -> Replied {
        let shards = self.context.topology.shards() as u64;
        let cursor = self.args.get(1).and_then(|text| read(text));
        let cursor = cursor.ok_or_else(|| error(INVALID_CURSOR))?;
        let (shard, inner) = ((cursor % shards) as u16, cursor / shards);
        let inner = Bytes::from(inner.to_string());
        let words = self.args.iter().enumerate();
        let words: Vec<&Bytes> = words
            .map(|(at, word)| if at == 1 { &inner } else { word })
            .collect();
        let reply = {
            let engine = &self.context.engine;
            engine.read_one(&self.links, shard, &request(words)).await?
        };
        if resp::is_error(&reply) {
            return Ok(BytesMut::from(&reply[..]));
        }
        let mut parts = resp::elements(&reply);
        let next = parts.next().and_then(resp::as_bulk).and_then(read);
        let next = match (next, shard) {
            (Some(0), shard) if u64::from(shard) + 1 == shards => Some(0),
            (Some(0), shard) => Some(u64::from(shard) + 1),
            (Some(next), shard) => whole(next, shards, shard),
            (None, _) => None,
        };
        let next = next.ok_or_else(|| self.strange_cursor(shard))?;
        Ok(page(next, parts.next().unwrap_or_default()))
    }

    fn strange_cursor(&self, shard: u16) -> BytesMut {
        let address = self.context.engine.address(shard);
        error(format!(
            "ERR the cursor of shard {address} cannot be made one over all shards"
        ))
    }
}

fn whole(inner: u64, shards: u64, shard: u16) -> Option<u64> {
    inner.checked_mul(shards)?.checked_add(u64::from(shard))
}

/// The reply: a cursor, and of a shard's keys all but ours.
fn page(cursor: u64, keys: &[u8]) -> BytesMut {
    let mut out = BytesMut::with_capacity(keys.len() + 32);
    build::array_header(&mut out, 2);
    build::bulk(&mut out, cursor.to_string());
    let shown: Vec<&[u8]> = resp::elements(keys).filter(|key| is_shown(key)).collect();
    build::array_header(&mut out, shown.len());
    shown.iter().for_each(|key| out.extend_from_slice(key));
    out
}

/// Whether this reply is a key of a client's.
pub(super) fn is_shown(key: &[u8]) -> bool {
    !resp::as_bulk(key).is_some_and(names::is_reserved)
}

/// A cursor as `strtoul` reads it for redis-server: a sign is taken, blanks in front are not.
fn read(text: &[u8]) -> Option<u64> {
    let (is_negative, digits) = match text {
        [] => return Some(0),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(if is_negative {
        value.wrapping_neg()
    } else {
        value
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_as_redis_reads_them() {
        for (text, cursor) in [
            ("0", Some(0)),
            ("17", Some(17)),
            ("+17", Some(17)),
            ("-1", Some(u64::MAX)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            (" 1", None),
            ("1 ", None),
            ("x", None),
            ("-", None),
        ] {
            assert_eq!(read(text.as_bytes()), cursor, "{text}");
        }
    }

    #[test]
    fn a_cursor_beyond_64_bits_is_not_made() {
        assert_eq!(whole(7, 3, 2), Some(23));
        assert_eq!(whole(u64::MAX / 3, 3, 0), Some(u64::MAX));
        assert_eq!(whole(u64::MAX / 3, 3, 2), None);
        assert_eq!(whole(u64::MAX / 2, 3, 2), None);
    }

    #[test]
    fn our_keys_are_not_on_the_page() {
        let mut keys = BytesMut::new();
        build::array_header(&mut keys, 3);
        for key in ["a", "__lockstep:index", "__lockstep"] {
            build::bulk(&mut keys, key);
        }
        let wanted = b"*2\r\n$1\r\n5\r\n*2\r\n$1\r\na\r\n$10\r\n__lockstep\r\n";
        assert_eq!(page(5, &keys), wanted[..]);
    }
}

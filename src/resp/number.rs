//! Decimal integers on the wire.

/// Reads what Redis accepts as an integer in the protocol: digits, perhaps a minus, no plus, no
/// leading zero, no `-0`, within `i64`.
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'0'] => return Some(0),
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if !matches!(digits.first(), Some(b'1'..=b'9')) {
        return None;
    }
    let mut value: i64 = 0;
    // Counted downwards, since i64::MIN has no positive twin.
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_sub(i64::from(digit))?;
    }
    if negative {
        Some(value)
    } else {
        value.checked_neg()
    }
}

/// The text of an integer, held on the stack.
pub struct Decimal {
    bytes: [u8; 20],
    start: usize,
}

impl Decimal {
    /// The decimal text of `value`.
    pub fn of(value: i64) -> Self {
        let mut text = Self::of_unsigned(value.unsigned_abs());
        if value < 0 {
            // 19 digits at most, so there is room for the sign.
            text.start -= 1;
            text.bytes[text.start] = b'-';
        }
        text
    }

    /// The decimal text of `value`.
    pub fn of_unsigned(mut value: u64) -> Self {
        let mut bytes = [b'0'; 20];
        let mut start = bytes.len() - 1;
        while value >= 10 {
            bytes[start] = b'0' + (value % 10) as u8;
            value /= 10;
            start -= 1;
        }
        bytes[start] = b'0' + value as u8;
        Self { bytes, start }
    }

    /// The digits, with a minus if negative.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

/// Reads a number of one to three digits and its line end at the start of `text`, the form of
/// nearly every length on the wire. Gives the number and the bytes it took; `None` says nothing
/// but that the slow way must look.
#[inline(always)]
pub(crate) fn short_line(text: &[u8]) -> Option<(usize, usize)> {
    match *text {
        [d @ b'0'..=b'9', b'\r', b'\n', ..] => Some((usize::from(d - b'0'), 3)),
        [t @ b'1'..=b'9', d @ b'0'..=b'9', b'\r', b'\n', ..] => {
            Some((usize::from(t - b'0') * 10 + usize::from(d - b'0'), 4))
        }
        [
            h @ b'1'..=b'9',
            t @ b'0'..=b'9',
            d @ b'0'..=b'9',
            b'\r',
            b'\n',
            ..,
        ] => {
            let [h, t, d] = [h, t, d].map(|digit| usize::from(digit - b'0'));
            Some((h * 100 + t * 10 + d, 5))
        }
        _ => None,
    }
}

/// The sum of what shards have counted. One that counts nonsense makes the sum no worse than
/// itself.
pub fn total(counts: impl IntoIterator<Item = i64>) -> i64 {
    counts.into_iter().fold(0, i64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_strictly_as_redis_reads_them() {
        for text in [
            "0",
            "1",
            "-1",
            "42",
            "9223372036854775807",
            "-9223372036854775808",
        ] {
            assert_eq!(parse_i64(text.as_bytes()), text.parse().ok(), "{text}");
        }
        let refused = [
            "",
            "-",
            "+1",
            "-0",
            "00",
            "01",
            "-01",
            " 1",
            "1 ",
            "1a",
            "0x1",
            "--1",
            "9223372036854775808",
            "-9223372036854775809",
            "99999999999999999999999",
        ];
        for text in refused {
            assert_eq!(parse_i64(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn written_integers_read_back() {
        let mut values = vec![i64::MIN, i64::MAX, 0, 1, -1];
        // Just below and above powers of ten is where encoders go wrong.
        for power in 0..19 {
            let p = 10_i64.pow(power);
            values.extend([p - 1, p, p + 1, -p, 1 - p]);
        }
        for value in values {
            assert_eq!(Decimal::of(value).as_bytes(), value.to_string().as_bytes());
        }
        assert_eq!(
            Decimal::of_unsigned(u64::MAX).as_bytes(),
            u64::MAX.to_string().as_bytes()
        );
    }

    #[test]
    fn a_count_that_is_nonsense_ends_nothing() {
        assert_eq!(total([1, 2, 3]), 6);
        assert_eq!(total([1, i64::MAX, 3]), i64::MAX);
        assert_eq!(total([-1, i64::MIN]), i64::MIN);
    }

    #[test]
    fn short_lines_are_the_same_numbers_the_fast_way() {
        for value in 0..1000_usize {
            let text = format!("{value}\r\nx");
            assert_eq!(short_line(text.as_bytes()), Some((value, text.len() - 1)));
        }
        for text in [
            "", "1", "1\r", "1\rx", "01\r\n", "012\r\n", "-1\r\n", "1000\r\n", "1a2\r\n", "1\n",
            "a\r\n",
        ] {
            assert_eq!(short_line(text.as_bytes()), None, "{text:?}");
        }
    }
}

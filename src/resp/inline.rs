//! Inline commands: a line of words, as typed into a terminal. Words are split at blanks;
//! `"…"` knows the escapes `\n \r \t \b \a \xHH` and `\` before anything else, `'…'` knows `\'`;
//! a closing quote must end the word.

use super::command::Span;
use super::error::ProtocolError;

/// Splits `line` (without its line end, without NUL) and appends the words, unescaped, to
/// `text` and where they lie in it to `args`. `text` must start out empty; it grows to no more
/// than `line`.
pub(super) fn split(
    line: &[u8],
    text: &mut Vec<u8>,
    args: &mut Vec<Span>,
) -> Result<(), ProtocolError> {
    let mut rest = line;
    loop {
        while let [first, tail @ ..] = rest
            && is_blank(*first)
        {
            rest = tail;
        }
        if rest.is_empty() {
            return Ok(());
        }
        let start = text.len();
        rest = word(rest, text)?;
        args.push(Span::new(start, text.len()));
    }
}

/// C's `isspace`: what separates words and may follow a closing quote.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// Takes one word off the front of `line`. Quoted parts may follow plain ones (`a"b c"`), but
/// nothing may follow a quoted part.
fn word<'a>(line: &'a [u8], text: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    let mut rest = line;
    while let [first, tail @ ..] = rest {
        match first {
            b'"' => return quoted(tail, b'"', text),
            b'\'' => return quoted(tail, b'\'', text),
            // Narrower than `is_blank`: Redis ends a word at these four only.
            b' ' | b'\n' | b'\r' | b'\t' => return Ok(tail),
            byte => text.push(*byte),
        }
        rest = tail;
    }
    Ok(rest)
}

/// Takes the rest of a quoted part, up to and with the closing `quote`.
fn quoted<'a>(line: &'a [u8], quote: u8, text: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    let mut rest = line;
    loop {
        let (byte, tail) = match rest {
            [] => return Err(ProtocolError::UnbalancedQuotes),
            [first, tail @ ..] if *first == quote => {
                return match tail.first() {
                    Some(next) if !is_blank(*next) => Err(ProtocolError::UnbalancedQuotes),
                    _ => Ok(tail),
                };
            }
            [b'\\', b'x', high, low, tail @ ..]
                if quote == b'"' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (hex(*high) << 4 | hex(*low), tail)
            }
            [b'\\', escaped, tail @ ..] if quote == b'"' => (unescape(*escaped), tail),
            [b'\\', b'\'', tail @ ..] if quote == b'\'' => (b'\'', tail),
            [first, tail @ ..] => (*first, tail),
        };
        text.push(byte);
        rest = tail;
    }
}

fn unescape(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

/// The value of a hexadecimal digit.
fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        letter => (letter | 0x20).wrapping_sub(b'a') + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, ProtocolError> {
        let (mut text, mut args) = (Vec::new(), Vec::new());
        split(line, &mut text, &mut args)?;
        Ok(args.iter().map(|span| span.of(&text).to_vec()).collect())
    }

    #[test]
    fn words_are_split_and_unescaped_as_redis_does() {
        let cases: [(&[u8], &[&[u8]]); 12] = [
            (b"", &[]),
            (b" \t\x0b\x0c\r ", &[]),
            (b"SET  k v ", &[b"SET", b"k", b"v"]),
            (b"a\x0bb\rc", &[b"a\x0bb", b"c"]),
            (br#""a b" 'c d'"#, &[b"a b", b"c d"]),
            (br#""" ''"#, &[b"", b""]),
            (
                br#""\x41\x0a\xZZ\n\r\t\b\a\\\"""#,
                &[b"A\nxZZ\n\r\t\x08\x07\\\""],
            ),
            (br#"'\x41\n\''"#, &[br"\x41\n'"]),
            (br#"foo"bar""#, &[b"foobar"]),
            (br"a\nb", &[br"a\nb"]),
            (b"\"a\"\x0bb", &[b"a", b"b"]),
            (b"\xff\xfe", &[b"\xff\xfe"]),
        ];
        for (line, expected) in cases {
            assert_eq!(words(line).unwrap(), expected, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn quotes_that_do_not_pair_up_are_refused() {
        for line in [
            r#"""#, "'", r#""a"b"#, "'a'b", r#""a\"#, r#"'a\'"#, r#""a\""#, r#""a"""#,
        ] {
            assert_eq!(
                words(line.as_bytes()),
                Err(ProtocolError::UnbalancedQuotes),
                "{line}"
            );
        }
    }
}

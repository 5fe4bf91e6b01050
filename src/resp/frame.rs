//! Looking into a complete reply, as [`ReplyScanner`](super::ReplyScanner) framed it, without
//! decoding it. Nothing here recurses or allocates. On bytes that are no complete reply the
//! answers are [`Kind::Malformed`], `None` or empty.
//!
//! Attributes (`|`) in front of a reply are skipped.

use super::number::parse_i64;
use super::reply::{Head, head, is_message, simple};

/// What a reply is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `+`
    Status,
    /// `-`
    Error,
    /// `:`
    Int,
    /// `$`
    Bulk,
    /// `*`
    Array,
    /// `$-1`
    NullBulk,
    /// `*-1`, as of an aborted EXEC.
    NullArray,
    /// `_`, RESP3's only null.
    Null,
    /// `#`
    Bool,
    /// `,`
    Double,
    /// `(`
    BigNumber,
    /// `!`, an error that may span lines.
    BlobError,
    /// `=`, text with a format.
    Verbatim,
    /// `%`
    Map,
    /// `~`
    Set,
    /// `>`
    Push,
    /// Not a complete reply.
    Malformed,
}

impl Kind {
    /// Any of the three nulls.
    pub fn is_null(self) -> bool {
        matches!(self, Self::NullBulk | Self::NullArray | Self::Null)
    }
    /// Either of the two errors.
    pub fn is_error(self) -> bool {
        matches!(self, Self::Error | Self::BlobError)
    }
}

/// What the reply is.
#[inline]
pub fn kind(frame: &[u8]) -> Kind {
    match without_attributes(frame) {
        [b'+', ..] => Kind::Status,
        [b'-', ..] => Kind::Error,
        [b':', ..] => Kind::Int,
        [b'$', b'-', ..] => Kind::NullBulk,
        [b'$', ..] => Kind::Bulk,
        [b'*', b'-', ..] => Kind::NullArray,
        [b'*', ..] => Kind::Array,
        [b'_', ..] => Kind::Null,
        [b'#', ..] => Kind::Bool,
        [b',', ..] => Kind::Double,
        [b'(', ..] => Kind::BigNumber,
        [b'!', ..] => Kind::BlobError,
        [b'=', ..] => Kind::Verbatim,
        [b'%', ..] => Kind::Map,
        [b'~', ..] => Kind::Set,
        [b'>', ..] => Kind::Push,
        _ => Kind::Malformed,
    }
}

/// Whether the reply is an error.
#[inline]
pub fn is_error(frame: &[u8]) -> bool {
    kind(frame).is_error()
}

/// The value of an integer reply.
pub fn as_int(frame: &[u8]) -> Option<i64> {
    let [b':', digits @ ..] = line(without_attributes(frame))? else {
        return None;
    };
    parse_i64(digits)
}

/// The bytes of a bulk reply; a verbatim's too, its format included (`txt:…`).
pub fn as_bulk(frame: &[u8]) -> Option<&[u8]> {
    let frame = without_attributes(frame);
    matches!(frame.first()?, b'$' | b'=').then(|| blob(frame))?
}

/// The text of a status reply.
pub fn as_status(frame: &[u8]) -> Option<&[u8]> {
    match line(without_attributes(frame))? {
        [b'+', text @ ..] => Some(text),
        _ => None,
    }
}

/// The text of an error reply, its code first (`ERR …`), of either form; empty if it is none.
pub fn error_text(frame: &[u8]) -> &[u8] {
    let frame = without_attributes(frame);
    match frame.first() {
        Some(b'-') => line(frame)
            .and_then(|line| line.get(1..))
            .unwrap_or_default(),
        Some(b'!') => blob(frame).unwrap_or_default(),
        _ => b"",
    }
}

/// The elements of an array, set, map (key, value, key …) or push, each a complete reply (with
/// its attributes). Messages that stand between them without being counted are left out; see
/// [`embedded_pushes`]. Anything else has none.
pub fn elements(frame: &[u8]) -> Elements<'_> {
    let frame = without_attributes(frame);
    let rest = match line_and_rest(frame) {
        Some((line, rest)) => match head(line) {
            Ok(Head::Aggregate(_) | Head::Push(_)) => rest,
            _ => b"",
        },
        None => b"",
    };
    Elements {
        rest,
        messages: false,
    }
}

/// The pushes that stand between the elements of an aggregate without being counted: messages
/// that the connection published to itself inside MULTI.
pub fn embedded_pushes(frame: &[u8]) -> Elements<'_> {
    Elements {
        messages: true,
        ..elements(frame)
    }
}

/// The number of elements that an aggregate announces (a map: twice its pairs); 0 for all else.
pub fn element_count(frame: &[u8]) -> usize {
    match line(without_attributes(frame)).map(head) {
        Some(Ok(Head::Aggregate(len) | Head::Push(len))) => len,
        _ => 0,
    }
}

/// See [`elements`].
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    rest: &'a [u8],
    messages: bool,
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let simple = simple(self.rest);
            let Some(len) = simple.or_else(|| element_len(self.rest)) else {
                self.rest = b"";
                return None;
            };
            let (element, rest) = self.rest.split_at_checked(len)?;
            self.rest = rest;
            let message = simple.is_none() && is_message_push(without_attributes(element));
            if message == self.messages {
                return Some(element);
            }
        }
        None
    }
}

/// The frame behind the attributes in front of it.
#[inline]
pub fn without_attributes(frame: &[u8]) -> &[u8] {
    let mut frame = frame;
    while frame.first() == Some(&b'|') {
        let Some(rest) = behind_attribute(frame) else {
            return b"";
        };
        frame = rest;
    }
    frame
}

/// The length of the attribute at the start of `bytes`, without what it describes.
pub(super) fn attribute_len(bytes: &[u8]) -> Option<usize> {
    Some(bytes.len() - behind_attribute(bytes)?.len())
}

fn behind_attribute(frame: &[u8]) -> Option<&[u8]> {
    let (line, rest) = line_and_rest(frame)?;
    match head(line) {
        Ok(Head::Attribute(len)) => behind(rest, len, true),
        _ => None,
    }
}

/// The length of the element, with its attributes, at the start of `bytes`. A push there is one
/// element, message or not.
fn element_len(bytes: &[u8]) -> Option<usize> {
    Some(bytes.len() - behind(bytes, 1, false)?.len())
}

/// The length of the push at the start of `bytes`, with its attributes, if it is a message that
/// does not count among the elements it stands between.
pub(super) fn message_len(bytes: &[u8]) -> Option<usize> {
    is_message_push(without_attributes(bytes)).then(|| element_len(bytes))?
}

/// What follows the next `pending` elements. The counting of
/// [`ReplyScanner`](super::ReplyScanner); `inside` says whether the first of them already stands
/// inside a reply.
fn behind(bytes: &[u8], mut pending: usize, mut inside: bool) -> Option<&[u8]> {
    let mut rest = bytes;
    while pending > 0 {
        let top = !inside && pending == 1;
        let message = !top && is_message_push(rest);
        let (line, tail) = line_and_rest(rest)?;
        let head = head(line).ok()?;
        rest = tail;
        pending = match head {
            Head::Line => pending - 1,
            Head::Blob(len) => {
                rest = rest.get(len.checked_add(2)?..)?;
                pending - 1
            }
            Head::Attribute(len) => pending.checked_add(len)?,
            Head::Push(len) if message => pending.checked_add(len)?,
            Head::Aggregate(len) | Head::Push(len) => (pending - 1).checked_add(len)?,
        };
        inside |= top && !matches!(head, Head::Attribute(_));
    }
    Some(rest)
}

fn is_message_push(frame: &[u8]) -> bool {
    if frame.first() != Some(&b'>') {
        return false;
    }
    match line_and_rest(frame) {
        Some((line, rest)) if matches!(head(line), Ok(Head::Push(1..))) => {
            blob(rest).is_some_and(is_message)
        }
        _ => false,
    }
}

/// The payload of the string (`$`, `!`, `=`) at the start of `bytes`.
fn blob(bytes: &[u8]) -> Option<&[u8]> {
    let (line, rest) = line_and_rest(bytes)?;
    match head(line) {
        Ok(Head::Blob(len)) => rest.get(..len),
        _ => None,
    }
}

fn line(frame: &[u8]) -> Option<&[u8]> {
    line_and_rest(frame).map(|(line, _)| line)
}

/// Splits at the first `\r\n`.
pub(super) fn line_and_rest(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut from = 0;
    loop {
        let end = from + bytes.get(from..)?.iter().position(|byte| *byte == b'\r')?;
        if *bytes.get(end + 1)? == b'\n' {
            return Some((bytes.get(..end)?, bytes.get(end + 2..)?));
        }
        from = end + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_looked_into_through_their_attributes() {
        let frame = b"|1\r\n+ttl\r\n:3\r\n$2\r\nab\r\n";
        assert_eq!(kind(frame), Kind::Bulk);
        assert_eq!(as_bulk(frame), Some(&b"ab"[..]));
        assert_eq!(as_bulk(b"=6\r\ntxt:ab\r\n"), Some(&b"txt:ab"[..]));
        assert_eq!(as_bulk(b"$-1\r\n"), None);
        assert_eq!(as_int(b":-7\r\n"), Some(-7));
        assert_eq!(as_int(b"$1\r\n7\r\n"), None);
        assert_eq!(as_status(b"+QUEUED\r\n"), Some(&b"QUEUED"[..]));
        assert_eq!(error_text(b"-ERR no\r\n"), b"ERR no");
        assert_eq!(error_text(b"!6\r\nERR no\r\n"), b"ERR no");
        assert_eq!(error_text(b"+OK\r\n"), b"");
        assert!(kind(b"*-1\r\n").is_null() && kind(b"_\r\n").is_null() && is_error(b"-\r\n"));
    }

    #[test]
    fn elements_are_whole_replies() {
        let exec = b"*4\r\n+OK\r\n*1\r\n:1\r\n%1\r\n+k\r\n$-1\r\n|1\r\n+a\r\n+b\r\n:2\r\n";
        let found: Vec<&[u8]> = elements(exec).collect();
        let expected: [&[u8]; 4] = [
            b"+OK\r\n",
            b"*1\r\n:1\r\n",
            b"%1\r\n+k\r\n$-1\r\n",
            b"|1\r\n+a\r\n+b\r\n:2\r\n",
        ];
        assert_eq!(found, expected);
        assert_eq!(elements(b"%1\r\n+k\r\n+v\r\n").count(), 2);
        assert_eq!(element_count(b"%1\r\n+k\r\n+v\r\n"), 2);
        for none in [&b"*0\r\n"[..], b"*-1\r\n", b"_\r\n", b"$4\r\n+OK\r\n\r\n"] {
            assert_eq!((elements(none).count(), element_count(none)), (0, 0));
        }
    }

    #[test]
    fn an_empty_push_in_front_of_a_word_is_no_message() {
        let frame = b"*2\r\n>0\r\n$7\r\nmessage\r\n";
        assert!(elements(frame).eq([&b">0\r\n"[..], b"$7\r\nmessage\r\n"]));
    }

    #[test]
    fn what_is_no_reply_gives_nothing_and_does_no_harm() {
        let broken: [&[u8]; 9] = [
            b"",
            b"x",
            b"|",
            b"|1\r\n+a\r\n",
            b"*1\r\n$5\r\nab",
            b"*2\r\nx\r\n",
            b"$9\r\nab\r\n",
            b"$18446744073709551615\r\n",
            b"*9223372036854775807\r\n",
        ];
        for frame in broken {
            assert_eq!(elements(frame).count(), 0, "{}", frame.escape_ascii());
            assert_eq!(
                (as_int(frame), as_bulk(frame), as_status(frame)),
                (None, None, None)
            );
            assert_eq!(error_text(frame), b"");
        }
        assert_eq!(kind(b"|1\r\n+a\r\n"), Kind::Malformed);
    }
}

//! A complete reply as an owned tree, for the few replies that lockstep itself must understand
//! (the `COMMAND` table, the answers of its own scripts).
//!
//! The `redis-protocol` crate could do this for RESP2, but not without harm: it takes `*-1` and
//! `$-1` for the same (an aborted EXEC is one of them), keeps RESP3 maps and sets in hash tables
//! (order and duplicates are lost), recurses as deep as the bytes say, knows nothing of pushes
//! inside a reply, and does not accept an error text that is not UTF-8. So the tree is built here
//! from what the scanner has checked already, with a bound on depth; the tests compare it with
//! the crate where the crate is sound, and [`keyspace`](crate::keyspace) takes the slot function
//! from it.

use bytes::Bytes;

use super::error::DecodeError;
use super::frame;
use super::limits::Limits;
use super::number::parse_i64;
use super::reply::{Head, ReplyScanner, head};

/// A reply. Texts are slices of one copy of the frame.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// `+`
    Status(Bytes),
    /// `-` or `!`: the text, its code first.
    Error(Bytes),
    /// `:`
    Int(i64),
    /// `$`
    Bulk(Bytes),
    /// `$-1` or `_`
    Null,
    /// `*-1`, as of an aborted EXEC in RESP2.
    NullArray,
    /// `#`
    Bool(bool),
    /// `,`
    Double(f64),
    /// `(`: its digits.
    BigNumber(Bytes),
    /// `=`
    Verbatim {
        /// Three letters: `txt` or `mkd`.
        format: Bytes,
        /// The text.
        text: Bytes,
    },
    /// `*`
    Array(Vec<Value>),
    /// `%`: pairs in the order of the wire, duplicates included.
    Map(Vec<(Value, Value)>),
    /// `~`: in the order of the wire, duplicates included.
    Set(Vec<Value>),
    /// `>`
    Push(Vec<Value>),
}

impl Value {
    /// Decodes exactly one reply. Attributes are dropped, and so are messages that stand between
    /// the elements of another reply (see [`frame::embedded_pushes`]).
    ///
    /// # Errors
    /// `frame` is not one whole reply, breaks the protocol, or exceeds
    /// [`depth_max`](Limits::depth_max) or [`reply_bytes_max`](Limits::reply_bytes_max).
    pub fn decode(frame: &[u8], limits: &Limits) -> Result<Self, DecodeError> {
        let len = ReplyScanner::new(*limits).scan(frame)?;
        if len != Some(frame.len()) {
            return Err(DecodeError::NotOneReply);
        }
        let mut reader = Reader {
            bytes: Bytes::copy_from_slice(frame),
            at: 0,
        };
        reader.value(limits.depth_max)
    }

    /// The bytes of a bulk, status or verbatim text.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bulk(text) | Self::Status(text) | Self::Verbatim { text, .. } => Some(text),
            _ => None,
        }
    }

    /// [`as_bytes`](Self::as_bytes), if they are UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(self.as_bytes()?).ok()
    }

    /// An integer, also when given as text (as in hashes and by Lua) or as a boolean.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            Self::Bool(value) => Some(i64::from(*value)),
            other => parse_i64(other.as_bytes()?),
        }
    }

    /// The text of an error.
    pub fn as_error(&self) -> Option<&[u8]> {
        match self {
            Self::Error(text) => Some(text),
            _ => None,
        }
    }

    /// The elements of an array, set or push.
    pub fn as_slice(&self) -> Option<&[Value]> {
        match self {
            Self::Array(items) | Self::Set(items) | Self::Push(items) => Some(items),
            _ => None,
        }
    }

    /// The elements of an array, set or push, by value.
    pub fn into_vec(self) -> Option<Vec<Value>> {
        match self {
            Self::Array(items) | Self::Set(items) | Self::Push(items) => Some(items),
            _ => None,
        }
    }

    /// The pairs of a map, or of an array that stands for one in RESP2. `None` for an odd number.
    pub fn into_pairs(self) -> Option<Vec<(Value, Value)>> {
        let items = match self {
            Self::Map(pairs) => return Some(pairs),
            other => other.into_vec()?,
        };
        paired(items)
    }

    /// Any of the nulls.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null | Self::NullArray)
    }
}

fn paired(items: Vec<Value>) -> Option<Vec<(Value, Value)>> {
    let mut pairs = Vec::with_capacity(items.len() / 2);
    let mut items = items.into_iter();
    while let Some(key) = items.next() {
        pairs.push((key, items.next()?));
    }
    Some(pairs)
}

/// Walks over a frame that the scanner has found whole.
struct Reader {
    bytes: Bytes,
    at: usize,
}

impl Reader {
    /// The next element; `depth` aggregates may be open inside one another.
    fn value(&mut self, depth: usize) -> Result<Value, DecodeError> {
        let kind = loop {
            match self.rest().first().copied() {
                Some(b'|') => self.skip_attribute()?,
                Some(kind) => break kind,
                None => return Err(DecodeError::NotOneReply),
            }
        };
        let line = self.line()?;
        match head(&line)? {
            Head::Line => scalar(kind, &line),
            Head::Blob(len) => self.blob(kind, len),
            Head::Aggregate(len) | Head::Push(len) => {
                let depth = depth.checked_sub(1).ok_or(DecodeError::TooDeep)?;
                aggregate(kind, self.items(len, depth)?)
            }
            Head::Attribute(_) => Err(DecodeError::NotOneReply),
        }
    }

    fn items(&mut self, len: usize, depth: usize) -> Result<Vec<Value>, DecodeError> {
        // No more than the bytes at hand can fill.
        let mut items = Vec::with_capacity(len.min(self.rest().len() / 3));
        while items.len() < len {
            match frame::message_len(self.rest()) {
                Some(len) => drop(self.take(len, 0)?),
                None => items.push(self.value(depth)?),
            }
        }
        Ok(items)
    }

    fn blob(&mut self, kind: u8, len: usize) -> Result<Value, DecodeError> {
        let text = self.take(len, 2)?;
        match kind {
            b'!' => Ok(Value::Error(text)),
            b'=' if text.get(3) == Some(&b':') => Ok(Value::Verbatim {
                format: text.slice(..3),
                text: text.slice(4..),
            }),
            _ => Ok(Value::Bulk(text)),
        }
    }

    fn line(&mut self) -> Result<Bytes, DecodeError> {
        let (line, _) = frame::line_and_rest(self.rest()).ok_or(DecodeError::NotOneReply)?;
        self.take(line.len(), 2)
    }

    fn skip_attribute(&mut self) -> Result<(), DecodeError> {
        let len = frame::attribute_len(self.rest()).ok_or(DecodeError::NotOneReply)?;
        self.take(len, 0).map(drop)
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Takes `len` bytes and drops `behind` more.
    fn take(&mut self, len: usize, behind: usize) -> Result<Bytes, DecodeError> {
        if len
            .checked_add(behind)
            .is_none_or(|all| all > self.rest().len())
        {
            return Err(DecodeError::NotOneReply);
        }
        let taken = self.bytes.slice(self.at..self.at + len);
        self.at += len + behind;
        Ok(taken)
    }
}

fn scalar(kind: u8, line: &Bytes) -> Result<Value, DecodeError> {
    let text = line.slice(1.min(line.len())..);
    let value = match kind {
        b'+' => Value::Status(text),
        b'-' => Value::Error(text),
        b':' => Value::Int(parse_i64(&text).ok_or(DecodeError::InvalidNumber)?),
        b'#' => Value::Bool(text.first() == Some(&b't')),
        b',' => Value::Double(double(&text)?),
        b'(' => Value::BigNumber(text),
        b'*' => Value::NullArray,
        _ => Value::Null,
    };
    Ok(value)
}

fn double(text: &[u8]) -> Result<f64, DecodeError> {
    // Rust reads `inf`, `-inf` and `nan` as well.
    let text = std::str::from_utf8(text).map_err(|_| DecodeError::InvalidNumber)?;
    text.parse().map_err(|_| DecodeError::InvalidNumber)
}

fn aggregate(kind: u8, items: Vec<Value>) -> Result<Value, DecodeError> {
    match kind {
        b'~' => Ok(Value::Set(items)),
        b'>' => Ok(Value::Push(items)),
        b'%' => paired(items)
            .map(Value::Map)
            .ok_or(DecodeError::NotOneReply),
        _ => Ok(Value::Array(items)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::ReplyError;

    fn decode(frame: &[u8]) -> Result<Value, DecodeError> {
        Value::decode(frame, &Limits::default())
    }

    fn bulk(text: &'static str) -> Value {
        Value::Bulk(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn nulls_maps_and_messages_stay_what_they_are() {
        assert_eq!(decode(b"*-1\r\n"), Ok(Value::NullArray));
        assert_eq!(decode(b"$-1\r\n"), Ok(Value::Null));
        assert_eq!(decode(b"_\r\n"), Ok(Value::Null));
        let pairs = vec![
            (bulk("b"), Value::Int(1)),
            (bulk("a"), Value::Int(2)),
            (bulk("b"), Value::Int(3)),
        ];
        let map = b"%3\r\n$1\r\nb\r\n:1\r\n$1\r\na\r\n:2\r\n$1\r\nb\r\n:3\r\n";
        assert_eq!(decode(map), Ok(Value::Map(pairs.clone())));
        let flat = b"*6\r\n$1\r\nb\r\n:1\r\n$1\r\na\r\n:2\r\n$1\r\nb\r\n:3\r\n";
        assert_eq!(decode(flat).unwrap().into_pairs(), Some(pairs));
        let exec = b"*1\r\n>2\r\n$7\r\nmessage\r\n$1\r\nc\r\n:1\r\n";
        assert_eq!(decode(exec), Ok(Value::Array(vec![Value::Int(1)])));
        let attributed = b"*1\r\n|1\r\n+a\r\n+b\r\n,-inf\r\n";
        assert_eq!(
            decode(attributed),
            Ok(Value::Array(vec![Value::Double(f64::NEG_INFINITY)]))
        );
        assert_eq!(
            decode(b"-\xff\r\n"),
            Ok(Value::Error(Bytes::from_static(b"\xff")))
        );
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| [b"*1\r\n".repeat(depth), b":1\r\n".to_vec()].concat();
        assert!(decode(&nested(32)).is_ok());
        assert_eq!(decode(&nested(33)), Err(DecodeError::TooDeep));
        assert_eq!(decode(&nested(1_000_000)), Err(DecodeError::TooDeep));
    }

    #[test]
    fn exactly_one_reply_is_decoded() {
        for frame in [&b""[..], b"+OK", b"+OK\r\n+OK\r\n", b"*2\r\n:1\r\n"] {
            assert_eq!(
                decode(frame),
                Err(DecodeError::NotOneReply),
                "{}",
                frame.escape_ascii()
            );
        }
        assert_eq!(
            decode(b"x"),
            Err(DecodeError::Broken(ReplyError::UnknownType(b'x')))
        );
        assert_eq!(decode(b":1x\r\n"), Err(DecodeError::InvalidNumber));
        assert_eq!(decode(b",x\r\n"), Err(DecodeError::InvalidNumber));
    }

    #[test]
    fn values_convert() {
        assert_eq!(bulk("12").as_int(), Some(12));
        assert_eq!(Value::Bool(true).as_int(), Some(1));
        assert_eq!(bulk("x").as_int(), None);
        assert_eq!(bulk("x").as_str(), Some("x"));
        assert_eq!(Value::Int(1).as_str(), None);
        assert_eq!(Value::Array(vec![Value::Int(1)]).into_pairs(), None);
        assert_eq!(
            Value::Error(Bytes::from_static(b"ERR")).as_error(),
            Some(&b"ERR"[..])
        );
    }
}

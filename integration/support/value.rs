//! Replies: where one ends, and what it says.

use std::fmt;

/// A reply, RESP2 or RESP3, as the server meant it.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// `+OK`.
    Simple(Vec<u8>),
    /// `-ERR …`, without the dash.
    Error(Vec<u8>),
    /// `:1`.
    Integer(i64),
    /// `$3`.
    Bulk(Vec<u8>),
    /// `$-1`, `*-1` or `_`.
    Nil,
    /// `*2`; also RESP3 pushes (`>`).
    Array(Vec<Value>),
    /// `~2`.
    Set(Vec<Value>),
    /// `%1`: keys and values in turn.
    Map(Vec<Value>),
    /// RESP3 doubles, booleans, big numbers: the line with its type byte.
    Other(Vec<u8>),
}

/// The bytes are not a reply.
#[derive(Debug, PartialEq)]
pub struct BadReply(pub String);

impl fmt::Display for BadReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a reply: {}", self.0)
    }
}

impl Value {
    /// Reads one reply at the start of `bytes`: the reply and its length, `None` when more
    /// bytes are needed.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Value, usize)>, BadReply> {
        let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
            return Ok(None);
        };
        if end == 0 {
            return Err(BadReply("an empty line".to_owned()));
        }
        let (line, after) = (&bytes[1..end], end + 2);
        match bytes[0] {
            b'+' => Ok(Some((Value::Simple(line.to_vec()), after))),
            b'-' => Ok(Some((Value::Error(line.to_vec()), after))),
            b':' => Ok(Some((Value::Integer(number(line)?), after))),
            b'_' => Ok(Some((Value::Nil, after))),
            b',' | b'#' | b'(' => Ok(Some((Value::Other(bytes[..end].to_vec()), after))),
            b'$' | b'=' | b'!' => bulk(bytes, number(line)?, after),
            b'*' | b'>' => aggregate(bytes, number(line)?, after, Value::Array),
            b'~' => aggregate(bytes, number(line)?, after, Value::Set),
            b'%' => aggregate(bytes, number(line)?.saturating_mul(2), after, Value::Map),
            _ => Err(BadReply(escape(&bytes[..bytes.len().min(80)]))),
        }
    }

    /// The elements of an array; panics on anything else.
    pub fn elements(&self) -> &[Value] {
        match self {
            Value::Array(items) | Value::Set(items) | Value::Map(items) => items,
            other => panic!("not an array: {other}"),
        }
    }

    /// The integer, also one written as a bulk string.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Value::Integer(number) => Some(*number),
            Value::Bulk(text) => std::str::from_utf8(text).ok()?.parse().ok(),
            _ => None,
        }
    }

    /// The error text.
    pub fn error(&self) -> Option<String> {
        match self {
            Value::Error(text) => Some(String::from_utf8_lossy(text).into_owned()),
            _ => None,
        }
    }

    /// The bytes of a bulk or simple string.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Bulk(text) | Value::Simple(text) => Some(text),
            _ => None,
        }
    }
}

fn number(line: &[u8]) -> Result<i64, BadReply> {
    std::str::from_utf8(line)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| BadReply(format!("number {}", escape(line))))
}

fn bulk(bytes: &[u8], length: i64, after: usize) -> Result<Option<(Value, usize)>, BadReply> {
    let Ok(length) = usize::try_from(length) else {
        return Ok(Some((Value::Nil, after)));
    };
    let end = after + length;
    if bytes.len() < end + 2 {
        return Ok(None);
    }
    if &bytes[end..end + 2] != b"\r\n" {
        return Err(BadReply(format!("bulk of {length} without its end")));
    }
    Ok(Some((Value::Bulk(bytes[after..end].to_vec()), end + 2)))
}

fn aggregate(
    bytes: &[u8],
    count: i64,
    after: usize,
    make: fn(Vec<Value>) -> Value,
) -> Result<Option<(Value, usize)>, BadReply> {
    let Ok(count) = usize::try_from(count) else {
        return Ok(Some((Value::Nil, after)));
    };
    let (mut items, mut at) = (Vec::new(), after);
    for _ in 0..count {
        let Some((item, length)) = Value::parse(&bytes[at..])? else {
            return Ok(None);
        };
        items.push(item);
        at += length;
    }
    Ok(Some((make(items), at)))
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Simple(text) => write!(f, "+{}", escape(text)),
            Value::Error(text) => write!(f, "-{}", escape(text)),
            Value::Integer(number) => write!(f, ":{number}"),
            Value::Bulk(text) => write!(f, "\"{}\"", escape(text)),
            Value::Nil => f.write_str("nil"),
            Value::Other(text) => f.write_str(&escape(text)),
            Value::Array(items) | Value::Set(items) | Value::Map(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if index > 0 { ", " } else { "" })?;
                }
                f.write_str("]")
            }
        }
    }
}

/// Bytes as text that fits in a terminal line.
pub fn escape(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

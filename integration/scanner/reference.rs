//! A second reader of replies, written to be obvious: it recurses, starts from the beginning each
//! time, and copies everything.

use lockstep::resp::{ReplyError, Value};

/// A reply, and where it lies.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Node {
    pub(crate) kind: u8,
    /// From its attributes on.
    pub(crate) start: usize,
    /// Of its own header.
    pub(crate) header: usize,
    pub(crate) end: usize,
    /// The text of a line or a string; the count of an aggregate.
    pub(crate) text: Vec<u8>,
    /// Elements that were announced.
    pub(crate) items: Vec<Node>,
    /// Messages between them.
    pub(crate) messages: Vec<Node>,
}

pub(crate) struct Reader<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) bytes_max: usize,
    at: usize,
}

/// `Ok(None)`: the bytes end early.
pub(crate) type Found<T> = Result<Option<T>, ReplyError>;

macro_rules! some {
    ($found:expr) => {
        match $found? {
            Some(value) => value,
            None => return Ok(None),
        }
    };
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], bytes_max: usize) -> Self {
        Self {
            bytes,
            bytes_max,
            at: 0,
        }
    }

    pub(crate) fn reply(&mut self) -> Found<Node> {
        self.element(true, 0)
    }

    /// `owed`: elements that stand behind this one in the aggregates it is in.
    fn element(&mut self, top: bool, owed: usize) -> Found<Node> {
        let start = self.at;
        loop {
            let header = self.at;
            let line = some!(self.line());
            let (kind, text) = (line[0], line[1..].to_vec());
            let mut node = Node {
                kind,
                start,
                header,
                end: 0,
                text,
                items: vec![],
                messages: vec![],
            };
            match kind {
                b'|' => {
                    let count = some!(self.count(&node, 2, owed + 1));
                    some!(self.items(&mut node, count, owed + 1, top));
                    continue;
                }
                b'$' | b'*' if node.text == b"-1" => {}
                b'$' | b'!' | b'=' => node.text = some!(self.string(&node.text)),
                b'*' | b'~' | b'>' => {
                    let count = some!(self.count(&node, 1, owed));
                    some!(self.items(&mut node, count, owed, top));
                }
                b'%' => {
                    let count = some!(self.count(&node, 2, owed));
                    some!(self.items(&mut node, count, owed, top));
                }
                b'_' if !node.text.is_empty() => return Err(ReplyError::Malformed),
                b'#' if node.text != b"t" && node.text != b"f" => {
                    return Err(ReplyError::Malformed);
                }
                _ => {}
            }
            node.end = self.at;
            return Ok(Some(node));
        }
    }

    fn items(&mut self, node: &mut Node, count: usize, owed: usize, top: bool) -> Found<()> {
        while node.items.len() < count {
            // Whether a push counts is known behind its first element; if not, one more is owed.
            let uncounted = node.kind == b'>' && !top && is_message(node);
            let owed = owed + usize::from(uncounted) + count - node.items.len() - 1;
            let item = some!(self.element(false, owed));
            if item.kind == b'>' && is_message(&item) {
                node.messages.push(item);
            } else {
                node.items.push(item);
            }
        }
        Ok(Some(()))
    }

    fn count(&mut self, node: &Node, unit: usize, owed: usize) -> Found<usize> {
        let count = length(&node.text)?
            .checked_mul(unit)
            .ok_or(ReplyError::TooBig)?;
        let room = (self.bytes_max - self.at.min(self.bytes_max)) / 3;
        if count > room.saturating_sub(owed) {
            Err(ReplyError::TooBig)
        } else {
            Ok(Some(count))
        }
    }

    fn string(&mut self, text: &[u8]) -> Found<Vec<u8>> {
        let len = length(text)?;
        if len > self.bytes_max.saturating_sub(self.at + 2) {
            return Err(ReplyError::TooBig);
        }
        let end = self.at + len;
        if self.bytes.len() < end + 2 {
            return Ok(None);
        }
        if &self.bytes[end..end + 2] != b"\r\n" {
            return Err(ReplyError::Malformed);
        }
        let text = self.bytes[self.at..end].to_vec();
        self.at = end + 2;
        Ok(Some(text))
    }

    fn line(&mut self) -> Found<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        match rest.first() {
            None => return Ok(None),
            Some(byte) if !b"+-:,(_#$!=*~%|>".contains(byte) => {
                return Err(ReplyError::UnknownType(*byte));
            }
            Some(_) => {}
        }
        let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else {
            return unfinished(rest);
        };
        self.at += end + 2;
        Ok(Some(&rest[..end]))
    }
}

/// A header that is too long already to be right.
fn unfinished<T>(line: &[u8]) -> Found<T> {
    match line[0] {
        b'+' | b'-' | b':' | b',' | b'(' => Ok(None),
        _ if line.len() <= 22 => Ok(None),
        b'_' | b'#' => Err(ReplyError::Malformed),
        _ => Err(ReplyError::InvalidLength),
    }
}

fn length(text: &[u8]) -> Result<usize, ReplyError> {
    let text = std::str::from_utf8(text).map_err(|_| ReplyError::InvalidLength)?;
    let value: i64 = text.parse().map_err(|_| ReplyError::InvalidLength)?;
    // No sign, no leading zero.
    if value < 0 || value.to_string() != text {
        return Err(ReplyError::InvalidLength);
    }
    Ok(value as usize)
}

fn is_message(node: &Node) -> bool {
    let names = [
        "message",
        "pmessage",
        "smessage",
        "invalidate",
        "tracking-redir-broken",
    ];
    node.items.first().is_some_and(|first| {
        // What stands in front of the name, an attribute or another message, makes it no name.
        b"$!=".contains(&first.kind)
            && first.start == first.header
            && node
                .messages
                .first()
                .is_none_or(|message| message.start > first.start)
            && names.iter().any(|name| name.as_bytes() == first.text)
    })
}

/// Whether a decoded value says the same as the node.
pub(crate) fn same(node: &Node, value: &Value) -> bool {
    let all = |values: &[Value]| {
        node.items.len() == values.len() && node.items.iter().zip(values).all(|(n, v)| same(n, v))
    };
    match (node.kind, value) {
        (b'+', Value::Status(text)) | (b'-' | b'!', Value::Error(text)) => node.text == text[..],
        (b'(', Value::BigNumber(text)) | (b'$' | b'=', Value::Bulk(text)) => node.text == text[..],
        (b'=', Value::Verbatim { format, text }) => {
            node.text == [&format[..], b":", &text[..]].concat()
        }
        (b':', Value::Int(int)) => node.text == int.to_string().as_bytes(),
        (b'$' | b'_', Value::Null) | (b'*', Value::NullArray) => node.items.is_empty(),
        (b'#', Value::Bool(value)) => (node.text == b"t") == *value,
        (b',', Value::Double(_)) => true,
        (b'*', Value::Array(values)) | (b'~', Value::Set(values)) | (b'>', Value::Push(values)) => {
            all(values)
        }
        (b'%', Value::Map(pairs)) => {
            let flat: Vec<Value> = pairs
                .iter()
                .flat_map(|(k, v)| [k.clone(), v.clone()])
                .collect();
            all(&flat)
        }
        _ => false,
    }
}

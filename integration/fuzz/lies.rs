//! Replies that no Redis server would give.

use crate::mutate::{mutate, piece};
use crate::support::Value;
use rand::RngExt;
use rand::rngs::StdRng;

/// What becomes of a reply.
pub enum Lie {
    /// This is sent in its place.
    Bytes(Vec<u8>),
    /// This is sent, and the connection ends.
    Last(Vec<u8>),
    /// Nothing is sent any more, and the connection stays.
    Silence,
}

/// Words by which the shards tell how transactions stand, and others that matter somewhere.
const WORDS: [&str; 16] = [
    "prepared",
    "applied",
    "aborted",
    "done",
    "late",
    "seen",
    "held",
    "settling",
    "-",
    "*",
    "0",
    "-1",
    "9223372036854775807",
    "OK",
    "QUEUED",
    "",
];
const ERRORS: [&str; 16] = [
    "ERR no",
    "NOSCRIPT No matching script.",
    "LOADING Redis is loading",
    "MOVED 1 a:1",
    "ASK 1 a:1",
    "OOM no memory",
    "READONLY replica",
    "MISCONF disk",
    "NOREPLICAS few",
    "BUSY script",
    "EXECABORT no",
    "NOAUTH no",
    "WRONGPASS no",
    "NOPERM no",
    "TOOLONG command for a script",
    "",
];
/// How long a line without an end, and a nest of arrays, are.
const LONG: usize = 1 << 20;

/// A lie about this reply.
pub fn lie(rng: &mut StdRng, truth: &[u8], value: &Value) -> Lie {
    let joined = |parts: &[&[u8]]| Lie::Bytes(parts.concat());
    match rng.random_range(0..56) {
        0..16 => {
            let mut value = value.clone();
            change(rng, &mut value);
            Lie::Bytes(encoded(rng, &value))
        }
        16..20 => Lie::Bytes(any(rng)),
        20..28 => Lie::Bytes(error(rng)),
        28..34 => {
            let mut bytes = truth.to_vec();
            mutate(rng, &mut bytes);
            Lie::Bytes(bytes)
        }
        34..36 => Lie::Last(truth[..rng.random_range(0..truth.len())].to_vec()),
        36..40 => joined(&[truth, truth]),
        40..42 => Lie::Bytes(Vec::new()),
        42..46 => joined(&[&push(rng), truth]),
        46..50 => joined(&[&any(rng), truth]),
        50..52 => Lie::Last(endless(rng)),
        52..55 => joined(&[piece(rng), truth]),
        _ => Lie::Silence,
    }
}

/// A reply of any type.
fn any(rng: &mut StdRng) -> Vec<u8> {
    let value = random(rng, 3);
    encoded(rng, &value)
}

fn error(rng: &mut StdRng) -> Vec<u8> {
    format!("-{}\r\n", ERRORS[rng.random_range(0..ERRORS.len())]).into_bytes()
}

fn push(rng: &mut StdRng) -> Vec<u8> {
    let kind = [
        "message",
        "pmessage",
        "subscribe",
        "unsubscribe",
        "invalidate",
        "x",
    ][rng.random_range(0..6)];
    let rest = random(rng, 2);
    let rest = encoded(rng, &rest);
    let head = format!(">3\r\n${}\r\n{kind}\r\n$1\r\nv\r\n", kind.len());
    [head.into_bytes(), rest].concat()
}

/// Headers that promise more than there will be, lines and nests without an end.
fn endless(rng: &mut StdRng) -> Vec<u8> {
    match rng.random_range(0..6) {
        0 => b"$9223372036854775807\r\nx".to_vec(),
        1 => b"*2147483647\r\n:1\r\n".to_vec(),
        2 => b"*1\r\n".repeat(LONG / 4),
        3 => vec![b'+'; LONG],
        4 => b"%9223372036854775807\r\n".to_vec(),
        _ => [b"*1000000\r\n".as_slice(), &b":1\r\n".repeat(LONG / 4)].concat(),
    }
}

/// One leaf, or one branch, becomes something else.
fn change(rng: &mut StdRng, value: &mut Value) {
    match value {
        Value::Array(items) | Value::Set(items) | Value::Map(items) if !items.is_empty() => {
            let at = rng.random_range(0..items.len());
            match rng.random_range(0..8) {
                0 => drop(items.remove(at)),
                1 => items.push(random(rng, 1)),
                _ => change(rng, &mut items[at]),
            }
        }
        Value::Integer(number) => {
            *number = match rng.random_range(0..4) {
                0 => number.wrapping_neg(),
                1 => i64::MAX,
                2 => i64::MIN,
                _ => number.wrapping_add(rng.random_range(-3..=3)),
            }
        }
        value => *value = random(rng, 2),
    }
}

fn random(rng: &mut StdRng, depth: u32) -> Value {
    let word = |rng: &mut StdRng| WORDS[rng.random_range(0..WORDS.len())].as_bytes().to_vec();
    let kinds = if depth == 0 { 6 } else { 9 };
    match rng.random_range(0..kinds) {
        0 => Value::Simple(word(rng)),
        1 => Value::Integer(rng.random()),
        2 | 3 => Value::Bulk(word(rng)),
        4 => Value::Nil,
        5 => {
            let text: &[u8] = [b",nan".as_slice(), b",inf", b"#t", b"(-1"][rng.random_range(0..4)];
            Value::Other(text.to_vec())
        }
        kind => {
            let count = rng.random_range(0..5) * 2;
            let items = (0..count).map(|_| random(rng, depth - 1)).collect();
            match kind {
                6 => Value::Array(items),
                7 => Value::Set(items),
                _ => Value::Map(items),
            }
        }
    }
}

/// As a server would write it; nil in one of its three forms.
fn encoded(rng: &mut StdRng, value: &Value) -> Vec<u8> {
    let line = |mark: &str, text: &[u8]| [mark.as_bytes(), text, b"\r\n"].concat();
    let many = |rng: &mut StdRng, mark: &str, count: usize, items: &[Value]| {
        let mut bytes = format!("{mark}{count}\r\n").into_bytes();
        items
            .iter()
            .for_each(|item| bytes.extend(encoded(rng, item)));
        bytes
    };
    match value {
        Value::Simple(text) => line("+", text),
        Value::Error(text) => line("-", text),
        Value::Integer(number) => line(":", number.to_string().as_bytes()),
        Value::Bulk(text) => [format!("${}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat(),
        Value::Nil => {
            [b"$-1\r\n".as_slice(), b"*-1\r\n", b"_\r\n"][rng.random_range(0..3)].to_vec()
        }
        Value::Array(items) => many(rng, "*", items.len(), items),
        Value::Set(items) => many(rng, "~", items.len(), items),
        Value::Map(items) => many(rng, "%", items.len() / 2, items),
        Value::Other(text) => line("", text),
    }
}

//! Reports as text for people, as JSON, and as replies on the wire.

use bytes::BytesMut;
use serde_json::Value;

use super::sight::{Held, Seen, Sight};
use crate::resp::build::{self, Protocol};
use crate::txn::State;

/// Shown of one key or argument at most.
const SHOWN_BYTES_MAX: usize = 200;

/// What an operator is told.
pub trait Report {
    /// For programs: the same on the command line (`--json`) and on the wire.
    fn json(&self) -> Value;
    /// For people: lines, the last one ended.
    fn text(&self) -> String;
    /// Whether all is well and everything asked for was done: the exit status.
    fn is_good(&self) -> bool;
}

/// A report as a reply in this protocol: in RESP2 objects are flat arrays of names and values, as
/// Redis has them.
pub fn reply(value: &Value, protocol: Protocol, out: &mut BytesMut) {
    match value {
        Value::Null => build::null_bulk(out, protocol),
        Value::Bool(yes) => build::boolean(out, protocol, *yes),
        Value::Number(number) => match number.as_i64() {
            Some(int) => build::int(out, int),
            None => build::bulk(out, number.to_string()),
        },
        Value::String(text) => build::bulk(out, text),
        Value::Array(items) => {
            build::array_header(out, items.len());
            items.iter().for_each(|item| reply(item, protocol, out));
        }
        Value::Object(fields) => {
            build::map_header(out, protocol, fields.len());
            for (name, value) in fields {
                build::bulk(out, name);
                reply(value, protocol, out);
            }
        }
    }
}

/// Bytes as printable ASCII, cut if they are long.
pub(super) fn printable(bytes: &[u8]) -> String {
    match bytes.len().checked_sub(SHOWN_BYTES_MAX) {
        None | Some(0) => bytes.escape_ascii().to_string(),
        Some(more) => format!(
            "{}… ({more} more bytes)",
            bytes[..SHOWN_BYTES_MAX].escape_ascii()
        ),
    }
}

/// A word of a line in which words are separated by spaces.
pub(super) fn quoted(word: &str) -> String {
    match word.is_empty() || word.contains(' ') && !word.starts_with('<') {
        true => format!("\"{word}\""),
        false => word.to_owned(),
    }
}

/// A span of time for people: `740 ms`, `12.3 s`, `2 h 5 min`.
pub(super) fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms / 1_000 % 60),
        _ => format!("{} h {} min", ms / 3_600_000, ms / 60_000 % 60),
    }
}

/// A deadline for people, by how long it is past.
pub(super) fn deadline(overdue_ms: i64) -> String {
    match overdue_ms {
        0.. => format!("{} ago", span(overdue_ms as u64)),
        _ => format!("in {}", span(overdue_ms.unsigned_abs())),
    }
}

/// A record's state in a word.
pub(super) fn state(state: State) -> &'static str {
    match state {
        State::Prepared => "prepared",
        State::Applied => "applied",
        State::Aborted => "aborted",
    }
}

/// What a shard says, in a word or two.
pub(super) fn sight(sight: &Sight) -> String {
    let record = match &sight.seen {
        Seen::Unreadable(_) => "no answer".to_owned(),
        Seen::Absent => "no record".to_owned(),
        Seen::Found(found) if found.released => {
            format!("{}, released", state(found.record.state))
        }
        Seen::Found(found) => state(found.record.state).to_owned(),
    };
    match sight.is_orphaned() {
        true => format!("{record}, but {}", held(sight.held)),
        false => record,
    }
}

/// Entries in words: `2 index entries, 1 lock`.
pub(super) fn held(held: Held) -> String {
    let kinds = [
        (held.index, "index entry", "index entries"),
        (held.settling, "settling entry", "settling entries"),
        (held.locks, "lock", "locks"),
    ];
    let some = kinds.into_iter().filter(|(count, ..)| *count > 0);
    let words: Vec<_> = some
        .map(|(count, one, more)| counted(count, one, more))
        .collect();
    match words.is_empty() {
        true => "nothing".to_owned(),
        false => words.join(", "),
    }
}

/// A number and its noun.
pub(super) fn counted(count: usize, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

/// Rows in columns, two spaces apart, the first row the heading.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_report_on_the_wire_is_what_redis_would_make_of_it() {
        let report = json!({"id": "x", "n": -1, "ok": true, "none": null, "of": ["a"]});
        let written = |protocol| {
            let mut out = BytesMut::new();
            reply(&report, protocol, &mut out);
            String::from_utf8_lossy(&out).into_owned()
        };
        let text = "*10\r\n$2\r\nid\r\n$1\r\nx\r\n$1\r\nn\r\n:-1\r\n$2\r\nok\r\n:1\r\n\
                    $4\r\nnone\r\n$-1\r\n$2\r\nof\r\n*1\r\n$1\r\na\r\n";
        assert_eq!(written(Protocol::Resp2), text);
        let text = "%5\r\n$2\r\nid\r\n$1\r\nx\r\n$1\r\nn\r\n:-1\r\n$2\r\nok\r\n#t\r\n\
                    $4\r\nnone\r\n_\r\n$2\r\nof\r\n*1\r\n$1\r\na\r\n";
        assert_eq!(written(Protocol::Resp3), text);
    }

    #[test]
    fn spans_and_deadlines_are_for_people() {
        assert_eq!(span(999), "999 ms");
        assert_eq!(span(12_345), "12.3 s");
        assert_eq!(span(125_000), "2 min 5 s");
        assert_eq!(span(7_500_000), "2 h 5 min");
        assert_eq!(deadline(1_500), "1.5 s ago");
        assert_eq!(deadline(-20), "in 20 ms");
    }

    #[test]
    fn long_and_binary_values_are_shown_within_bounds() {
        assert_eq!(printable(b"a\x00\"\r\n"), "a\\x00\\\"\\r\\n");
        let long = printable(&[b'x'; 5_000]);
        assert!(
            long.ends_with("… (4800 more bytes)") && long.len() < 300,
            "{long}"
        );
    }

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let rows = [["ID", "STATE"], ["a-long-one", "x"]].map(|r| r.map(String::from).to_vec());
        assert_eq!(table(&rows), "ID          STATE\na-long-one  x\n");
    }
}

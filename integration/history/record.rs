//! What clients have done and seen: the history that is judged.

use std::fmt::Write as _;

/// A list, by number.
pub type Key = usize;
/// What is appended; every value once in a whole history. 0 is never appended.
pub type Value = u32;

/// One step of an operation, with what its client learned.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// RPUSH.
    Append {
        key: Key,
        value: Value,
        /// The length that was answered; None without an answer.
        length: Option<usize>,
    },
    /// LRANGE of the whole list.
    Read {
        key: Key,
        /// The list that was answered; None without an answer.
        seen: Option<Vec<Value>>,
    },
}

/// What the client learned about its operation as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Replies came, or an error that says that it was done.
    Committed,
    /// An error that says that nothing was done.
    Aborted,
    /// The connection died, or an error that says that it is not known.
    Unknown,
}

/// One command or transaction: atomic, or so it is claimed.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Whose.
    pub client: usize,
    /// In which form it was sent.
    pub form: &'static str,
    /// Nanoseconds, before it was sent.
    pub began: u64,
    /// Nanoseconds, after the reply was read. Means nothing when the outcome is unknown.
    pub ended: u64,
    /// See [`Outcome`].
    pub outcome: Outcome,
    /// In the order of execution.
    pub steps: Vec<Step>,
}

/// Everything that was done, and what was left.
#[derive(Debug, Default)]
pub struct History {
    /// In any order.
    pub operations: Vec<Operation>,
    /// The lists at the end, when nothing runs any more, by key.
    pub lists: Vec<Vec<Value>>,
    /// Their names, for people.
    pub names: Vec<String>,
}

impl History {
    /// The name of a list.
    pub fn name(&self, key: Key) -> &str {
        self.names.get(key).map_or("?", String::as_str)
    }

    /// An operation on one line.
    pub fn describe(&self, number: usize) -> String {
        let Some(operation) = self.operations.get(number) else {
            return format!("#{number}");
        };
        let millis = |nanos: u64| nanos as f64 / 1e6;
        let mut text = format!(
            "#{number} client {} {} at {:.3} to ",
            operation.client,
            operation.form,
            millis(operation.began)
        );
        match operation.outcome {
            Outcome::Unknown => text.push_str("? ms (unknown):"),
            Outcome::Aborted => {
                let _ = write!(text, "{:.3} ms (aborted):", millis(operation.ended));
            }
            Outcome::Committed => {
                let _ = write!(text, "{:.3} ms:", millis(operation.ended));
            }
        }
        for step in &operation.steps {
            text.push(' ');
            text.push_str(&self.describe_step(step));
        }
        text
    }

    fn describe_step(&self, step: &Step) -> String {
        match step {
            Step::Append { key, value, length } => {
                let length = length.map_or("?".to_owned(), |length| length.to_string());
                format!("[{} += {value} -> {length}]", self.name(*key))
            }
            Step::Read { key, seen: None } => format!("[{} -> ?]", self.name(*key)),
            Step::Read {
                key,
                seen: Some(seen),
            } => format!("[{} -> {}]", self.name(*key), short(seen)),
        }
    }
}

/// A list: its end, and how long it is.
pub fn short(list: &[Value]) -> String {
    const SHOWN: usize = 6;
    let tail = &list[list.len().saturating_sub(SHOWN)..];
    let dots = if tail.len() < list.len() { "… " } else { "" };
    let tail: Vec<String> = tail.iter().map(Value::to_string).collect();
    format!("({dots}{}: {})", tail.join(" "), list.len())
}

//! What must be so on a shard for a transaction to be committed: questions about its data, and
//! the answers that will do.
//!
//! Both ends read it. Under the decider rule the script `apply` puts the decider's questions in the
//! same atomic step in which it applies the branch, so nothing can come between the answer and
//! the commit point ([`super::script::append_apply_if`]). The questions of another participant are
//! put behind its prepare, when its slots are locked, and before the decider is asked to apply.

use bytes::{BufMut, Bytes, BytesMut};

use super::redo::put_strings;
use super::script::{EXEC, MULTI};
use crate::resp::{self, build};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    db: Bytes,
    asked: Vec<Question>,
}

/// A command that reads, and the replies that will do, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Question {
    command: Vec<Bytes>,
    wanted: Vec<Bytes>,
}

impl Condition {
    /// Of the data of this database; nothing is asked yet.
    pub fn new(db: u16) -> Self {
        Self {
            db: Bytes::from(db.to_string()),
            asked: Vec::new(),
        }
    }

    /// The reply to this command, its name first, must be one of these: an integer, a status or
    /// a string.
    #[must_use]
    pub fn and(mut self, command: &[&[u8]], wanted: &[&[u8]]) -> Self {
        self.asked.push(Question {
            command: owned(command),
            wanted: owned(wanted),
        });
        self
    }

    /// The database, as the script wants it.
    pub(super) fn db(&self) -> &[u8] {
        &self.db
    }

    /// The questions, as the script wants them: each as two lists of strings.
    pub(super) fn packed(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        out.put_u8(0xdd);
        out.put_u32(u32::try_from(2 * self.asked.len()).unwrap_or(u32::MAX));
        for question in &self.asked {
            put_strings(&mut out, question.command.iter().map(|word| &word[..]));
            put_strings(&mut out, question.wanted.iter().map(|word| &word[..]));
        }
        out.freeze()
    }

    /// Appends the questions for a connection in database 0, and returns how many replies come
    /// before the one for [`Self::holds`].
    pub fn append(&self, out: &mut BytesMut) -> u32 {
        let select = |out: &mut BytesMut, db: &[u8]| build::command(out, [b"SELECT", db]);
        out.extend_from_slice(MULTI);
        select(out, &self.db);
        for question in &self.asked {
            build::command(out, &question.command);
        }
        select(out, b"0");
        out.extend_from_slice(EXEC);
        self.asked.len() as u32 + 3
    }

    /// Whether this reply (to EXEC) gives the answers that are wanted.
    pub fn holds(&self, reply: &[u8]) -> bool {
        let answers: Vec<&[u8]> = resp::elements(reply).skip(1).collect();
        let mut pairs = self.asked.iter().zip(&answers);
        answers.len() == self.asked.len() + 1
            && pairs.all(|(question, answer)| {
                let text = text(answer);
                text.is_some_and(|text| question.wanted.iter().any(|wanted| wanted == text))
            })
    }
}

fn owned(words: &[&[u8]]) -> Vec<Bytes> {
    let words = words.iter();
    words.map(|word| Bytes::copy_from_slice(word)).collect()
}

/// What an integer, a status or a string says.
fn text(reply: &[u8]) -> Option<&[u8]> {
    resp::as_bulk(reply)
        .or_else(|| resp::as_status(reply))
        .or_else(|| {
            resp::as_int(reply)?;
            reply.get(1..reply.len() - 2)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_compared_as_text() {
        let condition = Condition::new(3)
            .and(&[b"TYPE", b"k"], &[b"list", b"none"])
            .and(&[b"EXISTS", b"k"], &[b"0"])
            .and(&[b"LINDEX", b"l", b"0"], &[b"v"]);
        let mut out = BytesMut::new();
        assert_eq!(condition.append(&mut out), 6);
        let exec = |words: &str| format!("*5\r\n+OK\r\n{words}+OK\r\n").into_bytes();
        assert!(condition.holds(&exec("+none\r\n:0\r\n$1\r\nv\r\n")));
        assert!(!condition.holds(&exec("+set\r\n:0\r\n$1\r\nv\r\n")));
        assert!(!condition.holds(&exec("+list\r\n:1\r\n$1\r\nv\r\n")));
        assert!(!condition.holds(&exec("+list\r\n:0\r\n$-1\r\n")));
        assert!(!condition.holds(&exec("+list\r\n:0\r\n-WRONGTYPE x\r\n")));
        assert!(!condition.holds(b"-LOADING x\r\n"));
    }
}

//! Replies that outlive who got them.
//!
//! A recoverer that applies a branch gets the replies its client is waiting for, perhaps at a
//! coordinator that was only slow. It leaves them in the marker, as RESP2, and that coordinator
//! finds them there. Only if they are gone (too big to be kept, or whoever applied the branch
//! died) is the client told that its transaction is committed and its replies are lost.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::attempt::Attempt;
use crate::resp::{self, build};
use crate::txn::{Event, Part, script};

/// Replies of one branch that are kept in a marker, together, at most.
const BYTES_MAX: usize = 64 * 1024;
/// Times that a coordinator looks for them, and the wait in between: who applied the branch may
/// not have come to its release.
const LOOKS: u32 = 10;
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The replies of branches that this recoverer has applied, as markers keep them.
#[derive(Clone, Default)]
pub struct Kept(Rc<RefCell<BTreeMap<Part, Bytes>>>);

impl Kept {
    /// Takes note of the replies that came with an event.
    pub fn note(&self, event: &Event, replies: Option<&[Bytes]>) {
        if let (Event::Applied(part, crate::txn::Applied::Now), Some(replies)) = (event, replies)
            && let Some(encoded) = encode(replies)
        {
            self.0.borrow_mut().insert(*part, encoded);
        }
    }

    /// What the marker of this participant is to keep.
    pub fn of(&self, part: Part) -> Option<Bytes> {
        self.0.borrow().get(&part).cloned()
    }
}

/// An array of them; None when it would be too big.
fn encode(replies: &[Bytes]) -> Option<Bytes> {
    let len: usize = replies.iter().map(Bytes::len).sum();
    if len > BYTES_MAX {
        return None;
    }
    let mut out = BytesMut::with_capacity(len + 16);
    build::array_header(&mut out, replies.len());
    replies
        .iter()
        .for_each(|reply| out.extend_from_slice(reply));
    Some(out.freeze())
}

impl Attempt {
    /// Fills in the replies of branches that others have applied. Whether all are there now.
    pub async fn find_replies(&mut self) -> bool {
        for look in 0..LOOKS {
            if look > 0 {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            for index in self.without_replies() {
                let part = self.work()[index].part;
                if let Some(replies) = self.look_for_replies(part).await {
                    self.take_stored(index, replies);
                }
            }
            if self.without_replies().is_empty() {
                return true;
            }
        }
        false
    }

    async fn look_for_replies(&self, part: Part) -> Option<Vec<Bytes>> {
        let mut request = BytesMut::new();
        script::append_read_replies(&mut request, &self.id);
        let reply = self.engine().query(part.shard, &request).await.ok()?;
        let stored = resp::as_bulk(&reply)?;
        let each = resp::elements(stored);
        Some(each.map(Bytes::copy_from_slice).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_and_reads_back() {
        let replies = [
            Bytes::from_static(b"+OK\r\n"),
            Bytes::from_static(b"*2\r\n$-1\r\n:1\r\n"),
        ];
        let encoded = encode(&replies).expect("they are small");
        let back: Vec<&[u8]> = resp::elements(&encoded).collect();
        assert_eq!(back, replies);
        assert_eq!(encode(&[Bytes::from(vec![b'x'; BYTES_MAX + 1])]), None);
    }
}

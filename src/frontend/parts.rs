//! What comes for a client: whole replies, and large ones in parts.
//!
//! Parts of the oldest slot's reply go straight into the outgoing buffer, like a whole one. Those
//! of a later slot wait in it. Nothing may come between the parts of a reply, so messages of
//! channels wait for its end; and if that never comes, only closing the connection says so.

use std::rc::Rc;
use std::task::{Context as Task, Waker};

use bytes::BytesMut;

use super::session::{EXEC, Io, MARKS, Session};
use super::slot::{Missing, Slot};
use crate::backend::{Failure, ReplySink};
use crate::engine::errors;
use crate::failpoint;
use crate::metrics::Limit;
use crate::resp::build;

/// Replies that come in parts: at most one over each connection to a shard.
#[derive(Default)]
pub(super) struct Parts {
    /// Bytes of the oldest slot's reply that have come: the client has seen its beginning.
    begun: usize,
    /// Messages that wait for its end.
    messages: BytesMut,
    /// Who goes on when the outgoing buffer is empty: connections to shards, each once.
    readers: Vec<Waker>,
}

impl Parts {
    /// Bytes of messages that wait.
    pub(super) fn waiting(&self) -> usize {
        self.messages.len()
    }

    /// There is room again.
    pub(super) fn wake(&mut self) {
        self.readers.drain(..).for_each(Waker::wake);
    }

    /// This one is to be woken when there is.
    fn wakes(&mut self, reader: &Waker) {
        if !self.readers.iter().any(|known| known.will_wake(reader)) {
            self.readers.push(reader.clone());
        }
    }
}

impl Drop for Parts {
    /// Nobody needs room any more.
    fn drop(&mut self) {
        self.wake();
    }
}

impl Io {
    /// Where a message is written that may not stand inside a reply.
    pub(super) fn between_replies(&mut self) -> &mut BytesMut {
        if self.parts.begun > 0 {
            &mut self.parts.messages
        } else {
            &mut self.out
        }
    }

    /// Bytes that have come of the reply in this slot, counted from the oldest.
    pub(super) fn begun(&self, index: u64) -> usize {
        match index {
            0 => self.parts.begun,
            _ => match self.ring.get(index as usize) {
                Some(Slot::Waiting(Missing::Rest(begun))) => begun.len(),
                _ => 0,
            },
        }
    }

    /// The oldest reply has ended.
    pub(super) fn end_parts(&mut self) {
        self.parts.begun = 0;
        if !self.parts.messages.is_empty() {
            let messages = std::mem::take(&mut self.parts.messages);
            self.out.extend_from_slice(&messages);
        }
    }

    /// The oldest slot is another: what has come for it leaves.
    pub(super) fn begin_parts(&mut self) {
        if let Some(Slot::Waiting(Missing::Rest(begun))) = self.ring.front_mut() {
            let begun = std::mem::take(&mut **begun);
            self.ready_bytes = self.ready_bytes.saturating_sub(begun.len());
            self.add_to_oldest(&begun);
        }
    }

    fn add_to_oldest(&mut self, part: &[u8]) {
        self.out.extend_from_slice(part);
        self.parts.begun += part.len();
    }
}

impl Session {
    fn index(io: &Io, number: u64) -> Option<usize> {
        let index = (number & !MARKS).checked_sub(io.head)?;
        (index < io.ring.len() as u64).then_some(index as usize)
    }

    fn add_part(self: &Rc<Self>, number: u64, part: &[u8]) {
        let mut io = self.io.borrow_mut();
        let io = &mut *io;
        match Self::index(io, number) {
            None => return,
            Some(0) => {
                io.add_to_oldest(part);
                io.reply_bytes = io.reply_bytes.max(io.parts.begun);
                self.mark_dirty(io);
            }
            Some(index) => {
                let Some(slot) = io.ring.get_mut(index) else {
                    return;
                };
                if let Slot::Waiting(Missing::All(timed)) = *slot {
                    self.took(timed, true);
                    *slot = Slot::Waiting(Missing::Rest(Box::default()));
                }
                if let Slot::Waiting(Missing::Rest(begun)) = slot {
                    begun.extend_from_slice(part);
                    io.reply_bytes = io.reply_bytes.max(begun.len());
                    io.ready_bytes += part.len();
                }
            }
        }
        if io.cut_off_if_deaf() {
            self.tally.hit(Limit::ClientOutput);
        }
    }

    /// The rest of a reply will not come; whether some of it has.
    fn is_cut_short(&self, number: u64) -> bool {
        let mut io = self.io.borrow_mut();
        let has_begun = match Self::index(&io, number) {
            Some(0) if io.parts.begun > 0 => true,
            Some(index) => matches!(io.ring.get(index), Some(Slot::Waiting(Missing::Rest(_)))),
            None => false,
        };
        if has_begun {
            io.cut_off();
        }
        has_begun
    }
}

impl ReplySink for Session {
    fn deliver(self: Rc<Self>, number: u64, reply: &[u8]) {
        if number & EXEC != 0 {
            failpoint::at("single-after-exec-before-reply");
            self.tally.exec_ended(errors::native_outcome(reply));
        }
        self.complete(number, reply);
    }

    fn takes_parts(&self, number: u64) -> bool {
        number & MARKS == 0
    }

    fn part(self: Rc<Self>, number: u64, part: &[u8]) {
        self.add_part(number, part);
    }

    fn unsent(&self, number: u64, enough: usize, task: &Task<'_>) -> usize {
        let mut io = self.io.borrow_mut();
        let unsent = match Self::index(&io, number) {
            None => 0,
            Some(0) => io.out.len(),
            Some(index) => match io.ring.get(index) {
                Some(Slot::Waiting(Missing::Rest(begun))) => begun.len(),
                _ => 0,
            },
        };
        if unsent > enough {
            io.parts.wakes(task.waker());
        }
        unsent
    }

    fn fail(self: Rc<Self>, number: u64, failure: &Failure) {
        if self.is_cut_short(number) {
            tracing::warn!(client = self.id, %failure, "closed amid a reply");
            return self.tally.refused(failure.kind());
        }
        if number & EXEC != 0 {
            self.tally.exec_ended(errors::failed_outcome(failure));
            self.tally.refused(errors::failed_kind(failure));
            return self.complete(number, &errors::failed(failure));
        }
        self.tally.refused(failure.kind());
        let mut reply = BytesMut::new();
        build::error(&mut reply, failure.to_string());
        self.complete(number, &reply);
    }
}

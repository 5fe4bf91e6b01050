//! Large replies leave while they are still coming in, so that their size is nobody's memory.
//!
//! Once [`BYTES_MIN`] of a reply are there and it is not complete, what is there is handed to
//! whoever takes it in parts, and so is the rest as it comes. Three things stand in the way:
//!
//! * *The hold rule.* The question about what settles comes behind the batch, which is behind the
//!   reply. So the same question is asked at once, on a connection of its own: the command has run,
//!   its reply is coming, so the answer is as good as the one that will follow. It also lets go
//!   whatever waits for the end of the same batch. If something settles, the reply is collected as
//!   any other. So is one behind a piece of a split read, which needs the epoch.
//! * *A client that is slow.* As long as nobody else waits for this link it is not read: the shard,
//!   and its limits, keep what the client does not take. As soon as somebody does, what comes is
//!   kept for the client, up to its own limit, as if it were whole.
//! * *A shard that falls silent, or is lost, half way.* No error can be put into the middle of a
//!   reply: the client's connection is closed.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::hold::{EXISTS_SETTLING, Isolation, NO, Receiver};
use super::link::Inner;
use super::reader::Reader;
use super::request::Expected;
use super::rules::Settling;
use super::{Cause, Link};

/// So much of a reply is collected before it is known to be large.
/// (The question about what settles costs a connection, with TLS a handshake: little beside this.)
const BYTES_MIN: usize = 2 * 1024 * 1024;
/// A client that has so much of its reply to take yet is not read for.
const UNSENT_BYTES_MAX: usize = 1024 * 1024;

/// What becomes of the reply that is coming in.
pub(super) enum Flow {
    /// It is collected: nothing else is known of it, or it must be.
    Whole,
    /// It is large; whether anything settles is being asked.
    Asking(Pin<Box<dyn Future<Output = bool>>>),
    /// It is large, and must be collected all the same.
    Collected,
    /// It leaves as it comes.
    Through {
        receiver: Receiver,
        /// Others have had a turn since the client had too much to take.
        has_yielded: bool,
    },
}

impl Flow {
    /// The reply has ended, or never will: who has had its beginning.
    pub(super) fn end(&mut self) -> Option<Receiver> {
        if matches!(self, Self::Whole) {
            return None;
        }
        match std::mem::replace(self, Self::Whole) {
            Self::Through { receiver, .. } => Some(receiver),
            _ => None,
        }
    }
}

impl Link {
    /// To be called when what has come was dealt with: hands on what there is of a large reply.
    pub(super) fn let_through(self: &Rc<Self>, reader: &mut Reader) -> Result<(), Cause> {
        match &reader.flow {
            Flow::Whole if reader.begun().len() >= BYTES_MIN => self.begin(reader),
            Flow::Through { receiver, .. } => {
                let (sink, number) = (Rc::clone(&receiver.sink), receiver.number);
                let range = reader.hand_on();
                sink.part(number, &reader.buffer[range]);
                self.inner.borrow_mut().part_at = Some(self.turn.now());
                Ok(())
            }
            Flow::Whole | Flow::Asking(_) | Flow::Collected => Ok(()),
        }
    }

    fn begin(self: &Rc<Self>, reader: &mut Reader) -> Result<(), Cause> {
        let isolation = match self.inner.borrow().pending.front() {
            Some(Expected::Reply(first))
                if first.swallow == 0
                    && reader.begun().first() != Some(&b'>')
                    && first.receiver.sink.takes_parts(first.receiver.number) =>
            {
                first.isolation
            }
            _ => Isolation::Epoch,
        };
        match isolation {
            Isolation::None if reader.hold.is_clear_of_buffer() => self.open(reader),
            Isolation::None | Isolation::Hold(_) if !reader.hold.awaits_epoch() => {
                let dial = self.dial.clone();
                let ask = async move {
                    let answer = dial.ask_apart(EXISTS_SETTLING).await;
                    answer.is_ok_and(|answer| &answer[..] == NO)
                };
                reader.flow = Flow::Asking(Box::pin(ask));
                Ok(())
            }
            _ => {
                reader.flow = Flow::Collected;
                Ok(())
            }
        }
    }

    /// Nothing keeps the reply from leaving.
    fn open(self: &Rc<Self>, reader: &mut Reader) -> Result<(), Cause> {
        if let Some(Expected::Reply(first)) = self.next_expected(reader.begun())? {
            reader.flow = Flow::Through {
                receiver: first.receiver,
                has_yielded: false,
            };
        }
        self.let_through(reader)
    }

    /// Whether a large reply is on its way to its client, and nobody else waits for this link.
    pub fn is_streaming(&self) -> bool {
        let inner = self.inner.borrow();
        (inner.is_paused || inner.part_at.is_some()) && !inner.is_wanted()
    }

    /// Ready when more may be read.
    pub(super) fn poll_flow(
        self: &Rc<Self>,
        reader: &mut Reader,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Cause>> {
        match &mut reader.flow {
            Flow::Whole | Flow::Collected => Poll::Ready(Ok(())),
            Flow::Asking(answer) => {
                let is_calm = ready!(answer.as_mut().poll(cx));
                if !is_calm {
                    reader.flow = Flow::Collected;
                    return Poll::Ready(Ok(()));
                }
                reader.hold.release(Settling::Nothing, &reader.buffer);
                self.inner.borrow_mut().held = reader.hold.held();
                let opened = self.open(reader);
                reader.compact();
                Poll::Ready(opened)
            }
            Flow::Through {
                receiver,
                has_yielded,
            } => {
                let unsent = receiver.sink.unsent(receiver.number, UNSENT_BYTES_MAX, cx);
                let mut inner = self.inner.borrow_mut();
                if std::mem::take(&mut inner.is_paused) {
                    // From now on the shard is waited for again.
                    inner.part_at = Some(self.turn.now());
                }
                if unsent <= UNSENT_BYTES_MAX {
                    *has_yielded = false;
                    return Poll::Ready(Ok(()));
                }
                if !inner.is_wanted() {
                    inner.is_paused = true;
                    inner.part_at = None;
                    return Poll::Pending;
                }
                if std::mem::replace(has_yielded, true) {
                    return Poll::Ready(Ok(()));
                }
                // What was handed on is written at the end of the turn; perhaps that is enough.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

impl Inner {
    /// Whether anybody waits for a reply that has not begun to come.
    fn is_wanted(&self) -> bool {
        let is_reply = |expected: &Expected| matches!(expected, Expected::Reply(_));
        self.pending.iter().any(is_reply)
    }
}

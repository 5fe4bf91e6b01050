//! Replies that may not leave yet: the isolation of plain commands from transactions that are
//! being applied elsewhere.
//!
//! A transaction over several shards is *settling* on a shard from its apply there until its
//! release, which comes when it has applied everywhere. Whoever sees an effect of it in that
//! time could go on to another shard and miss it there. Hence the **hold rule**: a reply to a
//! command on a key leaves only after the key was seen not settling on its shard at an instant
//! later than the command's execution.
//!
//! It costs no round trip: every batch written to a shard ends with one tiny question on the
//! same connection, which Redis answers behind the batch's commands. `EXISTS settling` as long
//! as the answer is no; `HKEYS settling` while it is not, to hold only who is concerned.
//!
//! What is isolated is the *slot*, not the key: transactions lock slots, and slots settle. So a
//! command or a MULTI/EXEC whose keys share a slot, however many they are, is as simple as one
//! with a single key: it needs no guard. (Were only keys locked, two transactions on different
//! keys of a slot could be seen in different orders by two such commands.)
//!
//! A split read needs something else, the shard's *epoch*: see [`super::link::Link::epoch`].

use std::collections::HashSet;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Sleep;

use super::ReplySink;
use super::rules::Settling;
use crate::resp;

/// Between two looks at what settles, while replies are held and nothing else is sent.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

// The questions at the end of a batch; the names are those of `txn::names`, held equal by a test
// of the engine.
pub(crate) const EXISTS_SETTLING: &[u8] = b"*2\r\n$6\r\nEXISTS\r\n$19\r\n__lockstep:settling\r\n";
pub(crate) const HKEYS_SETTLING: &[u8] = b"*2\r\n$5\r\nHKEYS\r\n$19\r\n__lockstep:settling\r\n";
pub(crate) const GET_EPOCH: &[u8] = b"*2\r\n$3\r\nGET\r\n$16\r\n__lockstep:epoch\r\n";
pub(crate) const EXISTS_INDEX: &[u8] = b"*2\r\n$6\r\nEXISTS\r\n$16\r\n__lockstep:index\r\n";
pub(super) const NO: &[u8] = b":0\r\n";

/// Who gets a reply, and under which number.
pub(super) struct Receiver {
    pub sink: Rc<dyn ReplySink>,
    pub number: u64,
}

/// What a batch ends with. Every reply of the batch was produced before the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Check {
    /// `EXISTS settling`.
    Settling,
    /// `HKEYS settling`.
    SettlingKeys,
    /// `GET epoch`.
    Epoch,
    /// `EXISTS index`, behind an epoch.
    Index,
}

/// How a reply depends on what happens on its shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Isolation {
    /// Not at all: it leaves when it comes.
    None,
    /// It is held while a key of this slot settles.
    Hold(u16),
    /// It is a piece of a split read: delivered with the epoch behind it.
    Epoch,
}

/// A reply in the incoming buffer whose batch has not ended.
struct Awaiting {
    receiver: Receiver,
    isolation: Isolation,
    frame: Range<usize>,
}

/// A reply that is held.
struct Held {
    receiver: Receiver,
    slot: u16,
    frame: Bytes,
}

/// The replies of one connection that may not leave yet.
#[derive(Default)]
pub(super) struct Hold {
    awaiting: Vec<Awaiting>,
    held: Vec<Held>,
    look_again: Option<Pin<Box<Sleep>>>,
}

impl Hold {
    /// A reply that must wait for the end of its batch. `frame` is where it lies in the buffer.
    pub(super) fn add(&mut self, receiver: Receiver, isolation: Isolation, frame: Range<usize>) {
        self.awaiting.push(Awaiting {
            receiver,
            isolation,
            frame,
        });
    }

    /// Whether nothing refers to the buffer.
    pub(super) fn is_clear_of_buffer(&self) -> bool {
        self.awaiting.is_empty()
    }

    /// Replies that are held.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether pieces of split reads wait for the end of their batch.
    pub(super) fn awaits_epoch(&self) -> bool {
        let is_piece = |awaiting: &Awaiting| awaiting.isolation == Isolation::Epoch;
        self.awaiting.iter().any(is_piece)
    }

    /// A batch has ended with this look at what settles: who may leave does.
    pub(super) fn release(&mut self, settling: Settling<'_>, buffer: &[u8]) {
        if settling == Settling::Nothing {
            self.look_again = None;
        }
        for held in std::mem::take(&mut self.held) {
            if settling.may_leave(held.slot) {
                held.receiver
                    .sink
                    .deliver(held.receiver.number, &held.frame);
            } else {
                self.held.push(held);
            }
        }
        self.release_awaiting(settling, buffer);
    }

    /// What may not leave yet is held; but errors that tell that nothing was done always may.
    fn release_awaiting(&mut self, settling: Settling<'_>, buffer: &[u8]) {
        for Awaiting {
            receiver,
            isolation,
            frame,
        } in self.awaiting.drain(..)
        {
            let bytes = buffer.get(frame).unwrap_or_default();
            match isolation {
                Isolation::Hold(slot) if !settling.may_leave(slot) && !tells_nothing(bytes) => {
                    self.held.push(Held {
                        receiver,
                        slot,
                        frame: Bytes::copy_from_slice(bytes),
                    });
                }
                _ => receiver.sink.deliver(receiver.number, bytes),
            }
        }
    }

    /// The answer to [`Check::Epoch`]: pieces of split reads leave with it.
    pub(super) fn tell_epoch(&mut self, epoch: Option<&[u8]>, buffer: &[u8]) {
        let awaiting = std::mem::take(&mut self.awaiting);
        for Awaiting {
            receiver,
            isolation,
            frame,
        } in awaiting
        {
            if isolation == Isolation::Epoch {
                let bytes = buffer.get(frame).unwrap_or_default();
                receiver.sink.deliver_at(receiver.number, bytes, epoch);
            } else {
                self.awaiting.push(Awaiting {
                    receiver,
                    isolation,
                    frame,
                });
            }
        }
    }

    /// Whether it is time to look again at what settles; arranges to be woken for it.
    pub(super) fn poll_look_again(&mut self, cx: &mut Context<'_>) -> bool {
        if self.held.is_empty() {
            return false;
        }
        let timer = self
            .look_again
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(LOOK_AGAIN)));
        let is_due = timer.as_mut().poll(cx) == Poll::Ready(());
        if is_due {
            self.look_again = None;
        }
        is_due
    }

    /// Everybody whose reply is here: the connection is gone.
    pub(super) fn into_receivers(self) -> impl Iterator<Item = Receiver> {
        let awaiting = self.awaiting.into_iter().map(|awaiting| awaiting.receiver);
        awaiting.chain(self.held.into_iter().map(|held| held.receiver))
    }
}

/// Errors that say that the server has not looked at any data.
fn tells_nothing(frame: &[u8]) -> bool {
    const BEFORE: [&[u8]; 8] = [
        b"BUSY",
        b"EXECABORT",
        b"LOADING",
        b"OOM",
        b"READONLY",
        b"MISCONF",
        b"MASTERDOWN",
        b"NOPERM",
    ];
    resp::is_error(frame) && {
        let code = resp::error_text(frame)
            .split(|b| *b == b' ')
            .next()
            .unwrap_or_default();
        BEFORE.contains(&code)
    }
}

/// What settles, by the answer to [`Check::SettlingKeys`]: slots as decimal text. None when all of
/// them do: a FLUSHALL, or an entry that is not understood.
pub(super) fn slots(frame: &[u8]) -> Option<HashSet<u16>> {
    let slot = |entry| {
        std::str::from_utf8(resp::as_bulk(entry)?)
            .ok()?
            .parse()
            .ok()
    };
    resp::elements(frame).map(slot).collect()
}

//! The incoming half of a link: bytes, framed into replies.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::hold::Hold;
use super::stream::Flow;
use crate::resp::{Limits, ReplyError, ReplyScanner};

/// Buffers start at this size, and return to it when they are empty.
pub(super) const BUFFER_BYTES_MIN: usize = 8 * 1024;
/// A single read asks for at most this much.
pub(super) const READ_BYTES_MAX: usize = 64 * 1024;

/// Owned by the link's task.
pub(super) struct Reader {
    pub(super) buffer: BytesMut,
    scanner: ReplyScanner,
    pub(super) hold: Hold,
    /// Whether the reply that is coming in leaves meanwhile.
    pub(super) flow: Flow,
    /// The epoch that was read last, until the index behind it is.
    pub(super) epoch: Option<Bytes>,
    /// Bytes at the beginning of the buffer that were scanned.
    done: usize,
    /// How much the next read asks for.
    room: usize,
}

impl Reader {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            buffer: BytesMut::with_capacity(BUFFER_BYTES_MIN),
            scanner: ReplyScanner::new(limits),
            hold: Hold::default(),
            flow: Flow::Whole,
            epoch: None,
            done: 0,
            room: BUFFER_BYTES_MIN,
        }
    }

    pub(super) fn make_room(&mut self) {
        if self.buffer.len() == self.buffer.capacity() {
            // The last read filled what there was: more is coming.
            self.room = (self.room * 2).min(READ_BYTES_MAX);
        }
        if self.buffer.capacity() - self.buffer.len() < self.room / 2 {
            self.buffer.reserve(self.room);
        }
    }

    /// Where the next complete reply lies.
    pub(super) fn next(&mut self) -> Result<Option<Range<usize>>, ReplyError> {
        let start = self.done;
        Ok(self.scanner.scan(&self.buffer[start..])?.map(|len| {
            self.done += len;
            start..self.done
        }))
    }

    /// What there is of a reply that is not complete.
    pub(super) fn begun(&self) -> &[u8] {
        &self.buffer[self.done..]
    }

    /// Takes away what can be handed on of the reply that is not complete.
    pub(super) fn hand_on(&mut self) -> Range<usize> {
        let start = self.done;
        self.done += self.scanner.hand_on();
        start..self.done
    }

    /// Drops what was handed out, unless some of it is still referred to.
    pub(super) fn compact(&mut self) {
        if !self.hold.is_clear_of_buffer() {
            return;
        }
        bytes::Buf::advance(&mut self.buffer, std::mem::take(&mut self.done));
        if self.buffer.is_empty() && self.buffer.capacity() > READ_BYTES_MAX {
            self.room = BUFFER_BYTES_MIN;
            self.buffer = BytesMut::with_capacity(self.room);
        }
    }
}

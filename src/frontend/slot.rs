//! What a session keeps of a command until its reply leaves.

use std::time::Instant;

use bytes::BytesMut;

use super::session::Session;

/// Of the commands that a client has sent, one.
pub(super) enum Slot {
    /// Its reply has not come in.
    Waiting(Missing),
    /// Its reply must wait for others.
    Ready(Box<[u8]>),
    /// The same; it is in [`Kept`], from this byte on, so long.
    Kept(u32, u32),
}

/// Small replies that must wait for others, back to back: one allocation for many.
#[derive(Default)]
pub(super) struct Kept {
    bytes: Vec<u8>,
    /// Replies that are still wanted.
    replies: usize,
}

/// So much is kept in one place; what is beyond it has a place of its own.
const KEPT_BYTES_MAX: usize = 16 * 1024;
const KEPT_BYTES_AT_FIRST: usize = 1024;

impl Kept {
    /// What becomes of a slot that waited for this, the last part of its reply, and must wait on.
    pub(super) fn ready(&mut self, slot: &mut Slot, rest: &[u8]) -> Slot {
        if let Slot::Waiting(Missing::Rest(begun)) = slot {
            let mut reply = std::mem::take(&mut **begun);
            reply.extend_from_slice(rest);
            return Slot::ready(reply);
        }
        let start = self.bytes.len();
        if start + rest.len() > KEPT_BYTES_MAX {
            return Slot::Ready(rest.into());
        }
        if start == 0 {
            self.bytes.reserve(KEPT_BYTES_AT_FIRST);
        }
        self.bytes.extend_from_slice(rest);
        self.replies += 1;
        Slot::Kept(start as u32, rest.len() as u32)
    }

    /// A reply that was kept leaves, to there.
    pub(super) fn leave(&mut self, (start, len): (u32, u32), out: &mut BytesMut) {
        let (start, len) = (start as usize, len as usize);
        let reply = self.bytes.get(start..start + len);
        out.extend_from_slice(reply.unwrap_or_default());
        self.replies = self.replies.saturating_sub(1);
        if self.replies == 0 {
            self.bytes.clear();
        }
    }

    /// Nobody waits: the memory is given back.
    pub(super) fn free(&mut self) {
        *self = Self::default();
    }
}

/// What is missing of a reply. (Apart from [`Slot`], which would be larger with one more kind.)
pub(super) enum Missing {
    /// All of it.
    All(Timed),
    /// What comes behind this, which must wait for others.
    Rest(Box<BytesMut>),
}

/// Which command it is, and when it came: for [`super::latency`].
#[derive(Clone, Copy)]
pub(super) struct Timed {
    /// See [`crate::keyspace::CommandSpec::id`].
    pub(super) id: u32,
    pub(super) since: Instant,
}

/// No command: there is nothing to time.
pub(super) const NO_COMMAND: u32 = u32::MAX;

impl Slot {
    /// With this reply, which must wait for others.
    pub(super) fn ready(reply: BytesMut) -> Self {
        Self::Ready(Vec::from(reply).into())
    }
}

impl Session {
    /// The time of this command is to be taken.
    pub(super) fn times(&self, id: usize) {
        self.command.set(id as u32);
    }

    /// What is dealt with counts as no command, or no more.
    pub(super) fn times_nothing(&self) {
        self.command.set(NO_COMMAND);
    }

    /// What is dealt with, for its first slot.
    pub(super) fn timed(&self) -> Timed {
        Timed {
            id: self.command.replace(NO_COMMAND),
            since: self.read_at.get(),
        }
    }

    /// What was waited for is there.
    pub(super) fn answered(&self, slot: &Slot) {
        if let Slot::Waiting(Missing::All(timed)) = slot {
            self.took(*timed, true);
        }
    }

    /// The reply is there.
    pub(super) fn took(&self, timed: Timed, is_sent: bool) {
        if timed.id == NO_COMMAND {
            return;
        }
        let asked = is_sent.then(|| self.turn.asked_at());
        let (now, watch) = (self.turn.now(), &self.tally.stopwatch);
        watch.note(timed.id, timed.since, now, asked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There may be very many.
    #[test]
    fn what_is_timed_takes_no_room() {
        assert_eq!(size_of::<Slot>(), 32);
    }

    /// What is kept is bounded, comes as it was, and its place is used again.
    #[test]
    fn replies_are_kept_back_to_back() {
        let mut kept = Kept::default();
        let waiting = || Slot::Waiting(Missing::Rest(Box::new(BytesMut::from(&b"+O"[..]))));
        assert!(
            matches!(kept.ready(&mut waiting(), b"K\r\n"), Slot::Ready(all) if all[..] == *b"+OK\r\n")
        );
        for _ in 0..3 {
            let mut slots = Vec::new();
            let mut other = Slot::Ready(Box::default());
            for number in 0..400 {
                slots.push(kept.ready(&mut other, format!("{number:50}").as_bytes()));
            }
            assert!(kept.bytes.len() <= KEPT_BYTES_MAX);
            assert!(matches!(slots[0], Slot::Kept(0, 50)) && matches!(slots[399], Slot::Ready(_)));
            for (number, slot) in slots.iter().enumerate() {
                let mut out = BytesMut::new();
                match slot {
                    Slot::Kept(start, len) => kept.leave((*start, *len), &mut out),
                    Slot::Ready(reply) => out.extend_from_slice(reply),
                    Slot::Waiting(_) => unreachable!("all are there"),
                }
                assert_eq!(out, format!("{number:50}"));
            }
            assert!(kept.bytes.is_empty());
        }
    }
}

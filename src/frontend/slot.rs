//! What a session keeps of a command until its reply leaves.

use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::session::Session;

/// Of the commands that a client has sent, one.
pub(super) enum Slot {
    /// Its reply has not come in.
    Waiting(Missing),
    /// Its reply must wait for others.
    Ready(Bytes),
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
    /// The whole reply, of which this is the last part; the others are here.
    pub(super) fn whole(&mut self, rest: &[u8]) -> Bytes {
        match self {
            Self::Waiting(Missing::Rest(begun)) => {
                let mut reply = std::mem::take(&mut **begun);
                reply.extend_from_slice(rest);
                reply.freeze()
            }
            _ => Bytes::copy_from_slice(rest),
        }
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
        assert_eq!(size_of::<Slot>(), size_of::<Bytes>());
    }
}

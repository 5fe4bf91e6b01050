//! A split read: one request per shard, one reply to the client when all are there.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use super::session::Session;
use crate::backend::{Failure, ReplySink};
use crate::keyspace::Split;
use crate::resp::{Command, build};
use crate::txn::plan;

/// Collects the replies to the pieces of one command.
pub struct Gather {
    session: Rc<Session>,
    slot: u64,
    split: Split,
    keys: usize,
    state: RefCell<State>,
}

struct State {
    pieces: Vec<(Bytes, Vec<usize>)>,
    missing: usize,
}

impl Gather {
    /// For these pieces (see [`plan::pieces`]); the reply goes into this slot.
    pub fn new(
        session: Rc<Session>,
        slot: u64,
        split: Split,
        pieces: Vec<(u16, Vec<usize>)>,
    ) -> Rc<Self> {
        let keys = pieces.iter().map(|(_, positions)| positions.len()).sum();
        let pieces: Vec<_> = pieces
            .into_iter()
            .map(|(_, positions)| (Bytes::new(), positions))
            .collect();
        let missing = pieces.len();
        Rc::new(Self {
            session,
            slot,
            split,
            keys,
            state: RefCell::new(State { pieces, missing }),
        })
    }

    /// Appends the request for a piece.
    pub fn encode(&self, out: &mut BytesMut, piece: usize, command: &Command<'_>) {
        plan::encode_piece(
            out,
            self.split,
            command,
            &self.state.borrow().pieces[piece].1,
        );
    }

    /// A piece could not be sent.
    pub fn refuse(&self, piece: usize, failure: &Failure) {
        let mut reply = BytesMut::new();
        build::error(&mut reply, failure.to_string());
        self.take(piece, reply.freeze());
    }

    fn take(&self, piece: usize, reply: Bytes) {
        let mut state = self.state.borrow_mut();
        let Some(place) = state.pieces.get_mut(piece) else {
            return;
        };
        place.0 = reply;
        state.missing -= 1;
        if state.missing == 0 {
            let mut out = BytesMut::new();
            let pieces = state
                .pieces
                .iter()
                .map(|(reply, positions)| (&reply[..], &positions[..]));
            plan::merge(self.split, self.keys, pieces, &mut out);
            self.session.complete(self.slot, &out);
        }
    }
}

impl ReplySink for Gather {
    fn deliver(self: Rc<Self>, number: u64, reply: &[u8]) {
        self.take(number as usize, Bytes::copy_from_slice(reply));
    }

    fn fail(self: Rc<Self>, number: u64, failure: &Failure) {
        self.refuse(number as usize, failure);
    }
}

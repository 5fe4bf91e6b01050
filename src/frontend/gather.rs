//! A read over several slots, perhaps on several shards, that is consistent with all
//! transactions: one request per shard, in one round trip.
//!
//! With every piece comes the shard's epoch as it was behind the piece. If on every shard it is
//! the one that was known, with an empty index, before the first piece was sent anywhere, then
//! no transaction over several shards was under way on any of them all that time, and the
//! pieces belong together. Otherwise the pieces are read again, against the epochs that came
//! with them. Only after some tries the read becomes a transaction, behind locks: locks move the
//! epoch, so reads that took them at once would drive each other to it.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use super::Context;
use super::session::Session;
use crate::backend::{Failure, How, Isolation, ReplySink, rules};
use crate::engine::Answer;
use crate::engine::lanes::Links;
use crate::keyspace::Split;
use crate::metrics::ErrorKind;
use crate::resp::{self, Command, CommandScanner, Lane, Limits, Scan, build};
use crate::txn::plan::{self, Plan};
use crate::txn::types::Part;

/// Times that the pieces are read before locks are taken.
const TRIES_MAX: u32 = 4;

/// How the command is spread.
pub enum Pieces {
    /// As a whole, to one shard.
    Whole(u16),
    /// In pieces: by shard, the numbers of its keys.
    Split(Split, Vec<(u16, Vec<usize>)>),
}

/// Collects the replies to the pieces of one command.
pub struct Gather {
    context: Rc<Context>,
    lane: Lane,
    links: Links,
    session: Rc<Session>,
    slot: u64,
    split: Option<Split>,
    /// To be repeated, if need be; with its keys, if it is not split.
    command: Bytes,
    keys: Vec<usize>,
    state: RefCell<State>,
}

struct State {
    pieces: Vec<Piece>,
    missing: usize,
    tries: u32,
    /// An error of our own that stands for a piece.
    failed: Option<ErrorKind>,
}

struct Piece {
    shard: u16,
    positions: Vec<usize>,
    /// Known before the first piece was sent.
    epoch: Option<Bytes>,
    reply: Bytes,
    is_consistent: bool,
}

impl Gather {
    /// Sends the pieces; the reply goes into this slot of the session.
    pub fn start(
        context: Rc<Context>,
        on: (Lane, Links),
        session: Rc<Session>,
        slot: u64,
        pieces: Pieces,
        command: &Command<'_>,
        keys: &[usize],
    ) {
        let (split, pieces) = match pieces {
            Pieces::Whole(shard) => (None, vec![(shard, Vec::new())]),
            Pieces::Split(split, pieces) => (Some(split), pieces),
        };
        let (lane, links) = on;
        let strict = context.engine.is_strict();
        let piece = |(shard, positions)| Piece {
            epoch: links[usize::from(shard)].epoch(),
            shard,
            positions,
            reply: Bytes::new(),
            is_consistent: !strict,
        };
        let pieces: Vec<Piece> = pieces.into_iter().map(piece).collect();
        let mut raw = BytesMut::new();
        command.encode(&mut raw);
        let gather = Rc::new(Self {
            lane,
            links,
            session,
            slot,
            split,
            command: raw.freeze(),
            keys: keys.to_vec(),
            state: RefCell::new(State {
                missing: pieces.len(),
                failed: None,
                pieces,
                tries: 1,
            }),
            context,
        });
        gather.send(
            command,
            if strict {
                Isolation::Epoch
            } else {
                Isolation::None
            },
        );
    }

    fn send(self: Rc<Self>, command: &Command<'_>, isolation: Isolation) {
        let requests: Vec<(u16, BytesMut)> = self
            .state
            .borrow()
            .pieces
            .iter()
            .map(|piece| (piece.shard, self.encode(command, piece)))
            .collect();
        for (number, (shard, request)) in requests.iter().enumerate() {
            let link = &self.links[usize::from(*shard)];
            let sink = Rc::<Self>::clone(&self);
            if let Err(failure) =
                link.send(&[request], How::isolated(isolation), sink, number as u64)
            {
                self.refuse(number, &failure);
            }
        }
    }

    fn encode(&self, command: &Command<'_>, piece: &Piece) -> BytesMut {
        let mut out = BytesMut::new();
        match self.split {
            Some(split) => plan::encode_piece(&mut out, split, command, &piece.positions),
            None => command.encode(&mut out),
        }
        out
    }

    /// A piece failed: so does the command, whatever the others say.
    fn refuse(self: &Rc<Self>, number: usize, failure: &Failure) {
        let mut reply = BytesMut::new();
        build::error(&mut reply, failure.to_string());
        self.state.borrow_mut().failed = Some(failure.kind());
        self.take(number, reply.freeze(), true);
    }

    fn take(self: &Rc<Self>, number: usize, reply: Bytes, is_consistent: bool) {
        if self.is_last(number, reply, is_consistent) {
            let state = self.state.borrow();
            let mut replies = state.pieces.iter().map(|piece| &piece.reply);
            let is_final = state.pieces.iter().all(|piece| piece.is_consistent)
                || replies.any(|reply| resp::is_error(reply));
            if is_final {
                self.complete(&state);
            } else if state.tries < TRIES_MAX {
                tokio::task::spawn_local(Rc::clone(self).read_again());
            } else {
                self.repeat_behind_locks(&state);
            }
        }
    }

    /// Reads the pieces again, once the answers that came with the last ones were taken in.
    async fn read_again(self: Rc<Self>) {
        tokio::task::yield_now().await;
        {
            let mut state = self.state.borrow_mut();
            state.tries += 1;
            state.missing = state.pieces.len();
            for piece in &mut state.pieces {
                piece.epoch = self.links[usize::from(piece.shard)].epoch();
            }
        }
        let raw = self.command.clone();
        let mut scanner = CommandScanner::new(scanned_before());
        if let Ok(Scan::Command { .. }) = scanner.scan(&raw) {
            self.send(&scanner.command(&raw), Isolation::Epoch);
        }
    }

    /// Notes the reply to a piece; whether all are there now.
    fn is_last(&self, number: usize, reply: Bytes, is_consistent: bool) -> bool {
        let mut state = self.state.borrow_mut();
        let Some(piece) = state.pieces.get_mut(number) else {
            return false;
        };
        piece.reply = reply;
        piece.is_consistent |= is_consistent;
        state.missing -= 1;
        state.missing == 0
    }

    fn complete(&self, state: &State) {
        if let Some(kind) = state.failed {
            self.context.metrics.errors[kind].increment(1);
        }
        let pieces = state
            .pieces
            .iter()
            .map(|piece| (&piece.reply[..], &piece.positions[..]));
        let Some(split) = self.split else {
            return pieces
                .take(1)
                .for_each(|(reply, _)| self.session.complete(self.slot, reply));
        };
        let keys = state.pieces.iter().map(|piece| piece.positions.len()).sum();
        let mut out = BytesMut::new();
        plan::merge(split, keys, pieces, self.lane.protocol, &mut out);
        self.session.complete(self.slot, &out);
    }

    fn repeat_behind_locks(&self, state: &State) {
        let mut scanner = CommandScanner::new(scanned_before());
        // What was sent was scanned before; it is as it was.
        let Ok(Scan::Command { .. }) = scanner.scan(&self.command) else {
            return;
        };
        let command = scanner.command(&self.command);
        let mut plan = Plan::new(self.lane.protocol);
        match self.split {
            Some(split) => plan.add_split(split, self.lane.db, &self.context.topology, &command),
            None => {
                let shard = state.pieces.first().map_or(0, |piece| piece.shard);
                let place = Part {
                    shard,
                    db: self.lane.db,
                };
                plan.add_whole(place, &command, &self.keys);
            }
        }
        let (session, slot) = (Rc::clone(&self.session), self.slot);
        self.context
            .engine
            .transact(plan, Answer::Bare, move |reply| {
                session.complete(slot, reply)
            });
    }
}

/// Limits for what passed the client's own.
pub(super) fn scanned_before() -> Limits {
    Limits {
        command_bytes_max: usize::MAX,
        bulk_bytes_max: usize::MAX,
        inline_bytes_max: usize::MAX,
        ..Limits::default()
    }
}

impl ReplySink for Gather {
    fn deliver(self: Rc<Self>, number: u64, reply: &[u8]) {
        self.take(number as usize, Bytes::copy_from_slice(reply), false);
    }

    fn deliver_at(self: Rc<Self>, number: u64, reply: &[u8], epoch: Option<&[u8]>) {
        let known = self
            .state
            .borrow()
            .pieces
            .get(number as usize)
            .and_then(|piece| piece.epoch.clone());
        // An epoch that was never moved is known as the empty text.
        let is_consistent = rules::is_consistent(known.as_deref(), epoch.unwrap_or_default());
        self.take(
            number as usize,
            Bytes::copy_from_slice(reply),
            is_consistent,
        );
    }

    fn fail(self: Rc<Self>, number: u64, failure: &Failure) {
        self.refuse(number as usize, failure);
    }
}

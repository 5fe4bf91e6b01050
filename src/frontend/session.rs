//! A session: what a client is still owed.
//!
//! Every command gets the next *slot* of a ring, whoever will answer it: a shard, lockstep
//! itself, or a transaction. Replies fill slots in any order, and leave in the order of the
//! slots. A reply to the oldest slot goes straight into the outgoing buffer.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context as Task, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::AsyncReadExt;

use super::lane::Replies;
use super::parts::Parts;
use super::slot::{Kept, Missing, NO_COMMAND, Slot};
use super::subscriber::Patience;
use super::tally::Tally;
use super::traced::Traces;
pub use super::want::Want;
use crate::metrics::Limit;
use crate::resp::Lane;
use crate::resp::build;
use crate::transport::Stream;
use crate::turn::{Flush, Turn};

/// The outgoing buffer shrinks back to nothing when it is empty and larger than this.
const OUT_BYTES_KEPT: usize = 16 * 1024;
/// Replies that may be missing before any has come. With each one that comes there may be one
/// more, so that a client cannot ask for much before it is known how large its replies are.
const WINDOW_AT_FIRST: usize = 16;
/// A client is cut off when this many times `bytes_max` are owed to it.
const CUT_OFF_TIMES: usize = 4;
/// Set in the number of a slot whose command is an EXEC: its failure is told differently.
pub(super) const EXEC: u64 = 1 << 63;
/// Set in the number of a slot whose reply the client does not want.
const MUTED: u64 = 1 << 62;
/// Set in the number of a slot whose command is traced.
const TRACED: u64 = 1 << 61;
/// All of these.
pub(super) const MARKS: u64 = EXEC | MUTED | TRACED;

/// The half of a connection that others see: replies come in here.
pub struct Session {
    /// Unique in the process; `CLIENT ID`.
    pub id: u64,
    pub(super) turn: Rc<Turn>,
    pub(super) tally: Rc<Tally>,
    /// When the client was last read from or written to.
    active_at: Cell<Instant>,
    /// The command that is being dealt with, if its time is to be taken, and when it was read.
    pub(super) command: Cell<u32>,
    pub(super) read_at: Cell<Instant>,
    /// Whether the next command needs more than usual: some of what follows is set.
    pub(super) is_special: Cell<bool>,
    pub(super) replies: Cell<Replies>,
    /// To be entered before the next command.
    pub(super) lane: Cell<Option<Lane>>,
    /// Whether messages of channels may come for it at any time.
    is_listening: Cell<bool>,
    pub(super) traces: Traces,
    /// Bytes of input that the client's task keeps.
    input_bytes: Cell<usize>,
    pub(super) io: RefCell<Io>,
}

pub(super) struct Io {
    stream: Stream,
    pub(super) out: BytesMut,
    pub(super) parts: Parts,
    /// Bytes of `out`, if that is all there is in it, that say no more than that a command was
    /// queued: see [`Session::acknowledge`].
    acknowledged: usize,
    pub(super) ring: VecDeque<Slot>,
    kept: Kept,
    /// Bytes of replies in the ring.
    pub(super) ready_bytes: usize,
    /// Bytes of a reply, as they have been lately: a large one is remembered for a while.
    pub(super) reply_bytes: usize,
    /// Replies that may be missing.
    window: usize,
    /// Bytes of replies that may be kept; see [`Session::new`].
    bytes_max: usize,
    /// Number of the slot at the front of the ring.
    pub(super) head: u64,
    task: Option<Waker>,
    is_dirty: bool,
    /// The task wants to be woken when the ring has become this short, or the output.
    wants: Option<Want>,
    /// The last write stopped half way: the task is woken when the socket takes more.
    is_blocked: bool,
    pub(super) failed: Option<io::ErrorKind>,
    /// Since when more messages wait than a subscriber may let wait for long.
    full_since: Option<Instant>,
}

impl Session {
    /// A session over this connection. `bytes_max`: no more commands are handled while more than
    /// that is owed to the client, or expected to be. A client to which several times that much
    /// is owed all the same is cut off, as redis-server does.
    pub fn new(
        id: u64,
        stream: Stream,
        turn: Rc<Turn>,
        tally: Rc<Tally>,
        bytes_max: usize,
    ) -> Rc<Self> {
        let io = Io {
            stream,
            out: BytesMut::new(),
            parts: Parts::default(),
            acknowledged: 0,
            ring: VecDeque::new(),
            kept: Kept::default(),
            ready_bytes: 0,
            reply_bytes: 0,
            window: WINDOW_AT_FIRST,
            bytes_max,
            head: 0,
            task: None,
            is_dirty: false,
            wants: None,
            is_blocked: false,
            failed: None,
            full_since: None,
        };
        Rc::new(Self {
            id,
            active_at: Cell::new(turn.tick()),
            command: Cell::new(NO_COMMAND),
            read_at: Cell::new(turn.now()),
            is_special: Cell::new(false),
            replies: Cell::default(),
            lane: Cell::new(None),
            is_listening: Cell::new(false),
            traces: Traces::default(),
            input_bytes: Cell::new(0),
            turn,
            tally,
            io: RefCell::new(io),
        })
    }

    /// Takes the next slot; its number is for [`ReplySink`](crate::backend::ReplySink).
    pub fn open_slot(&self) -> u64 {
        let mut io = self.io.borrow_mut();
        io.ring.push_back(Slot::Waiting(Missing::All(self.timed())));
        let muted = if self.is_muted() { MUTED } else { 0 };
        let number = io.head + io.ring.len() as u64 - 1;
        if self.traces.is_next() {
            self.traces.attach(number);
            return number | muted | TRACED;
        }
        number | muted
    }

    /// A slot for an EXEC that runs natively on a shard.
    pub fn open_exec_slot(&self) -> u64 {
        self.open_slot() | EXEC
    }

    /// The same, for what a client is told whatever replies it wants; and the slot's number for
    /// what it is told only if it wants replies.
    pub fn open_loud_slot(&self) -> (u64, u64) {
        let slot = self.open_slot();
        (slot & !MUTED, slot)
    }

    /// Whether nothing was asked for behind this slot.
    pub fn is_last(&self, number: u64) -> bool {
        let io = self.io.borrow();
        (number & !MARKS) + 1 == io.head + io.ring.len() as u64
    }

    /// Gives back the slot that was opened last, since nothing was sent after all.
    pub fn drop_slot(&self) {
        let mut io = self.io.borrow_mut();
        io.ring.pop_back();
        self.traces.detach(io.head + io.ring.len() as u64);
    }

    /// Answers the next command at once, in its place.
    pub fn reply(self: &Rc<Self>, write: impl FnOnce(&mut BytesMut)) {
        self.took(self.timed(), false);
        if !self.is_muted() {
            self.tell(write);
        }
    }

    /// The same with what a client is told whatever replies it wants.
    pub fn tell(self: &Rc<Self>, write: impl FnOnce(&mut BytesMut)) {
        let mut io = self.io.borrow_mut();
        if io.ring.is_empty() {
            write(&mut io.out);
            self.mark_dirty(&mut io);
        } else {
            let mut reply = BytesMut::new();
            write(&mut reply);
            io.ready_bytes += reply.len();
            io.ring.push_back(Slot::ready(reply));
        }
    }

    /// The same for MULTI and for what it queues. If the EXEC has come as well, in the same read,
    /// this leaves together with the reply to it: a send costs more than all the rest.
    pub fn acknowledge(self: &Rc<Self>, text: &str) {
        let before = self.io.borrow().out.len();
        self.reply(|out| build::status(out, text));
        let mut io = self.io.borrow_mut();
        if io.acknowledged == before {
            io.acknowledged = io.out.len();
        }
    }

    /// Fills a slot.
    pub fn complete(self: &Rc<Self>, number: u64, reply: &[u8]) {
        let mut io = self.io.borrow_mut();
        let io = &mut *io;
        let Some(index) = (number & !MARKS).checked_sub(io.head) else {
            return;
        };
        if number & TRACED != 0 {
            let asked_at = self.turn.asked_at();
            // The rest of one that has begun to leave is no error, whatever it begins with.
            let whole = if io.begun(index) > 0 { b"" } else { reply };
            self.traces.end(number & !MARKS, whole, asked_at);
        }
        let reply = if number & MUTED == 0 { reply } else { b"" };
        io.learn(io.begun(index) + reply.len());
        if index > 0 {
            if let Some(slot) = io.ring.get_mut(index as usize) {
                io.ready_bytes += reply.len();
                self.answered(slot);
                *slot = io.kept.ready(slot, reply);
            }
        } else if let Some(slot) = io.ring.pop_front() {
            self.answered(&slot);
            io.out.extend_from_slice(reply);
            io.head += 1;
            io.end_parts();
            io.drain_ring();
            self.mark_dirty(io);
            io.wake_if_wanted();
        }
        if io.cut_off_if_deaf() {
            self.tally.hit(Limit::ClientOutput);
        }
    }

    pub(super) fn mark_dirty(self: &Rc<Self>, io: &mut Io) {
        self.turn.marks();
        if !io.is_dirty {
            io.is_dirty = true;
            self.turn.client_is_dirty(Rc::<Self>::clone(self));
        }
    }

    /// Whether the wanted state is there; if not, the task will be woken when it is.
    pub fn is_now(&self, want: Want) -> bool {
        let mut io = self.io.borrow_mut();
        let is_now = io.is_now(want);
        io.wants = (!is_now).then_some(want);
        is_now
    }

    /// Whether nothing is owed and everything was sent.
    pub fn is_finished(&self) -> bool {
        let io = self.io.borrow();
        io.ring.is_empty() && io.out.is_empty()
    }

    /// Ends a connection on which nothing has moved for so long, unless something is owed to
    /// the client; whether it did.
    pub fn close_if_idle(&self, now: Instant, limit: Duration) -> bool {
        let idle_for = now.saturating_duration_since(self.active_at.get());
        if idle_for < limit || !self.is_finished() || self.is_listening.get() {
            return false;
        }
        let known = self.io.borrow_mut().failed.replace(io::ErrorKind::TimedOut);
        if known.is_some() {
            return false;
        }
        self.wake();
        true
    }

    /// Whether it is subscribed to anything.
    pub(super) fn is_listening(&self) -> bool {
        self.is_listening.get()
    }

    /// Whether messages may come at any time: such a client is never idle.
    pub fn listens(&self, is_listening: bool) {
        self.is_listening.set(is_listening);
    }

    /// Writes a message, between replies. A client to which too much is owed then is cut off.
    pub fn push(self: &Rc<Self>, write: impl FnOnce(&mut BytesMut), patience: &Patience) {
        let mut io = self.io.borrow_mut();
        if io.failed.is_some() {
            return;
        }
        write(io.between_replies());
        self.mark_dirty(&mut io);
        self.cut_off_if_slow(&mut io, patience);
    }

    /// Cuts a listener off that has let too much pile up for too long. Called now and then.
    pub fn check_patience(&self, patience: &Patience) {
        if self.is_listening.get() {
            self.cut_off_if_slow(&mut self.io.borrow_mut(), patience);
        }
    }

    fn cut_off_if_slow(&self, io: &mut Io, patience: &Patience) {
        let (waiting, now) = (io.out.len() + io.parts.waiting(), self.turn.now());
        if waiting <= patience.soft_bytes.min(patience.hard_bytes) {
            io.full_since = None;
            return;
        }
        let since = *io.full_since.get_or_insert(now);
        let is_over = waiting > patience.hard_bytes
            || now.saturating_duration_since(since) > patience.soft_time;
        if is_over && io.failed.is_none() {
            io.cut_off();
            self.tally.hit(Limit::PubsubOutput);
            tracing::warn!(
                client = self.id,
                waiting,
                "a subscriber takes its messages too slowly"
            );
        }
    }

    /// The limit of the settings that keeps a client from having this room, if one does. (There
    /// may be none: replies are waited for until their size is known, too.)
    pub fn limit_hit(&self, want: Want) -> Option<Limit> {
        let io = self.io.borrow();
        match want {
            Want::Room { slots, .. } if io.ring.len() > slots => Some(Limit::ClientInflight),
            Want::Room { bytes, .. } if io.out.len() > bytes || io.expects_too_much() => {
                Some(Limit::ClientOutput)
            }
            _ => None,
        }
    }

    /// So much input is kept.
    pub fn keeps(&self, input_bytes: usize) {
        self.input_bytes.set(input_bytes);
    }

    /// Bytes that wait here, of what the client has sent and of what it is owed.
    pub fn kept(&self) -> usize {
        let io = self.io.borrow();
        self.input_bytes.get() + io.out.len() + io.ready_bytes
    }

    /// Cuts the client off, with all that it is owed.
    pub fn evict(&self) {
        let mut io = self.io.borrow_mut();
        if io.failed.is_none() {
            io.cut_off();
        }
    }

    /// When the client was last read from or written to.
    pub fn active_at(&self) -> Instant {
        self.active_at.get()
    }

    /// Whether the connection is there, as far as known.
    pub fn is_open(&self) -> bool {
        self.io.borrow().failed.is_none()
    }

    /// Wakes the session's task.
    pub fn wake(&self) {
        if let Some(task) = self.io.borrow_mut().task.take() {
            task.wake();
        }
    }

    /// To be called first whenever the session's task runs: goes on with a write that stopped.
    ///
    /// # Errors
    /// The connection is lost.
    pub fn poll_task(&self, task: &mut Task<'_>) -> io::Result<()> {
        let mut io = self.io.borrow_mut();
        if let Some(kind) = io.failed {
            return Err(kind.into());
        }
        if io
            .task
            .as_ref()
            .is_none_or(|known| !known.will_wake(task.waker()))
        {
            io.task = Some(task.waker().clone());
        }
        if io.is_blocked {
            self.poll_write(&mut io, task)
        } else {
            Ok(())
        }
    }

    fn poll_write(&self, io: &mut Io, task: &mut Task<'_>) -> io::Result<()> {
        let waiting = io.out.len();
        let written = io.poll_write(task);
        self.tally.wrote(waiting - io.out.len());
        self.active_at.set(self.turn.now());
        written
    }

    /// Reads more of what the client sends; 0 is its end.
    ///
    /// # Errors
    /// The connection is lost.
    pub fn poll_read(&self, buffer: &mut BytesMut, task: &mut Task<'_>) -> Poll<io::Result<usize>> {
        let mut io = self.io.borrow_mut();
        let read = pin!(io.stream.read_buf(buffer)).poll(task);
        if let Poll::Ready(Ok(count)) = read {
            self.tally.received(count);
            let now = self.turn.tick();
            self.active_at.set(now);
            self.read_at.set(now);
        }
        read
    }

    /// Forgets what is owed, so that late replies find nothing: the client is gone.
    pub fn abandon(&self) {
        let mut io = self.io.borrow_mut();
        io.head += io.ring.len() as u64;
        io.ring = VecDeque::new();
        io.kept.free();
        io.out = BytesMut::new();
        io.parts = Parts::default();
        io.task = None;
        io.failed = Some(io::ErrorKind::NotConnected);
    }
}

impl Io {
    fn is_now(&self, want: Want) -> bool {
        match want {
            Want::Idle => self.ring.is_empty(),
            Want::Room { slots, bytes } => {
                self.ring.len() <= slots.min(self.window)
                    && self.out.len() <= bytes
                    && !self.expects_too_much()
            }
        }
    }

    /// Whether the replies that are missing, if they are like the last ones, will be too much
    /// beside those that wait to be sent.
    fn expects_too_much(&self) -> bool {
        let expected = self.ring.len().saturating_mul(self.reply_bytes);
        !self.ring.is_empty() && self.out.len() + expected > self.bytes_max
    }

    /// Moves the replies whose turn has come.
    fn drain_ring(&mut self) {
        loop {
            let before = self.out.len();
            match self.ring.front() {
                Some(Slot::Ready(reply)) => self.out.extend_from_slice(reply),
                Some(Slot::Kept(start, len)) => self.kept.leave((*start, *len), &mut self.out),
                _ => break,
            }
            let left = self.out.len() - before;
            self.ready_bytes = self.ready_bytes.saturating_sub(left);
            self.ring.pop_front();
            self.head += 1;
        }
        self.begin_parts();
    }

    /// Whether all that waits to be sent is acknowledgements, and the EXEC is under way.
    fn may_wait_for_exec(&self) -> bool {
        !self.is_blocked && self.acknowledged == self.out.len() && !self.ring.is_empty()
    }

    /// A large reply counts at once, and is forgotten slowly.
    fn learn(&mut self, bytes: usize) {
        self.reply_bytes = bytes.max(self.reply_bytes - self.reply_bytes / 8);
        self.window += 1;
    }

    /// What was asked for when replies were small may be large when it comes. Whether it was.
    pub(super) fn cut_off_if_deaf(&mut self) -> bool {
        let owed = self.out.len() + self.ready_bytes;
        if owed <= self.bytes_max.saturating_mul(CUT_OFF_TIMES)
            || self.out.len() <= self.reply_bytes
        {
            return false;
        }
        self.cut_off();
        true
    }

    pub(super) fn cut_off(&mut self) {
        (self.out, self.ready_bytes) = (BytesMut::new(), 0);
        self.head += self.ring.len() as u64;
        self.ring = VecDeque::new();
        self.kept.free();
        self.failed = Some(io::ErrorKind::OutOfMemory);
        self.parts = Parts::default();
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }

    fn wake_if_wanted(&mut self) {
        if self.wants.is_some_and(|want| self.is_now(want)) {
            self.wants = None;
            if let Some(task) = self.task.take() {
                task.wake();
            }
        }
    }

    fn poll_write(&mut self, task: &mut Task<'_>) -> io::Result<()> {
        self.acknowledged = 0;
        let sent = self.stream.poll_send(&mut self.out, task);
        self.is_blocked = sent.is_pending();
        if let Poll::Ready(sent) = sent {
            sent?;
        }
        if self.out.is_empty() && self.out.capacity() > OUT_BYTES_KEPT {
            self.out = BytesMut::new();
        }
        if self.out.is_empty() {
            self.parts.wake();
        }
        if self.ring.is_empty() {
            self.kept.free();
        }
        Ok(())
    }
}

impl Flush for Session {
    fn flush(self: Rc<Self>, _now: Instant) {
        let mut io = self.io.borrow_mut();
        io.is_dirty = false;
        if io.failed.is_some() || io.may_wait_for_exec() {
            return;
        }
        // No task to wake: it is about to run, and goes on with what is blocked then.
        let waker = io.task.take();
        let mut task = Task::from_waker(waker.as_ref().unwrap_or(Waker::noop()));
        let written = self.poll_write(&mut io, &mut task);
        let is_over = io.wants.is_some_and(|want| io.is_now(want)) || written.is_err();
        if let Err(error) = written {
            io.failed = Some(error.kind());
        }
        match waker {
            Some(task) if is_over => {
                io.wants = None;
                task.wake();
            }
            task => io.task = task,
        }
    }
}

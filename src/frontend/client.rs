//! The task of one client: read, frame, hand to the [`Dispatcher`], and pause when the client is
//! owed too much, or while a command must not be overtaken.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use bytes::{Buf, BytesMut};

use super::Context;
use super::dispatch::{Dispatcher, Flow};
use super::refusal;
use super::roster::Entry;
use super::session::{Session, Want};
use super::upload::Uploading;
use crate::metrics::{ErrorKind, Limit};
use crate::resp::{CommandScanner, Limits, ProtocolError, Scan, build};
use crate::transport::Stream;
use crate::transport::proxied::Addresses;

/// What one read into the worker's buffer asks for.
const READ_BYTES: usize = 64 * 1024;
/// What a read behind an incomplete command asks for, at least and at most.
const OWN_READ_BYTES_MIN: usize = 2 * 1024;
const READ_BYTES_MAX: usize = 1024 * 1024;

/// Serves one connection, from one address to another, to its end.
pub async fn serve(context: Rc<Context>, stream: Stream, addresses: Addresses, id: u64) {
    let (peer, local) = addresses;
    let entry = context.roster.enter(id, peer, local);
    let session = Session::new(
        id,
        stream,
        Rc::clone(&context.turn),
        Rc::clone(&context.tally),
        context.config().client_output_bytes_max,
    );
    context
        .sessions
        .borrow_mut()
        .insert(id, Rc::clone(&session));
    let mut client = Client::new(&context, Rc::clone(&session), entry);
    poll_fn(|task| client.poll(task)).await;
    session.abandon();
    context.roster.leave(id);
    context.sessions.borrow_mut().remove(&id);
}

pub(super) struct Client {
    context: Rc<Context>,
    pub(super) session: Rc<Session>,
    entry: Arc<Entry>,
    pub(super) scanner: CommandScanner,
    pub(super) dispatcher: Dispatcher,
    /// Bytes read and not handled. Empty between commands, so that idle clients hold no buffer.
    pub(super) input: BytesMut,
    /// Bytes at the beginning of `input` that were handled.
    pub(super) done: usize,
    /// Whether `input` is the worker's own buffer, to be put back.
    is_lent: bool,
    /// Nothing more is handled before every reply has come in.
    pub(super) is_barred: bool,
    /// A large command that is under way already.
    pub(super) upload: Option<Uploading>,
    room: Want,
    /// Reading is paused, since this limit was hit.
    paused_by: Option<Limit>,
}

/// Why handling stopped.
pub(super) enum Stop {
    NeedBytes,
    Stalled,
    Closing,
}

impl Client {
    fn new(context: &Rc<Context>, session: Rc<Session>, entry: Arc<Entry>) -> Self {
        let config = context.config();
        Self {
            scanner: CommandScanner::new(limits(&config)),
            dispatcher: Dispatcher::new(
                Rc::clone(context),
                Rc::clone(&session),
                Arc::clone(&entry),
            ),
            context: Rc::clone(context),
            session,
            entry,
            input: BytesMut::new(),
            done: 0,
            is_lent: false,
            is_barred: false,
            upload: None,
            room: Want::Room {
                slots: config.client_inflight_max - 1,
                bytes: config.client_output_bytes_max,
            },
            paused_by: None,
        }
    }

    fn poll(&mut self, task: &mut Task<'_>) -> Poll<()> {
        self.entry.task.register(task.waker());
        if self.session.poll_task(task).is_err() || self.entry.is_killed() {
            return Poll::Ready(());
        }
        let result = self.poll_input(task);
        self.dispatcher.count();
        self.dispatcher.tell();
        self.return_buffer();
        let queued = self.dispatcher.queued_bytes();
        self.session.keeps(self.input.len() + queued);
        result
    }

    fn poll_input(&mut self, task: &mut Task<'_>) -> Poll<()> {
        loop {
            match self.handle_input(task) {
                Stop::Stalled if !self.may_listen() => return Poll::Pending,
                Stop::Stalled => {}
                Stop::Closing => return self.poll_close(),
                Stop::NeedBytes if self.upload.is_none() && self.dispatcher.is_to_drain() => {
                    return self.poll_close();
                }
                Stop::NeedBytes => {}
            }
            if self.context.is_full.get() {
                return Poll::Pending;
            }
            self.make_room();
            match self.session.poll_read(&mut self.input, task) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(0)) if self.dispatcher.is_waiting() => return Poll::Ready(()),
                Poll::Ready(Ok(0)) => {
                    self.give_up();
                    self.dispatcher.close();
                }
                Poll::Ready(Ok(_)) => {}
            }
        }
    }

    /// A client that waits for data is listened to all the same, so that its end is noticed;
    /// what it sends meanwhile is kept, up to a point.
    fn may_listen(&self) -> bool {
        self.dispatcher.is_waiting() && self.input.len() - self.done < READ_BYTES
    }

    /// The connection ends when everything owed was sent.
    fn poll_close(&self) -> Poll<()> {
        if self.session.is_now(Want::Room { slots: 0, bytes: 0 }) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn handle_input(&mut self, task: &mut Task<'_>) -> Stop {
        loop {
            if self.dispatcher.is_closing() {
                return Stop::Closing;
            }
            if self.upload.is_some()
                && let Some(stop) = self.go_on(task)
            {
                return stop;
            }
            if self.is_barred {
                if !self.session.is_now(Want::Idle) {
                    return Stop::Stalled;
                }
                self.is_barred = false;
            }
            if !self.has_room() {
                return Stop::Stalled;
            }
            let must_authenticate = self.dispatcher.must_authenticate();
            self.scanner.set_auth_required(must_authenticate);
            let bytes = &self.input[self.done..];
            let flow = match self.scanner.scan(bytes) {
                Ok(Scan::Command { len }) => {
                    match self.dispatcher.handle(&self.scanner.command(bytes)) {
                        Flow::Wait => return Stop::Stalled,
                        flow => (len, flow),
                    }
                }
                Ok(Scan::Empty { len }) => (len, Flow::Next),
                Ok(Scan::Incomplete) => match self.set_out() {
                    Some(stop) => return stop,
                    None => continue,
                },
                Err(error) => return self.refuse(error),
            };
            self.done += flow.0;
            self.is_barred = matches!(flow.1, Flow::Bar);
        }
    }

    /// Whether the client is owed little enough to be listened to.
    fn has_room(&mut self) -> bool {
        let has_room = self.session.is_now(self.room);
        let limit = if has_room {
            None
        } else {
            self.session.limit_hit(self.room)
        };
        // Once for each pause, however often the task is woken in it.
        if let Some(limit) = limit.filter(|_| limit != self.paused_by) {
            self.context.tally.hit(limit);
        }
        self.paused_by = limit;
        has_room
    }

    /// Bytes that are no command: what follows them cannot be understood either.
    pub(super) fn refuse(&mut self, error: ProtocolError) -> Stop {
        let limit = refusal::limit_of(error);
        let metrics = &self.context.metrics;
        match limit {
            Some(limit) => {
                metrics.limits_hit[limit].increment(1);
                metrics.errors[ErrorKind::Limit].increment(1);
            }
            None => metrics.errors[ErrorKind::Protocol].increment(1),
        }
        self.session
            .reply(|out| build::error(out, format!("ERR {error}")));
        self.dispatcher.close();
        Stop::Closing
    }

    /// Makes room for the next read: in the worker's own buffer when nothing is left over.
    fn make_room(&mut self) {
        if self.done == self.input.len() {
            self.input.clear();
            if !self.is_lent {
                self.input = std::mem::take(&mut *self.context.buffer.borrow_mut());
                self.is_lent = true;
            }
        } else {
            self.input.advance(self.done);
        }
        self.done = 0;
        if self.is_lent {
            return self.input.reserve(READ_BYTES);
        }
        // A buffer of its own grows with what has come, not with what was announced.
        let least = self.input.len().max(OWN_READ_BYTES_MIN);
        let need = self.scanner.need(self.input.len());
        self.input
            .reserve(need.clamp(least, READ_BYTES_MAX.max(least)));
    }

    /// Puts the worker's buffer back; what is left over moves to one of its own.
    fn return_buffer(&mut self) {
        if !self.is_lent {
            if self.done == self.input.len() && self.done > 0 {
                (self.input, self.done) = (BytesMut::new(), 0);
            }
            return;
        }
        let left = BytesMut::from(&self.input[self.done..]);
        let mut lent = std::mem::replace(&mut self.input, left);
        lent.clear();
        *self.context.buffer.borrow_mut() = lent;
        (self.done, self.is_lent) = (0, false);
    }
}

fn limits(config: &crate::config::Config) -> Limits {
    Limits {
        inline_bytes_max: config.inline_bytes_max,
        args_max: config.args_max,
        bulk_bytes_max: config.bulk_bytes_max,
        command_bytes_max: config.client_input_bytes_max,
        ..Limits::default()
    }
}

//! A link: the one pipelined connection of a worker to a shard that all its clients share.
//!
//! [`Link::send`] appends the raw request to the outgoing buffer and remembers who waits; at
//! the end of the turn everything goes out in one write. Replies come back in order. When the
//! connection is lost, each waiting request is told whether it was never sent.
//!
//! After a loss the link reconnects at once, and what is sent meanwhile waits for it; if that
//! fails it is *down*: requests fail immediately until a later attempt succeeds. See
//! [`circuit`](super::circuit) for when it tries.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;

use super::circuit::Circuit;
use super::gauges::Gauges;
use super::hold::{Isolation, Receiver};
use super::marks::Marks;
pub use super::options::{LinkOptions, LinkValues};
use super::orphans::end_script;
use super::reader::{BUFFER_BYTES_MIN, READ_BYTES_MAX, Reader};
use super::request::{Batch, Expected, How, Pending};
use super::{Cause, Dial, Failure, ReplySink};
use crate::metrics::{Limit, ShardMetrics};
use crate::resp::{Lane, ReplyError};
use crate::transport::Stream;
use crate::turn::{Flush, Turn};

/// See the module.
pub struct Link {
    pub(crate) dial: Dial,
    pub(super) lane: Lane,
    pub(super) options: LinkOptions,
    pub(super) turn: Rc<Turn>,
    pub(super) metrics: ShardMetrics,
    gauges: Gauges,
    /// What was sent once on this connection.
    pub marks: Marks,
    pub(super) circuit: Circuit,
    pub(super) inner: RefCell<Inner>,
}

pub(super) enum Phase {
    /// Requests are accepted, and wait in the buffer.
    Connecting,
    Up(Stream),
    /// Requests are refused with this cause.
    Down(Cause),
}

pub(super) struct Inner {
    phase: Phase,
    out: BytesMut,
    /// The connection is not in the database where what is asked about is kept.
    pub(super) is_afar: bool,
    /// Bytes ever appended to, and ever written from, `out` on this connection.
    appended: u64,
    written: u64,
    pub(super) pending: VecDeque<Expected>,
    batches: VecDeque<Batch>,
    /// Requests ever sent and replies ever received on this connection.
    sent: u64,
    received: u64,
    task: Option<Waker>,
    is_dirty: bool,
    /// The last write stopped half way: the task goes on when the socket takes more. Only then:
    /// what else waits in `out` belongs to a batch whose end, at that of the turn, is yet to come.
    is_blocked: bool,
    /// A reply waits until its client has taken more of it. Only as long as nobody else waits.
    pub(super) is_paused: bool,
    /// When a part of a reply came last.
    pub(super) part_at: Option<Instant>,
    /// Set by a failed write, for the task to act upon.
    broken: Option<Cause>,
    /// The batch that is being collected has replies that depend on what settles; on the epoch.
    pub(super) needs_settling: bool,
    pub(super) needs_epoch: bool,
    /// Whether something was settling when last looked: checks name the keys then.
    pub(super) is_settling: bool,
    /// Epoch of the shard while its index was empty, as last seen; see [`Link::epoch`].
    pub(super) epoch: Option<Bytes>,
    /// Replies that are held.
    pub(super) held: usize,
    /// Connections lost.
    losses: u64,
    /// Scripts that were given up and may run, or come to run, all the same.
    orphans: usize,
    /// A script has been away for long: what is sent now may have to wait for its end.
    pub(super) is_stuck: bool,
    /// Bytes written and read since they were last published.
    sent_bytes: u64,
    received_bytes: u64,
}

impl Link {
    /// A link that is not connected yet; [`Link::run`] is its task.
    pub fn new(
        dial: Dial,
        lane: Lane,
        options: LinkOptions,
        turn: Rc<Turn>,
        metrics: ShardMetrics,
    ) -> Rc<Self> {
        let inner = Inner {
            phase: Phase::Connecting,
            out: BytesMut::with_capacity(BUFFER_BYTES_MIN),
            is_afar: lane.db != 0,
            appended: 0,
            written: 0,
            pending: VecDeque::new(),
            batches: VecDeque::new(),
            sent: 0,
            received: 0,
            task: None,
            is_dirty: false,
            is_blocked: false,
            is_paused: false,
            part_at: None,
            broken: None,
            needs_settling: false,
            needs_epoch: false,
            is_settling: false,
            epoch: None,
            held: 0,
            losses: 0,
            orphans: 0,
            is_stuck: false,
            sent_bytes: 0,
            received_bytes: 0,
        };
        Rc::new(Self {
            gauges: Gauges::new(&metrics),
            dial,
            lane,
            options,
            turn,
            metrics,
            marks: Marks::default(),
            circuit: Circuit::default(),
            inner: RefCell::new(inner),
        })
    }

    /// The shard's address.
    pub fn address(&self) -> &str {
        &self.dial.address
    }

    /// Number of the connection: what is sent now goes out on this one, or not at all.
    pub fn connection(&self) -> u64 {
        self.inner.borrow().losses
    }

    /// Another link to the same shard, set to another lane. Its task is to be started.
    pub fn sibling(&self, lane: Lane) -> Rc<Self> {
        Self::new(
            self.dial.clone(),
            lane,
            self.options.clone(),
            Rc::clone(&self.turn),
            self.metrics.clone(),
        )
    }

    /// Whether nothing waits for this link.
    pub fn is_idle(&self) -> bool {
        let inner = self.inner.borrow();
        let is_owed = inner.is_paused || inner.part_at.is_some();
        inner.pending.is_empty() && inner.out.is_empty() && !is_owed
    }

    /// Whether requests would be accepted now.
    pub fn is_available(&self) -> bool {
        let inner = self.inner.borrow();
        !matches!(inner.phase, Phase::Down(_)) && self.behind_script(&inner).is_none()
    }

    /// Sends one request, given in pieces that are written back to back. Its reply goes to the
    /// sink under this number.
    ///
    /// # Errors
    /// [`Failure::NeverSent`] when the shard is down or too much is waiting for it already;
    /// the sink is not called then.
    pub fn send(
        self: &Rc<Self>,
        request: &[&[u8]],
        how: How,
        sink: Rc<dyn ReplySink>,
        number: u64,
    ) -> Result<(), Failure> {
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        if let Phase::Down(cause) = &inner.phase {
            let refused = self.circuit.refuse(cause, &self.metrics);
            return Err(self.dial.busy.refusal().unwrap_or(refused));
        }
        if let Some(refused) = self.behind_script(inner) {
            return Err(refused);
        }
        if self.options.is_full(inner.pending.len(), inner.out.len()) {
            return Err(self.overloaded(inner));
        }
        inner.append(request);
        inner.sent += 1;
        match how.isolation {
            Isolation::None => {}
            Isolation::Hold(_) => inner.needs_settling = true,
            Isolation::Epoch => inner.needs_epoch = true,
        }
        inner.pending.push_back(Expected::Reply(Pending {
            receiver: Receiver { sink, number },
            isolation: how.isolation,
            is_script: how.is_script,
            end: inner.appended,
            swallow: how.swallow,
        }));
        self.mark_dirty(inner);
        Ok(())
    }

    fn mark_dirty(self: &Rc<Self>, inner: &mut Inner) {
        self.turn.marks();
        if !inner.is_dirty {
            inner.is_dirty = true;
            self.turn.shard_is_dirty(Rc::<Self>::clone(self));
        }
    }

    /// The shard's epoch, which every prepare of a transaction moves, as it was seen last with
    /// an empty index; None if it was not. As long as it has not moved since, no transaction
    /// over several shards has touched the shard: a split read is consistent with all of them
    /// if, on every shard, the epoch behind its piece is the one that was known before its
    /// first piece was sent anywhere.
    pub fn epoch(&self) -> Option<Bytes> {
        self.inner.borrow().epoch.clone()
    }

    fn overloaded(&self, inner: &Inner) -> Failure {
        self.metrics.limits_hit[Limit::ShardInflight].increment(1);
        Failure::NeverSent(Cause::of_limit(format!(
            "shard {} is overloaded: {} requests and {} unwritten bytes wait for it",
            self.dial.address,
            inner.pending.len(),
            inner.out.len()
        )))
    }

    /// Ends when the connection is lost, with the cause.
    pub(super) async fn serve(self: &Rc<Self>, stream: Stream) -> Cause {
        self.metrics.connects.increment(1);
        self.inner.borrow_mut().phase = Phase::Up(stream);
        self.clone().flush(self.turn.tick());
        let mut reader = Reader::new(self.options.limits());
        let cause = poll_fn(|cx| self.poll_io(&mut reader, cx)).await;
        let failure = Failure::MaybeSent(Cause::new(format!(
            "connection to shard {} lost: {cause}",
            self.dial.address
        )));
        let cut_short = reader.flow.end();
        for receiver in reader.hold.into_receivers().chain(cut_short) {
            receiver.sink.fail(receiver.number, &failure);
        }
        self.metrics.disconnects.increment(1);
        Cause::new(format!(
            "connection to shard {} lost: {cause}",
            self.dial.address
        ))
    }

    fn poll_io(self: &Rc<Self>, reader: &mut Reader, cx: &mut Context<'_>) -> Poll<Cause> {
        if reader.hold.poll_look_again(cx) {
            self.look_again();
        }
        {
            let mut inner = self.inner.borrow_mut();
            if let Some(cause) = inner.broken.take() {
                return Poll::Ready(cause);
            }
            inner.task = Some(cx.waker().clone());
            if inner.is_blocked
                && let Err(error) = inner.poll_write(cx)
            {
                return Poll::Ready(Cause::new(error.to_string()));
            }
        }
        loop {
            if let Err(cause) = ready!(self.poll_flow(reader, cx)) {
                return Poll::Ready(cause);
            }
            match self.poll_read(reader, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => return Poll::Ready(Cause::new("it closed the connection")),
                Poll::Ready(Err(error)) => return Poll::Ready(Cause::new(error.to_string())),
                Poll::Ready(Ok(_)) => {
                    if let Err(cause) = self.deliver_all(reader) {
                        return Poll::Ready(cause);
                    }
                    // Whoever is held from now on needs the timer.
                    if reader.hold.poll_look_again(cx) {
                        self.look_again();
                    }
                }
            }
        }
    }

    fn poll_read(&self, reader: &mut Reader, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        let mut inner = self.inner.borrow_mut();
        let Phase::Up(stream) = &mut inner.phase else {
            return Poll::Pending;
        };
        reader.make_room();
        let read = pin!(stream.read_buf(&mut reader.buffer)).poll(cx);
        if let Poll::Ready(Ok(count)) = read {
            inner.received_bytes += count as u64;
            self.turn.tick();
        }
        read
    }

    /// Hands out every complete reply in the buffer that may leave.
    fn deliver_all(self: &Rc<Self>, reader: &mut Reader) -> Result<(), Cause> {
        while let Some(range) = reader.next().map_err(|error| self.no_reply(error))? {
            let frame = &reader.buffer[range.clone()];
            if let Some(receiver) = reader.flow.end() {
                receiver.sink.deliver(receiver.number, frame);
                self.inner.borrow_mut().part_at = None;
                continue;
            }
            match self.next_expected(frame)? {
                None => {}
                Some(Expected::Check(check)) => self.on_check(
                    check,
                    frame,
                    &mut reader.hold,
                    &reader.buffer,
                    &mut reader.epoch,
                ),
                Some(Expected::Reply(Pending {
                    receiver,
                    isolation: Isolation::None,
                    ..
                })) => {
                    receiver.sink.deliver(receiver.number, frame);
                }
                Some(Expected::Reply(pending)) => {
                    reader.hold.add(pending.receiver, pending.isolation, range)
                }
            }
        }
        self.let_through(reader)?;
        reader.compact();
        Ok(())
    }

    fn no_reply(&self, error: ReplyError) -> Cause {
        if error == ReplyError::TooBig {
            self.metrics.limits_hit[Limit::ReplyBytes].increment(1);
        }
        Cause::new(format!("it sent what is no reply: {error}"))
    }

    /// What this reply is; None when it is to be swallowed.
    pub(super) fn next_expected(&self, reply: &[u8]) -> Result<Option<Expected>, Cause> {
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        if reply.first() == Some(&b'>') {
            return Ok(None);
        }
        match inner.pending.front_mut() {
            None => {
                let reply = reply[..reply.len().min(64)].escape_ascii();
                return Err(Cause::new(format!(
                    "it sent a reply to no request: {reply}"
                )));
            }
            Some(Expected::Check(_)) => return Ok(inner.pending.pop_front()),
            Some(Expected::Reply(first)) if first.swallow > 0 => {
                first.swallow -= 1;
                return Ok(None);
            }
            Some(Expected::Reply(_)) => {}
        }
        self.note_of_script(inner, reply);
        inner.received += 1;
        if let Some(batch) = inner.batches.front() {
            self.turn.answers(batch.at);
        }
        while inner
            .batches
            .front()
            .is_some_and(|batch| batch.upto <= inner.received)
        {
            if let Some(batch) = inner.batches.pop_front() {
                let taken = self.turn.now().saturating_duration_since(batch.at);
                self.metrics.latency.record(taken.as_secs_f64());
            }
        }
        Ok(inner.pending.pop_front())
    }

    /// Asks what settles, outside any batch.
    pub(super) fn look_again(self: &Rc<Self>) {
        let mut inner = self.inner.borrow_mut();
        inner.is_settling = true;
        inner.needs_settling = true;
        self.mark_dirty(&mut inner);
    }

    /// Gives the connection up if a request has waited too long. Called now and then.
    pub fn check_time(&self, now: Instant) {
        let mut inner = self.inner.borrow_mut();
        let oldest = inner.batches.front().map(|oldest| oldest.at);
        let Some(oldest) = oldest.or(inner.part_at) else {
            return;
        };
        let waited = now.saturating_duration_since(oldest);
        self.look_for_script(&mut inner, waited);
        if waited < self.options.request_timeout() || inner.broken.is_some() {
            return;
        }
        self.metrics.limits_hit[Limit::RequestTimeout].increment(1);
        self.circuit.timed_out();
        let limit = self.options.request_timeout().as_millis();
        inner.broken = Some(Cause::new(format!("no reply within {limit} ms")));
        inner.orphans = inner.scripts_under_way();
        if let Some(task) = inner.task.take() {
            task.wake();
        }
    }

    /// The shard speaks again: what it ran has ended.
    pub(super) fn forget_orphans(&self) {
        self.inner.borrow_mut().orphans = 0;
    }

    /// See [`orphans`](super::orphans).
    pub(super) async fn end_orphan(&self) {
        let is_one_there = self.inner.borrow().orphans > 0;
        if is_one_there && end_script(&self.dial).await {
            self.inner.borrow_mut().orphans -= 1;
        }
    }

    /// The connection is gone: everybody who waits is told, each as it is.
    pub(super) fn lose(&self, next: Phase, cause: &Cause) {
        self.marks.clear();
        let (pending, written) = {
            let mut inner = self.inner.borrow_mut();
            inner.phase = next;
            inner.out = BytesMut::with_capacity(BUFFER_BYTES_MIN);
            inner.is_blocked = false;
            (inner.is_stuck, inner.is_paused, inner.part_at) = (false, false, None);
            let written = std::mem::take(&mut inner.written);
            (inner.appended, inner.sent, inner.received) = (0, 0, 0);
            inner.batches.clear();
            inner.broken = None;
            inner.epoch = None;
            inner.held = 0;
            inner.losses += 1;
            (std::mem::take(&mut inner.pending), written)
        };
        for expected in pending {
            let Expected::Reply(Pending { receiver, end, .. }) = expected else {
                continue;
            };
            // The kernel has less than the whole request: the shard cannot run it.
            let failure = if end > written {
                Failure::NeverSent(cause.clone())
            } else {
                Failure::MaybeSent(cause.clone())
            };
            receiver.sink.fail(receiver.number, &failure);
        }
    }

    /// Replies that the connection has brought.
    pub(super) fn received(&self) -> u64 {
        self.inner.borrow().received
    }

    /// Bytes that wait to be written.
    pub fn unwritten(&self) -> usize {
        self.inner.borrow().out.len()
    }

    /// Brings the metrics up to date with what changes too often to be told at each change.
    pub fn publish(&self) {
        let mut inner = self.inner.borrow_mut();
        self.gauges.inflight.set(inner.pending.len());
        self.gauges.queue_bytes.set(inner.out.len());
        self.gauges.held.set(inner.held);
        let sent = std::mem::take(&mut inner.sent_bytes);
        let received = std::mem::take(&mut inner.received_bytes);
        self.metrics.sent_bytes.increment(sent);
        self.metrics.received_bytes.increment(received);
    }

    /// Why there is no connection; None while there is one.
    pub fn trouble(&self) -> Option<String> {
        match &self.inner.borrow().phase {
            Phase::Up(_) => None,
            Phase::Connecting => Some("connecting".into()),
            Phase::Down(cause) => Some(cause.to_string()),
        }
    }
}

impl Inner {
    /// Scripts that wait for their replies and that the shard may have.
    pub(super) fn scripts_under_way(&self) -> usize {
        let written = self.written;
        let may_run = |expected: &&Expected| match expected {
            Expected::Reply(pending) => pending.is_script && pending.end <= written,
            Expected::Check(_) => false,
        };
        self.pending.iter().filter(may_run).count()
    }

    pub(super) fn append(&mut self, pieces: &[&[u8]]) {
        for piece in pieces {
            self.out.extend_from_slice(piece);
            self.appended += piece.len() as u64;
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> std::io::Result<()> {
        let Phase::Up(stream) = &mut self.phase else {
            return Ok(());
        };
        let waiting = self.out.len();
        let sent = stream.poll_send(&mut self.out, cx);
        self.is_blocked = sent.is_pending();
        let count = (waiting - self.out.len()) as u64;
        self.written += count;
        self.sent_bytes += count;
        if self.out.is_empty() && self.out.capacity() > READ_BYTES_MAX {
            self.out = BytesMut::with_capacity(BUFFER_BYTES_MIN);
        }
        match sent {
            Poll::Ready(sent) => sent,
            Poll::Pending => Ok(()),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if matches!(self.inner.get_mut().phase, Phase::Up(_)) {
            self.metrics.disconnects.increment(1);
        }
    }
}

impl Flush for Link {
    fn flush(self: Rc<Self>, now: Instant) {
        let mut inner = self.inner.borrow_mut();
        inner.is_dirty = false;
        if !matches!(inner.phase, Phase::Up(_)) {
            return;
        }
        let Some(task) = inner.task.clone().or_else(|| Some(Waker::noop().clone())) else {
            return;
        };
        inner.append_checks();
        let upto = inner.sent;
        // A flush may bring nothing new: what is left of a batch, or of one answered already.
        let known = inner
            .batches
            .back()
            .map_or(inner.received, |last| last.upto);
        if known < upto {
            let batch = upto - known;
            inner.batches.push_back(Batch { upto, at: now });
            self.metrics.requests.increment(batch);
            self.metrics.batch.record(batch as f64);
        }
        self.metrics
            .writes
            .increment(u64::from(!inner.out.is_empty()));
        if let Err(error) = inner.poll_write(&mut Context::from_waker(&task)) {
            inner.broken = Some(Cause::new(error.to_string()));
            task.wake();
        } else if std::mem::take(&mut inner.is_paused) {
            task.wake();
        }
    }
}

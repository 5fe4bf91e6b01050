//! A link: the one pipelined connection of a worker to a shard that all its clients share.
//!
//! [`Link::send`] appends the raw request to the outgoing buffer and remembers who waits; at
//! the end of the turn everything goes out in one write. Replies come back in order. When the
//! connection is lost, each waiting request is told whether it was never sent.
//!
//! After a loss the link reconnects at once, and what is sent meanwhile waits for it; if that
//! fails it is *down*: requests fail immediately until a later attempt succeeds.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;

use super::{Cause, Dial, Failure, ReplySink};
use crate::metrics::ShardMetrics;
use crate::resp::{Protocol, ReplyScanner};
use crate::turn::{Flush, Turn};

/// Buffers start at this size, and return to it when they are empty.
const BUFFER_BYTES_MIN: usize = 8 * 1024;
/// A single read asks for at most this much.
const READ_BYTES_MAX: usize = 64 * 1024;

/// Bounds and times of a link.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// A request without a reply for that long: the connection is given up.
    pub request_timeout: Duration,
    /// Wait between attempts to connect, doubled from the least to the most.
    pub backoff: (Duration, Duration),
    /// Requests waiting for replies at most; more are refused.
    pub inflight_max: usize,
    /// Bytes not yet written at most; more are refused.
    pub unwritten_bytes_max: usize,
    /// The limits put on what the shard sends.
    pub limits: crate::resp::Limits,
}

/// See the module.
pub struct Link {
    dial: Dial,
    protocol: Protocol,
    options: LinkOptions,
    turn: Rc<Turn>,
    metrics: ShardMetrics,
    inner: RefCell<Inner>,
}

enum Phase {
    /// Requests are accepted, and wait in the buffer.
    Connecting,
    Up(TcpStream),
    /// Requests are refused with this cause.
    Down(Cause),
}

struct Inner {
    phase: Phase,
    out: BytesMut,
    /// Bytes ever appended to, and ever written from, `out` on this connection.
    appended: u64,
    written: u64,
    pending: VecDeque<Pending>,
    batches: VecDeque<Batch>,
    /// Requests ever sent and replies ever received on this connection.
    sent: u64,
    received: u64,
    task: Option<Waker>,
    is_dirty: bool,
    /// Set by a failed write, for the task to act upon.
    broken: Option<Cause>,
}

/// Who gets a reply, and under which number.
type Receiver = (Rc<dyn ReplySink>, u64);

/// A request that waits for its reply.
struct Pending {
    sink: Rc<dyn ReplySink>,
    number: u64,
    /// Where its bytes end, counted like `appended`.
    end: u64,
    /// Replies to swallow first (the +OK and +QUEUED before the reply to EXEC).
    swallow: u32,
}

/// The requests up to number `upto` were written at this time.
struct Batch {
    upto: u64,
    at: Instant,
}

impl Link {
    /// A link that is not connected yet; [`Link::run`] is its task.
    pub fn new(
        dial: Dial,
        protocol: Protocol,
        options: LinkOptions,
        turn: Rc<Turn>,
        metrics: ShardMetrics,
    ) -> Rc<Self> {
        let inner = Inner {
            phase: Phase::Connecting,
            out: BytesMut::with_capacity(BUFFER_BYTES_MIN),
            appended: 0,
            written: 0,
            pending: VecDeque::new(),
            batches: VecDeque::new(),
            sent: 0,
            received: 0,
            task: None,
            is_dirty: false,
            broken: None,
        };
        Rc::new(Self {
            dial,
            protocol,
            options,
            turn,
            metrics,
            inner: RefCell::new(inner),
        })
    }

    /// The shard's address.
    pub fn address(&self) -> &str {
        &self.dial.address
    }

    /// Whether requests would be accepted now.
    pub fn is_available(&self) -> bool {
        !matches!(self.inner.borrow().phase, Phase::Down(_))
    }

    /// Sends one request, given in pieces that are written back to back, and answered with
    /// `swallow` replies that nobody wants and then the one that goes to the sink under this
    /// number.
    ///
    /// # Errors
    /// [`Failure::NeverSent`] when the shard is down or too much is waiting for it already;
    /// the sink is not called then.
    pub fn send(
        self: &Rc<Self>,
        request: &[&[u8]],
        swallow: u32,
        sink: Rc<dyn ReplySink>,
        number: u64,
    ) -> Result<(), Failure> {
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        if let Phase::Down(cause) = &inner.phase {
            return Err(Failure::NeverSent(cause.clone()));
        }
        if inner.pending.len() >= self.options.inflight_max
            || inner.out.len() >= self.options.unwritten_bytes_max
        {
            return Err(self.overloaded(inner));
        }
        for piece in request {
            inner.out.extend_from_slice(piece);
            inner.appended += piece.len() as u64;
        }
        inner.sent += 1;
        inner.pending.push_back(Pending {
            sink,
            number,
            end: inner.appended,
            swallow,
        });
        if !inner.is_dirty {
            inner.is_dirty = true;
            self.turn.shard_is_dirty(Rc::<Self>::clone(self));
        }
        Ok(())
    }

    fn overloaded(&self, inner: &Inner) -> Failure {
        Failure::NeverSent(Cause::new(format!(
            "shard {} is overloaded: {} requests and {} unwritten bytes wait for it",
            self.dial.address,
            inner.pending.len(),
            inner.out.len()
        )))
    }

    /// Connects, serves, reconnects; ends never.
    pub async fn run(self: Rc<Self>) {
        let mut backoff = self.options.backoff.0;
        loop {
            match self.dial.connect(self.protocol).await {
                Ok(stream) => {
                    backoff = self.options.backoff.0;
                    let cause = self.serve(stream).await;
                    tracing::warn!(shard = self.dial.address, %cause, "connection to shard lost");
                    self.lose(Phase::Connecting, &cause);
                }
                Err(cause) => {
                    self.metrics.connect_failures.increment(1);
                    tracing::warn!(shard = self.dial.address, %cause, "cannot connect to shard");
                    self.lose(Phase::Down(cause.clone()), &cause);
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(self.options.backoff.1);
                }
            }
        }
    }

    /// Ends when the connection is lost, with the cause.
    async fn serve(self: &Rc<Self>, stream: TcpStream) -> Cause {
        self.metrics.connects.increment(1);
        self.metrics.up.set(1.0);
        self.inner.borrow_mut().phase = Phase::Up(stream);
        self.clone().flush(self.turn.tick());
        let mut reader = Reader::new(&self.options);
        let cause = poll_fn(|cx| self.poll_io(&mut reader, cx)).await;
        self.metrics.up.set(0.0);
        self.metrics.disconnects.increment(1);
        Cause::new(format!(
            "connection to shard {} lost: {cause}",
            self.dial.address
        ))
    }

    fn poll_io(&self, reader: &mut Reader, cx: &mut Context<'_>) -> Poll<Cause> {
        {
            let mut inner = self.inner.borrow_mut();
            if let Some(cause) = inner.broken.take() {
                return Poll::Ready(cause);
            }
            inner.task = Some(cx.waker().clone());
            if let Err(error) = inner.poll_write(cx) {
                return Poll::Ready(Cause::new(error.to_string()));
            }
        }
        loop {
            match self.poll_read(reader, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => return Poll::Ready(Cause::new("it closed the connection")),
                Poll::Ready(Err(error)) => return Poll::Ready(Cause::new(error.to_string())),
                Poll::Ready(Ok(_)) => {
                    if let Err(cause) = self.deliver_all(reader) {
                        return Poll::Ready(cause);
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
        pin!(stream.read_buf(&mut reader.buffer)).poll(cx)
    }

    /// Hands out every complete reply in the buffer.
    fn deliver_all(&self, reader: &mut Reader) -> Result<(), Cause> {
        while let Some(reply) = reader
            .next()
            .map_err(|e| Cause::new(format!("it sent what is no reply: {e}")))?
        {
            let Some((sink, number)) = self.next_receiver(reply)? else {
                continue;
            };
            sink.deliver(number, reply);
        }
        reader.shrink();
        Ok(())
    }

    /// Who gets the next reply; None when it is to be swallowed.
    fn next_receiver(&self, reply: &[u8]) -> Result<Option<Receiver>, Cause> {
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        if reply.first() == Some(&b'>') {
            return Ok(None);
        }
        let Some(first) = inner.pending.front_mut() else {
            return Err(Cause::new(format!(
                "it sent a reply to no request: {}",
                reply[..reply.len().min(64)].escape_ascii()
            )));
        };
        if first.swallow > 0 {
            first.swallow -= 1;
            return Ok(None);
        }
        inner.received += 1;
        while inner
            .batches
            .front()
            .is_some_and(|batch| batch.upto <= inner.received)
        {
            if let Some(batch) = inner.batches.pop_front() {
                self.metrics.latency.record(
                    self.turn
                        .now()
                        .saturating_duration_since(batch.at)
                        .as_secs_f64(),
                );
            }
        }
        Ok(inner
            .pending
            .pop_front()
            .map(|pending| (pending.sink, pending.number)))
    }

    /// Gives the connection up if a request has waited too long. Called now and then.
    pub fn check_time(&self, now: Instant) {
        let mut inner = self.inner.borrow_mut();
        let Some(oldest) = inner.batches.front() else {
            return;
        };
        if now.saturating_duration_since(oldest.at) < self.options.request_timeout
            || inner.broken.is_some()
        {
            return;
        }
        let limit = self.options.request_timeout.as_millis();
        inner.broken = Some(Cause::new(format!("no reply within {limit} ms")));
        if let Some(task) = inner.task.take() {
            task.wake();
        }
    }

    /// The connection is gone: everybody who waits is told, each as it is.
    fn lose(&self, next: Phase, cause: &Cause) {
        let (pending, written) = {
            let mut inner = self.inner.borrow_mut();
            inner.phase = next;
            inner.out = BytesMut::with_capacity(BUFFER_BYTES_MIN);
            let written = std::mem::take(&mut inner.written);
            (inner.appended, inner.sent, inner.received) = (0, 0, 0);
            inner.batches.clear();
            inner.broken = None;
            (std::mem::take(&mut inner.pending), written)
        };
        for Pending {
            sink, number, end, ..
        } in pending
        {
            // The kernel has less than the whole request: the shard cannot run it.
            let failure = if end > written {
                Failure::NeverSent(cause.clone())
            } else {
                Failure::MaybeSent(cause.clone())
            };
            sink.fail(number, &failure);
        }
    }

    /// Requests waiting for replies, for the metrics.
    pub fn inflight(&self) -> usize {
        self.inner.borrow().pending.len()
    }
}

impl Inner {
    fn poll_write(&mut self, cx: &mut Context<'_>) -> std::io::Result<()> {
        let Phase::Up(stream) = &mut self.phase else {
            return Ok(());
        };
        while !self.out.is_empty() {
            match Pin::new(&mut *stream).poll_write(cx, &self.out) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Ready(Ok(count)) => {
                    self.written += count as u64;
                    bytes::Buf::advance(&mut self.out, count);
                }
            }
        }
        if self.out.capacity() > READ_BYTES_MAX {
            self.out = BytesMut::with_capacity(BUFFER_BYTES_MIN);
        }
        Ok(())
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
            self.metrics.writes.increment(1);
        }
        if let Err(error) = inner.poll_write(&mut Context::from_waker(&task)) {
            inner.broken = Some(Cause::new(error.to_string()));
            task.wake();
        }
    }
}

/// The incoming half, owned by the link's task.
struct Reader {
    buffer: BytesMut,
    scanner: ReplyScanner,
    /// Bytes at the beginning of the buffer that were handed out.
    done: usize,
    /// How much the next read asks for.
    room: usize,
}

impl Reader {
    fn new(options: &LinkOptions) -> Self {
        Self {
            buffer: BytesMut::with_capacity(BUFFER_BYTES_MIN),
            scanner: ReplyScanner::new(options.limits),
            done: 0,
            room: BUFFER_BYTES_MIN,
        }
    }

    fn make_room(&mut self) {
        if self.buffer.len() == self.buffer.capacity() {
            // The last read filled what there was: more is coming.
            self.room = (self.room * 2).min(READ_BYTES_MAX);
        }
        if self.buffer.capacity() - self.buffer.len() < self.room / 2 {
            self.buffer.reserve(self.room);
        }
    }

    fn next(&mut self) -> Result<Option<&[u8]>, crate::resp::ReplyError> {
        let start = self.done;
        let Some(len) = self.scanner.scan(&self.buffer[start..])? else {
            bytes::Buf::advance(&mut self.buffer, std::mem::take(&mut self.done));
            return Ok(None);
        };
        self.done += len;
        Ok(Some(&self.buffer[start..start + len]))
    }

    fn shrink(&mut self) {
        if self.buffer.is_empty() && self.buffer.capacity() > READ_BYTES_MAX {
            self.room = BUFFER_BYTES_MIN;
            self.buffer = BytesMut::with_capacity(self.room);
        }
    }
}

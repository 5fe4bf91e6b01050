//! A feed: the one connection of a worker to a shard on which the shard speaks unasked:
//! messages of the channels that it is subscribed to, and what became of keys that somebody
//! waits for. It speaks RESP3, where such things are told apart from answers.
//!
//! It is opened when it is first needed, and opened again when it was lost, as long as its
//! owner wants something of it: then everything that is wanted is asked for again, before
//! anything else.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::AsyncReadExt;

use super::link::LinkOptions;
use super::{Cause, Dial, Failure, ReplySink};
use crate::metrics::{Limit, ShardMetrics};
use crate::resp::{self, Lane, Protocol, ReplyScanner};
use crate::transport::Stream;
use crate::turn::{Flush, Turn};

/// A shard that is silent for so long is asked whether it is still there.
const SILENCE: Duration = Duration::from_secs(10);
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
/// Keys that are read on this connection are told of when they are changed.
const TRACK: &[u8] = b"*3\r\n$6\r\nCLIENT\r\n$8\r\nTRACKING\r\n$2\r\nON\r\n";
const BUFFER_BYTES: usize = 16 * 1024;

/// Whom a feed serves. Called from the feed's task, never from inside [`Feed::send`].
pub trait FeedOwner {
    /// Appends everything that is to be asked for on a new connection of this shard, each
    /// command with one answer; how many commands.
    fn wanted(&self, shard: u16, out: &mut BytesMut) -> usize;
    /// The connection is lost: what was said meanwhile will never be heard.
    fn lost(&self, shard: u16, cause: &Cause);
    /// The shard said something unasked: a complete frame.
    fn pushed(&self, shard: u16, frame: &[u8]);
}

/// See the module.
pub struct Feed {
    shard: u16,
    dial: Dial,
    options: LinkOptions,
    turn: Rc<Turn>,
    metrics: ShardMetrics,
    inner: RefCell<Inner>,
}

enum Phase {
    /// Nobody needs it.
    Idle,
    /// Commands are accepted, and wait in the buffer.
    Connecting,
    Up(Stream),
    /// Commands are refused with this cause.
    Down(Cause),
}

/// Who gets an answer; None when nobody does.
type Asker = Option<(Rc<dyn ReplySink>, u64)>;

struct Inner {
    phase: Phase,
    out: BytesMut,
    askers: VecDeque<Asker>,
    /// When the shard was last heard, or spoken to with nothing open.
    heard_at: Instant,
    task: Option<Waker>,
    is_dirty: bool,
    broken: Option<Cause>,
}

impl Feed {
    /// A feed that is not connected; [`Feed::run`] is its task.
    pub fn new(
        shard: u16,
        dial: Dial,
        options: LinkOptions,
        turn: Rc<Turn>,
        metrics: ShardMetrics,
    ) -> Rc<Self> {
        let inner = Inner {
            phase: Phase::Idle,
            out: BytesMut::new(),
            askers: VecDeque::new(),
            heard_at: turn.now(),
            task: None,
            is_dirty: false,
            broken: None,
        };
        Rc::new(Self {
            shard,
            dial: Dial {
                scripts: Rc::new([]),
                ..dial
            },
            options,
            turn,
            metrics,
            inner: RefCell::new(inner),
        })
    }

    /// Whether the connection stands.
    pub fn is_up(&self) -> bool {
        matches!(self.inner.borrow().phase, Phase::Up(_))
    }

    /// Sends a command that has exactly one answer, which goes to the sink under this number.
    /// While the feed connects it waits.
    ///
    /// # Errors
    /// [`Failure::NeverSent`] when the shard is down or too much waits for it already; the sink
    /// is not called then.
    pub fn send(
        self: &Rc<Self>,
        command: &[u8],
        sink: Rc<dyn ReplySink>,
        number: u64,
    ) -> Result<(), Failure> {
        let mut inner = self.inner.borrow_mut();
        match &inner.phase {
            Phase::Down(cause) => return Err(Failure::NeverSent(cause.clone())),
            Phase::Idle => {
                inner.phase = Phase::Connecting;
                inner.wake();
            }
            Phase::Connecting | Phase::Up(_) => {}
        }
        if self.options.is_full(inner.askers.len(), inner.out.len()) {
            self.metrics.limits_hit[Limit::ShardInflight].increment(1);
            let text = format!("shard {} is overloaded", self.dial.address);
            return Err(Failure::NeverSent(Cause::of_limit(text)));
        }
        inner.put(command, Some((sink, number)), self.turn.now());
        self.mark_dirty(&mut inner);
        Ok(())
    }

    fn mark_dirty(self: &Rc<Self>, inner: &mut Inner) {
        if !inner.is_dirty {
            inner.is_dirty = true;
            self.turn.shard_is_dirty(Rc::<Self>::clone(self));
        }
    }

    /// Connects when needed, serves, reconnects while something is wanted; ends never.
    pub async fn run(self: Rc<Self>, owner: Rc<dyn FeedOwner>) {
        let mut backoff = self.options.backoff().0;
        loop {
            poll_fn(|cx| self.poll_needed(cx)).await;
            match self.dial.connect(Lane::speaking(Protocol::Resp3)).await {
                Ok(stream) => {
                    backoff = self.options.backoff().0;
                    let cause = self.serve(stream, &*owner).await;
                    tracing::warn!(shard = self.dial.address, %cause, "connection for messages lost");
                    self.metrics.disconnects.increment(1);
                    owner.lost(self.shard, &cause);
                    let next = self.next_phase(&*owner, None);
                    self.lose(next, &Failure::MaybeSent(cause));
                }
                Err(cause) => {
                    self.metrics.connect_failures.increment(1);
                    tracing::warn!(shard = self.dial.address, %cause, "cannot connect for messages");
                    let next = self.next_phase(&*owner, Some(cause.clone()));
                    self.lose(next, &Failure::NeverSent(cause));
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(self.options.backoff().1);
                    self.try_again();
                }
            }
        }
    }

    /// What follows a connection that was lost, or did not come about for this cause.
    fn next_phase(&self, owner: &dyn FeedOwner, cause: Option<Cause>) -> Phase {
        match cause {
            _ if owner.wanted(self.shard, &mut BytesMut::new()) == 0 => Phase::Idle,
            Some(cause) => Phase::Down(cause),
            None => Phase::Connecting,
        }
    }

    fn try_again(&self) {
        let mut inner = self.inner.borrow_mut();
        if matches!(inner.phase, Phase::Down(_)) {
            inner.phase = Phase::Connecting;
        }
    }

    fn poll_needed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.inner.borrow_mut();
        inner.task = Some(cx.waker().clone());
        match inner.phase {
            Phase::Idle => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }

    /// Ends when the connection is lost, with the cause.
    async fn serve(self: &Rc<Self>, stream: Stream, owner: &dyn FeedOwner) -> Cause {
        self.metrics.connects.increment(1);
        {
            let mut inner = self.inner.borrow_mut();
            inner.phase = Phase::Up(stream);
            inner.heard_at = self.turn.tick();
            // In front of what has waited: that may take back what is wanted no more.
            let mut first = BytesMut::from(TRACK);
            let count = 1 + owner.wanted(self.shard, &mut first);
            first.extend_from_slice(&inner.out);
            inner.out = first;
            (0..count).for_each(|_| inner.askers.push_front(None));
        }
        let mut reader = Reader {
            buffer: BytesMut::with_capacity(BUFFER_BYTES),
            scanner: ReplyScanner::new(self.options.limits()),
        };
        let cause = poll_fn(|cx| self.poll_io(&mut reader, owner, cx)).await;
        let address = &self.dial.address;
        Cause::new(format!("connection to shard {address} lost: {cause}"))
    }

    fn poll_io(
        self: &Rc<Self>,
        reader: &mut Reader,
        owner: &dyn FeedOwner,
        cx: &mut Context<'_>,
    ) -> Poll<Cause> {
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
                    if let Err(cause) = self.hand_out(reader, owner) {
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
        reader.buffer.reserve(BUFFER_BYTES);
        let read = pin!(stream.read_buf(&mut reader.buffer)).poll(cx);
        if read.is_ready() {
            inner.heard_at = self.turn.now();
        }
        read
    }

    fn hand_out(&self, reader: &mut Reader, owner: &dyn FeedOwner) -> Result<(), Cause> {
        loop {
            let scanned = reader.scanner.scan(&reader.buffer);
            let len = match scanned {
                Ok(Some(len)) => len,
                Ok(None) => return Ok(()),
                Err(error) => {
                    return Err(Cause::new(format!("it sent what is no reply: {error}")));
                }
            };
            let frame = reader.buffer.split_to(len);
            if is_unasked(&frame) {
                owner.pushed(self.shard, &frame);
                continue;
            }
            let asker = self.inner.borrow_mut().askers.pop_front();
            match asker {
                Some(Some((sink, number))) => sink.deliver(number, &frame),
                Some(None) if resp::is_error(&frame) => {
                    let text = String::from_utf8_lossy(resp::error_text(&frame)).into_owned();
                    tracing::error!(
                        shard = self.dial.address,
                        text,
                        "CLIENT TRACKING or a subscription is refused"
                    );
                }
                Some(None) => {}
                None => return Err(Cause::new("it sent a reply to no request")),
            }
        }
    }

    fn lose(&self, next: Phase, failure: &Failure) {
        let askers = {
            let mut inner = self.inner.borrow_mut();
            inner.phase = next;
            inner.out = BytesMut::new();
            inner.broken = None;
            std::mem::take(&mut inner.askers)
        };
        for (sink, number) in askers.into_iter().flatten() {
            sink.fail(number, failure);
        }
    }

    /// Gives the connection up when the shard owes an answer for too long; asks it whether it is
    /// still there when it has been silent. Called now and then.
    pub fn check_time(self: &Rc<Self>, now: Instant) {
        let mut inner = self.inner.borrow_mut();
        let silent = now.saturating_duration_since(inner.heard_at);
        if !matches!(inner.phase, Phase::Up(_)) || inner.broken.is_some() {
            return;
        }
        if inner.askers.is_empty() && silent >= SILENCE {
            inner.put(PING, None, now);
            self.mark_dirty(&mut inner);
        } else if !inner.askers.is_empty() && silent >= self.options.request_timeout() {
            self.metrics.limits_hit[Limit::RequestTimeout].increment(1);
            let limit = self.options.request_timeout().as_millis();
            inner.broken = Some(Cause::new(format!("no reply within {limit} ms")));
            inner.wake();
        }
    }
}

struct Reader {
    buffer: BytesMut,
    scanner: ReplyScanner,
}

/// Whether this is no answer to a command.
fn is_unasked(frame: &[u8]) -> bool {
    frame.first() == Some(&b'>')
        && matches!(
            resp::elements(frame).next().and_then(resp::as_bulk),
            Some(b"message" | b"pmessage" | b"smessage" | b"invalidate")
        )
}

impl Inner {
    fn put(&mut self, command: &[u8], asker: Asker, now: Instant) {
        if self.askers.is_empty() {
            self.heard_at = now;
        }
        self.out.extend_from_slice(command);
        self.askers.push_back(asker);
    }

    fn wake(&mut self) {
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> std::io::Result<()> {
        let Phase::Up(stream) = &mut self.phase else {
            return Ok(());
        };
        let sent = stream.poll_send(&mut self.out, cx);
        if self.out.is_empty() {
            self.out = BytesMut::new();
        }
        match sent {
            Poll::Ready(sent) => sent,
            Poll::Pending => Ok(()),
        }
    }
}

impl Flush for Feed {
    fn flush(self: Rc<Self>, _now: Instant) {
        let mut inner = self.inner.borrow_mut();
        inner.is_dirty = false;
        let task = inner.task.clone().unwrap_or_else(|| Waker::noop().clone());
        if let Err(error) = inner.poll_write(&mut Context::from_waker(&task)) {
            inner.broken = Some(Cause::new(error.to_string()));
            task.wake();
        }
    }
}

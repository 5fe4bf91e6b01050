//! One turn of a worker's event loop, and what is written at its end.
//!
//! A worker is one thread with one current-thread runtime. Sends dominate a proxy's cost, so
//! nobody writes to a socket while events are being handled: sessions and links mark
//! themselves dirty, and the flusher, the task that runs behind all tasks of the turn, writes
//! each of them once. Shards come first, so that they work while clients are being answered.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// With so many requests and replies to write, the sockets are looked at once more before, and again
/// as long as that brings more: what has come meanwhile leaves in the same sends. Nobody is waited
/// for. A single one is not worth the look, and many fill a send by themselves.
const GATHERED: std::ops::Range<usize> = 2..32;

/// Something with bytes to write at the end of the turn.
pub trait Flush {
    /// Writes as much as the socket takes; arranges by itself to be woken for the rest.
    fn flush(self: Rc<Self>, now: Instant);
}

/// The dirty lists of one worker.
pub struct Turn {
    shards: RefCell<Vec<Rc<dyn Flush>>>,
    clients: RefCell<Vec<Rc<dyn Flush>>>,
    flusher: RefCell<Option<Waker>>,
    /// Requests and replies since the last flush.
    marked: Cell<usize>,
    now: Cell<Instant>,
    asked_at: Cell<Instant>,
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            shards: RefCell::default(),
            clients: RefCell::default(),
            flusher: RefCell::default(),
            marked: Cell::new(0),
            now: Cell::new(Instant::now()),
            asked_at: Cell::new(Instant::now()),
        }
    }
}

impl Turn {
    /// One more request or reply is to be written.
    #[inline]
    pub fn marks(&self) {
        self.marked.set(self.marked.get() + 1);
    }

    /// A shard's link has something to write. The caller makes sure that it is listed once.
    pub fn shard_is_dirty(&self, link: Rc<dyn Flush>) {
        self.shards.borrow_mut().push(link);
        self.wake();
    }

    /// A client's session has something to write. The caller makes sure that it is listed once.
    pub fn client_is_dirty(&self, session: Rc<dyn Flush>) {
        self.clients.borrow_mut().push(session);
        self.wake();
    }

    /// The time of the last flush: at most one turn old while anything happens. Good enough
    /// for time limits, and far cheaper than asking the clock per command.
    pub fn now(&self) -> Instant {
        self.now.get()
    }

    /// When the request was written whose reply is being delivered.
    pub fn asked_at(&self) -> Instant {
        self.asked_at.get()
    }

    /// The reply that is delivered next is to a request that was written then.
    pub fn answers(&self, asked_at: Instant) {
        self.asked_at.set(asked_at);
    }

    /// Refreshes [`Turn::now`]; for whoever acts outside any turn, such as timers.
    pub fn tick(&self) -> Instant {
        let now = Instant::now();
        self.now.set(now);
        now
    }

    fn wake(&self) {
        if let Some(flusher) = self.flusher.borrow_mut().take() {
            flusher.wake();
        }
    }

    /// The flusher: runs for ever as a task of the worker.
    pub async fn flush_for_ever(self: Rc<Self>) {
        let (mut shards, mut clients) = (Vec::new(), Vec::new());
        loop {
            poll_fn(|cx| self.poll_dirty(cx)).await;
            let mut seen = 0;
            while GATHERED.contains(&self.marked.get()) && self.marked.get() > seen {
                seen = self.marked.get();
                tokio::task::yield_now().await;
            }
            self.marked.set(0);
            let now = self.tick();
            flush_all(&self.shards, &mut shards, now);
            flush_all(&self.clients, &mut clients, now);
        }
    }

    /// Ready when there is something to write.
    fn poll_dirty(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.shards.borrow().is_empty() || !self.clients.borrow().is_empty() {
            return Poll::Ready(());
        }
        *self.flusher.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Empties one list; `spare` is the other of two buffers that take turns.
fn flush_all(list: &RefCell<Vec<Rc<dyn Flush>>>, spare: &mut Vec<Rc<dyn Flush>>, now: Instant) {
    std::mem::swap(&mut *list.borrow_mut(), spare);
    for dirty in spare.drain(..) {
        dirty.flush(now);
    }
}

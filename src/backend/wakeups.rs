//! Who waits for the end of another proxy's transaction is woken by it.
//!
//! The scripts that free slots announce it on the transaction's own channel
//! ([`names::RELEASED`](crate::txn::names::RELEASED)). While waits are frequent, and for a while
//! longer, one connection per worker and shard is subscribed to all of these. Announcements can
//! be missed: before the connection stands, when it is lost, or when it is refused. So every
//! wait has a limit, at which the waiter looks for itself; that is all there is while waits are
//! rare, since a subscriber costs the shard a write, and the proxy a read, for every transaction.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Dial;
use crate::metrics::{ShardMetrics, WaitEnd};
use crate::resp::{self, Lane, Limits, ReplyScanner};
use crate::transport::Stream;

pub(crate) const PREFIX: &[u8] = b"__lockstep:released:";
pub(crate) const PSUBSCRIBE: &[u8] = b"*2\r\n$10\r\nPSUBSCRIBE\r\n$21\r\n__lockstep:released:*\r\n";

/// Ends that are remembered, since the news of one may overtake the reply that names its id.
const RECENT_MAX: usize = 256;
/// So many waits within [`WINDOW`] are frequent: one long wait is soon as many, since each look
/// that finds nothing is another.
const FREQUENT: u32 = 256;
/// The connection is closed when waits were not frequent for so long.
const WINDOW: Duration = Duration::from_secs(5);
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Before the next attempt to connect.
const RECONNECT: Duration = Duration::from_millis(500);

/// What waits for announcements of one shard; see the module.
pub struct Wakeups {
    dial: Dial,
    metrics: ShardMetrics,
    inner: RefCell<Inner>,
}

struct Inner {
    waiting: HashMap<Vec<u8>, Vec<oneshot::Sender<()>>>,
    recent: VecDeque<Vec<u8>>,
    /// Waits since the window began.
    waits: u32,
    window_began: Instant,
    is_running: bool,
    is_subscribed: bool,
}

impl Wakeups {
    /// Connects when waits are frequent for the first time.
    pub fn new(dial: Dial, metrics: ShardMetrics) -> Rc<Self> {
        let dial = Dial {
            scripts: Rc::new([]),
            ..dial
        };
        Rc::new(Self {
            dial,
            metrics,
            inner: RefCell::new(Inner {
                waiting: HashMap::new(),
                recent: VecDeque::new(),
                waits: 0,
                window_began: Instant::now(),
                is_running: false,
                is_subscribed: false,
            }),
        })
    }

    /// Waits for the end of this transaction on this shard, in the name of so many others; false
    /// when the limit passed first. Must be called on a thread with local tasks.
    pub async fn released(self: &Rc<Self>, id: &str, limit: Duration, waiting: u32) -> bool {
        let was_woken = match self.listen(id.as_bytes(), waiting) {
            None => true,
            Some(news) => matches!(timeout(limit, news).await, Ok(Ok(()))),
        };
        let end = if was_woken {
            WaitEnd::Released
        } else {
            WaitEnd::Timer
        };
        self.metrics.lock_waits[end].increment(1);
        if !was_woken {
            self.inner.borrow_mut().forget(id.as_bytes());
        }
        was_woken
    }

    /// Whether announcements come in now.
    pub fn is_listening(&self) -> bool {
        self.inner.borrow().is_subscribed
    }

    /// None when it has been announced already.
    fn listen(self: &Rc<Self>, id: &[u8], waiting: u32) -> Option<oneshot::Receiver<()>> {
        let mut inner = self.inner.borrow_mut();
        if inner.are_frequent_with(waiting) && !std::mem::replace(&mut inner.is_running, true) {
            tokio::task::spawn_local(Rc::clone(self).run());
        }
        if inner.recent.iter().any(|known| known == id) {
            return None;
        }
        let (news, wait) = oneshot::channel();
        inner.waiting.entry(id.to_vec()).or_default().push(news);
        Some(wait)
    }

    /// Listens until waits are rare.
    async fn run(self: Rc<Self>) {
        loop {
            let ended = match self.dial.connect(Lane::FIRST).await {
                Ok(stream) => self.follow(stream).await,
                Err(cause) => Err(cause.to_string()),
            };
            self.inner.borrow_mut().is_subscribed = false;
            match ended {
                Ok(()) => break,
                Err(why) => tracing::debug!(shard = self.dial.address, why, "no wake-ups"),
            }
            tokio::time::sleep(RECONNECT).await;
            if self.is_idle() {
                break;
            }
        }
        let mut inner = self.inner.borrow_mut();
        inner.is_running = false;
        inner.recent.clear();
        inner.wake_all();
    }

    fn is_idle(&self) -> bool {
        let mut inner = self.inner.borrow_mut();
        if inner.window_began.elapsed() < WINDOW {
            return false;
        }
        inner.window_began = Instant::now();
        std::mem::take(&mut inner.waits) < FREQUENT
    }

    /// Ends well when waits have not been frequent for a while.
    async fn follow(&self, mut stream: Stream) -> Result<(), String> {
        let text = |error: std::io::Error| error.to_string();
        stream.write_all(PSUBSCRIBE).await.map_err(text)?;
        stream.flush().await.map_err(text)?;
        let mut buffer = BytesMut::with_capacity(4096);
        let mut scanner = ReplyScanner::new(Limits::default());
        let mut look_at = Instant::now() + LOOK;
        loop {
            while let Some(len) = scanner.scan(&buffer).map_err(|error| error.to_string())? {
                self.take_in(&buffer.split_to(len))?;
            }
            match timeout(LOOK, stream.read_buf(&mut buffer)).await {
                Ok(Ok(0)) => return Err("it closed the connection".into()),
                Ok(read) => {
                    read.map_err(text)?;
                }
                Err(_) => {}
            }
            if Instant::now() >= look_at {
                look_at = Instant::now() + LOOK;
                if self.is_idle() {
                    return Ok(());
                }
            }
        }
    }

    fn take_in(&self, frame: &[u8]) -> Result<(), String> {
        if resp::is_error(frame) {
            return Err(String::from_utf8_lossy(resp::error_text(frame)).into_owned());
        }
        let parts: Vec<&[u8]> = resp::elements(frame).filter_map(resp::as_bulk).collect();
        let mut inner = self.inner.borrow_mut();
        match parts[..] {
            // Whatever ended before the subscription stood was missed.
            [b"psubscribe", ..] => {
                inner.is_subscribed = true;
                inner.wake_all();
            }
            [b"pmessage", _, channel, ..] => {
                if let Some(id) = channel.strip_prefix(PREFIX) {
                    inner.announce(id);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Inner {
    /// Counts so many waits in; whether there have been many lately.
    fn are_frequent_with(&mut self, waiting: u32) -> bool {
        if !self.is_running && self.window_began.elapsed() >= WINDOW {
            (self.waits, self.window_began) = (0, Instant::now());
        }
        self.waits = self.waits.saturating_add(waiting);
        self.waits >= FREQUENT
    }

    fn announce(&mut self, id: &[u8]) {
        for news in self.waiting.remove(id).into_iter().flatten() {
            // Who gave up meanwhile needs none.
            let _ = news.send(());
        }
        if self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(id.to_vec());
    }

    fn wake_all(&mut self) {
        for news in self.waiting.drain().flat_map(|(_, waiting)| waiting) {
            let _ = news.send(());
        }
    }

    /// Somebody who waited for it has given up.
    fn forget(&mut self, id: &[u8]) {
        if let Some(waiting) = self.waiting.get_mut(id) {
            waiting.retain(|news| !news.is_closed());
            if waiting.is_empty() {
                self.waiting.remove(id);
            }
        }
    }
}

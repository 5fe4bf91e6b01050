//! Pinned connections: a transaction, or a client that watches keys, has such a connection for
//! itself while it needs the connection's state (WATCH, MULTI). They come from a bounded pool per shard and worker, first
//! come first served, and go back to it only when they are known to be clean.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::options::LinkOptions;
use super::{Cause, Dial, Failure};
use crate::metrics::{Limit, PoolMetrics, Portion, ShardMetrics};
use crate::resp::{Lane, Protocol, ReplyError, ReplyScanner, as_int, build, is_error};
use crate::transport::Stream;

/// A command that is sent as it comes is given up when nothing has come of it for so long: others
/// may want the connection.
const STALLED_AFTER: Duration = Duration::from_secs(60);
/// Of such a command so much is written at once.
const PART_BYTES: usize = 64 * 1024;

/// Bounds and times of a pool.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// Connections at most, in use and idle together.
    pub connections_max: usize,
    /// The setting that says so, for errors and metrics.
    pub bound: Bound,
    /// How long to wait for one, and for replies, at most.
    pub shared: LinkOptions,
}

/// What bounds the connections of a pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bound {
    /// `pinned-connections-max`.
    Pinned,
    /// `watch-connections-max`.
    Watch,
}

impl Bound {
    /// The setting, and what else can be done.
    fn advice(self) -> &'static str {
        match self {
            Self::Pinned => "pinned-connections-max",
            Self::Watch => {
                "clients that WATCH hold one per shard until EXEC, DISCARD or UNWATCH; watch-connections-max"
            }
        }
    }

    fn limit(self) -> Limit {
        match self {
            Self::Pinned => Limit::PinnedConnections,
            Self::Watch => Limit::WatchConnections,
        }
    }
}

/// The pinned connections of a worker to one shard.
pub struct Pool {
    dial: Dial,
    options: PoolOptions,
    permits: std::sync::Arc<Semaphore>,
    idle: RefCell<Vec<Connection>>,
    metrics: ShardMetrics,
    own: PoolMetrics,
    idle_gauge: Portion,
}

impl Pool {
    /// An empty pool; connections are opened when they are needed.
    pub fn new(dial: Dial, options: PoolOptions, metrics: ShardMetrics) -> Rc<Self> {
        let permits = std::sync::Arc::new(Semaphore::new(options.connections_max));
        let own = match options.bound {
            Bound::Pinned => metrics.pinned.clone(),
            Bound::Watch => metrics.watch.clone(),
        };
        Rc::new(Self {
            dial,
            options,
            permits,
            idle: RefCell::default(),
            idle_gauge: Portion::new(&own.idle),
            metrics,
            own,
        })
    }

    /// A connection for exclusive use that is answered in this protocol, in database 0. Waits
    /// for one, in order, if all are in use.
    ///
    /// # Errors
    /// [`Failure::NeverSent`] when none became free in time, or the shard cannot be reached.
    pub async fn get(self: &Rc<Self>, protocol: Protocol) -> Result<Pinned, Failure> {
        self.get_in(Lane::speaking(protocol)).await
    }

    /// The same in any lane.
    ///
    /// # Errors
    /// As [`Pool::get`].
    pub async fn get_in(self: &Rc<Self>, lane: Lane) -> Result<Pinned, Failure> {
        let permit = self.permit().await?;
        let connection = match self.idle_connection(lane) {
            Some(connection) => connection,
            None => Connection {
                stream: self.dial.connect(lane).await.map_err(Failure::NeverSent)?,
                buffer: BytesMut::with_capacity(4096),
                scanner: ReplyScanner::new(self.options.shared.limits()),
                lane,
                id: None,
            },
        };
        self.own.in_use.increment(1.0);
        let mut pinned = Pinned {
            connection: Some(connection),
            pool: Rc::clone(self),
            _permit: permit,
        };
        pinned.speak(lane.protocol).await?;
        pinned.select(lane.db).await?;
        Ok(pinned)
    }

    /// The connection used last that is still there; rather one of this lane, and one of another
    /// only if there is no room to open one more.
    fn idle_connection(&self, lane: Lane) -> Option<Connection> {
        let in_use = self.options.connections_max - self.permits.available_permits();
        let mut idle = self.idle.borrow_mut();
        loop {
            let found = idle.iter().rposition(|connection| connection.lane == lane);
            let is_full = in_use + idle.len() > self.options.connections_max;
            let mut connection = match found {
                Some(at) => idle.remove(at),
                None if is_full => idle.pop()?,
                None => return None,
            };
            if connection.is_quiet() {
                return Some(connection);
            }
        }
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let permits = std::sync::Arc::clone(&self.permits);
        if let Ok(permit) = permits.clone().try_acquire_owned() {
            return Ok(permit);
        }
        self.own.waits.increment(1);
        let began = Instant::now();
        let permit = timeout(self.options.shared.wait_max(), permits.acquire_owned()).await;
        let waited = began.elapsed().as_secs_f64();
        self.own.wait.record(waited);
        if let Ok(Ok(permit)) = permit {
            return Ok(permit);
        }
        self.metrics.limits_hit[self.options.bound.limit()].increment(1);
        Err(Failure::NeverSent(Cause::of_limit(format!(
            "no connection to shard {} became free within {} ms ({} is {})",
            self.dial.address,
            self.options.shared.wait_max().as_millis(),
            self.options.bound.advice(),
            self.options.connections_max
        ))))
    }

    /// Brings the metrics up to date.
    pub fn publish(&self) {
        self.idle_gauge.set(self.idle.borrow().len());
    }
}

/// Why a reply did not come.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("it closed the connection")]
    Closed,
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Broken(#[from] ReplyError),
}

/// What was asked changes nothing: it is as if it had never been sent.
fn never_sent(failure: Failure) -> Failure {
    match failure {
        Failure::NeverSent(cause) | Failure::MaybeSent(cause) => Failure::NeverSent(cause),
    }
}

struct Connection {
    stream: Stream,
    buffer: BytesMut,
    scanner: ReplyScanner,
    lane: Lane,
    /// `CLIENT ID`, once it was asked for.
    id: Option<i64>,
}

/// A connection taken from a [`Pool`]. Dropping it closes it; [`Pinned::give_back`] keeps it.
pub struct Pinned {
    /// None once it failed or was given back.
    connection: Option<Connection>,
    pool: Rc<Pool>,
    _permit: OwnedSemaphorePermit,
}

impl Pinned {
    /// Writes a request and reads so many replies.
    ///
    /// # Errors
    /// [`Failure::NeverSent`] when the request was not wholly given to the kernel, else
    /// [`Failure::MaybeSent`]. The connection cannot be used after either.
    pub async fn exchange(
        &mut self,
        request: &[u8],
        replies: usize,
    ) -> Result<Vec<Bytes>, Failure> {
        let mut connection = self.take()?;
        self.put(&mut connection, request).await?;
        let replies = self.replies(&mut connection, replies).await?;
        self.connection = Some(connection);
        Ok(replies)
    }

    /// Writes a command that is read from there, up to its end, as it comes; reads its only reply.
    ///
    /// # Errors
    /// As [`Pinned::exchange`]; also when nothing more has come for [`STALLED_AFTER`].
    pub async fn exchange_as_it_comes(
        &mut self,
        from: &mut DuplexStream,
    ) -> Result<Bytes, Failure> {
        let mut connection = self.take()?;
        let mut part = BytesMut::with_capacity(PART_BYTES);
        loop {
            part.clear();
            match timeout(STALLED_AFTER, from.read_buf(&mut part)).await {
                Ok(Ok(0)) => break,
                Ok(Ok(_)) => self.put(&mut connection, &part).await?,
                Ok(Err(_)) | Err(_) => return Err(self.stalled()),
            }
        }
        let mut replies = self.replies(&mut connection, 1).await?;
        self.connection = Some(connection);
        let reply = replies.pop();
        reply.ok_or_else(|| Failure::MaybeSent(self.cause("no reply")))
    }

    fn take(&mut self) -> Result<Connection, Failure> {
        let connection = self.connection.take();
        connection.ok_or_else(|| Failure::NeverSent(self.cause("the connection failed before")))
    }

    async fn put(&self, connection: &mut Connection, request: &[u8]) -> Result<(), Failure> {
        let limit = self.pool.options.shared.request_timeout();
        match timeout(limit, connection.write(request)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(text)) => Err(Failure::NeverSent(self.cause(&text))),
            Err(_) => Err(Failure::NeverSent(self.cause("it accepts no bytes"))),
        }
    }

    async fn replies(&self, connection: &mut Connection, n: usize) -> Result<Vec<Bytes>, Failure> {
        let limit = self.pool.options.shared.request_timeout();
        match timeout(limit, connection.read(n)).await {
            Ok(Ok(replies)) => Ok(replies),
            Ok(Err(why)) => Err(Failure::MaybeSent(self.no_reply(&why))),
            Err(_) => {
                self.pool.metrics.limits_hit[Limit::RequestTimeout].increment(1);
                let text = format!("no reply within {} ms", limit.as_millis());
                Err(Failure::MaybeSent(self.cause(&text)))
            }
        }
    }

    /// The connection's id on its shard, by which others can unblock it.
    ///
    /// # Errors
    /// [`Failure::NeverSent`]: the connection cannot be used any more.
    pub async fn id(&mut self) -> Result<i64, Failure> {
        if let Some(id) = self
            .connection
            .as_ref()
            .and_then(|connection| connection.id)
        {
            return Ok(id);
        }
        let mut request = BytesMut::new();
        build::command(&mut request, ["CLIENT", "ID"]);
        let replies = self.exchange(&request, 1).await.map_err(never_sent)?;
        let id = replies.first().and_then(|reply| as_int(reply));
        match (id, &mut self.connection) {
            (Some(id), Some(connection)) => {
                connection.id = Some(id);
                Ok(id)
            }
            _ => Err(Failure::NeverSent(self.cause("it does not tell its id"))),
        }
    }

    /// Writes a request and waits for its only reply, however long that takes.
    ///
    /// # Errors
    /// As [`Pinned::exchange`].
    pub async fn exchange_patiently(&mut self, request: &[u8]) -> Result<Bytes, Failure> {
        let mut connection = self.take()?;
        self.put(&mut connection, request).await?;
        let replies = connection.read(1).await;
        match replies.map(|mut replies| replies.pop()) {
            Ok(Some(reply)) => {
                self.connection = Some(connection);
                Ok(reply)
            }
            Ok(None) => Err(Failure::MaybeSent(self.cause("no reply"))),
            Err(why) => Err(Failure::MaybeSent(self.no_reply(&why))),
        }
    }

    /// Whether the connection stands, as far as can be told without asking.
    pub fn is_alive(&mut self) -> bool {
        self.connection.as_mut().is_some_and(Connection::is_quiet)
    }

    /// Goes on in this protocol.
    ///
    /// # Errors
    /// [`Failure::NeverSent`]: the connection cannot be used any more.
    pub async fn speak(&mut self, protocol: Protocol) -> Result<(), Failure> {
        let Some(connection) = &self.connection else {
            return Ok(());
        };
        if connection.lane.protocol == protocol {
            return Ok(());
        }
        let version: &[u8] = match protocol {
            Protocol::Resp2 => b"2",
            Protocol::Resp3 => b"3",
        };
        self.switch(&[b"HELLO", version], |lane| lane.protocol = protocol)
            .await
    }

    /// Goes on in this database.
    ///
    /// # Errors
    /// [`Failure::NeverSent`]: the connection cannot be used any more.
    pub async fn select(&mut self, db: u16) -> Result<(), Failure> {
        if self.connection.as_ref().is_some_and(|c| c.lane.db == db) {
            return Ok(());
        }
        let text = db.to_string();
        self.switch(&[b"SELECT", text.as_bytes()], |lane| lane.db = db)
            .await
    }

    async fn switch(&mut self, words: &[&[u8]], note: impl Fn(&mut Lane)) -> Result<(), Failure> {
        let mut request = BytesMut::new();
        build::command(&mut request, words);
        let replies = self.exchange(&request, 1).await.map_err(never_sent)?;
        if let Some(reply) = replies.first().filter(|reply| is_error(reply)) {
            self.connection = None;
            let words = String::from_utf8_lossy(crate::resp::error_text(reply)).into_owned();
            return Err(Failure::NeverSent(self.cause(&words)));
        }
        if let Some(connection) = &mut self.connection {
            note(&mut connection.lane);
        }
        Ok(())
    }

    fn stalled(&self) -> Failure {
        self.pool.metrics.limits_hit[Limit::IdleTimeout].increment(1);
        let limit = STALLED_AFTER.as_secs();
        let text = format!("nothing more of the command came within {limit} s");
        Failure::NeverSent(Cause::of_limit(text))
    }

    fn no_reply(&self, why: &ReadError) -> Cause {
        if matches!(why, ReadError::Broken(ReplyError::TooBig)) {
            self.pool.metrics.limits_hit[Limit::ReplyBytes].increment(1);
        }
        self.cause(&why.to_string())
    }

    fn cause(&self, text: &str) -> Cause {
        Cause::new(format!(
            "connection to shard {} lost: {text}",
            self.pool.dial.address
        ))
    }

    /// Puts the connection back for others. Only when it is clean: not inside MULTI, nothing
    /// watched, nothing asked that was not answered.
    pub fn give_back(mut self) {
        if let Some(connection) = self.connection.take()
            && connection.buffer.is_empty()
        {
            self.pool.idle.borrow_mut().push(connection);
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.pool.own.in_use.decrement(1.0);
    }
}

impl Connection {
    /// Nothing was asked, so anything there is to read is the end or does not belong here.
    fn is_quiet(&mut self) -> bool {
        self.stream.is_silent()
    }

    async fn write(&mut self, request: &[u8]) -> Result<(), String> {
        let written = async {
            self.stream.write_all(request).await?;
            self.stream.flush().await
        };
        written.await.map_err(|e| e.to_string())
    }

    async fn read(&mut self, replies: usize) -> Result<Vec<Bytes>, ReadError> {
        let mut found = Vec::with_capacity(replies);
        while found.len() < replies {
            if let Some(len) = self.scanner.scan(&self.buffer)? {
                found.push(self.buffer.split_to(len).freeze());
            } else if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(ReadError::Closed);
            }
        }
        Ok(found)
    }
}

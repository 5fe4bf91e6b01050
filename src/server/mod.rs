//! Start and stop of the proxy: what is learned from the shards first, the worker threads, the
//! listener that hands connections to them.
//!
//! * [`circuits`]: whether shards are given requests, in the metrics;
//! * [`discover`]: the shards' command table and version;
//! * [`knobs`]: what can be set anew while it runs;
//! * [`listeners`]: where clients come in;
//! * [`map`]: whether the shards are those of one shard map, in its order;
//! * [`safety`]: which shards are not served;
//! * [`standing`]: whether a shard can be reached, over all workers;
//! * [`worker`]: one thread, one runtime, everything a client needs, shared with no other thread.

mod circuits;
mod discover;
mod knobs;
mod listeners;
mod map;
mod safety;
mod standing;
mod worker;

pub(crate) use knobs::Knobs;
pub(crate) use listeners::listen_on;
pub(crate) use worker::engine;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

use crate::backend::Busy;
use crate::config::{Address, Config};
use crate::engine::channels::audience::Audience;
use crate::engine::sources::Sources;
use crate::engine::turnstile::Turnstile;
use crate::frontend::ServerInfo;
use crate::frontend::access::{self, Gate};
use crate::frontend::guards::Buffered;
use crate::frontend::hot::HotKeys;
use crate::frontend::latency::Latencies;
use crate::frontend::refusal::fixed;
use crate::frontend::roster::Roster;
use crate::frontend::slow::SlowLog;
use crate::keyspace::{CommandTable, Topology};
use crate::metrics::{ErrorKind, Limit, Metrics, Rejection};
use crate::readiness::Readiness;
use crate::shutdown::Shutdown;
use crate::traces::Tracer;
use crate::transport::Stream;
use crate::transport::tls::{Acceptor, TlsError};
use listeners::{Arrived, Inbound, Listeners};

/// New connections that wait for a worker at most.
const HANDOVER_MAX: usize = 1024;

/// Why the proxy could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The listener could not be opened.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address from the settings.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The files for TLS cannot be used.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] TlsError),
    /// A thread or its runtime could not be made.
    #[error("cannot start a worker: {0}")]
    Worker(io::Error),
    /// The file of users cannot be read, or is wrong.
    #[error("{0}")]
    Users(String),
    /// A shard answered, but cannot be served.
    #[error("{0}")]
    Shard(String),
    /// The process was told to stop before it had started.
    #[error("stopped before all shards could be reached")]
    Stopped,
}

/// The settings, as they were set last.
pub(crate) type Settings = watch::Receiver<Arc<Config>>;

/// What every worker has a share of, or a copy.
#[derive(Clone)]
pub(crate) struct Common {
    /// As at the start.
    pub config: Arc<Config>,
    /// As they are now.
    pub live: Settings,
    pub metrics: Arc<Metrics>,
    pub topology: Arc<Topology>,
    /// The id of the shard map.
    pub map: Arc<str>,
    pub table: Arc<CommandTable>,
    pub info: Arc<ServerInfo>,
    pub turnstile: Arc<Turnstile>,
    /// Scripts that clients have shown.
    pub sources: Arc<Sources>,
    /// Who listens to what, over all workers.
    pub audience: Arc<Audience>,
    pub shutdown: Shutdown,
    pub roster: Arc<Roster>,
    pub gate: Arc<Gate>,
    pub clients: Arc<AtomicUsize>,
    pub slow: Arc<SlowLog>,
    pub latencies: Latencies,
    pub hot: Arc<HotKeys>,
    /// Bytes that wait, over all workers.
    pub buffered: Arc<Buffered>,
    pub tracer: Arc<Tracer>,
    pub acceptor: Option<Acceptor>,
    /// Shards that have not answered before the start.
    pub missing: Arc<[Address]>,
    pub readiness: Readiness,
    /// By shard.
    pub standings: Arc<[standing::Standing]>,
    /// By shard.
    pub busy: Arc<[Busy]>,
}

/// A client that was accepted.
pub(crate) struct Accepted {
    pub stream: Inbound,
    pub id: u64,
}

/// A proxy that serves.
pub struct Server {
    address: SocketAddr,
    workers: Vec<worker::Handle>,
    settings: Adjuster,
}

/// Sets anew what can be while the proxy serves.
#[derive(Clone)]
pub struct Adjuster {
    live: watch::Sender<Arc<Config>>,
    gate: Arc<Gate>,
    table: Arc<CommandTable>,
    roster: Arc<Roster>,
}

impl Adjuster {
    fn new(live: watch::Sender<Arc<Config>>, common: &Common) -> Self {
        Self {
            live,
            gate: Arc::clone(&common.gate),
            table: Arc::clone(&common.table),
            roster: Arc::clone(&common.roster),
        }
    }

    /// From now on this counts. What cannot change must not differ from what was.
    ///
    /// # Errors
    /// The file of users cannot be read, or is wrong: nothing has changed then.
    pub fn set(&self, config: Config) -> Result<(), String> {
        self.gate.configure(&config, &self.table, &self.roster)?;
        self.live.send_replace(Arc::new(config));
        Ok(())
    }

    /// The settings as they are now.
    pub fn now(&self) -> Arc<Config> {
        Arc::clone(&self.live.borrow())
    }
}

impl Server {
    /// Learns what must be known of the shards (waiting for them if need be), starts the
    /// workers, and listens. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(
        config: Arc<Config>,
        metrics: Arc<Metrics>,
        tracer: Arc<Tracer>,
        readiness: Readiness,
        shutdown: Shutdown,
    ) -> Result<Self, StartError> {
        if let Some(path) = &config.acl_file {
            let checked = access::check_file(path);
            checked.map_err(|mistakes| StartError::Users(mistakes.join("\n")))?;
        }
        readiness.block("server", "learning the shards' commands");
        let learned = discover::discover(&config, &readiness, &shutdown).await?;
        if let Some(connector) = discover::connector(&config) {
            connector.check()?;
        }
        let gate = Gate::open(&config, &learned.table).map_err(StartError::Users)?;
        let map = map::claim(&config, &readiness, &shutdown, &learned.missing).await?;
        let acceptor = listeners::acceptor(&config)?;
        let listener = Listeners::open(&config).await?;
        let address = listener.address().map_err(StartError::Worker)?;
        let addresses: Vec<_> = config.shards.iter().map(ToString::to_string).collect();
        let standings = standing::all(&addresses, &metrics, &readiness);
        let (sender, live) = watch::channel(Arc::clone(&config));
        let common = Common {
            live,
            metrics,
            topology: Arc::new(Topology::new(addresses)),
            map: map.into(),
            latencies: Latencies::new(config.workers_effective(), learned.table.ids()),
            table: Arc::new(learned.table),
            info: Arc::new(ServerInfo {
                redis_version: learned.redis_version,
                databases: learned.databases,
                started: std::time::Instant::now(),
            }),
            turnstile: Arc::default(),
            sources: Arc::new(Sources::new(config.script_cache_bytes_max)),
            audience: Arc::default(),
            shutdown,
            roster: Arc::default(),
            gate: Arc::new(gate),
            clients: Arc::default(),
            missing: learned.missing.into(),
            readiness: readiness.clone(),
            slow: Arc::default(),
            hot: Arc::default(),
            buffered: Arc::default(),
            tracer,
            acceptor,
            standings,
            busy: config.shards.iter().map(|_| Busy::default()).collect(),
            config,
        };
        let settings = Adjuster::new(sender, &common);
        let workers = (0..common.config.workers_effective())
            .map(|number| worker::start(number, common.clone()))
            .collect::<io::Result<Vec<_>>>()
            .map_err(StartError::Worker)?;
        let senders = workers.iter().map(worker::Handle::place).collect();
        tokio::spawn(accept_until_draining(listener, senders, common));
        readiness.clear("server");
        tracing::info!(%address, workers = workers.len(), "serving");
        Ok(Self {
            address,
            workers,
            settings,
        })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How to set anew what can be.
    pub fn adjuster(&self) -> Adjuster {
        self.settings.clone()
    }

    /// Waits until every worker has stopped, which they do once the process drains.
    pub async fn finished(self) {
        for worker in self.workers {
            let _ = tokio::task::spawn_blocking(move || worker.thread.join()).await;
        }
    }
}

type Senders = Vec<(mpsc::Sender<Accepted>, Arc<AtomicUsize>)>;

/// Gives each new connection to the worker that has the fewest.
async fn accept_until_draining(listener: Listeners, workers: Senders, common: Common) {
    let next_id = AtomicU64::new(1);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = common.shutdown.draining() => return,
        };
        match accepted {
            Ok(stream) => admit(stream, &workers, &common, &next_id).await,
            Err(error) => {
                common.metrics.clients_rejected[Rejection::System].increment(1);
                tracing::warn!(%error, "cannot accept a connection");
                // Most likely no file descriptors are left: give some time to get free.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn admit(stream: Arrived, workers: &Senders, common: &Common, next_id: &AtomicU64) {
    if let Some((why, text)) = no_room(common) {
        common.metrics.clients_rejected[why].increment(1);
        common.metrics.errors[ErrorKind::Limit].increment(1);
        if let Some(stream) = stream.into_plain() {
            tokio::spawn(turn_away(stream, text));
        }
        return;
    }
    let Some((sender, clients)) = workers
        .iter()
        .min_by_key(|(_, clients)| clients.load(Ordering::Relaxed))
    else {
        return;
    };
    let keepalive = common.live.borrow().tcp_keepalive;
    let Ok(stream) = stream.prepare(keepalive) else {
        common.metrics.clients_rejected[Rejection::System].increment(1);
        return;
    };
    common.clients.fetch_add(1, Ordering::Relaxed);
    clients.fetch_add(1, Ordering::Relaxed);
    common.metrics.clients_accepted.increment(1);
    let id = next_id.fetch_add(1, Ordering::Relaxed);
    // Fails only when the worker is gone, that is, when the process ends.
    let _ = sender.send(Accepted { stream, id }).await;
}

/// Why one more client is not served, and what it is told.
fn no_room(common: &Common) -> Option<(Rejection, &'static str)> {
    let config = common.live.borrow();
    if common.clients.load(Ordering::Relaxed) >= config.clients_max {
        common.metrics.limits_hit[Limit::Clients].increment(1);
        return Some((Rejection::ClientsMax, fixed::MAX_CLIENTS));
    }
    if common.buffered.is_over(&config) {
        common.metrics.limits_hit[Limit::Memory].increment(1);
        return Some((Rejection::Memory, fixed::MEMORY_MAX));
    }
    None
}

/// Says why, and gives the client a moment to take it: closing at once would throw it away
/// with what the client has sent already.
async fn turn_away(mut stream: Stream, text: &'static str) {
    let farewell = async {
        let text = format!("-{text}\r\n");
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await?;
        let mut ignored = [0; 512];
        while stream.read(&mut ignored).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(Duration::from_millis(200), farewell).await;
}

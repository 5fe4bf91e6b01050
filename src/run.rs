//! A whole lockstep inside this process: the proxy, the metrics endpoint, and the way from the
//! signal to the exit.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::admin::{self, History};
use crate::config::{Address, Config};
use crate::metrics::{Metrics, UPKEEP_INTERVAL};
use crate::readiness::Readiness;
use crate::server::{Adjuster, Server, listen_on};
use crate::shutdown::Shutdown;
use crate::traces::{Tracer, export_for_ever};

/// What is left of the time to drain when those who did not finish are told to hurry: this much
/// at most, and a quarter of a short time.
const HURRY_BEFORE_END: Duration = Duration::from_secs(1);

/// How long the last spans are waited for.
const LAST_SPANS_LIMIT: Duration = Duration::from_secs(1);

/// Why lockstep did not start or did not stop as it should.
#[derive(Debug, Error)]
pub enum Failure {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} (setting {setting}): {error}")]
    Listen {
        /// The address.
        address: Address,
        /// The setting that holds it.
        setting: &'static str,
        /// What the system says.
        error: io::Error,
    },
    /// The metrics could not be made.
    #[error("cannot set up the metrics: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// The proxy itself did not start.
    #[error(transparent)]
    Server(#[from] crate::server::StartError),
    /// The time to drain was over before everything had finished.
    #[error("not everything had finished after drain-timeout-ms")]
    NotDrained,
}

/// A running lockstep.
pub struct Running {
    server: Server,
    /// Where the metrics endpoint listens, if it does.
    pub metrics_address: Option<SocketAddr>,
    readiness: Readiness,
    shutdown: Shutdown,
    settings: Adjuster,
    metrics: Arc<Metrics>,
    /// Ends when nobody can trace any more, and all that waited was sent.
    exporting: Option<JoinHandle<()>>,
    // Ends them when dropped.
    _tasks: JoinSet<()>,
}

impl Running {
    /// Starts everything; it stops when `shutdown` drains.
    ///
    /// # Errors
    ///
    /// When an address cannot be listened on.
    pub async fn start(config: Config, shutdown: Shutdown) -> Result<Self, Failure> {
        let config = Arc::new(config);
        let metrics = Arc::new(Metrics::new(&config.shards)?);
        let readiness = Readiness::new();
        let mut tasks = JoinSet::new();
        let history = Arc::new(History::new(&config.shards));
        let kept = Arc::clone(&history);
        tasks.spawn(upkeep(Arc::clone(&metrics), readiness.clone(), kept));
        let metrics_address = match &config.metrics_listen {
            Some(address) => {
                let listener = listen(address, config.reuse_port).await;
                let (listener, bound) = listener.map_err(cannot(address, "metrics-listen"))?;
                let serving =
                    admin::serve(listener, Arc::clone(&metrics), readiness.clone(), history);
                tasks.spawn(async { drop(serving.await) });
                Some(bound)
            }
            None => None,
        };
        let (tracer, exporting) = tracer(&config, &metrics);
        let server = Server::start(
            Arc::clone(&config),
            Arc::clone(&metrics),
            tracer,
            readiness.clone(),
            shutdown.clone(),
        );
        let server = server.await?;
        Ok(Self {
            settings: server.adjuster(),
            server,
            metrics_address,
            readiness,
            shutdown,
            metrics,
            exporting,
            _tasks: tasks,
        })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// How to set anew what can be, and where that is counted.
    pub fn adjuster(&self) -> (Adjuster, Arc<Metrics>) {
        (self.settings.clone(), Arc::clone(&self.metrics))
    }

    /// Waits until everything has stopped. From the start of draining on the process is not
    /// ready; `hurry` is called when the time to drain is nearly over.
    ///
    /// # Errors
    ///
    /// [`Failure::NotDrained`] when the time was over first.
    pub async fn finished(self, hurry: impl FnOnce()) -> Result<(), Failure> {
        let patience = async {
            self.shutdown.draining().await;
            let drain_timeout = self.settings.now().drain_timeout;
            let last_call = HURRY_BEFORE_END.min(drain_timeout / 4);
            self.readiness.block("server", "draining");
            tokio::time::sleep(drain_timeout - last_call).await;
            hurry();
            tokio::time::sleep(last_call).await;
        };
        tokio::select! {
            () = self.server.finished() => {}
            () = patience => return Err(Failure::NotDrained),
        }
        if let Some(exporting) = self.exporting {
            let _ = tokio::time::timeout(LAST_SPANS_LIMIT, exporting).await;
        }
        Ok(())
    }
}

/// Where spans go; some task sends them if they go anywhere.
fn tracer(config: &Config, metrics: &Arc<Metrics>) -> (Arc<Tracer>, Option<JoinHandle<()>>) {
    let Some(collector) = config.trace_collector.clone() else {
        return (Tracer::off(metrics), None);
    };
    let (tracer, spans) = Tracer::on(metrics);
    let exporting = export_for_ever(spans, collector, Arc::clone(metrics));
    (tracer, Some(tokio::spawn(exporting)))
}

/// Listens, and says where: the port may have been left to the system.
async fn listen(address: &Address, reuse_port: bool) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = listen_on(address, reuse_port).await?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}

fn cannot(address: &Address, setting: &'static str) -> impl FnOnce(io::Error) -> Failure {
    let address = address.clone();
    move |error| Failure::Listen {
        address,
        setting,
        error,
    }
}

async fn upkeep(metrics: Arc<Metrics>, readiness: Readiness, history: Arc<History>) {
    let mut tick = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        tick.tick().await;
        metrics.ready.set(f64::from(u8::from(readiness.is_ready())));
        metrics.upkeep();
        history.note(&metrics, &readiness);
    }
}

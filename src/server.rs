//! The proxy: accepts clients and serves them until it is told to stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::config::Config;
use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::shutdown::Shutdown;

/// A running proxy.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Server {
    /// Listens on `config.listen` and starts to serve.
    ///
    /// # Errors
    ///
    /// When the address cannot be listened on.
    pub async fn start(
        config: Arc<Config>,
        _metrics: Arc<Metrics>,
        _readiness: Readiness,
        shutdown: Shutdown,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((config.listen.host(), config.listen.port())).await?;
        Ok(Self {
            address: listener.local_addr()?,
            serving: tokio::spawn(serve(listener, config, shutdown)),
        })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until everything has stopped, which begins when `shutdown` drains.
    pub async fn finished(self) {
        let _ = self.serving.await;
    }
}

async fn serve(listener: TcpListener, config: Arc<Config>, shutdown: Shutdown) {
    let mut tasks = JoinSet::new();
    loop {
        let (mut client, _) = tokio::select! {
            Ok(accepted) = listener.accept() => accepted,
            () = shutdown.draining() => return,
        };
        let Some(shard) = config.shards.first().cloned() else {
            return;
        };
        tasks.spawn(async move {
            let mut shard = TcpStream::connect((shard.host(), shard.port())).await?;
            tokio::io::copy_bidirectional(&mut client, &mut shard).await
        });
    }
}

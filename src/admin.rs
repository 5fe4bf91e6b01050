//! The HTTP endpoint for machines that watch, `/metrics`, `/healthz`, `/readyz`, and for people who
//! do: a page at `/`.
//!
//! Bounded on purpose: a few connections at once, one request on each, a few seconds to make
//! it. Whoever connects and says nothing takes one place for that long, and nothing else.

mod live;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

use crate::metrics::Metrics;
use crate::readiness::Readiness;
pub use live::History;

/// Connections at once; more wait in the listener's backlog.
const CONNECTIONS_MAX: usize = 64;
/// Longest life of a connection.
const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// Pause after a failed accept, so that a lack of file descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Clone)]
struct Shown {
    metrics: Arc<Metrics>,
    readiness: Readiness,
    history: Arc<History>,
}

/// Serves until dropped.
///
/// # Errors
///
/// None in practice: failed connections are dropped.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    history: Arc<History>,
) -> io::Result<()> {
    let router = Router::new()
        .route("/", get(page))
        .route("/live.json", get(figures))
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(Shown {
            metrics,
            readiness,
            history,
        });
    let listener = Bounded {
        listener,
        places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
    };
    axum::serve(listener, router).await
}

async fn page() -> Response {
    let mut answer = answer(StatusCode::OK, HTML, live::PAGE.to_owned());
    let policy = HeaderValue::from_static(live::POLICY);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    answer
}

/// Rows from the number given by `since` on.
async fn figures(State(shown): State<Shown>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let since = query.strip_prefix("since=").unwrap_or("0");
    match since.parse() {
        Ok(since) => answer(StatusCode::OK, JSON, shown.history.since(since)),
        Err(_) => {
            let text = "since must be the number of a row\n".to_owned();
            answer(StatusCode::BAD_REQUEST, TEXT, text)
        }
    }
}

async fn metrics_text(State(shown): State<Shown>) -> Response {
    answer(StatusCode::OK, PROMETHEUS, shown.metrics.render())
}

async fn healthz() -> Response {
    answer(StatusCode::OK, TEXT, "alive\n".to_owned())
}

async fn readyz(State(shown): State<Shown>) -> Response {
    let mut lines = shown.readiness.reasons();
    let (status, summary) = if lines.is_empty() {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    };
    lines.insert(0, summary.to_owned());
    lines.extend(shown.readiness.notes());
    answer(status, TEXT, lines.join("\n") + "\n")
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONNECTION, "close"),
    ];
    (status, headers, body).into_response()
}

/// A listener with a limited number of places.
struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Listener for Bounded {
    type Io = Brief;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Brief, SocketAddr) {
        loop {
            // Before the accept, so that what waits does so in the backlog.
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                // Nobody closes the semaphore.
                std::future::pending::<()>().await;
                continue;
            };
            match self.listener.accept().await {
                Ok((stream, peer)) => return (Brief::new(stream, place), peer),
                Err(error) => {
                    tracing::debug!(%error, "metrics endpoint: accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails once its time is over, and gives its place back when dropped.
struct Brief {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Brief {
    fn new(stream: TcpStream, place: OwnedSemaphorePermit) -> Self {
        Self {
            stream,
            end: Box::pin(tokio::time::sleep(CONNECTION_TIME)),
            _place: place,
        }
    }

    fn poll_within<T>(
        &mut self,
        context: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => poll(Pin::new(&mut self.stream), context),
        }
    }
}

impl AsyncRead for Brief {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_within(context, |stream, context| stream.poll_read(context, buffer))
    }
}

impl AsyncWrite for Brief {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_within(context, |stream, context| stream.poll_write(context, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_within(context, |stream, context| stream.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_within(context, |stream, context| stream.poll_shutdown(context))
    }
}

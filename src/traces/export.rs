//! The way of spans to the collector: one request at a time, over a connection that is kept.
//!
//! What cannot be sent is dropped: a collector that is away costs a line in the log, another when
//! it is back, and a counter in between.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::parent::{hex, random};
use super::{Span, otlp};
use crate::config::Address;
use crate::metrics::{Metrics, SpanEnd};

/// Spans in one request.
const BATCH_MAX: usize = 512;
/// How long a span waits for others.
const INTERVAL: Duration = Duration::from_millis(500);
/// Longest time for one request.
const LIMIT: Duration = Duration::from_secs(5);
/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Sends spans to the collector, until there will be no more.
pub async fn export_for_ever(
    mut spans: mpsc::Receiver<Span>,
    collector: Address,
    metrics: Arc<Metrics>,
) {
    let mut exporter = Exporter {
        collector: collector.to_string(),
        instance: hex(&random::<8>()),
        connection: None,
        is_failing: false,
    };
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while spans.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let until = Instant::now() + INTERVAL;
        while batch.len() < BATCH_MAX {
            let room = BATCH_MAX - batch.len();
            let more = spans.recv_many(&mut batch, room);
            if !timeout_at(until, more).await.is_ok_and(|count| count > 0) {
                break;
            }
        }
        let end = match exporter.export(&batch).await {
            true => SpanEnd::Exported,
            false => SpanEnd::Failed,
        };
        metrics.spans[end].increment(batch.len() as u64);
        batch.clear();
    }
}

type Connection = SendRequest<Full<Bytes>>;

struct Exporter {
    collector: String,
    instance: String,
    connection: Option<Connection>,
    is_failing: bool,
}

impl Exporter {
    /// Whether the collector has taken them.
    async fn export(&mut self, batch: &[Span]) -> bool {
        let body = Bytes::from(otlp::request(batch, &self.instance).to_string());
        let done = match timeout(LIMIT, self.post(body)).await {
            Ok(done) => done,
            Err(_) => Err(format!("no answer within {LIMIT:?}")),
        };
        let collector = &self.collector;
        match &done {
            Ok(()) if self.is_failing => {
                tracing::info!(collector, "the collector of traces takes spans again");
            }
            Err(error) if !self.is_failing => {
                tracing::warn!(
                    collector,
                    error,
                    "the collector of traces does not take spans: they are dropped until it does"
                );
            }
            _ => {}
        }
        self.is_failing = done.is_err();
        done.is_ok()
    }

    async fn post(&mut self, body: Bytes) -> Result<(), String> {
        let kept = self.connection.take().filter(|kept| !kept.is_closed());
        let was_kept = kept.is_some();
        let mut connection = match kept {
            Some(kept) => kept,
            None => self.connect().await?,
        };
        let mut answer = connection.send_request(self.request(&body)?).await;
        // One that was kept may have been closed at the other end meanwhile.
        if answer.is_err() && was_kept {
            connection = self.connect().await?;
            answer = connection.send_request(self.request(&body)?).await;
        }
        understand(answer.map_err(|error| error.to_string())?).await?;
        self.connection = Some(connection);
        Ok(())
    }

    async fn connect(&self) -> Result<Connection, String> {
        let text = |error: io::Error| error.to_string();
        let stream = TcpStream::connect(&self.collector).await.map_err(text)?;
        let shaken = handshake(TokioIo::new(stream)).await;
        let (connection, driver) = shaken.map_err(|error| error.to_string())?;
        // It ends with the connection.
        tokio::spawn(driver);
        Ok(connection)
    }

    fn request(&self, body: &Bytes) -> Result<Request<Full<Bytes>>, String> {
        let request = Request::post("/v1/traces")
            .header(HOST, &self.collector)
            .header(USER_AGENT, "lockstep")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body.clone()));
        request.map_err(|error| error.to_string())
    }
}

/// Reads an answer to its end, so that the connection can be used again.
async fn understand(answer: Response<hyper::body::Incoming>) -> Result<(), String> {
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect();
    body.await.map_err(|error| error.to_string())?;
    match status.is_success() {
        true => Ok(()),
        false => Err(format!("it answers {status}")),
    }
}

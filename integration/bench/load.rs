//! The load: so many clients, each of which sends its units in one write, waits for all replies,
//! and goes on.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures::future::join_all;
use lockstep::resp::{Limits, ReplyScanner, error_text, is_error};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::workloads::{Dice, Workload};

/// Batches of units that a client prepares beforehand and sends in turn, so that making them is
/// no part of what is measured; fewer, if all of them would take more than the bytes after it.
const PREPARED: usize = 256;
const PREPARED_BYTES: usize = 128 << 20;
/// What is not over so long after its time will not be.
const PATIENCE: Duration = Duration::from_secs(20);
/// Least room for what is read.
const ROOM: usize = 16 * 1024;
/// Connections made in one go: more may be more than a listener's queue holds.
const CONNECTED_AT_ONCE: usize = 100;

/// What was done.
#[derive(Default)]
pub struct Done {
    /// Units answered.
    pub units: u64,
    /// In this time.
    pub took: Duration,
    /// Processor time of the load itself.
    pub cpu: Duration,
    /// An error reply or a lost connection, if there was one: then the rest means nothing.
    pub refused: Option<String>,
    /// What the slowest client got done, as a share of the mean.
    pub slowest: f64,
    latencies_us: Vec<u32>,
}

impl Done {
    /// Latency of a write and all its replies in microseconds.
    pub fn percentile(&self, part: f64) -> f64 {
        let last = self.latencies_us.len().saturating_sub(1);
        let at = (last as f64 * part) as usize;
        self.latencies_us.get(at).map_or(0.0, |us| f64::from(*us))
    }
}

/// Runs a workload for so long, its clients spread over these ports.
pub fn run(workload: &Workload, ports: &[u16], time: Duration) -> Done {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let measured = measure(workload, ports, time);
        let done = match tokio::time::timeout(time + PATIENCE, measured).await {
            Ok(done) => done,
            Err(_) => Err(format!("no end {} s after its time", PATIENCE.as_secs())),
        };
        done.unwrap_or_else(|error| Done {
            refused: Some(error),
            ..Done::default()
        })
    })
}

async fn measure(workload: &Workload, ports: &[u16], time: Duration) -> Result<Done, String> {
    let mut clients = Vec::new();
    for number in 0..workload.clients {
        let client = Client::connect(ports[number % ports.len()], prepare(workload, number));
        clients.push(client.await?);
        if number % CONNECTED_AT_ONCE == CONNECTED_AT_ONCE - 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let (began, cpu) = (Instant::now(), own_cpu());
    let until = began + time;
    let all = join_all(clients.into_iter().map(|client| client.run(until))).await;
    let (took, cpu) = (began.elapsed(), own_cpu().saturating_sub(cpu));
    let all: Vec<Vec<u32>> = all.into_iter().collect::<Result<_, _>>()?;
    let slowest = all.iter().map(Vec::len).min().unwrap_or(0) * all.len();
    let mut latencies_us = all.concat();
    latencies_us.sort_unstable();
    Ok(Done {
        units: (latencies_us.len() * workload.depth) as u64,
        took,
        cpu,
        refused: None,
        slowest: slowest as f64 / latencies_us.len().max(1) as f64,
        latencies_us,
    })
}

/// Of this thread: the load is no other.
fn own_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// Bytes, and how many replies they will have.
type Batch = (Vec<u8>, usize);

fn prepare(workload: &Workload, number: usize) -> Vec<Batch> {
    let mut dice = Dice::new(number as u64 + 1);
    let batch = |_| {
        let mut out = Vec::new();
        let units = 0..workload.depth;
        let replies = units.map(|_| workload.unit.append(&mut dice, &mut out));
        let replies = replies.sum();
        (out, replies)
    };
    let each = workload.clients * workload.depth * workload.unit.bytes();
    let count = (PREPARED_BYTES / each).clamp(1, PREPARED);
    (0..count).map(batch).collect()
}

struct Client {
    stream: TcpStream,
    batches: Vec<Batch>,
}

impl Client {
    async fn connect(port: u16, batches: Vec<Batch>) -> Result<Self, String> {
        let stream = TcpStream::connect(("127.0.0.1", port))
            .await
            .map_err(lost)?;
        stream.set_nodelay(true).map_err(lost)?;
        Ok(Self { stream, batches })
    }

    /// The latencies; or why it could not go on.
    async fn run(self, until: Instant) -> Result<Vec<u32>, String> {
        let mut stream = self.stream;
        let mut scanner = ReplyScanner::new(Limits::default());
        let mut buffer = BytesMut::with_capacity(ROOM);
        let mut latencies = Vec::new();
        for (batch, replies) in self.batches.iter().cycle() {
            let sent_at = Instant::now();
            if sent_at >= until {
                break;
            }
            stream.write_all(batch).await.map_err(lost)?;
            let mut missing = *replies;
            while missing > 0 {
                match scanner.scan(&buffer).map_err(|error| error.to_string())? {
                    Some(len) => {
                        let reply = buffer.split_to(len);
                        if is_error(&reply) {
                            return Err(String::from_utf8_lossy(error_text(&reply)).into_owned());
                        }
                        missing -= 1;
                    }
                    None => {
                        buffer.reserve(buffer.len().clamp(ROOM, 64 * ROOM));
                        if stream.read_buf(&mut buffer).await.map_err(lost)? == 0 {
                            return Err("it closed the connection".to_owned());
                        }
                    }
                }
            }
            latencies.push(u32::try_from(sent_at.elapsed().as_micros()).unwrap_or(u32::MAX));
        }
        Ok(latencies)
    }
}

fn lost(error: std::io::Error) -> String {
    format!("connection lost: {error}")
}

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
/// no part of what is measured.
const PREPARED: usize = 256;

/// What was done.
#[derive(Default)]
pub struct Done {
    /// Units answered.
    pub units: u64,
    /// In this time.
    pub took: Duration,
    /// An error reply or a lost connection, if there was one: then the rest means nothing.
    pub refused: Option<String>,
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
        let clients = (0..workload.clients).map(|number| Client {
            port: ports[number % ports.len()],
            batches: prepare(workload, number),
            replies: workload.unit.replies() * workload.depth,
        });
        let clients: Vec<Client> = clients.collect();
        let began = Instant::now();
        let until = began + time;
        let all = join_all(clients.into_iter().map(|client| client.run(until))).await;
        let mut done = Done {
            took: began.elapsed(),
            ..Done::default()
        };
        for client in all {
            match client {
                Ok(latencies) => done.latencies_us.extend(latencies),
                Err(error) => done.refused = Some(error),
            }
        }
        done.units = (done.latencies_us.len() * workload.depth) as u64;
        done.latencies_us.sort_unstable();
        done
    })
}

fn prepare(workload: &Workload, number: usize) -> Vec<Vec<u8>> {
    let mut dice = Dice::new(number as u64 + 1);
    let batch = |_| {
        let mut out = Vec::new();
        (0..workload.depth).for_each(|_| workload.unit.append(&mut dice, &mut out));
        out
    };
    (0..PREPARED).map(batch).collect()
}

struct Client {
    port: u16,
    batches: Vec<Vec<u8>>,
    replies: usize,
}

impl Client {
    /// The latencies; or why it could not go on.
    async fn run(self, until: Instant) -> Result<Vec<u32>, String> {
        let lost = |error: std::io::Error| format!("connection lost: {error}");
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))
            .await
            .map_err(lost)?;
        stream.set_nodelay(true).map_err(lost)?;
        let mut scanner = ReplyScanner::new(Limits::default());
        let mut buffer = BytesMut::with_capacity(64 * 1024);
        let mut latencies = Vec::new();
        for batch in self.batches.iter().cycle() {
            let sent_at = Instant::now();
            if sent_at >= until {
                break;
            }
            stream.write_all(batch).await.map_err(lost)?;
            let mut missing = self.replies;
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
                        buffer.reserve(16 * 1024);
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

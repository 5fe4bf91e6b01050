//! A small client of Redis: one request at a time, to servers of our own.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::resp::{Limits, ReplyScanner, Value, build};

const TIME_LIMIT: Duration = Duration::from_secs(10);
const REPLY_BYTES_MAX: usize = 1 << 20;

/// One connection.
pub(super) struct Client {
    stream: TcpStream,
    received: BytesMut,
    limits: Limits,
}

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = timeout(TIME_LIMIT, TcpStream::connect(address)).await??;
        let limits = Limits {
            reply_bytes_max: REPLY_BYTES_MAX,
            ..Limits::default()
        };
        Ok(Self {
            stream,
            received: BytesMut::new(),
            limits,
        })
    }

    /// Sends a command, its words separated by single spaces, and waits for the reply.
    pub(super) async fn ask(&mut self, command: &str) -> io::Result<Value> {
        timeout(TIME_LIMIT, self.ask_patiently(command)).await?
    }

    async fn ask_patiently(&mut self, command: &str) -> io::Result<Value> {
        let words: Vec<_> = command.split(' ').collect();
        let mut request = BytesMut::new();
        build::command(&mut request, words);
        self.stream.write_all(&request).await?;
        let mut scanner = ReplyScanner::new(self.limits);
        loop {
            let scanned = scanner.scan(&self.received).map_err(io::Error::other)?;
            if let Some(length) = scanned {
                let reply = Value::decode(&self.received[..length], &self.limits);
                self.received.advance(length);
                return reply.map_err(io::Error::other);
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// The reply as redis-cli shows it, on one line.
pub(super) fn shown(reply: &Value) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    match reply {
        Value::Status(status) => text(status),
        Value::Error(error) => format!("(error) {}", text(error)),
        Value::Int(number) => format!("(integer) {number}"),
        Value::Bulk(bytes) => format!("{:?}", text(bytes)),
        Value::Null | Value::NullArray => "(nil)".to_owned(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(shown).collect();
            format!("[{}]", items.join(", "))
        }
        // RESP3 is not asked for.
        other => format!("{other:?}"),
    }
}

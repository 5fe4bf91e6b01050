//! A small client of Redis: one request at a time, to servers of our own.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use redis_protocol::resp2::decode;
pub(super) use redis_protocol::resp2::types::OwnedFrame as Reply;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const TIME_LIMIT: Duration = Duration::from_secs(10);
const REPLY_BYTES_MAX: usize = 1 << 20;

/// One connection.
pub(super) struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = timeout(TIME_LIMIT, TcpStream::connect(address)).await??;
        Ok(Self {
            stream,
            received: Vec::new(),
        })
    }

    /// Sends a command, its words separated by single spaces, and waits for the reply.
    pub(super) async fn ask(&mut self, command: &str) -> io::Result<Reply> {
        timeout(TIME_LIMIT, self.ask_patiently(command)).await?
    }

    async fn ask_patiently(&mut self, command: &str) -> io::Result<Reply> {
        self.stream.write_all(&encode(command)).await?;
        loop {
            let decoded = decode::decode(&self.received).map_err(io::Error::other)?;
            if let Some((reply, used)) = decoded {
                self.received.drain(..used);
                return Ok(reply);
            }
            if self.received.len() > REPLY_BYTES_MAX {
                return Err(io::Error::other("the reply is too long"));
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

fn encode(command: &str) -> Vec<u8> {
    let words: Vec<_> = command.split(' ').collect();
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}

/// The reply as redis-cli shows it, on one line.
pub(super) fn shown(reply: &Reply) -> String {
    match reply {
        Reply::SimpleString(text) => String::from_utf8_lossy(text).into_owned(),
        Reply::Error(text) => format!("(error) {text}"),
        Reply::Integer(number) => format!("(integer) {number}"),
        Reply::BulkString(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
        Reply::Null => "(nil)".to_owned(),
        Reply::Array(items) => {
            let items: Vec<_> = items.iter().map(shown).collect();
            format!("[{}]", items.join(", "))
        }
    }
}

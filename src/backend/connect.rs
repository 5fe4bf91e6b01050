//! Opening a connection to a shard, and the greeting on it: AUTH, a name, our scripts.

use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Cause;
use crate::resp::{Lane, Limits, Protocol, ReplyScanner, build, error_text, is_error};

/// How to reach one shard.
#[derive(Clone, Debug)]
pub struct Dial {
    /// `host:port`.
    pub address: String,
    /// User towards the shard; empty for the default user.
    pub user: String,
    /// Password towards the shard; empty for none.
    pub password: String,
    /// For the connection and the greeting together.
    pub connect_timeout: Duration,
    /// Lua sources to load before anything else is sent.
    pub scripts: Rc<[&'static str]>,
}

impl Dial {
    /// Connects and greets; then the connection is set to this lane. Nothing of the greeting
    /// changes data.
    ///
    /// # Errors
    /// A text that names the shard and says what failed, its own words included.
    pub async fn connect(&self, lane: Lane) -> Result<TcpStream, Cause> {
        let attempt = async {
            let stream = TcpStream::connect(&self.address)
                .await
                .map_err(|e| e.to_string())?;
            stream.set_nodelay(true).map_err(|e| e.to_string())?;
            keep_alive(&stream).map_err(|e| e.to_string())?;
            self.greet(stream, lane).await
        };
        let failed = match timeout(self.connect_timeout, attempt).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(text)) => text,
            Err(_) => format!(
                "no connection within {} ms",
                self.connect_timeout.as_millis()
            ),
        };
        let text = format!("shard {} is not available: {failed}", self.address);
        Err(Cause::of_shard(text, &failed))
    }

    async fn greet(&self, mut stream: TcpStream, lane: Lane) -> Result<TcpStream, String> {
        let (greeting, replies) = self.greeting(lane);
        stream
            .write_all(&greeting)
            .await
            .map_err(|e| e.to_string())?;
        let (mut buffer, mut scanner, mut start) = (
            BytesMut::with_capacity(1024),
            ReplyScanner::new(Limits::default()),
            0,
        );
        let mut left = replies;
        while left > 0 {
            if let Some(len) = scanner.scan(&buffer[start..]).map_err(|e| e.to_string())? {
                let reply = &buffer[start..start + len];
                if is_error(reply) {
                    return Err(String::from_utf8_lossy(error_text(reply)).into_owned());
                }
                start += len;
                left -= 1;
                continue;
            }
            if stream
                .read_buf(&mut buffer)
                .await
                .map_err(|e| e.to_string())?
                == 0
            {
                return Err("it closed the connection".into());
            }
        }
        if start != buffer.len() {
            return Err("it sent more than it was asked for".into());
        }
        Ok(stream)
    }

    fn greeting(&self, lane: Lane) -> (BytesMut, usize) {
        let mut out = BytesMut::new();
        let mut replies = 0;
        let mut command = |args: &[&[u8]]| {
            build::command(&mut out, args);
            replies += 1;
        };
        match (self.user.is_empty(), self.password.is_empty()) {
            (true, true) => {}
            (true, false) => command(&[b"AUTH", self.password.as_bytes()]),
            (false, _) => command(&[b"AUTH", self.user.as_bytes(), self.password.as_bytes()]),
        }
        if lane.protocol == Protocol::Resp3 {
            command(&[b"HELLO", b"3"]);
        }
        command(&[b"CLIENT", b"SETNAME", b"lockstep"]);
        if lane.db != 0 {
            command(&[b"SELECT", lane.db.to_string().as_bytes()]);
        }
        for script in &*self.scripts {
            command(&[b"SCRIPT", b"LOAD", script.as_bytes()]);
        }
        (out, replies)
    }
}

/// So that a connection whose peer vanished is noticed even when nothing is sent on it.
fn keep_alive(stream: &TcpStream) -> std::io::Result<()> {
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10));
    socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

//! Opening a connection to a shard, and the greeting on it: AUTH, a name, our scripts.

use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::Cause;
use crate::resp::{Lane, Limits, Protocol, ReplyScanner, build, error_text, is_error};
use crate::transport::Stream;
use crate::transport::tls::Connector;

/// How to reach one shard.
#[derive(Clone, Debug)]
pub struct Dial {
    /// `host:port`, or `unix:` and a path.
    pub address: String,
    /// TLS towards the shard, if it is to be.
    pub tls: Option<Connector>,
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
    pub async fn connect(&self, lane: Lane) -> Result<Stream, Cause> {
        self.in_time(async {
            let (greeting, replies) = self.greeting(lane);
            let mut stream = self.open().await?;
            let said = exchange(&mut stream, &greeting, replies).await?;
            match said.iter().find(|reply| is_error(reply)) {
                Some(error) => Err(String::from_utf8_lossy(error_text(error)).into_owned()),
                None => Ok(stream),
            }
        })
        .await
    }

    /// Asks one thing over a connection of its own, with nothing in front of it but AUTH: for
    /// what a server takes even while it is busy with a script.
    ///
    /// # Errors
    /// As [`Dial::connect`].
    pub async fn ask_apart(&self, request: &[u8]) -> Result<Bytes, Cause> {
        self.in_time(async {
            let mut out = BytesMut::new();
            let before = self.authenticate(&mut out);
            out.extend_from_slice(request);
            let mut stream = self.open().await?;
            let mut said = exchange(&mut stream, &out, before + 1).await?;
            said.pop().ok_or_else(|| "it said nothing".into())
        })
        .await
    }

    async fn open(&self) -> Result<Stream, String> {
        let opened = async {
            if let Some(path) = self.address.strip_prefix("unix:") {
                return UnixStream::connect(path).await.map(Stream::Unix);
            }
            let stream = TcpStream::connect(&self.address).await?;
            stream.set_nodelay(true)?;
            keep_alive(&stream)?;
            let Some(tls) = &self.tls else {
                return Ok(Stream::Tcp(stream));
            };
            let host = self.address.rsplit_once(':').map_or("", |(host, _)| host);
            tls.connect(host.trim_matches(['[', ']']), stream).await
        };
        opened.await.map_err(|error| error.to_string())
    }

    async fn in_time<T>(
        &self,
        attempt: impl Future<Output = Result<T, String>>,
    ) -> Result<T, Cause> {
        let failed = match timeout(self.connect_timeout, attempt).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(text)) => text,
            Err(_) => format!(
                "no connection within {} ms",
                self.connect_timeout.as_millis()
            ),
        };
        let text = format!("shard {} is not available: {failed}", self.address);
        Err(Cause::of_shard(text, &failed))
    }

    /// Appends AUTH if need be; how many commands that is.
    fn authenticate(&self, out: &mut BytesMut) -> usize {
        let (user, password) = (self.user.as_bytes(), self.password.as_bytes());
        match (user.is_empty(), password.is_empty()) {
            (true, true) => return 0,
            (true, false) => build::command(out, [&b"AUTH"[..], password]),
            (false, _) => build::command(out, [&b"AUTH"[..], user, password]),
        }
        1
    }

    fn greeting(&self, lane: Lane) -> (BytesMut, usize) {
        let mut out = BytesMut::new();
        let mut replies = self.authenticate(&mut out);
        let mut command = |args: &[&[u8]]| {
            build::command(&mut out, args);
            replies += 1;
        };
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

/// Writes, and reads exactly so many replies.
async fn exchange(
    stream: &mut Stream,
    request: &[u8],
    replies: usize,
) -> Result<Vec<Bytes>, String> {
    let text = |error: std::io::Error| error.to_string();
    stream.write_all(request).await.map_err(text)?;
    stream.flush().await.map_err(text)?;
    let mut buffer = BytesMut::with_capacity(1024);
    let mut scanner = ReplyScanner::new(Limits::default());
    let mut said = Vec::new();
    while said.len() < replies {
        if let Some(len) = scanner.scan(&buffer).map_err(|e| e.to_string())? {
            said.push(buffer.split_to(len).freeze());
        } else if stream.read_buf(&mut buffer).await.map_err(text)? == 0 {
            return Err("it closed the connection".into());
        }
    }
    match buffer.is_empty() {
        true => Ok(said),
        false => Err("it sent more than it was asked for".into()),
    }
}

/// So that a connection whose peer vanished is noticed even when nothing is sent on it.
fn keep_alive(stream: &TcpStream) -> std::io::Result<()> {
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10));
    socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

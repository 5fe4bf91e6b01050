//! Opening a connection to a shard, and the greeting on it: AUTH, whether it is a shard of our map,
//! a name, our scripts.

use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::options::{Access, Credentials};
use super::{Busy, Cause};
use crate::resp::{Lane, Limits, Protocol, ReplyScanner, as_bulk, build, error_text, is_error};
use crate::transport::Stream;
use crate::transport::tls::Connector;
use crate::transport::verdict::{Peer, explain};

/// How to reach one shard.
#[derive(Clone, Debug)]
pub struct Dial {
    /// `host:port`, or `unix:` and a path.
    pub address: String,
    /// TLS towards the shard, if it is to be.
    pub tls: Option<Connector>,
    /// Who we are, and how long a greeting may take.
    pub access: Access,
    /// Lua sources to load before anything else is sent.
    pub scripts: Rc<[&'static str]>,
    /// The shard's part in the shard map. A shard that notes another is not available, one that
    /// notes none is made to. None: nobody asks.
    pub member: Option<Rc<str>>,
    /// Whether the shard is busy.
    pub busy: Busy,
}

/// Where a shard notes its part in the shard map; the name is that of `txn::names`, held equal by
/// a test of the engine.
pub(crate) const MAP: &[u8] = b"__lockstep:map";

/// What is sent first on a connection.
struct Greeting {
    request: BytesMut,
    replies: usize,
    /// Which of them tells what the shard notes of the shard map.
    noted: Option<usize>,
}

impl Dial {
    /// Connects and greets; then the connection is set to this lane. Nothing of the greeting
    /// changes data; only a shard that notes no shard map, as it is new or has lost its data, is
    /// made to note ours.
    ///
    /// # Errors
    /// A text that names the shard and says what failed, its own words included.
    pub async fn connect(&self, lane: Lane) -> Result<Stream, Cause> {
        self.in_time(async {
            let greeting = self.greeting(lane);
            let mut stream = self.open().await?;
            let said = exchange(&mut stream, &greeting.request, greeting.replies).await?;
            if let Some(error) = said.iter().find(|reply| is_error(reply)) {
                return Err(String::from_utf8_lossy(error_text(error)).into_owned());
            }
            if let (Some(member), Some(at)) = (&self.member, greeting.noted) {
                match said.get(at).and_then(|reply| as_bulk(reply)) {
                    Some(noted) => is_same(member, noted)?,
                    None if lane.db == 0 => note(&mut stream, member).await?,
                    // The first connection to a shard is one to database 0, and does it.
                    None => {}
                }
            }
            Ok(stream)
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
        opened.await.map_err(|error| explain(&error, Peer::Shard))
    }

    async fn in_time<T>(
        &self,
        attempt: impl Future<Output = Result<T, String>>,
    ) -> Result<T, Cause> {
        let limit = self.access.connect_timeout();
        let failed = match timeout(limit, attempt).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(text)) => text,
            Err(_) => format!("no connection within {} ms", limit.as_millis()),
        };
        let text = format!("shard {} is not available: {failed}", self.address);
        Err(Cause::of_shard(text, &failed))
    }

    /// Appends AUTH if need be; how many commands that is.
    fn authenticate(&self, out: &mut BytesMut) -> usize {
        let Credentials { user, password, .. } = self.access.get();
        let (user, password) = (user.as_bytes(), password.as_bytes());
        match (user.is_empty(), password.is_empty()) {
            (true, true) => return 0,
            (true, false) => build::command(out, [&b"AUTH"[..], password]),
            (false, _) => build::command(out, [&b"AUTH"[..], user, password]),
        }
        1
    }

    fn greeting(&self, lane: Lane) -> Greeting {
        let mut out = BytesMut::new();
        let mut replies = self.authenticate(&mut out);
        let noted = self.member.is_some().then_some(replies);
        let mut command = |args: &[&[u8]]| {
            build::command(&mut out, args);
            replies += 1;
        };
        // It is in database 0.
        if self.member.is_some() {
            command(&[b"GET", MAP]);
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
        Greeting {
            request: out,
            replies,
            noted,
        }
    }
}

/// Whether the shard notes this.
fn is_same(member: &str, noted: &[u8]) -> Result<(), String> {
    match noted == member.as_bytes() {
        true => Ok(()),
        false => Err(format!(
            "it belongs to another shard map: it notes '{}', here it is '{member}' (lockstep map \
             show tells more)",
            noted.escape_ascii()
        )),
    }
}

/// Makes a shard note this that notes nothing, unless somebody else was faster.
async fn note(stream: &mut Stream, member: &str) -> Result<(), String> {
    let mut request = BytesMut::new();
    build::command(
        &mut request,
        [b"SET", MAP, member.as_bytes(), b"NX", b"GET"],
    );
    let said = exchange(stream, &request, 1).await?;
    // One that takes no writes now is asked again on the next connection.
    said.first()
        .and_then(|reply| as_bulk(reply))
        .map_or(Ok(()), |noted| is_same(member, noted))
}

/// Writes, and reads exactly so many replies.
async fn exchange(
    stream: &mut Stream,
    request: &[u8],
    replies: usize,
) -> Result<Vec<Bytes>, String> {
    // Of TLS 1.3, a certificate of ours that is not accepted comes back as late as this.
    let text = |error: std::io::Error| explain(&error, Peer::Shard);
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

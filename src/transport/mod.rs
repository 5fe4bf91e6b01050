//! What bytes travel on: TCP, TLS over TCP, or a unix socket, towards clients and shards alike.
//!
//! * [`proxied`]: the address of a client that comes by way of a balancer;
//! * [`tls`]: certificates, and the handshakes on both sides;
//! * [`verdict`]: what became of them, in words.

pub mod proxied;
pub mod tls;
pub mod verdict;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

use proxied::Addresses;

/// An open connection.
#[derive(Debug)]
pub enum Stream {
    /// As it is.
    Tcp(TcpStream),
    /// Encrypted. What was written leaves for certain only with a flush.
    Tls(Box<TlsStream<TcpStream>>),
    /// On the same machine.
    Unix(UnixStream),
}

macro_rules! each {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream.get_mut() {
            Stream::Tcp($inner) => $call,
            Stream::Tls($inner) => $call,
            Stream::Unix($inner) => $call,
        }
    };
}

/// Where a connection comes from and where it arrived, as CLIENT LIST shows it.
pub fn tcp_addresses(stream: &TcpStream) -> Addresses {
    let text = |address: io::Result<std::net::SocketAddr>| {
        address.map_or_else(|_| "?:0".to_owned(), |address| address.to_string())
    };
    (text(stream.peer_addr()), text(stream.local_addr()))
}

/// The same of one on this machine: the path of the socket, twice.
pub fn unix_addresses(stream: &UnixStream) -> Addresses {
    let path = stream.local_addr();
    let path = path
        .ok()
        .and_then(|path| Some(path.as_pathname()?.to_owned()));
    let shown = format!("{}:0", path.unwrap_or_default().display());
    (shown.clone(), shown)
}

impl Stream {
    /// Sends of these bytes what it takes now, and takes them off; ready when all have left.
    ///
    /// # Errors
    /// The connection is lost.
    pub fn poll_send(&mut self, out: &mut BytesMut, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !out.is_empty() {
            match ready!(Pin::new(&mut *self).poll_write(cx, out))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => out.advance(count),
            }
        }
        Pin::new(self).poll_flush(cx)
    }

    /// Whether the peer has sent nothing that was not read, and has not ended the connection.
    pub fn is_silent(&mut self) -> bool {
        let mut byte = [0; 1];
        let mut read = ReadBuf::new(&mut byte);
        let mut nobody = Context::from_waker(Waker::noop());
        Pin::new(self)
            .poll_read(&mut nobody, &mut read)
            .is_pending()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, inner => Pin::new(inner).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_shutdown(cx))
    }
}

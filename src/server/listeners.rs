//! Where clients come in: TCP, TLS, a unix socket, and what a service manager hands over.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::{Common, StartError};
use crate::config::{Address, Config};
use crate::metrics::Rejection;
use crate::transport::proxied::{self, Addresses, HeaderError};
use crate::transport::tls::{Acceptor, ClientAuth, Identity};
use crate::transport::verdict::{Peer, explain};
use crate::transport::{self, Stream};

/// Connections that the kernel keeps for us at most.
const BACKLOG: u32 = 4096;

/// A connection that was accepted, on its way to a worker: not yet part of a runtime.
pub(crate) enum Inbound {
    Tcp(std::net::TcpStream),
    /// The handshake is the worker's business.
    Tls(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

/// One that the kernel has just given.
pub(super) enum Arrived {
    Tcp(TcpStream),
    Tls(TcpStream),
    Unix(UnixStream),
}

/// All listeners of the process.
pub(super) struct Listeners {
    tcp: TcpListener,
    tls: Option<TcpListener>,
    unix: Option<UnixListener>,
    /// Removed when the listeners are gone.
    path: Option<PathBuf>,
}

impl Listeners {
    /// Opens them; the first socket that a service manager hands over (`LISTEN_FDS`) takes the
    /// place of the setting `listen`, so that no connection is refused while one process
    /// follows another.
    pub(super) async fn open(config: &Config) -> Result<Self, StartError> {
        let tcp = match listenfd::ListenFd::from_env().take_tcp_listener(0) {
            Ok(Some(listener)) => adopt(listener).map_err(failed("the socket handed over"))?,
            Ok(None) => listen(&config.listen, config.reuse_port).await?,
            Err(error) => return Err(failed("the socket handed over")(error)),
        };
        let tls = match &config.tls_listen {
            Some(address) => Some(listen(address, config.reuse_port).await?),
            None => None,
        };
        let path = config.listen_unix.as_ref().map(PathBuf::from);
        let unix = match &path {
            Some(path) => Some(listen_unix(path).map_err(failed(&path.display().to_string()))?),
            None => None,
        };
        Ok(Self {
            tcp,
            tls,
            unix,
            path,
        })
    }

    /// Where plain TCP clients connect.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Waits for the next connection. Safe to drop at any time.
    pub(super) async fn accept(&self) -> io::Result<Arrived> {
        let tls = async {
            match &self.tls {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        let unix = async {
            match &self.unix {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = self.tcp.accept() => accepted.map(|(stream, _)| Arrived::Tcp(stream)),
            accepted = tls => accepted.map(|(stream, _)| Arrived::Tls(stream)),
            accepted = unix => accepted.map(|(stream, _)| Arrived::Unix(stream)),
        }
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Arrived {
    /// Ready to be handed to another runtime.
    pub(super) fn prepare(self, keepalive: Duration) -> io::Result<Inbound> {
        Ok(match self {
            Self::Tcp(stream) => Inbound::Tcp(prepare(stream, keepalive)?),
            Self::Tls(stream) => Inbound::Tls(prepare(stream, keepalive)?),
            Self::Unix(stream) => Inbound::Unix(stream.into_std()?),
        })
    }

    /// As a stream on which an error in plain text would be understood; none for TLS.
    pub(super) fn into_plain(self) -> Option<Stream> {
        match self {
            Self::Tcp(stream) => Some(Stream::Tcp(stream)),
            Self::Unix(stream) => Some(Stream::Unix(stream)),
            Self::Tls(_) => None,
        }
    }
}

/// A connection that can be served.
pub(super) struct Opened {
    pub(super) stream: Stream,
    pub(super) addresses: Addresses,
}

/// One that is not served.
pub(super) struct Refused {
    /// Its address, as far as known.
    pub(super) client: String,
    /// None: nobody wanted to be served.
    pub(super) reason: Option<Rejection>,
    pub(super) error: String,
}

impl Inbound {
    /// Takes it into this runtime, behind what comes in front of the first command: a header that
    /// tells its address, a handshake.
    pub(super) async fn open(self, common: &Common) -> Result<Opened, Refused> {
        let mut addresses = (String::new(), String::new());
        let limit = common.live.borrow().connect_timeout;
        let limit = limit.max(Duration::from_secs(1)) * 5;
        let opened = tokio::time::timeout(limit, self.open_slowly(common, &mut addresses)).await;
        let late = || {
            let text = format!("it took longer than {limit:?} to say who it is");
            Err((Some(Rejection::SlowStart), text))
        };
        match opened.unwrap_or_else(|_| late()) {
            Ok(stream) => Ok(Opened { stream, addresses }),
            Err((reason, error)) => Err(Refused {
                client: addresses.0,
                reason,
                error,
            }),
        }
    }

    async fn open_slowly(
        self,
        common: &Common,
        addresses: &mut Addresses,
    ) -> Result<Stream, (Option<Rejection>, String)> {
        let system = |error: io::Error| (Some(Rejection::System), error.to_string());
        let (stream, is_tls) = match self {
            Self::Tcp(stream) => (stream, false),
            Self::Tls(stream) => (stream, true),
            Self::Unix(stream) => {
                let stream = UnixStream::from_std(stream).map_err(system)?;
                *addresses = transport::unix_addresses(&stream);
                return Ok(Stream::Unix(stream));
            }
        };
        let mut stream = TcpStream::from_std(stream).map_err(system)?;
        *addresses = transport::tcp_addresses(&stream);
        let is_proxied = common.live.borrow().proxy_protocol;
        if is_proxied && let Some(told) = told_addresses(&mut stream).await? {
            *addresses = told;
        }
        match &common.acceptor {
            Some(acceptor) if is_tls => acceptor
                .accept(stream)
                .await
                .map_err(|error| (Some(Rejection::Handshake), explain(&error, Peer::Client))),
            _ => Ok(Stream::Tcp(stream)),
        }
    }
}

async fn told_addresses(
    stream: &mut TcpStream,
) -> Result<Option<Addresses>, (Option<Rejection>, String)> {
    proxied::take_header(stream).await.map_err(|error| {
        let reason = match error {
            HeaderError::Nothing => None,
            HeaderError::Wrong(_) | HeaderError::Lost(_) => Some(Rejection::ProxyHeader),
        };
        (reason, error.to_string())
    })
}

/// What TLS clients are shown and asked for, if there is a listener for them.
pub(super) fn acceptor(config: &Config) -> Result<Option<Acceptor>, StartError> {
    let (Some(_), Some(certificates), Some(key)) = (
        &config.tls_listen,
        &config.tls_cert_file,
        &config.tls_key_file,
    ) else {
        return Ok(None);
    };
    let identity = Identity {
        certificates: certificates.into(),
        key: key.into(),
    };
    let client_auth = match config.tls_client_ca_file {
        None => ClientAuth::None,
        Some(_) if config.tls_client_optional => ClientAuth::Optional,
        Some(_) => ClientAuth::Required,
    };
    let client_ca = config.tls_client_ca_file.as_ref().map(PathBuf::from);
    let acceptor = Acceptor::new(identity, client_ca, client_auth)?;
    Ok(Some(acceptor))
}

fn failed(address: &str) -> impl Fn(io::Error) -> StartError + use<> {
    let address = address.to_owned();
    move |source| StartError::Listen {
        address: address.clone(),
        source,
    }
}

fn adopt(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

async fn listen(address: &Address, reuse_port: bool) -> Result<TcpListener, StartError> {
    let listener = listen_on(address, reuse_port).await;
    listener.map_err(failed(&address.to_string()))
}

/// Listens on the first address of this name that can be listened on; with `reuse_port` beside
/// other processes that do the same.
pub(crate) async fn listen_on(address: &Address, reuse_port: bool) -> io::Result<TcpListener> {
    let target = (address.host().to_owned(), address.port());
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in tokio::net::lookup_host(target).await? {
        match bind(address, reuse_port) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        tokio::net::TcpSocket::new_v4()
    } else {
        tokio::net::TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(reuse_port)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A socket file that nobody listens on any more, left by a process that was killed, is replaced.
fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        result => result,
    }
}

fn prepare(stream: TcpStream, keepalive: Duration) -> io::Result<std::net::TcpStream> {
    stream.set_nodelay(true)?;
    if !keepalive.is_zero() {
        let keepalive = socket2::TcpKeepalive::new()
            .with_time(keepalive)
            .with_interval(keepalive / 3 + Duration::from_secs(1));
        socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    }
    stream.into_std()
}

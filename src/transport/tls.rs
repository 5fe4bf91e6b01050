//! TLS 1.2 and 1.3, by rustls.
//!
//! Certificates come from files, which are looked at again at every handshake: when one has
//! changed, what it holds now is used from then on, without a restart. Files that cannot be used
//! change nothing, and are told of once.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::Stream;

/// What is wrong with the files.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read, or holds no PEM of the kind that is wanted.
    #[error("{what} in {}: {why}", path.display())]
    File {
        /// What was looked for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// What the files hold does not fit together.
    #[error("{0}")]
    Refused(String),
}

/// A certificate, with those that vouch for it behind it, and its key.
#[derive(Clone, Debug)]
pub struct Identity {
    /// PEM.
    pub certificates: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

/// Whether clients must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    None,
    /// One that is shown must be valid.
    Optional,
    /// Without a valid one nobody is served.
    Required,
}

/// Files, and what was made of them when they were last read.
struct Cached<T> {
    files: Vec<PathBuf>,
    make: Box<dyn Fn() -> Result<T, TlsError> + Send + Sync>,
    made: Mutex<Made<T>>,
}

struct Made<T> {
    stamps: Vec<Stamp>,
    value: Option<Arc<T>>,
}

/// Differs when a file has changed: its time and its length.
type Stamp = Option<(SystemTime, u64)>;

fn stamp(path: &PathBuf) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

impl<T> Cached<T> {
    fn new(
        files: Vec<PathBuf>,
        make: impl Fn() -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            files,
            make: Box::new(make),
            made: Mutex::new(Made {
                stamps: Vec::new(),
                value: None,
            }),
        }
    }

    fn get(&self) -> Result<Arc<T>, TlsError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps: Vec<Stamp> = self.files.iter().map(stamp).collect();
        if let Some(value) = &made.value
            && made.stamps == stamps
        {
            return Ok(Arc::clone(value));
        }
        made.stamps = stamps;
        match ((self.make)(), &made.value) {
            (Ok(value), old) => {
                if old.is_some() {
                    tracing::info!(files = ?self.files, "certificates changed, and are used from now on");
                }
                let value = Arc::new(value);
                made.value = Some(Arc::clone(&value));
                Ok(value)
            }
            (Err(error), Some(old)) => {
                tracing::error!(%error, "changed certificates cannot be used; those of before still are");
                Ok(Arc::clone(old))
            }
            (Err(error), None) => Err(error),
        }
    }
}

/// The side of the server: clients connect to it.
#[derive(Clone)]
pub struct Acceptor(Arc<Cached<ServerConfig>>);

impl Acceptor {
    /// With this certificate; clients' own are checked against `client_ca`.
    ///
    /// # Errors
    /// The files cannot be used now.
    pub fn new(
        identity: Identity,
        client_ca: Option<PathBuf>,
        client_auth: ClientAuth,
    ) -> Result<Self, TlsError> {
        let mut files = vec![identity.certificates.clone(), identity.key.clone()];
        files.extend(client_ca.clone());
        let make = move || server_config(&identity, client_ca.as_deref(), client_auth);
        let cached = Cached::new(files, make);
        cached.get()?;
        Ok(Self(Arc::new(cached)))
    }

    /// Does the handshake. Bound its time: a client may say nothing.
    ///
    /// # Errors
    /// The client is no TLS client, or shows no certificate that is accepted.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<Stream> {
        let config = self.0.get().map_err(io::Error::other)?;
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }
}

/// The side of the client: it connects to shards.
#[derive(Clone)]
pub struct Connector {
    config: Arc<Cached<ClientConfig>>,
    /// The name that the certificate must bear, if it is not that of the address.
    name: Option<String>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("files", &self.config.files)
            .field("name", &self.name)
            .finish()
    }
}

impl Connector {
    /// Accepts certificates that `ca` vouches for; shows `identity` to who asks for one.
    pub fn new(ca: PathBuf, identity: Option<Identity>, name: Option<String>) -> Self {
        let mut files = vec![ca.clone()];
        if let Some(identity) = &identity {
            files.extend([identity.certificates.clone(), identity.key.clone()]);
        }
        let make = move || client_config(&ca, identity.as_ref());
        Self {
            config: Arc::new(Cached::new(files, make)),
            name,
        }
    }

    /// Reads the files.
    ///
    /// # Errors
    /// They cannot be used now.
    pub fn check(&self) -> Result<(), TlsError> {
        self.config.get().map(drop)
    }

    /// Does the handshake with the server at `host`.
    ///
    /// # Errors
    /// It is no TLS server, or its certificate is not accepted.
    pub async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<Stream> {
        let config = self.config.get().map_err(io::Error::other)?;
        let name = self.name.as_deref().unwrap_or(host).to_owned();
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        let stream = TlsConnector::from(config).connect(name, stream).await?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn server_config(
    identity: &Identity,
    client_ca: Option<&Path>,
    client_auth: ClientAuth,
) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(refused)?;
    let builder = match (client_auth, client_ca) {
        (ClientAuth::None, _) | (_, None) => builder.with_no_client_auth(),
        (auth, Some(ca)) => {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider());
            let verifier = match auth {
                ClientAuth::Required => verifier,
                _ => verifier.allow_unauthenticated(),
            };
            builder.with_client_cert_verifier(verifier.build().map_err(refused)?)
        }
    };
    builder
        .with_single_cert(certificates(&identity.certificates)?, key(&identity.key)?)
        .map_err(refused)
}

fn client_config(ca: &Path, identity: Option<&Identity>) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(refused)?
        .with_root_certificates(roots(ca)?);
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some(identity) => builder
            .with_client_auth_cert(certificates(&identity.certificates)?, key(&identity.key)?)
            .map_err(refused),
    }
}

fn refused(error: impl fmt::Display) -> TlsError {
    TlsError::Refused(error.to_string())
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(refused)?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |why: String| TlsError::File {
        what: "certificates",
        path: path.to_owned(),
        why,
    };
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| failed(error.to_string()))?;
    if found.is_empty() {
        return Err(failed("there are none".into()));
    }
    Ok(found)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| TlsError::File {
        what: "a private key",
        path: path.to_owned(),
        why: error.to_string(),
    })
}

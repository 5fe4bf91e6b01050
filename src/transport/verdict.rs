//! What became of a handshake, in words for who has to mend it.

use std::io;

use rustls::AlertDescription as Alert;
use rustls::{CertificateError, Error};

const DAY_S: u64 = 86_400;

/// Whom we speak to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A client of ours.
    Client,
    /// A shard.
    Shard,
}

impl Peer {
    /// The setting that says who vouches for its certificate.
    fn ca_setting(self) -> &'static str {
        match self {
            Self::Client => "tls-client-ca-file",
            Self::Shard => "shard-tls-ca-file",
        }
    }

    /// The setting that says what it is shown.
    fn own_setting(self) -> &'static str {
        match self {
            Self::Client => "tls-cert-file",
            Self::Shard => "shard-tls-cert-file",
        }
    }
}

/// What an error on a connection says; those of TLS in words of ours.
pub fn explain(error: &io::Error, peer: Peer) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    inner.map_or_else(|| error.to_string(), |inner| explain_tls(inner, peer))
}

fn explain_tls(error: &Error, peer: Peer) -> String {
    match error {
        Error::InvalidCertificate(why) => {
            format!(
                "its certificate is not accepted: {}",
                of_certificate(why, peer)
            )
        }
        Error::NoCertificatesPresented => {
            format!("it shows no certificate, as {} demands", peer.ca_setting())
        }
        Error::AlertReceived(Alert::CertificateRequired) => {
            format!("it demands a certificate ({})", peer.own_setting())
        }
        Error::AlertReceived(alert) if is_of_certificate(*alert) => {
            let setting = peer.own_setting();
            format!("it does not accept our certificate ({setting}): it says {alert:?}")
        }
        Error::InvalidMessage(_) => format!("it does not speak TLS: {error}"),
        _ => format!("TLS: {error}"),
    }
}

fn of_certificate(why: &CertificateError, peer: Peer) -> String {
    match why {
        CertificateError::Expired => "it has expired".into(),
        CertificateError::ExpiredContext { time, not_after } => {
            let days = time.as_secs().saturating_sub(not_after.as_secs()) / DAY_S;
            format!("it has expired, {days} days ago")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("{why} (is this machine's clock right?)")
        }
        CertificateError::UnknownIssuer => {
            format!(
                "nobody in {} vouches for it (unknown issuer)",
                peer.ca_setting()
            )
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("{why} (shard-tls-name is the name that is wanted, if not the address's)")
        }
        _ => why.to_string(),
    }
}

fn is_of_certificate(alert: Alert) -> bool {
    matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
    )
}

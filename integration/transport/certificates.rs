//! Certificates of a test's own.

use std::fs::write;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};

/// The year in which a certificate ends.
pub const VALID: i32 = 4000;
pub const EXPIRED: i32 = 2001;

/// Who vouches for others.
pub struct Authority {
    folder: PathBuf,
    path: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
pub struct Made {
    certificate: String,
    key: String,
}

impl Authority {
    /// Writes its own certificate into the folder.
    pub fn new(folder: &Path, name: &str) -> Authority {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let own = params.self_signed(&key).expect("signed");
        let path = folder.join(format!("{name}.pem"));
        write(&path, own.pem()).expect("written");
        Authority {
            folder: folder.to_owned(),
            path,
            issuer: Issuer::new(params, key),
        }
    }

    /// Its certificate.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A certificate for these names, until that year.
    pub fn issue(&self, file: &str, names: &[&str], until: i32) -> Made {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let path = |end: &str| self.folder.join(format!("{file}.{end}"));
        write(path("crt"), certificate.pem()).expect("written");
        write(path("key"), key.serialize_pem()).expect("written");
        Made {
            certificate: path("crt").display().to_string(),
            key: path("key").display().to_string(),
        }
    }
}

impl Made {
    /// The path of the certificate.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The path of the key.
    pub fn key(&self) -> &str {
        &self.key
    }
}

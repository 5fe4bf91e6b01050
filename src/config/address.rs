//! `HOST:PORT` as it stands in settings, or `unix:` and the path of a socket.

use std::fmt;
use std::net::Ipv6Addr;

/// An address as written in a setting: a host name or an IP literal, and a port; or the path of a
/// unix socket.
/// Names are
/// resolved when connecting, so that a shard may move behind its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// From its parts; an IPv6 literal comes without brackets.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
        }
    }

    /// From `HOST:PORT`, `[IPV6]:PORT` or `unix:/PATH`. The error says what is wrong, without the text itself.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.starts_with('/') {
                true => Ok(Self::new(path, 0)),
                false => Err("the path of a unix socket begins with /".into()),
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or("expects HOST:PORT")?;
        let port = port
            .parse()
            .map_err(|_| format!("port {port:?} is not a number from 0 to 65535"))?;
        let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(inner) => valid_ipv6(inner)?,
            None => valid_host(host)?,
        };
        Ok(Self::new(host, port))
    }

    /// Host name or IP literal, an IPv6 one without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether it is the path of a unix socket; [`Self::host`] is the path then.
    pub fn is_unix(&self) -> bool {
        self.host.starts_with('/')
    }

    /// Port; 0 in a listening address lets the system choose.
    pub fn port(&self) -> u16 {
        self.port
    }
}

fn valid_ipv6(inner: &str) -> Result<&str, String> {
    match inner.parse::<Ipv6Addr>() {
        Ok(_) => Ok(inner),
        Err(_) => Err(format!("[{inner}] is not an IPv6 address")),
    }
}

fn valid_host(host: &str) -> Result<&str, String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if host.is_empty() {
        return Err("the host is missing: expects HOST:PORT".into());
    }
    if host.contains(':') {
        return Err("an IPv6 address stands in brackets: [::1]:6379".into());
    }
    if host.len() > 253 || !host.chars().all(fine) {
        return Err(format!("{host:?} is not a host name or IP address"));
    }
    Ok(host)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_unix() {
            return write!(f, "unix:{}", self.host);
        }
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_alike() {
        for text in [
            "unix:/run/redis.sock",
            "127.0.0.1:6379",
            "[::1]:6379",
            "redis-0.redis:1",
            "h_1:0",
        ] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn bad_addresses_say_what_is_wrong() {
        for (text, part) in [
            ("6379", "expects HOST:PORT"),
            (":6379", "host is missing"),
            ("a:70000", "65535"),
            ("a:", "is not a number"),
            ("::1:6379", "brackets"),
            ("[::g]:1", "not an IPv6"),
            ("a b:1", "not a host name"),
            ("redis://a:1", "brackets"),
        ] {
            let error = Address::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}

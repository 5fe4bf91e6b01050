//! The PROXY protocol, versions 1 and 2: who stands between a client and us tells its address in
//! front of everything else, a TLS handshake included.
//!
//! Where the header ends is found here, and what is a whole header is left to `proxy-header`. The
//! socket is looked into before it is read from, so that exactly the header is taken off it: what
//! came behind it in the same segment is another's to read.

use std::io;

use proxy_header::{ParseConfig, ProxyHeader};
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Longest header that is taken: addresses, and what version 2 may tell beside them.
const HEADER_BYTES_MAX: usize = 4096;
/// Longest header of version 1, by its definition.
const V1_BYTES_MAX: usize = 107;
const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// What version 2 has before its length is known: V2, version and command, family, length.
const V2_HEAD_BYTES: usize = V2.len() + 4;
/// Version 2, and a balancer that speaks for itself.
const V2_LOCAL: u8 = 0x20;

/// Where a client comes from and where it arrived, as CLIENT LIST shows it.
pub type Addresses = (String, String);

/// Why a connection is not served.
#[derive(Debug, Error)]
pub enum HeaderError {
    /// It ended before its first byte: somebody only looks whether we are there.
    #[error("it ended at once")]
    Nothing,
    /// There is no header, or it is wrong.
    #[error(
        "it does not begin with a header of the PROXY protocol, as proxy-protocol demands: {0}"
    )]
    Wrong(&'static str),
    /// The connection is lost.
    #[error("{0}")]
    Lost(#[from] io::Error),
}

/// Takes the header off the connection, and nothing behind it. None if it tells no address of TCP:
/// the balancer speaks for itself, or does not know. Bound its time: a client may say nothing.
///
/// # Errors
/// See [`HeaderError`].
pub async fn take_header(stream: &mut TcpStream) -> Result<Option<Addresses>, HeaderError> {
    let mut header = vec![0; HEADER_BYTES_MAX];
    let mut taken = 0;
    loop {
        let seen = taken + stream.peek(&mut header[taken..]).await?;
        if seen == taken {
            return Err(match taken {
                0 => HeaderError::Nothing,
                _ => HeaderError::Wrong("it ended before the header did"),
            });
        }
        let length = length(&header[..seen]).map_err(HeaderError::Wrong)?;
        // Without an end all of it is header: taken off, it does not wake us again.
        let end = length.unwrap_or(seen);
        stream.read_exact(&mut header[taken..end]).await?;
        taken = end;
        if length.is_some() {
            return addresses(&header[..taken]).map_err(HeaderError::Wrong);
        }
    }
}

/// How long the header is that these bytes begin with; None: not all of it is here. What is too
/// long for the buffer has no length.
fn length(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    if begins(bytes, V1) {
        let end = bytes.iter().take(V1_BYTES_MAX).position(|&b| b == b'\n');
        return match end {
            Some(end) => Ok(Some(end + 1)),
            None if bytes.len() >= V1_BYTES_MAX => Err("the line is too long"),
            None => Ok(None),
        };
    }
    if !begins(bytes, V2) {
        return Err("something else came first");
    }
    let Some(&[high, low]) = bytes.get(V2_HEAD_BYTES - 2..V2_HEAD_BYTES) else {
        return Ok(None);
    };
    let length = V2_HEAD_BYTES + usize::from(u16::from_be_bytes([high, low]));
    match length {
        HEADER_BYTES_MAX.. => Err("the header is too long"),
        _ => Ok((bytes.len() >= length).then_some(length)),
    }
}

/// Whether these bytes begin so, as far as there are any.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    let common = bytes.len().min(with.len());
    bytes[..common] == with[..common]
}

/// What a whole header says.
fn addresses(header: &[u8]) -> Result<Option<Addresses>, &'static str> {
    // Of one that speaks for itself all else is to be passed over, sense or not.
    if header.starts_with(V2) && header.get(V2.len()) == Some(&V2_LOCAL) {
        return Ok(None);
    }
    let config = ParseConfig {
        include_tlvs: false,
        ..ParseConfig::default()
    };
    let (header, _) = ProxyHeader::parse(header, config).map_err(|_| "the header is wrong")?;
    let told = header.proxied_address();
    Ok(told.map(|told| (told.source.to_string(), told.destination.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, length: u16, rest: &[u8]) -> Vec<u8> {
        [V2, &[command, family], &length.to_be_bytes(), rest].concat()
    }

    const ADDRESSES: [u8; 12] = [192, 0, 2, 7, 192, 0, 2, 1, 4, 87, 24, 236];

    /// Where the header ends, and what it tells.
    fn read(bytes: &[u8]) -> Result<Option<(usize, Option<Addresses>)>, &'static str> {
        let Some(length) = length(bytes)? else {
            return Ok(None);
        };
        Ok(Some((length, addresses(&bytes[..length])?)))
    }

    #[test]
    fn both_versions_are_understood_wherever_they_are_cut() {
        let told = |source: &str, to: &str| Some((source.to_owned(), to.to_owned()));
        let v4 = told("192.0.2.7:1111", "192.0.2.1:6380");
        let v6 = told("[2001:db8::7]:1111", "[2001:db8::1]:6380");
        let with_more = [&ADDRESSES[..], &[4, 0, 1, 9]].concat();
        let cases: [(Vec<u8>, Option<Addresses>); 8] = [
            (
                b"PROXY TCP4 192.0.2.7 192.0.2.1 1111 6380\r\n".into(),
                v4.clone(),
            ),
            (
                b"PROXY TCP6 2001:db8::7 2001:db8::1 1111 6380\r\n".into(),
                v6,
            ),
            (b"PROXY UNKNOWN\r\n".into(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".into(), None),
            (v2(0x21, 0x11, 12, &ADDRESSES), v4.clone()),
            (v2(0x21, 0x11, 16, &with_more), v4),
            (v2(0x20, 0x00, 0, b""), None),
            (v2(0x20, 0x11, 3, b"xyz"), None),
        ];
        for (header, told) in cases {
            for cut in 1..header.len() {
                assert_eq!(
                    read(&header[..cut]),
                    Ok(None),
                    "{}",
                    header[..cut].escape_ascii()
                );
            }
            let whole = Ok(Some((header.len(), told)));
            assert_eq!(read(&[&header[..], b"PING\r\n"].concat()), whole);
        }
    }

    #[test]
    fn what_is_no_header_is_refused_early() {
        let long_line = [V1, &[b'x'; 101]].concat();
        let cases: [&[u8]; 9] = [
            b"PING\r\n",
            b"*1\r\n$4\r\nPING\r\n",
            b"\x16\x03\x01",
            b"PROXY nonsense\r\n",
            b"PROXY TCP4 192.0.2.7 2001:db8::1 1111 6380\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.1 1111 65536\r\n",
            &long_line,
            &v2(0x21, 0x11, 5000, b""),
            &v2(0x31, 0x11, 12, &ADDRESSES),
        ];
        for bytes in cases {
            assert!(read(bytes).is_err(), "{}", bytes.escape_ascii());
        }
    }
}

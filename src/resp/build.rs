//! Writing replies and commands. Everything appends; integers are written without allocating.

use std::fmt::Write;

use bytes::{BufMut, BytesMut};

use super::number::Decimal;

/// Which protocol a client speaks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Protocol {
    /// RESP2, every client's protocol until it says `HELLO 3`.
    #[default]
    Resp2,
    /// RESP3.
    Resp3,
}

/// `+text`. Line ends in `text` become spaces.
pub fn status(out: &mut BytesMut, text: impl AsRef<[u8]>) {
    line(out, b'+', text.as_ref());
}

/// `-text`; `text` begins with the code (`ERR …`). Line ends in it become spaces.
pub fn error(out: &mut BytesMut, text: impl AsRef<[u8]>) {
    line(out, b'-', text.as_ref());
}

/// `:value`.
pub fn int(out: &mut BytesMut, value: i64) {
    number(out, b':', &Decimal::of(value));
}

/// `$len`, the bytes.
pub fn bulk(out: &mut BytesMut, bytes: impl AsRef<[u8]>) {
    blob(out, b'$', bytes.as_ref());
}

/// The null that stands for a missing string: `$-1`, in RESP3 `_`.
pub fn null_bulk(out: &mut BytesMut, protocol: Protocol) {
    match protocol {
        Protocol::Resp2 => out.put_slice(b"$-1\r\n"),
        Protocol::Resp3 => out.put_slice(b"_\r\n"),
    }
}

/// The null that stands for a missing array, as of an aborted EXEC: `*-1`, in RESP3 `_`.
pub fn null_array(out: &mut BytesMut, protocol: Protocol) {
    match protocol {
        Protocol::Resp2 => out.put_slice(b"*-1\r\n"),
        Protocol::Resp3 => out.put_slice(b"_\r\n"),
    }
}

/// Header of an array of `len` elements.
pub fn array_header(out: &mut BytesMut, len: usize) {
    header(out, b'*', len);
}

/// Header of a map of `pairs` pairs; in RESP2 an array of twice as many elements.
pub fn map_header(out: &mut BytesMut, protocol: Protocol, pairs: usize) {
    match protocol {
        Protocol::Resp2 => header(out, b'*', pairs.saturating_mul(2)),
        Protocol::Resp3 => header(out, b'%', pairs),
    }
}

/// Header of a set of `len` elements; in RESP2 an array.
pub fn set_header(out: &mut BytesMut, protocol: Protocol, len: usize) {
    match protocol {
        Protocol::Resp2 => header(out, b'*', len),
        Protocol::Resp3 => header(out, b'~', len),
    }
}

/// Header of a push of `len` elements; in RESP2 an array.
pub fn push_header(out: &mut BytesMut, protocol: Protocol, len: usize) {
    match protocol {
        Protocol::Resp2 => header(out, b'*', len),
        Protocol::Resp3 => header(out, b'>', len),
    }
}

/// A boolean; in RESP2 `:1` or `:0`.
pub fn boolean(out: &mut BytesMut, protocol: Protocol, value: bool) {
    out.put_slice(match (protocol, value) {
        (Protocol::Resp2, true) => b":1\r\n",
        (Protocol::Resp2, false) => b":0\r\n",
        (Protocol::Resp3, true) => b"#t\r\n",
        (Protocol::Resp3, false) => b"#f\r\n",
    });
}

/// A double as Redis prints it (C's `%.17g`); in RESP2 a bulk.
pub fn double(out: &mut BytesMut, protocol: Protocol, value: f64) {
    let text = double_text(value);
    match protocol {
        Protocol::Resp2 => bulk(out, text),
        Protocol::Resp3 => line(out, b',', text.as_bytes()),
    }
}

/// Text for people, as INFO gives it: verbatim (`=`) with the format `txt`; in RESP2 a bulk.
pub fn verbatim(out: &mut BytesMut, protocol: Protocol, text: impl AsRef<[u8]>) {
    let text = text.as_ref();
    match protocol {
        Protocol::Resp2 => bulk(out, text),
        Protocol::Resp3 => {
            header(out, b'=', text.len().saturating_add(4));
            out.put_slice(b"txt:");
            out.put_slice(text);
            out.put_slice(b"\r\n");
        }
    }
}

/// A command in canonical form: an array of bulks.
pub fn command<I>(out: &mut BytesMut, args: I)
where
    I: IntoIterator<IntoIter: ExactSizeIterator, Item: AsRef<[u8]>>,
{
    let args = args.into_iter();
    header(out, b'*', args.len());
    for arg in args {
        bulk(out, arg);
    }
}

fn header(out: &mut BytesMut, kind: u8, len: usize) {
    number(out, kind, &Decimal::of_unsigned(len as u64));
}

fn number(out: &mut BytesMut, kind: u8, text: &Decimal) {
    out.put_u8(kind);
    out.put_slice(text.as_bytes());
    out.put_slice(b"\r\n");
}

fn blob(out: &mut BytesMut, kind: u8, bytes: &[u8]) {
    out.reserve(bytes.len().saturating_add(24));
    header(out, kind, bytes.len());
    out.put_slice(bytes);
    out.put_slice(b"\r\n");
}

fn line(out: &mut BytesMut, kind: u8, text: &[u8]) {
    out.reserve(text.len().saturating_add(3));
    out.put_u8(kind);
    let start = out.len();
    out.put_slice(text);
    for byte in out
        .iter_mut()
        .skip(start)
        .filter(|byte| matches!(**byte, b'\r' | b'\n'))
    {
        *byte = b' ';
    }
    out.put_slice(b"\r\n");
}

/// C's `%.17g`, with `inf`, `-inf` and `nan`.
fn double_text(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    // 17 significant digits: `d.dddddddddddddddde<exponent>`.
    let scientific = format!("{value:.16e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let mut text = String::new();
    if (-4..17).contains(&exponent) {
        let decimals = (16 - exponent).unsigned_abs() as usize;
        text = format!("{value:.decimals$}");
        trim_zeros(&mut text);
        return text;
    }
    text.push_str(mantissa);
    trim_zeros(&mut text);
    let sign = if exponent < 0 { '-' } else { '+' };
    // Writing to a string cannot fail.
    let _ = write!(text, "e{sign}{:02}", exponent.unsigned_abs());
    text
}

fn trim_zeros(text: &mut String) {
    if text.contains('.') {
        let len = text.trim_end_matches('0').trim_end_matches('.').len();
        text.truncate(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut BytesMut)) -> String {
        let mut out = BytesMut::new();
        write(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn replies_are_what_redis_writes_in_either_protocol() {
        use Protocol::{Resp2, Resp3};
        assert_eq!(written(|o| status(o, "OK")), "+OK\r\n");
        assert_eq!(written(|o| int(o, i64::MIN)), ":-9223372036854775808\r\n");
        assert_eq!(written(|o| bulk(o, b"a\r\nb")), "$4\r\na\r\nb\r\n");
        assert_eq!(written(|o| null_bulk(o, Resp2)), "$-1\r\n");
        assert_eq!(written(|o| null_array(o, Resp2)), "*-1\r\n");
        assert_eq!(written(|o| null_bulk(o, Resp3)), "_\r\n");
        assert_eq!(written(|o| null_array(o, Resp3)), "_\r\n");
        assert_eq!(written(|o| map_header(o, Resp2, 2)), "*4\r\n");
        assert_eq!(written(|o| map_header(o, Resp3, 2)), "%2\r\n");
        assert_eq!(written(|o| set_header(o, Resp2, 2)), "*2\r\n");
        assert_eq!(written(|o| set_header(o, Resp3, 2)), "~2\r\n");
        assert_eq!(written(|o| push_header(o, Resp3, 3)), ">3\r\n");
        assert_eq!(written(|o| boolean(o, Resp2, true)), ":1\r\n");
        assert_eq!(written(|o| boolean(o, Resp3, false)), "#f\r\n");
        assert_eq!(written(|o| double(o, Resp2, 1.5)), "$3\r\n1.5\r\n");
        assert_eq!(
            written(|o| double(o, Resp3, f64::NEG_INFINITY)),
            ",-inf\r\n"
        );
        assert_eq!(written(|o| verbatim(o, Resp2, "x")), "$1\r\nx\r\n");
        assert_eq!(written(|o| verbatim(o, Resp3, "x")), "=5\r\ntxt:x\r\n");
        assert_eq!(
            written(|o| command(o, ["GET", "k"])),
            "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"
        );
    }

    #[test]
    fn no_text_can_end_its_line_early() {
        assert_eq!(written(|o| error(o, "ERR a\r\n+b\n")), "-ERR a  +b \r\n");
        assert_eq!(written(|o| status(o, "\r\n:1")), "+  :1\r\n");
    }

    #[test]
    fn doubles_have_seventeen_digits_as_in_c() {
        let cases = [
            (0.0, "0"),
            (-0.0, "-0"),
            (3.0, "3"),
            (0.1, "0.10000000000000001"),
            (1e16, "10000000000000000"),
            (1e17, "1e+17"),
            (1.5e300, "1.5000000000000001e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1.0000000000000001e-05"),
            (-123.456, "-123.456"),
            (5e-324, "4.9406564584124654e-324"),
            (f64::INFINITY, "inf"),
        ];
        for (value, text) in cases {
            assert_eq!(double_text(value), text);
        }
    }
}

//! Writing commands.

use bytes::{BufMut, BytesMut};

/// A number as text, without allocating.
pub(super) struct Decimal {
    digits: [u8; 20],
    start: usize,
}

impl Decimal {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}

pub(super) fn decimal(mut value: u64) -> Decimal {
    let mut text = Decimal {
        digits: [0; 20],
        start: 20,
    };
    loop {
        text.start -= 1;
        text.digits[text.start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return text;
        }
    }
}

pub(super) fn header(out: &mut BytesMut, len: usize) {
    line(out, b'*', len);
}

pub(super) fn bulk(out: &mut BytesMut, bytes: &[u8]) {
    out.reserve(bytes.len().saturating_add(24));
    line(out, b'$', bytes.len());
    out.put_slice(bytes);
    out.put_slice(b"\r\n");
}

pub(super) fn command(out: &mut BytesMut, args: &[&[u8]]) {
    header(out, args.len());
    for arg in args {
        bulk(out, arg);
    }
}

fn line(out: &mut BytesMut, kind: u8, len: usize) {
    out.put_u8(kind);
    out.put_slice(decimal(len as u64).as_bytes());
    out.put_slice(b"\r\n");
}

//! Bytes that are nearly right.

use rand::RngExt;
use rand::rngs::StdRng;

/// What is most likely to be taken for something else where numbers, lengths and types are read.
const PIECES: [&[u8]; 24] = [
    b"\r\n",
    b"\r",
    b"\n",
    b"\0",
    b"*",
    b"$",
    b"-",
    b"+",
    b":",
    b">",
    b"%",
    b"~",
    b"|",
    b"*-1\r\n",
    b"$-1\r\n",
    b"0",
    b"-1",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"4294967296",
    b"99999999999999999999999",
    b"\"",
    b"\xff\xfe",
    b"_\r\n",
];

/// One random piece.
pub fn piece(rng: &mut StdRng) -> &'static [u8] {
    PIECES[rng.random_range(0..PIECES.len())]
}

/// Changes some bytes in up to eight places.
pub fn mutate(rng: &mut StdRng, bytes: &mut Vec<u8>) {
    for _ in 0..rng.random_range(1..=8) {
        let at = rng.random_range(0..=bytes.len());
        let end = (at + rng.random_range(0..16)).min(bytes.len());
        match rng.random_range(0..7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = rng.random(),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            4 => drop(bytes.splice(at..end, piece(rng).iter().copied())),
            5 => bytes.truncate(at),
            _ => drop(bytes.splice(at..at, piece(rng).iter().copied())),
        }
    }
}

//! Inputs that are nearly right: valid bytes, put together and then damaged.

/// SplitMix64: small, fast, and the same everywhere.
pub(crate) struct Rng(u64);

impl Rng {
    /// Generator of input number `index` of a run.
    pub(crate) fn of(seed: u64, index: u64) -> Self {
        Self(seed ^ index.wrapping_mul(0xd134_2543_de82_ef95))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `0..bound`; 0 if that is empty.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        if bound == 0 {
            0
        } else {
            (self.next() % bound as u64) as usize
        }
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }
}

/// Pieces of protocol, proper and hostile.
const TOKENS: &[&[u8]] = &[
    b"\r\n",
    b"\r",
    b"\n",
    b"\0",
    b"*",
    b"$",
    b"-1",
    b"*1\r\n",
    b"$4\r\nPING\r\n",
    b"*0\r\n",
    b"*-1\r\n",
    b"*-7\r\n",
    b"$-1\r\n",
    b"$0\r\n\r\n",
    b"0",
    b"+",
    b"\"",
    b"'",
    b"\\",
    b"\\x41",
    b" ",
    b"\t\x0b\x0c",
    b"*2147483647\r\n",
    b"*2147483648\r\n",
    b"*1048577\r\n",
    b"$536870912\r\n",
    b"$536870913\r\n",
    b"$9223372036854775807\r\n",
    b"9223372036854775808",
    b"*-9223372036854775808\r\n",
    b"$16385\r\n",
    b"*11\r\n",
    b"*1\r\n*1\r\n*1\r\n",
    b"\xff\xfe",
    b"$00\r\n",
    b"$-0\r\n",
    b"*+1\r\n",
    b"PING\n",
    b"*3\r\n$4\r\nECHO\r\n",
];

const REPLY_TOKENS: &[&[u8]] = &[
    b"\r\n",
    b"\r",
    b"\n",
    b"+OK\r\n",
    b"-ERR x\r\n",
    b":1\r\n",
    b"$-1\r\n",
    b"*-1\r\n",
    b"*0\r\n",
    b"_\r\n",
    b"#t\r\n",
    b"#f\r\n",
    b"#x\r\n",
    b",1.5\r\n",
    b",inf\r\n",
    b"(123\r\n",
    b"*1\r\n",
    b"%1\r\n",
    b"~2\r\n",
    b">1\r\n",
    b"|1\r\n",
    b"|0\r\n",
    b"*?\r\n",
    b"$?\r\n",
    b">3\r\n",
    b"$7\r\nmessage\r\n",
    b"$10\r\ninvalidate\r\n",
    b"$9\r\nsubscribe\r\n",
    b"*2147483647\r\n",
    b"$9223372036854775807\r\n",
    b"%9223372036854775807\r\n",
    b"$00\r\n",
    b"=5\r\ntxt:x\r\n",
    b"!1\r\nx\r\n",
    b"*1\r\n*1\r\n*1\r\n*1\r\n",
    b"$1073741813\r\n",
    b"*357913941\r\n",
];

/// Whole replies of the rarer kinds.
const REPLY_LEAVES: &[&[u8]] = &[
    b"$-1\r\n",
    b"*-1\r\n",
    b"*0\r\n",
    b"%0\r\n",
    b"_\r\n",
    b"#t\r\n",
    b"#f\r\n",
    b",1.5\r\n",
    b",-inf\r\n",
    b"(12345678901234567890\r\n",
    b"=5\r\ntxt:x\r\n",
    b"!1\r\nx\r\n",
];

/// Bytes as a client might send them.
pub(crate) fn commands(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..1 + rng.below(5) {
        piece(rng, &mut bytes);
    }
    damage(rng, &mut bytes, TOKENS);
    bytes
}

fn piece(rng: &mut Rng, bytes: &mut Vec<u8>) {
    match rng.below(16) {
        0..8 => multibulk(rng, bytes),
        8..13 => inline(rng, bytes),
        13..15 => bytes.extend_from_slice(rng.pick(TOKENS)),
        _ if rng.one_in(100) => long_line(rng, bytes),
        _ => (0..rng.below(20)).for_each(|_| bytes.push(rng.next() as u8)),
    }
}

/// Commands whose replies show what they were given.
fn args(rng: &mut Rng) -> Vec<Vec<u8>> {
    let mut args: Vec<Vec<u8>> = match rng.below(4) {
        0 => return vec![b"PING".to_vec()],
        1 => return vec![b"ECHO".to_vec(), word(rng)],
        2 => vec![b"EVAL".to_vec(), b"return ARGV".to_vec(), b"0".to_vec()],
        _ => vec![word(rng)],
    };
    for _ in 0..rng.below(5) {
        args.push(word(rng));
    }
    args
}

fn word(rng: &mut Rng) -> Vec<u8> {
    let len = match rng.below(20) {
        0 => 0,
        1 => 90 + rng.below(30),
        2 if rng.one_in(4) => rng.below(1100),
        _ => 1 + rng.below(9),
    };
    let plain = !rng.one_in(4);
    (0..len)
        .map(|_| {
            if plain {
                b'a' + rng.below(26) as u8
            } else {
                rng.next() as u8
            }
        })
        .collect()
}

fn multibulk(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let args = args(rng);
    bytes.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(&arg);
        bytes.extend_from_slice(b"\r\n");
    }
}

fn inline(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for arg in args(rng) {
        match rng.below(4) {
            _ if arg.contains(&b' ') => quote(rng, &arg, bytes),
            0 => quote(rng, &arg, bytes),
            1 => bytes.extend_from_slice(format!("'{}'", arg.escape_ascii()).as_bytes()),
            _ => bytes.extend_from_slice(&arg),
        }
        bytes.extend_from_slice(rng.pick(&[&b" "[..], b"  ", b"\t", b" \x0b"]));
    }
    bytes.extend_from_slice(rng.pick(&[&b"\r\n"[..], b"\n"]));
}

/// `arg` in double quotes, escaped in one of the ways that are understood.
pub(crate) fn quote(rng: &mut Rng, arg: &[u8], bytes: &mut Vec<u8>) {
    bytes.push(b'"');
    for &byte in arg {
        match byte {
            b'\n' | b'\r' | 0 => bytes.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
            b'"' | b'\\' => bytes.extend_from_slice(&[b'\\', byte]),
            _ if rng.one_in(8) => bytes.extend_from_slice(format!("\\x{byte:02X}").as_bytes()),
            _ => bytes.push(byte),
        }
    }
    bytes.push(b'"');
}

/// A line about as long as lines may be.
fn long_line(rng: &mut Rng, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(rng.pick(&[&b""[..], b"*", b"*1\r\n$", b"*1\r\n", b"'"]));
    bytes.resize(bytes.len() + 65_528 + rng.below(16), b'1');
    bytes.extend_from_slice(rng.pick(&[&b""[..], b"\r\n", b"\n", b"'\r\n"]));
}

/// Nothing, mostly; else up to four wounds.
fn damage(rng: &mut Rng, bytes: &mut Vec<u8>, tokens: &[&[u8]]) {
    if rng.one_in(4) {
        return;
    }
    for _ in 0..rng.below(5) {
        wound(rng, bytes, tokens);
    }
}

fn wound(rng: &mut Rng, bytes: &mut Vec<u8>, tokens: &[&[u8]]) {
    let at = rng.below(bytes.len());
    match rng.below(8) {
        _ if bytes.is_empty() => bytes.push(rng.next() as u8),
        0 => bytes[at] = rng.next() as u8,
        1 => bytes[at] ^= 1 << rng.below(8),
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..bytes.len().min(at + 1 + rng.below(6)))),
        4 => {
            let slice = bytes[at..bytes.len().min(at + 1 + rng.below(40))].to_vec();
            insert(bytes, rng, &slice);
        }
        5 | 6 => insert(bytes, rng, rng_token(tokens, at)),
        _ => mutate_digit(rng, bytes, at),
    }
}

fn rng_token<'a>(tokens: &[&'a [u8]], at: usize) -> &'a [u8] {
    tokens[at % tokens.len()]
}

fn insert(bytes: &mut Vec<u8>, rng: &mut Rng, what: &[u8]) {
    let at = rng.below(bytes.len() + 1);
    bytes.splice(at..at, what.iter().copied());
}

/// Changes the first digit behind `at`: lengths that lie.
fn mutate_digit(rng: &mut Rng, bytes: &mut [u8], at: usize) {
    if let Some(digit) = bytes[at..].iter_mut().find(|byte| byte.is_ascii_digit()) {
        *digit = b'0' + rng.below(10) as u8;
    }
}

/// Bytes as a shard might send them.
pub(crate) fn replies(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..1 + rng.below(4) {
        let depth = rng.below(6);
        reply(rng, &mut bytes, depth);
    }
    damage(rng, &mut bytes, REPLY_TOKENS);
    bytes
}

fn reply(rng: &mut Rng, bytes: &mut Vec<u8>, depth: usize) {
    if depth == 0 || rng.one_in(3) {
        return leaf(rng, bytes);
    }
    let (kind, unit) = rng.pick(&[(b'*', 1), (b'*', 1), (b'*', 1), (b'~', 1), (b'%', 2)]);
    let len = rng.below(5);
    header(bytes, kind, len);
    for _ in 0..len * unit {
        if rng.one_in(12) {
            push(rng, bytes);
        }
        if rng.one_in(20) {
            attribute(rng, bytes, depth - 1);
        }
        reply(rng, bytes, depth - 1);
    }
}

fn header(bytes: &mut Vec<u8>, kind: u8, len: usize) {
    bytes.push(kind);
    bytes.extend_from_slice(format!("{len}\r\n").as_bytes());
}

fn push(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let name = rng.pick(&["message", "pmessage", "invalidate", "subscribe", "m"]);
    header(bytes, b'>', 2);
    blob(bytes, b'$', name.as_bytes());
    leaf(rng, bytes);
}

fn attribute(rng: &mut Rng, bytes: &mut Vec<u8>, depth: usize) {
    header(bytes, b'|', 1);
    leaf(rng, bytes);
    reply(rng, bytes, depth);
}

fn blob(bytes: &mut Vec<u8>, kind: u8, text: &[u8]) {
    header(bytes, kind, text.len());
    bytes.extend_from_slice(text);
    bytes.extend_from_slice(b"\r\n");
}

fn leaf(rng: &mut Rng, bytes: &mut Vec<u8>) {
    match rng.below(6) {
        0 | 1 => {
            let kind = rng.pick(b"$$$!=");
            blob(bytes, kind, &word(rng));
        }
        2 => bytes
            .extend_from_slice(format!(":{}\r\n", rng.next() as i64 >> rng.below(64)).as_bytes()),
        3 => {
            bytes.push(rng.pick(b"+-"));
            bytes.extend(word(rng).into_iter().filter(|byte| *byte != b'\n'));
            bytes.extend_from_slice(b"\r\n");
        }
        4 if rng.one_in(8) => push(rng, bytes),
        4 => bytes.extend_from_slice(rng.pick(REPLY_LEAVES)),
        _ => bytes.extend_from_slice(b"+OK\r\n"),
    }
}

/// Where `len` bytes are cut into pieces: at every byte, or at a few places. Ends with `len`.
pub(crate) fn cuts(rng: &mut Rng, len: usize) -> Vec<usize> {
    if len < 200 && rng.one_in(16) {
        return (0..=len).collect();
    }
    let mut cuts: Vec<usize> = (0..1 + rng.below(4)).map(|_| rng.below(len + 1)).collect();
    cuts.push(len);
    cuts.sort_unstable();
    cuts
}

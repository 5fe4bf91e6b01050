//! Scripts that declare no keys, such as `EVAL "return 1" 0`.
//!
//! On several shards nobody can tell where such a script belongs: if it touched keys it would do
//! so on a shard of chance, and silently. But most do not. One whose text cannot call anything
//! runs as it is, on any shard. Any other runs behind a guard: a line in front of it replaces
//! `redis.call` and `redis.pcall` by such that run what has no keys and tells nothing of the data
//! (PING, ECHO, TIME, COMMAND, LOLWUT, PUBLISH), and raise an error for everything else, before
//! anything is done: in the server's words where it would refuse that in any script (what it does
//! not know, what has too few or too many arguments, what is not for scripts).
//!
//! What would lead round the guard (`_G`, `getfenv`, `loadstring`, `debug` and their kin) is not
//! there behind it.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use crate::backend::{Failure, ReplySink};
use crate::engine::sources::sha_of;
use crate::frontend::session::Session;
use crate::resp;

const GUARD: &str = include_str!("guard.lua");

/// What a text must contain to get at commands, by whatever way.
const WAYS: &[&[u8]] = &[
    b"call", b"redis", b"server", b"_G", b"fenv", b"load", b"debug",
];

/// Whether the text can call commands.
pub(super) fn can_call(source: &[u8]) -> bool {
    WAYS.iter()
        .any(|way| source.windows(way.len()).any(|word| word == *way))
}

/// Whether the functions of a library with this code can call commands. Registering functions is
/// what every library does, and no way to them.
pub(super) fn library_can_call(code: &[u8]) -> bool {
    const HARMLESS: [&[u8]; 3] = [
        b"redis.register_function",
        b"server.register_function",
        b"callback",
    ];
    let rest = HARMLESS
        .iter()
        .fold(code.to_vec(), |rest, word| blanked(&rest, word));
    can_call(&rest)
}

/// The text with a blank for each occurrence of a word.
fn blanked(text: &[u8], word: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some(at) = rest.windows(word.len()).position(|here| here == word) {
        out.extend_from_slice(&rest[..at]);
        out.push(b' ');
        rest = &rest[at + word.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// The script behind the guard. Its lines keep their numbers, for the sake of error messages.
pub(super) fn guarded(source: &[u8]) -> BytesMut {
    // `#!lua` must stay the first line.
    let body = match source {
        [b'#', b'!', ..] => source
            .iter()
            .position(|byte| *byte == b'\n')
            .map(|end| end + 1),
        _ => Some(0),
    };
    let (first, rest) = source.split_at(body.unwrap_or(source.len()));
    let mut out = BytesMut::with_capacity(source.len() + GUARD.len());
    out.extend_from_slice(first);
    if body.is_some() {
        out.extend(
            GUARD
                .bytes()
                .map(|byte| if byte == b'\n' { b' ' } else { byte }),
        );
    }
    out.extend_from_slice(rest);
    out
}

/// Hands on the reply of a guarded script: an error names the script that the client knows.
pub(super) struct Unguarded {
    pub(super) to: Rc<Session>,
    pub(super) source: Bytes,
}

impl ReplySink for Unguarded {
    fn deliver(self: Rc<Self>, number: u64, reply: &[u8]) {
        let mut reply = Bytes::copy_from_slice(reply);
        if resp::is_error(&reply) {
            let (run, known) = (sha_of(&guarded(&self.source)), sha_of(&self.source));
            reply = renamed(&reply, &run, &known);
        }
        Rc::clone(&self.to).deliver(number, &reply);
    }

    fn fail(self: Rc<Self>, number: u64, failure: &Failure) {
        Rc::clone(&self.to).fail(number, failure);
    }
}

/// With the first occurrence of a text put in the place of another of the same length.
fn renamed(reply: &[u8], from: &[u8], to: &[u8]) -> Bytes {
    let at = reply.windows(from.len()).position(|text| text == from);
    let mut reply = reply.to_vec();
    if let Some(place) = at.and_then(|at| reply.get_mut(at..at + to.len())) {
        place.copy_from_slice(to);
    }
    reply.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guard_is_one_line_behind_the_first() {
        let plain = guarded(b"return 1");
        assert!(plain.ends_with(b" return 1") && !plain.contains(&b'\n'));
        let marked = guarded(b"#!lua flags=no-writes\nreturn 1");
        assert!(marked.starts_with(b"#!lua flags=no-writes\nlocal redis="));
        assert_eq!(&guarded(b"#!lua")[..], b"#!lua");
    }

    #[test]
    fn a_library_that_only_registers_cannot_call() {
        let registers = b"#!lua name=l\nredis.register_function{function_name='f', \
            callback=function() return 1 end}";
        assert!(!library_can_call(registers));
        assert!(library_can_call(
            b"redis.register_function('f', redis.call)"
        ));
        assert!(library_can_call(
            b"local r = redis redis.register_function('f', 1)"
        ));
        assert!(library_can_call(b"redis.register_function.call()"));
    }

    #[test]
    fn what_cannot_call_is_known() {
        assert!(!can_call(b"return KEYS[1]"));
        assert!(can_call(b"return redis.pcall('get', 'x')"));
        assert!(can_call(b"return redis['call']('get', 'x')"));
        assert!(can_call(b"return redis['ca' .. 'll']('get', 'x')"));
        assert!(can_call(
            b"return _G['re' .. 'dis']['ca' .. 'll']('get', 'x')"
        ));
    }
}

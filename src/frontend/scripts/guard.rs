//! Scripts that declare no keys, such as `EVAL "return 1" 0`.
//!
//! On several shards nobody can tell where such a script belongs: if it touched keys it would do
//! so on a shard of chance, and silently. But most do not. One whose text cannot call anything, or
//! only what has no keys, named there, runs as it is, on any shard; and so does a function of such
//! a library. Any other runs behind a guard: a line in front of it replaces
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
use crate::keyspace::{CommandSpec, CommandTable, Flag};
use crate::resp;

const GUARD: &str = include_str!("guard.lua");

/// What a text must contain to get at commands, by whatever way.
const WAYS: &[&[u8]] = &[
    b"call", b"redis", b"server", b"_G", b"fenv", b"load", b"debug",
];

/// What the table of commands has that calls nothing.
const INERT: &[&[u8]] = &[
    b"register_function",
    b"error_reply",
    b"status_reply",
    b"sha1hex",
    b"log",
    b"LOG_DEBUG",
    b"LOG_VERBOSE",
    b"LOG_NOTICE",
    b"LOG_WARNING",
    b"REDIS_VERSION",
    b"REDIS_VERSION_NUM",
    b"setresp",
];
/// Commands that have no keys and tell nothing of the data.
const KEYLESS: &[&str] = &[
    "ping", "echo", "time", "lolwut", "command", "publish", "select",
];

/// Whether a script, or the functions of a library, with this text can call commands that may
/// touch data.
pub(super) fn can_touch(source: &[u8], table: &CommandTable) -> bool {
    // Registering functions is what every library does.
    can_call(&without(source, b"callback", |_| Some(0)), table)
}

fn can_call(source: &[u8], table: &CommandTable) -> bool {
    let harmless = |rest: &[u8]| harmless_use(rest, table);
    let rest = without(&without(source, b"redis.", harmless), b"server.", harmless);
    WAYS.iter()
        .any(|way| rest.windows(way.len()).any(|word| word == *way))
}

/// The text with a blank for each occurrence of a word, and for as much behind it as `more` says.
fn without(text: &[u8], word: &[u8], more: impl Fn(&[u8]) -> Option<usize>) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some(at) = rest.windows(word.len()).position(|here| here == word) {
        let (before, behind) = rest.split_at(at + word.len());
        out.extend_from_slice(&before[..at]);
        match more(behind) {
            Some(more) => {
                out.push(b' ');
                rest = &behind[more..];
            }
            None => {
                out.extend_from_slice(word);
                rest = behind;
            }
        }
    }
    out.extend_from_slice(rest);
    out
}

/// How much of what stands behind `redis.` is a use that calls nothing, or calls a command that is
/// named there and touches no data.
fn harmless_use(text: &[u8], table: &CommandTable) -> Option<usize> {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let end = text.iter().position(|byte| !is_word(byte));
    let (name, rest) = text.split_at(end.unwrap_or(text.len()));
    if INERT.contains(&name) {
        return Some(name.len());
    }
    let arguments = [&b"call"[..], b"pcall"].contains(&name).then_some(rest)?;
    let inside = arguments.trim_ascii_start().strip_prefix(b"(")?;
    let inside = inside.trim_ascii_start();
    if inside.starts_with(b")") {
        return Some(text.len() - inside.len());
    }
    let quote = *inside.first().filter(|byte| b"'\"".contains(byte))?;
    let len = inside[1..].iter().position(|byte| *byte == quote)?;
    let behind = &inside[len + 2..];
    let next = behind.trim_ascii_start().first();
    let is_whole = next.is_some_and(|byte| b",)".contains(byte));
    (is_whole && is_harmless(&inside[1..=len], table)).then(|| text.len() - behind.len())
}

/// Whether a script may call this as it likes, or may not call it at all.
fn is_harmless(name: &[u8], table: &CommandTable) -> bool {
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    let is_refused = |spec: &CommandSpec| spec.is(Flag::NoScript);
    KEYLESS.contains(&name.as_str()) || table.get(&name).is_some_and(is_refused)
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
pub(super) mod tests {
    use super::*;

    #[test]
    fn the_guard_is_one_line_behind_the_first() {
        let plain = guarded(b"return 1");
        assert!(plain.ends_with(b" return 1") && !plain.contains(&b'\n'));
        let marked = guarded(b"#!lua flags=no-writes\nreturn 1");
        assert!(marked.starts_with(b"#!lua flags=no-writes\nlocal redis="));
        assert_eq!(&guarded(b"#!lua")[..], b"#!lua");
    }

    /// BLPOP, which no script may call, and GET.
    pub(in crate::frontend::scripts) fn table() -> CommandTable {
        let reply = b"*2\r\n\
            *10\r\n+blpop\r\n:-3\r\n*1\r\n+noscript\r\n:1\r\n:1\r\n:1\r\n*0\r\n*0\r\n*0\r\n*0\r\n\
            *10\r\n+get\r\n:2\r\n*1\r\n+readonly\r\n:1\r\n:1\r\n:1\r\n*0\r\n*0\r\n*0\r\n*0\r\n";
        let reply = resp::Value::decode(reply, &resp::Limits::default()).expect("a reply");
        CommandTable::from_reply(&reply).expect("a table")
    }

    #[test]
    fn a_library_that_only_registers_touches_nothing() {
        let table = table();
        let can = |code: &str| can_touch(code.as_bytes(), &table);
        assert!(!can(
            "#!lua name=l\nredis.register_function{function_name='f', \
             callback=function() return 1 end}"
        ));
        assert!(can("redis.register_function('f', redis.call)"));
        assert!(can("local r = redis redis.register_function('f', 1)"));
        assert!(can("redis.register_function.call()"));
    }

    #[test]
    fn what_touches_data_is_known() {
        let table = table();
        for harmless in [
            "return KEYS[1]",
            "return redis.call('ping')",
            "return redis.pcall ( \"ECHO\" , 'x')",
            "redis.call('select', '9') return redis.sha1hex('')",
            "return redis.call('blpop', 'x', 0)",
            "return server.call()",
            "return redis.REDIS_VERSION_NUM",
        ] {
            assert!(!can_touch(harmless.as_bytes(), &table), "{harmless}");
        }
        for harmful in [
            "return redis.pcall('get', 'x')",
            "return redis.call('ping' .. 'x')",
            "return redis.call('ping').call",
            "return redis.call(ARGV[1])",
            "return redis['call']('get', 'x')",
            "return redis['ca' .. 'll']('get', 'x')",
            "return _G['re' .. 'dis']['ca' .. 'll']('get', 'x')",
            "return redis.REDIS_VERSION_NUMcall",
            "local f = redis.call return f('get', 'x')",
            "return redis.call('ping'",
        ] {
            assert!(can_touch(harmful.as_bytes(), &table), "{harmful}");
        }
    }
}

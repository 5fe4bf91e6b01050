//! Which replies survive Lua.
//!
//! A script's return value is converted twice, reply → Lua → reply, and at least ten things
//! get lost on the way (null arrays, integers beyond 2^53, every RESP3 type). This list names
//! the commands whose replies do not contain any of them, whatever the arguments and the data;
//! integers that may be large are repaired by the script (`INCR` and its kin). It is a list of
//! what is known to be right, held against a real server by `integration/conformance`; a
//! command that is missing here is only slower.

use super::SCRIPT_ARGS_MAX;

/// How a command's reply fares in a script, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fidelity {
    /// As native in RESP2; in RESP3 too, once nils (`$-1`) are written as `_`.
    Exact,
    /// As native in RESP2 only: RESP3 would have sent a map, a set or a double.
    Resp2,
    /// Not at all, or the command cannot run in a script.
    Never,
}

/// Integers, statuses, bulks and flat arrays of bulks in both protocols. Sorted.
const EXACT: &[&str] = &[
    "APPEND",
    "BITCOUNT",
    "BITOP",
    "BITPOS",
    "COPY",
    "DECR",
    "DECRBY",
    "DEL",
    "ECHO",
    "EXISTS",
    "EXPIRE",
    "EXPIREAT",
    "GET",
    "GETBIT",
    "GETDEL",
    "GETEX",
    "GETRANGE",
    "GETSET",
    "HDEL",
    "HEXISTS",
    "HGET",
    "HINCRBY",
    "HINCRBYFLOAT",
    "HKEYS",
    "HLEN",
    "HMGET",
    "HMSET",
    "HSET",
    "HSETNX",
    "HSTRLEN",
    "HVALS",
    "INCR",
    "INCRBY",
    "INCRBYFLOAT",
    "LINDEX",
    "LINSERT",
    "LLEN",
    "LMOVE",
    "LPUSH",
    "LPUSHX",
    "LRANGE",
    "LREM",
    "LSET",
    "LTRIM",
    "MGET",
    "MSET",
    "MSETNX",
    "PERSIST",
    "PEXPIRE",
    "PEXPIREAT",
    "PFADD",
    "PFCOUNT",
    "PFMERGE",
    "PSETEX",
    "RENAME",
    "RENAMENX",
    "RESTORE",
    "RPOPLPUSH",
    "RPUSH",
    "RPUSHX",
    "SADD",
    "SCARD",
    "SDIFFSTORE",
    "SELECT",
    "SETBIT",
    "SETEX",
    "SETNX",
    "SETRANGE",
    "SINTERCARD",
    "SINTERSTORE",
    "SISMEMBER",
    "SMISMEMBER",
    "SMOVE",
    "SREM",
    "STRLEN",
    "SUBSTR",
    "SUNIONSTORE",
    "TOUCH",
    "TYPE",
    "UNLINK",
    "XACK",
    "XADD",
    "XDEL",
    "XLEN",
    "XTRIM",
    "ZCARD",
    "ZCOUNT",
    "ZDIFFSTORE",
    "ZINTERCARD",
    "ZINTERSTORE",
    "ZLEXCOUNT",
    "ZRANGEBYLEX",
    "ZRANGESTORE",
    "ZREM",
    "ZREMRANGEBYLEX",
    "ZREMRANGEBYRANK",
    "ZREMRANGEBYSCORE",
    "ZREVRANGEBYLEX",
    "ZUNIONSTORE",
];

/// Sets, maps and doubles in RESP3. Sorted.
const RESP2: &[&str] = &[
    "HGETALL", "SDIFF", "SINTER", "SMEMBERS", "SUNION", "ZINCRBY", "ZSCORE",
];

/// In some shapes only: see [`fidelity`].
const SHAPED: &[&str] = &[
    "SET",
    "LPOP",
    "RPOP",
    "SPOP",
    "SRANDMEMBER",
    "HRANDFIELD",
    "ZRANDMEMBER",
    "ZADD",
    "ZRANGE",
    "ZREVRANGE",
    "ZRANGEBYSCORE",
    "ZREVRANGEBYSCORE",
];

/// The names of all commands that can be better than [`Fidelity::Never`].
pub fn script_commands() -> impl Iterator<Item = &'static str> {
    [EXACT, RESP2, SHAPED].into_iter().flatten().copied()
}

/// How the reply of a command, its name first, fares in the script `apply`.
pub fn fidelity<'a>(mut args: impl ExactSizeIterator<Item = &'a [u8]>) -> Fidelity {
    if args.len() > SCRIPT_ARGS_MAX {
        return Fidelity::Never;
    }
    let mut folded = [0; 16];
    let Some(name) = args.next().and_then(|name| fold(name, &mut folded)) else {
        return Fidelity::Never;
    };
    match name {
        // In `apply` they are not what the server has under these names, but spare what is ours.
        "FLUSHALL" | "FLUSHDB" => Fidelity::Exact,
        "SET" => Fidelity::Exact,
        // LPOP k 2 of a missing key is a null array, which Lua does not know.
        "LPOP" | "RPOP" if args.len() == 1 => Fidelity::Exact,
        // With a count: a set, or pairs, in RESP3.
        "SPOP" | "SRANDMEMBER" | "HRANDFIELD" | "ZRANDMEMBER" if args.len() == 1 => Fidelity::Exact,
        // The score, a double. A member named INCR costs no more than speed.
        "ZADD" => unless(args, &[b"INCR"]),
        "ZRANGE" | "ZREVRANGE" | "ZRANGEBYSCORE" | "ZREVRANGEBYSCORE" => {
            unless(args, &[b"WITHSCORES"])
        }
        _ if EXACT.binary_search(&name).is_ok() => Fidelity::Exact,
        _ if RESP2.binary_search(&name).is_ok() => Fidelity::Resp2,
        _ => Fidelity::Never,
    }
}

/// Exact without any of `words` among the arguments.
fn unless<'a>(mut args: impl Iterator<Item = &'a [u8]>, words: &[&[u8]]) -> Fidelity {
    if args.any(|arg| words.iter().any(|word| arg.eq_ignore_ascii_case(word))) {
        Fidelity::Resp2
    } else {
        Fidelity::Exact
    }
}

/// The upper-case name, if it is ASCII and no longer than the longest that is known.
fn fold<'b>(name: &[u8], folded: &'b mut [u8; 16]) -> Option<&'b str> {
    let folded = folded.get_mut(..name.len())?;
    folded.copy_from_slice(name);
    folded.make_ascii_uppercase();
    std::str::from_utf8(folded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(command: &str) -> Fidelity {
        let args: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        fidelity(args.into_iter())
    }

    #[test]
    fn the_lists_are_sorted_and_fit() {
        for list in [EXACT, RESP2] {
            assert!(list.is_sorted());
            assert!(list.iter().all(|name| name.len() <= 16));
        }
    }

    /// P3: nothing goes through a script that would come out otherwise.
    #[test]
    fn shapes_decide() {
        assert_eq!(of("set k v NX GET"), Fidelity::Exact);
        assert_eq!(of("LPOP k"), Fidelity::Exact);
        assert_eq!(of("LPOP k 2"), Fidelity::Never);
        assert_eq!(of("SPOP k 2"), Fidelity::Never);
        assert_eq!(of("ZADD k 1 m"), Fidelity::Exact);
        assert_eq!(of("ZADD k incr 1 m"), Fidelity::Resp2);
        assert_eq!(of("ZRANGE k 0 -1 withscores"), Fidelity::Resp2);
        assert_eq!(of("HGETALL k"), Fidelity::Resp2);
        assert_eq!(of("TTL k"), Fidelity::Never);
        assert_eq!(of("BLPOP k 0"), Fidelity::Never);
        assert_eq!(of("NOSUCHCOMMANDATALLREALLY"), Fidelity::Never);
        assert_eq!(fidelity(std::iter::empty()), Fidelity::Never);
        let long = vec![b"DEL".as_slice(); SCRIPT_ARGS_MAX + 1];
        assert_eq!(fidelity(long.into_iter()), Fidelity::Never);
    }
}

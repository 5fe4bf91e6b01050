//! Commands that clients may send, at random, of every kind that lockstep treats in a way of its
//! own.

use crate::support::{encode, spread};
use rand::RngExt;
use rand::rngs::StdRng;

/// `K` stands for a key, `V` for a value, `S` for a small number.
const TEMPLATES: &[&str] = &[
    "GET K",
    "SET K V",
    "INCR K",
    "MGET K K K",
    "MSET K V K V",
    "DEL K K",
    "EXISTS K K",
    "TOUCH K K",
    "LPUSH K V",
    "RPUSH K V V",
    "LPOP K",
    "LRANGE K 0 -1",
    "BLPOP K K 0.05",
    "BLMOVE K K LEFT LEFT 0.05",
    "RENAME K K",
    "MSETNX K V K V",
    "SADD K V",
    "SINTERSTORE K K",
    "ZADD K S V",
    "HSET K V V",
    "HGETALL K",
    "XADD K * V V",
    "XREAD COUNT 1 BLOCK 20 STREAMS K K 0 0",
    "EXPIRE K S",
    "TYPE K",
    "SCAN 0 COUNT 100",
    "KEYS *",
    "DBSIZE",
    "RANDOMKEY",
    "SELECT S",
    "SELECT 0",
    "WATCH K",
    "WATCH K K",
    "UNWATCH",
    "DISCARD",
    "PUBLISH V V",
    "SUBSCRIBE V",
    "PSUBSCRIBE V*",
    "UNSUBSCRIBE",
    "PUNSUBSCRIBE",
    "EVALSHA_RO V 1 K",
    "SCRIPT FLUSH",
    "SCRIPT EXISTS V",
    "FUNCTION LIST",
    "HELLO 3",
    "HELLO 2",
    "RESET",
    "INFO",
    "PING",
    "ECHO V",
    "TIME",
    "CLIENT ID",
    "CLIENT LIST",
    "CLIENT NO-EVICT ON",
    "CLIENT SETNAME V",
    "COMMAND COUNT",
    "CONFIG GET *",
    "OBJECT ENCODING K",
    "MEMORY USAGE K",
    "LOCKSTEP TXN LIST",
    "LOCKSTEP TXN STATUS V",
    "LOCKSTEP STATUS",
    "LOCKSTEP TRACE V",
    "LOCKSTEP TRACE 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "SLOWLOG GET",
    "WAIT 0 10",
    "SORT K",
    "COPY K K",
    "DUMP K",
    "GETRANGE K 0 S",
    "SETRANGE K S V",
    "BITOP AND K K",
    "PFCOUNT K K",
    "GEOADD K S S V",
    "ACL WHOAMI",
    "AUTH V V",
];

/// What random commands are made of.
#[derive(Clone)]
pub struct Words {
    keys: Vec<String>,
}

impl Words {
    /// With keys on all of so many shards.
    pub fn new(shards: usize) -> Words {
        Words {
            keys: spread("fuzz", shards, 12),
        }
    }

    /// One command.
    pub fn command(&self, rng: &mut StdRng) -> Vec<u8> {
        if rng.random_ratio(1, 20) {
            let key = self.key(rng);
            return encode(&["EVAL", "return redis.call('INCRBY', KEYS[1], 1)", "1", &key]);
        }
        let template = TEMPLATES[rng.random_range(0..TEMPLATES.len())];
        let word = |word: &str| match word {
            "K" => self.key(rng),
            "V" => format!("v{}", rng.random_range(0..4)),
            "S" => rng.random_range(0..4).to_string(),
            word => word.to_owned(),
        };
        encode(&template.split(' ').map(word).collect::<Vec<_>>())
    }

    /// A command, several, or a transaction: the bytes and how many replies they ask for at least.
    pub fn turn(&self, rng: &mut StdRng) -> (Vec<u8>, usize) {
        let count = rng.random_range(1..6);
        let mut bytes = Vec::new();
        let is_transaction = rng.random_ratio(1, 2);
        if is_transaction {
            bytes.extend(encode(&["MULTI"]));
        }
        for _ in 0..count {
            match is_transaction {
                true => bytes.extend(encode(&["SET", &self.key(rng), "in a transaction"])),
                false => bytes.extend(self.command(rng)),
            }
        }
        if is_transaction {
            bytes.extend(encode(&["EXEC"]));
        }
        (bytes, count + if is_transaction { 2 } else { 0 })
    }

    fn key(&self, rng: &mut StdRng) -> String {
        self.keys[rng.random_range(0..self.keys.len())].clone()
    }
}

//! P3: whatever is set, whoever asks and whether replies are wanted, what moves between shards is
//! answered as by one redis-server, and leaves what that leaves.

use std::time::Duration;

use crate::support::{Client, Cluster, Options, Redis, encode, escape, key_on};

const SHARDS: usize = 3;
const END: &[u8] = b"$3\r\nend\r\n";
const QUIET: Duration = Duration::from_secs(10);

/// `A`, `B` and `C` stand for a key on each shard.
const MOVES: &str = "\
RPUSH A 1 2 3 4
LMOVE A B LEFT RIGHT
RPOPLPUSH A B
BLMOVE A B RIGHT LEFT 1
BRPOPLPUSH A C 1
LRANGE B 0 -1
RENAME B A
RENAMENX A C
COPY A C
COPY A C REPLACE
COPY A B
LRANGE B 0 -1
MSETNX A 1 B 2
RENAME C A
LRANGE A 0 -1
DEL A B C
RENAME A B
MSETNX A 1 B 2 C 3
MGET A B C
DEL A B C
SADD A 1 2 3
SADD B 3 4
SMOVE A B 1
SINTERSTORE C A B
SUNIONSTORE C A B
SCARD C
SMOVE A B missing
LMOVE A B LEFT LEFT
TYPE A
DEL A B C
PFADD A x y
PFMERGE C A B
PFCOUNT A B C
DEL A B C
SET A foo EX 1000
RENAME A B
COPY B C
TTL C
BITOP AND A B C
GET A";

/// What a client is to be told of these.
const MUTE: &str = "\
RPUSH A 1 2 3
CLIENT REPLY SKIP
LMOVE A B LEFT LEFT
LRANGE B 0 -1
CLIENT REPLY OFF
LMOVE A B LEFT LEFT
RENAME B C
COPY C B
MSETNX A 1 C 2
LMOVE A C nowhere LEFT
CLIENT REPLY ON
LRANGE C 0 -1
CLIENT REPLY SKIP
SMOVE A B 1
RENAME missing A
LRANGE B 0 -1";

/// A user who may not touch `C`, nor write to `B`.
const NARROW: &str = "\
AUTH narrow n
RPUSH A 1 2
LMOVE A B LEFT LEFT
LMOVE A C LEFT LEFT
RENAME A C
RENAME A B
COPY A B
COPY B A
SUNIONSTORE A B
SUNIONSTORE A C
SUNIONSTORE B A
MSETNX A 1 B 2
LRANGE A 0 -1";

fn keys() -> [String; SHARDS] {
    std::array::from_fn(|shard| key_on("x", shard, SHARDS))
}

fn users() -> String {
    let [a, b, _] = keys();
    format!("user default on nopass ~* &* +@all\nuser narrow on >n ~{a} %R~{b} +@all\n")
}

/// All that comes back to these lines, and then what is there.
fn play(port: u16, script: &str) -> String {
    let mut client = Client::connect(port).expect("a connection");
    client.reply_limit(QUIET);
    client.call(&["FLUSHALL"]);
    let [a, b, c] = keys();
    let mut said = Vec::new();
    for line in script.lines().chain(["ECHO end"]) {
        let word = |word: &str| match word {
            "A" => a.clone(),
            "B" => b.clone(),
            "C" => c.clone(),
            other => other.to_owned(),
        };
        let words: Vec<String> = line.split(' ').map(word).collect();
        client.send(&encode(&words)).expect("sent");
    }
    while said.last().is_none_or(|reply: &Vec<u8>| reply != END) {
        said.push(client.read().expect("a reply").raw);
    }
    let mut look = Client::connect(port).expect("a connection");
    for key in [&a, &b, &c] {
        said.push(look.call(&["DUMP", key]).raw);
    }
    let said: Vec<String> = said.iter().map(|reply| escape(reply)).collect();
    said.join("\n")
}

#[test]
fn moves_are_those_of_one_redis_whatever_is_set() {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let file = folder.path().join("users.acl").display().to_string();
    std::fs::write(&file, users()).expect("written");
    let oracle = Redis::start(&["--aclfile", &file]);
    let wanted = [MOVES, MUTE, NARROW].map(|script| play(oracle.port(), script));
    for (name, value) in [
        ("fence", "on"),
        ("isolation", "transactions"),
        ("isolation", "strict"),
    ] {
        let cluster = Cluster::start(&Options {
            proxy: vec![
                (name.into(), value.into()),
                ("acl-file".into(), file.clone()),
            ],
            ..Options::default()
        });
        for (script, wanted) in [MOVES, MUTE, NARROW].iter().zip(&wanted) {
            let got = play(cluster.port(0), script);
            assert_eq!(&got, wanted, "{name} = {value}: {script}");
        }
        cluster.wait_clean(crate::CLEAN_LIMIT);
    }
}

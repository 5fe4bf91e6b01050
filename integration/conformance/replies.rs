//! P3: what comes out of `apply` is, byte for byte, what EXEC would have answered.
//!
//! The same commands run natively in database 0 (RESP2) and 2 (RESP3), and through the scripts
//! in database 1, of one server: so sets have the same order in all three.

use std::collections::BTreeSet;

use bytes::BytesMut;
use lockstep::resp::{build, elements};
use lockstep::txn::redo::{Fidelity, IntentBuilder, fidelity, script_commands};
use lockstep::txn::script::answer::to_resp3;
use lockstep::txn::{Applied, Leave, Released, Vote};

use crate::server::Client;
use crate::shard::{Replies, Shard, id};
use crate::templates::{Random, TEMPLATES, branch};

const BRANCHES: usize = 5_000;
const BRANCHES_PER_KEYSPACE: usize = 100;

/// `LOCKSTEP_SEED` repeats a failure.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("LOCKSTEP_SEED").ok();
    given
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(0x1057_e990)
}

struct Three {
    resp2: Client,
    resp3: Client,
    scripts: Shard,
}

impl Three {
    fn start() -> Self {
        let mut scripts = Shard::start();
        scripts.text("SELECT 1");
        let resp2 = scripts.server.client();
        let mut resp3 = scripts.server.client();
        resp3.text("SELECT 2");
        resp3.text("HELLO 3");
        Self {
            resp2,
            resp3,
            scripts,
        }
    }

    fn clear(&mut self) {
        self.resp2.text("FLUSHALL");
    }

    fn by_script(&mut self, name: &str, commands: &[Vec<Vec<u8>>]) -> Replies {
        let mut builder = IntentBuilder::new();
        for command in commands {
            builder.command(command.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }
        let branch = builder.finish([b"locked".as_slice()]);
        assert_ne!(branch.fidelity, Fidelity::Never);
        let voted = self.scripts.prepare(&id(name), &branch);
        assert_eq!(voted.vote, Vote::Yes);
        let (applied, replies) = self.scripts.apply(&id(name));
        assert_eq!(applied, Applied::Now);
        let released = self.scripts.release(&id(name), Leave::Nothing);
        assert_eq!(released, Released::Done);
        replies
    }

    /// Each key's value in a database, ours left out.
    fn values(&mut self, db: &str) -> Vec<(Vec<u8>, String)> {
        self.scripts.text(&format!("SELECT {db}"));
        let all = self.scripts.digest();
        self.scripts.text("SELECT 1");
        all.into_iter()
            .filter(|(key, _)| !key.starts_with(b"__lockstep:"))
            .collect()
    }

    fn compare_values(&mut self, context: &str) {
        let native = self.values("0");
        for db in ["1", "2"] {
            let other = self.values(db);
            assert_eq!(other, native, "{context}, database {db}");
        }
    }
}

/// The elements of the EXEC of `commands`.
fn native(client: &mut Client, commands: &[Vec<Vec<u8>>]) -> Replies {
    let mut out = BytesMut::new();
    build::command(&mut out, ["MULTI"]);
    for command in commands {
        build::command(&mut out, command);
    }
    build::command(&mut out, ["EXEC"]);
    client.send(&out);
    let replies = client.replies(commands.len() + 2);
    let exec = replies.last().map(Vec::as_slice).unwrap_or_default();
    elements(exec).map(<[u8]>::to_vec).collect()
}

fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

#[test]
fn thousands_of_random_commands_answer_as_natively() {
    let seed = seed();
    let mut random = Random(seed);
    let mut three = Three::start();
    let (mut compared, mut repaired) = (0, 0);
    for round in 0..BRANCHES {
        let commands = branch(&mut random);
        let expected = native(&mut three.resp2, &commands);
        let expected3 = native(&mut three.resp3, &commands);
        let replies = three.by_script(&format!("t{round}"), &commands);
        assert_eq!(replies.len(), commands.len());
        for (i, command) in commands.iter().enumerate() {
            let shown: Vec<String> = command.iter().map(|arg| show(arg)).collect();
            let context = format!("seed {seed}, round {round}: {}", shown.join(" "));
            assert_eq!(show(&replies[i]), show(&expected[i]), "{context}");
            if fidelity(command.iter().map(Vec::as_slice)) == Fidelity::Exact {
                assert_eq!(
                    show(&to_resp3(&replies[i])),
                    show(&expected3[i]),
                    "{context}"
                );
            }
            compared += 1;
            repaired += usize::from(replies[i].first() == Some(&b':') && replies[i].len() > 18);
        }
        if round % BRANCHES_PER_KEYSPACE == BRANCHES_PER_KEYSPACE - 1 {
            three.compare_values(&format!("seed {seed}, round {round}"));
            three.clear();
        }
    }
    // The test has teeth only if integers that Lua cannot hold came by.
    assert!(
        compared > 10_000 && repaired > 50,
        "{compared} compared, {repaired} repaired"
    );
}

/// Every command of the whitelist is among the random ones.
#[test]
fn the_templates_cover_the_whitelist() {
    let commands = TEMPLATES.iter().flat_map(|template| template.split("; "));
    let covered: BTreeSet<&str> = commands.filter_map(|c| c.split(' ').next()).collect();
    let known: BTreeSet<&str> = script_commands().collect();
    assert_eq!(covered, known);
}

/// Results beyond 2^53, which Lua's numbers cannot hold, to the last digit, and with the errors
/// at the ends of the range.
#[test]
fn big_integers_are_exact() {
    let mut three = Three::start();
    let split = |line: &str| {
        line.split(' ')
            .map(|word| word.as_bytes().to_vec())
            .collect()
    };
    let commands: Vec<Vec<Vec<u8>>> = [
        "SET n 9007199254740990",
        "INCR n",
        "INCR n",
        "INCR n",
        "INCR n",
        "DECRBY n 1",
        "SET n -9007199254740991",
        "DECR n",
        "DECR n",
        "DECRBY n 9007199254740993",
        "SET n 9223372036854775806",
        "INCR n",
        "INCR n",
        "GET n",
        "INCRBY n -9223372036854775807",
        "SET n -9223372036854775807",
        "DECR n",
        "DECR n",
        "DECRBY n -9223372036854775808",
        "HSET h f 9223372036854775806",
        "HINCRBY h f 1",
        "HINCRBY h f 1",
        "HINCRBY h g 9007199254740993",
        "HINCRBY h g -1",
        "INCRBY h 9007199254740993",
        "HINCRBY n f 9007199254740993",
    ]
    .into_iter()
    .map(split)
    .collect();
    let expected = native(&mut three.resp2, &commands);
    let replies = three.by_script("t1", &commands);
    for (i, command) in commands.iter().enumerate() {
        assert_eq!(
            show(&replies[i]),
            show(&expected[i]),
            "{i}: {}",
            show(&command.join(&b' '))
        );
    }
}

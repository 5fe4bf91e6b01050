//! Shards with transactions in any state, and the program asked about them.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::BytesMut;
use lockstep::txn::redo::IntentBuilder;
use lockstep::txn::script::{self, Abort, Prepare, Release, Tombstone, answer};
use lockstep::txn::{Aborted, Applied, Leave, Part, Released, Rule, TxnId, Vote};
use serde_json::Value as Json;

use crate::support::{Client, Proxy, Redis, Value, escape, eventually};

/// Longer than any test takes.
pub const LONG_MS: u64 = 3_600_000;
/// As a not-after: never.
const NEVER_MS: u64 = 4_102_444_800_000;
const PATIENCE: Duration = Duration::from_secs(30);

/// Servers with the scripts loaded.
pub struct Shards {
    pub servers: Vec<Redis>,
}

/// How a transaction is prepared.
#[derive(Clone, Copy)]
pub struct Plan<'a> {
    pub id: &'a str,
    /// Its participants, by shard.
    pub parts: &'a [u16],
    /// From prepare to deadline, in milliseconds.
    pub ttl_ms: u64,
    /// The shard that decides, if one does.
    pub decider: Option<u16>,
}

impl<'a> Plan<'a> {
    /// Past its deadline at once.
    pub fn overdue(id: &'a str, parts: &'a [u16]) -> Self {
        Self {
            id,
            parts,
            ttl_ms: 1,
            decider: None,
        }
    }

    /// Before its deadline for as long as a test runs.
    pub fn early(id: &'a str, parts: &'a [u16]) -> Self {
        Self {
            ttl_ms: LONG_MS,
            ..Self::overdue(id, parts)
        }
    }
}

/// What the program printed, and its exit status.
pub struct Said {
    pub code: Option<i32>,
    pub text: String,
    pub errors: String,
}

impl Said {
    pub fn json(&self) -> Json {
        serde_json::from_str(&self.text).unwrap_or_else(|why| panic!("{why}: {}", self.text))
    }

    /// Panics unless it ended with this status and said all of this.
    pub fn expect(self, code: i32, parts: &[&str]) -> Self {
        let whole = format!("{}{}", self.text, self.errors);
        assert_eq!(self.code, Some(code), "{whole}");
        for part in parts {
            assert!(whole.contains(part), "{part:?} in:\n{whole}");
        }
        self
    }
}

fn part(shard: u16) -> Part {
    Part { shard, db: 0 }
}

impl Shards {
    pub fn start(count: usize) -> Self {
        Self::with(count, &[])
    }

    pub fn with(count: usize, flags: &[&str]) -> Self {
        let servers: Vec<Redis> = (0..count).map(|_| Redis::start(flags)).collect();
        let this = Self { servers };
        for shard in 0..count {
            let mut client = this.client(shard);
            for script in script::ALL {
                client.value(&["SCRIPT", "LOAD", script.source()]);
            }
        }
        this
    }

    pub fn client(&self, shard: usize) -> Client {
        self.servers[shard].client()
    }

    pub fn addresses(&self) -> Vec<String> {
        self.servers.iter().map(Redis::address).collect()
    }

    fn ask(&self, shard: u16, write: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
        let mut client = self.client(usize::from(shard));
        let mut request = BytesMut::new();
        write(&mut request);
        client.send(&request).expect("the server reads");
        client.read().expect("a reply").raw
    }

    /// Prepares one branch that sets the key `<id>:<shard>` to `applied`; what it locks has that
    /// name, too.
    pub fn prepare(&self, plan: Plan<'_>, shard: u16) {
        let key = key(plan.id, shard);
        let mut builder = IntentBuilder::new();
        builder.command([b"SET".as_slice(), key.as_bytes(), b"applied"]);
        builder.command([b"APPEND".as_slice(), key.as_bytes(), b" once"]);
        let participants: Vec<Part> = plan.parts.iter().map(|shard| part(*shard)).collect();
        let prepare = Prepare {
            id: &TxnId::new(plan.id),
            ttl_ms: plan.ttl_ms,
            not_after_ms: NEVER_MS,
            participants: &participants,
            rule: plan
                .decider
                .map_or(Rule::Implicit, |shard| Rule::Decider(part(shard))),
            intent: &builder.finish([key.as_bytes()]),
            watched: None,
        };
        let reply = self.ask(shard, |out| prepare.append(out));
        assert_eq!(answer::vote(&reply).vote, Vote::Yes, "{}", escape(&reply));
        if plan.ttl_ms < 1_000 {
            self.wait_unlocked(shard, plan.id);
        }
    }

    /// Its lock lives as long as until its deadline.
    fn wait_unlocked(&self, shard: u16, id: &str) {
        let lock = format!("__lockstep:lock:{}", key(id, shard));
        let mut client = self.client(usize::from(shard));
        eventually("the deadline has passed", PATIENCE, || {
            client.value(&["EXISTS", &lock]) == Value::Integer(0)
        });
    }

    /// Prepares it on all its participants.
    pub fn prepare_all(&self, plan: Plan<'_>) {
        plan.parts
            .iter()
            .for_each(|shard| self.prepare(plan, *shard));
    }

    pub fn apply(&self, id: &str, shard: u16) {
        let reply = self.ask(shard, |out| script::append_apply(out, &TxnId::new(id)));
        assert_eq!(answer::applied(&reply).applied, Applied::Now);
    }

    /// Aborts; a prepared record becomes a marker.
    pub fn abort(&self, id: &str, shard: u16) {
        let abort = Abort {
            id: &TxnId::new(id),
            retention_ms: LONG_MS,
            leave: Leave::Marker,
            tombstone_until_ms: None,
        };
        let reply = self.ask(shard, |out| abort.append(out));
        assert_eq!(answer::aborted(&reply), Aborted::Done);
    }

    pub fn tombstone(&self, id: &str, shard: u16) {
        let tombstone = Tombstone {
            id: &TxnId::new(id),
            retention_ms: LONG_MS,
            not_after_ms: NEVER_MS,
        };
        let reply = self.ask(shard, |out| tombstone.append(out));
        assert_eq!(answer::aborted(&reply), Aborted::Done);
    }

    /// Releases; a marker stays.
    pub fn release(&self, id: &str, shard: u16) {
        let release = Release {
            id: &TxnId::new(id),
            leave: Leave::Marker,
            retention_ms: LONG_MS,
            replies: None,
        };
        let reply = self.ask(shard, |out| release.append(out));
        assert_eq!(answer::released(&reply), Released::Done);
    }

    /// Loses the record, as eviction does.
    pub fn lose_record(&self, id: &str, shard: u16) {
        let record = format!("__lockstep:txn:{id}");
        let gone = self.client(usize::from(shard)).value(&["DEL", &record]);
        assert_eq!(gone, Value::Integer(1));
    }

    /// What the transaction's branch on a shard has written.
    pub fn written(&self, id: &str, shard: u16) -> Value {
        let mut client = self.client(usize::from(shard));
        client.value(&["GET", &key(id, shard)])
    }

    /// Panics unless the branch was applied exactly once on all these shards.
    pub fn assert_applied(&self, id: &str, shards: &[u16]) {
        for shard in shards {
            let written = self.written(id, *shard);
            assert_eq!(written.bytes(), Some(&b"applied once"[..]), "shard {shard}");
        }
    }

    /// Panics if any branch was applied.
    pub fn assert_not_applied(&self, id: &str) {
        for shard in 0..self.servers.len() as u16 {
            assert_eq!(self.written(id, shard), Value::Nil, "shard {shard}");
        }
    }

    /// Panics if anything on the shards is locked, indexed, settling or undecided.
    pub fn assert_settled(&self) {
        let left = crate::support::leftovers(&self.servers);
        assert!(left.is_settled(), "{left:?}");
    }

    /// Every key of every shard: its value, and whether it has a time to live.
    pub fn picture(&self) -> BTreeMap<(usize, Vec<u8>), String> {
        let mut picture = BTreeMap::new();
        for shard in 0..self.servers.len() {
            let mut client = self.client(shard);
            for key in crate::support::leftovers::all_keys(&mut client) {
                let digest = client.value(&[b"DEBUG".as_slice(), b"DIGEST-VALUE", &key]);
                let ttl = client.value(&[b"PTTL".as_slice(), &key]).integer();
                let lives = ttl.is_some_and(|ttl| ttl >= 0);
                picture.insert((shard, key), format!("{digest} {lives}"));
            }
        }
        picture
    }

    /// Asks the program about these shards.
    pub fn lockstep(&self, words: &[&str]) -> Said {
        self.lockstep_over(words, &self.addresses())
    }

    /// The same with other addresses.
    pub fn lockstep_over(&self, words: &[&str], addresses: &[String]) -> Said {
        let output = Command::new(env!("CARGO_BIN_EXE_lockstep"))
            .args(words)
            .args(addresses.iter().flat_map(|address| ["--shard", address]))
            .args(["--lock-ttl-ms", "2000"])
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .expect("the program starts");
        Said {
            code: output.status.code(),
            text: String::from_utf8_lossy(&output.stdout).into_owned(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// A lockstep in front of them that recovers nothing by itself.
    pub fn proxy(&self, settings: &[(&str, &str)]) -> Proxy {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut all = vec![owned(&("recovery-scan-interval-ms", "3600000"))];
        all.extend(settings.iter().map(owned));
        Proxy::start(&self.addresses(), &all)
    }
}

/// The key that a transaction's branch on a shard locks and sets.
pub fn key(id: &str, shard: u16) -> String {
    format!("{id}:{shard}")
}

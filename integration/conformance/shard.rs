//! A shard with the scripts loaded, asked in the vocabulary of `txn`.

use std::collections::BTreeMap;

use bytes::BytesMut;
use lockstep::resp::{as_bulk, as_int, elements};
use lockstep::txn::redo::{Intent, IntentBuilder};
use lockstep::txn::script::{self, Abort, Prepare, Release, Tombstone, answer};
use lockstep::txn::{Aborted, Applied, Leave, Millis, Part, Record, Released, Rule, TxnId};

use crate::server::{Client, Server};

/// Long enough for no test to see it pass.
pub(crate) const HOUR: Millis = 3_600_000;
/// As a not-after: never.
pub(crate) const NEVER: Millis = u64::MAX;

pub(crate) struct Shard {
    pub(crate) server: Server,
    pub(crate) client: Client,
}

/// The replies of a branch.
pub(crate) type Replies = Vec<Vec<u8>>;

pub(crate) fn id(text: &str) -> TxnId {
    TxnId::new(text)
}

pub(crate) fn parts() -> Vec<Part> {
    vec![Part { shard: 0, db: 0 }, Part { shard: 7, db: 3 }]
}

/// A branch; keys and commands as text, separated by spaces.
pub(crate) fn intent(keys: &str, commands: &[&str]) -> Intent {
    let mut builder = IntentBuilder::new();
    for command in commands {
        let args: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        builder.command(args);
    }
    let keys: Vec<&[u8]> = keys.split_whitespace().map(str::as_bytes).collect();
    builder.finish(keys)
}

impl Shard {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    pub(crate) fn with(settings: &[&str]) -> Self {
        let server = Server::start(settings);
        let mut client = server.client();
        for script in script::ALL {
            let mut out = BytesMut::new();
            script.append_load(&mut out);
            client.send(&out);
            let loaded = client.reply();
            assert_eq!(
                as_bulk(&loaded),
                Some(script.sha1().as_bytes()),
                "{loaded:?}"
            );
        }
        Self { server, client }
    }

    /// Sends what `write` appends, for one reply.
    pub(crate) fn ask(&mut self, write: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
        let mut out = BytesMut::new();
        write(&mut out);
        self.client.send(&out);
        self.client.reply()
    }

    /// Prepares with a deadline in an hour.
    pub(crate) fn prepare(&mut self, id: &TxnId, intent: &Intent) -> answer::Voted {
        self.prepare_with(&Prepare {
            id,
            ttl_ms: HOUR,
            not_after_ms: NEVER,
            participants: &parts(),
            rule: Rule::Implicit,
            intent,
            watched: None,
        })
    }

    pub(crate) fn prepare_with(&mut self, prepare: &Prepare<'_>) -> answer::Voted {
        answer::vote(&self.ask(|out| prepare.append(out)))
    }

    pub(crate) fn apply(&mut self, id: &TxnId) -> (Applied, Replies) {
        let frame = self.ask(|out| script::append_apply(out, id));
        let answer = answer::applied(&frame);
        let replies = answer.replies.into_iter().map(|r| r.into_owned());
        (answer.applied, replies.collect())
    }

    /// Aborts; a tombstone until `tombstone`.
    pub(crate) fn abort(&mut self, id: &TxnId, leave: Leave, tombstone: Option<Millis>) -> Aborted {
        let abort = Abort {
            id,
            retention_ms: HOUR,
            leave,
            tombstone_until_ms: tombstone,
        };
        answer::aborted(&self.ask(|out| abort.append(out)))
    }

    pub(crate) fn tombstone(&mut self, id: &TxnId, not_after_ms: Millis) -> Aborted {
        let tombstone = Tombstone {
            id,
            retention_ms: HOUR,
            not_after_ms,
        };
        answer::aborted(&self.ask(|out| tombstone.append(out)))
    }

    pub(crate) fn release(&mut self, id: &TxnId, leave: Leave) -> Released {
        self.release_with(id, leave, None)
    }

    pub(crate) fn release_with(
        &mut self,
        id: &TxnId,
        leave: Leave,
        replies: Option<&[u8]>,
    ) -> Released {
        let release = Release {
            id,
            leave,
            retention_ms: HOUR,
            replies,
        };
        answer::released(&self.ask(|out| release.append(out)))
    }

    pub(crate) fn record(&mut self, id: &TxnId) -> Option<Record> {
        answer::record(&self.ask(|out| script::append_read(out, id))).expect("a reading")
    }

    /// A command as text, its reply as text.
    pub(crate) fn text(&mut self, command: &str) -> String {
        self.client.text(command)
    }

    /// The shard's clock.
    pub(crate) fn now(&mut self) -> Millis {
        let time = self.client.call(&["TIME"]);
        let parts: Vec<u64> = elements(&time)
            .filter_map(|part| std::str::from_utf8(as_bulk(part)?).ok()?.parse().ok())
            .collect();
        parts[0] * 1_000 + parts[1] / 1_000
    }

    /// All keys of the database.
    pub(crate) fn keys(&mut self) -> Vec<Vec<u8>> {
        let keys = self.client.call(&["KEYS", "*"]);
        let mut keys: Vec<Vec<u8>> = elements(&keys)
            .filter_map(|key| Some(as_bulk(key)?.to_vec()))
            .collect();
        keys.sort();
        keys
    }

    /// A fingerprint of every key: its value, and whether it has a time to live.
    pub(crate) fn digest(&mut self) -> BTreeMap<Vec<u8>, String> {
        let keys = self.keys();
        let digest = |key: &Vec<u8>| {
            let of: [&[u8]; 3] = [b"DEBUG", b"DIGEST-VALUE", key];
            let value = self.client.call(&of);
            let ttl = self.client.call(&[b"PTTL", key.as_slice()]);
            let lives = as_int(&ttl).is_some_and(|ttl| ttl >= 0);
            (
                key.clone(),
                format!("{} {lives}", String::from_utf8_lossy(&value)),
            )
        };
        keys.iter().map(digest).collect()
    }
}

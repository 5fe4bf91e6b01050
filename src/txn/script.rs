//! The scripts that run on the shards, and the requests that call them.
//!
//! Every operation of [`super`] is one request here, appended as raw RESP to a buffer, and its
//! reply is read by [`answer`]. Each script is atomic: Redis runs nothing else meanwhile.
//!
//! # Needs of the server
//!
//! Redis 7.0 or newer (error texts through `redis.pcall`, `EVALSHA_RO`, `SET … NX GET`, and the
//! rule that the right to write is checked at a script's first write). The scripts declare the record as
//! their only key and derive the rest from it and from constants: lock keys from the client's
//! keys, which a recoverer knows only from the record itself. Only a Redis Cluster routes by
//! declared keys; a plain server does not look at them, and its ACL checks what is really used.
//!
//! Scripts are called by their SHA-1. The driver loads [`ALL`] on every new connection; a server
//! that has lost them answers `-NOSCRIPT`, which proves that nothing was done (see
//! [`answer::is_noscript`]): load and send again, except a prepare, which needs a new id.
//!
//! # Two ways to vote and apply
//!
//! * on any connection: [`Prepare::append`], then [`append_apply`], which runs the stored redo in
//!   a script: for branches whose replies survive that ([`super::redo::fidelity`]);
//! * on a connection of its own: [`Prepare::append_watching`], then [`ApplyPinned::append`], a
//!   native `MULTI … EXEC` under the WATCH of the record.

use std::sync::OnceLock;

use bytes::BytesMut;
use sha1::{Digest, Sha1};

use super::condition::Condition;
use super::redo::Intent;
use super::{Leave, Millis, Part, Rule, TxnId, names};
use crate::resp::build::{array_header, bulk, command};
use crate::resp::number::Decimal;

pub mod answer;

/// `MULTI`, as it stands on the wire.
pub const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
/// `EXEC`, as it stands on the wire.
pub const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";

/// How many keys one HSET of [`ApplyPinned`] turns settling.
const SETTLING_CHUNK: usize = 1_000;

/// A script with its name.
#[derive(Debug)]
pub struct Script {
    name: &'static str,
    source: &'static str,
    sha1: OnceLock<String>,
}

impl Script {
    const fn new(name: &'static str, source: &'static str) -> Self {
        Self {
            name,
            source,
            sha1: OnceLock::new(),
        }
    }

    /// Its name, for logs and metrics.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its text, as loaded.
    pub fn source(&self) -> &'static str {
        self.source
    }

    /// The SHA-1 of its text in lower-case hex, by which Redis knows it.
    pub fn sha1(&self) -> &str {
        self.sha1.get_or_init(|| {
            let digest = Sha1::digest(self.source.as_bytes());
            digest.iter().map(|byte| format!("{byte:02x}")).collect()
        })
    }

    /// Appends `SCRIPT LOAD`; one reply, the SHA-1.
    pub fn append_load(&self, out: &mut BytesMut) {
        plain(out, &[b"SCRIPT", b"LOAD", self.source.as_bytes()]);
    }

    fn append_call(&self, out: &mut BytesMut, verb: &[u8], id: &TxnId, args: &[&[u8]]) {
        array_header(out, args.len() + 4);
        for part in [verb, self.sha1().as_bytes(), b"1", &names::record(id)] {
            bulk(out, part);
        }
        for arg in args {
            bulk(out, arg);
        }
    }
}

/// See the operation `prepare` in [`super`].
pub static PREPARE: Script = Script::new("prepare", include_str!("prepare.lua"));
/// See the operation `apply` in [`super`].
pub static APPLY: Script = Script::new(
    "apply",
    concat!(
        include_str!("flush.lua"),
        include_str!("apply.lua"),
        include_str!("run.lua")
    ),
);
/// No operation of a transaction: commands over several slots of one shard that take effect only
/// if none of them is settling. See [`append_guarded`].
pub static GUARDED: Script = Script::new(
    "guarded",
    concat!(include_str!("guarded.lua"), include_str!("run.lua")),
);
/// See the operations `abort`, `abort-if-present` and `tombstone` in [`super`].
pub static ABORT: Script = Script::new(
    "abort",
    concat!(
        include_str!("keep.lua"),
        include_str!("abort.lua"),
        include_str!("drop.lua")
    ),
);
/// See the operation `release` in [`super`].
pub static RELEASE: Script = Script::new(
    "release",
    concat!(
        include_str!("keep.lua"),
        include_str!("release.lua"),
        include_str!("drop.lua")
    ),
);
/// See the operation `read` in [`super`].
pub static READ: Script = Script::new("read", include_str!("read.lua"));
/// Counts the keys that are not ours.
pub static COUNT: Script = Script::new("count", include_str!("count.lua"));

/// All scripts: what a connection must have loaded before it is used.
pub static ALL: [&Script; 7] = [&PREPARE, &APPLY, &ABORT, &RELEASE, &READ, &COUNT, &GUARDED];

/// FLUSHALL, FLUSHDB and SWAPDB as they run between MULTI and EXEC, by EVAL: always there, unlike what is
/// called by its SHA-1. Its arguments: the command's.
pub const FLUSH: &str = concat!(
    include_str!("flush.lua"),
    "if ARGV[1] == 'SWAPDB' then return swap(ARGV[2], ARGV[3]) end \
     return flush(ARGV[1] == 'FLUSHALL', ARGV[2])"
);

/// Asks a participant to promise its branch. Sent at most once per id.
#[derive(Debug)]
pub struct Prepare<'a> {
    /// The transaction.
    pub id: &'a TxnId,
    /// How long its locks live, and until its deadline, counted on the shard's clock from when
    /// the prepare runs. At least 1.
    pub ttl_ms: Millis,
    /// Refused when the shard's clock (milliseconds since the Unix epoch) is beyond this.
    pub not_after_ms: Millis,
    /// All participants of the transaction.
    pub participants: &'a [Part],
    /// How it commits.
    pub rule: Rule,
    /// This participant's branch.
    pub intent: &'a Intent,
    /// The keys that the client watches there, as [`super::redo::encode_keys`] writes them, if
    /// the prepare is conditional on that: they are settling from the prepare on. To be sent with
    /// [`Self::append_checked`].
    pub watched: Option<&'a [u8]>,
}

impl Prepare<'_> {
    /// Appends the request; one reply, for [`answer::vote`].
    pub fn append(&self, out: &mut BytesMut) {
        let participants = participants_text(self.participants);
        let (ttl, not_after) = (
            Decimal::of_unsigned(self.ttl_ms),
            Decimal::of_unsigned(self.not_after_ms),
        );
        let decider = match self.rule {
            Rule::Implicit => String::new(),
            Rule::Decider(part) => part.to_string(),
        };
        let mut args = vec![
            self.id.as_str().as_bytes(),
            ttl.as_bytes(),
            not_after.as_bytes(),
            participants.as_bytes(),
            &self.intent.keys,
            &self.intent.redo,
        ];
        if self.watched.is_some() || !decider.is_empty() {
            args.push(decider.as_bytes());
        }
        args.extend(self.watched);
        PREPARE.append_call(out, b"EVALSHA", self.id, &args);
    }

    /// Appends the request, `WATCH record` and a look at the record's state behind the WATCH;
    /// three replies, for [`answer::vote_watching`].
    pub fn append_watching(&self, out: &mut BytesMut) {
        self.append(out);
        append_watch(out, self.id);
    }

    /// The same in a `MULTI … EXEC` of its own, so that it runs only if what the connection
    /// watches already (the client's WATCH) still stands; five replies, for
    /// [`answer::vote_checked`]. EXEC drops the client's WATCH, the locks take its place. The
    /// watched keys may still be written by who takes no locks: see [`Self::watched`].
    pub fn append_checked(&self, out: &mut BytesMut) {
        self.append_in_exec(out);
        append_watch(out, self.id);
    }

    /// The same without watching the record afterwards, for a branch that the script will apply;
    /// three replies, the last for [`answer::vote_in_exec`].
    pub fn append_in_exec(&self, out: &mut BytesMut) {
        out.extend_from_slice(MULTI);
        self.append(out);
        out.extend_from_slice(EXEC);
    }
}

/// How many replies [`Prepare::append_watching`] gets.
pub const VOTE_WATCHING_REPLIES: usize = 3;
/// How many replies [`Prepare::append_checked`] gets.
pub const VOTE_CHECKED_REPLIES: usize = 5;

fn append_watch(out: &mut BytesMut, id: &TxnId) {
    let record = names::record(id);
    plain(out, &[b"WATCH", &record]);
    plain(out, &[b"HGET", &record, b"state"]);
}

/// Appends the request to run the stored redo; one reply, for [`answer::applied`].
pub fn append_apply(out: &mut BytesMut, id: &TxnId) {
    APPLY.append_call(out, b"EVALSHA", id, &[id.as_str().as_bytes()]);
}

/// The same, to be done only if the condition holds. If it does not, the answer is that the record
/// is still `prepared`.
pub fn append_apply_if(out: &mut BytesMut, id: &TxnId, condition: &Condition) {
    let args = [id.as_str().as_bytes(), condition.db(), &condition.packed()];
    APPLY.append_call(out, b"EVALSHA", id, &args);
}

/// Appends a command of a redo in the form in which it can run natively, between MULTI and EXEC:
/// [`APPLY`] does the same when it meets these.
pub fn append_native<'a, I>(out: &mut BytesMut, args: I)
where
    I: IntoIterator<Item = &'a [u8]>,
    I::IntoIter: ExactSizeIterator + Clone,
{
    let args = args.into_iter();
    let name = args.clone().next().unwrap_or_default();
    let is_ours = [FLUSHALL, FLUSHDB, SWAPDB].contains(&name);
    let head: &[&[u8]] = match is_ours {
        true => &[b"EVAL", FLUSH.as_bytes(), b"0"],
        false => &[],
    };
    array_header(out, head.len() + args.len());
    head.iter()
        .copied()
        .chain(args)
        .for_each(|arg| bulk(out, arg));
}

/// The names under which a redo holds what deletes or moves everything: only these spare what is
/// ours.
pub const FLUSHALL: &[u8] = b"FLUSHALL";
/// See [`FLUSHALL`].
pub const FLUSHDB: &[u8] = b"FLUSHDB";
/// See [`FLUSHALL`]. The indexes of the databases are in range, and written as numbers are.
pub const SWAPDB: &[u8] = b"SWAPDB";

/// Appends the request to run an intent's commands at once, unless one of its keys is settling:
/// for what has one participant. One reply, for [`answer::guarded`].
pub fn append_guarded(out: &mut BytesMut, intent: &Intent) {
    let sha1 = GUARDED.sha1().as_bytes();
    plain(out, &[b"EVALSHA", sha1, b"0", &intent.keys, &intent.redo]);
}

/// Runs a branch natively on the connection whose WATCH stands behind the vote.
#[derive(Debug)]
pub struct ApplyPinned<'a> {
    /// The transaction.
    pub id: &'a TxnId,
    /// All keys of the intent.
    pub keys: &'a [&'a [u8]],
    /// The branch's commands as raw RESP, one after the other.
    pub commands: &'a [u8],
    /// How many they are.
    pub commands_len: usize,
}

impl ApplyPinned<'_> {
    /// Appends `MULTI`, the marks, the commands, `EXEC`; [`Self::replies`] replies, for
    /// [`answer::exec`].
    pub fn append(&self, out: &mut BytesMut) {
        let id = self.id.as_str().as_bytes();
        plain(out, &[b"MULTI"]);
        plain(
            out,
            &[b"HSET", &names::record(self.id), b"state", b"applied"],
        );
        for keys in self.keys.chunks(SETTLING_CHUNK) {
            array_header(out, 2 + 2 * keys.len());
            bulk(out, b"HSET");
            bulk(out, names::SETTLING);
            for key in keys {
                bulk(out, key);
                bulk(out, id);
            }
        }
        out.extend_from_slice(self.commands);
        plain(out, &[b"EXEC"]);
    }

    /// How many elements of EXEC's reply come before those of the branch's commands.
    pub fn marks(&self) -> usize {
        1 + self.keys.len().div_ceil(SETTLING_CHUNK)
    }

    /// How many replies the request gets.
    pub fn replies(&self) -> usize {
        2 + self.marks() + self.commands_len
    }
}

/// Aborts a branch: conditional, so it may be sent by anyone and repeated.
#[derive(Debug)]
pub struct Abort<'a> {
    /// The transaction.
    pub id: &'a TxnId,
    /// How long a marker or tombstone stays (0 counts as 1).
    pub retention_ms: Millis,
    /// What stays where it was prepared.
    pub leave: Leave,
    /// Where there is no record: write a tombstone unless the shard's clock is beyond this;
    /// None: write nothing (abort-if-present).
    pub tombstone_until_ms: Option<Millis>,
}

impl Abort<'_> {
    /// Appends the request; one reply, for [`answer::aborted`].
    pub fn append(&self, out: &mut BytesMut) {
        let retention = Decimal::of_unsigned(self.retention_ms.max(1));
        let until = self.tombstone_until_ms.map(Decimal::of_unsigned);
        let leave: &[u8] = match self.leave {
            Leave::Nothing => b"0",
            Leave::Marker => b"1",
        };
        let mut args = vec![self.id.as_str().as_bytes(), retention.as_bytes(), leave];
        args.extend(until.as_ref().map(|until| until.as_bytes()));
        ABORT.append_call(out, b"EVALSHA", self.id, &args);
    }
}

/// Writes a tombstone where there is no record, and changes nothing where there is one.
#[derive(Debug)]
pub struct Tombstone<'a> {
    /// The transaction.
    pub id: &'a TxnId,
    /// How long it stays (0 counts as 1).
    pub retention_ms: Millis,
    /// Refused when the shard's clock (milliseconds since the Unix epoch) is beyond this.
    pub not_after_ms: Millis,
}

impl Tombstone<'_> {
    /// Appends the request; one reply, for [`answer::aborted`].
    pub fn append(&self, out: &mut BytesMut) {
        let retention = Decimal::of_unsigned(self.retention_ms.max(1));
        let until = Decimal::of_unsigned(self.not_after_ms);
        let args = [
            self.id.as_str().as_bytes(),
            retention.as_bytes(),
            b"-",
            until.as_bytes(),
        ];
        ABORT.append_call(out, b"EVALSHA", self.id, &args);
    }
}

/// Releases what a decided transaction still holds on a participant; may be repeated.
#[derive(Debug)]
pub struct Release<'a> {
    /// The transaction.
    pub id: &'a TxnId,
    /// What stays of the record.
    pub leave: Leave,
    /// How long a marker stays (0 counts as 1).
    pub retention_ms: Millis,
    /// The branch's replies, to be kept in the marker: any bytes, given back by
    /// [`append_read_replies`].
    pub replies: Option<&'a [u8]>,
}

impl Release<'_> {
    /// Appends the request; one reply, for [`answer::released`].
    pub fn append(&self, out: &mut BytesMut) {
        let retention = match self.leave {
            Leave::Nothing => Decimal::of_unsigned(0),
            Leave::Marker => Decimal::of_unsigned(self.retention_ms.max(1)),
        };
        let mut args = vec![self.id.as_str().as_bytes(), retention.as_bytes()];
        args.extend(self.replies);
        RELEASE.append_call(out, b"EVALSHA", self.id, &args);
    }
}

/// Appends the request for a record; one reply, for [`answer::record`].
pub fn append_read(out: &mut BytesMut, id: &TxnId) {
    READ.append_call(out, b"EVALSHA_RO", id, &[]);
}

/// Appends the request for the number of keys that are not ours; one reply, an integer.
pub fn append_count(out: &mut BytesMut) {
    let number = Decimal::of_unsigned(names::SINGLE.len() as u64);
    let call: [&[u8]; 3] = [b"EVALSHA_RO", COUNT.sha1().as_bytes(), number.as_bytes()];
    let words: Vec<&[u8]> = call.into_iter().chain(names::SINGLE).collect();
    plain(out, &words);
}

/// Appends the request for what a record promises; one reply, for [`answer::intent`].
pub fn append_read_intent(out: &mut BytesMut, id: &TxnId) {
    plain(
        out,
        &[b"HMGET", &names::record(id), b"state", b"redo", b"keys"],
    );
}

/// Appends the request for the replies a marker keeps; one reply, a bulk or nil.
pub fn append_read_replies(out: &mut BytesMut, id: &TxnId) {
    plain(out, &[b"HGET", &names::record(id), b"replies"]);
}

fn plain(out: &mut BytesMut, args: &[&[u8]]) {
    command(out, args);
}

/// `0/0,2/0`: as records hold it.
fn participants_text(parts: &[Part]) -> String {
    let parts: Vec<String> = parts.iter().map(Part::to_string).collect();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names in the scripts are those of [`names`].
    #[test]
    fn scripts_spell_every_name_right() {
        let known = [
            names::LOCK,
            names::RECORD,
            names::INDEX,
            names::SETTLING,
            names::EPOCH,
            names::MARKERS,
            names::MAP,
            names::LOCK_OF_EVERY_SLOT,
            names::RELEASED,
        ];
        for script in ALL {
            for quoted in script.source().split('\'').filter(|s| s.starts_with("__")) {
                assert!(known.contains(&quoted.as_bytes()), "{quoted}");
            }
        }
    }

    /// I6: FLUSHALL takes nothing of ours; what has a name of its own is named in its script.
    #[test]
    fn every_single_name_outlives_a_flush() {
        for name in names::SINGLE {
            let name = format!("'{}'", name.escape_ascii());
            assert!(FLUSH.contains(&name), "{name}");
        }
    }

    #[test]
    fn a_call_is_one_command_with_the_record_as_its_key() {
        let mut out = BytesMut::new();
        append_apply(&mut out, &TxnId::new("t1"));
        let sha = APPLY.sha1();
        assert_eq!(sha.len(), 40);
        let text = format!(
            "*5\r\n$7\r\nEVALSHA\r\n$40\r\n{sha}\r\n$1\r\n1\r\n\
             $17\r\n__lockstep:txn:t1\r\n$2\r\nt1\r\n"
        );
        assert_eq!(out, text);
    }

    #[test]
    fn a_pinned_apply_counts_its_replies() {
        let keys: Vec<&[u8]> = vec![b"k"; 2_500];
        let apply = ApplyPinned {
            id: &TxnId::new("t1"),
            keys: &keys,
            commands: b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
            commands_len: 1,
        };
        let mut out = BytesMut::new();
        apply.append(&mut out);
        assert_eq!(apply.marks(), 1 + 3);
        let commands = out.windows(2).filter(|w| w == b"\r\n").count();
        // MULTI 3 lines, HSET record 9, HSET settling 1 + 2 * (2 + 2 n), GET 5, EXEC 3.
        assert_eq!(commands, 3 + 9 + (3 * 5 + 4 * 2_500) + 5 + 3);
        assert_eq!(apply.replies(), 1 + 4 + 1 + 1);
    }
}

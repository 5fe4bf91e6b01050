//! FLUSHALL and FLUSHDB: every slot at once, and nothing of ours gone.

use std::collections::BTreeMap;

use bytes::BytesMut;
use lockstep::txn::script::{self, ApplyPinned, answer};
use lockstep::txn::{Applied, Leave, Refusal, Released, State, Vote};

use crate::server::until;
use crate::shard::{HOUR, NEVER, Shard, id, intent};

/// A shard with a marker, a tombstone, a map, and data in two databases.
fn furnished() -> Shard {
    furnish(Shard::start())
}

fn furnish(mut shard: Shard) -> Shard {
    shard.prepare(&id("done"), &intent("a", &["SET a 1"]));
    shard.apply(&id("done"));
    shard.release_with(&id("done"), Leave::Marker, Some(b"+OK\r\n"));
    shard.tombstone(&id("buried"), NEVER);
    shard.text("SET __lockstep:map m");
    shard.text("SET b 1");
    shard.text("SELECT 5");
    shard.text("SET c 1");
    shard.text("SELECT 0");
    shard
}

fn ours(shard: &mut Shard) -> BTreeMap<Vec<u8>, String> {
    let mut all = shard.digest();
    all.retain(|key, _| key.starts_with(b"__lockstep:"));
    all
}

/// Applies t1, which has every slot, with MULTI and EXEC: this command, and it says OK.
fn apply_natively(shard: &mut Shard, words: &[&[u8]]) {
    let mut raw = BytesMut::new();
    script::append_native(&mut raw, words.iter().copied());
    let apply = ApplyPinned {
        id: &id("t1"),
        keys: &[b"*"],
        commands: &raw,
        commands_len: 1,
    };
    let mut out = BytesMut::new();
    apply.append(&mut out);
    shard.client.send(&out);
    let replies = shard.client.replies(apply.replies());
    let exec = answer::exec(replies.last().expect("EXEC's"), apply.marks());
    assert_eq!(exec, answer::Exec::Ran(vec![b"+OK\r\n".as_slice()]));
}

/// I6: what was promised or decided outlives a FLUSHALL, times to live and all.
#[test]
fn a_flush_takes_the_clients_keys_and_nothing_of_ours() {
    for (command, left_in_5) in [("FLUSHALL", 0), ("FLUSHALL ASYNC", 0), ("FLUSHDB SYNC", 1)] {
        let mut shard = furnished();
        shard.prepare(&id("t1"), &intent("*", &["SET x 1", command, "SET y 1"]));
        let mut before = ours(&mut shard);
        assert_eq!(before.len(), 8, "{before:?}");
        let (applied, replies) = shard.apply(&id("t1"));
        assert_eq!(applied, Applied::Now);
        assert_eq!(replies, [b"+OK\r\n", b"+OK\r\n", b"+OK\r\n"]);
        let mut after = ours(&mut shard);
        // What apply itself changes.
        for changed in ["__lockstep:settling", "__lockstep:txn:t1"] {
            before.remove(changed.as_bytes());
            after.remove(changed.as_bytes());
        }
        assert_eq!(after, before, "{command}");
        assert_eq!(shard.text("HGET __lockstep:settling *"), "$2\r\nt1\r\n");
        let record = shard.record(&id("t1")).expect("its record");
        assert_eq!(record.state, State::Applied);
        assert_eq!(shard.text("MGET a b x"), "*3\r\n$-1\r\n$-1\r\n$-1\r\n");
        assert_eq!(shard.text("GET y"), "$1\r\n1\r\n");
        shard.text("SELECT 5");
        assert_eq!(shard.text("DBSIZE"), format!(":{left_in_5}\r\n"));
        shard.text("SELECT 0");
        assert_eq!(shard.release(&id("t1"), Leave::Nothing), Released::Done);
        assert_eq!(
            shard.text("EXISTS __lockstep:lock:* __lockstep:index __lockstep:settling"),
            ":0\r\n"
        );
    }
}

/// I6: the clients' keys change places, and nothing of ours does, on either way.
#[test]
fn a_swap_moves_the_clients_keys_and_nothing_of_ours() {
    for (native, (one, other)) in [(false, ("0", "5")), (true, ("5", "0")), (false, ("5", "7"))] {
        let mut shard = furnished();
        let swap = format!("SWAPDB {one} {other}");
        shard.prepare(&id("t1"), &intent("*", &[&swap]));
        let mut before = ours(&mut shard);
        if native {
            let words: [&[u8]; 3] = [script::SWAPDB, one.as_bytes(), other.as_bytes()];
            apply_natively(&mut shard, &words);
        } else {
            let (applied, replies) = shard.apply(&id("t1"));
            assert_eq!(applied, Applied::Now);
            assert_eq!(replies, [b"+OK\r\n"]);
        }
        let mut after = ours(&mut shard);
        for changed in ["__lockstep:settling", "__lockstep:txn:t1"] {
            before.remove(changed.as_bytes());
            assert!(after.remove(changed.as_bytes()).is_some(), "{changed}");
        }
        assert_eq!(after, before, "{swap}");
        let (here, there) = match [one, other].contains(&"0") {
            true => ("*3\r\n$-1\r\n$-1\r\n$1\r\n1\r\n", ":2\r\n"),
            false => ("*3\r\n$1\r\n1\r\n$1\r\n1\r\n$-1\r\n", ":0\r\n"),
        };
        assert_eq!(shard.text("MGET a b c"), here, "{swap}");
        shard.text("SELECT 5");
        assert_eq!(shard.text("DBSIZE"), there, "{swap}");
        shard.text("SELECT 0");
        assert_eq!(shard.release(&id("t1"), Leave::Nothing), Released::Done);
    }
}

/// The same between MULTI and EXEC, where scripts may have been lost.
#[test]
fn a_flush_runs_natively_without_loaded_scripts() {
    let mut shard = furnished();
    shard.prepare(&id("t1"), &intent("*", &["FLUSHALL"]));
    shard.text("SCRIPT FLUSH");
    let before = ours(&mut shard).len();
    apply_natively(&mut shard, &[script::FLUSHALL]);
    assert_eq!(ours(&mut shard).len(), before + 1, "settling came");
    assert_eq!(shard.text("DBSIZE"), format!(":{}\r\n", before + 1));
}

/// Every slot is held by whoever holds any, and the other way round.
#[test]
fn every_key_conflicts_with_each() {
    let mut shard = Shard::start();
    shard.prepare(&id("t1"), &intent("a", &["SET a 1"]));
    let held = shard.prepare(&id("all"), &intent("*", &["FLUSHALL"])).vote;
    let by = |vote: &Vote| match vote {
        Vote::No(Refusal::Held { owner, .. }) => owner.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(by(&held), "t1");
    assert_eq!(shard.record(&id("all")), None);
    shard.abort(&id("t1"), Leave::Nothing, None);

    // The intention has been left, for others and not for another attempt; both for a moment.
    for keys in ["b", "b c d e"] {
        assert_eq!(
            by(&shard.prepare(&id("t2"), &intent(keys, &[])).vote),
            "all"
        );
    }
    let flush = intent("*", &["FLUSHALL"]);
    assert_eq!(shard.prepare(&id("again"), &flush).vote, Vote::Yes);
    for keys in ["b", "b c d e", "*"] {
        let vote = shard.prepare(&id("t2"), &intent(keys, &[])).vote;
        assert_eq!(by(&vote), "again");
    }
    shard.text("DEL __lockstep:lock:*");
    let vote = shard.prepare(&id("t2"), &intent("b", &[])).vote;
    assert_eq!(by(&vote), "again", "the index outlives the lock");
    shard.abort(&id("again"), Leave::Nothing, None);
    assert_eq!(shard.prepare(&id("t2"), &intent("b", &[])).vote, Vote::Yes);
}

/// P5: nobody waits long for a FLUSHALL that is not tried again.
#[test]
fn an_intention_passes() {
    let mut shard = Shard::start();
    shard.prepare(&id("t1"), &intent("a", &["SET a 1"]));
    shard.prepare(&id("all"), &intent("*", &["FLUSHALL"]));
    until("the intention has passed", || {
        shard.prepare(&id("t2"), &intent("b", &[])).vote == Vote::Yes
    });
    assert_eq!(shard.text("EXISTS __lockstep:lock:*"), ":0\r\n");
}

/// A full server is what FLUSHALL is good for.
#[test]
fn a_full_server_can_be_flushed() {
    let mut shard = furnished();
    shard.text("CONFIG SET maxmemory 1");
    let flush = intent("*", &["FLUSHALL"]);
    assert_eq!(shard.prepare(&id("t1"), &flush).vote, Vote::Yes);
    assert_eq!(shard.apply(&id("t1")).0, Applied::Now);
    assert_eq!(shard.text("EXISTS a b"), ":0\r\n");
    assert_eq!(shard.release(&id("t1"), Leave::Nothing), Released::Done);
    assert_eq!(
        shard.text("HGET __lockstep:txn:done replies"),
        "$5\r\n+OK\r\n\r\n"
    );
}

/// P1: in the AOF it is one step, and leaves there what it leaves in memory; so, too, with a
/// rule to save, which would have FLUSHALL write a snapshot half way.
#[test]
fn a_flush_is_one_step_of_the_aof() {
    let settings = [
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--save",
        "3600 1",
    ];
    let mut shard = furnish(Shard::with(&settings));
    shard.prepare(&id("t1"), &intent("*", &["FLUSHALL", "SET y 1"]));
    assert_eq!(shard.apply(&id("t1")).0, Applied::Now);
    let before = shard.digest();
    shard.text("DEBUG LOADAOF");
    assert_eq!(shard.digest(), before);
    assert!(!shard.server.data().join("dump.rdb").exists());
    let folder = shard.server.data().join("appendonlydir");
    let files = std::fs::read_dir(folder).expect("the AOF");
    let increment = files
        .map(|file| file.expect("a file").path())
        .find(|path| path.to_string_lossy().ends_with(".incr.aof"))
        .expect("what was written");
    let text = std::fs::read(increment).expect("it can be read");
    let text = String::from_utf8_lossy(&text);
    let (before, _) = text.split_once("FLUSHDB").expect("it is there");
    let (_, after) = text.rsplit_once("FLUSHDB").expect("it is there");
    assert_eq!(
        before.matches("\r\nMULTI\r\n").count(),
        before.matches("\r\nEXEC\r\n").count() + 1,
        "it begins inside a transaction"
    );
    let end = after.find("\r\nEXEC\r\n").expect("the end of it");
    assert_eq!(
        after[..end].matches("RESTORE").count(),
        0,
        "database 0 first"
    );
    assert!(!after[..end].contains("\r\nMULTI\r\n"));
}

/// The list of markers is pruned, and goes with the last of them.
#[test]
fn the_list_of_markers_is_bounded() {
    let mut shard = Shard::start();
    for number in 0..50 {
        bury(&mut shard, &format!("t{number}"), 1);
    }
    until("short ones are gone", || {
        shard.text("EXISTS __lockstep:markers") == ":0\r\n"
    });
    bury(&mut shard, "long", HOUR);
    bury(&mut shard, "short", 1);
    let mut more = 0;
    until("the short one is pruned", || {
        more += 1;
        bury(&mut shard, &format!("more{more}"), HOUR);
        shard.text("ZSCORE __lockstep:markers short") == "$-1\r\n"
    });
    assert_eq!(
        shard.text("ZCARD __lockstep:markers"),
        format!(":{}\r\n", 1 + more)
    );
}

fn bury(shard: &mut Shard, txn: &str, retention_ms: u64) {
    let id = &id(txn);
    shard.ask(|out| {
        script::Tombstone {
            id,
            retention_ms,
            not_after_ms: NEVER,
        }
        .append(out)
    });
}

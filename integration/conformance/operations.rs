//! What each script does.

use bytes::BytesMut;
use lockstep::resp::{as_bulk, as_int, elements};
use lockstep::txn::redo::{IntentBuilder, decode, decode_keys, encode_keys};
use lockstep::txn::script::{self, Prepare, answer};
use lockstep::txn::{Aborted, Applied, Leave, Part, Refusal, Released, Rule, State, Vote};

use crate::server::until;
use crate::shard::{HOUR, NEVER, Shard, id, intent, parts};

const CLEAN: [&[u8]; 1] = [b"__lockstep:epoch"];

#[test]
fn prepare_locks_and_records_what_was_promised() {
    let mut shard = Shard::start();
    let branch = intent("a b", &["SET a 1", "GET b"]);
    let before = shard.now();
    let voted = shard.prepare(&id("t1"), &branch);
    let after = shard.now();
    assert_eq!(voted.vote, Vote::Yes);
    let now = voted.now_ms.expect("its clock");
    assert!((before..=after).contains(&now));

    assert_eq!(shard.text("GET __lockstep:lock:a"), "$2\r\nt1\r\n");
    let ttl = as_int(shard.text("PTTL __lockstep:lock:b").as_bytes()).expect("a ttl");
    assert!((1..=HOUR as i64).contains(&ttl));
    assert_eq!(shard.text("HGET __lockstep:index b"), "$2\r\nt1\r\n");
    assert_eq!(shard.text("GET __lockstep:epoch"), "$1\r\n1\r\n");
    assert_eq!(shard.text("EXISTS a __lockstep:settling"), ":0\r\n");
    assert_eq!(shard.text("PTTL __lockstep:txn:t1"), ":-1\r\n");

    let record = shard.record(&id("t1")).expect("a record");
    assert_eq!(record.state, State::Prepared);
    assert_eq!(record.deadline_ms, now + HOUR);
    assert_eq!(record.participants, parts());
    assert_eq!(record.rule, Rule::Implicit);
    let stored = shard.ask(|out| script::append_read_intent(out, &id("t1")));
    let stored = answer::intent(&stored)
        .expect("a reading")
        .expect("a record");
    assert_eq!(stored.redo, branch.redo);
    assert_eq!(decode_keys(stored.keys), Ok(vec![b"a".as_slice(), b"b"]));
    assert_eq!(shard.record(&id("t2")), None);
}

#[test]
fn the_decider_is_recorded() {
    let mut shard = Shard::start();
    let decider = Part { shard: 7, db: 3 };
    let voted = shard.prepare_with(&Prepare {
        id: &id("t1"),
        ttl_ms: HOUR,
        not_after_ms: NEVER,
        participants: &parts(),
        rule: Rule::Decider(decider),
        // Only watched: no commands at all.
        intent: &intent("w", &[]),
        watched: None,
    });
    assert_eq!(voted.vote, Vote::Yes);
    let record = shard.record(&id("t1")).expect("a record");
    assert_eq!(record.rule, Rule::Decider(decider));
    assert_eq!(shard.apply(&id("t1")), (Applied::Now, vec![]));
    assert_eq!(shard.text("HGET __lockstep:settling w"), "$2\r\nt1\r\n");
}

#[test]
fn apply_runs_the_branch_once_and_release_leaves_nothing() {
    let mut shard = Shard::start();
    let branch = intent("n m", &["INCR n", "GET m", "SET m x"]);
    shard.prepare(&id("t1"), &branch);
    let (applied, replies) = shard.apply(&id("t1"));
    assert_eq!(applied, Applied::Now);
    assert_eq!(replies, [&b":1\r\n"[..], b"$-1\r\n", b"+OK\r\n"]);
    assert_eq!(shard.text("HGET __lockstep:settling m"), "$2\r\nt1\r\n");
    assert_eq!(shard.text("PTTL __lockstep:txn:t1"), ":-1\r\n");
    assert_eq!(
        shard.record(&id("t1")).map(|r| r.state),
        Some(State::Applied)
    );

    let again = shard.apply(&id("t1")).0;
    assert_eq!(again, Applied::Not(Some(State::Applied)));
    assert_eq!(shard.text("GET n"), "$1\r\n1\r\n");
    assert_eq!(shard.apply(&id("t9")).0, Applied::Not(None));

    assert_eq!(shard.release(&id("t1"), Leave::Nothing), Released::Done);
    assert_eq!(shard.release(&id("t1"), Leave::Nothing), Released::Done);
    assert_eq!(shard.text("DEL n m"), ":2\r\n");
    assert_eq!(shard.keys(), CLEAN);
}

#[test]
fn a_branch_without_keys_is_prepared_and_applied() {
    let mut shard = Shard::start();
    let branch = intent("", &["ECHO x"]);
    assert_eq!(shard.prepare(&id("t1"), &branch).vote, Vote::Yes);
    let replies = vec![b"$1\r\nx\r\n".to_vec()];
    assert_eq!(shard.apply(&id("t1")), (Applied::Now, replies));
    assert_eq!(shard.release(&id("t1"), Leave::Nothing), Released::Done);
    assert_eq!(shard.keys(), CLEAN);
}

/// P2: what a conditional prepare was conditional on settles until the transaction's end.
#[test]
fn watched_keys_settle_from_a_conditional_prepare_to_the_end() {
    for commits in [true, false] {
        for watched in ["a b", "a b c d e"] {
            let mut shard = Shard::start();
            let words: Vec<&[u8]> = watched.split(' ').map(str::as_bytes).collect();
            let count = words.len();
            let voted = shard.prepare_with(&Prepare {
                id: &id("t1"),
                ttl_ms: HOUR,
                not_after_ms: NEVER,
                participants: &parts(),
                rule: Rule::Implicit,
                intent: &intent(&format!("{watched} z"), &["SET z 1"]),
                watched: Some(&encode_keys(words)),
            });
            assert_eq!(voted.vote, Vote::Yes);
            let settling = shard.text("HLEN __lockstep:settling");
            assert_eq!(settling, format!(":{count}\r\n"));
            if commits {
                assert_eq!(shard.apply(&id("t1")).0, Applied::Now);
                assert_eq!(shard.release(&id("t1"), Leave::Nothing), Released::Done);
                shard.text("DEL z");
            } else {
                assert_eq!(shard.abort(&id("t1"), Leave::Nothing, None), Aborted::Done);
            }
            assert_eq!(shard.keys(), CLEAN);
        }
    }
}

/// I4, I8: a refused prepare leaves no lock, no record, no index entry, not even an epoch.
#[test]
fn a_refused_prepare_changes_nothing() {
    let mut shard = Shard::start();
    shard.prepare(&id("t1"), &intent("a", &["SET a 1"]));
    shard.text("SET __lockstep:lock:locked t0 PX 3600000");
    let before = shard.digest();

    let voted = shard.prepare(&id("t1"), &intent("z", &[]));
    assert_eq!(voted.vote, Vote::No(Refusal::Seen(State::Prepared)));

    for keys in [
        "a",
        "b a",
        "b c d e a",
        "b locked",
        "b c d e locked",
        "locked a",
    ] {
        let voted = shard.prepare(&id("t2"), &intent(keys, &["SET b 1"]));
        let Vote::No(Refusal::Held {
            owner,
            remaining_ms,
        }) = voted.vote
        else {
            panic!("{keys}: {voted:?}");
        };
        // What is indexed is told first.
        let by = if keys.contains('a') { "t1" } else { "t0" };
        assert_eq!(owner, id(by), "{keys}");
        assert!((HOUR - 60_000..=HOUR).contains(&remaining_ms));
    }

    let now = shard.now();
    let late = Prepare {
        id: &id("t2"),
        ttl_ms: HOUR,
        not_after_ms: now - 1,
        participants: &parts(),
        rule: Rule::Implicit,
        intent: &intent("b", &[]),
        watched: None,
    };
    let voted = shard.prepare_with(&late);
    assert_eq!(voted.vote, Vote::No(Refusal::Late));
    assert!(voted.now_ms.expect("its clock") >= now);
    assert_eq!(shard.digest(), before);
}

/// What is indexed stays refused after the lock has expired; the owner is then overdue.
#[test]
fn the_index_outlives_the_locks() {
    let mut shard = Shard::start();
    shard.prepare_with(&Prepare {
        id: &id("t1"),
        ttl_ms: 1,
        not_after_ms: NEVER,
        participants: &parts(),
        rule: Rule::Implicit,
        intent: &intent("a", &["SET a 1"]),
        watched: None,
    });
    until("the lock has expired", || {
        shard.text("EXISTS __lockstep:lock:a") == ":0\r\n"
    });
    let voted = shard.prepare(&id("t2"), &intent("a", &[]));
    let held = Refusal::Held {
        owner: id("t1"),
        remaining_ms: 0,
    };
    assert_eq!(voted.vote, Vote::No(held));
    assert_eq!(shard.apply(&id("t1")).0, Applied::Now);
}

/// A holder without a record (its lock alone, or a damaged index) is told with what the lock
/// still lives, or nothing.
#[test]
fn a_holder_without_a_record_is_told() {
    let mut shard = Shard::start();
    shard.text("HSET __lockstep:index a t0");
    let voted = shard.prepare(&id("t1"), &intent("a", &[]));
    let held = Refusal::Held {
        owner: id("t0"),
        remaining_ms: 0,
    };
    assert_eq!(voted.vote, Vote::No(held));
}

/// Only *another* transaction holds a key: neither a key named twice nor its own old lock does.
#[test]
fn a_transaction_does_not_stand_in_its_own_way() {
    let mut shard = Shard::start();
    shard.text("SET __lockstep:lock:b t1");
    let branch = intent("a b a", &["SET a 1"]);
    assert_eq!(shard.prepare(&id("t1"), &branch).vote, Vote::Yes);
    assert_eq!(shard.apply(&id("t1")).0, Applied::Now);
    assert_eq!(shard.release(&id("t1"), Leave::Nothing), Released::Done);
    assert_eq!(shard.text("DEL a"), ":1\r\n");
    assert_eq!(shard.keys(), CLEAN);
}

#[test]
fn abort_undoes_a_prepare() {
    for leave in [Leave::Nothing, Leave::Marker] {
        let mut shard = Shard::start();
        shard.prepare(&id("t1"), &intent("a b", &["SET a 1"]));
        assert_eq!(shard.abort(&id("t1"), leave, None), Aborted::Done);
        assert_eq!(shard.abort(&id("t1"), leave, None), Aborted::Done);
        let state = shard.record(&id("t1")).map(|r| r.state);
        if leave == Leave::Marker {
            assert_eq!(state, Some(State::Aborted));
            assert_eq!(shard.apply(&id("t1")).0, Applied::Not(state));
            assert!(as_int(shard.text("PTTL __lockstep:txn:t1").as_bytes()) > Some(0));
            assert_eq!(shard.release(&id("t1"), Leave::Nothing), Released::Done);
        } else {
            assert_eq!(state, None);
            assert_eq!(shard.apply(&id("t1")).0, Applied::Not(None));
        }
        assert_eq!(shard.keys(), CLEAN);
    }
}

/// A tombstone keeps a late prepare out; once it may expire the not-after does.
#[test]
fn a_tombstone_refuses_the_late_prepare() {
    let mut shard = Shard::start();
    let now = shard.now();
    for tombstone in [true, false] {
        let txn = id(if tombstone { "t1" } else { "t2" });
        let write = |shard: &mut Shard, until| match tombstone {
            true => shard.tombstone(&txn, until),
            false => shard.abort(&txn, Leave::Nothing, Some(until)),
        };
        assert_eq!(write(&mut shard, now - 1), Aborted::Late);
        assert_eq!(shard.record(&txn), None);
        assert_eq!(write(&mut shard, NEVER), Aborted::Done);
        assert_eq!(write(&mut shard, NEVER), Aborted::Done);
        let record = shard.record(&txn).expect("a tombstone");
        assert_eq!(record.state, State::Aborted);
        assert!(record.participants.is_empty());
        let ttl = as_int(shard.text(&format!("PTTL __lockstep:txn:{txn}")).as_bytes());
        assert!((Some(1)..=Some(HOUR as i64)).contains(&ttl));
        let voted = shard.prepare(&txn, &intent("a", &["SET a 1"]));
        assert_eq!(voted.vote, Vote::No(Refusal::Seen(State::Aborted)));
    }
    assert_eq!(
        shard.text("EXISTS __lockstep:lock:a __lockstep:index"),
        ":0\r\n"
    );
}

/// Abort-if-present writes nothing where there is nothing.
#[test]
fn an_abort_without_tombstone_writes_nothing() {
    let mut shard = Shard::start();
    assert_eq!(shard.abort(&id("t1"), Leave::Marker, None), Aborted::Done);
    assert!(shard.keys().is_empty());
}

/// I1, I2: what is applied is never aborted; a tombstone never replaces a record.
#[test]
fn what_is_decided_stays() {
    let mut shard = Shard::start();
    shard.prepare(&id("t1"), &intent("a", &["SET a 1"]));
    let prepared = shard.digest();
    assert_eq!(shard.tombstone(&id("t1"), NEVER), Aborted::StillPrepared);
    assert_eq!(
        shard.release(&id("t1"), Leave::Nothing),
        Released::StillPrepared
    );
    assert_eq!(shard.digest(), prepared);

    shard.apply(&id("t1"));
    let applied = shard.digest();
    assert_eq!(
        shard.abort(&id("t1"), Leave::Nothing, Some(NEVER)),
        Aborted::Applied
    );
    assert_eq!(shard.tombstone(&id("t1"), NEVER), Aborted::Applied);
    let voted = shard.prepare(&id("t1"), &intent("b", &[]));
    assert_eq!(voted.vote, Vote::No(Refusal::Seen(State::Applied)));
    assert_eq!(shard.digest(), applied);
}

/// A marker keeps the state and the replies, and nothing else of size; its life begins with the
/// release.
#[test]
fn a_marker_tells_what_became_of_it() {
    let mut shard = Shard::start();
    shard.prepare(&id("t1"), &intent("a", &["SET a 1"]));
    shard.apply(&id("t1"));
    let kept = b"\0replies\xff";
    let released = shard.release_with(&id("t1"), Leave::Marker, Some(kept));
    assert_eq!(released, Released::Done);
    assert_eq!(
        shard.record(&id("t1")).map(|r| r.state),
        Some(State::Applied)
    );
    assert_eq!(shard.text("HEXISTS __lockstep:txn:t1 redo"), ":0\r\n");
    let replies = shard.ask(|out| script::append_read_replies(out, &id("t1")));
    assert_eq!(as_bulk(&replies), Some(kept.as_slice()));
    let ttl = as_int(shard.text("PTTL __lockstep:txn:t1").as_bytes());
    assert!((Some(1)..=Some(HOUR as i64)).contains(&ttl));
    // A second release, without replies, keeps them.
    assert_eq!(shard.release(&id("t1"), Leave::Marker), Released::Done);
    let replies = shard.ask(|out| script::append_read_replies(out, &id("t1")));
    assert_eq!(as_bulk(&replies), Some(kept.as_slice()));
    assert_eq!(
        shard.text("EXISTS __lockstep:index __lockstep:settling"),
        ":0\r\n"
    );
}

/// Who waits for a key is woken when it becomes free, by release and by abort, once.
#[test]
fn the_end_is_announced_once() {
    let mut shard = Shard::start();
    let mut waiter = shard.server.client();
    waiter.call(&["PSUBSCRIBE", "__lockstep:released:*"]);
    shard.prepare(&id("t1"), &intent("a", &["SET a 1"]));
    shard.apply(&id("t1"));
    shard.release(&id("t1"), Leave::Marker);
    shard.release(&id("t1"), Leave::Nothing);
    shard.prepare(&id("t2"), &intent("a b c d e", &["SET a 1"]));
    shard.abort(&id("t2"), Leave::Nothing, None);
    // Nobody can wait for what holds nothing.
    shard.tombstone(&id("t3"), NEVER);
    shard.prepare(&id("t4"), &intent("", &["ECHO x"]));
    shard.apply(&id("t4"));
    shard.release(&id("t4"), Leave::Nothing);
    shard.text("PUBLISH __lockstep:released:end x");
    let mut channels = waiter.replies(3).into_iter().map(|message| {
        let channel = elements(&message).nth(2).and_then(as_bulk);
        String::from_utf8_lossy(channel.unwrap_or_default()).into_owned()
    });
    assert_eq!(channels.next().as_deref(), Some("__lockstep:released:t1"));
    assert_eq!(channels.next().as_deref(), Some("__lockstep:released:t2"));
    assert_eq!(channels.next().as_deref(), Some("__lockstep:released:end"));
}

/// Thousands of keys pass through Lua's limits, in every script.
#[test]
fn five_thousand_keys() {
    let mut shard = Shard::start();
    let keys: Vec<Vec<u8>> = (0..5_000)
        .map(|i| format!("key:{i}").into_bytes())
        .collect();
    let mut builder = IntentBuilder::new();
    for key in &keys {
        builder.command([b"SET".as_slice(), key, b"x"]);
    }
    let branch = builder.finish(keys.iter().map(Vec::as_slice).collect::<Vec<_>>());

    assert_eq!(shard.prepare(&id("t1"), &branch).vote, Vote::Yes);
    assert_eq!(shard.text("HLEN __lockstep:index"), ":5000\r\n");
    let last = encode_keys([b"key:4999".as_slice()]);
    let second = lockstep::txn::redo::Intent {
        keys: last,
        ..intent("", &[])
    };
    let voted = shard.prepare(&id("t2"), &second);
    assert!(matches!(voted.vote, Vote::No(Refusal::Held { .. })));
    assert_eq!(shard.abort(&id("t1"), Leave::Nothing, None), Aborted::Done);
    assert_eq!(shard.keys(), CLEAN);

    assert_eq!(shard.prepare(&id("t3"), &branch).vote, Vote::Yes);
    let (applied, replies) = shard.apply(&id("t3"));
    assert_eq!(applied, Applied::Now);
    assert!(replies.len() == 5_000 && replies.iter().all(|reply| reply == b"+OK\r\n"));
    assert_eq!(shard.text("HLEN __lockstep:settling"), ":5000\r\n");
    assert_eq!(shard.release(&id("t3"), Leave::Nothing), Released::Done);
    assert_eq!(shard.text("DBSIZE"), ":5001\r\n");

    // All held but through its lock alone, at the very end: everything is undone.
    shard.text("FLUSHALL");
    shard.text("SET __lockstep:lock:key:4999 t0");
    let voted = shard.prepare(&id("t4"), &branch);
    let held = Refusal::Held {
        owner: id("t0"),
        remaining_ms: 0,
    };
    assert_eq!(voted.vote, Vote::No(held));
    assert_eq!(shard.text("DBSIZE"), ":1\r\n");
}

#[test]
fn keys_and_arguments_are_binary() {
    let mut shard = Shard::start();
    let all: Vec<u8> = (0..=255).collect();
    let keys: [&[u8]; 4] = [b"", b"\r\n\0 x", &all, b"\xff\xfe"];
    let mut builder = IntentBuilder::new();
    for key in keys {
        builder.command([b"SET".as_slice(), key, &all]);
        builder.command([b"GET".as_slice(), key]);
    }
    let branch = builder.finish(keys);
    assert_eq!(decode(&branch.redo).map(|commands| commands.len()), Ok(8));
    assert_eq!(shard.prepare(&id("t1"), &branch).vote, Vote::Yes);
    let (_, replies) = shard.apply(&id("t1"));
    for pair in replies.chunks(2) {
        assert_eq!(pair[0], b"+OK\r\n");
        assert_eq!(as_bulk(&pair[1]), Some(all.as_slice()));
    }
    assert_eq!(
        as_bulk(&shard.client.call(&[b"GET", keys[2]])),
        Some(all.as_slice())
    );
    assert_eq!(shard.release(&id("t1"), Leave::Nothing), Released::Done);
    assert_eq!(shard.text("DBSIZE"), ":5\r\n");
}

/// A server that lost its scripts proves that nothing was done; loading heals it.
#[test]
fn a_lost_script_is_told_from_anything_else() {
    let mut shard = Shard::start();
    shard.text("SCRIPT FLUSH");
    let branch = intent("a", &["SET a 1"]);
    let participants = parts();
    let (t1, mut out) = (id("t1"), BytesMut::new());
    let prepare = Prepare {
        id: &t1,
        ttl_ms: HOUR,
        not_after_ms: NEVER,
        participants: &participants,
        rule: Rule::Implicit,
        intent: &branch,
        watched: None,
    };
    prepare.append(&mut out);
    shard.client.send(&out);
    let reply = shard.client.reply();
    assert!(answer::is_noscript(&reply) && answer::proves_nothing_done(&reply));
    assert!(matches!(
        answer::vote(&reply).vote,
        Vote::No(Refusal::Refused(_))
    ));
    shard.ask(|out| script::PREPARE.append_load(out));
    assert_eq!(shard.prepare_with(&prepare).vote, Vote::Yes);
    assert_eq!(shard.apply(&t1).0, Applied::Refused);
}

/// I2: a redo that a script cannot run is refused before anything is marked.
#[test]
fn a_command_too_long_for_lua_is_refused_whole() {
    let mut shard = Shard::start();
    let mut builder = IntentBuilder::new();
    builder.command([b"SET".as_slice(), b"a", b"1"]);
    builder.command(vec![b"DEL".as_slice(); 9_000]);
    let branch = builder.finish([b"a".as_slice()]);
    shard.prepare(&id("t1"), &branch);
    let before = shard.digest();
    assert_eq!(shard.apply(&id("t1")).0, Applied::Refused);
    assert_eq!(shard.digest(), before);
}

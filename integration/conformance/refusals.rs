//! What a server refuses it refuses whole: nothing of it happens, and it can be sent again.

use bytes::BytesMut;
use lockstep::txn::script::answer;
use lockstep::txn::{Aborted, Applied, Leave, Refusal, Released, State, Vote};

use crate::server::until;
use crate::shard::{NEVER, Shard, id, intent};

fn refused(vote: &Vote, code: &str) -> bool {
    matches!(vote, Vote::No(Refusal::Refused(text)) if text.starts_with(code))
}

/// One transaction prepared, one applied.
fn shard_with_both() -> Shard {
    let mut shard = Shard::start();
    shard.prepare(&id("p"), &intent("a", &["SET a 1"]));
    shard.prepare(&id("q"), &intent("b", &["SET b 1"]));
    shard.apply(&id("q"));
    shard
}

/// While `code` is answered to writes, every operation is refused whole; afterwards all pass.
fn every_operation_is_refused_whole(shard: &mut Shard, code: &str, lift: &str) {
    let before = shard.digest();
    let voted = shard.prepare(&id("t"), &intent("c d e f g", &["SET c 1"]));
    assert!(refused(&voted.vote, code), "{voted:?}");
    assert_eq!(shard.apply(&id("p")).0, Applied::Refused);
    assert_eq!(
        shard.abort(&id("p"), Leave::Nothing, None),
        Aborted::Unknown
    );
    assert_eq!(shard.abort(&id("p"), Leave::Marker, None), Aborted::Unknown);
    assert_eq!(shard.tombstone(&id("t"), NEVER), Aborted::Unknown);
    assert_eq!(shard.release(&id("q"), Leave::Marker), Released::Unknown);
    assert_eq!(shard.release(&id("q"), Leave::Nothing), Released::Unknown);
    assert_eq!(shard.digest(), before);
    // Reading, and what writes nothing, is not refused.
    assert_eq!(
        shard.record(&id("p")).map(|r| r.state),
        Some(State::Prepared)
    );
    assert_eq!(shard.apply(&id("q")).0, Applied::Not(Some(State::Applied)));
    assert_eq!(
        shard.abort(&id("q"), Leave::Nothing, None),
        Aborted::Applied
    );

    assert_eq!(shard.text(lift), "+OK\r\n");
    assert_eq!(shard.apply(&id("p")).0, Applied::Now);
    assert_eq!(shard.release(&id("q"), Leave::Nothing), Released::Done);
    assert_eq!(shard.tombstone(&id("t"), NEVER), Aborted::Done);
}

#[test]
fn a_replica_refuses_whole() {
    let mut shard = shard_with_both();
    assert_eq!(shard.text("REPLICAOF 127.0.0.1 1"), "+OK\r\n");
    every_operation_is_refused_whole(&mut shard, "READONLY ", "REPLICAOF NO ONE");
}

#[test]
fn a_server_without_its_replicas_refuses_whole() {
    let mut shard = shard_with_both();
    shard.text("CONFIG SET min-replicas-to-write 1");
    let lift = "CONFIG SET min-replicas-to-write 0";
    every_operation_is_refused_whole(&mut shard, "NOREPLICAS ", lift);
}

#[test]
fn a_server_that_cannot_persist_refuses_whole() {
    let mut shard = shard_with_both();
    shard.client.call(&["CONFIG", "SET", "save", "3600 1"]);
    std::fs::remove_dir_all(shard.server.data()).expect("its folder goes");
    shard.text("BGSAVE");
    until("the save has failed", || {
        shard
            .text("INFO persistence")
            .contains("rdb_last_bgsave_status:err")
    });
    let lift = "CONFIG SET stop-writes-on-bgsave-error no";
    every_operation_is_refused_whole(&mut shard, "MISCONF ", lift);
}

/// A full server makes no new promise, but keeps every old one and lets go of what it can.
#[test]
fn a_full_server_refuses_the_vote_only() {
    let mut shard = shard_with_both();
    shard.prepare(&id("r"), &intent("x y z u v", &["SET x 1"]));
    shard.prepare(&id("s"), &intent("w", &["SET w 1"]));
    shard.text("CONFIG SET maxmemory 1");
    let before = shard.digest();
    let empty = shard.prepare(&id("t"), &intent("", &[]));
    assert!(refused(&empty.vote, "OOM "), "{empty:?}");
    let voted = shard.prepare(&id("t"), &intent("c d e f g", &["SET c 1"]));
    assert!(refused(&voted.vote, "OOM "), "{voted:?}");
    assert_eq!(shard.digest(), before);

    let ok = vec![b"+OK\r\n".to_vec()];
    assert_eq!(shard.apply(&id("p")), (Applied::Now, ok));
    assert_eq!(shard.text("HEXISTS __lockstep:settling a"), ":1\r\n");
    assert_eq!(shard.abort(&id("r"), Leave::Marker, None), Aborted::Done);
    assert_eq!(shard.abort(&id("s"), Leave::Nothing, None), Aborted::Done);
    assert_eq!(shard.tombstone(&id("t"), NEVER), Aborted::Done);
    assert_eq!(
        shard.abort(&id("u"), Leave::Marker, Some(NEVER)),
        Aborted::Done
    );
    let released = shard.release_with(&id("q"), Leave::Marker, Some(b"replies"));
    assert_eq!(released, Released::Done);
    assert_eq!(shard.release(&id("p"), Leave::Nothing), Released::Done);
    assert_eq!(
        shard.text("EXISTS __lockstep:index __lockstep:settling"),
        ":0\r\n"
    );
    assert_eq!(shard.text("GET a"), "$1\r\n1\r\n");
}

/// A server busy with somebody's endless script has done nothing of ours.
#[test]
fn a_busy_server_refuses_whole() {
    let mut shard = shard_with_both();
    shard.text("CONFIG SET busy-reply-threshold 1");
    let mut endless = shard.server.client();
    let mut out = BytesMut::new();
    lockstep::resp::build::command(&mut out, ["EVAL", "while true do end", "0"]);
    endless.send(&out);
    until("the server is busy", || {
        shard.text("PING").starts_with("-BUSY")
    });
    let voted = shard.prepare(&id("t"), &intent("c", &["SET c 1"]));
    assert!(refused(&voted.vote, "BUSY "), "{voted:?}");
    assert_eq!(shard.apply(&id("p")).0, Applied::Refused);
    shard.text("SCRIPT KILL");
    until("it is no longer", || shard.text("PING") == "+PONG\r\n");
    assert_eq!(shard.record(&id("t")), None);
    assert_eq!(shard.apply(&id("p")).0, Applied::Now);
}

#[test]
fn a_stranger_is_refused() {
    let mut shard = shard_with_both();
    shard.text("CONFIG SET requirepass secret");
    shard.client = shard.server.client();
    let voted = shard.prepare(&id("t"), &intent("c", &["SET c 1"]));
    assert!(refused(&voted.vote, "NOAUTH "), "{voted:?}");
    assert_eq!(shard.apply(&id("p")).0, Applied::Refused);
}

/// Rights that end in the middle of the script prove nothing: that is no No.
#[test]
fn a_denied_command_inside_the_script_is_not_taken_for_a_no() {
    let mut shard = shard_with_both();
    shard.text("ACL SETUSER half on nopass ~* &* +@all -incr");
    shard.text("AUTH half x");
    let frame = shard.ask(|out| {
        let participants = [];
        lockstep::txn::script::Prepare {
            id: &id("t"),
            ttl_ms: 1,
            not_after_ms: NEVER,
            participants: &participants,
            rule: lockstep::txn::Rule::Implicit,
            intent: &intent("c", &["SET c 1"]),
            watched: None,
        }
        .append(out);
    });
    assert!(!answer::proves_nothing_done(&frame));
    assert_eq!(answer::vote(&frame).vote, Vote::Unknown);
    assert_eq!(shard.record(&id("t")), None);
}

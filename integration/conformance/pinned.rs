//! Voting and applying on a connection of its own, under the WATCH of the record.

use bytes::BytesMut;
use lockstep::resp::build;
use lockstep::txn::redo::Intent;
use lockstep::txn::script::answer::{self, Exec};
use lockstep::txn::script::{ApplyPinned, Prepare};
use lockstep::txn::{Applied, Refusal, Rule, State, TxnId, Vote};

use crate::server::Client;
use crate::shard::{HOUR, NEVER, Shard, id, intent, parts};

/// Votes on `client` in the way that `append` writes, for `replies` replies.
fn votes(
    client: &mut Client,
    id: &TxnId,
    intent: &Intent,
    append: impl FnOnce(&Prepare<'_>, &mut BytesMut),
    replies: usize,
) -> Vec<Vec<u8>> {
    let participants = parts();
    let prepare = Prepare {
        id,
        ttl_ms: HOUR,
        not_after_ms: NEVER,
        participants: &participants,
        rule: Rule::Implicit,
        intent,
        watched: None,
    };
    let mut out = BytesMut::new();
    append(&prepare, &mut out);
    client.send(&out);
    client.replies(replies)
}

fn watching(client: &mut Client, id: &TxnId, intent: &Intent) -> Vote {
    let replies = votes(client, id, intent, |p, out| p.append_watching(out), 3);
    answer::vote_watching([&replies[0], &replies[1], &replies[2]]).vote
}

fn checked(client: &mut Client, id: &TxnId, intent: &Intent) -> Option<Vote> {
    let replies = votes(client, id, intent, |p, out| p.append_checked(out), 5);
    let [a, b, c, d, e] = &replies[..] else {
        panic!("five replies");
    };
    answer::vote_checked([a, b, c, d, e]).map(|voted| voted.vote)
}

/// Applies natively; the frame of EXEC and the number of marks in it.
fn exec(client: &mut Client, id: &TxnId, keys: &[&[u8]], commands: &[&str]) -> (Vec<u8>, usize) {
    let mut raw = BytesMut::new();
    for command in commands {
        build::command(&mut raw, command.split(' ').collect::<Vec<_>>());
    }
    let apply = ApplyPinned {
        id,
        keys,
        commands: &raw,
        commands_len: commands.len(),
    };
    let mut out = BytesMut::new();
    apply.append(&mut out);
    client.send(&out);
    let replies = client.replies(apply.replies());
    (
        replies.into_iter().last().unwrap_or_default(),
        apply.marks(),
    )
}

/// P3: replies that Lua cannot carry come out natively; the marks are those of the script.
#[test]
fn a_branch_runs_natively_under_the_watch() {
    let mut shard = Shard::start();
    let mut client = shard.server.client();
    shard.text("RPUSH l 1 2");
    let commands = [
        "LPOP none 2",
        "HSET h f v",
        "HGETALL h",
        "LPOP h",
        "LPOP l 2",
    ];
    let branch = intent("none h l", &commands);
    assert_eq!(watching(&mut client, &id("t1"), &branch), Vote::Yes);
    let keys: [&[u8]; 3] = [b"none", b"h", b"l"];
    let (frame, marks) = exec(&mut client, &id("t1"), &keys, &commands);
    let wrong = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";
    let expected: [&[u8]; 5] = [
        b"*-1\r\n",
        b":1\r\n",
        b"*2\r\n$1\r\nf\r\n$1\r\nv\r\n",
        wrong,
        b"*2\r\n$1\r\n1\r\n$1\r\n2\r\n",
    ];
    assert_eq!(answer::exec(&frame, marks), Exec::Ran(expected.to_vec()));
    assert_eq!(
        shard.record(&id("t1")).map(|r| r.state),
        Some(State::Applied)
    );
    assert_eq!(shard.text("HLEN __lockstep:settling"), ":3\r\n");
    assert_eq!(shard.apply(&id("t1")).0, Applied::Not(Some(State::Applied)));
}

/// I2: somebody settles the transaction between vote and EXEC.
#[test]
fn a_settled_transaction_is_not_applied_again() {
    let mut shard = Shard::start();
    let mut client = shard.server.client();
    let branch = intent("n", &["INCR n"]);
    assert_eq!(watching(&mut client, &id("t1"), &branch), Vote::Yes);
    assert_eq!(shard.apply(&id("t1")).0, Applied::Now);
    let (frame, marks) = exec(&mut client, &id("t1"), &[b"n"], &["INCR n"]);
    assert_eq!(answer::exec(&frame, marks), Exec::Broken);
    assert_eq!(shard.text("GET n"), "$1\r\n1\r\n");
}

/// I2: somebody settles it between the prepare and the WATCH, which then watches the outcome.
#[test]
fn a_transaction_settled_before_the_watch_is_no_yes() {
    let mut shard = Shard::start();
    let mut client = shard.server.client();
    let branch = intent("n", &["INCR n"]);
    let prepare = votes(&mut client, &id("t1"), &branch, |p, out| p.append(out), 1);
    assert_eq!(shard.apply(&id("t1")).0, Applied::Now);
    let watch = client.call(&["WATCH", "__lockstep:txn:t1"]);
    let state = client.call(&["HGET", "__lockstep:txn:t1", "state"]);
    assert_eq!(
        answer::vote_watching([&prepare[0], &watch, &state]).vote,
        Vote::Unknown
    );
}

/// The client's WATCH is checked in the step that locks.
#[test]
fn a_broken_watch_prepares_nothing() {
    let mut shard = Shard::start();
    let mut client = shard.server.client();
    let branch = intent("w", &["SET w 1"]);
    client.call(&["WATCH", "w"]);
    shard.text("SET w 0");
    let before = shard.digest();
    assert_eq!(checked(&mut client, &id("t1"), &branch), None);
    assert_eq!(shard.digest(), before);

    client.call(&["UNWATCH"]);
    client.call(&["WATCH", "w"]);
    assert_eq!(checked(&mut client, &id("t2"), &branch), Some(Vote::Yes));
    let (frame, marks) = exec(&mut client, &id("t2"), &[b"w"], &["SET w 1"]);
    assert_eq!(
        answer::exec(&frame, marks),
        Exec::Ran(vec![b"+OK\r\n".as_slice()])
    );

    shard.text("SCRIPT FLUSH");
    let vote = checked(&mut client, &id("t3"), &branch);
    assert!(
        matches!(vote, Some(Vote::No(Refusal::Refused(_)))),
        "{vote:?}"
    );
}

/// The marks of thousands of keys are counted right.
#[test]
fn many_keys_are_marked() {
    let mut shard = Shard::start();
    let mut client = shard.server.client();
    let names: Vec<String> = (0..2_500).map(|i| format!("k{i}")).collect();
    let branch = intent(&names.join(" "), &["SET k0 x"]);
    assert_eq!(watching(&mut client, &id("t1"), &branch), Vote::Yes);
    let keys: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
    let (frame, marks) = exec(&mut client, &id("t1"), &keys, &["SET k0 x"]);
    assert_eq!(
        answer::exec(&frame, marks),
        Exec::Ran(vec![b"+OK\r\n".as_slice()])
    );
    assert_eq!(shard.text("HLEN __lockstep:settling"), ":2500\r\n");
}

/// A full server refuses the native apply as a whole; the stored redo still runs.
#[test]
fn a_refused_exec_is_applied_from_the_redo() {
    let mut shard = Shard::start();
    let mut client = shard.server.client();
    let branch = intent("a", &["SET a 1", "DEL a"]);
    assert_eq!(watching(&mut client, &id("t1"), &branch), Vote::Yes);
    shard.text("CONFIG SET maxmemory 1");
    let before = shard.digest();
    let (frame, marks) = exec(&mut client, &id("t1"), &[b"a"], &["SET a 1", "DEL a"]);
    let exec = answer::exec(&frame, marks);
    assert!(matches!(exec, Exec::Refused(_)), "{exec:?}");
    assert_eq!(shard.digest(), before);
    let replies = vec![b"+OK\r\n".to_vec(), b":1\r\n".to_vec()];
    assert_eq!(shard.apply(&id("t1")), (Applied::Now, replies));
}

//! Applying on a condition, and settling from a prepare that has a decider.

use lockstep::txn::condition::Condition;
use lockstep::txn::redo::encode_keys;
use lockstep::txn::script::{self, Prepare, answer};
use lockstep::txn::{Aborted, Applied, Leave, Rule, State, Vote};

use crate::shard::{HOUR, NEVER, Shard, id, intent, parts};

fn apply_if(shard: &mut Shard, condition: &Condition) -> Applied {
    let frame = shard.ask(|out| script::append_apply_if(out, &id("t1"), condition));
    answer::applied(&frame).applied
}

/// P1: what was read is looked at in the step that takes it, in its own database, and an answer
/// that is another, nil or an error is none.
#[test]
fn a_branch_is_applied_only_if_its_condition_holds() {
    let mut shard = Shard::start();
    for line in ["SELECT 3", "RPUSH l false nil 7", "SET s x", "SELECT 0"] {
        shard.text(line);
    }
    let branch = intent("1", &["SELECT 3", "LPOP l", "SELECT 0"]);
    assert_eq!(shard.prepare(&id("t1"), &branch).vote, Vote::Yes);
    let of = |db| Condition::new(db);
    let untrue = [
        of(3).and(&[b"LINDEX", b"l", b"0"], &[b"nil"]),
        of(3).and(&[b"LINDEX", b"l", b"9"], &[b"false", b"nil", b""]),
        of(3).and(&[b"LINDEX", b"s", b"0"], &[b"false", b"nil", b""]),
        of(3).and(&[b"LLEN", b"l"], &[b"2", b"30"]),
        of(0).and(&[b"LINDEX", b"l", b"0"], &[b"false"]),
        of(3)
            .and(&[b"LINDEX", b"l", b"0"], &[b"false"])
            .and(&[b"TYPE", b"s"], &[b"list", b"none"]),
    ];
    for condition in &untrue {
        let applied = apply_if(&mut shard, condition);
        assert_eq!(
            applied,
            Applied::Not(Some(State::Prepared)),
            "{condition:?}"
        );
    }
    let holds = of(3)
        .and(&[b"LINDEX", b"l", b"0"], &[b"false"])
        .and(&[b"LLEN", b"l"], &[b"2", b"3"])
        .and(&[b"EXISTS", b"none"], &[b"0"])
        .and(&[b"TYPE", b"s"], &[b"list", b"string"]);
    assert_eq!(apply_if(&mut shard, &holds), Applied::Now);
    assert_eq!(shard.text("LLEN l"), ":0\r\n");
    shard.text("SELECT 3");
    assert_eq!(shard.text("LLEN l"), ":2\r\n");
    shard.text("SELECT 0");
    assert_eq!(
        apply_if(&mut shard, &holds),
        Applied::Not(Some(State::Applied))
    );
}

/// P2: what settles from the prepare on settles no longer when that is aborted, whatever the rule.
#[test]
fn a_prepare_with_a_decider_may_settle_at_once() {
    for leave in [Leave::Nothing, Leave::Marker] {
        let mut shard = Shard::start();
        let branch = intent("1 2", &["SET k v"]);
        let watched = encode_keys([&b"1"[..]]);
        let voted = shard.prepare_with(&Prepare {
            id: &id("t1"),
            ttl_ms: HOUR,
            not_after_ms: NEVER,
            participants: &parts(),
            rule: Rule::Decider(parts()[0]),
            intent: &branch,
            watched: Some(&watched),
        });
        assert_eq!(voted.vote, Vote::Yes);
        assert_eq!(shard.text("HKEYS __lockstep:settling"), "*1\r\n$1\r\n1\r\n");
        assert_eq!(shard.abort(&id("t1"), leave, None), Aborted::Done);
        assert_eq!(shard.text("EXISTS __lockstep:settling"), ":0\r\n");
    }
}

//! `lockstep txn resolve --forget`: only what no record accounts for goes, and only of this id.

use crate::plant::{Plan, Shards, key};
use crate::support::Value;

const FORGET: [&str; 4] = ["txn", "resolve", "b0-1", "--forget"];

/// Index, settling and lock entries of a transaction on two shards, whose records are gone.
fn orphaned() -> Shards {
    let shards = Shards::start(2);
    shards.prepare_all(Plan::early("b0-1", &[0, 1]));
    shards.apply("b0-1", 1);
    shards.lose_record("b0-1", 0);
    shards.lose_record("b0-1", 1);
    shards
}

#[test]
fn what_has_no_record_is_dropped_and_named() {
    let shards = orphaned();
    shards.prepare_all(Plan::early("b0-2", &[0, 1]));
    let all = "2 index entries, 1 settling entry, 2 locks";
    let before = shards.picture();
    let dry = [&FORGET[..], &["--dry-run"]].concat();
    let said = shards.lockstep(&dry);
    said.expect(
        0,
        &[
            "would drop b0-1:0 (1 index entry, 1 lock)",
            &format!("would drop {all}"),
        ],
    );
    assert_eq!(shards.picture(), before);

    shards
        .lockstep(&FORGET)
        .expect(0, &["drop b0-1:1", &format!("dropped {all}")]);
    for shard in 0..2u16 {
        let mut client = shards.client(usize::from(shard));
        let index = client.value(&["HGETALL", "__lockstep:index"]);
        assert_eq!(
            index.elements().len(),
            2,
            "only that of b0-2 is left: {index}"
        );
        let lock = |id: &str| format!("__lockstep:lock:{}", key(id, shard));
        assert_eq!(client.value(&["EXISTS", &lock("b0-1")]), Value::Integer(0));
        assert_eq!(client.value(&["EXISTS", &lock("b0-2")]), Value::Integer(1));
        assert_eq!(
            client.value(&["EXISTS", "__lockstep:settling"]),
            Value::Integer(0)
        );
    }
    shards
        .lockstep(&FORGET)
        .expect(0, &["nothing is left of it"]);
}

/// What was applied stays applied: only what holds keys goes.
#[test]
fn data_is_not_touched() {
    let shards = orphaned();
    shards.lockstep(&FORGET).expect(0, &["dropped"]);
    shards.assert_applied("b0-1", &[1]);
}

/// P1: a promise is not forgotten, on whichever shard it stands.
#[test]
fn what_has_a_record_anywhere_is_not_forgotten() {
    let shards = Shards::start(2);
    shards.prepare_all(Plan::overdue("b0-1", &[0, 1]));
    shards.lose_record("b0-1", 0);
    let before = shards.picture();
    shards
        .lockstep(&FORGET)
        .expect(1, &["has a record of it, prepared"]);
    shards.apply("b0-1", 1);
    shards
        .lockstep(&FORGET)
        .expect(1, &["has a record of it, applied"]);
    shards
        .lockstep(&["txn", "resolve", "b0-1"])
        .expect(0, &["committed"]);
    assert_ne!(shards.picture(), before);
}

/// A marker is a decision; entries beside it are left over all the same.
#[test]
fn entries_beside_a_marker_are_left_over() {
    let shards = Shards::start(2);
    shards.prepare_all(Plan::overdue("b0-1", &[0, 1]));
    for shard in 0..2 {
        shards.apply("b0-1", shard);
        shards.release("b0-1", shard);
    }
    let mut client = shards.client(0);
    client.value(&["HSET", "__lockstep:index", "stray", "b0-1"]);
    shards.lockstep(&["txn", "list"]).expect(
        0,
        &["b0-1", "orphaned", "applied, released, but 1 index entry"],
    );
    shards
        .lockstep(&FORGET)
        .expect(0, &["dropped 1 index entry"]);
    shards.assert_settled();
    // The decision itself is still known.
    shards
        .lockstep(&["txn", "status", "b0-1"])
        .expect(0, &["committed"]);
}

//! `LOCKSTEP TXN STATUS` and `lockstep txn status`: P4, the fate of a transaction can be asked
//! later, from any proxy; and absence is never an answer.

use crate::plant::{Plan, Shards};
use crate::support::Client;

fn status(client: &mut Client, id: &str) -> String {
    let reply = client.value(&["LOCKSTEP", "TXN", "STATUS", id]);
    match reply.error() {
        Some(error) => error,
        None => String::from_utf8_lossy(reply.bytes().expect("a bulk")).into_owned(),
    }
}

#[test]
fn every_fate_is_told_as_it_is() {
    let shards = Shards::start(3);
    let proxy = shards.proxy(&[]);
    let mut client = proxy.client();

    assert_eq!(status(&mut client, "b0-none"), "unknown");

    shards.prepare_all(Plan::early("b0-early", &[0, 1]));
    assert_eq!(status(&mut client, "b0-early"), "pending");

    shards.prepare_all(Plan::early("b0-applied", &[0, 1]));
    shards.apply("b0-applied", 1);
    assert_eq!(status(&mut client, "b0-applied"), "committed");

    shards.prepare(Plan::early("b0-dead", &[0, 1]), 0);
    shards.tombstone("b0-dead", 1);
    assert_eq!(status(&mut client, "b0-dead"), "aborted");
}

/// P5: who asks need not wait for a scan.
#[test]
fn what_is_past_its_deadline_is_settled_by_who_asks() {
    let shards = Shards::start(3);
    let proxy = shards.proxy(&[]);
    let mut client = proxy.client();

    shards.prepare_all(Plan::overdue("b0-full", &[0, 2]));
    assert_eq!(status(&mut client, "b0-full"), "committed");
    shards.assert_applied("b0-full", &[0, 2]);

    shards.prepare(Plan::overdue("b0-half", &[0, 2]), 2);
    assert_eq!(status(&mut client, "b0-half"), "aborted");
    shards.assert_not_applied("b0-half");

    shards.assert_settled();
    // And so it is told ever after, also from the command line.
    shards
        .lockstep(&["txn", "status", "b0-full"])
        .expect(0, &["committed"]);
    shards
        .lockstep(&["txn", "status", "b0-half"])
        .expect(0, &["aborted"]);
    shards
        .lockstep(&["txn", "status", "b0-never"])
        .expect(0, &["unknown"]);
}

/// I4: what a shard that is down would say is not guessed; what is proved needs it not.
#[test]
fn a_shard_that_is_down_is_named() {
    let mut shards = Shards::start(3);
    let proxy = shards.proxy(&[]);
    proxy.expect_log("shard");
    shards.prepare_all(Plan::early("b0-applied", &[0, 1]));
    shards.apply("b0-applied", 0);
    shards.prepare(Plan::overdue("b0-doubt", &[0, 1]), 0);
    shards.prepare(Plan::overdue("b0-else", &[0, 2]), 0);
    shards.servers[1].kill();
    let down = shards.servers[1].address();
    let mut client = proxy.client();
    assert_eq!(status(&mut client, "b0-applied"), "committed");
    let told = status(&mut client, "b0-doubt");
    assert!(told.starts_with("ERR ") && told.contains(&down), "{told}");
    let told = status(&mut client, "b0-none");
    assert!(told.starts_with("ERR ") && told.contains(&down), "{told}");
    // That shard takes no part in it.
    assert_eq!(status(&mut client, "b0-else"), "aborted");
    let said = shards.lockstep(&["txn", "status", "b0-doubt"]);
    said.expect(1, &[&down]);
}

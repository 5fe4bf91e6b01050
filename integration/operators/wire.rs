//! The command LOCKSTEP, as clients and operators send it to any proxy.

use crate::plant::{Plan, Shards};
use crate::support::{Client, Value};

/// The value of a name in a map that came as a flat array.
fn field<'a>(map: &'a Value, name: &str) -> &'a Value {
    let pairs = map.elements().chunks_exact(2);
    let mut found = pairs.filter(|pair| pair[0].bytes() == Some(name.as_bytes()));
    &found.next().unwrap_or_else(|| panic!("{name} in {map}"))[1]
}

fn text(value: &Value) -> String {
    let bytes = value.bytes().unwrap_or_else(|| panic!("a text: {value}"));
    String::from_utf8_lossy(bytes).into_owned()
}

fn ask(client: &mut Client, line: &str) -> Value {
    client.say(&format!("LOCKSTEP {line}"))
}

#[test]
fn transactions_are_listed_shown_and_resolved_through_a_proxy() {
    let shards = Shards::start(2);
    let proxy = shards.proxy(&[]);
    let mut client = proxy.client();
    shards.prepare_all(Plan::overdue("b0-1", &[0, 1]));

    let list = ask(&mut client, "TXN LIST");
    let case = &field(&list, "transactions").elements()[0];
    assert_eq!(text(field(case, "id")), "b0-1");
    assert_eq!(text(field(case, "state")), "in-doubt");

    let shown = ask(&mut client, "TXN SHOW b0-1");
    let on_first = &field(&shown, "shards").elements()[0];
    let command = &field(on_first, "commands").elements()[0];
    assert_eq!(text(&command.elements()[1]), "b0-1:0");
    let redacted = ask(&mut client, "TXN SHOW b0-1 REDACT");
    assert!(!redacted.to_string().contains("b0-1:0"), "{redacted}");

    let before = shards.picture();
    let refused = ask(&mut client, "TXN RESOLVE b0-1 ABORT").error().unwrap();
    assert!(
        refused.starts_with("ERR transaction b0-1: it is committed"),
        "{refused}"
    );
    let dry = ask(&mut client, "TXN RESOLVE b0-1 COMMIT DRYRUN");
    assert_eq!(text(field(&dry, "outcome")), "would be committed");
    assert_eq!(shards.picture(), before);

    let done = ask(&mut client, "TXN RESOLVE b0-1 COMMIT");
    assert_eq!(text(field(&done, "outcome")), "committed");
    shards.assert_applied("b0-1", &[0, 1]);
    shards.assert_settled();
    let list = ask(&mut client, "TXN LIST");
    assert!(field(&list, "transactions").elements().is_empty());
    let all = ask(&mut client, "TXN LIST ALL");
    assert_eq!(field(&all, "transactions").elements().len(), 1);
}

#[test]
fn leftovers_are_forgotten_through_a_proxy() {
    let shards = Shards::start(2);
    let proxy = shards.proxy(&[]);
    let mut client = proxy.client();
    shards.prepare(Plan::early("b0-1", &[0, 1]), 0);
    shards.lose_record("b0-1", 0);
    let done = ask(&mut client, "TXN RESOLVE b0-1 FORGET");
    assert_eq!(
        text(field(&done, "outcome")),
        "dropped 1 index entry, 1 lock"
    );
    shards.assert_settled();
}

#[test]
fn help_is_given_and_nonsense_refused() {
    let shards = Shards::start(1);
    let proxy = shards.proxy(&[]);
    let mut client = proxy.client();
    let help = ask(&mut client, "HELP").to_string();
    for verb in ["TXN STATUS", "TXN LIST", "TXN SHOW", "TXN RESOLVE"] {
        assert!(help.contains(verb), "{verb} in {help}");
    }
    for line in [
        "",
        "TXN",
        "TXN SHOW",
        "TXN DROP x",
        "TXN RESOLVE x COMMIT ABORT",
    ] {
        let error = ask(&mut client, line).error().expect("an error");
        assert!(error.starts_with("ERR "), "{line}: {error}");
    }
}

/// It is about transactions of others, so it is part of none.
#[test]
fn inside_multi_it_is_refused_and_spoils_the_transaction() {
    let shards = Shards::start(2);
    let proxy = shards.proxy(&[]);
    let mut client = proxy.client();
    client.say("MULTI");
    let error = ask(&mut client, "TXN LIST").error().unwrap();
    assert_eq!(error, "ERR Command not allowed inside a transaction");
    let error = client.say("EXEC").error().unwrap();
    assert!(error.starts_with("EXECABORT "), "{error}");
}

/// P2: replies stay in the order of the requests, also behind one that takes long.
#[test]
fn what_is_pipelined_behind_it_keeps_its_order() {
    let shards = Shards::start(2);
    let proxy = shards.proxy(&[]);
    let mut client = proxy.client();
    let commands: Vec<Vec<&str>> = [
        "SET k 1",
        "LOCKSTEP TXN LIST ALL",
        "GET k",
        "LOCKSTEP TXN STATUS x",
        "PING",
    ]
    .map(|line| line.split(' ').collect())
    .to_vec();
    let replies = client.try_pipeline(&commands).expect("replies");
    assert_eq!(replies[0].raw, b"+OK\r\n");
    assert_eq!(replies[2].raw, b"$1\r\n1\r\n");
    assert_eq!(replies[3].raw, b"$7\r\nunknown\r\n");
    assert_eq!(replies[4].raw, b"+PONG\r\n");
}

/// The scripts of a shard can be lost at any time.
#[test]
fn a_shard_that_has_lost_the_scripts_is_asked_all_the_same() {
    let shards = Shards::start(2);
    let proxy = shards.proxy(&[]);
    proxy.expect_log("has lost our scripts");
    let mut client = proxy.client();
    shards.prepare_all(Plan::overdue("b0-1", &[0, 1]));
    for shard in 0..2 {
        shards.client(shard).say("SCRIPT FLUSH");
    }
    let status = ask(&mut client, "TXN STATUS b0-1");
    assert_eq!(text(&status), "committed");
}

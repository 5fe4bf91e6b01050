//! `lockstep txn list` and `show`: everything that is there, and nothing that is not.

use crate::plant::{Plan, Shards};
use serde_json::json;

#[test]
fn an_empty_list_says_so() {
    let shards = Shards::start(2);
    let said = shards.lockstep(&["txn", "list"]);
    said.expect(0, &["0 transactions, 0 in doubt or left over"]);
    let json = shards.lockstep(&["txn", "list", "--json"]).json();
    assert_eq!(json["transactions"], json!([]));
}

#[test]
fn whatever_holds_keys_is_listed_the_worst_first() {
    let shards = Shards::start(3);
    shards.prepare_all(Plan::early("b0-run", &[0, 1]));
    shards.prepare(Plan::overdue("b1-doubt", &[0, 1]), 0);
    shards.prepare_all(Plan::overdue("b2-orphan", &[1, 2]));
    shards.lose_record("b2-orphan", 1);
    shards.lose_record("b2-orphan", 2);
    shards.tombstone("b3-over", 1);
    let said = shards.lockstep(&["txn", "list"]);
    let said = said.expect(0, &["3 transactions, 2 in doubt or left over"]);
    let states: Vec<_> = said
        .text
        .lines()
        .skip(1)
        .take(3)
        .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>())
        .collect();
    assert!(states[..2].contains(&vec!["b1-doubt", "in-doubt"]));
    assert!(states[..2].contains(&vec!["b2-orphan", "orphaned"]));
    assert_eq!(states[2], ["b0-run", "running"]);

    let all = shards.lockstep(&["txn", "list", "--all", "--json"]).json();
    let ids: Vec<_> = all["transactions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|case| {
            (
                case["id"].as_str().unwrap(),
                case["state"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(ids.len(), 4, "{ids:?}");
    assert!(ids.contains(&("b3-over", "aborted")));
}

#[test]
fn a_row_tells_age_deadline_owner_and_participants() {
    let shards = Shards::start(3);
    shards.prepare(Plan::overdue("b0-1", &[0, 2]), 0);
    let json = shards.lockstep(&["txn", "list", "--json"]).json();
    let case = &json["transactions"][0];
    assert_eq!(case["owner"], "b0");
    assert_eq!(case["participants"], json!(["0/0", "2/0"]));
    assert_eq!(case["index-entries"], 1);
    assert!(case["overdue-ms"].as_i64().unwrap() >= 0);
    // Of a lock TTL of 2 s, as the program was told.
    assert!(case["age-ms"].as_i64().unwrap() >= 2_000);
    let on = |at: usize| {
        (
            case["shards"][at]["shard"].clone(),
            case["shards"][at]["state"].clone(),
        )
    };
    assert_eq!(on(0), (json!(0), json!("prepared")));
    assert_eq!(on(1), (json!(2), json!("absent")));
    assert_eq!(case["shards"].as_array().unwrap().len(), 2);
}

#[test]
fn a_shard_that_is_down_is_named_and_the_rest_is_listed() {
    let mut shards = Shards::start(3);
    shards.prepare(Plan::overdue("b0-1", &[0, 1]), 0);
    shards.servers[2].kill();
    let down = shards.servers[2].address();
    let said = shards.lockstep(&["txn", "list"]);
    said.expect(1, &["b0-1", "in-doubt", &format!("{down}: no answer: ")]);
}

#[test]
fn show_tells_what_is_held_and_what_would_run() {
    let shards = Shards::start(2);
    shards.prepare_all(Plan::overdue("b0-1", &[0, 1]));
    shards.apply("b0-1", 1);
    let said = shards.lockstep(&["txn", "show", "b0-1"]);
    said.expect(
        0,
        &[
            "b0-1  in-doubt",
            "when all participants are prepared",
            "SET b0-1:0 applied",
            "runs      APPEND b0-1:0 \" once\"",
            "has run   APPEND b0-1:1 \" once\"",
            "b0-1:0  (1 index entry)",
            "b0-1:1  (1 index entry, 1 settling entry)",
        ],
    );
    let json = shards.lockstep(&["txn", "show", "b0-1", "--json"]).json();
    assert_eq!(
        json["shards"][0]["commands"][0],
        json!(["SET", "b0-1:0", "applied"])
    );
    assert_eq!(json["shards"][0]["state"], "prepared");
    assert_eq!(json["shards"][1]["holds"][0]["settling"], true);
}

#[test]
fn redacted_it_shows_no_keys_and_no_values() {
    let shards = Shards::start(2);
    shards.prepare_all(Plan::overdue("b0-1", &[0, 1]));
    for form in [
        &["txn", "show", "b0-1", "--redact"][..],
        &["txn", "show", "b0-1", "--redact", "--json"],
    ] {
        let said = shards
            .lockstep(form)
            .expect(0, &["SET", "<7 bytes>", "<6 bytes>"]);
        assert!(
            !said.text.contains("b0-1:") && !said.text.contains("once"),
            "{}",
            said.text
        );
    }
}

#[test]
fn show_of_what_is_nowhere_says_unknown() {
    let shards = Shards::start(2);
    shards
        .lockstep(&["txn", "show", "b0-9"])
        .expect(1, &["b0-9  unknown"]);
}

#[test]
fn without_shards_nothing_is_asked() {
    let shards = Shards {
        servers: Vec::new(),
    };
    shards
        .lockstep(&["txn", "list"])
        .expect(1, &["no shards given"]);
}

#[test]
fn settings_come_from_a_file_as_for_serving() {
    let shards = Shards::start(1);
    shards.client(0).say("CONFIG SET requirepass secret");
    let address = shards.servers[0].address();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let text = format!("shard = '{address}'\nshard-password = 'secret'\nworkers = 1\n");
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    let path = file.path().to_str().unwrap();
    let said = shards.lockstep_over(&["txn", "list", "--config", path], &[]);
    said.expect(0, &["0 transactions"]);
    let said = shards.lockstep_over(&["txn", "list", "--shard", &address], &[]);
    said.expect(1, &["NOAUTH"]);
}

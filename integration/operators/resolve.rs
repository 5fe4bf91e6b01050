//! `lockstep txn resolve`: it finishes what can be finished, and no word of an operator tears a
//! transaction (P1) or goes against what is decided (I1, I3).

use crate::plant::{Plan, Said, Shards};

const COMMITTED: &str = "b0-1: committed\n";
const ABORTED: &str = "b0-1: aborted\n";

fn resolve(shards: &Shards, words: &[&str]) -> Said {
    shards.lockstep(&[&["txn", "resolve", "b0-1"], words].concat())
}

/// Refused for this reason, and nothing was changed.
fn refused(shards: &Shards, words: &[&str], why: &str) {
    let before = shards.picture();
    resolve(shards, words).expect(1, &["not resolved: ", why]);
    let dry = [words, &["--dry-run"]].concat();
    resolve(shards, &dry).expect(1, &["not resolved: ", why]);
    assert_eq!(shards.picture(), before, "{words:?}");
}

/// A dry run tells so much and changes nothing.
fn would(shards: &Shards, words: &[&str], parts: &[&str]) {
    let before = shards.picture();
    let dry = [words, &["--dry-run"]].concat();
    resolve(shards, &dry).expect(0, parts);
    assert_eq!(shards.picture(), before, "{words:?}");
}

#[test]
fn all_prepared_is_committed_and_nothing_else() {
    let shards = Shards::start(3);
    shards.prepare_all(Plan::overdue("b0-1", &[0, 1, 2]));
    refused(&shards, &["--abort"], "it is committed");
    refused(&shards, &["--abort", "--force"], "it is committed");
    for wish in [&[][..], &["--commit"]] {
        would(
            &shards,
            wish,
            &["would apply", "would release", "would be committed"],
        );
    }
    resolve(&shards, &["--commit"]).expect(0, &["): apply\n", COMMITTED]);
    shards.assert_applied("b0-1", &[0, 1, 2]);
    shards.assert_settled();
    resolve(&shards, &[]).expect(0, &["is committed already"]);
    refused(&shards, &["--abort"], "it is committed already");
}

#[test]
fn one_that_was_never_prepared_everywhere_is_aborted_and_nothing_else() {
    let shards = Shards::start(3);
    shards.prepare(Plan::overdue("b0-1", &[0, 1, 2]), 1);
    refused(&shards, &["--commit"], "it is not committed");
    refused(&shards, &["--commit", "--force"], "it is not committed");
    for wish in [&[][..], &["--abort"]] {
        would(
            &shards,
            wish,
            &["would tombstone", "would abort", "would be aborted"],
        );
    }
    resolve(&shards, &["--abort"]).expect(0, &[ABORTED]);
    shards.assert_not_applied("b0-1");
    shards.assert_settled();
    resolve(&shards, &[]).expect(0, &["is aborted already"]);
    refused(&shards, &["--commit"], "it is aborted already");
}

/// I1, I3: one application decides for all.
#[test]
fn what_has_begun_to_apply_is_rolled_forward() {
    let shards = Shards::start(3);
    shards.prepare_all(Plan::overdue("b0-1", &[0, 1, 2]));
    shards.apply("b0-1", 2);
    refused(&shards, &["--abort"], "it is committed");
    resolve(&shards, &[]).expect(0, &[COMMITTED]);
    shards.assert_applied("b0-1", &[0, 1, 2]);
    shards.assert_settled();
}

/// I6: the record of one that has applied and released is a marker, and speaks for the rest.
#[test]
fn a_marker_is_as_good_as_an_application() {
    let shards = Shards::start(2);
    shards.prepare_all(Plan::overdue("b0-1", &[0, 1]));
    shards.apply("b0-1", 0);
    shards.apply("b0-1", 1);
    shards.release("b0-1", 0);
    resolve(&shards, &[]).expect(0, &[COMMITTED]);
    shards.assert_applied("b0-1", &[0, 1]);
    shards.assert_settled();
}

#[test]
fn a_tombstone_aborts_the_rest() {
    let shards = Shards::start(2);
    shards.prepare(Plan::overdue("b0-1", &[0, 1]), 0);
    shards.tombstone("b0-1", 1);
    refused(&shards, &["--commit"], "it is not committed");
    resolve(&shards, &[]).expect(0, &[ABORTED]);
    shards.assert_not_applied("b0-1");
    shards.assert_settled();
}

/// P1: a coordinator that is alive must not be overtaken before its time.
#[test]
fn before_the_deadline_only_force_does_anything() {
    let shards = Shards::start(2);
    shards.prepare(Plan::early("b0-1", &[0, 1]), 0);
    for wish in [&[][..], &["--abort"], &["--commit"]] {
        refused(&shards, wish, "its deadline is in ");
    }
    resolve(&shards, &["--abort", "--force"]).expect(0, &[ABORTED]);
    shards.assert_not_applied("b0-1");
    shards.assert_settled();
}

#[test]
fn force_commits_what_is_prepared_everywhere() {
    let shards = Shards::start(2);
    shards.prepare_all(Plan::early("b0-1", &[0, 1]));
    refused(&shards, &["--abort", "--force"], "it is committed");
    would(&shards, &["--force"], &["would be committed"]);
    resolve(&shards, &["--force"]).expect(0, &[COMMITTED]);
    shards.assert_applied("b0-1", &[0, 1]);
    shards.assert_settled();
}

/// Decider rule: "all prepared" does not mean committed.
#[test]
fn a_decider_that_has_not_applied_is_aborted() {
    let shards = Shards::start(2);
    shards.prepare_all(Plan {
        decider: Some(1),
        ..Plan::overdue("b0-1", &[0, 1])
    });
    refused(&shards, &["--commit"], "it is not committed");
    resolve(&shards, &["--abort"]).expect(0, &[ABORTED]);
    shards.assert_not_applied("b0-1");
    shards.assert_settled();
}

#[test]
fn a_decider_that_has_applied_commits_the_rest() {
    let shards = Shards::start(2);
    shards.prepare_all(Plan {
        decider: Some(1),
        ..Plan::overdue("b0-1", &[0, 1])
    });
    shards.apply("b0-1", 1);
    refused(&shards, &["--abort"], "it is committed");
    resolve(&shards, &["--commit"]).expect(0, &[COMMITTED]);
    shards.assert_applied("b0-1", &[0, 1]);
    shards.assert_settled();
}

/// I4: a shard that does not answer is not one without a record.
#[test]
fn nothing_is_concluded_without_a_participant() {
    let mut shards = Shards::start(3);
    shards.prepare(Plan::overdue("b0-1", &[0, 1]), 0);
    shards.servers[1].kill();
    for wish in ["--abort", "--commit", "--force", "--forget"] {
        resolve(&shards, &[wish]).expect(1, &["gives no answer"]);
    }
    shards.servers[1].restart();
    // It takes no part, so it is not needed.
    shards.servers[2].kill();
    resolve(&shards, &[]).expect(0, &[ABORTED]);
}

#[test]
fn shards_in_another_order_are_refused() {
    let shards = Shards::start(3);
    shards.prepare_all(Plan::overdue("b0-1", &[0, 1]));
    let before = shards.picture();
    let mut addresses = shards.addresses();
    addresses.rotate_left(1);
    let said = shards.lockstep_over(&["txn", "resolve", "b0-1"], &addresses);
    said.expect(1, &["not in this shard map"]);
    let said = shards.lockstep_over(&["txn", "resolve", "b0-1"], &addresses[..1]);
    said.expect(1, &["not in this shard map"]);
    assert_eq!(shards.picture(), before);
}

#[test]
fn a_contradiction_is_left_to_people() {
    let shards = Shards::start(2);
    shards.prepare_all(Plan::overdue("b0-1", &[0, 1]));
    shards.apply("b0-1", 0);
    shards.abort("b0-1", 1);
    for wish in [&[][..], &["--abort"], &["--commit"], &["--force"]] {
        refused(&shards, wish, "a shard has lost data");
    }
}

#[test]
fn what_nobody_knows_is_not_resolved() {
    let shards = Shards::start(2);
    refused(&shards, &[], "no shard has a record");
}

#[test]
fn the_answer_in_json_tells_before_and_after() {
    let shards = Shards::start(2);
    shards.prepare_all(Plan::overdue("b0-1", &[0, 1]));
    let json = resolve(&shards, &["--dry-run", "--json"]).json();
    assert_eq!((&json["done"], &json["after"]), (&false.into(), &().into()));
    assert_eq!(json["steps"].as_array().unwrap().len(), 4);
    let json = resolve(&shards, &["--json"]).json();
    assert_eq!(json["outcome"], "committed");
    assert_eq!(json["before"][0]["state"], "prepared");
    assert_eq!(json["after"][0]["state"], "applied");
    assert_eq!(json["after"][0]["released"], true);
    let json = resolve(&shards, &["--abort", "--json"]).json();
    assert_eq!(json["refused"], "it is committed already");
}

//! The judge judged: a history that is right, and one for each thing that can be wrong.

use super::judge::{Kind, judge};
use super::record::{History, Key, Operation, Outcome, Step, Value};

/// Two lists, written as `operations` say.
fn history(lists: [&[Value]; 2], operations: Vec<Operation>) -> History {
    History {
        operations,
        lists: lists.map(<[Value]>::to_vec).to_vec(),
        names: ["a", "b"].map(str::to_owned).to_vec(),
    }
}

fn operation(began: u64, ended: u64, steps: Vec<Step>) -> Operation {
    Operation {
        client: began as usize,
        form: "planted",
        began,
        ended,
        outcome: Outcome::Committed,
        steps,
    }
}

fn with(outcome: Outcome, mut operation: Operation) -> Operation {
    operation.outcome = outcome;
    operation
}

fn append(key: Key, value: Value) -> Step {
    let length = None;
    Step::Append { key, value, length }
}

fn read(key: Key, seen: &[Value]) -> Step {
    let seen = Some(seen.to_vec());
    Step::Read { key, seen }
}

fn kinds(history: &History) -> Vec<Kind> {
    judge(history).iter().map(|one| one.kind).collect()
}

#[track_caller]
fn finds(kind: Kind, lists: [&[Value]; 2], operations: Vec<Operation>) -> String {
    let history = history(lists, operations);
    assert_eq!(kinds(&history), [kind]);
    judge(&history).remove(0).text
}

#[test]
fn a_right_history_passes() {
    let right = history(
        [&[1, 2, 3], &[4, 5]],
        vec![
            operation(0, 10, vec![append(0, 1), append(1, 4)]),
            operation(5, 20, vec![read(0, &[1]), append(0, 2), read(0, &[1, 2])]),
            with(
                Outcome::Unknown,
                operation(12, 13, vec![append(0, 3), append(1, 5)]),
            ),
            with(Outcome::Aborted, operation(12, 30, vec![append(1, 6)])),
            with(Outcome::Unknown, operation(14, 15, vec![append(1, 7)])),
            // Long after its client gave up, the unknown one happened.
            operation(40, 50, vec![read(0, &[1, 2]), read(1, &[4])]),
            operation(60, 70, vec![read(1, &[4, 5]), read(0, &[1, 2, 3])]),
            operation(0, 100, vec![read(0, &[]), read(1, &[])]),
        ],
    );
    assert_eq!(kinds(&right), []);
}

#[test]
fn a_lost_value_is_found() {
    finds(
        Kind::Lost,
        [&[], &[]],
        vec![operation(0, 1, vec![append(0, 1)])],
    );
}

#[test]
fn a_value_that_was_seen_and_is_gone_is_found() {
    finds(
        Kind::Lost,
        [&[], &[]],
        vec![
            with(Outcome::Unknown, operation(0, 1, vec![append(0, 1)])),
            operation(2, 3, vec![read(0, &[1])]),
        ],
    );
}

#[test]
fn a_value_that_is_there_twice_is_found() {
    let twice = vec![operation(0, 1, vec![append(0, 1)])];
    finds(Kind::Duplicated, [&[1, 1], &[]], twice);
    let twice = vec![
        operation(0, 1, vec![append(0, 1)]),
        operation(2, 3, vec![read(0, &[1, 1])]),
    ];
    finds(Kind::Duplicated, [&[1], &[]], twice);
}

#[test]
fn a_value_from_nowhere_is_found() {
    finds(Kind::Invented, [&[9], &[]], vec![]);
    let elsewhere = vec![operation(0, 1, vec![append(1, 1)])];
    let history = history([&[1], &[]], elsewhere);
    assert!(kinds(&history).contains(&Kind::Invented));
}

#[test]
fn half_an_operation_is_found() {
    let half = operation(0, 1, vec![append(0, 1), append(1, 2)]);
    let unknown = vec![with(Outcome::Unknown, half)];
    finds(Kind::Torn, [&[1], &[]], unknown);
}

#[test]
fn an_aborted_value_is_found() {
    let aborted = || with(Outcome::Aborted, operation(0, 1, vec![append(0, 1)]));
    finds(Kind::Aborted, [&[1], &[]], vec![aborted()]);
    let seen = operation(2, 3, vec![read(0, &[1])]);
    finds(Kind::Aborted, [&[], &[]], vec![aborted(), seen]);
}

#[test]
fn an_intermediate_read_is_found() {
    let two = operation(0, 10, vec![append(0, 1), append(0, 2)]);
    let between = operation(0, 10, vec![read(0, &[1])]);
    finds(Kind::Intermediate, [&[1, 2], &[]], vec![two, between]);
}

#[test]
fn a_list_that_never_was_is_found() {
    let operations = vec![
        operation(0, 10, vec![append(0, 1)]),
        operation(0, 10, vec![append(0, 2)]),
        operation(0, 10, vec![read(0, &[2])]),
    ];
    finds(Kind::Fork, [&[1, 2], &[]], operations);
}

#[test]
fn one_that_does_not_see_itself_is_found() {
    let blind = operation(0, 1, vec![append(0, 1), read(0, &[])]);
    finds(Kind::Internal, [&[1], &[]], vec![blind]);
    let operations = vec![
        operation(0, 10, vec![append(0, 1)]),
        operation(0, 10, vec![read(0, &[]), read(0, &[1])]),
    ];
    finds(Kind::Internal, [&[1], &[]], operations);
}

#[test]
fn a_wrong_length_is_found() {
    let mut wrong = operation(0, 1, vec![append(0, 1)]);
    wrong.steps = vec![Step::Append {
        key: 0,
        value: 1,
        length: Some(2),
    }];
    finds(Kind::Length, [&[1], &[]], vec![wrong]);
}

#[test]
fn writes_in_two_orders_are_found() {
    let operations = vec![
        operation(0, 10, vec![append(0, 1), append(1, 3)]),
        operation(0, 10, vec![append(0, 2), append(1, 4)]),
    ];
    finds(Kind::WriteCycle, [&[1, 2], &[4, 3]], operations);
}

#[test]
fn two_that_see_each_other_are_found() {
    let operations = vec![
        operation(0, 10, vec![append(0, 1), read(1, &[2])]),
        operation(0, 10, vec![append(1, 2), read(0, &[1])]),
    ];
    finds(Kind::InformationCycle, [&[1], &[2]], operations);
}

#[test]
fn a_torn_read_is_found_and_told() {
    let operations = vec![
        operation(0, 10, vec![append(0, 1), append(1, 2)]),
        operation(0, 10, vec![read(0, &[1]), read(1, &[])]),
    ];
    let text = finds(Kind::TornRead, [&[1], &[2]], operations);
    for part in ["its 1 in a is seen", "it misses 2 in b", "[b -> (: 0)]"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn two_that_miss_each_other_are_found() {
    let operations = vec![
        operation(0, 10, vec![append(0, 1), read(1, &[])]),
        operation(0, 10, vec![append(1, 2), read(0, &[])]),
    ];
    finds(Kind::Skew, [&[1], &[2]], operations);
}

/// What WATCH prevents: both read the list, then both append to it.
#[test]
fn a_lost_update_is_found() {
    let operations = vec![
        operation(0, 10, vec![read(0, &[]), append(0, 1)]),
        operation(0, 10, vec![read(0, &[]), append(0, 2)]),
    ];
    finds(Kind::LostUpdate, [&[1, 2], &[]], operations);
    // A plain append between the read and the EXEC.
    let operations = vec![
        operation(0, 10, vec![read(0, &[]), append(1, 1), append(0, 3)]),
        operation(3, 4, vec![append(0, 2)]),
    ];
    finds(Kind::LostUpdate, [&[2, 3], &[1]], operations);
    // Nothing is written to what was read and has changed, but real time tells.
    let operations = vec![
        operation(0, 10, vec![read(0, &[]), append(1, 1)]),
        operation(2, 3, vec![append(0, 2)]),
        operation(4, 5, vec![read(1, &[])]),
    ];
    finds(Kind::RealTime, [&[2], &[1]], operations);
}

/// Two writers, and two readers who disagree on their order.
#[test]
fn a_long_fork_is_found() {
    let operations = vec![
        operation(0, 10, vec![append(0, 1)]),
        operation(0, 10, vec![append(1, 2)]),
        operation(0, 10, vec![read(0, &[1]), read(1, &[])]),
        operation(0, 10, vec![read(0, &[]), read(1, &[2])]),
    ];
    finds(Kind::AntiDependencyCycle, [&[1], &[2]], operations);
}

#[test]
fn a_stale_read_is_found_and_told() {
    let operations = vec![
        operation(0, 1, vec![append(0, 1)]),
        operation(2, 3, vec![read(0, &[])]),
    ];
    let text = finds(Kind::RealTime, [&[1], &[]], operations);
    assert!(text.contains("ended before the next began"), "{text}");
    let at_once = vec![
        operation(0, 2, vec![append(0, 1)]),
        operation(2, 3, vec![read(0, &[])]),
    ];
    assert_eq!(kinds(&history([&[1], &[]], at_once)), []);
}

/// What the isolation of plain commands prevents: a transaction seen on one shard, then missed
/// on another, by one client with two commands.
#[test]
fn a_transaction_seen_half_way_is_found() {
    let operations = vec![
        operation(0, 10, vec![append(0, 1), append(1, 2)]),
        operation(1, 2, vec![read(0, &[1])]),
        operation(3, 4, vec![read(1, &[])]),
    ];
    finds(Kind::RealTime, [&[1], &[2]], operations);
}

/// Long, right, and judged in reasonable time.
#[test]
fn a_long_right_history_passes() {
    const COUNT: u32 = 100_000;
    let operations = (1..=COUNT).map(|value| {
        let time = u64::from(value) * 10;
        operation(time, time + 25, vec![append(0, value)])
    });
    let list: Vec<Value> = (1..=COUNT).collect();
    assert_eq!(kinds(&history([&list, &[]], operations.collect())), []);
}

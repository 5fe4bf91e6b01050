//! Shards that die or stop: only who needs them is told so, quickly and exactly; and all is
//! well again when they are back.

use crate::Target;
use crate::bystander::Bystander;
use crate::support::{Client, Value, key_on, keys_on};
use std::time::{Duration, Instant};

const SHARDS: usize = 3;
/// The shard that fails.
const LOST: usize = 1;
const REQUEST_TIMEOUT_MS: &str = "800";
const REQUEST_TIMEOUT: Duration = Duration::from_millis(800);
/// What a busy machine may add to any limit.
const SLACK: Duration = Duration::from_millis(1_500);
const RECOVERY: Duration = Duration::from_secs(5);

/// Keys on shards that stay, and on the one that is lost.
struct Keys {
    here: [String; 2],
    lost: String,
}

fn start() -> Option<(Target, Keys)> {
    let target = Target::start(&[("request-timeout-ms", REQUEST_TIMEOUT_MS)]);
    if !target.cluster.is_lockstep() {
        return None;
    }
    for pattern in ["shard", "connect", "request", "timed out"] {
        target.cluster.expect_log(pattern);
    }
    let here = [key_on("here", 0, SHARDS), key_on("here", 2, SHARDS)];
    let lost = key_on("lost", LOST, SHARDS);
    let mut client = target.cluster.client();
    for key in here.iter().chain([&lost]) {
        client.call(&["SET", key, "before"]);
    }
    Some((target, Keys { here, lost }))
}

/// A bystander that needs only the shards that stay.
fn unaffected(target: &Target) -> Bystander {
    let keys = [keys_on("near", 0, SHARDS, 2), keys_on("near", 2, SHARDS, 2)].concat();
    Bystander::on(target.cluster.client(), keys)
}

fn timed(client: &mut Client, words: &[&str]) -> (Value, Duration) {
    let begin = Instant::now();
    let value = client.value(words);
    (value, begin.elapsed())
}

/// The error of a command that needs the lost shard: it says what may have happened.
fn expect_failure(client: &mut Client, words: &[&str], limit: Duration) -> String {
    let (value, took) = timed(client, words);
    let error = value
        .error()
        .unwrap_or_else(|| panic!("{words:?} was answered {value}"));
    println!("{words:?} after {took:?}: {error}");
    assert!(took < limit, "{words:?} was told after {took:?}");
    let says_which = says_not_sent(&error) || says_maybe_sent(&error);
    assert!(
        says_which,
        "{words:?}: never sent, or maybe executed? {error}"
    );
    error
}

fn says_not_sent(error: &str) -> bool {
    let error = error.to_lowercase();
    [
        "never sent",
        "not sent",
        "was not executed",
        "nothing was applied",
        "not been sent",
    ]
    .iter()
    .any(|text| error.contains(text))
}

fn says_maybe_sent(error: &str) -> bool {
    let error = error.to_lowercase();
    [
        "may have been",
        "may or may not have been",
        "not known",
        "unknown",
    ]
    .iter()
    .any(|text| error.contains(text))
}

fn expect_value(client: &mut Client, key: &str, wanted: &str) {
    let (value, took) = timed(client, &["GET", key]);
    assert_eq!(value, Value::Bulk(wanted.as_bytes().to_vec()), "{key}");
    assert!(took < SLACK, "{key} took {took:?}");
}

fn set_all(client: &mut Client, keys: &[&str], value: &str) -> (Value, Duration) {
    let begin = Instant::now();
    let commands: Vec<_> = keys.iter().map(|key| vec!["SET", key, value]).collect();
    let reply = client.try_transaction(&commands).expect("EXEC is answered");
    (reply, begin.elapsed())
}

fn all_ok(count: usize) -> Value {
    Value::Array(vec![Value::Simple(b"OK".to_vec()); count])
}

fn expect_recovered(target: &Target, keys: &Keys, value: &str) {
    crate::support::eventually_with("the shard is used again", RECOVERY, || {
        let value = target.cluster.client().value(&["SET", &keys.lost, value]);
        if value.error().is_none() {
            Ok(())
        } else {
            Err(value)
        }
    });
    let mut client = target.cluster.client();
    let all = [
        keys.here[0].as_str(),
        keys.here[1].as_str(),
        keys.lost.as_str(),
    ];
    let (reply, _) = set_all(&mut client, &all, value);
    assert_eq!(reply, all_ok(3));
    for key in all {
        expect_value(&mut client, key, value);
    }
}

#[test]
fn a_dead_shard_fails_only_its_commands() {
    let Some((mut target, keys)) = start() else {
        return;
    };
    let bystander = unaffected(&target);
    let mut client = target.cluster.client();
    target.cluster.shard_mut(LOST).kill();
    let [a, b, lost] = [
        keys.here[0].as_str(),
        keys.here[1].as_str(),
        keys.lost.as_str(),
    ];
    let quick = REQUEST_TIMEOUT + SLACK;
    // The first ones may go down with the connection, later ones must not even be sent.
    expect_failure(&mut client, &["INCR", lost], quick);
    expect_failure(&mut client, &["GET", lost], quick);
    let error = expect_failure(&mut client, &["SET", lost, "x"], quick);
    assert!(
        says_not_sent(&error),
        "a SET to a shard known to be dead: {error}"
    );
    expect_failure(&mut client, &["MGET", a, lost, b], quick);
    // The same connection goes on with the other shards.
    expect_value(&mut client, a, "before");
    expect_value(&mut client, b, "before");
    let (reply, took) = set_all(&mut client, &[a, b], "with two");
    assert_eq!(reply, all_ok(2));
    assert!(
        took < SLACK,
        "a transaction without the dead shard took {took:?}"
    );
    expect_nothing_applied(&mut client, [a, b, lost], quick);
    expect_value(&mut client, a, "with two");
    expect_value(&mut client, b, "with two");
    bystander.finish_after(Duration::from_millis(500));
    target.cluster.shard_mut(LOST).restart();
    expect_recovered(&target, &keys, "after");
    target.cluster.wait_settled(Duration::from_secs(4));
}

/// P1, P4: with a shard that is known to be dead nothing is applied, and the client is told.
fn expect_nothing_applied(client: &mut Client, [a, b, lost]: [&str; 3], limit: Duration) {
    let (reply, took) = set_all(client, &[a, lost, b], "torn");
    let error = reply
        .error()
        .unwrap_or_else(|| panic!("EXEC was answered {reply}"));
    println!("EXEC after {took:?}: {error}");
    assert!(
        error.starts_with("EXECABORT "),
        "nothing can have been applied: {error}"
    );
    assert!(took < limit, "EXEC was told after {took:?}");
    let error = expect_failure(client, &["MSET", a, "torn", lost, "torn", b, "torn"], limit);
    assert!(
        says_not_sent(&error),
        "MSET with a shard known to be dead: {error}"
    );
}

#[test]
fn a_stopped_shard_delays_only_its_commands() {
    let Some((target, keys)) = start() else {
        return;
    };
    let bystander = unaffected(&target);
    let [a, b, lost] = [
        keys.here[0].as_str(),
        keys.here[1].as_str(),
        keys.lost.as_str(),
    ];
    let mut client = target.cluster.client();
    target.cluster.shards()[LOST].pause();
    let quick = REQUEST_TIMEOUT + SLACK;
    let error = expect_failure(&mut client, &["INCR", lost], quick);
    assert!(
        says_maybe_sent(&error),
        "an INCR that was sent to a silent shard: {error}"
    );
    expect_value(&mut client, a, "before");
    let (reply, _) = set_all(&mut client, &[a, b], "with two");
    assert_eq!(reply, all_ok(2));
    expect_value(&mut client, b, "with two");
    bystander.finish_after(Duration::from_millis(500));
    target.cluster.shards()[LOST].resume();
    expect_recovered(&target, &keys, "after");
    target.cluster.wait_settled(Duration::from_secs(4));
}

/// A stop shorter than the limits is a delay and nothing else, for transactions too.
#[test]
fn a_short_stop_is_only_a_delay() {
    let Some((target, keys)) = start() else {
        return;
    };
    let all = [
        keys.here[0].as_str(),
        keys.lost.as_str(),
        keys.here[1].as_str(),
    ];
    let mut client = target.cluster.client();
    target.cluster.shards()[LOST].pause();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| set_all(&mut client, &all, "late"));
        std::thread::sleep(REQUEST_TIMEOUT / 3);
        target.cluster.shards()[LOST].resume();
        let (reply, _) = waiting.join().expect("an answer");
        assert_eq!(reply, all_ok(3));
    });
    for key in all {
        expect_value(&mut target.cluster.client(), key, "late");
    }
    target.cluster.wait_settled(Duration::from_secs(4));
}

/// P1, P4, P5: a transaction caught by a shard that stops or dies is whole or not there in the
/// end, and its client was told nothing else.
#[test]
fn a_shard_that_is_lost_in_the_middle() {
    for round in 0..6_u64 {
        let Some((mut target, keys)) = start() else {
            return;
        };
        target.cluster.expect_log("recover");
        target.cluster.expect_log("transaction");
        let all = [
            keys.here[0].as_str(),
            keys.lost.as_str(),
            keys.here[1].as_str(),
        ];
        let port = target.cluster.port(0);
        let stop = std::sync::atomic::AtomicBool::new(false);
        let told = std::thread::scope(|scope| {
            let writer = scope.spawn(|| write_until(port, &all, &stop));
            std::thread::sleep(Duration::from_millis(100 + 7 * round));
            target.cluster.shards()[LOST].pause();
            std::thread::sleep(REQUEST_TIMEOUT + Duration::from_millis(300));
            target.cluster.shards()[LOST].resume();
            std::thread::sleep(Duration::from_millis(200));
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            writer.join().expect("no panic")
        });
        expect_one_outcome(&mut target, &all, &told);
    }
}

/// What EXEC said to each value written.
type Told = Vec<(String, Option<String>)>;

fn write_until(port: u16, keys: &[&str], stop: &std::sync::atomic::AtomicBool) -> Told {
    let mut client = Client::connect(port).expect("connected");
    let mut told = Told::new();
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        let value = format!("v{}", told.len());
        let (reply, _) = set_all(&mut client, keys, &value);
        told.push((value, reply.error()));
    }
    told
}

fn expect_one_outcome(target: &mut Target, keys: &[&str], told: &Told) {
    for (value, error) in told.iter().filter(|(_, error)| error.is_some()) {
        println!("{value}: {}", error.as_deref().unwrap_or_default());
    }
    let seen = read_same(&mut target.cluster.client(), keys);
    let at = told.iter().position(|(value, _)| *value == seen);
    let at = at.unwrap_or_else(|| panic!("nobody wrote {seen:?}"));
    let last_told = told
        .iter()
        .rposition(|(_, error)| error.is_none())
        .expect("some went through");
    assert!(
        at >= last_told,
        "P1: {seen:?} is older than what was acknowledged last"
    );
    let error = told[at].1.as_deref().unwrap_or_default();
    assert!(
        !error.starts_with("EXECABORT"),
        "P4: {seen:?} was aborted, and is there"
    );
    target.cluster.wait_settled(Duration::from_secs(4));
}

/// The value that all keys have; reading them meets what is in doubt, and settles it.
fn read_same(client: &mut Client, keys: &[&str]) -> String {
    let gets: Vec<_> = keys.iter().map(|key| vec!["GET", key]).collect();
    let reply = crate::support::eventually_with("all keys can be read", RECOVERY, || {
        let reply = client.try_transaction(&gets).expect("EXEC is answered");
        if reply.error().is_none() {
            Ok(reply)
        } else {
            Err(reply)
        }
    });
    let values = reply.elements();
    assert!(
        values.iter().all(|value| *value == values[0]),
        "P1: torn: {values:?}"
    );
    String::from_utf8_lossy(values[0].bytes().expect("a value")).into_owned()
}

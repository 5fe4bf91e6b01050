//! `lockstep audit`: P is 1 at rest, and whatever is planted is found and named.

use std::fs::OpenOptions;
use std::path::PathBuf;

use crate::plant::{Plan, Said, Shards};
use crate::support::Value;
use serde_json::Value as Json;

/// Servers to which no audit objects.
const SOUND: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

fn sound(count: usize) -> Shards {
    Shards::with(count, &SOUND)
}

fn audit(shards: &Shards) -> Json {
    shards.lockstep(&["audit", "--json"]).json()
}

/// Its findings but for notes: shard and code.
fn codes(json: &Json) -> Vec<(Option<u64>, String)> {
    let findings = json["findings"].as_array().expect("findings").iter();
    findings
        .filter(|finding| finding["severity"] != "note")
        .map(|finding| {
            (
                finding["shard"].as_u64(),
                finding["code"].as_str().expect("a code").to_owned(),
            )
        })
        .collect()
}

fn x(json: &Json, shard: usize) -> f64 {
    json["shards"][shard]["x"].as_f64().expect("a number")
}

fn p(json: &Json) -> f64 {
    json["p"].as_f64().expect("a number")
}

/// Audits once, and expects exactly this.
fn finds(shards: &Shards, shard: Option<u64>, code: &str) -> Json {
    let said: Said = shards.lockstep(&["audit", "--json"]);
    assert_eq!(said.code, Some(1), "{}", said.text);
    let json = said.json();
    assert_eq!(codes(&json), [(shard, code.to_owned())], "{json:#}");
    json
}

#[test]
fn sound_shards_at_rest_are_wholly_consistent() {
    let shards = sound(3);
    let said = shards.lockstep(&["audit"]);
    said.expect(
        0,
        &["P = 1 over 3 shards\n", "0 errors, 0 warnings, 3 notes\n"],
    );
    // Decisions that are kept, and transactions before their deadline, are as they should be.
    shards.prepare_all(Plan::early("b0-run", &[0, 1]));
    shards.prepare_all(Plan::overdue("b0-done", &[1, 2]));
    for shard in [1, 2] {
        shards.apply("b0-done", shard);
    }
    for shard in [1, 2] {
        shards.release("b0-done", shard);
    }
    shards.tombstone("b0-dead", 0);
    let said = shards.lockstep(&["audit", "--json"]);
    assert_eq!(said.code, Some(0), "{}", said.text);
    let json = said.json();
    assert_eq!(p(&json), 1.0);
    assert_eq!(
        (
            &json["shards"][0]["transactions"],
            &json["shards"][0]["running"]
        ),
        (&2.into(), &1.into())
    );
}

#[test]
fn what_is_past_its_deadline_lowers_the_measure_where_it_is() {
    let shards = sound(3);
    shards.tombstone("b0-dead", 1);
    shards.prepare(Plan::overdue("b0-1", &[0, 1]), 1);
    let json = finds(&shards, Some(1), "in-doubt");
    assert_eq!((x(&json, 0), x(&json, 1), x(&json, 2)), (1.0, 0.5, 1.0));
    assert!((p(&json) - 2.5 / 3.0).abs() < 1e-9, "{}", p(&json));
    let said = shards.lockstep(&["audit"]);
    said.expect(
        1,
        &[
            "error: shard 1: transaction b0-1 is past its deadline",
            "lockstep txn resolve b0-1",
        ],
    );
    shards
        .lockstep(&["txn", "resolve", "b0-1"])
        .expect(0, &["aborted"]);
    assert_eq!(p(&audit(&shards)), 1.0);
}

#[test]
fn entries_without_a_record_are_left_over() {
    let shards = sound(2);
    shards.prepare(Plan::early("b0-1", &[0, 1]), 0);
    shards.lose_record("b0-1", 0);
    let json = finds(&shards, Some(0), "orphaned");
    assert_eq!(x(&json, 0), 0.0);
    // A lock alone is found as well, which no index names.
    shards.client(0).say("DEL __lockstep:index");
    let said = shards.lockstep(&["audit"]);
    said.expect(1, &["(shard 0: no record, but 1 lock)", "--forget"]);
    shards
        .lockstep(&["txn", "resolve", "b0-1", "--forget"])
        .expect(0, &["dropped 1 lock"]);
    shards.lockstep(&["audit"]).expect(0, &["P = 1 "]);
}

/// I1 broken, as only lost data can.
#[test]
fn applied_here_and_aborted_there_is_named() {
    let shards = sound(2);
    shards.prepare_all(Plan::overdue("b0-1", &[0, 1]));
    shards.apply("b0-1", 0);
    shards.release("b0-1", 0);
    shards.abort("b0-1", 1);
    let json = finds(&shards, Some(0), "contradicted");
    assert_eq!(p(&json), 0.0);
}

#[test]
fn a_shard_that_gives_no_answer_counts_as_nothing() {
    let mut shards = sound(2);
    shards.servers[1].kill();
    let json = finds(&shards, Some(1), "unreachable");
    assert_eq!(p(&json), 0.5);
}

#[test]
fn unsafe_settings_are_named() {
    let shards = sound(2);
    for (set, code, back) in [
        (
            "maxmemory-policy allkeys-lru",
            "eviction",
            "maxmemory-policy noeviction",
        ),
        (
            "maxmemory-policy volatile-ttl",
            "eviction-volatile",
            "maxmemory-policy noeviction",
        ),
        ("appendfsync everysec", "fsync", "appendfsync always"),
        ("appendonly no", "no-aof", "appendonly yes"),
        (
            "min-replicas-to-write 1",
            "replicas-missing",
            "min-replicas-to-write 0",
        ),
    ] {
        let mut client = shards.client(1);
        assert_eq!(
            client.say(&format!("CONFIG SET {set}")),
            Value::Simple(b"OK".to_vec())
        );
        let json = finds(&shards, Some(1), code);
        assert_eq!(p(&json), 1.0, "nothing is in doubt");
        client.say(&format!("CONFIG SET {back}"));
    }
}

#[test]
fn a_replica_in_a_shards_place_is_named() {
    let shards = sound(3);
    let primary = shards.servers[0].port();
    shards
        .client(2)
        .say(&format!("REPLICAOF 127.0.0.1 {primary}"));
    let json = shards.lockstep(&["audit", "--json"]).json();
    assert!(
        codes(&json).contains(&(Some(2), "replica".to_owned())),
        "{json:#}"
    );
}

#[test]
fn different_maps_and_strange_keys_are_named() {
    let shards = sound(2);
    let note = |shard: usize, note: &str| {
        let mut client = shards.client(shard);
        client.call(&["SET", "__lockstep:map", note]);
    };
    note(0, "f00 0 2 crc16/16384");
    note(1, "f00 1 2 crc16/16384");
    assert_eq!(codes(&audit(&shards)), []);
    note(1, "bad 1 2 crc16/16384");
    finds(&shards, None, "maps");
    shards.client(1).say("DEL __lockstep:map");
    shards.client(0).say("SET __lockstep:strange 1");
    finds(&shards, Some(0), "unknown-key");
}

/// Who may not ask for settings is told that, and the eviction policy all the same.
#[test]
fn what_cannot_be_seen_is_said() {
    let shards = sound(1);
    let mut client = shards.client(0);
    client.say("CONFIG SET maxmemory-policy allkeys-random");
    client.say("ACL SETUSER default -config");
    let json = finds(&shards, Some(0), "eviction");
    let notes: Vec<_> = json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|f| f["code"].as_str())
        .collect();
    assert!(
        notes.contains(&"config-hidden") && notes.contains(&"aof-hidden"),
        "{notes:?}"
    );
}

/// The newest file of a server's AOF.
fn appended(shards: &Shards, shard: usize) -> PathBuf {
    let mut client = shards.client(shard);
    let dir = client.value(&["CONFIG", "GET", "dir"]);
    let dir = dir.elements()[1].bytes().expect("a folder").to_vec();
    let folder = PathBuf::from(String::from_utf8(dir).unwrap()).join("appendonlydir");
    let files = std::fs::read_dir(folder).expect("its folder");
    let mut files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.to_string_lossy().ends_with(".incr.aof"));
    files.sort();
    files.pop().expect("a file")
}

/// Redis leaves a MULTI behind when a crash has cut its block inside a command: the restart
/// after the next loses what was acknowledged in between.
#[test]
fn a_multi_that_a_crash_has_cut_off_is_found_and_mended() {
    let mut shards = sound(2);
    let mut client = shards.client(0);
    for line in [
        "SET before 1",
        "MULTI",
        "SET torn-a 1",
        "SET torn-b 1",
        "EXEC",
    ] {
        client.say(line);
    }
    let file = appended(&shards, 0);
    shards.servers[0].kill();
    let bytes = std::fs::read(&file).unwrap();
    let torn_b = bytes
        .windows(6)
        .rposition(|word| word == b"torn-b")
        .unwrap();
    let cut = OpenOptions::new().write(true).open(&file).unwrap();
    cut.set_len(torn_b as u64 + 3).unwrap();
    shards.servers[0].restart();

    let mut client = shards.client(0);
    client.say("SET after 1");
    let json = finds(&shards, Some(0), "dangling-multi");
    assert!(
        json["findings"][0]["text"]
            .as_str()
            .unwrap()
            .contains("BGREWRITEAOF")
    );

    client.say("BGREWRITEAOF");
    crate::support::eventually(
        "the rewrite is done",
        std::time::Duration::from_secs(30),
        || {
            let info = client.value(&["INFO", "persistence"]).to_string();
            info.contains("aof_rewrite_in_progress:0") && info.contains("aof_rewrites:1")
        },
    );
    shards.lockstep(&["audit"]).expect(0, &["P = 1 "]);
}

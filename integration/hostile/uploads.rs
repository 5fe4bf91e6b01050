//! Commands that are larger than anybody should keep: they are sent on while they come in.

use crate::Target;
use crate::support::{Client, Cluster, Value, encode, eventually, key_on, slot_of};
use std::time::Duration;

const SHARDS: usize = 3;
const MIB: usize = 1024 * 1024;
const LARGE: usize = 96 * MIB;
/// Enough to be sent on.
const SOME: usize = 8 * MIB;
/// What a large command may add to the proxy's memory: an aim of the project.
const GROWTH_MIB_MAX: u64 = 16;
/// Whatever goes on has gone on by then.
const PROMPT: Duration = Duration::from_secs(5);

fn ok() -> Value {
    Value::Simple(b"OK".to_vec())
}

/// A value that is the same nowhere.
fn value(bytes: usize) -> Vec<u8> {
    let words =
        (0..bytes as u32 / 4 + 1).flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes());
    words.take(bytes).collect()
}

/// Connections that commands on their way have.
fn under_way(cluster: &Cluster) -> f64 {
    let proxies = cluster.proxies().iter();
    proxies
        .map(|proxy| proxy.metric("lockstep_pinned_connections_in_use", ""))
        .sum()
}

/// Sends the beginning of a SET, and waits until it is on its way.
fn begin(cluster: &Cluster, client: &mut Client, key: &str, bytes: usize) -> Vec<u8> {
    let mut set = encode(&[b"SET", key.as_bytes(), &value(bytes)]);
    let rest = set.split_off(set.len() / 2);
    client.send(&set).expect("sent");
    if cluster.is_lockstep() {
        eventually("it is on its way", PROMPT, || under_way(cluster) > 0.0);
    }
    rest
}

/// Issue: a large value adds no more than this to the memory, and arrives as it is.
#[test]
fn large_commands_are_sent_on_while_they_come() {
    let target = Target::start(&[]);
    let cluster = &target.cluster;
    let key = key_on("value", 0, SHARDS);
    let mut client = cluster.client();
    let large = value(LARGE);
    let before = cluster.peak_kib(0);
    client.value(&["SET", &key, "old"]);
    assert_eq!(client.value(&[b"SET", key.as_bytes(), &large]), ok());
    let grown = (cluster.peak_kib(0) - before) / 1024;
    println!("memory has grown by {grown} MiB at most");
    assert!(
        grown <= GROWTH_MIB_MAX || !cluster.is_lockstep(),
        "by {grown} MiB"
    );
    let kept = cluster.shards()[0].client().value(&["GET", &key]);
    assert!(kept.bytes() == Some(&large[..]), "another value arrived");
}

/// What stands before it, behind it and beside the large argument counts as ever.
#[test]
fn large_commands_keep_their_place() {
    let target = Target::start(&[]);
    let cluster = &target.cluster;
    let (key, list) = (key_on("value", 0, SHARDS), key_on("list", 1, SHARDS));
    let some = value(SOME);
    let commands: [&[&[u8]]; 9] = [
        &[b"SET", key.as_bytes(), b"small"],
        &[b"SET", key.as_bytes(), &some, b"GET", b"EX", b"100"],
        &[b"STRLEN", key.as_bytes()],
        &[b"APPEND", key.as_bytes(), &some],
        &[b"RPUSH", list.as_bytes(), &some, b"", &some, b"last"],
        &[b"LLEN", list.as_bytes()],
        &[b"HSET", list.as_bytes(), b"field", &some],
        &[b"SET", key.as_bytes(), &some, b"NX", b"XX"],
        &[b"TTL", key.as_bytes()],
    ];
    let mut client = cluster.client();
    let mut sender = client.second_handle();
    let pipeline: Vec<u8> = commands.iter().flat_map(|words| encode(words)).collect();
    let sent = std::thread::spawn(move || sender.send(&pipeline));
    let replies: Vec<String> = (0..commands.len())
        .map(|_| client.read().expect("a reply").text())
        .collect();
    sent.join().expect("no panic").expect("sent");
    let expected = [
        "+OK\\r\\n".to_owned(),
        "$5\\r\\nsmall\\r\\n".to_owned(),
        format!(":{SOME}\\r\\n"),
        format!(":{}\\r\\n", 2 * SOME),
        ":4\\r\\n".to_owned(),
        ":4\\r\\n".to_owned(),
        "-WRONGTYPE Operation against a key holding the wrong kind of value\\r\\n".to_owned(),
        "-ERR syntax error\\r\\n".to_owned(),
        ":100\\r\\n".to_owned(),
    ];
    assert_eq!(replies, expected);
}

/// The connection that they go on is set to what the client's is set to.
#[test]
fn large_commands_go_to_the_database_of_the_client() {
    let target = Target::start(&[]);
    let cluster = &target.cluster;
    let key = key_on("value", 0, SHARDS);
    let mut client = cluster.client();
    assert_eq!(client.value(&["SELECT", "5"]), ok());
    client.value(&["HELLO", "3"]);
    let some = value(SOME);
    assert_eq!(
        client.value(&[b"SET", key.as_bytes(), &some, b"GET"]),
        Value::Nil
    );
    let mut shard = cluster.shards()[0].client();
    assert_eq!(shard.value(&["EXISTS", &key]), Value::Integer(0));
    shard.value(&["SELECT", "5"]);
    assert_eq!(shard.value(&["STRLEN", &key]), Value::Integer(SOME as i64));
    // Back where it was.
    assert_eq!(client.value(&["SELECT", "0"]), ok());
    assert_eq!(client.value(&[b"SET", key.as_bytes(), &some]), ok());
    assert_eq!(client.value(&["STRLEN", &key]), Value::Integer(SOME as i64));
}

/// P2: its reply is held like any other while its slot settles.
#[test]
fn the_reply_to_a_large_command_is_held_while_its_slot_settles() {
    let target = Target::start(&[]);
    let cluster = &target.cluster;
    if !cluster.is_lockstep() {
        return;
    }
    let key = key_on("value", 0, SHARDS);
    let slot = slot_of(key.as_bytes()).to_string();
    let mut shard = cluster.shards()[0].client();
    shard.value(&["HSET", "__lockstep:settling", &slot, "some-transaction"]);
    let mut client = cluster.client();
    client
        .send(&encode(&[b"SET", key.as_bytes(), &value(SOME)]))
        .expect("sent");
    eventually("the value is there", PROMPT, || {
        shard.value(&["STRLEN", &key]) == Value::Integer(SOME as i64)
    });
    client.reply_limit(Duration::from_millis(200));
    assert!(client.read_some().is_err(), "the reply left");
    client.reply_limit(PROMPT);
    shard.value(&["HDEL", "__lockstep:settling", &slot]);
    assert_eq!(client.read().expect("a reply").value, ok());
}

/// Who sends half of a command keeps nobody waiting, and leaves nothing when he goes: the shard runs
/// no part of it.
#[test]
fn half_a_command_changes_nothing() {
    let target = Target::start(&[]);
    let cluster = &target.cluster;
    let key = key_on("value", 0, SHARDS);
    let mut other = cluster.client();
    other.value(&["SET", &key, "old"]);
    let mut gone = cluster.client();
    begin(cluster, &mut gone, &key, SOME);
    assert_eq!(other.value(&["GET", &key]), Value::Bulk(b"old".to_vec()));
    drop(gone);
    let mut killed = cluster.client();
    let id = killed.value(&["CLIENT", "ID"]).integer().expect("an id");
    begin(cluster, &mut killed, &key, SOME);
    let kill = ["CLIENT", "KILL", "ID", &id.to_string()];
    assert_eq!(other.value(&kill), Value::Integer(1));
    assert!(killed.is_closed_within(PROMPT));
    eventually("the connections are free", PROMPT, || {
        under_way(cluster) == 0.0
    });
    assert_eq!(other.value(&["GET", &key]), Value::Bulk(b"old".to_vec()));
}

/// What is no rest of a command is answered as ever, and the command is not executed.
#[test]
fn a_large_command_that_breaks_the_protocol_changes_nothing() {
    let target = Target::start(&[]);
    let cluster = &target.cluster;
    let key = key_on("value", 0, SHARDS);
    cluster.client().value(&["SET", &key, "old"]);
    let some = value(SOME);
    let mut start =
        format!("*5\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${SOME}\r\n", key.len()).into_bytes();
    start.extend_from_slice(&some);
    for (rest, text) in [
        ("\r\n$-5\r\n", "invalid bulk length"),
        ("\r\nEX\r\n", "expected '$', got 'E'"),
        ("\r\n$536870913\r\n", "invalid bulk length"),
    ] {
        let mut client = cluster.client();
        client.send(&start).expect("sent");
        client.send(rest.as_bytes()).expect("sent");
        let error = client.read().expect("an error").value;
        let text = format!("ERR Protocol error: {text}");
        assert_eq!(error, Value::Error(text.into_bytes()));
        assert!(client.is_closed_within(PROMPT));
    }
    let mut client = cluster.client();
    if cluster.is_lockstep() {
        // Two bytes that Redis does not look at: what is sent on must be what it seems.
        client.send(&start).expect("sent");
        client.send(b"..$2\r\nEX\r\n$2\r\n10\r\n").expect("sent");
        let error = client.read().expect("an error").text();
        assert!(error.contains("does not end in CRLF"), "{error}");
        assert!(client.is_closed_within(PROMPT));
        eventually("the connections are free", PROMPT, || {
            under_way(cluster) == 0.0
        });
    }
    let kept = cluster.client().value(&["GET", &key]);
    assert_eq!(kept, Value::Bulk(b"old".to_vec()));
}

/// P6: a shard that is lost half way is told of at once, and the connection stays in step.
#[test]
fn a_shard_that_is_lost_amid_a_large_command_is_told_of() {
    let mut target = Target::start(&[]);
    let cluster = &mut target.cluster;
    if !cluster.is_lockstep() {
        return;
    }
    for line in ["connection to shard lost", "cannot connect to shard"] {
        cluster.expect_log(line);
    }
    let (key, other) = (key_on("value", 0, SHARDS), key_on("other", 1, SHARDS));
    let mut client = cluster.client();
    let mut rest = begin(cluster, &mut client, &key, LARGE);
    cluster.shard_mut(0).kill();
    rest.extend(encode(&["SET", &other, "v"]));
    client.send(&rest).expect("sent");
    let error = client.read().expect("an error").text();
    assert!(
        error.starts_with("-ERR connection to shard") && error.contains("the command was not sent"),
        "{error}"
    );
    assert_eq!(client.read().expect("a reply").value, ok());
}

/// What has to be looked at as a whole is, and means the same.
#[test]
fn large_commands_that_are_collected_work_as_ever() {
    let target = Target::start(&[]);
    let cluster = &target.cluster;
    let (a, b) = (key_on("a", 0, SHARDS), key_on("b", 1, SHARDS));
    let some = value(SOME);
    let mut client = cluster.client();
    let mset = [&b"MSET"[..], a.as_bytes(), &some, b.as_bytes(), &some];
    assert_eq!(client.value(&mset), ok());
    client.value(&["MULTI"]);
    client.value(&[b"APPEND", a.as_bytes(), &some]);
    client.value(&[b"APPEND", b.as_bytes(), &some]);
    let length = Value::Integer(2 * SOME as i64);
    assert_eq!(
        client.value(&["EXEC"]),
        Value::Array(vec![length.clone(), length])
    );
    let too_many = [b"GET", a.as_bytes(), &some];
    let error = b"ERR wrong number of arguments for 'get' command";
    assert_eq!(client.value(&too_many), Value::Error(error.to_vec()));
    assert_eq!(client.value(&["DEL", &a, &b]), Value::Integer(2));
}

//! Replies that are larger than anybody should keep: they leave while they come in.

use crate::Target;
use crate::support::{Client, Redis, Value, encode, eventually, key_on, slot_of};
use std::thread::sleep;
use std::time::{Duration, Instant};

const SHARDS: usize = 3;
const MIB: usize = 1024 * 1024;
const LARGE: usize = 96 * MIB;
/// What a large reply may add to the proxy's memory, in either direction of doubt: an aim of the
/// project.
const GROWTH_MIB_MAX: u64 = 16;
/// A reply that goes on has gone on by then.
const PROMPT: Duration = Duration::from_secs(5);

/// Puts a value of this size straight onto the shard.
fn put(shard: &Redis, key: &str, bytes: usize) {
    let set = shard
        .client()
        .value(&["SETRANGE", key, &(bytes - 1).to_string(), "x"]);
    assert_eq!(set, Value::Integer(bytes as i64));
}

/// Reads so many bytes, or up to the end; how many, and the last of them.
fn read(client: &mut Client, bytes: usize) -> (usize, Vec<u8>) {
    let (mut count, mut last) = (0, Vec::new());
    while count < bytes {
        let chunk = client.read_some().unwrap_or_default();
        if chunk.is_empty() {
            break;
        }
        count += chunk.len();
        last = chunk;
    }
    (count, last)
}

fn bulk_len(bytes: usize) -> usize {
    bytes + bytes.to_string().len() + 5
}

/// Issue: a large value or list adds no more than this to the memory, and comes as it is.
#[test]
fn large_replies_leave_while_they_come() {
    let target = Target::start(&[]);
    let cluster = &target.cluster;
    let (value, list) = (key_on("value", 0, SHARDS), key_on("list", 1, SHARDS));
    put(&cluster.shards()[0], &value, LARGE);
    let mut client = cluster.client();
    let many: Vec<String> = (0..20_000)
        .map(|number| format!("element {number:20}"))
        .collect();
    for _ in 0..20 {
        let mut push = vec!["RPUSH", list.as_str()];
        push.extend(many.iter().map(String::as_str));
        client.value(&push);
    }
    let before = cluster.peak_kib(0);
    client.send(&encode(&["GET", &value])).expect("sent");
    let (count, last) = read(&mut client, bulk_len(LARGE));
    assert_eq!(count, bulk_len(LARGE));
    assert!(last.ends_with(b"x\r\n"));
    assert_eq!(
        client.value(&["ECHO", "in step"]),
        Value::Bulk(b"in step".to_vec())
    );

    let range = encode(&["LRANGE", list.as_str(), "0", "-1"]);
    let all = |mut client: Client| {
        client.send(&range).expect("sent");
        client.drain(Duration::from_millis(500)).0
    };
    let (of_shard, of_proxy) = (all(cluster.shards()[1].client()), all(client));
    assert!(
        of_shard.len() > 10 * MIB && of_proxy == of_shard,
        "a list came otherwise"
    );
    let grown = (cluster.peak_kib(0) - before) / 1024;
    println!("memory has grown by {grown} MiB at most");
    assert!(
        grown <= GROWTH_MIB_MAX || !cluster.is_lockstep(),
        "by {grown} MiB"
    );
}

/// Issue: a reader that does not read is throttled, not buffered; and whoever needs the same shard
/// meanwhile is answered all the same.
#[test]
fn a_slow_reader_is_not_read_for_and_keeps_nobody_waiting() {
    let target = Target::start(&[]);
    let cluster = &target.cluster;
    let key = key_on("value", 0, SHARDS);
    put(&cluster.shards()[0], &key, LARGE);
    let before = cluster.peak_kib(0);
    let mut slow = cluster.client();
    slow.send(&encode(&["GET", &key])).expect("sent");
    // As long as a background search or two.
    sleep(Duration::from_millis(2_500));
    let grown = (cluster.peak_kib(0) - before) / 1024;
    assert!(
        grown <= GROWTH_MIB_MAX || !cluster.is_lockstep(),
        "by {grown} MiB"
    );

    let began = Instant::now();
    let mut other = cluster.client();
    let length = other.value(&["STRLEN", &key]);
    assert_eq!(length, Value::Integer(LARGE as i64));
    println!("another client waited {:?}", began.elapsed());
    let (count, last) = read(&mut slow, bulk_len(LARGE));
    assert!(
        count == bulk_len(LARGE) && last.ends_with(b"x\r\n"),
        "{count} bytes"
    );
    assert_eq!(
        slow.value(&["ECHO", "in step"]),
        Value::Bulk(b"in step".to_vec())
    );
}

/// P2: a large reply is held like any other while its slot settles.
#[test]
fn a_large_reply_is_held_while_its_slot_settles() {
    let target = Target::start(&[]);
    let cluster = &target.cluster;
    if !cluster.is_lockstep() {
        return;
    }
    let key = key_on("value", 0, SHARDS);
    put(&cluster.shards()[0], &key, 8 * MIB);
    let mut shard = cluster.shards()[0].client();
    let slot = slot_of(key.as_bytes()).to_string();
    shard.value(&["HSET", "__lockstep:settling", &slot, "some-transaction"]);
    let mut client = cluster.client();
    client.send(&encode(&["GET", &key])).expect("sent");
    eventually("the reply is held", PROMPT, || {
        cluster.proxies()[0].metric("lockstep_held_replies", "") > 0.0
    });
    client.reply_limit(Duration::from_millis(200));
    assert!(client.read_some().is_err(), "it left");
    client.reply_limit(PROMPT);
    shard.value(&["HDEL", "__lockstep:settling", &slot]);
    assert_eq!(read(&mut client, bulk_len(8 * MIB)).0, bulk_len(8 * MIB));
}

/// Replies leave in the order of the commands, large ones as well, and nothing stands inside them.
#[test]
fn large_replies_keep_their_place() {
    let target = Target::start(&[]);
    let cluster = &target.cluster;
    let (small, large) = (key_on("small", 1, SHARDS), key_on("value", 0, SHARDS));
    put(&cluster.shards()[0], &large, 8 * MIB);
    let mut client = cluster.client();
    client.value(&["SET", &small, "s"]);
    client.value(&["HELLO", "3"]);
    client.value(&["SUBSCRIBE", "news"]);
    // The first of three waits for a shard that stands still; the second comes meanwhile.
    cluster.shards()[1].pause();
    let commands = [["GET", &small], ["GET", &large], ["GET", &small]];
    let pipeline: Vec<u8> = commands.iter().flat_map(|words| encode(words)).collect();
    client.send(&pipeline).expect("sent");
    eventually("the second is there", PROMPT, || {
        let kept = cluster
            .proxies()
            .first()
            .map(|proxy| proxy.metric("lockstep_buffered_bytes", ""));
        kept.is_none_or(|bytes| bytes >= MIB as f64)
    });
    cluster.client().value(&["PUBLISH", "news", "now"]);
    cluster.shards()[1].resume();
    let mut replies = Vec::new();
    let mut messages = 0;
    while replies.len() < 3 || messages == 0 {
        match client.read().expect("a reply").value {
            Value::Bulk(bytes) => replies.push(bytes.len()),
            _ => messages += 1,
        }
    }
    assert_eq!((replies, messages), (vec![1, 8 * MIB, 1], 1));
}

/// Replies of several shards come at once, and leave one behind the other, all of them.
#[test]
fn large_replies_of_several_shards_wait_for_each_other() {
    let target = Target::start(&[]);
    let cluster = &target.cluster;
    let keys: Vec<String> = (0..SHARDS)
        .map(|shard| key_on("value", shard, SHARDS))
        .collect();
    for (shard, key) in cluster.shards().iter().zip(&keys) {
        put(shard, key, 24 * MIB);
    }
    let mut client = cluster.client();
    let pipeline: Vec<u8> = keys.iter().flat_map(|key| encode(&["GET", key])).collect();
    client.send(&pipeline).expect("sent");
    client.reply_limit(PROMPT);
    let all = SHARDS * bulk_len(24 * MIB);
    assert_eq!(read(&mut client, all).0, all);
}

/// Once a slow reader has taken its reply, the connection to the shard serves all as before.
#[test]
fn a_connection_is_used_again_after_a_slow_reader() {
    let target = Target::start(&[]);
    let cluster = &target.cluster;
    if !cluster.is_lockstep() {
        return;
    }
    let key = key_on("value", 0, SHARDS);
    put(&cluster.shards()[0], &key, LARGE);
    let mut shard = cluster.shards()[0].client();
    let mut clients = || shard.value(&["CLIENT", "LIST"]).bytes().map(<[u8]>::to_vec);
    let mut lines = || -> Vec<String> {
        let list = String::from_utf8(clients().expect("a list")).expect("a text");
        list.lines().map(str::to_owned).collect()
    };
    let mut slow = cluster.client();
    slow.send(&encode(&["GET", &key])).expect("sent");
    let mut id = None;
    eventually(
        "the shard keeps what the reader does not take",
        PROMPT,
        || {
            let line = lines().into_iter().find(|line| !line.contains(" omem=0 "));
            id = line.and_then(|line| line.split(' ').next().map(str::to_owned));
            id.is_some()
        },
    );
    assert_eq!(read(&mut slow, bulk_len(LARGE)).0, bulk_len(LARGE));
    // By the background search, if by nobody else.
    let id = id.expect("its id");
    eventually("something else is asked over it", PROMPT, || {
        let of_it = lines()
            .into_iter()
            .find(|line| line.starts_with(&format!("{id} ")));
        let line = of_it.expect("it is there");
        !line.contains(" cmd=get ") && !line.contains(" cmd=exists ")
    });
}

/// No error fits into the middle of a reply: if the rest is lost, so is the connection.
#[test]
fn a_reply_that_is_cut_short_ends_the_connection() {
    let mut target = Target::start(&[]);
    let cluster = &mut target.cluster;
    if !cluster.is_lockstep() {
        return;
    }
    for line in [
        "closed amid a reply",
        "connection to shard lost",
        "cannot connect to shard",
    ] {
        cluster.expect_log(line);
    }
    let key = key_on("value", 0, SHARDS);
    put(&cluster.shards()[0], &key, LARGE);
    let mut client = cluster.client();
    client.send(&encode(&["GET", &key])).expect("sent");
    let first = client.read_some().expect("a beginning");
    assert!(first.starts_with(b"$100663296\r\n"));
    cluster.shard_mut(0).kill();
    let (count, _) = read(&mut client, LARGE);
    assert!(count + first.len() < LARGE, "it had left already");
    let other = key_on("other", 1, SHARDS);
    assert_eq!(
        cluster.client().value(&["SET", &other, "v"]),
        Value::Simple(b"OK".to_vec())
    );
}

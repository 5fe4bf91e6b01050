//! P1 to P4 for transactions that run together as one (`src/engine/groups.rs`): each client gets its
//! own replies, in one order for all; nobody waits for a lock that is not in his way; and when the
//! proxy dies or is overtaken amid a group, each of its members is told the truth.

// A test program has no outside that could reach its items.
#![allow(unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};
use support::{Client, Cluster, Options, Value, encode, eventually, key_on, keys_on, slot_of};

const SHARDS: usize = 3;
const LIMIT: Duration = Duration::from_secs(15);
const LOCK_TTL: Duration = Duration::from_millis(1_200);
/// Where no transaction over several shards comes by.
const ELSEWHERE: &str = "single-before-exec";
/// Clients of the tests that stop the proxy.
const TOGETHER: usize = 8;

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

fn integer(value: &Value) -> i64 {
    value
        .integer()
        .unwrap_or_else(|| panic!("not a number: {value:?}"))
}

/// Transactions of these proxies, and the two-phase commits that they shared.
fn shared(proxies: &[support::Proxy]) -> (f64, f64) {
    let sum = |name: &str| -> f64 {
        let name = format!("lockstep_transaction_group_members_{name}");
        let of = |proxy: &support::Proxy| proxy.metric(&name, "");
        proxies.iter().map(of).sum()
    };
    (sum("sum"), sum("count"))
}

/// P2, P3: two counters on two shards go in step, whoever raises them, through two proxies; a
/// command that fails does so for its own client only; everybody reads back what is his.
#[test]
fn each_client_gets_its_own_replies_in_one_order() {
    const CLIENTS: usize = 32;
    const TURNS: i64 = 40;
    let cluster = Cluster::start(&Options {
        proxies: 2,
        ..Options::default()
    });
    let (left, right) = (key_on("left", 0, SHARDS), key_on("right", 1, SHARDS));
    let list = key_on("list", 0, SHARDS);
    cluster.client().say(&format!("RPUSH {list} element"));
    let own = keys_on("own:", 1, SHARDS, CLIENTS);
    std::thread::scope(|scope| {
        for (number, own) in own.iter().enumerate() {
            let (cluster, left, right, list) = (&cluster, &left, &right, &list);
            scope.spawn(move || {
                let mut client = cluster.client_at(number % 2);
                let mut seen = 0;
                for turn in 1..=TURNS {
                    let mut queue = vec![
                        words(&format!("INCR {left}")),
                        words(&format!("SET {own} {number}:{turn}")),
                    ];
                    if number % 3 == 0 {
                        queue.push(words(&format!("INCR {list}")));
                    }
                    queue.push(words(&format!("INCR {right}")));
                    queue.push(words(&format!("GET {own}")));
                    let reply = client.try_transaction(&queue).expect("a reply");
                    let replies = reply.elements();
                    assert_eq!(replies.len(), queue.len(), "{reply:?}");
                    let last = replies.len() - 1;
                    let at = integer(&replies[0]);
                    assert_eq!(at, integer(&replies[last - 1]), "torn: {reply:?}");
                    assert!(at > seen, "{at} behind {seen}");
                    seen = at;
                    let mine = format!("{number}:{turn}").into_bytes();
                    assert_eq!(replies[last], Value::Bulk(mine));
                    if number % 3 == 0 {
                        let failed = &replies[2];
                        assert!(
                            matches!(failed, Value::Error(text) if text.starts_with(b"WRONGTYPE")),
                            "{failed:?}"
                        );
                    }
                }
            });
        }
    });
    let all = CLIENTS as i64 * TURNS;
    let mut client = cluster.client();
    for counter in [&left, &right] {
        let value = Value::Bulk(all.to_string().into_bytes());
        assert_eq!(client.say(&format!("GET {counter}")), value);
    }
    if cluster.is_lockstep() {
        let (members, groups) = shared(cluster.proxies());
        assert!(members >= 2.0 * groups, "{members} in {groups}");
        cluster.wait_clean(LIMIT);
    }
}

/// A slot that a transaction of somebody else holds for a minute.
fn hold(shard: &mut Client, slot: usize) {
    let time = shard.say("TIME");
    let deadline = (integer(&time.elements()[0]) + 60) * 1000;
    shard.say(&format!(
        "HSET __lockstep:txn:planted-1 state prepared deadline {deadline} participants 0/0,1/0"
    ));
    shard.say(&format!("HSET __lockstep:index {slot} planted-1"));
}

/// P5: who wants a key that is locked waits by himself, not with those who came at the same time.
#[test]
fn who_waits_for_a_lock_keeps_nobody_waiting() {
    const LOCK_WAIT: Duration = Duration::from_secs(4);
    let cluster = Cluster::start(&Options {
        proxy: vec![("lock-wait-ms".to_owned(), LOCK_WAIT.as_millis().to_string())],
        ..Options::default()
    });
    if !cluster.is_lockstep() {
        return;
    }
    let locked = key_on("locked", 0, SHARDS);
    hold(
        &mut cluster.shards()[0].client(),
        slot_of(locked.as_bytes()),
    );
    let (here, there) = (keys_on("a:", 0, SHARDS, 24), keys_on("b:", 1, SHARDS, 24));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for (number, (here, there)) in here.iter().zip(&there).enumerate() {
            let (cluster, locked) = (&cluster, &locked);
            scope.spawn(move || {
                let mut client = cluster.client();
                // A third of them want the key as well, a moment after the first.
                while began.elapsed() < LOCK_WAIT / 2 {
                    let asked = Instant::now();
                    let wants = number % 3 == 0 && began.elapsed() > LOCK_WAIT / 8;
                    let first = if wants { locked } else { here };
                    let queue = [
                        words(&format!("INCR {first}")),
                        words(&format!("INCR {there}")),
                    ];
                    let reply = client.try_transaction(&queue).expect("a reply");
                    let took = asked.elapsed();
                    if wants {
                        assert!(
                            matches!(&reply, Value::Error(text) if text.starts_with(b"EXECABORT")),
                            "{reply:?}"
                        );
                        assert!(took >= LOCK_WAIT / 2, "{took:?}");
                    } else {
                        assert_eq!(reply.elements().len(), 2, "{reply:?}");
                        assert!(took < LOCK_WAIT / 4, "kept waiting for {took:?}");
                    }
                }
            });
        }
    });
    let (members, groups) = shared(cluster.proxies());
    assert!(members > groups, "{members} in {groups}");
}

/// Clients of the first proxy whose transactions are one group, stopped at this failpoint.
fn stop_amid(cluster: &Cluster, failpoint: &str, keys: &[(String, String)]) -> Vec<Client> {
    let proxy = &cluster.proxies()[0];
    let mut clients: Vec<Client> = keys.iter().map(|_| cluster.client_at(0)).collect();
    for client in &mut clients {
        client.say("PING");
    }
    // What they send while it stands still, and does not wait for anything, it sees in one turn.
    let mut first = cluster.client_at(0);
    proxy.arm(ELSEWHERE);
    for line in ["MULTI", "INCR elsewhere", "EXEC"] {
        first.send(&encode(&words(line))).expect("it is sent");
    }
    eventually("it stands still", LIMIT, || proxy.is_at(ELSEWHERE));
    for (client, (here, there)) in clients.iter_mut().zip(keys) {
        let lines = [
            "MULTI".to_owned(),
            format!("INCR {here}"),
            format!("APPEND {there} {here}"),
            "EXEC".to_owned(),
        ];
        let bytes: Vec<u8> = lines.iter().flat_map(|line| encode(&words(line))).collect();
        client.send(&bytes).expect("it is sent");
    }
    proxy.arm(failpoint);
    proxy.disarm(ELSEWHERE);
    eventually("it stands still", LIMIT, || proxy.is_at(failpoint));
    let largest = largest_record(&mut cluster.shards()[0].client());
    assert!(largest > 1, "{failpoint}: each is prepared alone");
    clients
}

/// The most transactions that one record of this shard promises.
fn largest_record(shard: &mut Client) -> usize {
    let records = shard.say("KEYS __lockstep:txn:*");
    let commands = |record: &Value| {
        let Value::Bulk(name) = record else { return 0 };
        let redo = shard.value(&[&b"HGET"[..], name, b"redo"]);
        match redo {
            Value::Bulk(redo) => redo.windows(4).filter(|word| word == b"INCR").count(),
            _ => 0,
        }
    };
    records.elements().iter().map(commands).max().unwrap_or(0)
}

fn in_doubt() -> (Cluster, Vec<(String, String)>) {
    let ttl = LOCK_TTL.as_millis().to_string();
    let settings = [
        ("lock-ttl-ms", &ttl[..]),
        ("decision-retention-ms", "30000"),
        ("recovery-scan-interval-ms", "200"),
    ];
    let cluster = Cluster::start(&Options {
        proxies: 2,
        proxy: settings
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        ..Options::default()
    });
    for pattern in ["recover", "settled", "late"] {
        cluster.expect_log(pattern);
    }
    let keys = keys_on("here:", 0, SHARDS, TOGETHER);
    let others = keys_on("there:", 1, SHARDS, TOGETHER);
    (cluster, keys.into_iter().zip(others).collect())
}

/// Whether the transaction on these keys is applied; it is never half. Asked at one instant, since
/// it may be settled just now.
fn is_applied(client: &mut Client, (here, there): &(String, String)) -> bool {
    let found = client.say(&format!("MGET {here} {there}"));
    match found.elements() {
        [Value::Nil, Value::Nil] => false,
        [Value::Bulk(one), Value::Bulk(appended)] if one == b"1" && appended == here.as_bytes() => {
            true
        }
        _ => panic!("torn: {found:?}"),
    }
}

/// P1, P5: a proxy dies with a group prepared. All of it is rolled forward, once.
#[test]
fn a_group_whose_proxy_dies_is_settled_as_a_whole() {
    for (failpoint, applied) in [
        ("coordinator-after-first-vote", false),
        ("coordinator-before-apply", true),
        ("coordinator-after-first-apply", true),
    ] {
        let (mut cluster, keys) = in_doubt();
        if !cluster.is_lockstep() {
            return;
        }
        let clients = stop_amid(&cluster, failpoint, &keys);
        cluster.kill(0);
        drop(clients);
        cluster.wait_settled(LOCK_TTL + Duration::from_secs(5));
        let mut client = cluster.client_at(1);
        let all: Vec<bool> = keys
            .iter()
            .map(|keys| is_applied(&mut client, keys))
            .collect();
        // One or the other may have come too late for the group, and was not prepared.
        let forward = all.iter().filter(|is_applied| **is_applied).count();
        assert_eq!(forward > 1, applied, "{failpoint}: {all:?}");
        assert!(cluster.consistency() >= 1.0, "{failpoint}");
    }
}

/// P3, P4: a proxy that is overtaken amid a group finds everybody's replies where the other left
/// them.
#[test]
fn a_group_that_is_overtaken_finds_its_replies() {
    let (cluster, keys) = in_doubt();
    if !cluster.is_lockstep() {
        return;
    }
    let failpoint = "coordinator-before-apply";
    let clients = stop_amid(&cluster, failpoint, &keys);
    let mut other = cluster.client_at(1);
    eventually("the other proxy settles it", LIMIT, || {
        is_applied(&mut other, &keys[0])
    });
    cluster.proxies()[0].disarm(failpoint);
    for (mut client, keys) in clients.into_iter().zip(&keys) {
        client.reply_limit(LIMIT);
        assert_eq!(client.read().expect("+OK").raw, b"+OK\r\n");
        for _ in 0..2 {
            assert_eq!(client.read().expect("+QUEUED").raw, b"+QUEUED\r\n");
        }
        let expected = format!("*2\r\n:1\r\n:{}\r\n", keys.0.len());
        let reply = client.read().expect("a reply");
        assert_eq!(reply.raw, expected.as_bytes(), "{}", reply.text());
        assert!(is_applied(&mut other, keys));
    }
    let (members, groups) = shared(&cluster.proxies()[..1]);
    assert!(
        members == TOGETHER as f64 && members > groups,
        "{members} in {groups}"
    );
    cluster.wait_settled(LIMIT);
}

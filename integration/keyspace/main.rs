//! Commands about the whole keyspace, every shard or all clients: as one Redis would answer, over
//! three shards. Each test names what it defends.

// A test program has no outside that could reach its items.
#![allow(unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod table;

use std::collections::BTreeSet;
use std::time::Duration;

use support::wait::eventually;
use support::{Client, Cluster, Options, Value, key_on, spread};

const SOON: Duration = Duration::from_secs(10);

fn cluster(workers: &str) -> Cluster {
    Cluster::start(&Options {
        proxy: vec![("workers".into(), workers.into())],
        ..Options::default()
    })
}

fn fill(client: &mut Client, count: usize) -> BTreeSet<Vec<u8>> {
    let keys: BTreeSet<Vec<u8>> = (0..count)
        .map(|i| format!("key:{i}").into_bytes())
        .collect();
    let sets: Vec<Vec<Vec<u8>>> = keys
        .iter()
        .map(|key| vec![b"SET".to_vec(), key.clone(), b"v".to_vec()])
        .collect();
    client.try_pipeline(&sets).expect("replies");
    keys
}

fn texts(value: &Value) -> Vec<Vec<u8>> {
    let elements = value.elements().iter();
    elements
        .filter_map(|element| element.bytes().map(<[u8]>::to_vec))
        .collect()
}

/// What a whole iteration of SCAN returns.
fn scan(client: &mut Client, options: &[&str]) -> Vec<Vec<u8>> {
    let (mut cursor, mut found) = (b"0".to_vec(), Vec::new());
    loop {
        let mut words: Vec<&[u8]> = vec![b"SCAN", &cursor];
        words.extend(options.iter().map(|option| option.as_bytes()));
        let page = client.value(&words);
        let next = page.elements()[0].bytes().expect("a cursor").to_vec();
        found.extend(texts(&page.elements()[1]));
        if next == b"0" {
            return found;
        }
        cursor = next;
    }
}

/// SCAN returns every key that is there from the first call to the last, whatever comes and goes
/// meanwhile, and nothing of lockstep's own; so do KEYS and DBSIZE.
#[test]
fn every_key_is_shown_and_none_of_ours() {
    let cluster = cluster("1");
    let mut client = cluster.client();
    let keys = fill(&mut client, 3_000);
    // Leaves an epoch on every shard.
    client.say("MSET key:1 v key:2 v key:3 v key:4 v");
    assert_eq!(client.say("DBSIZE").integer(), Some(3_000));
    let all: BTreeSet<_> = texts(&client.say("KEYS *")).into_iter().collect();
    assert_eq!(all, keys);
    for options in [&["COUNT", "7"][..], &["COUNT", "5000"], &["MATCH", "key:*"]] {
        let found: BTreeSet<_> = scan(&mut client, options).into_iter().collect();
        assert_eq!(found, keys, "{options:?}");
    }
    client.say("RPUSH list 1");
    assert_eq!(scan(&mut client, &["TYPE", "list"]), [b"list".to_vec()]);
    let drawn = client.say("RANDOMKEY");
    assert!(keys.contains(drawn.bytes().unwrap_or_default()) || drawn.bytes() == Some(b"list"));
}

/// Keys that stay are found while others come and go, so that tables grow and shrink.
#[test]
fn a_scan_misses_no_key_that_stays() {
    let cluster = cluster("1");
    let mut client = cluster.client();
    let keys = fill(&mut client, 500);
    let (mut cursor, mut found, mut round) = (b"0".to_vec(), BTreeSet::new(), 0);
    loop {
        let page = client.value(&[&b"SCAN"[..], &cursor, b"COUNT", b"20"]);
        found.extend(texts(&page.elements()[1]));
        cursor = page.elements()[0].bytes().expect("a cursor").to_vec();
        if cursor == b"0" {
            break;
        }
        for i in 0..50 {
            client.say(&format!("SET other:{round}:{i} v"));
        }
        round += 1;
    }
    assert!(found.is_superset(&keys));
}

/// An empty keyspace is empty, whatever lockstep keeps.
#[test]
fn ours_do_not_make_a_keyspace() {
    let cluster = cluster("1");
    let mut client = cluster.client();
    client.say("MSET a 1 b 2 c 3 d 4");
    client.say("DEL a b c d");
    cluster.wait_settled(SOON);
    assert_eq!(client.say("DBSIZE").integer(), Some(0));
    assert_eq!(client.say("RANDOMKEY"), Value::Nil);
    assert_eq!(client.say("KEYS *").elements(), []);
    assert_eq!(scan(&mut client, &[]), Vec::<Vec<u8>>::new());
    assert!(!info(&mut client, "keyspace").contains("db0"));
}

fn info(client: &mut Client, section: &str) -> String {
    let text = client.say(&format!("INFO {section}"));
    String::from_utf8_lossy(text.bytes().unwrap_or_default()).into_owned()
}

/// A shard that is down is named, and its part is never left out silently.
#[test]
fn a_missing_shard_is_an_error_that_names_it() {
    let mut cluster = cluster("1");
    cluster.expect_log("shard");
    let mut client = cluster.client();
    fill(&mut client, 30);
    let address = cluster.shards()[1].address();
    cluster.shard_mut(1).kill();
    for line in [
        "KEYS *",
        "DBSIZE",
        "CONFIG GET maxmemory",
        "SLOWLOG GET",
        "LASTSAVE",
    ] {
        eventually(line, SOON, || {
            let error = client.say(line).error().unwrap_or_default();
            error.contains(&address)
        });
    }
    assert!(info(&mut client, "lockstep").contains(&format!("address={address},state=down")));
}

/// Settings reach every shard; what promises rest on stays, and the text says why.
#[test]
fn settings_reach_every_shard_but_for_the_protected() {
    let cluster = cluster("1");
    let mut client = cluster.client();
    assert_eq!(
        client.say("CONFIG SET hash-max-listpack-entries 7").bytes(),
        Some(&b"OK"[..])
    );
    for shard in cluster.shards() {
        let found = shard.client().say("CONFIG GET hash-max-listpack-entries");
        assert_eq!(found.elements()[1].bytes(), Some(&b"7"[..]));
    }
    for line in [
        "CONFIG SET maxmemory-policy allkeys-lru",
        "CONFIG SET requirepass x",
    ] {
        let error = client.say(line).error().unwrap_or_default();
        assert!(
            error.starts_with("ERR CONFIG SET failed (possibly related to argument '"),
            "{error}"
        );
    }
    for line in [
        "CONFIG SET maxmemory-policy noeviction",
        "CONFIG SET requirepass \"\"",
    ] {
        let line: Vec<&str> = line.split(' ').map(|word| word.trim_matches('"')).collect();
        assert_eq!(client.value(&line).bytes(), Some(&b"OK"[..]), "{line:?}");
    }
    let unknown = client
        .say("CONFIG SET no-such-thing 1")
        .error()
        .unwrap_or_default();
    assert!(
        unknown.starts_with("ERR Unknown option") && !unknown.contains("shard"),
        "{unknown}"
    );
}

/// What one Redis refuses for its own state is refused in its words, and the shared connection
/// and transactions go on working behind it.
#[test]
fn errors_of_a_shard_are_handed_on_and_poison_nothing() {
    let cluster = cluster("1");
    let mut client = cluster.client();
    let keys = spread("k", 3, 3);
    let shard = &cluster.shards()[0];
    let here = &key_on("h", 0, 3);
    for (on, off, code) in [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "OOM "),
        (
            "CONFIG SET min-replicas-to-write 1",
            "CONFIG SET min-replicas-to-write 0",
            "NOREPLICAS ",
        ),
    ] {
        assert_eq!(shard.client().say(on).bytes(), Some(&b"OK"[..]));
        let error = client
            .say(&format!("SET {here} 1"))
            .error()
            .unwrap_or_default();
        assert!(error.starts_with(code), "{error}");
        assert_eq!(client.say(&format!("GET {here}")), Value::Nil);
        let refused = client.say(&format!("MSET {} 1 {} 1 {} 1", keys[0], keys[1], keys[2]));
        assert!(refused.error().is_some(), "{refused}");
        assert_eq!(shard.client().say(off).bytes(), Some(&b"OK"[..]));
        let done = client.say(&format!("MSET {} 1 {} 1 {} 1", keys[0], keys[1], keys[2]));
        assert_eq!(done.bytes(), Some(&b"OK"[..]), "{done}");
        client.say(&format!("DEL {} {} {}", keys[0], keys[1], keys[2]));
    }
    cluster.wait_settled(SOON);
}

/// Clients of other workers are listed, killed and unblocked like one's own.
#[test]
fn clients_of_all_workers_are_reached() {
    let cluster = cluster("3");
    let mut me = cluster.client();
    let mut others: Vec<Client> = (0..6).map(|_| cluster.client()).collect();
    let ids: Vec<i64> = others
        .iter_mut()
        .map(|other| other.say("CLIENT ID").integer().expect("an id"))
        .collect();
    let list = me.say("CLIENT LIST");
    let list = String::from_utf8_lossy(list.bytes().unwrap_or_default()).into_owned();
    assert_eq!(list.lines().count(), 7, "{list}");
    for (other, id) in others.iter_mut().zip(&ids).take(3) {
        assert_eq!(me.say(&format!("CLIENT KILL ID {id}")).integer(), Some(1));
        assert!(other.is_closed_within(SOON));
    }
    for (how, other, id) in [("TIMEOUT", 3, ids[3]), ("ERROR", 4, ids[4])] {
        others[other]
            .send(b"BLPOP nothing:here 0\r\n")
            .expect("sent");
        eventually("it waits", SOON, || {
            me.say(&format!("CLIENT UNBLOCK {id} {how}")).integer() == Some(1)
        });
        let reply = others[other].read().expect("a reply").value;
        match how {
            "TIMEOUT" => assert!(matches!(reply, Value::Nil), "{reply}"),
            _ => assert!(
                reply.error().unwrap_or_default().starts_with("UNBLOCKED "),
                "{reply}"
            ),
        }
        assert_eq!(others[other].say("PING").bytes(), Some(&b"PONG"[..]));
    }
    others[5].send(b"BLPOP nothing:here 0\r\n").expect("sent");
    eventually("one is blocked", SOON, || {
        info(&mut me, "clients").contains("blocked_clients:1\r\n")
    });
    assert_eq!(
        me.say(&format!("CLIENT KILL ID {}", ids[5])).integer(),
        Some(1)
    );
    eventually("none is blocked", SOON, || {
        info(&mut me, "clients").contains("blocked_clients:0\r\n")
    });
}

/// A pause of writes holds writes and nothing else, of all workers, until it is lifted.
#[test]
fn a_pause_holds_writes_until_it_is_lifted() {
    let cluster = cluster("2");
    let (mut me, mut other) = (cluster.client(), cluster.client());
    assert_eq!(me.say("CLIENT PAUSE 60000 WRITE").bytes(), Some(&b"OK"[..]));
    assert_eq!(other.say("GET a"), Value::Nil);
    other.send(b"SET a 1\r\n").expect("sent");
    assert_eq!(me.say("GET a"), Value::Nil);
    assert_eq!(me.say("CLIENT UNPAUSE").bytes(), Some(&b"OK"[..]));
    assert_eq!(
        other.read().expect("a reply").value.bytes(),
        Some(&b"OK"[..])
    );
    assert_eq!(me.say("GET a").bytes(), Some(&b"1"[..]));
}

/// What a queue asks of lockstep itself is answered in its place.
#[test]
fn questions_about_the_server_are_answered_inside_multi() {
    let cluster = cluster("1");
    let mut client = cluster.client();
    for line in [
        "MULTI",
        "SET a 1",
        "CONFIG GET maxmemory",
        "SET b 2",
        "INFO server",
    ] {
        assert!(client.say(line).error().is_none(), "{line}");
    }
    let exec = client.say("EXEC");
    assert_eq!(exec.elements().len(), 4, "{exec}");
    assert_eq!(
        exec.elements()[1].elements()[0].bytes(),
        Some(&b"maxmemory"[..])
    );
    let info = exec.elements()[3].bytes().unwrap_or_default();
    assert!(info.starts_with(b"# Server"), "{exec}");
}

//! Limits that an operator sets on what clients ask, each with its error and its metric; and the
//! circuit breaker before a shard that does not answer.

use std::time::{Duration, Instant};

use crate::running::until;
use crate::support::{Cluster, Options, Value, key_on};

fn started(settings: &[(&str, &str)]) -> Cluster {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Cluster::start(&Options {
        proxy: settings.iter().map(own).collect(),
        ..Options::default()
    })
}

fn hits(cluster: &Cluster, limit: &str) -> f64 {
    let label = format!("\"{limit}\"");
    cluster.proxies()[0].metric("lockstep_limits_hit_total", &label)
}

fn error(value: &Value) -> String {
    value.error().unwrap_or_default()
}

#[test]
fn denied_commands_are_denied_wherever_they_stand() {
    let cluster = started(&[("deny-commands", "FlushAll, config|set,nosuch")]);
    cluster.expect_log("deny-commands names a command that the shards do not know name=\"nosuch\"");
    let mut client = cluster.client();
    let denied = "ERR FLUSHALL is denied by the settings of this lockstep (deny-commands)";
    assert_eq!(error(&client.say("flushall")), denied);
    assert!(error(&client.say("CONFIG SET maxmemory 0")).starts_with("ERR CONFIG SET is denied"));
    assert!(client.say("CONFIG GET maxmemory").error().is_none());
    assert!(client.say("FLUSHDB").error().is_none());
    client.say("MULTI");
    assert_eq!(error(&client.say("FLUSHALL")), denied);
    assert!(error(&client.say("EXEC")).starts_with("EXECABORT"));
    assert_eq!(hits(&cluster, "denied_command"), 3.0);
    until("the log names what denies nothing", || {
        cluster.proxies()[0].log().contains("nosuch")
    });
}

#[test]
fn a_client_that_asks_too_often_is_told_so_and_others_are_not() {
    let cluster = started(&[("client-commands-per-second-max", "20")]);
    let (mut eager, mut calm) = (cluster.client(), cluster.client());
    let pings = vec![vec!["PING"]; 200];
    let replies = eager.try_pipeline(&pings).unwrap();
    let refused = replies
        .iter()
        .filter(|reply| reply.value.error().is_some())
        .count();
    // 20 at once, and what comes in the time that this takes.
    assert!(
        (100..=180).contains(&refused),
        "{refused} of 200 were refused"
    );
    assert!(calm.say("PING").error().is_none());
    assert_eq!(hits(&cluster, "client_rate"), refused as f64);
    until("it may ask again", || eager.say("PING").error().is_none());
}

/// Clients that announce much and never end keep memory: they go, and the others are served.
#[test]
fn memory_is_bounded_over_all_clients() {
    const MIB: usize = 1 << 20;
    let cluster = started(&[("memory-bytes-max", "3mb")]);
    for pattern in ["memory-bytes-max waits", "disconnected"] {
        cluster.expect_log(pattern);
    }
    let proxy = &cluster.proxies()[0];
    let mut good = cluster.client();
    let hogs: Vec<_> = (0..5)
        .map(|_| {
            let mut hog = cluster.client();
            let head = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n", 4 * MIB);
            hog.send(head.as_bytes()).unwrap();
            hog.send(&vec![b'x'; MIB]).unwrap();
            hog
        })
        .collect();
    until("clients are not read from", || {
        hits(&cluster, "memory") > 0.0
    });
    until("who keeps most is sent away", || {
        hits(&cluster, "memory_eviction") > 0.0
    });
    until("it is bounded", || {
        let bytes = proxy.metric("lockstep_buffered_bytes", "");
        bytes > 0.0 && bytes <= (3 * MIB) as f64
    });
    assert!(good.say("PING").error().is_none());
    drop(hogs);
    until("nothing waits", || {
        proxy.metric("lockstep_buffered_bytes", "") == 0.0
    });
    assert!(cluster.client().say("PING").error().is_none());
}

/// A shard that takes connections and greets, and never answers a request: one client at a time
/// waits for it, the others are told at once, and other shards are not slower.
#[test]
fn a_shard_that_never_answers_is_left_alone() {
    let cluster = started(&[
        ("request-timeout-ms", "300"),
        ("reconnect-backoff-min-ms", "500"),
        ("reconnect-backoff-max-ms", "1000"),
    ]);
    cluster.expect_log("shard");
    let proxy = &cluster.proxies()[0];
    let (dead, alive) = (key_on("k", 1, 3), key_on("k", 0, 3));
    let address = cluster.shards()[1].address();
    let stands = |state: &str| {
        let label = format!("shard=\"{address}\",state=\"{state}\"");
        proxy.metric("lockstep_shard_circuit_workers", &label) == 1.0
    };
    until("all is well", || stands("closed"));
    let mut direct = cluster.shards()[1].client();
    assert!(direct.say("CLIENT PAUSE 600000 WRITE").error().is_none());
    let mut client = cluster.client();
    let lost = error(&client.say(&format!("SET {dead} 1")));
    assert!(lost.contains("no reply within 300 ms"), "{lost}");
    until("it is open", || stands("open"));
    let (mut at_once, mut waited) = (0, 0);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        let asked = Instant::now();
        assert!(client.say(&format!("SET {dead} 1")).error().is_some());
        match asked.elapsed() < Duration::from_millis(150) {
            true => at_once += 1,
            false => waited += 1,
        }
        assert!(client.say(&format!("SET {alive} 1")).error().is_none());
    }
    println!("in 4 s {at_once} were told at once, {waited} waited");
    assert!(
        at_once > 20 * waited && waited <= 6,
        "{at_once} at once, {waited} waited"
    );
    assert!(hits(&cluster, "circuit") >= f64::from(at_once));
    direct.say("CLIENT UNPAUSE");
    until("it is served again", || {
        client.say(&format!("SET {dead} 1")).error().is_none()
    });
    until("it is closed", || stands("closed"));
}

/// LOCKSTEP SLOWLOG tells how long a command took from here, and how much of that the shard did.
#[test]
fn what_was_slow_is_told_with_the_share_of_the_shard() {
    let cluster = started(&[("slowlog-slower-than-ms", "80"), ("slowlog-max-len", "2")]);
    let mut client = cluster.client();
    let key = key_on("slow", 1, 3);
    assert!(client.say("LOCKSTEP SLOWLOG GET").elements().is_empty());
    assert!(client.say(&format!("SET {key} quick")).error().is_none());
    cluster.shards()[1].pause();
    client
        .send(&crate::support::encode(&["SET", &key, "late"]))
        .unwrap();
    std::thread::sleep(Duration::from_millis(150));
    cluster.shards()[1].resume();
    assert!(client.read().unwrap().value.error().is_none());
    let log = client.say("LOCKSTEP SLOWLOG GET 5");
    let [entry] = log.elements() else {
        panic!("{log:?}")
    };
    let entry = entry.elements();
    let (taken, by_shard) = (entry[2].integer().unwrap(), entry[3].integer().unwrap());
    assert!(
        taken >= 100_000 && (100_000..=taken).contains(&by_shard),
        "{taken} {by_shard}"
    );
    let args: Vec<_> = entry[4]
        .elements()
        .iter()
        .filter_map(Value::bytes)
        .collect();
    assert_eq!(args, [b"SET", key.as_bytes(), b"late"]);
    assert_eq!(client.say("LOCKSTEP SLOWLOG LEN").integer(), Some(1));
    assert_eq!(
        cluster.proxies()[0].metric("lockstep_slow_commands_total", ""),
        1.0
    );
    client.say("LOCKSTEP SLOWLOG RESET");
    assert_eq!(client.say("LOCKSTEP SLOWLOG LEN").integer(), Some(0));
    assert!(client.say("LOCKSTEP SLOWLOG NONSENSE").error().is_some());
}

#[test]
fn hot_keys_are_found_by_a_sample() {
    let cluster = started(&[("hotkeys-sample", "4")]);
    let mut client = cluster.client();
    for round in 0..400 {
        client.say(&format!("GET cold:{round}"));
        client.say("MGET hot also:hot");
        client.say("GET hot");
    }
    let hottest = client.say("LOCKSTEP HOTKEYS 1");
    let [first] = hottest.elements() else {
        panic!("{hottest:?}")
    };
    let first = first.elements();
    assert_eq!(first[0].bytes(), Some(&b"hot"[..]));
    let (count, error) = (first[1].integer().unwrap(), first[2].integer().unwrap());
    // Two of three of 1,200 commands, one in four looked at.
    assert!((150..=260).contains(&(count - error)), "{count} {error}");
    client.say("LOCKSTEP HOTKEYS RESET");
    assert!(client.say("LOCKSTEP HOTKEYS").elements().is_empty());
}

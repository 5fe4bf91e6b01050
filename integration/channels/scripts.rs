//! Scripts that shards have lost, and scripts that do not say what they touch.

use std::time::Duration;

use crate::support::{
    Cluster, Options, Value, encode, eventually, eventually_with, key_on, spread,
};

const LIMIT: Duration = Duration::from_secs(10);
const SOURCE: &str = "return redis.call('INCRBY', KEYS[1], ARGV[1])";

/// Issue: NOSCRIPT healed when the script is known; a restart of a shard, or a SCRIPT FLUSH that
/// bypasses lockstep, goes unnoticed.
#[test]
fn a_lost_script_is_found_again() {
    let mut cluster = Cluster::start(&Options::default());
    for pattern in ["shard", "connect"] {
        cluster.expect_log(pattern);
    }
    let mut client = cluster.client();
    let keys = spread("k", cluster.shards().len(), 3);
    let Value::Bulk(sha) = client.value(&["SCRIPT", "LOAD", SOURCE]) else {
        panic!("a name");
    };
    let sha = String::from_utf8(sha).expect("hex");
    cluster.shards()[0].client().call(&["SCRIPT", "FLUSH"]);
    cluster.shard_mut(1).restart();
    for key in &keys {
        let run = |client: &mut crate::support::Client| match client
            .value(&["EVALSHA", &sha, "1", key, "5"])
        {
            Value::Integer(5) => Ok(()),
            other => Err(other),
        };
        // Until the restarted shard is reached; an error of the connection is not the script's.
        eventually_with("the script runs", LIMIT, || match run(&mut client) {
            Err(other) if other.to_string().contains("NOSCRIPT") => panic!("{other}"),
            done => done,
        });
    }
    cluster.shards().iter().for_each(|shard| {
        shard.client().call(&["SCRIPT", "FLUSH"]);
    });
    let queue: Vec<Vec<&str>> = keys
        .iter()
        .map(|key| vec!["EVALSHA", &sha, "1", key, "2"])
        .collect();
    let sevens = vec![Value::Integer(7); keys.len()];
    // In a transaction over all shards it stands with its source.
    assert_eq!(
        client.try_transaction(&queue).expect("an answer"),
        Value::Array(sevens)
    );
    cluster.expect_log("has lost our scripts");
    cluster.wait_settled(LIMIT);
}

/// No command is half-done silently: a script that declares no key touches none.
#[test]
fn scripts_without_keys_touch_nothing() {
    let cluster = Cluster::start(&Options::default());
    let mut client = cluster.client();
    let key = key_on("k", 1, cluster.shards().len());
    let set = format!("return redis.call('SET', '{key}', 1)");
    let flush = "return redis.call('FLUSHALL')".to_owned();
    for source in [&set, &flush] {
        let refused = |reply: Value, how: &str| {
            let error = reply.error().unwrap_or_default();
            assert!(error.starts_with("CROSSSLOT "), "{how}: {source}: {reply}");
        };
        refused(client.value(&["EVAL", source, "0"]), "EVAL");
        let queue = [vec!["EVAL", source, "0"]];
        let reply = client.try_transaction(&queue).expect("an answer");
        let Value::Array(replies) = reply else {
            panic!("{reply}")
        };
        refused(replies[0].clone(), "in MULTI");
    }
    // Nor by a way round.
    for way in [
        format!("return redis['ca' .. 'll']('SET', '{key}', 1)"),
        format!("return _G['re' .. 'dis']['ca' .. 'll']('SET', '{key}', 1)"),
        format!("return getfenv(0)['re' .. 'dis']['ca' .. 'll']('SET', '{key}', 1)"),
        format!("return loadstring('return redis.ca' .. 'll(\\'SET\\', \\'{key}\\', 1)')()"),
    ] {
        let reply = client.value(&["EVAL", &way, "0"]);
        assert!(reply.error().is_some(), "{way}: {reply}");
    }
    let library = format!(
        "#!lua name=l\nredis.register_function('f', function() {set} end)\n\
         redis.register_function('g', function() return 1 end)"
    );
    assert!(
        client
            .value(&["FUNCTION", "LOAD", &library])
            .error()
            .is_none()
    );
    let error = client
        .value(&["FCALL", "f", "0"])
        .error()
        .unwrap_or_default();
    assert!(error.starts_with("CROSSSLOT "), "{error}");
    for shard in cluster.shards() {
        assert_eq!(shard.client().value(&["EXISTS", &key]), Value::Integer(0));
    }
}

/// A script whose reply was given up keeps its shard from nobody for long, nor does the one that
/// was sent behind it; what is somebody else's runs on.
#[test]
fn a_script_that_was_given_up_is_ended() {
    let cluster = Cluster::start(&Options {
        proxy: vec![("request-timeout-ms".into(), "400".into())],
        ..Options::default()
    });
    for pattern in ["shard", "script"] {
        cluster.expect_log(pattern);
    }
    let shard = &cluster.shards()[0];
    shard
        .client()
        .call(&["CONFIG", "SET", "busy-reply-threshold", "50"]);
    let key = key_on("k", 0, cluster.shards().len());
    let forever = encode(&["EVAL", "while true do end", "1", &key]);
    let mut clients = [cluster.client(), cluster.client()];
    for client in &mut clients {
        client.send(&forever).expect("sent");
    }
    for client in &mut clients {
        let error = client.read().expect("a reply").value.error();
        assert!(error.is_some(), "neither ended by itself");
    }
    let mut other = cluster.client();
    let mut is_served = || other.value(&["SET", &key, "1"]).error().is_none();
    eventually("the shard serves again", LIMIT, &mut is_served);

    let mut stranger = shard.client();
    stranger.send(&forever).expect("sent");
    eventually("the shard is busy", LIMIT, || !is_served());
    let (answer, is_closed) = stranger.drain(Duration::from_millis(1500));
    assert!(answer.is_empty() && !is_closed, "it runs on");
    shard.client().call(&["SCRIPT", "KILL"]);
    eventually("the shard serves again", LIMIT, &mut is_served);
}

/// A shard that is busy with a script says so, in its own words, to whoever needs it, behind that
/// script or on another connection; nobody else notices; and the script can be ended.
#[test]
fn a_busy_shard_says_so() {
    let cluster = Cluster::start(&Options {
        proxy: vec![("workers".into(), "2".into())],
        ..Options::default()
    });
    cluster.expect_log("busy with a script");
    let shards = cluster.shards().len();
    let (busy, well) = (key_on("k", 0, shards), key_on("k", 1, shards));
    let mut clients = [cluster.client(), cluster.client(), cluster.client()];
    clients[1].call(&["CONFIG", "SET", "busy-reply-threshold", "10"]);
    let forever = encode(&["EVAL", "while true do end", "1", &busy]);
    clients[0].send(&forever).expect("sent");
    for client in &mut clients[1..] {
        let mut says = |words: &[&str]| client.value(words).error().unwrap_or_default();
        eventually("PING is refused", LIMIT, || {
            says(&["PING"]).starts_with("BUSY ")
        });
        let told = cluster.shards()[0].client().value(&["PING"]).error();
        let told = told.expect("it is busy");
        for words in [
            &["GET", &busy][..],
            &["DBSIZE"],
            &["FLUSHALL"],
            &["SCRIPT", "LOAD", "return 1"],
            &["CONFIG", "SET", "maxmemory", "0"],
            // What the busy shard says of that, as no function runs.
            &["FUNCTION", "STATS"],
        ] {
            assert_eq!(says(words), told, "{words:?}");
        }
        assert!(says(&["FUNCTION", "KILL"]).starts_with("BUSY "));
        assert_eq!(says(&["SET", &well, "1"]), "");
        client.say("MULTI");
        client.value(&["SET", &busy, "1"]);
        let discarded = format!("EXECABORT Transaction discarded because of: {told}");
        let error = client.say("EXEC").error().unwrap_or_default();
        assert!(error.starts_with(&discarded), "{error}");
        assert_eq!(client.value(&["GET", &well]), Value::Bulk(b"1".to_vec()));
    }
    assert_eq!(clients[1].call(&["SCRIPT", "KILL"]).raw, b"+OK\r\n");
    let ended = clients[0].read().expect("a reply").value.error();
    assert!(ended.unwrap_or_default().contains("killed by user"));
    eventually("PING is answered", LIMIT, || {
        clients[2].call(&["PING"]).raw == b"+PONG\r\n"
    });
    assert_eq!(clients[0].value(&["SET", &busy, "1"]).error(), None);
    assert_eq!(
        cluster.proxies()[0].metric("lockstep_limits_hit_total", "request_timeout"),
        0.0
    );
}

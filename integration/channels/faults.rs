//! Several proxies, restarts, slow subscribers, and clients that come and go.

use std::time::{Duration, Instant};

use rand::RngExt;

use crate::support::{
    Client, Cluster, Options, Seed, Value, encode, eventually, key_on, seed::PrintOnFailure, spread,
};

const LIMIT: Duration = Duration::from_secs(10);

fn bulk(text: &str) -> Value {
    Value::Bulk(text.as_bytes().to_vec())
}

fn message(channel: &str, text: &str) -> Value {
    Value::Array(vec![bulk("message"), bulk(channel), bulk(text)])
}

/// Subscribes, and reads the confirmations.
fn subscribe(client: &mut Client, channels: &[String]) {
    let mut command = vec!["SUBSCRIBE".to_owned()];
    command.extend_from_slice(channels);
    client.send(&encode(&command)).expect("sent");
    for _ in channels {
        client.read().expect("a confirmation");
    }
}

/// Issue: through any proxy. What one proxy publishes, clients of another hear, whichever shard
/// the channel belongs to, by script and as keyspace events too.
#[test]
fn another_proxy_hears_it() {
    let options = Options {
        proxies: 2,
        redis: vec!["--notify-keyspace-events", "KEA"],
        ..Options::default()
    };
    let cluster = Cluster::start(&options);
    let (mut publisher, mut listener) = (cluster.client_at(0), cluster.client_at(1));
    let channels = spread("c", cluster.shards().len(), 6);
    subscribe(&mut listener, &channels);
    for channel in &channels {
        let told = publisher.value(&["PUBLISH", channel, "hello"]);
        assert_eq!(told, Value::Integer(1), "{channel}");
        assert_eq!(
            listener.read().expect("heard").value,
            message(channel, "hello")
        );
    }
    // A script publishes where its key is, not where the channel is.
    for shard in 0..cluster.shards().len() {
        let key = key_on("k", shard, cluster.shards().len());
        let script = "return redis.call('publish', ARGV[1], 'by script')";
        publisher.value(&["EVAL", script, "1", &key, &channels[0]]);
        assert_eq!(
            listener.read().expect("heard").value,
            message(&channels[0], "by script")
        );
    }
    events_of_all_shards(&cluster, &mut publisher);
}

/// Keyspace events come from every shard, and none of our own keys'.
fn events_of_all_shards(cluster: &Cluster, writer: &mut Client) {
    let mut listener = cluster.client_at(1);
    let keys = spread("e", cluster.shards().len(), 3);
    listener
        .send(&encode(&["PSUBSCRIBE", "__key*__:*"]))
        .expect("sent");
    listener.read().expect("a confirmation");
    subscribe(&mut listener, &["__keyevent@0__:set".to_owned()]);
    let mut command = vec!["MSET".to_owned()];
    command.extend(keys.iter().flat_map(|key| [key.clone(), "1".to_owned()]));
    assert_eq!(writer.value(&command), Value::Simple(b"OK".to_vec()));
    writer.value(&["PUBLISH", "__keyevent@0__:end", "end"]);
    let (mut heard, mut left) = (Vec::new(), 3 * keys.len() + 1);
    while left > 0 {
        let reply = listener.read().expect("an event");
        assert!(!reply.text().contains("__lockstep"), "{}", reply.text());
        heard.push(reply.text());
        left -= 1;
    }
    for key in &keys {
        let events = heard.iter().filter(|text| text.contains(key.as_str()));
        assert_eq!(events.count(), 3, "{key}: {heard:?}");
    }
}

/// Issue: re-subscribed after a shard's reconnect; counted, since messages may be lost.
#[test]
fn subscriptions_outlive_a_shard() {
    let mut cluster = Cluster::start(&Options::default());
    for pattern in ["shard", "connect"] {
        cluster.expect_log(pattern);
    }
    let (mut publisher, mut listener) = (cluster.client(), cluster.client());
    let channels = spread("c", cluster.shards().len(), 6);
    subscribe(&mut listener, &channels);
    listener
        .send(&encode(&["PSUBSCRIBE", "only-by-pattern*"]))
        .expect("sent");
    listener.read().expect("a confirmation");
    cluster.shard_mut(1).restart();
    let both = ["only-by-pattern-1", "only-by-pattern-7"].map(str::to_owned);
    for channel in channels.iter().chain(&both) {
        eventually("somebody hears it again", LIMIT, || {
            publisher.value(&["PUBLISH", channel, "again"]) == Value::Integer(1)
        });
        let heard = listener.read().expect("heard").text();
        assert!(
            heard.contains(channel.as_str()) && heard.contains("again"),
            "{heard}"
        );
    }
    let proxy = &cluster.proxies()[0];
    assert_eq!(
        proxy.metric("lockstep_subscription_interruptions_total", ""),
        1.0
    );
}

/// P3: whoever PUBLISH counts hears the message, also if it came before all shards had confirmed
/// the subscription, and hears it behind the confirmation.
#[test]
fn a_message_that_comes_early_is_heard() {
    let cluster = Cluster::start(&Options::default());
    let shards = cluster.shards().len();
    let (channel, other) = (key_on("c", 0, shards), key_on("c", 1, shards));
    let (mut publisher, mut listener) = (cluster.client(), cluster.client());
    cluster.shards()[2].pause();
    listener
        .send(&encode(&["SUBSCRIBE", &channel, &other]))
        .expect("sent");
    let mut number = 0;
    eventually("its shard has the subscription", LIMIT, || {
        number += 1;
        publisher.value(&["PUBLISH", &channel, &number.to_string()]) == Value::Integer(1)
    });
    let second = publisher.value(&["PUBLISH", &channel, "second"]);
    assert_eq!(second, Value::Integer(1));
    cluster.shards()[2].resume();
    for name in [&channel, &other] {
        let told = listener.read().expect("a confirmation").text();
        assert!(
            told.contains("subscribe") && told.contains(name.as_str()),
            "{told}"
        );
    }
    for text in [number.to_string().as_str(), "second"] {
        let heard = listener.read().expect("heard").value;
        assert_eq!(heard, message(&channel, text));
    }
}

/// A channel whose shard is down is refused, and the client is as it was before.
#[test]
fn a_channel_of_a_dead_shard_is_refused() {
    let mut cluster = Cluster::start(&Options::default());
    for pattern in ["shard", "connect"] {
        cluster.expect_log(pattern);
    }
    let shards = cluster.shards().len();
    let (dead, alive) = (key_on("c", 1, shards), key_on("c", 2, shards));
    cluster.shard_mut(1).kill();
    let (mut client, mut publisher) = (cluster.client(), cluster.client());
    let error = client.value(&["SUBSCRIBE", &alive, &dead]).error();
    assert!(
        error.is_some_and(|text| text.starts_with("ERR ")),
        "refused"
    );
    assert_eq!(client.value(&["PING"]), Value::Simple(b"PONG".to_vec()));
    subscribe(&mut client, std::slice::from_ref(&alive));
    assert_eq!(
        publisher.value(&["PUBLISH", &alive, "m"]),
        Value::Integer(1)
    );
    assert_eq!(client.read().expect("heard").value, message(&alive, "m"));
}

/// Issue: slow subscribers are cut off, as Redis does it; the others hear everything.
#[test]
fn a_slow_subscriber_is_cut_off() {
    let limit = ("pubsub-output-bytes-max".to_owned(), "1048576".to_owned());
    let options = Options {
        proxy: vec![limit],
        ..Options::default()
    };
    let cluster = Cluster::start(&options);
    cluster.expect_log("a subscriber takes its messages too slowly");
    let channel = ["news".to_owned()];
    let (mut slow, mut quick) = (cluster.client(), cluster.client());
    subscribe(&mut slow, &channel);
    subscribe(&mut quick, &channel);
    let mut publisher = cluster.client();
    let text = "x".repeat(100_000);
    let cut_off = || {
        let proxy = &cluster.proxies()[0];
        proxy.metric("lockstep_limits_hit_total", "limit=\"pubsub_output\"") > 0.0
    };
    let begin = Instant::now();
    while !cut_off() {
        assert!(begin.elapsed() < LIMIT, "never cut off");
        publisher.value(&["PUBLISH", "news", &text]);
        assert_eq!(quick.read().expect("heard").value, message("news", &text));
    }
    assert!(slow.is_closed_within(LIMIT));
    assert_eq!(
        publisher.value(&["PUBLISH", "news", "last"]),
        Value::Integer(1)
    );
    assert_eq!(quick.read().expect("heard").value, message("news", "last"));
}

/// Issue: no subscription and no connection leaks, counted after 1,000 random comings and goings.
#[test]
fn nothing_is_left_of_those_who_are_gone() {
    let seed = Seed::take();
    let _print = PrintOnFailure(seed);
    let mut random = seed.rng(0);
    let cluster = Cluster::start(&Options::default());
    let before = connections(&cluster);
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..1_000 {
        if clients.len() > 20 || (!clients.is_empty() && random.random_bool(0.4)) {
            let index = random.random_range(0..clients.len());
            drop(clients.swap_remove(index));
            continue;
        }
        let mut client = cluster.client();
        for _ in 0..random.random_range(1..4) {
            let verb = [
                "SUBSCRIBE",
                "PSUBSCRIBE",
                "SSUBSCRIBE",
                "UNSUBSCRIBE",
                "BLPOP",
            ];
            let verb = verb[random.random_range(0..verb.len())];
            let name = format!("c{}", random.random_range(0..30));
            let command = match verb {
                "BLPOP" => encode(&["BLPOP", &name, "0"]),
                verb => encode(&[verb, &name]),
            };
            client.send(&command).expect("sent");
        }
        clients.push(client);
    }
    clients.clear();
    let proxy = &cluster.proxies()[0];
    eventually("no client, no subscription", LIMIT, || {
        proxy.metric("lockstep_clients_connected", "") == 0.0
            && proxy.metric("lockstep_subscriptions", "") == 0.0
            && proxy.metric("lockstep_shard_subscriptions", "") == 0.0
            && proxy.metric("lockstep_pinned_connections_in_use", "") == 0.0
    });
    for shard in cluster.shards() {
        let mut shard = shard.client();
        eventually("nothing on the shard", LIMIT, || {
            shard.call(&["PUBSUB", "NUMPAT"]).raw == b":0\r\n"
                && shard.call(&["PUBSUB", "CHANNELS"]).raw == b"*0\r\n"
                && shard.call(&["PUBSUB", "SHARDCHANNELS"]).raw == b"*0\r\n"
        });
    }
    // One feed for each shard; what waited for data is closed.
    let feeds = cluster.shards().len();
    eventually("no connection", LIMIT, || {
        connections(&cluster) <= before + feeds
    });
}

/// Connections to the shards.
fn connections(cluster: &Cluster) -> usize {
    let count = |shard: &crate::support::Redis| {
        let list = shard.client().call(&["CLIENT", "LIST"]).text();
        list.matches("name=lockstep").count()
    };
    cluster.shards().iter().map(count).sum()
}

//! Subscriptions, waiting for data on several shards, and scripts: P3 (the same bytes as one Redis), and that messages reach whom they should
//! through any proxy, over a shard's restart, beside subscribers that do not listen, and with
//! nothing left of clients that are gone.

// A test program has no outside that could reach its items.
#![allow(unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod faults;
mod scenes;
mod scripts;
mod waits;

use std::collections::HashMap;
use std::time::Duration;

use support::{Client, Cluster, Options, Redis, encode, escape, eventually};

/// What a connection that should hear nothing is given to hear it after all.
const SILENCE: Duration = Duration::from_millis(150);

/// P3: each scene, played to one redis-server and to lockstep over three shards, is answered
/// byte for byte the same on every connection.
#[test]
fn scenes_are_as_on_one_redis() {
    let (oracle, cluster) = (Redis::start(&[]), Cluster::start(&Options::default()));
    let mut differences = Vec::new();
    let both = ["2", "3"].into_iter();
    let all = || scenes::ALL.iter().chain(waits::SCENES);
    for (protocol, (name, lines)) in both.flat_map(|p| all().map(move |scene| (p, scene))) {
        let wanted = play(oracle.port(), protocol, lines);
        let got = play(cluster.port(0), protocol, lines);
        for ((line, wanted), got) in lines.iter().zip(&wanted).zip(&got) {
            if got != wanted {
                differences.push(format!(
                    "RESP{protocol}: {name}: {line}\n  redis    {wanted}\n  lockstep {got}"
                ));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Plays a scene: `<connection> <frames to read> <command…>`; what each line reads.
fn play(port: u16, protocol: &str, lines: &[&str]) -> Vec<String> {
    let mut connections: HashMap<&str, Client> = HashMap::new();
    let mut read = Vec::new();
    for line in lines {
        let mut words = line.split(' ');
        let (Some(name), Some(frames)) = (words.next(), words.next()) else {
            panic!("{line}: a connection and a number");
        };
        let connection = connections.entry(name).or_insert_with(|| {
            let mut client = Client::connect(port).expect("a connection");
            client.call(&["HELLO", protocol]);
            client
        });
        let args: Vec<String> = words.map(|word| word.replace("<empty>", "")).collect();
        if !args.is_empty() {
            connection.send(&encode(&args)).expect("sent");
        }
        let heard = frames_of(connection, frames);
        // Tells an id of the connection, which is its own.
        let is_greeting = args.first().is_some_and(|name| name == "HELLO");
        read.push(if is_greeting && !heard.starts_with('-') {
            String::new()
        } else {
            heard
        });
    }
    for (name, mut connection) in connections {
        let (rest, _) = connection.drain(Duration::from_millis(20));
        read.push(format!("{name}: {}", escape(&rest)));
    }
    read.truncate(lines.len());
    // So that the next scene finds nobody who is gone.
    let mut look = Client::connect(port).expect("a connection");
    eventually("nobody listens any more", Duration::from_secs(5), || {
        look.call(&["PUBSUB", "NUMPAT"]).raw == b":0\r\n"
            && look.call(&["PUBSUB", "CHANNELS"]).raw == b"*0\r\n"
            && look.call(&["PUBSUB", "SHARDCHANNELS"]).raw == b"*0\r\n"
    });
    read
}

/// So many frames; `-`: none comes, `x`: the end of the connection.
fn frames_of(connection: &mut Client, frames: &str) -> String {
    match frames {
        "-" => {
            let (bytes, is_closed) = connection.drain(SILENCE);
            format!("{} {is_closed}", escape(&bytes))
        }
        "x" => {
            let (bytes, is_closed) = connection.drain(Duration::from_secs(5));
            format!("{} {is_closed}", escape(&bytes))
        }
        count => {
            let count: usize = count.parse().expect("a number of frames");
            let read = (0..count).map(|_| match connection.read() {
                Ok(reply) => reply.text(),
                Err(error) => format!("({error})"),
            });
            read.collect()
        }
    }
}

//! Clients that are many, silent, greedy or deaf.

use crate::Target;
use crate::bystander::Bystander;
use crate::support::{Client, Value, encode, long, spread};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

/// Backpressure instead of growth: replies that nobody reads are not collected.
#[test]
fn a_client_that_never_reads() {
    const DEAF: usize = 4;
    const OUTPUT_MAX: &str = "16777216";
    let target = Target::start(&[("client-output-bytes-max", OUTPUT_MAX)]);
    let shards = target.cluster.shards().len();
    let keys = spread("big", shards, 3);
    let mut client = target.cluster.client();
    for key in &keys {
        client.call(&["SET", key, &"x".repeat(MIB)]);
    }
    let bystander = Bystander::start(&target.cluster);
    // Each asks for 3 GiB. Some write blocks when the proxy reads no more.
    let gets: Vec<u8> = (0..3_000)
        .flat_map(|index| encode(&["GET", &keys[index % 3]]))
        .collect();
    let mut deaf: Vec<Client> = (0..DEAF).map(|_| target.cluster.client()).collect();
    if !target.cluster.is_lockstep() {
        // A plain redis-server would keep all 12 GiB.
        deaf.clear();
    }
    for client in &mut deaf {
        client.write_limit(Duration::from_millis(200));
        let _ = client.send(&gets);
    }
    bystander.finish_after(Duration::from_secs(2));
    // Per client: its limit, in a buffer that doubles when it grows; and what the shards'
    // connections hold.
    target.check_memory(DEAF as u64 * 2 * 16 + 64);
    // A deaf client that begins to listen has lost nothing.
    if let Some(client) = deaf.first_mut() {
        let first = client.read().expect("the first reply");
        assert_eq!(first.value.bytes().map(<[u8]>::len), Some(MIB));
    }
    drop(deaf);
    Bystander::start(&target.cluster).finish_after(Duration::from_millis(300));
}

/// The same with small replies, many of them, and transactions.
#[test]
fn a_client_that_never_reads_small_replies() {
    let target = Target::start(&[]);
    let bystander = Bystander::start(&target.cluster);
    let pings = b"*1\r\n$4\r\nPING\r\n".repeat(10_000);
    let multis = b"MULTI\r\nINCR a\r\nINCR b\r\nINCR c\r\nEXEC\r\n".repeat(2_000);
    let mut deaf: Vec<Client> = (0..8).map(|_| target.cluster.client()).collect();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(3) {
        for (index, client) in deaf.iter_mut().enumerate() {
            client.write_limit(Duration::from_millis(20));
            let _ = client.send_some(if index % 4 == 3 { &multis } else { &pings });
        }
    }
    bystander.finish();
    target.check_memory(200);
}

/// For this process and those it starts.
pub fn allow_open_files(count: usize) {
    let limit = getrlimit(Resource::Nofile);
    let needed = Some(count as u64);
    if limit.current < needed && limit.current.is_some() {
        let raised = rustix::process::Rlimit {
            current: needed.min(limit.maximum.or(needed)),
            ..limit
        };
        setrlimit(Resource::Nofile, raised).expect("the limit of open files can be raised");
    }
}

/// Connections that send nothing cost little, and each still works.
#[test]
fn idle_connections() {
    let wanted: usize = if long() { 10_000 } else { 2_000 };
    allow_open_files(wanted + 500);
    let clients_max = (wanted + 100).to_string();
    let target = Target::start(&[("clients-max", &clients_max)]);
    let bystander = Bystander::start(&target.cluster);
    let mut idle: Vec<Client> = (0..wanted).map(|_| target.cluster.client()).collect();
    bystander.finish_after(Duration::from_secs(1));
    target.check_memory(32 + wanted as u64 * 32 / 1_024);
    for client in idle.iter_mut().step_by(97) {
        assert_eq!(client.call(&["PING"]).text(), "+PONG\\r\\n");
    }
}

/// One client too many is told so; when another leaves there is room again.
#[test]
fn more_clients_than_allowed() {
    let target = Target::start(&[("clients-max", "10")]);
    if !target.cluster.is_lockstep() {
        return;
    }
    let mut held: Vec<Client> = (0..10).map(|_| target.cluster.client()).collect();
    for client in &mut held {
        client.call(&["PING"]);
    }
    let mut refused = target.cluster.client();
    let (bytes, closed) = refused.drain(Duration::from_secs(3));
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(
        text.starts_with("-ERR max number of clients reached"),
        "{text:?}"
    );
    assert!(closed);
    held.pop();
    crate::support::eventually("room for one more", Duration::from_secs(3), || {
        let reply = target.cluster.client().try_call(&["PING"]);
        reply.is_ok_and(|reply| reply.raw == b"+PONG\r\n")
    });
}

/// A pipeline of 100,000 commands is answered completely and in order.
#[test]
fn a_very_long_pipeline() {
    const COMMANDS: usize = 100_000;
    let target = Target::start(&[]);
    let keys = spread("pipeline", target.cluster.shards().len(), 30);
    let bystander = Bystander::start(&target.cluster);
    let command = |index: usize| {
        let key = &keys[(index / 2) % keys.len()];
        match index % 2 {
            0 => encode(&["SET", key, &index.to_string()]),
            _ => encode(&["GET", key]),
        }
    };
    let bytes: Vec<u8> = (0..COMMANDS).flat_map(command).collect();
    let mut client = target.cluster.client();
    let mut writer = client.second_handle();
    std::thread::scope(|scope| {
        scope.spawn(move || writer.send(&bytes).expect("all is sent"));
        for index in 0..COMMANDS {
            let wanted = match index % 2 {
                0 => Value::Simple(b"OK".to_vec()),
                _ => Value::Bulk((index - 1).to_string().into_bytes()),
            };
            assert_eq!(
                client.read().expect("a reply").value,
                wanted,
                "reply {index}"
            );
        }
    });
    bystander.finish();
    target.check_memory(100);
}

/// A queue that grows without an EXEC is bounded, and so is what is kept of it.
#[test]
fn an_endless_transaction() {
    let target = Target::start(&[
        ("client-input-bytes-max", "8388608"),
        ("bulk-bytes-max", "1048576"),
    ]);
    if !target.cluster.is_lockstep() {
        return;
    }
    let bystander = Bystander::start(&target.cluster);
    let mut client = target.cluster.client();
    client.say("MULTI");
    let value = "v".repeat(64 * 1_024);
    let set = encode(&["SET", "endless", &value]);
    let refused = (0..1_000).find_map(|_| match client.send(&set).and_then(|()| client.read()) {
        Ok(reply) if reply.raw == b"+QUEUED\r\n" => None,
        Ok(reply) => Some(reply.text()),
        Err(error) => Some(error.to_string()),
    });
    let refused = refused.expect("64 MiB were queued where 8 are allowed");
    println!("refused: {refused}");
    target.check_memory(48);
    bystander.finish();
    assert_eq!(
        target
            .cluster
            .client()
            .value(&["EXISTS", "endless"])
            .integer(),
        Some(0)
    );
}

/// A client that says that it is done still gets its replies.
#[test]
fn half_closed() {
    let target = Target::start(&[]);
    let mut client = target.cluster.client();
    client
        .send(b"SET a 1\r\nMULTI\r\nINCR a\r\nINCR b\r\nEXEC\r\nGET a\r\n")
        .expect("sent");
    client.finish_writing();
    let (bytes, closed) = client.drain(Duration::from_secs(5));
    let text = crate::support::escape(&bytes);
    assert_eq!(
        text,
        "+OK\\r\\n+OK\\r\\n+QUEUED\\r\\n+QUEUED\\r\\n*2\\r\\n:2\\r\\n:1\\r\\n$1\\r\\n2\\r\\n"
    );
    assert!(closed);
}

/// Connections that come and go leave nothing, whatever they were doing.
#[test]
fn clients_that_come_and_go() {
    let target = Target::start(&[]);
    let bystander = Bystander::start(&target.cluster);
    let last_words: [&[u8]; 5] = [
        b"",
        b"MULTI\r\nSET a 1\r\nSET b 2\r\n",
        b"MULTI\r\nINCR a\r\nINCR b\r\nINCR c\r\nEXEC\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n",
        b"BLPOP nothing 0\r\n",
    ];
    for index in 0..3_000 {
        let mut client = target.cluster.client();
        client
            .send(last_words[index % last_words.len()])
            .expect("sent");
    }
    bystander.finish();
    target.check_memory(48);
    target.cluster.wait_settled(Duration::from_secs(4));
}

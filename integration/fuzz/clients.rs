//! Clients that send commands with mistakes in them, in both protocols.

use crate::commands::Words;
use crate::mutate::mutate;
use crate::support::{Client, encode, seed::PrintOnFailure};
use crate::{check_alive, check_end, seed, start};
use rand::RngExt;
use rand::rngs::StdRng;
use std::time::{Duration, Instant};

/// How long a connection may stay open after its client has said that it is done: longer than
/// anything that a client can wait for here.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);
const GROWTH_MIB_MAX: u64 = 96;

#[test]
fn clients_that_make_mistakes() {
    let (seed, end) = seed("clients");
    let _print = PrintOnFailure(seed);
    let mut cluster = start();
    cluster.expect_log("");
    let shards = cluster.shards().len();
    let words = Words::new(shards);
    let resident_kib = cluster.resident_kib(0);
    let port = cluster.port(0);
    let inputs: u64 = std::thread::scope(|scope| {
        let attack = |stream| {
            let words = &words;
            move || attack(port, words, seed.rng(stream), end)
        };
        let attackers: Vec<_> = (0..3).map(|stream| scope.spawn(attack(stream))).collect();
        attackers
            .into_iter()
            .map(|a| a.join().expect("no panic"))
            .sum()
    });
    println!("clients: {inputs} inputs");
    assert!(inputs > 10, "only {inputs} inputs");
    let mut client = cluster.client();
    assert_eq!(client.call(&["PING"]).text(), "+PONG\\r\\n");
    let proxy = cluster.proxy_mut(0);
    check_alive(proxy);
    check_end(proxy, resident_kib, GROWTH_MIB_MAX);
}

/// One connection after the other until the end: how many.
fn attack(port: u16, words: &Words, mut rng: StdRng, end: Instant) -> u64 {
    let mut inputs = 0;
    while Instant::now() < end {
        let mut client = Client::connect(port).expect("the proxy takes clients");
        if rng.random() {
            let _ = client.send(&encode(&["HELLO", "3"]));
        }
        let mut bytes = Vec::new();
        for _ in 0..rng.random_range(1..12) {
            bytes.extend(words.turn(&mut rng).0);
        }
        if rng.random_ratio(1, 10) {
            bytes.extend(encode(&["FLUSHALL", "ASYNC"]));
        }
        mutate(&mut rng, &mut bytes);
        send_in_pieces(&mut client, &mut rng, &bytes);
        client.finish_writing();
        let (_, closed) = client.drain(CLOSE_LIMIT);
        let shown = crate::support::escape(&bytes);
        assert!(
            closed,
            "open {CLOSE_LIMIT:?} after the client's end: {shown}"
        );
        inputs += 1;
    }
    inputs
}

/// The server may close before it has read all.
fn send_in_pieces(client: &mut Client, rng: &mut StdRng, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(rng.random_range(1..=rest.len()));
        if client.send(piece).is_err() {
            return;
        }
        rest = behind;
    }
}

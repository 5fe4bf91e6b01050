//! A shard that lies, before clients that use all shards.

use crate::bystander::Bystander;
use crate::commands::Words;
use crate::liar::Liar;
use crate::support::{
    Client, Proxy, Redis, Seed, encode, eventually, key_on, keys_on, seed::PrintOnFailure,
};
use crate::{check_alive, check_end, seed};
use rand::RngExt;
use rand::rngs::StdRng;
use std::time::{Duration, Instant};

const SHARDS: usize = 3;
/// The one that lies.
const LIAR: usize = 1;
const CLIENTS: u64 = 4;
/// Longer than all that a client can wait for by the settings here, but for one thing: as long as
/// a shard says that a transaction is half applied, replies about its slots are held. Who meets
/// that gives up.
const ANSWER_LIMIT: Duration = Duration::from_secs(4);
const RECOVERY: Duration = Duration::from_secs(10);
const GROWTH_MIB_MAX: u64 = 192;
const SETTINGS: [(&str, &str); 9] = [
    ("request-timeout-ms", "1000"),
    ("connect-timeout-ms", "500"),
    ("lock-wait-ms", "500"),
    ("lock-ttl-ms", "500"),
    ("decision-retention-ms", "4000"),
    ("pinned-wait-ms", "200"),
    ("reconnect-backoff-max-ms", "200"),
    ("drain-timeout-ms", "3000"),
    ("reply-bytes-max", "8mb"),
];

struct Stage {
    shards: Vec<Redis>,
    liar: Liar,
    addresses: Vec<String>,
}

impl Stage {
    fn new(seed: Seed) -> Stage {
        let shards: Vec<Redis> = (0..SHARDS).map(|_| Redis::start(&[])).collect();
        let liar = Liar::start(shards[LIAR].port(), seed);
        let mut addresses: Vec<String> = shards.iter().map(Redis::address).collect();
        addresses[LIAR] = liar.address();
        Stage {
            shards,
            liar,
            addresses,
        }
    }

    fn settings() -> Vec<(String, String)> {
        SETTINGS
            .map(|(name, value)| (name.into(), value.into()))
            .into()
    }
}

/// Rare lies reach what lies deep, frequent ones what greets.
#[test]
fn a_shard_that_lies() {
    let (seed, end) = seed("shards");
    let _print = PrintOnFailure(seed);
    let stage = Stage::new(seed);
    let mut proxy = Proxy::start(&stage.addresses, &Stage::settings());
    proxy.expect_log("");
    let healthy = [keys_on("near", 0, SHARDS, 2), keys_on("near", 2, SHARDS, 2)].concat();
    let bystander = Bystander::on(proxy.client(), healthy);
    let resident_kib = proxy.resident_kib();
    let (turns, answered) = under_load(&proxy, seed, end, || {
        change_rates(&stage.liar, seed.rng(99), end)
    });
    println!(
        "shards: {} lies, {turns} turns of clients, {answered} of them answered",
        stage.liar.told()
    );
    check_alive(&mut proxy);
    assert!(stage.liar.told() > 10 && answered * 2 > turns);
    bystander.finish();
    expect_recovered(&proxy);
    check_end(&mut proxy, resident_kib, GROWTH_MIB_MAX);
    drop(stage.shards);
}

/// One that lies already when the proxy starts: it says why it does not, or serves.
#[test]
fn a_shard_that_lies_from_the_start() {
    let (seed, end) = seed("starts");
    let _print = PrintOnFailure(seed);
    let stage = Stage::new(seed);
    let (mut rng, mut starts, mut refused) = (seed.rng(7), 0, 0);
    while Instant::now() < end {
        stage.liar.lie(rng.random_range(50..700));
        let mut proxy = Proxy::prepared(&stage.addresses, &Stage::settings());
        proxy.expect_log("");
        proxy.launch();
        let ended = proxy.wait(Duration::from_millis(rng.random_range(50..800)));
        starts += 1;
        refused += u32::from(ended.is_some());
        crate::check_no_panic(&proxy);
        if let Some(status) = ended {
            assert!(
                status.code().is_some(),
                "ended by a signal\n{}",
                proxy.log()
            );
            assert!(
                proxy.log().contains("shard"),
                "gives no reason\n{}",
                proxy.log()
            );
        } else {
            proxy.terminate();
            assert!(
                proxy.wait(crate::STOP_LIMIT).is_some(),
                "it does not stop\n{}",
                proxy.log()
            );
        }
    }
    println!(
        "starts: {starts}, of which {refused} ended by themselves, {} lies",
        stage.liar.told()
    );
    assert!(stage.liar.told() > 0);
}

/// All clients at work while this goes on: their turns, and how many were answered in full.
fn under_load(proxy: &Proxy, seed: Seed, end: Instant, meanwhile: impl FnOnce()) -> (u64, u64) {
    let (port, words) = (proxy.port(), Words::new(SHARDS));
    std::thread::scope(|scope| {
        let run = |stream| {
            let words = &words;
            move || use_all(port, words, seed.rng(stream), end)
        };
        let clients: Vec<_> = (0..CLIENTS)
            .map(|stream| scope.spawn(run(stream)))
            .collect();
        meanwhile();
        let results = clients
            .into_iter()
            .map(|client| client.join().expect("no panic"));
        results.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    })
}

fn change_rates(liar: &Liar, mut rng: StdRng, end: Instant) {
    while Instant::now() < end {
        liar.lie([2, 10, 30, 100, 400][rng.random_range(0..5)]);
        std::thread::sleep(Duration::from_millis(rng.random_range(20..400)));
    }
    liar.lie(0);
}

fn use_all(port: u16, words: &Words, mut rng: StdRng, end: Instant) -> (u64, u64) {
    let (mut turns, mut answered) = (0, 0);
    while Instant::now() < end {
        // A proxy that has died is told of in the end.
        let Ok(mut client) = Client::connect(port) else {
            break;
        };
        client.reply_limit(ANSWER_LIMIT);
        if rng.random() {
            let _ = client
                .send(&encode(&["HELLO", "3"]))
                .and_then(|()| client.read());
        }
        for _ in 0..rng.random_range(1..30) {
            let (bytes, replies) = words.turn(&mut rng);
            let result = client
                .send(&bytes)
                .and_then(|()| (0..replies).try_for_each(|_| client.read().map(drop)));
            turns += 1;
            match result {
                Ok(()) => answered += 1,
                // What a lying shard sends may be passed on.
                Err(_) => break,
            }
        }
    }
    (turns, answered)
}

/// What the lies were about may stay unfinished; other slots of that shard are used as before.
fn expect_recovered(proxy: &Proxy) {
    let key = key_on("afterwards", LIAR, SHARDS);
    eventually("the shard is used again", RECOVERY, || {
        let mut client = proxy.client();
        client.reply_limit(Duration::from_secs(2));
        let reply = client.try_call(&["SET", &key, "1"]);
        reply.is_ok_and(|reply| reply.raw == b"+OK\r\n")
    });
}

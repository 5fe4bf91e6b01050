//! Headers of the PROXY protocol with mistakes in them, cut anywhere, with a command behind them.

use crate::mutate::mutate;
use crate::support::{Client, Proxy, Redis, encode, escape, eventually, seed::PrintOnFailure};
use crate::{check_end, seed};
use rand::RngExt;
use rand::rngs::StdRng;
use std::time::{Duration, Instant};

/// How long a connection may stay open after its client has said that it is done.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);
const GROWTH_MIB_MAX: u64 = 64;

#[test]
fn headers_of_balancers() {
    let (seed, end) = seed("headers");
    let _print = PrintOnFailure(seed);
    let shard = Redis::start(&[]);
    let settings = [("proxy-protocol", "on"), ("drain-timeout-ms", "3000")];
    let settings = settings.map(|(name, value)| (name.into(), value.into()));
    let mut proxy = Proxy::prepared(&[shard.address()], &settings);
    proxy.expect_log("a client's connection failed before it was served");
    proxy.launch();
    eventually("it is ready", CLOSE_LIMIT, || {
        proxy.http_get("/readyz").starts_with("HTTP/1.1 200")
    });
    let resident_kib = proxy.resident_kib();
    let (mut rng, mut inputs, mut served) = (seed.rng(0), 0_u64, 0_u64);
    while Instant::now() < end {
        served += u64::from(is_served(proxy.port(), &mut rng));
        inputs += 1;
    }
    println!("headers: {inputs} inputs, {served} of them served");
    assert!(served > 0 && served < inputs, "{served} of {inputs} served");
    check_end(&mut proxy, resident_kib, GROWTH_MIB_MAX);
}

/// Whether the command behind the header was answered. The connection ends in any case.
fn is_served(port: u16, rng: &mut StdRng) -> bool {
    let mut client = Client::connect(port).expect("the proxy takes clients");
    let mut bytes = header(rng);
    if rng.random() {
        mutate(rng, &mut bytes);
    }
    bytes.extend(encode(&["PING"]));
    let (first, rest) = bytes.split_at(rng.random_range(0..=bytes.len()));
    // It may close before it has read all.
    let _ = client.send(first).and_then(|()| client.send(rest));
    client.finish_writing();
    let (answer, is_closed) = client.drain(CLOSE_LIMIT);
    assert!(
        is_closed,
        "open {CLOSE_LIMIT:?} after its end: {}",
        escape(&bytes)
    );
    answer.starts_with(b"+PONG")
}

fn header(rng: &mut StdRng) -> Vec<u8> {
    let text: [&[u8]; 3] = [
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1111 6379\r\n",
        b"PROXY TCP6 2001:db8::7 ::1 65535 0\r\n",
        b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n",
    ];
    if rng.random() {
        return text[rng.random_range(0..text.len())].to_vec();
    }
    let (family, bytes) = [(0x00, 0), (0x11, 12), (0x21, 36), (0x31, 216)][rng.random_range(0..4)];
    let length: u16 = bytes + rng.random_range(0..300);
    let command = 0x20 | u8::from(rng.random::<bool>());
    let head: [&[u8]; 3] = [
        b"\r\n\r\n\0\r\nQUIT\n",
        &[command, family],
        &length.to_be_bytes(),
    ];
    let rest = (0..length).map(|_| rng.random());
    head.concat().into_iter().chain(rest).collect()
}

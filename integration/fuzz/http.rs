//! The HTTP port: requests with mistakes, half requests, and bytes that are none.

use crate::mutate::mutate;
use crate::support::{Client, Proxy, eventually, seed::PrintOnFailure};
use crate::{check_end, seed, start};
use rand::RngExt;
use rand::rngs::StdRng;
use std::time::{Duration, Instant};

const GROWTH_MIB_MAX: u64 = 64;

#[test]
fn the_http_port() {
    let (seed, end) = seed("HTTP");
    let _print = PrintOnFailure(seed);
    let mut cluster = start();
    cluster.expect_log("");
    let proxy = cluster.proxy_mut(0);
    let resident_kib = proxy.resident_kib();
    let address = proxy.metrics_address();
    let port = address
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok());
    let mut rng = seed.rng(0);
    let mut inputs = 0_u64;
    while Instant::now() < end {
        for _ in 0..20 {
            send(port.expect("a port"), &mut rng);
            inputs += 1;
        }
        expect_health(proxy);
    }
    println!("HTTP: {inputs} inputs");
    check_end(proxy, resident_kib, GROWTH_MIB_MAX);
}

fn expect_health(proxy: &Proxy) {
    eventually("/healthz answers", Duration::from_secs(10), || {
        proxy.http_get("/healthz").starts_with("HTTP/1.1 200")
    });
}

fn send(port: u16, rng: &mut StdRng) {
    let mut client = Client::connect(port).expect("the port takes connections");
    let mut bytes = request(rng);
    if !rng.random_ratio(1, 8) {
        mutate(rng, &mut bytes);
    }
    let _ = client.send(&bytes);
    client.finish_writing();
    client.drain(Duration::from_millis(50));
}

fn request(rng: &mut StdRng) -> Vec<u8> {
    if rng.random_ratio(1, 10) {
        return (0..rng.random_range(1..20_000))
            .map(|_| rng.random())
            .collect();
    }
    let mut one_of = |words: &[&'static str]| words[rng.random_range(0..words.len())];
    let method = one_of(&[
        "GET", "HEAD", "POST", "OPTIONS", "CONNECT", "TRACE", "PRI", "get",
    ]);
    let path = one_of(&[
        "/",
        "/metrics",
        "/healthz",
        "/readyz",
        "*",
        "//",
        "/%00%ff",
        "http://a/metrics",
    ]);
    let version = one_of(&["HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/9.9", ""]);
    let header = one_of(&[
        "Content-Length: 18446744073709551615",
        "Content-Length: -1",
        "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff",
        "Connection: upgrade\r\nUpgrade: h2c",
        "Expect: 100-continue\r\nContent-Length: 5",
        "Accept: */*",
    ]);
    let many = "X-Long: y\r\n".repeat(rng.random_range(0..200));
    let body = "body".repeat(rng.random_range(0..4_000));
    format!("{method} {path} {version}\r\nHost: a\r\n{many}{header}\r\n\r\n{body}").into_bytes()
}

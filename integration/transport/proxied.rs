//! The PROXY protocol: clients that come by way of a balancer.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::certificates::{self, Authority};
use crate::support::ports::Port;
use crate::support::process::Process;
use crate::support::{Proxy, Redis, encode, escape, eventually, eventually_with};
use crate::{LIMIT, redis_cli, settings, text};

/// What version 2 begins with.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const REFUSED: &str = "a client's connection failed before it was served";

/// A proxy that demands the header. A plain PING would not tell that it serves.
fn started(shard: &Redis, more: &[(&str, &str)]) -> Proxy {
    let given = [
        &[("proxy-protocol", "on"), ("connect-timeout-ms", "200")],
        more,
    ]
    .concat();
    let mut proxy = Proxy::prepared(&[shard.address()], &settings(&given));
    proxy.launch();
    wait_until_ready(&proxy);
    proxy
}

fn wait_until_ready(proxy: &Proxy) {
    eventually("it is ready", LIMIT, || {
        proxy.http_get("/readyz").starts_with("HTTP/1.1 200")
    });
}

fn line_of(proxy: &Proxy, header: &[u8]) -> String {
    let mut client = proxy.client();
    let bytes = [header, &encode(&["CLIENT", "INFO"])].concat();
    client.send(&bytes).expect("sent");
    escape(client.read().expect("a reply").value.bytes().expect("text"))
}

fn rejected(proxy: &Proxy, reason: &str) -> f64 {
    let label = format!("reason=\"{reason}\"");
    proxy.metric("lockstep_clients_rejected_total", &label)
}

/// The address told is the client's, wherever addresses are shown; the first command may come in
/// the same segment, and the header in many.
#[test]
fn the_address_told_is_the_clients() {
    let shard = Redis::start(&[]);
    let proxy = started(&shard, &[("slowlog-slower-than-ms", "1")]);
    let v1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 1111 6379\r\n";
    let line = line_of(&proxy, v1);
    assert!(
        line.contains(" addr=192.0.2.7:1111 laddr=198.51.100.1:6379 "),
        "{line}"
    );
    // IPv6, with something beside the addresses that is passed over.
    let mut v2 = [V2, &[0x21, 0x21, 0, 36 + 5]].concat();
    for last in [7, 1] {
        v2.extend([
            0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last,
        ]);
    }
    v2.extend([4, 87, 24, 236, 0x04, 0, 2, 0, 0]);
    let line = line_of(&proxy, &v2);
    assert!(
        line.contains(" addr=[2001:db8::7]:1111 laddr=[2001:db8::1]:6380 "),
        "{line}"
    );
    for unknown in [&b"PROXY UNKNOWN\r\n"[..], &[V2, &[0x20, 0, 0, 0]].concat()] {
        let line = line_of(&proxy, unknown);
        assert!(
            line.contains(&format!(" laddr=127.0.0.1:{} ", proxy.port())),
            "{line}"
        );
    }
    let mut slow = proxy.client();
    for piece in v1.chunks(5) {
        slow.send(piece).expect("sent");
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(slow.call(&["SET", "k", "v"]).raw, b"+OK\r\n");
    shard.pause();
    slow.send(&encode(&["SET", "k", "late"])).expect("sent");
    std::thread::sleep(Duration::from_millis(10));
    shard.resume();
    assert_eq!(slow.read().expect("a reply").raw, b"+OK\r\n");
    let log = slow.say("LOCKSTEP SLOWLOG GET 1");
    let entry = log.elements()[0].elements();
    assert_eq!(entry[6].bytes(), Some(&b"192.0.2.7:1111"[..]));
    let killed = slow.say("CLIENT KILL ADDR 192.0.2.7:1111 SKIPME no");
    assert_eq!(killed.integer(), Some(1));
    assert!(slow.is_closed_within(LIMIT));
}

/// What brings no header is not served: at once if it cannot be one, and else when its time is up.
#[test]
fn a_connection_without_a_header_is_closed() {
    let shard = Redis::start(&[]);
    let proxy = started(&shard, &[]);
    proxy.expect_log(REFUSED);
    // Without a byte: a balancer that looks whether we are there.
    drop(proxy.client());
    let mut half = proxy.client();
    half.send(b"PROXY TCP4 192.0.2.7 ").expect("sent");
    let began = Instant::now();
    let too_long = [V2, &[0x21, 0x11, 0xff, 0xff]].concat();
    for bytes in [
        &b"PING\r\n"[..],
        &encode(&["PING"]),
        b"PROXY what\r\n",
        &too_long,
    ] {
        let mut client = proxy.client();
        client.send(bytes).expect("sent");
        let (answer, is_closed) = client.drain(LIMIT);
        assert!(answer.is_empty() && is_closed, "{}", escape(bytes));
    }
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "it waits for more"
    );
    eventually("all four are counted", LIMIT, || {
        rejected(&proxy, "proxy_header") == 4.0
    });
    assert!(half.is_closed_within(LIMIT));
    eventually("so is the slow one", LIMIT, || {
        rejected(&proxy, "slow_start") == 1.0
    });
    let log = proxy.log();
    let lines: Vec<&str> = log.lines().filter(|l| l.contains(REFUSED)).collect();
    assert_eq!(lines.len(), 5, "{log}");
    let says =
        |line: &&&str| line.contains("client=\"127.0.0.1:") && line.contains("proxy-protocol");
    assert_eq!(lines.iter().filter(says).count(), 4, "{lines:?}");
    assert!(line_of(&proxy, b"PROXY UNKNOWN\r\n").contains("user=default"));
}

/// Also on a socket that a service manager hands over.
#[test]
fn a_socket_that_is_handed_over_demands_it_too() {
    let shard = Redis::start(&[]);
    let given = settings(&[("proxy-protocol", "on")]);
    let mut proxy = Proxy::prepared(&[shard.address()], &given);
    proxy.keep_listener();
    proxy.launch();
    wait_until_ready(&proxy);
    let line = line_of(&proxy, b"PROXY TCP4 192.0.2.9 198.51.100.1 9 6379\r\n");
    assert!(line.contains(" addr=192.0.2.9:9 "), "{line}");
}

/// haproxy in between, in both versions, plain and with the TLS of the clients passed through.
#[test]
fn clients_come_by_way_of_haproxy() {
    let version = Command::new("haproxy").arg("-v").output();
    if !version.is_ok_and(|output| output.status.success()) {
        println!("no haproxy here: left out");
        return;
    }
    let folder = TempDir::new().expect("a temporary folder");
    let authority = Authority::new(folder.path(), "ca");
    let server = authority.issue("server", &["localhost"], certificates::VALID);
    let shard = Redis::start(&[]);
    let tls = Port::lease();
    let tls_listen = format!("127.0.0.1:{}", tls.number());
    let proxy = started(
        &shard,
        &[
            ("tls-listen", &tls_listen),
            ("tls-cert-file", server.certificate()),
            ("tls-key-file", server.key()),
        ],
    );
    let ways = [
        ("v1", proxy.port(), "send-proxy"),
        ("v2", proxy.port(), "send-proxy-v2"),
        ("tls", tls.number(), "send-proxy-v2"),
    ];
    let ports = ways.map(|_| Port::lease());
    let mut file =
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n"
            .to_owned();
    for ((name, target, how), port) in ways.iter().zip(&ports) {
        let port = port.number();
        file += &format!(
            "listen {name}\n bind 127.0.0.1:{port}\n server a 127.0.0.1:{target} {how} check\n"
        );
    }
    let path = folder.path().join("haproxy.cfg");
    std::fs::write(&path, file).expect("written");
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&path);
    let _haproxy = Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
    let ca = authority.path().display().to_string();
    for ((name, ..), port) in ways.iter().zip(&ports) {
        let number = port.number().to_string();
        let mut args = vec!["-h", "localhost", "-p", &number];
        if *name == "tls" {
            args.extend(["--tls", "--cacert", &ca]);
        }
        let wanted = format!(" laddr=127.0.0.1:{number} ");
        eventually_with("a client is served by way of haproxy", LIMIT, || {
            let said = text(&redis_cli(&args, "CLIENT INFO\n"));
            if said.contains(&wanted) {
                Ok(())
            } else {
                Err(said)
            }
        });
    }
    // haproxy's own checks come with a header that is LOCAL, or with nothing.
    assert_eq!(rejected(&proxy, "proxy_header"), 0.0);
}

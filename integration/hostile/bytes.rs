//! Bytes that are no commands.

use crate::Target;
use crate::bystander::Bystander;
use crate::support::{Client, Seed, escape};
use rand::RngExt;
use std::time::Duration;

/// How long an error and the end of the connection may take.
const PROMPT: Duration = Duration::from_secs(3);
const KIB: usize = 1_024;

/// What a server may do with bad bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    /// `-ERR Protocol error: …`, then it closes.
    Error,
    /// Nothing is expected; the connection goes on.
    Nothing,
    /// An error, a reply or silence: only that it lives.
    Anything,
}

type Attack = (&'static str, Vec<u8>, Verdict);

fn text(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// Counts and lengths that no server may believe.
fn bad_numbers() -> Vec<Attack> {
    use Verdict::{Anything, Error, Nothing};
    let below_all = "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$-9223372036854775808\r\n";
    vec![
        ("huge bulk", text("*1\r\n$9223372036854775807\r\n"), Error),
        (
            "bulk beyond 64 bits",
            text("*1\r\n$99999999999999999999999999\r\n"),
            Error,
        ),
        ("negative bulk", text("*1\r\n$-1\r\n"), Error),
        ("more negative bulk", text(below_all), Error),
        ("bulk over the limit", text("*1\r\n$536870913\r\n"), Error),
        ("negative count", text("*-7\r\n"), Nothing),
        (
            "most negative count",
            text("*-9223372036854775808\r\n"),
            Nothing,
        ),
        ("zero count", text("*0\r\n"), Nothing),
        ("huge count", text("*9223372036854775807\r\n"), Error),
        (
            "count beyond 64 bits",
            text("*99999999999999999999999999\r\n"),
            Error,
        ),
        ("count over 32 bits", text("*2147483648\r\n"), Error),
        ("count that is none", text("*abc\r\n"), Error),
        ("empty count", text("*\r\n"), Anything),
        ("length that is none", text("*1\r\n$abc\r\n"), Error),
        ("empty length", text("*1\r\n$\r\n"), Anything),
    ]
}

/// Shapes that are no commands, and lines without an end.
fn bad_shapes() -> Vec<Attack> {
    use Verdict::{Anything, Error, Nothing};
    let nines = "9".repeat(70 * KIB);
    let http = "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n";
    vec![
        ("nested arrays", b"*1\r\n".repeat(32 * KIB), Error),
        (
            "deep arrays of arrays",
            b"*2\r\n*2\r\n".repeat(16 * KIB),
            Error,
        ),
        ("no bulk", text("*2\r\n$3\r\nGET\r\n+a\r\n"), Error),
        ("a number instead", text("*1\r\n:1\r\n"), Error),
        ("an inline too long", vec![b'a'; 70 * KIB], Error),
        ("a count too long", text(&format!("*{nines}")), Error),
        ("a length too long", text(&format!("*1\r\n${nines}")), Error),
        ("open quotes", text("GET \"a\r\n"), Error),
        ("blanks", b"    \r\n".repeat(1_000), Anything),
        ("line ends", b"\r\n".repeat(30_000), Nothing),
        ("zero bytes", vec![0; 60_000], Anything),
        ("RESP3 client frames", text("%1\r\n+a\r\n+b\r\n"), Anything),
        ("a TLS hello", tls.to_vec(), Anything),
        ("HTTP", text(http), Anything),
        (
            "a bulk without its end",
            text("*1\r\n$4\r\nPINGxx*1\r\n$4\r\nPING\r\n"),
            Anything,
        ),
        ("an empty name", text("*1\r\n$0\r\n\r\n"), Anything),
    ]
}

#[test]
fn bad_bytes_get_an_error_and_harm_nobody() {
    let target = Target::start(&[]);
    let bystander = Bystander::start(&target.cluster);
    for (name, bytes, verdict) in bad_numbers().into_iter().chain(bad_shapes()) {
        let mut client = target.cluster.client();
        // The server may close before it has read all.
        let _ = client.send(&bytes);
        match verdict {
            Verdict::Error => expect_protocol_error(&mut client, name),
            Verdict::Nothing => expect_ping(&mut client, name),
            Verdict::Anything => {
                client.finish_writing();
                client.drain(PROMPT);
            }
        }
    }
    bystander.finish();
    target.check_memory(32);
}

fn expect_protocol_error(client: &mut Client, name: &str) {
    let (bytes, closed) = client.drain(PROMPT);
    let shown = escape(&bytes[..bytes.len().min(200)]);
    // A reset may overtake the error when the server closes with bytes unread.
    if !(closed && bytes.is_empty()) {
        assert!(
            bytes.starts_with(b"-ERR Protocol error: "),
            "{name}: {shown}"
        );
    }
    assert!(closed, "{name}: the connection stays open after {shown}");
}

fn expect_ping(client: &mut Client, name: &str) {
    let reply = client
        .try_call(&["PING"])
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(reply.text(), "+PONG\\r\\n", "{name}");
}

/// Good commands in front of bad bytes are answered first.
#[test]
fn replies_come_before_the_error() {
    let target = Target::start(&[]);
    let mut client = target.cluster.client();
    let bytes = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\nPING\r\n*1\r\n$x\r\n";
    client.send(bytes).expect("sent");
    let (got, closed) = client.drain(PROMPT);
    assert_eq!(
        escape(&got),
        "+OK\\r\\n$1\\r\\n1\\r\\n+PONG\\r\\n-ERR Protocol error: invalid bulk length\\r\\n"
    );
    assert!(closed);
}

#[test]
fn binary_garbage() {
    let target = Target::start(&[]);
    let seed = Seed::take();
    let _print = crate::support::seed::PrintOnFailure(seed);
    let bystander = Bystander::start(&target.cluster);
    let mut rng = seed.rng(0);
    for _ in 0..300 {
        let mut client = target.cluster.client();
        let length = rng.random_range(1..8 * KIB);
        let first = *b"*$+-:PG\x00"
            .get(rng.random_range(0..8))
            .expect("in range");
        let mut bytes: Vec<u8> = (0..length).map(|_| rng.random()).collect();
        bytes[0] = first;
        let _ = client.send(&bytes);
        client.finish_writing();
        let (_, closed) = client.drain(PROMPT);
        assert!(
            closed,
            "open after the client's end: {}",
            escape(&bytes[..length.min(100)])
        );
    }
    bystander.finish();
    target.check_memory(32);
}

/// What a frame announces is not set aside before it comes.
#[test]
fn half_frames_hold_little() {
    const CLIENTS: usize = 400;
    let target = Target::start(&[]);
    let bystander = Bystander::start(&target.cluster);
    let halves: [&[u8]; 6] = [
        b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$500000000\r\nonly this",
        b"*1000000\r\n$3\r\nDEL\r\n",
        b"*2\r\n$3\r\nGE",
        b"*",
        b"GET a",
        b"*1\r\n$4\r\nPING\r",
    ];
    let held: Vec<Client> = (0..CLIENTS)
        .map(|number| {
            let mut client = target.cluster.client();
            client.send(halves[number % halves.len()]).expect("sent");
            client
        })
        .collect();
    bystander.finish_after(Duration::from_secs(1));
    target.check_memory(32);
    drop(held);
}

/// Bytes that come one at a time are a command in the end.
#[test]
fn one_byte_at_a_time() {
    const CLIENTS: usize = 30;
    let target = Target::start(&[]);
    let bystander = Bystander::start(&target.cluster);
    let line = b"*1\r\n$5\r\nMULTI\r\n*2\r\n$4\r\nINCR\r\n$1\r\na\r\n*2\r\n$4\r\nINCR\r\n$1\r\nb\r\n*1\r\n$4\r\nEXEC\r\nPING\r\n";
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| target.cluster.client()).collect();
    for byte in line {
        for client in &mut clients {
            client.send(&[*byte]).expect("sent");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    for client in &mut clients {
        let texts: Vec<String> = (0..5)
            .map(|_| client.read().expect("a reply").text())
            .collect();
        assert_eq!(texts[..3], ["+OK\\r\\n", "+QUEUED\\r\\n", "+QUEUED\\r\\n"]);
        assert!(texts[3].starts_with("*2\\r\\n:"), "EXEC: {}", texts[3]);
        assert_eq!(texts[4], "+PONG\\r\\n");
    }
    let mut client = target.cluster.client();
    for key in ["a", "b"] {
        assert_eq!(client.value(&["GET", key]).integer(), Some(CLIENTS as i64));
    }
    bystander.finish();
}

//! What framing costs; run by hand in release.

use std::hint::black_box;
use std::time::Instant;

use lockstep::resp::{CommandScanner, Limits, ReplyScanner, Scan, as_int, elements};

/// The best of several rounds, in nanoseconds per frame.
fn measure(name: &str, frames: usize, mut round: impl FnMut()) {
    let best = (0..30)
        .map(|_| {
            let start = Instant::now();
            round();
            start.elapsed().as_nanos() as f64 / frames as f64
        })
        .fold(f64::MAX, f64::min);
    println!("{name:<40} {best:7.1} ns");
}

fn commands(name: &str, one: &[u8]) {
    let frames = 10_000;
    let bytes = one.repeat(frames);
    let mut scanner = CommandScanner::new(Limits::default());
    measure(name, frames, || {
        let mut rest = &bytes[..];
        let mut sum = 0;
        while let Ok(Scan::Command { len }) = scanner.scan(rest) {
            let command = scanner.command(rest);
            sum += command.name().len() + command.argc();
            rest = &rest[len..];
        }
        assert!(black_box(sum) > 0 && rest.is_empty());
    });
}

fn replies(name: &str, one: &[u8]) {
    let frames = 10_000;
    let bytes = one.repeat(frames);
    let mut scanner = ReplyScanner::new(Limits::default());
    measure(name, frames, || {
        let mut rest = &bytes[..];
        while let Ok(Some(len)) = scanner.scan(rest) {
            rest = &rest[len..];
        }
        assert!(black_box(rest).is_empty());
    });
}

#[test]
#[ignore = "measures; run it alone, in release"]
fn speed() {
    commands(
        "GET key:000001",
        b"*2\r\n$3\r\nGET\r\n$10\r\nkey:000001\r\n",
    );
    commands(
        "SET key:000001 value",
        b"*3\r\n$3\r\nSET\r\n$10\r\nkey:000001\r\n$5\r\nvalue\r\n",
    );
    let large = format!(
        "*3\r\n$3\r\nSET\r\n$10\r\nkey:000001\r\n$512\r\n{}\r\n",
        "v".repeat(512)
    );
    commands("SET key:000001 512 bytes", large.as_bytes());
    let mget = format!(
        "*11\r\n$4\r\nMGET\r\n{}",
        "$10\r\nkey:000001\r\n".repeat(10)
    );
    commands("MGET of 10", mget.as_bytes());
    commands("inline GET key", b"GET key:000001\r\n");
    replies("+OK", b"+OK\r\n");
    replies("+PONG", b"+PONG\r\n");
    replies("$5", b"$5\r\nvalue\r\n");
    replies(
        "$512",
        format!("$512\r\n{}\r\n", "v".repeat(512)).as_bytes(),
    );
    replies(":1", b":1\r\n");
    replies(":1234567", b":1234567\r\n");
    replies("$-1", b"$-1\r\n");
    let array = format!("*10\r\n{}", "$5\r\nvalue\r\n".repeat(10));
    replies("array of 10 values", array.as_bytes());
    measure("elements of an array of 10", 1_000, || {
        for _ in 0..1_000 {
            let ints = elements(black_box(array.as_bytes()))
                .filter_map(as_int)
                .count();
            assert_eq!(ints, 0);
        }
    });
}

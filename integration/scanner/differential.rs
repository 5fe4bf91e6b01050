//! The same bytes to a real redis-server. It must run the same commands, so its replies are those
//! to our canonical form of them; then say the same error and hang up, or hang up only after we
//! did.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use lockstep::resp::ProtocolError;
use tempfile::TempDir;

use crate::Plan;
use crate::commands::{Verdict, read};
use crate::generate::{self, Rng};

/// A redis-server of our own on a unix socket; dies with this value.
struct Server {
    child: Child,
    socket: PathBuf,
    _dir: TempDir,
}

impl Server {
    fn start(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let socket = dir.path().join("redis.sock");
        let child = Command::new("redis-server")
            .args([
                "--port",
                "0",
                "--save",
                "",
                "--appendonly",
                "no",
                "--unixsocket",
            ])
            .arg(&socket)
            .arg("--dir")
            .arg(dir.path())
            .args(options)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server runs");
        let server = Self {
            child,
            socket,
            _dir: dir,
        };
        let end = Instant::now() + Duration::from_secs(20);
        while UnixStream::connect(&server.socket).is_err() {
            assert!(Instant::now() < end, "redis-server does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    /// All that the server answers to `bytes`. If it is not expected to hang up by itself, it is
    /// told that nothing more will come.
    fn answers(&self, bytes: &[u8], hangs_up: bool) -> Vec<u8> {
        let mut stream = UnixStream::connect(&self.socket).expect("redis-server listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a timeout");
        // It may hang up before it has read everything.
        let written = stream.write_all(bytes);
        assert!(written.is_ok() || hangs_up, "{written:?}");
        if !hangs_up {
            stream.shutdown(Shutdown::Write).expect("half-close");
        }
        let mut answers = Vec::new();
        match stream.read_to_end(&mut answers) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("redis-server does not hang up: {error}"),
        }
        answers
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether Redis's verdict hangs on how the bytes are cut: a line that is too long, with its end
/// among the bytes.
fn depends_on_packets(bytes: &[u8], verdict: &Verdict) -> bool {
    let too_long = matches!(
        verdict.error,
        Some(
            ProtocolError::InlineTooBig
                | ProtocolError::CountLineTooBig
                | ProtocolError::BulkLineTooBig
        )
    );
    let behind = bytes.get(verdict.consumed + 65_537..).unwrap_or_default();
    too_long && behind.iter().any(|byte| matches!(byte, b'\r' | b'\n'))
}

fn error_line(verdict: &Verdict) -> BytesMut {
    let mut line = BytesMut::new();
    if let Some(error) = verdict.error {
        error.encode(&mut line);
    }
    line
}

fn compare(server: &Server, bytes: &[u8], verdict: &Verdict) {
    let answers = server.answers(bytes, verdict.error.is_some());
    let mut expected = server.answers(&verdict.canonical, false);
    expected.extend_from_slice(&error_line(verdict));
    assert_eq!(
        answers.escape_ascii().to_string(),
        expected.escape_ascii().to_string(),
        "{}",
        bytes.escape_ascii()
    );
}

/// A server that wants a password answers every command with one line of error.
fn compare_unauthenticated(server: &Server, bytes: &[u8], verdict: &Verdict) {
    let answers = server.answers(bytes, verdict.error.is_some());
    let lines = answers.split_inclusive(|byte| *byte == b'\n').count();
    let expected = verdict.commands + usize::from(verdict.error.is_some());
    assert_eq!(lines, expected, "{}", bytes.escape_ascii());
    assert!(
        answers.ends_with(&error_line(verdict)),
        "{}",
        bytes.escape_ascii()
    );
}

#[test]
fn redis_gives_the_same_verdict() {
    let plan = Plan::from_env();
    let inputs = (plan.inputs / 50).clamp(1_500, 40_000);
    println!("differential: {inputs} inputs, seed {}", plan.seed);
    let open = Server::start(&[]);
    let locked = Server::start(&["--requirepass", "secret"]);
    let (mut commands, mut errors, mut skipped) = (0, 0, 0);
    for index in 0..inputs {
        let mut rng = Rng::of(plan.seed.wrapping_add(2), index);
        let bytes = generate::commands(&mut rng);
        let auth_required = rng.one_in(5);
        let verdict = read(&bytes, &[bytes.len()], auth_required);
        if depends_on_packets(&bytes, &verdict) {
            skipped += 1;
            continue;
        }
        if auth_required {
            compare_unauthenticated(&locked, &bytes, &verdict);
        } else {
            compare(&open, &bytes, &verdict);
        }
        commands += verdict.commands;
        errors += usize::from(verdict.error.is_some());
    }
    println!("differential: {commands} commands, {errors} errors, {skipped} skipped");
    assert!(commands > 0 && errors > 0);
}

#[test]
fn redis_prints_doubles_as_we_do() {
    use lockstep::resp::{Protocol, build};
    let server = Server::start(&[]);
    let mut rng = Rng::of(Plan::from_env().seed, 3);
    let (mut commands, mut expected) = (BytesMut::new(), BytesMut::new());
    let doubles = (0..2_000).map(|_| f64::from_bits(rng.next()));
    let simple = (-400..400).map(|n| f64::from(n) / 8.0 * 10_f64.powi(n / 20));
    for double in doubles.chain(simple).filter(|double| !double.is_nan()) {
        // Rust's shortest form reads back as the same double.
        let text = format!("{double:e}");
        build::command(&mut commands, ["ZADD", "z", text.as_str(), "m"]);
        build::command(&mut commands, ["ZSCORE", "z", "m"]);
        build::command(&mut commands, ["DEL", "z"]);
        build::int(&mut expected, 1);
        build::double(&mut expected, Protocol::Resp2, double);
        build::int(&mut expected, 1);
    }
    let answers = server.answers(&commands, false);
    let (ours, theirs) = (
        String::from_utf8_lossy(&expected),
        String::from_utf8_lossy(&answers),
    );
    for (ours, theirs) in ours.lines().zip(theirs.lines()) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.len(), theirs.len());
}

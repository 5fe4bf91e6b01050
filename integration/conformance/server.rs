//! A redis-server of the test's own, and a blocking client.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use lockstep::resp::{Limits, ReplyScanner, build};
use tempfile::TempDir;

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// A redis-server, killed when dropped.
pub(crate) struct Server {
    child: Child,
    dir: TempDir,
}

impl Server {
    /// Starts one without persistence; `settings` are options of redis-server.
    pub(crate) fn start(settings: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(dir.path().join("data")).expect("a folder for data");
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(dir.path().join("s"))
            .args(["--enable-debug-command", "yes", "--dir"])
            .arg(dir.path().join("data"))
            .args(settings)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let server = Self { child, dir };
        until("the server answers", || {
            UnixStream::connect(server.socket()).is_ok()
        });
        server
    }

    /// The folder it saves to.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    /// A new connection.
    pub(crate) fn client(&self) -> Client {
        let stream = UnixStream::connect(self.socket()).expect("the server listens");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a time limit");
        Client {
            stream,
            scanner: ReplyScanner::new(Limits::default()),
            buffer: Vec::new(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection that waits for its replies.
pub(crate) struct Client {
    stream: UnixStream,
    scanner: ReplyScanner,
    buffer: Vec<u8>,
}

impl Client {
    /// Sends a command and gives its raw reply.
    pub(crate) fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Vec<u8> {
        let mut out = BytesMut::new();
        build::command(&mut out, args);
        self.send(&out);
        self.reply()
    }

    /// The same with a reply for people.
    pub(crate) fn text(&mut self, command: &str) -> String {
        let args: Vec<&str> = command.split(' ').collect();
        String::from_utf8_lossy(&self.call(&args)).into_owned()
    }

    /// Writes raw bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    /// The next reply, raw.
    pub(crate) fn reply(&mut self) -> Vec<u8> {
        loop {
            if let Some(len) = self.scanner.scan(&self.buffer).expect("a reply") {
                let rest = self.buffer.split_off(len);
                return std::mem::replace(&mut self.buffer, rest);
            }
            let mut chunk = [0; 64 * 1024];
            let len = self.stream.read(&mut chunk).expect("a reply in time");
            assert!(len > 0, "the server hung up");
            self.buffer.extend_from_slice(&chunk[..len]);
        }
    }

    /// The next replies.
    pub(crate) fn replies(&mut self, count: usize) -> Vec<Vec<u8>> {
        (0..count).map(|_| self.reply()).collect()
    }
}

/// Waits for a condition.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

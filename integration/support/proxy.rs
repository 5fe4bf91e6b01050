//! One lockstep process of a test.

use super::client::Client;
use super::ports::Port;
use super::process::Process;
use super::wait::eventually_with;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs::{File, read_to_string, remove_file};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;

const START_LIMIT: Duration = Duration::from_secs(20);
const DEFAULTS: [(&str, &str); 4] = [
    ("lock-ttl-ms", "2000"),
    ("lock-wait-ms", "5000"),
    ("decision-retention-ms", "8000"),
    ("workers", "1"),
];

/// A lockstep process on its own loopback ports; gone when dropped. Every warning and error
/// in its log must have been expected by the test ([`Proxy::expect_log`]).
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    metrics_port: Port,
    shards: Vec<String>,
    settings: BTreeMap<String, String>,
    /// Faults planted in the program; see `src/failpoint.rs`.
    faults: String,
    folder: TempDir,
    process: Option<Process>,
    /// What it is given to listen on, as by a service manager.
    listener: Option<TcpListener>,
    starts: usize,
    expected: Mutex<Vec<String>>,
}

impl Proxy {
    /// Starts lockstep before `shards` (`host:port`); `settings` are flags without their
    /// dashes and win over the tests' defaults. Waits until it answers PING.
    pub fn start(shards: &[String], settings: &[(String, String)]) -> Proxy {
        Proxy::start_wrong(shards, settings, "")
    }

    /// The same with faults planted in it, if it is a build that has them.
    pub fn start_wrong(shards: &[String], settings: &[(String, String)], faults: &str) -> Proxy {
        let mut proxy = Proxy::prepared(shards, settings);
        faults.clone_into(&mut proxy.faults);
        proxy.restart();
        proxy
    }

    /// Not started yet: see [`Proxy::launch`].
    pub fn prepared(shards: &[String], settings: &[(String, String)]) -> Proxy {
        let mut all: BTreeMap<String, String> = DEFAULTS
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        if let Ok(workers) = std::env::var("LOCKSTEP_SUBJECT_WORKERS") {
            all.insert("workers".to_owned(), workers);
        }
        if let Ok(fence) = std::env::var("LOCKSTEP_SUBJECT_FENCE") {
            all.insert("fence".to_owned(), fence);
        }
        all.extend(settings.iter().cloned());
        Proxy {
            port: Port::lease(),
            metrics_port: Port::lease(),
            shards: shards.to_vec(),
            settings: all,
            faults: String::new(),
            folder: TempDir::with_prefix("lockstep-proxy-").expect("a temporary folder"),
            process: None,
            listener: None,
            starts: 0,
            expected: Mutex::default(),
        }
    }

    /// The port clients connect to, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Where it is scraped, `host:port`.
    pub fn metrics_address(&self) -> String {
        format!("127.0.0.1:{}", self.metrics_port.number())
    }

    /// A new connection.
    pub fn client(&self) -> Client {
        Client::connect(self.port()).unwrap_or_else(|error| panic!("proxy: {error}"))
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Starts it again with the same ports and settings; one that still runs is killed first.
    pub fn restart(&mut self) {
        self.kill();
        self.launch();
        eventually_with("lockstep answers PING", START_LIMIT, || self.answers_ping());
    }

    /// Starts it without waiting until it answers.
    pub fn launch(&mut self) {
        self.starts += 1;
        let log = File::create(self.log_path(self.starts)).expect("a log file");
        let mut command = self.command();
        // What steers the tests is not meant for the program.
        let ours = std::env::vars_os().map(|(name, _)| name);
        for name in ours.filter(|name| name.to_string_lossy().starts_with("LOCKSTEP_")) {
            command.env_remove(name);
        }
        command
            .args(["--listen", &format!("127.0.0.1:{}", self.port())])
            .args([
                "--metrics-listen",
                &format!("127.0.0.1:{}", self.metrics_port.number()),
            ])
            .args(self.shards.iter().flat_map(|shard| ["--shard", shard]))
            .args(
                self.settings
                    .iter()
                    .flat_map(|(name, value)| [format!("--{name}"), value.clone()]),
            )
            .env("NO_COLOR", "1")
            .env("LOCKSTEP_FAILPOINTS", self.folder.path())
            .env("LOCKSTEP_FAULTS", &self.faults)
            .current_dir(self.folder.path())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log);
        self.process = Some(Process::start(&mut command).expect("the program under test starts"));
    }

    /// The program; with a listener that is handed over, by a shell that gives it the number and
    /// the variables of the convention (`LISTEN_FDS`).
    fn command(&self) -> Command {
        let Some(listener) = &self.listener else {
            let mut command = Command::new(program());
            command.stdin(Stdio::null());
            return command;
        };
        let script = "exec 3<&0 0</dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" \"$@\"";
        let mut command = Command::new("sh");
        let handle = listener.try_clone().expect("a second handle");
        command
            .args(["-c", script])
            .arg(program())
            .stdin(Stdio::from(OwnedFd::from(handle)));
        command
    }

    /// From its next start on it is handed a listener, that stays open between its lives.
    pub fn keep_listener(&mut self) {
        self.kill();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port.number()));
        self.listener = Some(listener.expect("its port is free"));
    }

    /// Starts another in its place, and gives the one that runs once the other serves.
    pub fn start_follower(&mut self) -> Process {
        let former = self.process.take().expect("one that runs");
        self.launch();
        let path = self.log_path(self.starts);
        eventually_with("the follower serves", START_LIMIT, || {
            let log = read_to_string(&path).unwrap_or_default();
            if log.contains("serving") {
                Ok(())
            } else {
                Err(log)
            }
        });
        former
    }

    fn answers_ping(&mut self) -> Result<(), String> {
        let process = self.process.as_mut().ok_or("not started")?;
        if let Some(status) = process.ended() {
            panic!("lockstep ended at its start: {status}\n{}", self.log());
        }
        let mut client = Client::connect(self.port.number()).map_err(|error| error.to_string())?;
        client.reply_limit(Duration::from_secs(2));
        let reply = client
            .try_call(&["PING"])
            .map_err(|error| error.to_string())?;
        if reply.raw == b"+PONG\r\n" {
            Ok(())
        } else {
            Err(reply.text())
        }
    }

    /// The next time that it comes to this failpoint, it stands still (`src/failpoint.rs`).
    pub fn arm(&self, failpoint: &str) {
        File::create(self.folder.path().join(failpoint)).expect("a file");
    }

    /// Whether it stands still at this failpoint.
    pub fn is_at(&self, failpoint: &str) -> bool {
        self.reached(failpoint).exists()
    }

    /// It goes on, or will not stop at this failpoint.
    pub fn disarm(&self, failpoint: &str) {
        let _ = remove_file(self.reached(failpoint));
        let _ = remove_file(self.folder.path().join(failpoint));
    }

    fn reached(&self, failpoint: &str) -> PathBuf {
        self.folder.path().join(format!("{failpoint}.reached"))
    }

    /// SIGSTOP: a proxy that is alive for the kernel and silent for everybody.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGTERM: drains and ends.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGHUP: reads its settings again.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// How it ended; `None` when it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        self.process
            .as_mut()
            .and_then(|process| process.wait(limit))
    }

    /// Whether the process is there.
    pub fn is_running(&mut self) -> bool {
        self.process
            .as_mut()
            .is_some_and(|process| process.ended().is_none())
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }

    /// Processor time it has taken.
    pub fn cpu(&self) -> Duration {
        self.process.as_ref().map_or(Duration::ZERO, Process::cpu)
    }

    /// The most resident memory that it ever had, in KiB.
    pub fn peak_kib(&self) -> u64 {
        self.process.as_ref().map_or(0, Process::peak_kib)
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        self.process.as_ref().map_or(0, Process::resident_kib)
    }

    /// The body of `path` on the metrics port, empty when it does not answer.
    pub fn http_get(&self, path: &str) -> String {
        let get = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.metrics_port.number()))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(
                stream,
                "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
            )?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        get().unwrap_or_default()
    }

    /// Sum of a counter or gauge over all its labels that contain `label` (`""`: all).
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        let body = self.http_get("/metrics");
        let of_name = |line: &&str| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        };
        body.lines()
            .filter(of_name)
            .filter(|line| line.contains(label))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Allows warnings and errors that contain `pattern`, from now and before.
    pub fn expect_log(&self, pattern: &str) {
        self.expected
            .lock()
            .expect("not poisoned")
            .push(pattern.to_owned());
    }

    /// The log of all its lives.
    pub fn log(&self) -> String {
        (1..=self.starts)
            .filter_map(|start| read_to_string(self.log_path(start)).ok())
            .collect()
    }

    fn log_path(&self, start: usize) -> PathBuf {
        self.folder.path().join(format!("log-{start}.txt"))
    }

    /// Warnings, errors and panics in the log that the test did not expect.
    pub fn unexpected_log(&self) -> Vec<String> {
        let expected = self.expected.lock().expect("not poisoned");
        let marks = [" WARN ", " ERROR ", "\"WARN\"", "\"ERROR\"", "panicked at"];
        self.log()
            .lines()
            .filter(|line| marks.iter().any(|mark| line.contains(mark)))
            .filter(|line| {
                !expected
                    .iter()
                    .any(|pattern| line.contains(pattern.as_str()))
            })
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            // Of a panic all is told.
            let panic = lines.iter().position(|line| line.contains("panicked at"));
            let start = lines.len().saturating_sub(20);
            let tail = &lines[panic.map_or(start, |panic| panic.min(start))..];
            eprintln!(
                "end of the log of lockstep on port {}:\n{}",
                self.port(),
                tail.join("\n")
            );
            return;
        }
        let unexpected = self.unexpected_log();
        let shown = &unexpected[..unexpected.len().min(10)];
        assert!(
            unexpected.is_empty(),
            "{} warnings and errors that no test expected, the first:\n{}",
            unexpected.len(),
            shown.join("\n")
        );
    }
}

/// The program under test.
pub fn program() -> PathBuf {
    std::env::var_os("LOCKSTEP_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_lockstep").into(), PathBuf::from)
}

//! One redis-server process of a test.

use super::client::Client;
use super::ports::Port;
use super::process::Process;
use super::wait::eventually_with;
use rustix::process::Signal;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const START_LIMIT: Duration = Duration::from_secs(20);

/// A redis-server on its own loopback port with its own folder; gone when dropped.
#[derive(Debug)]
pub struct Redis {
    port: Port,
    folder: TempDir,
    flags: Vec<String>,
    process: Option<Process>,
}

impl Redis {
    /// Starts a server that keeps nothing on disk; `flags` are redis-server arguments and win.
    pub fn start(flags: &[&str]) -> Redis {
        let mut redis = Redis {
            port: Port::lease(),
            folder: TempDir::with_prefix("lockstep-redis-").expect("a temporary folder"),
            flags: flags.iter().map(ToString::to_string).collect(),
            process: None,
        };
        redis.restart();
        redis
    }

    /// Starts a server that has lost nothing it acknowledged when it is killed and restarted.
    pub fn start_durable(flags: &[&str]) -> Redis {
        let mut all = vec!["--appendonly", "yes", "--appendfsync", "always"];
        all.extend_from_slice(flags);
        Redis::start(&all)
    }

    /// The port it listens on, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// `127.0.0.1:<port>`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// A new connection.
    pub fn client(&self) -> Client {
        Client::connect(self.port()).unwrap_or_else(|error| panic!("{}: {error}", self.address()))
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Starts the server again (same port, folder and flags) and waits until it answers PING;
    /// one that still runs is killed first.
    pub fn restart(&mut self) {
        self.kill();
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &self.port().to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .args(["--enable-debug-command", "local", "--logfile", "redis.log"])
            .args(&self.flags)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.process = Some(Process::start(&mut command).expect("redis-server is installed"));
        eventually_with("redis-server answers PING", START_LIMIT, || {
            self.answers_ping()
        });
    }

    /// Ours, not a stranger on the same port: its process id must be our child's.
    fn answers_ping(&mut self) -> Result<(), String> {
        let process = self.process.as_mut().ok_or("not started")?;
        if let Some(status) = process.ended() {
            let log = std::fs::read_to_string(self.folder.path().join("redis.log"));
            panic!("redis-server ended: {status}\n{}", log.unwrap_or_default());
        }
        let mut client = Client::connect(self.port.number()).map_err(|error| error.to_string())?;
        let info = client
            .try_call(&["INFO", "server"])
            .map_err(|error| error.to_string())?;
        let line = format!("process_id:{}\r\n", process.id());
        if !String::from_utf8_lossy(&info.raw).contains(&line) {
            return Err(info.text());
        }
        // INFO answers while an AOF is being read, PING does not.
        let ping = client
            .try_call(&["PING"])
            .map_err(|error| error.to_string())?;
        if ping.raw == b"+PONG\r\n" {
            Ok(())
        } else {
            Err(ping.text())
        }
    }

    /// SIGSTOP: the server keeps its connections and answers nothing.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
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

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        self.process.as_ref().map_or(0, Process::resident_kib)
    }

    /// Removes every key but the proxy's own.
    pub fn wipe(&self) {
        let mut client = self.client();
        for db in super::leftovers::databases(&mut client) {
            client.call(&["SELECT", &db]);
            let keys = super::leftovers::all_keys(&mut client);
            let mut command: Vec<&[u8]> = vec![b"UNLINK"];
            command.extend(
                keys.iter()
                    .map(Vec::as_slice)
                    .filter(|key| !super::ours(key)),
            );
            if command.len() > 1 {
                client.call(&command);
            }
        }
    }
}

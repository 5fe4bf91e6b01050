//! A child process that is paused, killed and reaped by its own id.

use rustix::process::{Pid, Signal, kill_process};
use std::fs::{DirEntry, read_dir, read_to_string};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// A running child; killed and reaped when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `command`.
    pub fn start(command: &mut Command) -> std::io::Result<Process> {
        Ok(Process {
            child: command.spawn()?,
        })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal; a process that is gone already is not an error.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("a process id");
        let pid = Pid::from_raw(id).expect("a process id is not zero");
        let _ = kill_process(pid, signal);
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// kill -9, and waits until the kernel has taken it away.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until it ends by itself; `None` when `limit` has passed.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let begin = Instant::now();
        while begin.elapsed() < limit {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    /// Resident memory in KiB; 0 when the process is gone or the system has no `/proc`.
    pub fn resident_kib(&self) -> u64 {
        self.status_field("VmRSS:")
    }

    /// The most resident memory that it ever had, in KiB; 0 as above.
    pub fn peak_kib(&self) -> u64 {
        self.status_field("VmHWM:")
    }

    /// Processor time of all its threads; zero when the process is gone or the system does not
    /// tell.
    pub fn cpu(&self) -> Duration {
        let Ok(threads) = read_dir(format!("/proc/{}/task", self.child.id())) else {
            return Duration::ZERO;
        };
        let of_thread = |thread: std::io::Result<DirEntry>| -> Option<u64> {
            let text = read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse().ok()
        };
        Duration::from_nanos(threads.filter_map(of_thread).sum())
    }

    /// Number of threads; 0 when the process is gone.
    pub fn threads(&self) -> u64 {
        self.status_field("Threads:")
    }

    fn status_field(&self, name: &str) -> u64 {
        let text = read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1))
            .and_then(|number| number.parse().ok())
            .unwrap_or(0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A stopped process ends on SIGKILL too.
        self.kill();
    }
}

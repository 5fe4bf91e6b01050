//! Running the program with nothing but what a test gives it.

use std::io::{BufRead, BufReader, PipeReader, Read, Write, pipe};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::support::eventually;
use crate::support::process::Process;

/// Longer than anything a test waits for takes, on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The program, in an empty environment but for the path.
pub fn lockstep(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockstep"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.args(arguments).stdin(Stdio::null());
    command
}

/// What it printed and how it ended.
pub fn run(arguments: &[&str]) -> Output {
    lockstep(arguments).output().expect("the program starts")
}

/// A text of the program's.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// Waits until the condition holds.
pub fn until(what: &str, holds: impl FnMut() -> bool) {
    eventually(what, PATIENCE, holds);
}

/// The program, whose output is read while it runs; killed when dropped.
pub struct Running {
    pub process: Process,
    output: BufReader<PipeReader>,
    /// Everything read so far from its standard output.
    pub seen: String,
}

impl Running {
    pub fn start(arguments: &[&str]) -> Self {
        let (output, input) = pipe().expect("a pipe");
        let mut command = lockstep(arguments);
        let process = Process::start(command.stdout(input)).expect("it starts");
        Self {
            process,
            output: BufReader::new(output),
            seen: String::new(),
        }
    }

    /// Reads its output up to the first line that contains the text, and gives that line.
    pub fn read_until(&mut self, part: &str) -> String {
        let mut line = String::new();
        while self.output.read_line(&mut line).expect("its output") > 0 {
            self.seen.push_str(&line);
            if line.contains(part) {
                return line;
            }
            line.clear();
        }
        panic!("it ended without saying {part:?}:\n{}", self.seen);
    }

    /// Waits for its end and gives its exit status; None if a signal ended it.
    pub fn ended(&mut self) -> Option<i32> {
        self.process
            .wait(PATIENCE)
            .expect("the program ends")
            .code()
    }
}

/// Status and body of a GET.
pub fn http_get(port: u16, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let status = response
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or(0);
    let body = response.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.to_owned()))
}

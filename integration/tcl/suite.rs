//! Runs units of the suite, one at a time, as its own program does.

use crate::expected::Databases;
use crate::outcome::{Outcome, read};
use crate::support::process::Process;
use crate::support::{Client, eventually};
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs::{File, create_dir, create_dir_all, read_dir};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A test in which nothing moves for so long hangs.
const STALL: Duration = Duration::from_secs(30);
/// For one run of one unit.
const UNIT_LIMIT: Duration = Duration::from_secs(600);
/// Runs of one unit before the rest of it is given up.
const RUNS_MAX: usize = 6;
/// For the server to be ready for the next unit.
const QUIET_LIMIT: Duration = Duration::from_secs(60);

/// Tests that want a replication link, DEBUG, RDB files, or settings and counters of the one
/// server there is say so.
const DENIED_TAGS: &str = "-needs:repl -needs:debug -needs:pfdebug -needs:save \
    -needs:config-maxmemory -needs:config-resetstat";
/// Half a minute and more against Redis itself.
const TOO_SLOW: &[&str] = &[
    "XRANGE fuzzing",
    "GEOSEARCH fuzzy test - byradius",
    "GEOSEARCH fuzzy test - bybox",
    "Fuzzing dense/sparse encoding: Redis should always detect errors",
    "PFCOUNT multiple-keys merge returns cardinality of union #1",
    "PFCOUNT multiple-keys merge returns cardinality of union #2",
];
/// What the suite runs beside the server, at this place of a source tree that was built.
const PROGRAMS: &[&str] = &["redis-cli", "redis-benchmark"];

/// The suite, in a folder of its own in which it may write.
pub struct Suite {
    folder: TempDir,
    databases: Databases,
}

impl Suite {
    /// From an unpacked source tree.
    pub fn new(source: &Path, databases: Databases) -> Suite {
        let folder = TempDir::with_prefix("lockstep-tcl-").expect("a temporary folder");
        let (tests, src) = (folder.path().join("tests"), folder.path().join("src"));
        create_dir_all(tests.join("tmp")).expect("a folder");
        create_dir(&src).expect("a folder");
        let source = source.join("tests").canonicalize();
        let source = source.expect("LOCKSTEP_TCL_SUITE names a folder in which there is tests/");
        for entry in read_dir(&source).expect("a folder") {
            let entry = entry.expect("an entry");
            if entry.file_name() != "tmp" {
                symlink(entry.path(), tests.join(entry.file_name())).expect("a link");
            }
        }
        for program in PROGRAMS {
            let path = on_path(program).unwrap_or_else(|| panic!("{program} is not installed"));
            symlink(path, src.join(program)).expect("a link");
        }
        Suite { folder, databases }
    }

    /// All units that the suite lists.
    pub fn units(&self) -> Vec<String> {
        let output = self.tclsh().arg("--list-tests").output();
        let output = output.expect("tclsh is installed");
        let text = String::from_utf8_lossy(&output.stdout);
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// Runs a unit against the server at this port. If a test hangs, or the unit dies between two
    /// tests of what a failed one has left behind, it is run again for the rest, without those that
    /// have failed.
    pub fn run(&self, unit: &str, port: u16) -> Outcome {
        let begin = Instant::now();
        let mut outcome = Outcome {
            unit: unit.to_owned(),
            tests: Vec::new(),
            took: Duration::ZERO,
        };
        let mut without = Vec::new();
        for _ in 0..RUNS_MAX {
            wait_until_quiet(port);
            let (tests, is_whole) = read(unit, &self.print(unit, port, &without));
            outcome.add(tests);
            let before = without.len();
            without = outcome.failed();
            if is_whole || without.len() == before {
                break;
            }
        }
        outcome.took = begin.elapsed();
        outcome
    }

    /// What one run prints.
    fn print(&self, unit: &str, port: u16, without: &[String]) -> String {
        let printed = self.folder.path().join("printed");
        let mut command = self.tclsh();
        command
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .args(["--durable", "--clients", "1", "--dont-clean"])
            .args(["--timeout", &STALL.as_secs().to_string()])
            .args(["--tags", DENIED_TAGS, "--single", unit]);
        if self.databases == Databases::One {
            command.arg("--singledb");
        }
        let without = without.iter().map(String::as_str);
        for test in without.chain(TOO_SLOW.iter().copied()) {
            command.args(["--skiptest", test]);
        }
        command
            .stdout(File::create(&printed).expect("a file"))
            .process_group(0);
        let mut process = Process::start(&mut command).expect("tclsh is installed");
        let ended = process.wait(UNIT_LIMIT);
        // Its client, too.
        let group = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
        let _ = kill_process_group(group.expect("a process id"), Signal::KILL);
        process.kill();
        // Bytes of names and messages that are no text are none of ours.
        let bytes = std::fs::read(&printed).expect("what was printed");
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        if ended.is_none() {
            text.push_str("\n[exception]: not done within the unit's limit\n");
        }
        text
    }

    fn tclsh(&self) -> Command {
        let mut command = Command::new("tclsh");
        command
            .arg("tests/test_helper.tcl")
            .current_dir(self.folder.path())
            // No colours.
            .env_remove("TERM")
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        command
    }
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut all = std::env::split_paths(&path).map(|folder| folder.join(program));
    all.find(|path| path.is_file())
}

/// What a unit leaves behind (a script that nobody ends, a pause) is not the next one's fault: each
/// begins when the server takes what it begins with.
fn wait_until_quiet(port: u16) {
    eventually("FLUSHALL is answered", QUIET_LIMIT, || {
        let Ok(mut client) = Client::connect(port) else {
            return false;
        };
        let flushed = client.try_call(&["FLUSHALL"]);
        flushed.is_ok_and(|reply| reply.raw == b"+OK\r\n")
    });
}

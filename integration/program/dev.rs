//! `lockstep dev`: it shows what it promises and leaves nothing behind, however it ends.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::running::{Running, lockstep, run, text, until};

/// A `dev` that has shown everything: the process, its folder, and the process ids of its
/// servers.
fn started(arguments: &[&str]) -> (Running, PathBuf, Vec<String>) {
    let line = [
        &["dev", "--listen", "127.0.0.1:0", "--metrics-listen", ""],
        arguments,
    ]
    .concat();
    let mut running = Running::start(&line);
    running.read_until("Ctrl-C");
    let seen = &running.seen;
    let folder = seen
        .lines()
        .find_map(|l| l.trim().strip_prefix("files"))
        .expect("its folder");
    let folder = PathBuf::from(folder.trim());
    let pid = |line: &str| Some(line.split("(pid ").nth(1)?.trim_end_matches(')').to_owned());
    let pids: Vec<_> = seen.lines().filter_map(pid).collect();
    assert!(
        folder.is_dir() && !pids.is_empty() && pids.iter().all(|pid| lives(pid)),
        "{seen}"
    );
    (running, folder, pids)
}

/// Whether it runs; a process that has ended but was not waited for does not.
fn lives(pid: &str) -> bool {
    let ps = Command::new("ps")
        .args(["-o", "stat=", "-p", pid])
        .output()
        .expect("ps runs");
    let state = text(&ps.stdout);
    !state.trim().is_empty() && !state.trim().starts_with('Z')
}

fn nothing_is_left(folder: &Path, pids: &[String]) {
    until("the servers have ended", || {
        !pids.iter().any(|pid| lives(pid))
    });
    until("the folder is gone", || !folder.exists());
}

#[test]
fn it_shows_a_transaction_over_all_shards_and_where_the_keys_are() {
    let (mut running, folder, pids) = started(&["--for", "1"]);
    assert_eq!(pids.len(), 3);
    assert_eq!(running.ended(), Some(0));
    let seen = &running.seen;
    let asked = |command: &str| seen.lines().filter(|l| l.contains(command)).count();
    assert_eq!(
        (asked("> MULTI"), asked("QUEUED"), asked("> EXEC")),
        (1, 3, 1),
        "{seen}"
    );
    for shard in ["shard 0 (", "shard 1 (", "shard 2 ("] {
        assert_eq!(asked(shard), 1, "{shard}\n{seen}");
    }
    assert_eq!(asked("No lock and no intent is left"), 1, "{seen}");
    assert_eq!(asked("redis-cli -p"), 3, "{seen}");
    nothing_is_left(&folder, &pids);
}

#[test]
fn told_to_stop_it_removes_everything() {
    for signal in [Signal::TERM, Signal::INT] {
        let (mut running, folder, pids) = started(&["--appendonly"]);
        running.process.signal(signal);
        assert_eq!(running.ended(), Some(0), "{signal:?}");
        nothing_is_left(&folder, &pids);
    }
}

#[test]
fn killed_it_leaves_nothing_either() {
    let (mut running, folder, pids) = started(&["--shards", "2"]);
    running.process.kill();
    nothing_is_left(&folder, &pids);
}

#[test]
fn a_command_finds_no_key_of_the_show_and_gives_its_status() {
    let script =
        "redis-cli -u $LOCKSTEP_URL EXISTS alice; redis-cli -p $LOCKSTEP_PORT PING; exit 7";
    let line = [
        "dev",
        "--listen",
        "127.0.0.1:0",
        "--metrics-listen",
        "127.0.0.1:0",
        "--",
    ];
    let output = run(&[line.as_slice(), &["sh", "-c", script]].concat());
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{errors}");
    assert_eq!(text(&output.stdout), "0\nPONG\n", "{errors}");
    assert!(errors.contains("> EXEC"), "{errors}");
}

#[test]
fn a_command_that_takes_too_long_is_ended() {
    let line = [
        "dev",
        "--shards",
        "1",
        "--listen",
        "127.0.0.1:0",
        "--metrics-listen",
        "",
    ];
    let output = run(&[line.as_slice(), &["--for", "1", "--", "sleep", "1000"]].concat());
    assert_eq!(output.status.code(), Some(124), "{}", text(&output.stderr));
}

#[test]
fn a_missing_redis_server_names_the_package() {
    let output = run(&["dev", "--redis-server", "/nonexistent/redis-server"]);
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(
        error.contains("install the package redis-server"),
        "{error}"
    );
}

#[test]
fn a_redis_server_that_does_not_start_says_why() {
    let output = run(&["dev", "--redis-server", "false"]);
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(
        error.contains("shard 0 did not start: it ended at once"),
        "{error}"
    );
}

#[test]
fn shards_of_others_are_refused() {
    let output = lockstep(&["dev"])
        .env("LOCKSTEP_SHARD", "127.0.0.1:6379")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("in the environment (LOCKSTEP_SHARD)"));
}

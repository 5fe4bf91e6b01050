//! Unmodified clients: redis-py and redis-cli run transactions over all shards, and what they
//! wrote is on the shards where `CLUSTER KEYSLOT` says it belongs, with nothing of ours left. The
//! client libraries of [`libraries`] all do the same, and [`applications`] run on some of them.
//!
//! All but redis-cli comes from `integration/clients/setup`, into `target/`. Without a package
//! index: `LOCKSTEP_OFFLINE=1` leaves that part out.

// A test program has no outside that could reach its items.
#![allow(unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod applications;
mod libraries;

use rustix::process::{Pid, Signal, kill_process};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;
use support::{Cluster, Options, Redis, ports::Port, spread};

/// What becomes of the decided records, plus a little.
const CLEAN_LIMIT: Duration = Duration::from_secs(10);
/// Longest run of one program.
const RUN_LIMIT: Duration = Duration::from_secs(120);
/// The same for what installs libraries, and builds those of Rust.
const SETUP_LIMIT: Duration = Duration::from_secs(900);

#[test]
fn redis_py() {
    let Some(python) = installed("python") else {
        return;
    };
    let cluster = Cluster::start(&Options::default());
    for protocol in ["default", "2", "3"] {
        let name = format!("py{protocol}:");
        let keys = spread(&name, cluster.shards().len(), 10);
        let mut command = Command::new(&python);
        command
            .arg(folder().join("redis_py.py"))
            .args([&cluster.port(0).to_string(), protocol])
            .args(&keys);
        check_redis_py(&run(&mut command, ""));
        check_places(&cluster, &keys);
    }
    cluster.wait_clean(CLEAN_LIMIT);
}

fn check_redis_py(printed: &str) {
    let wanted = [
        "ping True",
        "transaction [True, 1, 2, None, True, 7, 1, 'zero', 2, None, True, 3]",
        "with an error ['True', 'value is not an integer or out of range', 'True']",
        "plain pipeline ['zero', 'three', 'seven', 'eight']",
        "mget ['zero', 'three', 'seven', None]",
        "mset True",
        "exists 10",
        "types {'m'} {'f': 'v'} 1.5",
        "wrong type WRONGTYPE Operation against a key holding the wrong kind of value",
        "watched [True, True]",
        "watch error ['1', '4']",
        "database 3 [True, True, ['three', 'three', None]]",
        "deleted 2",
    ];
    assert_eq!(printed.lines().collect::<Vec<_>>(), wanted);
}

/// Pub/sub, blocking pops, scripts and locks of redis-py, in both protocols.
#[test]
fn redis_py_channels() {
    let Some(python) = installed("python") else {
        return;
    };
    let cluster = Cluster::start(&Options::default());
    let keys = spread("py:", cluster.shards().len(), 3);
    let mut command = Command::new(&python);
    command
        .arg(folder().join("redis_py_channels.py"))
        .arg(cluster.port(0).to_string())
        .args(&keys);
    let printed = run(&mut command, "");
    let wanted = ["2", "3"].map(|protocol| {
        let lines = [
            "publish 1",
            "heard m0",
            "publish 1",
            "heard m1",
            "publish 1",
            "heard m2",
            "publish 1 ('pmessage', 'news.art', 'p')",
            "popped element",
            "script [2, 2, 2]",
            "without keys hello",
            "locked 1",
            "deleted 3",
        ];
        lines.map(|line| format!("{protocol} {line}"))
    });
    assert_eq!(printed.lines().collect::<Vec<_>>(), wanted.concat());
    cluster.wait_clean(CLEAN_LIMIT);
}

#[test]
fn redis_cli() {
    let cluster = Cluster::start(&Options::default());
    let k = spread("cli:", cluster.shards().len(), 10);
    let typed = format!(
        "MULTI\nSET {} zero\nINCR {}\nLPUSH {} a b\nGET {}\nSET {} four\nINCRBY {} 7\n\
         LPUSH {} c\nSET {} seven\nGET {}\nINCR {}\nEXEC\n",
        k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7], k[0], k[8]
    ) + &format!(
        "MULTI\nSET {} three\nLPUSH {} x\nEXEC\nMULTI\nSET {} no\nDISCARD\n",
        k[3], k[0], k[9]
    ) + &format!(
        "MULTI\nNOSUCH\nEXEC\nMSET {} nine {} zero\nMGET {} {} nothing\n",
        k[9], k[0], k[9], k[0]
    );
    let mut command = Command::new("redis-cli");
    command.args(["-p", &cluster.port(0).to_string()]);
    let printed = run(&mut command, &typed);
    let queued = "QUEUED\n";
    let wanted = format!(
        "OK\n{}OK\n1\n2\n\nOK\n7\n1\nOK\nzero\n1\n",
        queued.repeat(10)
    ) + &format!(
        "OK\n{}OK\nWRONGTYPE Operation against a key holding the wrong kind of value\n\n",
        queued.repeat(2)
    ) + &format!("OK\n{queued}OK\n")
        + "OK\nERR unknown command 'NOSUCH', with args beginning with: \n\n"
        + "EXECABORT Transaction discarded because of previous errors.\n\n"
        + "OK\nnine\nzero\n\n";
    assert_eq!(printed, wanted);
    check_places(&cluster, &k);
    cluster.wait_clean(CLEAN_LIMIT);
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/clients")
}

/// Where the libraries of this language are, once they are installed; nowhere if that is not wanted.
fn installed(language: &str) -> Option<std::path::PathBuf> {
    if std::env::var("LOCKSTEP_OFFLINE").is_ok_and(|value| value == "1") {
        println!("LOCKSTEP_OFFLINE=1: {language} is left out");
        return None;
    }
    let mut setup = Command::new(folder().join("setup"));
    let printed = run_within(SETUP_LIMIT, setup.arg(language), "");
    Some(printed.trim().into())
}

/// Runs a program with this input; its output. It must succeed, and in time: one that hangs is
/// killed.
fn run(command: &mut Command, input: &str) -> String {
    run_within(RUN_LIMIT, command, input)
}

fn run_within(limit: Duration, command: &mut Command, input: &str) -> String {
    let piped = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = piped
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("piped");
    // The input of a test is smaller than a pipe.
    stdin.write_all(input.as_bytes()).expect("written");
    drop(stdin);
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let (ended, watch) = mpsc::channel::<()>();
    thread::spawn(move || {
        if watch.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            let _ = kill_process(pid.expect("a process id"), Signal::KILL);
        }
    });
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().expect("its output");
    drop(ended);
    let (stdout, stderr) = (
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr),
    );
    assert!(
        status.success(),
        "{command:?}: {status}\n{stdout}\n{stderr}"
    );
    stdout.into_owned()
}

/// Each key is on the shard of its slot, as a Redis Cluster node counts slots, and only there.
fn check_places(cluster: &Cluster, keys: &[String]) {
    // Its bus would take the port 10,000 above, which the kernel may have given away.
    let bus = Port::lease();
    let bus_number = bus.number().to_string();
    let node = Redis::start(&["--cluster-enabled", "yes", "--cluster-port", &bus_number]);
    let mut node = node.client();
    let shards = cluster.shards();
    for key in keys {
        let slot = node
            .value(&["CLUSTER", "KEYSLOT", key])
            .integer()
            .expect("a slot");
        let home = usize::try_from(slot).expect("a slot") * shards.len() / 16_384;
        for (number, shard) in shards.iter().enumerate() {
            let here = shard.client().value(&["EXISTS", key]).integer() == Some(1);
            assert_eq!(here, number == home, "{key}, slot {slot}: shard {number}");
        }
    }
}

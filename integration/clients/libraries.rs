//! Every client library does the same, over keys of three shards, in RESP2 and in RESP3: a
//! pipeline, a transaction, two concurrent loops round WATCH, a WATCH that is broken, pub/sub, a
//! blocking pop, scripts, and a lock. Their programs lie beside this file.

use crate::support::{Cluster, Options, spread};
use crate::{CLEAN_LIMIT, folder, installed, run};
use std::process::Command;

/// What a program is to print, with these keys.
fn wanted(keys: &[String]) -> Vec<String> {
    let mut lines = vec![
        "ping PONG".to_owned(),
        "pipeline OK 1 2 zero a b".to_owned(),
        "transaction OK 2 3 one nil".to_owned(),
        // Two clients, ten increments each, of two keys on two shards.
        "counted 20 20".to_owned(),
        "broken watch nil".to_owned(),
    ];
    let channels = keys[..3].iter().map(String::as_str).chain(["news.art"]);
    lines.extend(channels.map(|channel| format!("published 1 heard {channel} hello")));
    lines.push(format!("popped {} element", keys[5]));
    let rest = ["eval 4 3", "evalsha 5 4", "locked OK nil", "unlocked 0 1"];
    lines.extend(rest.map(str::to_owned));
    // The list of the pop is empty, and so gone.
    lines.push("deleted 5".to_owned());
    lines
}

/// Runs `command` with port, protocol and keys, in both protocols.
fn check(name: &str, command: impl Fn() -> Command, own: &[&str]) {
    let cluster = Cluster::start(&Options::default());
    for protocol in ["2", "3"] {
        let keys = spread(&format!("{name}{protocol}:"), cluster.shards().len(), 6);
        let mut command = command();
        command
            .args([&cluster.port(0).to_string(), protocol])
            .args(&keys);
        let printed = run(&mut command, "");
        let mut wanted = wanted(&keys);
        wanted.extend(own.iter().map(|line| (*line).to_owned()));
        let printed: Vec<_> = printed.lines().collect();
        assert_eq!(printed, wanted, "{name}, RESP{protocol}");
    }
    cluster.wait_clean(CLEAN_LIMIT);
}

#[test]
fn redis_py_asyncio() {
    let Some(python) = installed("python") else {
        return;
    };
    let command = || {
        let mut command = Command::new(&python);
        command.arg(folder().join("redis_py_async.py"));
        command
    };
    check("asyncio", command, &["the library's own lock 1 0"]);
}

#[test]
fn node_redis() {
    let Some(modules) = installed("node") else {
        return;
    };
    let command = || {
        let mut command = Command::new("node");
        command
            .current_dir(&modules)
            .arg(folder().join("node_redis.mjs"));
        command
    };
    check("node", command, &[]);
}

#[test]
fn libraries_of_rust() {
    let Some(programs) = installed("rust") else {
        return;
    };
    for name in ["redis-rs", "fred"] {
        check(name, || Command::new(programs.join(name)), &[]);
    }
}

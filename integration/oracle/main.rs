//! P3, faithful: the same commands to one plain redis-server and to lockstep over three shards
//! are answered byte for byte the same, and leave the same data behind.
//!
//! - `scripted`: the sequences of `scripts/*.txt`, by topic, each in RESP2 and in RESP3,
//!   command by command and again in one write;
//! - `generated`: random sequences of the commands in `grammar.txt`, in either protocol;
//! - `crosses_shards`: what cannot be done over shards is refused, and nothing is changed.
//!
//! `LOCKSTEP_ORACLE_SEQUENCES` sets the number of generated sequences,
//! `LOCKSTEP_ORACLE_CONNECTIONS` how many run side by side, `LOCKSTEP_ORACLE_ONLY` restricts
//! the scripted ones to names (`topic: name`) that contain its text.

// A test program has no outside that could reach its items.
#![allow(unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod generate;
mod rules;
mod run;
mod script;
mod state;
mod template;

use generate::{Grammar, Sequence};
use run::{Mismatch, Mode, Pair, run};
use script::{Script, Step};
use state::States;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::seed::PrintOnFailure;
use support::{Client, Cluster, Options, Redis, Seed, Value, number_from_env, spread};

const SCRIPTED_AT_LEAST: usize = 200;
const SETTLE_LIMIT: Duration = Duration::from_secs(4);

#[test]
fn scripted() {
    let scripts = script::all();
    assert!(
        scripts.len() >= SCRIPTED_AT_LEAST,
        "only {} scripts",
        scripts.len()
    );
    let only = std::env::var("LOCKSTEP_ORACLE_ONLY").unwrap_or_default();
    let (oracle, cluster) = (oracle(), Cluster::start(&Options::default()));
    cluster.expect_log("a wrong password");
    let mut failures = Vec::new();
    let begin = Instant::now();
    for script in scripts.iter().filter(|script| script.name.contains(&only)) {
        for protocol in ["2", "3"] {
            let script = script.speaking(protocol);
            for mode in [Mode::Steps, Mode::Pipelined] {
                failures.extend(run_script(&oracle, &cluster, &script, mode));
            }
        }
    }
    println!(
        "{} scripted sequences, four times each, in {:?}",
        scripts.len(),
        begin.elapsed()
    );
    cluster.wait_settled(SETTLE_LIMIT);
    assert!(
        failures.is_empty(),
        "{} of {} scripted runs differ:\n\n{}",
        failures.len(),
        4 * scripts.len(),
        failures[..failures.len().min(40)].join("\n\n")
    );
}

/// Runs one script on empty servers; tells how it differs.
fn run_script(oracle: &Redis, cluster: &Cluster, script: &Script, mode: Mode) -> Option<String> {
    oracle.wipe();
    cluster.wipe();
    let mut pair = Pair::connect(oracle, cluster);
    let title = format!("{} ({mode:?})", script.name);
    if let Err(mismatch) = run(&mut pair, &script.steps, mode) {
        return Some(report(&title, &script.steps, &mismatch));
    }
    let difference = States::connect(oracle, cluster).compare_all()?;
    Some(format!(
        "{title}: same replies, but other data: {difference}"
    ))
}

#[test]
fn generated() {
    let seed = Seed::take();
    let _print = PrintOnFailure(seed);
    let count = number_from_env("LOCKSTEP_ORACLE_SEQUENCES", 10_000);
    let connections = number_from_env("LOCKSTEP_ORACLE_CONNECTIONS", 4);
    let (oracle, cluster) = (oracle(), Cluster::start(&Options::default()));
    let grammar = Grammar::read();
    let run = Run {
        seed,
        count,
        grammar: &grammar,
        next: AtomicU64::new(0),
        failures: Mutex::default(),
    };
    let begin = Instant::now();
    let commands: usize = std::thread::scope(|scope| {
        let work = || run.work(&oracle, &cluster);
        let threads: Vec<_> = (0..connections).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .sum()
    });
    println!(
        "{count} sequences, {commands} commands in {:?}, seed {}",
        begin.elapsed(),
        seed.0
    );
    let failures = run.failures.into_inner().expect("not poisoned");
    assert!(
        failures.is_empty(),
        "seed {}:\n\n{}",
        seed.0,
        failures.join("\n\n")
    );
    cluster.wait_settled(SETTLE_LIMIT);
    if count >= 5_000 {
        let unused = grammar.never_succeeded(&oracle.client().value(&["INFO", "commandstats"]));
        assert!(
            unused.is_empty(),
            "never answered without an error: {unused:?}"
        );
    }
}

/// The generated sequences, taken one after another by several threads.
struct Run<'a> {
    seed: Seed,
    count: u64,
    grammar: &'a Grammar,
    next: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl Run<'_> {
    /// Takes sequences until none is left or enough differ; how many commands it has sent.
    fn work(&self, oracle: &Redis, cluster: &Cluster) -> usize {
        let mut pair = Pair::connect(oracle, cluster);
        let mut states = States::connect(oracle, cluster);
        let mut commands = 0;
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.count || self.failures.lock().expect("not poisoned").len() >= 5 {
                return commands;
            }
            let sequence = self.grammar.sequence(&mut self.seed.rng(number), number);
            commands += sequence.steps.len();
            if let Some(text) = run_generated(&mut pair, &mut states, &sequence) {
                self.failures.lock().expect("not poisoned").push(text);
                pair.reconnect();
            }
        }
    }
}

/// Runs one generated sequence; tells how it differs, with the fewest commands found.
fn run_generated(pair: &mut Pair, states: &mut States, sequence: &Sequence) -> Option<String> {
    let title = format!("sequence {} ({:?})", sequence.number, sequence.mode);
    match run(pair, &sequence.steps, sequence.mode) {
        Err(mismatch) => {
            let (steps, mismatch) = shrink(pair, states, sequence, mismatch);
            Some(report(&title, &steps, &mismatch))
        }
        Ok(()) => {
            let difference = states.compare(&sequence.keys, sequence.databases)?;
            let steps = script::print(&sequence.steps, usize::MAX);
            Some(format!(
                "{title}: same replies, but other data: {difference}\n{steps}"
            ))
        }
    }
}

/// Leaves out commands as long as a difference remains: first all behind the first one.
fn shrink(
    pair: &mut Pair,
    states: &mut States,
    sequence: &Sequence,
    found: Mismatch,
) -> (Vec<Step>, Mismatch) {
    const LIMIT: Duration = Duration::from_secs(10);
    let begin = Instant::now();
    let mut steps = sequence.steps[..=found.step].to_vec();
    let mut best = found;
    let mut index = steps.len();
    while index > 0 && begin.elapsed() < LIMIT {
        index -= 1;
        let mut fewer = steps.clone();
        fewer.remove(index);
        states.clear(&sequence.keys);
        pair.reconnect();
        if let Err(mismatch) = run(pair, &fewer, sequence.mode) {
            fewer.truncate(mismatch.step + 1);
            index = index.min(fewer.len());
            (steps, best) = (fewer, mismatch);
        }
    }
    (steps, best)
}

fn report(title: &str, steps: &[Step], mismatch: &Mismatch) -> String {
    let script = script::print(steps, mismatch.step);
    format!(
        "{title}:\n{script}  redis:    {}\n  lockstep: {}",
        mismatch.wanted, mismatch.got
    )
}

fn oracle() -> Redis {
    Redis::start(&[])
}

/// The test of the test: a reply that differs is found, and where.
#[test]
fn a_difference_is_found() {
    let (wanted, other) = (oracle(), oracle());
    for (server, value) in [(&wanted, "1"), (&other, "2")] {
        server.client().call(&["SET", "a", value]);
    }
    let steps = ["PING", "MULTI", "GET a", "EXEC"].map(|line| {
        Step::Command(
            line.split(' ')
                .map(|word| word.as_bytes().to_vec())
                .collect(),
        )
    });
    for mode in [Mode::Steps, Mode::Pipelined, Mode::Chunks(3)] {
        let mut pair = Pair::to([wanted.port(), other.port()]);
        let found = run(&mut pair, &steps, mode).expect_err("1 is not 2");
        assert_eq!(found.step, 3);
        assert_eq!(found.got, "*1\\r\\n$1\\r\\n2\\r\\n");
        assert!(report("title", &steps, &found).contains("-> EXEC"));
    }
}

/// What cannot be done across shards is refused before anything is done (design: no command is
/// ever half-done silently).
#[test]
fn crosses_shards() {
    let cluster = Cluster::start(&Options::default());
    if !cluster.is_lockstep() {
        return;
    }
    let mut client = cluster.client();
    let keys = spread("k", cluster.shards().len(), 3);
    let [a, b, c] = [&keys[0], &keys[1], &keys[2]];
    for key in &keys {
        client.call(&["RPUSH", key, "1", "2", "3"]);
    }
    let before = snapshot(&cluster, &keys);
    for line in REFUSED {
        let line = line.replace("<a>", a).replace("<b>", b).replace("<c>", c);
        let reply = client.say(&line);
        let error = reply
            .error()
            .unwrap_or_else(|| panic!("{line}: not refused: {reply}"));
        assert!(error.starts_with("CROSSSLOT "), "{line}: {error}");
        assert!(
            error.len() > "CROSSSLOT ".len() + 20,
            "{line} does not say what to do: {error}"
        );
        assert_eq!(
            snapshot(&cluster, &keys),
            before,
            "{line} changed something"
        );
        expect_abort(&mut client, &line, &format!("DEL {a} {b}"));
        assert_eq!(
            snapshot(&cluster, &keys),
            before,
            "{line} in MULTI changed something"
        );
    }
    for line in ALONE {
        let line = line.replace("<a>", a).replace("<b>", b).replace("<c>", c);
        expect_abort(&mut client, &line, &format!("DEL {a} {b}"));
        assert_eq!(
            snapshot(&cluster, &keys),
            before,
            "{line} in MULTI changed something"
        );
    }
    cluster.wait_settled(SETTLE_LIMIT);
}

/// In a transaction it is refused when queued, and EXEC does nothing of the rest.
fn expect_abort(client: &mut Client, line: &str, rest: &str) {
    assert_eq!(client.say("MULTI"), Value::Simple(b"OK".to_vec()));
    client.say(rest);
    let reply = client.say(line);
    assert!(reply.error().is_some(), "{line} in MULTI: {reply}");
    let exec = client.say("EXEC").error().unwrap_or_default();
    assert!(
        exec.starts_with("EXECABORT "),
        "{line} in MULTI: EXEC: {exec}"
    );
}

const REFUSED: &[&str] = &[
    "LMPOP 2 <a> <b> LEFT",
    "ZMPOP 2 <a> <b> MIN",
    "SORT <a> BY {x}* STORE <b>",
    "XREAD STREAMS <a> <b> 0 0",
    "EVAL return(1) 2 <a> <b>",
];

/// What is a transaction of its own, and cannot be part of another.
const ALONE: &[&str] = &[
    "RENAME <a> <b>",
    "RENAMENX <a> <b>",
    "COPY <a> <b>",
    "MSETNX <a> 1 <b> 2",
    "LMOVE <a> <b> LEFT RIGHT",
    "RPOPLPUSH <a> <b>",
    "BLMOVE <a> <b> LEFT RIGHT 0",
    "SINTER <a> <b>",
    "SUNIONSTORE <a> <b> <c>",
    "SDIFF <c> <b> <a>",
    "SINTERCARD 2 <a> <b>",
    "SMOVE <a> <b> x",
    "ZUNIONSTORE <a> 2 <b> <c>",
    "ZINTER 2 <a> <b>",
    "ZDIFF 2 <b> <a>",
    "ZRANGESTORE <a> <b> 0 -1",
    "BITOP AND <a> <b> <c>",
    "PFMERGE <a> <b>",
    "PFCOUNT <a> <b>",
    "GEOSEARCHSTORE <a> <b> FROMLONLAT 0 0 BYRADIUS 1 m",
    "SORT <a> STORE <b>",
    "LCS <a> <b>",
];

/// Every shard's view of the keys.
fn snapshot(cluster: &Cluster, keys: &[String]) -> Vec<Value> {
    let look = |shard: &Redis| {
        let mut client = shard.client();
        let dump = |key| client.value(&["DUMP", key]);
        keys.iter()
            .map(String::as_str)
            .map(dump)
            .collect::<Vec<_>>()
    };
    cluster.shards().iter().flat_map(look).collect()
}

//! What lockstep costs, beside one redis-server and, where it is installed, twemproxy:
//!
//! ```sh
//! cargo bench                                        # everything, about a quarter of an hour
//! cargo bench -- --workloads get,set --rounds 9
//! cargo bench -- --endpoint other=127.0.0.1:6390     # one more, which runs already
//! cargo bench -- --start 'x=./x {port} {shards}'     # one more, in front of the same shards
//! cargo bench -- --report integration/BENCHMARKS.md  # everything, and writes the tables there
//! cargo bench -- --sweep integration/bench/sweep     # the figures, about six minutes
//! ```
//!
//! Everything is started here, on loopback: shards that keep nothing on disk, one redis-server with
//! all keys (`direct`, the yardstick), lockstep twice (`isolation` strict and transactions) over
//! three shards, `nutcracker` over the same. The load comes from this process, so it shares the
//! machine with what is measured; all take turns in each round, and of the rounds the median
//! counts. Processor time per request repeats best; throughput says as much about the load and the
//! shards, which share the cores, as about the proxy.

// A benchmark has no outside that could reach its items.
#![allow(unreachable_pub)]

mod aims;
mod endpoints;
mod host;
mod load;
mod memory;
mod plot;
mod report;
mod sweep;
mod workloads;

#[path = "../support/mod.rs"]
mod support;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use endpoints::{Counted, Endpoint, Kind, Stage};
use report::{Sample, Table};
use workloads::Workload;

/// What is wanted.
struct Options {
    rounds: usize,
    seconds: f64,
    workloads: Vec<String>,
    strangers: Vec<String>,
    commands: Vec<String>,
    lists: bool,
    report: Option<PathBuf>,
    sweep: Option<PathBuf>,
}

fn arguments() -> ArgMatches {
    let option = |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help);
    let path = |name, help| option(name, help).value_parser(value_parser!(PathBuf));
    Command::new("bench")
        .about("Benchmarks of lockstep beside others")
        .arg(
            option(
                "rounds",
                "Rounds; the median of them is shown, of a sweep the best [5; of a sweep: 3]",
            )
            .value_parser(value_parser!(u32).range(1..1_000)),
        )
        .arg(
            option(
                "seconds",
                "Per workload, endpoint and round [2; of a sweep: 1]",
            )
            .value_parser(value_parser!(f64)),
        )
        .arg(
            option("workloads", "Which, by name; see --list")
                .value_delimiter(',')
                .action(ArgAction::Append),
        )
        .arg(
            option("endpoint", "One more that runs already, as NAME=HOST:PORT")
                .action(ArgAction::Append),
        )
        .arg(
            option(
                "start",
                "One more to be started, as NAME=COMMAND with {port} and {shards}; floor is taken \
                 as a yardstick, any other name as a peer",
            )
            .action(ArgAction::Append),
        )
        .arg(option("list", "Names the workloads").action(ArgAction::SetTrue))
        .arg(path(
            "report",
            "Writes the tables into this file of Markdown, too",
        ))
        .arg(path(
            "sweep",
            "Instead of all that, draws the figures into this folder",
        ))
        // Given by cargo.
        .arg(
            Arg::new("bench")
                .long("bench")
                .hide(true)
                .action(ArgAction::SetTrue),
        )
        .get_matches()
}

impl Options {
    fn parse() -> Self {
        let given = arguments();
        let texts = |name| {
            let given = given.get_many(name).into_iter().flatten();
            given.cloned().collect()
        };
        let sweep: Option<PathBuf> = given.get_one("sweep").cloned();
        let (rounds, seconds) = if sweep.is_some() { (3, 1.0) } else { (5, 2.0) };
        let given_rounds = given.get_one::<u32>("rounds");
        Self {
            rounds: given_rounds.map_or(rounds, |rounds| *rounds as usize),
            seconds: given.get_one("seconds").copied().unwrap_or(seconds),
            workloads: texts("workloads"),
            strangers: texts("endpoint"),
            commands: texts("start"),
            lists: given.get_flag("list"),
            report: given.get_one("report").cloned(),
            sweep,
        }
    }

    fn wants(&self, name: &str) -> bool {
        self.workloads.is_empty() || self.workloads.iter().any(|wanted| wanted == name)
    }
}

/// Name and words of everything that can be measured.
fn known() -> impl Iterator<Item = (&'static str, &'static str)> {
    let workloads = workloads::ALL.iter().map(|one| (one.name, one.what));
    let memory = memory::ALL.iter().map(|one| (one.name, one.what));
    let sweep = sweep::AXES
        .iter()
        .map(|one| (one.name, "a figure of --sweep"));
    workloads.chain(memory).chain(sweep)
}

fn main() {
    let options = Options::parse();
    if options.lists {
        return known().for_each(|(name, what)| println!("{name:<9} {what}"));
    }
    let unknown = |name: &&String| !known().any(|(known, _)| known == **name);
    if let Some(name) = options.workloads.iter().find(unknown) {
        eprintln!("no workload is called {name}: see --list");
        std::process::exit(2);
    }
    if let Some(folder) = &options.sweep {
        let failed = sweep::run(
            folder,
            |name| options.wants(name),
            options.rounds,
            options.seconds,
        );
        let failed = failed.unwrap_or_else(|error| fail(&error));
        if failed > 0 {
            eprintln!("{failed} points of the sweep have failed");
            std::process::exit(1);
        }
        return;
    }
    let host = host::show(options.rounds, options.seconds);
    let (table, figures) = measure(&options);
    let aims = aims::show(&table, options.workloads.is_empty());
    println!("{aims}");
    if let Some(path) = &options.report {
        let text = format!("{host}{aims}{figures}");
        host::write(path, text.trim_end()).unwrap_or_else(|error| fail(&error));
    }
}

fn fail<T>(error: &std::io::Error) -> T {
    eprintln!("{error}");
    std::process::exit(1)
}

/// All that is wanted: the numbers, and their tables in Markdown, which are printed as well.
fn measure(options: &Options) -> (Table, String) {
    let mut table = Table::default();
    let mut shown = String::new();
    let mut show = |part: String| {
        print!("{part}");
        shown += &part;
    };
    let stages = [
        Stage::plain(&options.strangers, &options.commands),
        Stage::of(Kind::Wide),
        Stage::of(Kind::Pair),
        Stage::of(Kind::Workers),
    ];
    for stage in stages {
        let mine = |one: &&Workload| one.stage == stage.kind && options.wants(one.name);
        let mine: Vec<&Workload> = workloads::ALL.iter().filter(mine).collect();
        if mine.is_empty() {
            continue;
        }
        let endpoints = stage.start();
        for round in 0..options.rounds {
            for workload in &mine {
                run_round(workload, &endpoints, round, options.seconds, &mut table);
            }
        }
        show(table.show(&mine, &endpoints.all));
    }
    memory::measure(|name| options.wants(name), &mut table);
    show(table.show_figures());
    (table, shown)
}

/// One workload on all endpoints in turn, each round in the other direction.
fn run_round(
    workload: &Workload,
    endpoints: &endpoints::Running,
    round: usize,
    seconds: f64,
    table: &mut Table,
) {
    let mut order: Vec<&Endpoint> = endpoints.all.iter().collect();
    if round % 2 == 1 {
        order.reverse();
    }
    for endpoint in order {
        if round == 0 {
            // Warms up, and shows whether it can do that at all.
            let warm = load::run(workload, &endpoint.ports, Duration::from_millis(300));
            if let Some(error) = warm.refused {
                table.refuse(workload.name, &endpoint.name, error);
                continue;
            }
        }
        if table.is_refused(workload.name, &endpoint.name) {
            continue;
        }
        let counted = endpoint.counted();
        let before = endpoints.cpu(endpoint);
        let done = load::run(workload, &endpoint.ports, Duration::from_secs_f64(seconds));
        let after = endpoints.cpu(endpoint);
        let counted = counted.zip(endpoint.counted());
        let count = |of: fn(&Counted) -> f64| {
            counted.map_or(f64::NAN, |(before, after)| of(&after) - of(&before))
        };
        if let Some(error) = done.refused {
            table.refuse(workload.name, &endpoint.name, error);
            continue;
        }
        let each = |now: Duration, then: Duration| {
            (now.saturating_sub(then)).as_secs_f64() * 1e6 / done.units.max(1) as f64
        };
        let sample = Sample {
            per_second: done.units as f64 / done.took.as_secs_f64(),
            p50_us: done.percentile(0.50),
            p99_us: done.percentile(0.99),
            proxy_us: each(after.0, before.0),
            shards_us: each(after.1, before.1),
            slowest: done.slowest,
            sends: count(|counted| counted.sends) / done.units.max(1) as f64,
            batch: count(|counted| counted.requests) / count(|counted| counted.shard_writes),
        };
        table.add(workload.name, &endpoint.name, sample);
    }
}

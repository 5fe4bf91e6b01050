//! What lockstep costs, beside one redis-server and, where it is installed, twemproxy:
//!
//! ```sh
//! cargo bench                                        # everything, about a quarter of an hour
//! cargo bench -- --workloads get,set --rounds 9
//! cargo bench -- --endpoint other=127.0.0.1:6390     # one more, which runs already
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

mod endpoints;
mod load;
mod report;
mod workloads;

#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use clap::{Arg, ArgAction, Command, value_parser};
use endpoints::{Endpoint, Stage};
use report::{Sample, Table};
use workloads::Workload;

/// What is wanted.
struct Options {
    rounds: usize,
    seconds: f64,
    workloads: Vec<String>,
    strangers: Vec<String>,
    lists: bool,
}

impl Options {
    fn parse() -> Self {
        let option = |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help);
        let command = Command::new("bench")
            .about("Benchmarks of lockstep beside others")
            .arg(
                option("rounds", "Rounds; the median of them is shown")
                    .default_value("5")
                    .value_parser(value_parser!(u32).range(1..1_000)),
            )
            .arg(
                option("seconds", "Per workload, endpoint and round")
                    .default_value("2")
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
            .arg(option("list", "Names the workloads").action(ArgAction::SetTrue))
            // Given by cargo.
            .arg(
                Arg::new("bench")
                    .long("bench")
                    .hide(true)
                    .action(ArgAction::SetTrue),
            );
        let given = command.get_matches();
        let texts = |name| {
            given
                .get_many(name)
                .into_iter()
                .flatten()
                .cloned()
                .collect()
        };
        Self {
            rounds: given
                .get_one::<u32>("rounds")
                .map_or(1, |rounds| *rounds as usize),
            seconds: given.get_one("seconds").copied().unwrap_or(1.0),
            workloads: texts("workloads"),
            strangers: texts("endpoint"),
            lists: given.get_flag("list"),
        }
    }
}

fn main() {
    let options = Options::parse();
    let wanted = |workload: &&Workload| {
        options.workloads.is_empty() || options.workloads.iter().any(|name| name == workload.name)
    };
    if options.lists {
        return workloads::ALL
            .iter()
            .for_each(|one| println!("{:<8} {}", one.name, one.what));
    }
    let unknown = |name: &&String| !workloads::ALL.iter().any(|one| one.name == **name);
    if let Some(name) = options.workloads.iter().find(unknown) {
        eprintln!("no workload is called {name}: see --list");
        std::process::exit(2);
    }
    let stages = [
        Stage::plain(&options.strangers),
        Stage::wide(),
        Stage::pair(),
    ];
    for stage in stages {
        let mine = |one: &&Workload| one.stage == stage.kind && wanted(one);
        let mine: Vec<&Workload> = workloads::ALL.iter().filter(mine).collect();
        if mine.is_empty() {
            continue;
        }
        let endpoints = stage.start();
        let mut table = Table::default();
        for round in 0..options.rounds {
            for workload in &mine {
                run_round(workload, &endpoints, round, options.seconds, &mut table);
            }
        }
        table.print(&endpoints.all);
    }
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
        let before = endpoints.cpu(endpoint);
        let done = load::run(workload, &endpoint.ports, Duration::from_secs_f64(seconds));
        let after = endpoints.cpu(endpoint);
        let each = |now: Duration, then: Duration| {
            (now.saturating_sub(then)).as_secs_f64() * 1e6 / done.units.max(1) as f64
        };
        let sample = Sample {
            per_second: done.units as f64 / done.took.as_secs_f64(),
            p50_us: done.percentile(0.50),
            p99_us: done.percentile(0.99),
            proxy_us: each(after.0, before.0),
            shards_us: each(after.1, before.1),
        };
        table.add(workload.name, &endpoint.name, sample);
    }
}

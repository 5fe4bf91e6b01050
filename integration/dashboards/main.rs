//! What operators look at: a real Prometheus scrapes real proxies under load and faults, and
//! every expression of every dashboard and alert is evaluated. Each gives data, or the reason why
//! it does not stands here. Nothing is exported that no page tells of, and nothing is asked for
//! that is not exported.

// A test program has no outside that could reach its items.
#![allow(unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod boards;
mod load;
mod page;
mod prometheus;

use std::collections::BTreeSet;
use std::fs::{read_to_string, write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use boards::{Board, Query};
use lockstep::metrics::names::{self, Type};
use prometheus::Prometheus;
use support::{Cluster, Options, eventually_with};

/// Expressions that may stay without data, by a part of their text, and why.
const EXPLAINED: &[(&str, &str)] = &[
    (
        "lockstep_pinned_wait_seconds_bucket",
        "a quantile of nothing: nobody had to wait for a pinned connection",
    ),
    (
        "lockstep_limits_hit_total",
        "no limit is hit all the time while all is well",
    ),
];

#[test]
fn promtool_accepts_the_alerts() {
    for verb in ["check", "test"] {
        let file = if verb == "check" {
            "alerts.yaml"
        } else {
            "alerts.test.yaml"
        };
        let done = Command::new("promtool")
            .args([verb, "rules", file])
            .current_dir(folder())
            .output()
            .expect("promtool runs");
        let (out, err) = (
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr),
        );
        assert!(done.status.success(), "promtool {verb} rules: {out}{err}");
    }
}

#[test]
fn every_alert_has_a_page() {
    let alerts = read_to_string(folder().join("alerts.yaml")).expect("alerts.yaml");
    let runbook = read_to_string(folder().join("RUNBOOK.md")).expect("RUNBOOK.md");
    let pages: BTreeSet<&str> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    let named: BTreeSet<&str> = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert_eq!(named, pages);
    for name in named {
        let link = format!("RUNBOOK.md#{}", name.to_lowercase());
        assert!(alerts.contains(&link), "{name} has no link {link}");
    }
}

/// The panels' links lead to pages that are there.
#[test]
fn every_link_of_a_panel_leads_to_a_page() {
    let runbook = read_to_string(folder().join("RUNBOOK.md")).expect("RUNBOOK.md");
    let pages: BTreeSet<String> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(str::to_lowercase)
        .collect();
    let boards = Board::all(&folder());
    assert!(boards.len() >= 4);
    for board in boards {
        assert!(!board.links.is_empty(), "{}: no link", board.title);
        for link in &board.links {
            let page = link.rsplit('#').next().unwrap_or_default();
            assert!(pages.contains(page), "{}: {link}", board.title);
        }
    }
}

#[test]
fn the_table_names_every_metric() {
    let mut table = String::from("| metric | type | labels | what |\n|---|---|---|---|\n");
    for metric in names::ALL {
        let kind = match metric.kind {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram(_) => "histogram",
        };
        table += &format!(
            "| `{}` | {kind} | {} | {} |\n",
            metric.name,
            metric.labels.join(", "),
            metric.help
        );
    }
    let path = folder().join("README.md");
    let text = read_to_string(&path).expect("README.md");
    let (begin, end) = ("<!-- metrics -->\n\n", "\n<!-- /metrics -->");
    let (before, rest) = text
        .split_once(begin)
        .expect("the mark where the table begins");
    let (old, after) = rest.split_once(end).expect("the mark where it ends");
    if std::env::var("UPDATE_README").is_ok_and(|value| value == "1") {
        write(&path, format!("{before}{begin}{table}{end}{after}")).expect("written");
    } else {
        assert_eq!(old, table, "run integration/run --update-readme");
    }
}

#[test]
fn every_expression_gives_data() {
    let cluster = Cluster::start(&Options {
        proxies: 2,
        durable: true,
        proxy: vec![("clients-max".to_owned(), "40".to_owned())],
        ..Options::default()
    });
    let mut cluster = cluster;
    for pattern in ["shard", "recover", "transaction"] {
        cluster.expect_log(pattern);
    }
    let targets: Vec<String> = cluster
        .proxies()
        .iter()
        .map(|proxy| proxy.metrics_address())
        .collect();
    let prometheus = Prometheus::start(&targets, &folder().join("alerts.yaml"));
    let load = load::Load::start(&cluster);
    load.run_for(Duration::from_secs(6));
    cluster.shard_mut(2).kill();
    load.run_for(Duration::from_secs(2));
    cluster.shard_mut(2).restart();
    load.run_for(Duration::from_secs(6));

    let mut queries: Vec<Query> = Board::all(&folder())
        .into_iter()
        .flat_map(|board| board.queries)
        .collect();
    queries.extend(prometheus.alerts());
    check_names(&queries);
    let (mut with_data, mut explained) = (0, BTreeSet::new());
    for query in &queries {
        let text = query.instantiate(&targets[0]);
        let reason = EXPLAINED.iter().find(|(part, _)| text.contains(part));
        let answer = eventually_with(&query.place, Duration::from_secs(10), || {
            match (prometheus.gives_data(&text)?, reason) {
                (true, _) => Ok(true),
                (false, Some(_)) => Ok(false),
                (false, None) => Err(format!("no data: {text}")),
            }
        });
        match (answer, reason) {
            (true, _) => with_data += 1,
            (false, reason) => {
                explained.extend(reason.map(|(part, why)| format!("{part}: {why}")));
            }
        }
    }
    println!(
        "{} expressions evaluated, {with_data} gave data, the others: {explained:?}",
        queries.len()
    );
    assert!(queries.len() > 80 && with_data * 10 >= queries.len() * 9);
    check_exported(&prometheus);
    drop(load);
    cluster.wait_settled(Duration::from_secs(10));
}

/// Nothing is asked for that does not exist.
fn check_names(queries: &[Query]) {
    for query in queries {
        for name in query.metrics() {
            let known = names::ALL.iter().any(|metric| {
                name.strip_prefix(metric.name)
                    .is_some_and(|rest| matches!(rest, "" | "_bucket" | "_sum" | "_count"))
            });
            assert!(known, "{}: {name} is not exported", query.place);
        }
    }
}

/// What a proxy exports is what is written of.
fn check_exported(prometheus: &Prometheus) {
    for name in prometheus.names() {
        let known = names::ALL.iter().any(|metric| {
            name.strip_prefix(metric.name)
                .is_some_and(|rest| matches!(rest, "" | "_bucket" | "_sum" | "_count"))
        });
        assert!(known, "{name} is exported, and nothing tells of it");
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards")
}

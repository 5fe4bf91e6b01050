//! What is aimed at, and whether it was met.

use std::fmt::Write as _;

use super::report::{Sample, Table};

/// How far it may go.
#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}
use Bound::{AtLeast, AtMost};

struct Aim {
    what: String,
    bound: Bound,
    value: Option<f64>,
}

/// What is no peer: the yardsticks, and lockstep itself.
const NO_PEERS: [&str; 4] = ["direct", "floor", "lockstep", "loose"];

const CPU: fn(&Sample) -> f64 = |sample| sample.proxy_us;
const SHARDS: fn(&Sample) -> f64 = |sample| sample.shards_us;
const RATE: fn(&Sample) -> f64 = |sample| sample.per_second;
const P50: fn(&Sample) -> f64 = |sample| sample.p50_us;

/// Markdown: every aim of which something is known, or all; what was measured, and whether that
/// meets it.
pub fn show(table: &Table, all: bool) -> String {
    let mut out = String::from("\n| | aim | measured | |\n|---|---|---|---|\n");
    let aims = [hop, batches, transactions, participants, rest];
    let aims = aims.iter().flat_map(|some| some(table));
    for aim in aims.filter(|aim| all || aim.value.is_some()) {
        let (sign, bound) = match aim.bound {
            AtMost(bound) => ("≤", bound),
            AtLeast(bound) => ("≥", bound),
        };
        let met = |value: f64| match aim.bound {
            AtMost(bound) => value <= bound,
            AtLeast(bound) => value >= bound,
        };
        let (value, verdict) = match aim.value {
            Some(value) if met(value) => (format!("{value:.2}"), "met"),
            Some(value) => (format!("{value:.2}"), "**missed**"),
            None => (String::new(), "not measured"),
        };
        let _ = writeln!(
            out,
            "| {} | {sign} {bound} | {value} | {verdict} |",
            aim.what
        );
    }
    out
}

fn aim(what: impl Into<String>, bound: Bound, value: Option<f64>) -> Aim {
    Aim {
        what: what.into(),
        bound,
        value,
    }
}

/// Against the peer that needs least.
fn best_peer(table: &Table, workload: &'static str, of: fn(&Sample) -> f64) -> Option<f64> {
    let peers = table
        .endpoints(workload)
        .filter(|name| !NO_PEERS.contains(name));
    let ratios = peers.filter_map(|peer| table.ratio((workload, "lockstep"), (workload, peer), of));
    ratios.max_by(f64::total_cmp)
}

/// Plain commands.
fn hop(table: &Table) -> Vec<Aim> {
    let beside =
        |workload, other: &str, of| table.ratio((workload, "lockstep"), (workload, other), of);
    let mut aims = Vec::new();
    for (workload, words, floor, peer) in [
        ("get", "GET, 50 clients", 1.15, 0.85),
        ("set", "SET, 50 clients", 1.15, 0.85),
        ("get16", "GET, 16 in one write", 1.6, 0.55),
        ("set16", "SET, 16 in one write", 1.6, 0.55),
    ] {
        let cpu = beside(workload, "floor", CPU);
        aims.push(aim(
            format!("{words}: processor time of the proxy, x floor"),
            AtMost(floor),
            cpu,
        ));
        let cpu = best_peer(table, workload, CPU);
        aims.push(aim(
            format!("{words}: the same, x best peer"),
            AtMost(peer),
            cpu,
        ));
    }
    for (workload, words) in [("get16", "GET"), ("set16", "SET")] {
        let what = format!("{words}, 16 in one write: throughput, x direct");
        aims.push(aim(what, AtLeast(0.7), beside(workload, "direct", RATE)));
    }
    let what = "MGET of 10: processor time of the proxy, x best peer";
    aims.push(aim(what, AtMost(0.7), best_peer(table, "mget10", CPU)));
    let what = "MSET of 2 random keys, atomic: throughput, x direct";
    aims.push(aim(what, AtLeast(0.35), beside("mset2", "direct", RATE)));
    let what = "GET, one client: p50, x best peer's";
    aims.push(aim(what, AtMost(1.0), best_peer(table, "get1", P50)));
    for (workload, words) in [
        ("get", "GET"),
        ("set", "SET"),
        ("get16", "GET, 16 in one write"),
        ("set16", "SET, 16 in one write"),
    ] {
        let what = format!("{words}: processor time under strict isolation, x transactions");
        aims.push(aim(what, AtMost(1.03), beside(workload, "loose", CPU)));
    }
    aims
}

/// Few sends.
fn batches(table: &Table) -> Vec<Aim> {
    let own = |workload, of| table.median(workload, "lockstep", of);
    vec![
        aim(
            "GET, 50 clients: sends per request",
            AtMost(1.2),
            own("get", |s| s.sends),
        ),
        aim(
            "GET, 16 in one write: sends per request",
            AtMost(0.12),
            own("get16", |s| s.sends),
        ),
        aim(
            "GET, 50 clients: requests per write to a shard",
            AtLeast(5.0),
            own("get", |s| s.batch),
        ),
    ]
}

fn transactions(table: &Table) -> Vec<Aim> {
    let own = |one, other, of| table.ratio((one, "lockstep"), (other, "lockstep"), of);
    let direct = |workload, of| table.ratio((workload, "lockstep"), (workload, "direct"), of);
    vec![
        aim(
            "MULTI in one slot, 50 clients: processor time of the proxy, x its SET's",
            AtMost(1.8),
            own("multi", "set", CPU),
        ),
        aim(
            "the same: processor time of the shards, x direct's",
            AtMost(1.4),
            direct("multi", SHARDS),
        ),
        aim(
            "MULTI over two shards, one client: p50, x the same in one slot",
            AtMost(2.2),
            own("tx1", "multi1", P50),
        ),
        aim(
            "MULTI of random keys, 50 clients: throughput, x direct",
            AtLeast(0.35),
            direct("tx", RATE),
        ),
        aim(
            "the same: processor time of the shards, x direct's",
            AtMost(5.0),
            direct("tx", SHARDS),
        ),
        aim(
            "the same: processor time of the proxy, us",
            AtMost(60.0),
            table.median("tx", "lockstep", CPU),
        ),
    ]
}

fn participants(table: &Table) -> Vec<Aim> {
    let own = |of| table.ratio(("over16", "lockstep"), ("over2", "lockstep"), of);
    vec![
        aim("MULTI over 16 shards: p50, x over 2", AtMost(1.5), own(P50)),
        aim(
            "the same: processor time of the proxy, x over 2",
            AtMost(8.0),
            own(CPU),
        ),
        aim(
            "the same: processor time of the shards, x over 2",
            AtMost(8.0),
            own(SHARDS),
        ),
    ]
}

fn rest(table: &Table) -> Vec<Aim> {
    let two = |of| table.median("hot", "two", of);
    let workers = |workload| {
        let ratio = table.ratio((workload, "workers"), (workload, "worker"), CPU)?;
        Some(ratio.max(1.0 / ratio))
    };
    let figure = |name| table.figure_of(name);
    vec![
        aim(
            "50 clients on the same 4 keys, two locksteps: throughput, x one lockstep",
            AtLeast(0.5),
            table.ratio(("hot", "two"), ("hot", "lockstep"), RATE),
        ),
        aim(
            "the same: p99, x p50",
            AtMost(20.0),
            two(|s| s.p99_us / s.p50_us),
        ),
        aim(
            "the same: share of the slowest client in the mean",
            AtLeast(0.1),
            two(|s| s.slowest),
        ),
        aim(
            "the same with one lockstep",
            AtLeast(0.1),
            table.median("hot", "lockstep", |s| s.slowest),
        ),
        aim(
            "two workers: processor time per GET, x one worker (or its inverse)",
            AtMost(1.15),
            workers("getw"),
        ),
        aim("the same per SET", AtMost(1.15), workers("setw")),
        aim(
            "memory of an idle client, KiB (of 10,000)",
            AtMost(8.0),
            figure("idle"),
        ),
        aim(
            "SET of 256 MiB: growth, MiB",
            AtMost(16.0),
            figure("value-set"),
        ),
        aim(
            "GET of 256 MiB: growth, MiB",
            AtMost(16.0),
            figure("value-get"),
        ),
        aim(
            "LRANGE of a million elements: growth, MiB",
            AtMost(16.0),
            figure("elements"),
        ),
        aim(
            "400 MiB of replies, not read for 3 s: growth, MiB",
            AtMost(100.0),
            figure("unread"),
        ),
    ]
}

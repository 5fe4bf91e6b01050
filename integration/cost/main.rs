//! P6: what strict isolation costs plain commands while no transaction runs: the processor time
//! of proxy and shards per request, with `isolation = "strict"` against `"transactions"`, in turns
//! of one run over the same shards.
//!
//! It is measured only if `LOCKSTEP_COST_TURNS` says how many turns each gets. `LOCKSTEP_BIN`
//! should name a release build; figures of any other build say little.

// A test program has no outside that could reach its items.
#![allow(unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

use std::env;
use std::time::Duration;
use support::{Client, Cluster, Options, Proxy, Redis, encode};

const SHARDS: usize = 3;
const CLIENTS: usize = 64;
const KEYS: usize = 1_000;
const VALUE: &str = "0123456789012345678901234567890123456789012345678901234567890123";
/// Beyond this something is wrong, whatever the machine is doing besides. The aim is 3 %.
const WORST: f64 = 1.15;

/// Nanoseconds of processor time per request.
#[derive(Clone, Copy, Default)]
struct Cost {
    proxy: f64,
    shards: f64,
}

#[test]
fn strict_isolation_is_nearly_free() {
    let Ok(turns) = env::var("LOCKSTEP_COST_TURNS") else {
        return println!("skipped: LOCKSTEP_COST_TURNS is not set");
    };
    let turns: usize = turns.parse().expect("a number of turns");
    let shards = Cluster::start(&Options {
        shards: SHARDS,
        proxies: 0,
        ..Options::default()
    });
    let addresses: Vec<String> = shards.shards().iter().map(Redis::address).collect();
    let proxy = |isolation: &str| {
        let settings = [("isolation", isolation), ("workers", "1")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Proxy::start(&addresses, &settings)
    };
    let (strict, loose) = (proxy("strict"), proxy("transactions"));
    for depth in [1, 16] {
        let mut costs: [Vec<Cost>; 2] = [Vec::new(), Vec::new()];
        let mut open = [&strict, &loose].map(clients);
        for turn in 0..=turns {
            for side in 0..2 {
                let side = (side + turn) % 2;
                let proxy = [&strict, &loose][side];
                let cost = measure(proxy, shards.shards(), &mut open[side], depth);
                // The first turn warms up.
                if turn > 0 {
                    costs[side].push(cost);
                }
            }
        }
        report(depth, &costs);
    }
}

fn clients(proxy: &Proxy) -> Vec<Client> {
    (0..CLIENTS).map(|_| proxy.client()).collect()
}

/// GETs and SETs in turn, `depth` of them in one write, all clients at once.
fn measure(proxy: &Proxy, shards: &[Redis], clients: &mut [Client], depth: usize) -> Cost {
    let rounds = 12_800 / (CLIENTS * depth).max(1) + 8;
    let before = (proxy.cpu(), cpu_of(shards));
    let mut number = 0;
    for _ in 0..rounds {
        for client in clients.iter_mut() {
            let mut bytes = Vec::new();
            for _ in 0..depth {
                number += 1;
                let key = format!("key:{}", number * 7 % KEYS);
                bytes.extend(match number % 2 {
                    0 => encode(&["GET", &key]),
                    _ => encode(&["SET", &key, VALUE]),
                });
            }
            client.send(&bytes).expect("sent");
        }
        for client in clients.iter_mut() {
            for _ in 0..depth {
                client.read().expect("a reply");
            }
        }
    }
    let requests = number as f64;
    let each = |after: Duration, before: Duration| (after - before).as_nanos() as f64 / requests;
    Cost {
        proxy: each(proxy.cpu(), before.0),
        shards: each(cpu_of(shards), before.1),
    }
}

fn cpu_of(shards: &[Redis]) -> Duration {
    shards.iter().map(Redis::cpu).sum()
}

fn report(depth: usize, [strict, loose]: &[Vec<Cost>; 2]) {
    type Of = fn(&Cost) -> f64;
    let parts: [(&str, Of); 2] = [("proxy", |cost| cost.proxy), ("shards", |cost| cost.shards)];
    for (name, of) in parts {
        let median = |costs: &[Cost]| {
            let mut all: Vec<f64> = costs.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        let pairs = strict.iter().zip(loose).map(|(a, b)| of(a) / of(b));
        let mut ratios: Vec<f64> = pairs.collect();
        ratios.sort_by(f64::total_cmp);
        let ratio = ratios[ratios.len() / 2];
        println!(
            "{CLIENTS} clients, {depth} at once: {name} {:.0} ns per request strict, {:.0} with \
             transactions only; median ratio of {} turns {ratio:.3}",
            median(strict),
            median(loose),
            ratios.len()
        );
        assert!(
            ratio < WORST,
            "strict isolation costs the {name} {ratio:.3}"
        );
    }
}

//! Commands that write on one shard what they read on another, by many clients through two proxies
//! of which one is killed again and again: whatever is moved is neither lost nor doubled.
//!
//! - `nothing_moved_is_lost_or_doubled`: elements of lists, members of sets, whole values, for
//!   `LOCKSTEP_CROSSINGS_SECONDS` (4 unless told);
//! - `waiting_for_a_move`: BLMOVE and BRPOPLPUSH, and all that ends their waiting;
//! - `moves_are_those_of_one_redis_whatever_is_set`: with a fence, without isolation, as a user who
//!   may not everything, and by clients that want no replies.

// A test program has no outside that could reach its items.
#![allow(unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod lists;
mod locks;
mod names;
mod sets;
mod settings;
mod waits;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, sleep};
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use support::seed::PrintOnFailure;
use support::{Client, Cluster, Options, Seed, Value, number_from_env};

/// More time for the clients, if they need it.
const PATIENCE: Duration = Duration::from_secs(20);
const SETTLE_LIMIT: Duration = Duration::from_secs(8);
const CLEAN_LIMIT: Duration = Duration::from_secs(12);

/// What all clients of a run share.
pub struct Scene {
    ports: [u16; 2],
    seed: Seed,
    is_over: AtomicBool,
}

impl Scene {
    /// Runs `act` until the end, again and again, with a connection to this proxy and random
    /// numbers of its own. A reply that does not come makes a new connection.
    pub fn keep_doing<'s>(
        &'s self,
        scope: &'s Scope<'s, '_>,
        (number, proxy): (u64, usize),
        mut act: impl FnMut(&mut Client, &mut StdRng) -> std::io::Result<()> + Send + 's,
    ) {
        let port = self.ports[proxy];
        scope.spawn(move || {
            let mut rng = self.seed.rng(number);
            let mut client = Client::connect(port).ok();
            while !self.is_over.load(Ordering::Relaxed) {
                let done = client.as_mut().map(|client| act(client, &mut rng));
                if !matches!(done, Some(Ok(()))) {
                    sleep(Duration::from_millis(2));
                    client = Client::connect(port).ok();
                }
            }
        });
    }
}

/// A reply that is no error, or one that is allowed to be.
pub fn fine(value: &Value, line: &str) {
    if let Some(error) = value.error() {
        let allowed = [
            "lock-wait-ms",
            "outcome",
            "is committed",
            "not answer in time",
        ];
        let is_allowed = allowed.iter().any(|words| error.contains(words));
        assert!(is_allowed, "{line}: {error}");
    }
}

/// One of them.
pub fn pick<'a>(rng: &mut StdRng, keys: &'a [String]) -> &'a str {
    &keys[rng.random_range(0..keys.len())]
}

#[test]
fn nothing_moved_is_lost_or_doubled() {
    let seed = Seed::take();
    let _print = PrintOnFailure(seed);
    let mut cluster = Cluster::start(&Options {
        proxies: 2,
        ..Options::default()
    });
    // A proxy that meets what a dead one has left says so.
    cluster.expect_log("recover");
    let scene = Scene {
        ports: [cluster.port(0), cluster.port(1)],
        seed,
        is_over: AtomicBool::new(false),
    };
    let lists = lists::Lists::fill(&mut cluster.client());
    let sets = sets::Sets::fill(&mut cluster.client());
    let names = names::Names::fill(&mut cluster.client());
    let locks = locks::Locks::new();
    let seconds = number_from_env("LOCKSTEP_CROSSINGS_SECONDS", 4);
    let enough =
        || lists.has_enough() && sets.has_enough() && names.has_enough() && locks.has_enough();
    let mut rng = seed.rng(u64::MAX);
    std::thread::scope(|scope| {
        lists.start(&scene, scope);
        sets.start(&scene, scope);
        sets.look(&scene, scope);
        names.start(&scene, scope);
        locks.start(&scene, scope);
        // A proxy that dies amid a transaction over everything keeps all others waiting for a
        // while; with bad luck for most of the time.
        let (began, least) = (Instant::now(), Duration::from_secs(seconds));
        while began.elapsed() < least || (!enough() && began.elapsed() < least + PATIENCE) {
            sleep(Duration::from_millis(rng.random_range(200..700)));
            cluster.kill(0);
            sleep(Duration::from_millis(rng.random_range(0..100)));
            cluster.restart(0);
        }
        scene.is_over.store(true, Ordering::Relaxed);
    });
    assert!(enough(), "too little was done");
    cluster.wait_settled(SETTLE_LIMIT);
    lists.check(&mut cluster.client());
    sets.check(&mut cluster.client());
    names.check(&mut cluster.client());
    locks.check();
    assert!((cluster.consistency() - 1.0).abs() < f64::EPSILON);
    cluster.wait_clean(CLEAN_LIMIT);
}

//! What goes wrong in the middle of a round.

use crate::support::{Cluster, Relay, Way};
use rand::RngExt;
use rand::rngs::StdRng;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What is done to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// kill -9 of a proxy, and its restart.
    KillProxy,
    /// SIGSTOP of a proxy for longer than locks live, and SIGCONT.
    PauseProxy,
    /// kill -9 of a shard, and its restart with its AOF.
    KillShard,
    /// SIGSTOP of a shard, now and then for longer than locks live, and SIGCONT: what is applied
    /// elsewhere settles for that long.
    PauseShard,
    /// Connections between a proxy and the shards are cut, slow, or open on one side only. For
    /// clusters with relays.
    Network,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 5] = [
        Fault::KillProxy,
        Fault::PauseProxy,
        Fault::KillShard,
        Fault::PauseShard,
        Fault::Network,
    ];

    fn strike(self, cluster: &mut Cluster, rng: &mut StdRng, lock_ttl: Duration) {
        let proxy = rng.random_range(0..cluster.proxies().len());
        let shard = rng.random_range(0..cluster.shards().len());
        match self {
            Fault::KillProxy => {
                cluster.kill(proxy);
                some_time(rng, 0..300);
                cluster.restart(proxy);
            }
            Fault::PauseProxy => {
                cluster.proxies()[proxy].pause();
                sleep(lock_ttl.mul_f64(rng.random_range(1.1..1.7)));
                cluster.proxies()[proxy].resume();
            }
            Fault::KillShard => {
                cluster.shard_mut(shard).kill();
                some_time(rng, 0..300);
                cluster.shard_mut(shard).restart();
            }
            Fault::PauseShard => {
                cluster.shards()[shard].pause();
                let length = [0.02, 0.05, 0.1, 1.3][rng.random_range(0..4)];
                sleep(lock_ttl.mul_f64(length));
                cluster.shards()[shard].resume();
            }
            Fault::Network => disturb(&cluster.relays()[proxy], shard, rng, lock_ttl),
        }
    }
}

/// One of the ways of a proxy to the shards, or all of them.
fn disturb(relays: &[Relay], shard: usize, rng: &mut StdRng, lock_ttl: Duration) {
    let hit: Vec<&Relay> = if rng.random_bool(0.3) {
        relays.iter().collect()
    } else {
        vec![&relays[shard]]
    };
    let each = |strike: &dyn Fn(&Relay)| hit.iter().for_each(|relay| strike(relay));
    match rng.random_range(0..5) {
        0 => each(&Relay::cut),
        1 => each(&|relay| relay.half_open(Way::There)),
        2 => each(&|relay| relay.half_open(Way::Back)),
        3 => {
            let delay = Duration::from_millis([2, 10, 40][rng.random_range(0..3)]);
            each(&|relay| relay.delay(delay));
            some_time(rng, 100..600);
        }
        _ => {
            each(&Relay::take_down);
            sleep(lock_ttl.mul_f64(rng.random_range(0.05..1.5)));
        }
    }
    each(&Relay::heal);
}

/// One fault after the other for about so long; how many there were.
pub fn strike(
    cluster: &mut Cluster,
    faults: &[Fault],
    rng: &mut StdRng,
    (length, lock_ttl): (Duration, Duration),
) -> u64 {
    let (begin, mut count) = (Instant::now(), 0);
    if faults.is_empty() {
        sleep(length);
        return 0;
    }
    while begin.elapsed() < length {
        some_time(rng, 200..700);
        faults[rng.random_range(0..faults.len())].strike(cluster, rng, lock_ttl);
        count += 1;
    }
    // Whoever was cut off is back and meets what was left.
    some_time(rng, 100..400);
    count
}

fn some_time(rng: &mut StdRng, millis: std::ops::Range<u64>) {
    sleep(Duration::from_millis(rng.random_range(millis)));
}

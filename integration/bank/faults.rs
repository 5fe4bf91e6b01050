//! What goes wrong in the middle of the load.

use crate::support::Cluster;
use rand::RngExt;
use rand::rngs::StdRng;
use std::thread::sleep;
use std::time::Duration;

/// kill -9 of one proxy after the other at random moments, each time starting it again; how many
/// recoveries the killed ones had made.
pub fn kill_proxies(cluster: &mut Cluster, rng: &mut StdRng, kills: u64) -> f64 {
    // A proxy that meets what a dead one has left says so.
    cluster.expect_log("recover");
    let mut recovered = 0.0;
    for kill in 0..kills {
        some_time(rng, 300..1_200);
        let victim = usize::from(kill % 2 == 1);
        recovered += recoveries(cluster, victim);
        cluster.kill(victim);
        some_time(rng, 0..300);
        cluster.restart(victim);
    }
    recovered
}

/// SIGSTOP of one proxy after the other for this long.
pub fn pause_proxies(cluster: &Cluster, rng: &mut StdRng, pauses: u64, length: Duration) -> f64 {
    // The one that slept finds its transactions settled, its connections silent.
    for pattern in ["recover", "settled", "connection to shard lost", "late"] {
        cluster.expect_log(pattern);
    }
    for pause in 0..pauses {
        some_time(rng, 300..1_200);
        if let Some(proxy) = cluster.proxies().get(usize::from(pause % 2 == 1)) {
            proxy.pause();
            sleep(length);
            proxy.resume();
        }
    }
    0.0
}

/// kill -9 of a random shard, each time starting it again with its AOF.
pub fn kill_shards(cluster: &mut Cluster, rng: &mut StdRng, kills: u64) -> f64 {
    for pattern in ["recover", "shard"] {
        cluster.expect_log(pattern);
    }
    for _ in 0..kills {
        some_time(rng, 300..1_200);
        let victim = rng.random_range(0..cluster.shards().len());
        cluster.shard_mut(victim).kill();
        some_time(rng, 0..400);
        cluster.shard_mut(victim).restart();
    }
    0.0
}

/// Recoveries that proxy `number` has made since its start.
pub fn recoveries(cluster: &Cluster, number: usize) -> f64 {
    let proxy = cluster.proxies().get(number);
    proxy.map_or(0.0, |proxy| proxy.metric("lockstep_recoveries_total", ""))
}

fn some_time(rng: &mut StdRng, millis: std::ops::Range<u64>) {
    sleep(Duration::from_millis(rng.random_range(millis)));
}

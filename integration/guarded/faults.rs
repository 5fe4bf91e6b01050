//! P1 and P4: a shard that dies under an armed connection.

use super::support::{Client, Cluster, Options, Value, eventually, keys_on};
use super::{LIMIT, ONE_AT_A_TIME, SHARDS, words};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

const CLIENTS: usize = 12;
const KILLS: usize = 3;

#[derive(Default)]
struct Told {
    done: AtomicI64,
    unknown: AtomicI64,
    nothing: AtomicI64,
}

/// Nothing acknowledged is lost, nothing that was refused is applied, and an outcome that is not
/// known is called so.
#[test]
fn a_shard_that_dies_neither_loses_nor_invents() {
    let _turn = ONE_AT_A_TIME.lock();
    let mut cluster = Cluster::start(&Options {
        durable: true,
        ..Options::default()
    });
    if !cluster.is_lockstep() {
        return;
    }
    cluster.expect_log("shard");
    let keys = keys_on("counted:", 0, SHARDS, 2);
    let (told, stop) = (Told::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let (mut client, keys, told, stop) = (cluster.client(), &keys, &told, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    count(&mut client, keys, told);
                }
            });
        }
        for _ in 0..KILLS {
            run_a_while(&told);
            cluster.shard_mut(0).kill();
            std::thread::sleep(Duration::from_millis(30));
            cluster.shard_mut(0).restart();
        }
        run_a_while(&told);
        stop.store(true, Ordering::Relaxed);
    });
    let mut shard = cluster.shards()[0].client();
    let found = keys.iter().map(|key| shard.value(&["GET", key]).integer());
    let found: Vec<i64> = found.map(Option::unwrap_or_default).collect();
    let (done, unknown) = (told.done.into_inner(), told.unknown.into_inner());
    println!(
        "{done} done, {unknown} unknown, {:?} not done; found {found:?}",
        told.nothing
    );
    assert_eq!(found[0], found[1], "P1: half of a transaction");
    assert!(found[0] >= done, "P1: acknowledged and lost");
    assert!(found[0] <= done + unknown, "P4: called undone, and done");
}

/// Until some more have gone through.
fn run_a_while(told: &Told) {
    let before = told.done.load(Ordering::Relaxed);
    eventually("transactions go through", LIMIT, || {
        told.done.load(Ordering::Relaxed) > before + 200
    });
}

fn count(client: &mut Client, keys: &[String], told: &Told) {
    let began = Instant::now();
    let incrs = [words(["INCR", &keys[0]]), words(["INCR", &keys[1]])];
    let reply = client.try_transaction(&incrs).expect("a reply");
    assert!(began.elapsed() < LIMIT);
    let counter = match reply.error() {
        None => {
            assert!(matches!(reply, Value::Array(_)), "{reply}");
            &told.done
        }
        Some(error) if error.starts_with("EXECABORT") => &told.nothing,
        Some(error) => {
            assert!(error.contains("outcome"), "{error}");
            &told.unknown
        }
    };
    counter.fetch_add(1, Ordering::Relaxed);
}

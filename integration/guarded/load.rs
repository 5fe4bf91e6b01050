//! P1 and P2 under load, through three proxies at once: transfers and writes over several slots
//! of one shard beside those over several shards, and readers of both kinds.

use super::support::seed::PrintOnFailure;
use super::support::{Client, Cluster, Options, Seed, Value, keys_on, spread};
use super::{LIMIT, ONE_AT_A_TIME, SHARDS, runs, seconds, words};
use rand::{Rng, RngExt};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;

const PROXIES: usize = 3;
const CLIENTS: usize = 18;
const BALANCE: i64 = 1_000;

struct Bank {
    /// Three on each shard, in slots of their own.
    accounts: Vec<String>,
    /// Two on one shard and one on another: always equal.
    twins: Vec<String>,
}

impl Bank {
    fn open(cluster: &Cluster) -> Bank {
        let accounts = spread("account:", SHARDS, 3 * SHARDS);
        let mut twins = keys_on("twin:", 0, SHARDS, 2);
        twins.extend(keys_on("twin:", 1, SHARDS, 1));
        let mut client = cluster.client();
        for account in &accounts {
            client.value(&["SET", account, &BALANCE.to_string()]);
        }
        Bank { accounts, twins }
    }

    /// From one account to another, on the same shard as often as not.
    fn transfer(&self, client: &mut Client, rng: &mut impl Rng) {
        let from = rng.random_range(0..self.accounts.len());
        let step = if rng.random() { SHARDS } else { 1 };
        let to = (from + step) % self.accounts.len();
        let amount = rng.random_range(1..10).to_string();
        let reply = client.try_transaction(&[
            words(["DECRBY", &self.accounts[from], &amount]),
            words(["INCRBY", &self.accounts[to], &amount]),
        ]);
        assert!(reply.expect("a reply").error().is_none());
    }

    fn check_sum(&self, client: &mut Client) {
        let gets: Vec<_> = self
            .accounts
            .iter()
            .map(|key| words(["GET", key]))
            .collect();
        let reply = client.try_transaction(&gets).expect("a reply");
        let sum: i64 = reply.elements().iter().filter_map(Value::integer).sum();
        assert_eq!(
            sum,
            BALANCE * self.accounts.len() as i64,
            "P1: money lost or made"
        );
    }

    /// The two that share a shard, by a command of their own, or all three.
    fn write_twins(&self, client: &mut Client, value: &str, all: bool) {
        let count = if all { 3 } else { 2 };
        let mut command = words(["MSET"]);
        for key in &self.twins[..count] {
            command.extend([key.clone(), value.to_owned()]);
        }
        assert_eq!(client.value(&command), Value::Simple(b"OK".to_vec()));
    }

    fn check_twins(&self, client: &mut Client, by_multi: bool) {
        let pair = if by_multi {
            let gets = [
                words(["GET", &self.twins[0]]),
                words(["GET", &self.twins[1]]),
            ];
            client.try_transaction(&gets).expect("a reply")
        } else {
            client.value(&["MGET", &self.twins[0], &self.twins[1]])
        };
        assert_eq!(
            pair.elements()[0],
            pair.elements()[1],
            "P2: torn write seen"
        );
    }
}

#[test]
fn sums_and_pairs_are_always_right() {
    let _turn = ONE_AT_A_TIME.lock();
    let seed = Seed::take();
    let _print = PrintOnFailure(seed);
    let cluster = Cluster::start(&Options {
        proxies: PROXIES,
        ..Options::default()
    });
    let bank = Bank::open(&cluster);
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let mut client = cluster.client_at(number % PROXIES);
            let mut rng = seed.rng(number as u64);
            let (bank, stop, done) = (&bank, &stop, &done);
            scope.spawn(move || {
                for turn in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    match number / PROXIES {
                        0..=2 => bank.transfer(&mut client, &mut rng),
                        3 => bank.write_twins(
                            &mut client,
                            &format!("{number}-{turn}"),
                            turn % 4 == 0,
                        ),
                        4 => bank.check_sum(&mut client),
                        _ => bank.check_twins(&mut client, turn % 2 == 0),
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                    // Now and then nothing is distributed.
                    if turn % 256 == 255 {
                        sleep(std::time::Duration::from_millis(20));
                    }
                }
            });
        }
        sleep(seconds());
        stop.store(true, Ordering::Relaxed);
    });
    bank.check_sum(&mut cluster.client());
    bank.check_twins(&mut cluster.client(), true);
    cluster.wait_settled(LIMIT);
    println!(
        "{} requests; over several slots of one shard: {} armed, {} by script, {} behind locks",
        done.load(Ordering::Relaxed),
        runs(&cluster, "armed"),
        runs(&cluster, "script"),
        runs(&cluster, "locks")
    );
    if cluster.is_lockstep() {
        assert!(runs(&cluster, "armed") > 0.0 && runs(&cluster, "script") > 0.0);
    }
}

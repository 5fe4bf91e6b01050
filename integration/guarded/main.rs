//! P2 and P6 for what touches several slots of one shard: it takes no lock while nothing is
//! distributed, takes effect only while none of its slots is settling, and is never torn.
//!
//! `LOCKSTEP_GUARDED_SECONDS`: the length of each load (3 unless told).

// A test program has no outside that could reach its items.
#![allow(unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod blocking;
mod faults;
mod load;

use std::time::Duration;
use support::{Client, Cluster, Options, Value, eventually, keys_on, number_from_env, slot_of};

const SHARDS: usize = 3;
const LIMIT: Duration = Duration::from_secs(10);

/// Every test's load is short, but fills the machine.
static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn seconds() -> Duration {
    Duration::from_secs(number_from_env("LOCKSTEP_GUARDED_SECONDS", 3))
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

/// How many runs took this way, over all proxies.
fn runs(cluster: &Cluster, way: &str) -> f64 {
    let label = format!("way=\"{way}\"");
    let of = |proxy: &support::Proxy| proxy.metric("lockstep_guarded_runs_total", &label);
    cluster.proxies().iter().map(of).sum()
}

/// P6: no lock, no script, nothing left on the shard.
#[test]
fn where_nothing_is_distributed_no_lock_is_taken() {
    let cluster = Cluster::start(&Options::default());
    let keys = keys_on("quiet:", 1, SHARDS, 3);
    let mut client = cluster.client();
    for _ in 0..20 {
        let set = |key: &String| words(["INCR", key]);
        let reply = client.try_transaction(&keys.iter().map(set).collect::<Vec<_>>());
        assert_eq!(reply.expect("a reply").elements().len(), 3);
        assert_eq!(
            client.value(&["MSET", &keys[0], "1", &keys[1], "2"]),
            Value::Simple(b"OK".to_vec())
        );
    }
    assert_eq!(
        client.value(&["DEL", &keys[0], &keys[1]]).integer(),
        Some(2)
    );
    if !cluster.is_lockstep() {
        return;
    }
    assert_eq!(runs(&cluster, "armed"), 41.0);
    assert_eq!(runs(&cluster, "script") + runs(&cluster, "locks"), 0.0);
    let epoch = cluster.shards()[1].client().say("GET __lockstep:epoch");
    assert_eq!(epoch, Value::Nil, "something was prepared");
    assert!(cluster.leftovers().is_clean());
}

/// What a transaction leaves on a shard between its apply and its release.
struct Settling<'a> {
    shard: Client,
    slot: &'a str,
}

impl Settling<'_> {
    const RECORD: &'static str = "__lockstep:txn:planted-1";

    fn plant(mut shard: Client, slot: &str) -> Settling<'_> {
        let time = shard.say("TIME");
        let now: u64 = time.elements()[0].integer().expect("seconds") as u64;
        let deadline = ((now + 60) * 1000).to_string();
        shard.say(&format!(
            "HSET {} state applied deadline {deadline} participants 0/0,1/0",
            Self::RECORD
        ));
        for hash in ["__lockstep:index", "__lockstep:settling"] {
            shard.value(&["HSET", hash, slot, "planted-1"]);
        }
        Settling { shard, slot }
    }

    fn release(mut self) {
        for hash in ["__lockstep:index", "__lockstep:settling"] {
            self.shard.value(&["HDEL", hash, self.slot]);
        }
        self.shard.value(&["DEL", Self::RECORD]);
    }
}

/// P2: an effect on one slot would be visible while another is settling. Slots that do not settle
/// are not concerned.
#[test]
fn nothing_takes_effect_while_one_of_its_slots_settles() {
    let cluster = Cluster::start(&Options::default());
    if !cluster.is_lockstep() {
        return;
    }
    let keys = keys_on("held:", 0, SHARDS, 4);
    let slot = slot_of(keys[1].as_bytes()).to_string();
    let mut client = cluster.client();
    client.value(&["MSET", &keys[2], "0", &keys[3], "0"]);
    let settling = Settling::plant(cluster.shards()[0].client(), &slot);
    let before = cluster.proxies()[0].metric("lockstep_lock_conflicts_total", "");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mut client = cluster.client();
            client.value(&["MSET", &keys[0], "1", &keys[1], "1"])
        });
        eventually("the command is kept out by locks as well", LIMIT, || {
            cluster.proxies()[0].metric("lockstep_lock_conflicts_total", "") > before
        });
        let mut shard = cluster.shards()[0].client();
        assert_eq!(
            shard.value(&["EXISTS", &keys[0], &keys[1]]).integer(),
            Some(0)
        );
        client.value(&["MSET", &keys[2], "1", &keys[3], "1"]);
        assert_eq!(
            runs(&cluster, "script"),
            1.0,
            "the other slots do not settle"
        );
        settling.release();
        let reply = waiting.join().expect("no panic");
        assert_eq!(reply, Value::Simple(b"OK".to_vec()));
        assert_eq!(
            shard.value(&["EXISTS", &keys[0], &keys[1]]).integer(),
            Some(2)
        );
    });
    cluster.wait_settled(LIMIT);
}

/// P3: what the shard refuses when it is queued spoils the EXEC that it shares with others; the
/// others must not notice.
#[test]
fn a_refusal_concerns_nobody_else() {
    let _turn = ONE_AT_A_TIME.lock();
    let cluster = Cluster::start(&Options::default());
    let keys = keys_on("refused:", 2, SHARDS, 2);
    cluster
        .client()
        .value(&["MSET", &keys[0], "1", &keys[1], "2"]);
    // From now on it refuses writes, and reads as ever.
    for shard in cluster.shards() {
        shard.client().say("CONFIG SET min-replicas-to-write 1");
    }
    std::thread::scope(|scope| {
        for number in 0..12 {
            let (mut client, keys) = (cluster.client(), &keys);
            scope.spawn(move || {
                for _ in 0..60 {
                    match number % 3 {
                        0 => expect_values(&mut client, keys),
                        1 => expect_abort(&mut client, keys),
                        _ => expect_words(&mut client, keys),
                    }
                }
            });
        }
    });
    for shard in cluster.shards() {
        shard.client().say("CONFIG SET min-replicas-to-write 0");
    }
    let value = cluster.client().value(&["GET", &keys[0]]);
    assert_eq!(value.integer(), Some(1));
}

fn expect_values(client: &mut Client, keys: &[String]) {
    let gets = [words(["GET", &keys[0]]), words(["GET", &keys[1]])];
    let reply = client.try_transaction(&gets).expect("a reply");
    let values: Vec<_> = reply.elements().iter().map(Value::integer).collect();
    assert_eq!(values, [Some(1), Some(2)]);
}

fn expect_abort(client: &mut Client, keys: &[String]) {
    let sets = [words(["SET", &keys[0], "9"]), words(["GET", &keys[1]])];
    let reply = client.try_transaction(&sets);
    // A plain server says it when the command is queued; then EXEC says this.
    let error = reply.expect("a reply").error().expect("an error");
    assert!(error.starts_with("EXECABORT "), "{error}");
}

fn expect_words(client: &mut Client, keys: &[String]) {
    let reply = client.value(&["MSET", &keys[0], "9", &keys[1], "9"]);
    let error = reply.error().unwrap_or_else(|| panic!("{reply}"));
    assert!(error.starts_with("NOREPLICAS "), "{error}");
}

//! Many connections at once, most of them idle, with limits hit on purpose, one shard down and one
//! slow: those who use the other shards are served as before, and idle connections cost little.

use crate::bystander::Bystander;
use crate::clients::allow_open_files;
use crate::support::{Client, Cluster, Options, Value, encode, eventually, keys_on, long};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SHARDS: usize = 4;
const HEALTHY: [usize; 2] = [0, 1];
const SLOW: usize = 2;
const DOWN: usize = 3;
/// How much later the slow shard answers.
const DELAY: Duration = Duration::from_millis(40);
/// Those who drive the active connections.
const DRIVERS: usize = 8;
/// Clients over the limit.
const TOO_MANY: usize = 50;
/// Resident memory that an idle connection may cost.
const IDLE_BYTES_MAX: u64 = 8 * 1_024;
/// All of it, with everything at work.
const RESIDENT_MIB_MAX: u64 = 256;

#[test]
fn a_crowd() {
    let _turn = crate::ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let (idle, active) = if long() {
        (10_000, 1_000)
    } else {
        (2_000, 200)
    };
    allow_open_files(idle + active + 1_000);
    let mut cluster = start(idle + active + 2);
    if !cluster.is_lockstep() {
        return;
    }
    let before = cluster.resident_kib(0);
    let mut resting: Vec<Client> = (0..idle).map(|_| cluster.client()).collect();
    for client in &mut resting {
        client.call(&["PING"]);
    }
    let each = (cluster.resident_kib(0) - before) * 1_024 / idle as u64;
    println!(
        "{idle} idle connections: {each} bytes of resident memory each, {before} KiB before them"
    );
    assert!(
        each <= IDLE_BYTES_MAX,
        "an idle connection takes {each} bytes"
    );

    cluster.relays()[0][SLOW].delay(DELAY);
    cluster.shard_mut(DOWN).kill();
    let keys = HEALTHY
        .map(|shard| keys_on("near", shard, SHARDS, 3))
        .concat();
    let bystander = Bystander::on(cluster.client(), keys);
    let crowd = Crowd::default();
    let clients: Vec<Client> = (0..active).map(|_| cluster.client()).collect();
    crowd.work(clients, || hit_the_limit(&cluster));
    bystander.finish();
    crowd.report(&cluster);
    for client in resting.iter_mut().step_by(97) {
        assert_eq!(client.call(&["PING"]).text(), "+PONG\\r\\n");
    }
    cluster.shard_mut(DOWN).restart();
    cluster.wait_settled(Duration::from_secs(10));
}

fn start(clients_max: usize) -> Cluster {
    let settings = [
        ("clients-max", clients_max.to_string()),
        ("request-timeout-ms", "1000".to_owned()),
    ];
    let cluster = Cluster::start(&Options {
        shards: SHARDS,
        proxy: settings
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        relayed: true,
        ..Options::default()
    });
    cluster.expect_log("shard");
    cluster
}

/// More clients than allowed, one after the other, all through the load.
fn hit_the_limit(cluster: &Cluster) {
    let end = Instant::now() + Duration::from_secs(if long() { 20 } else { 3 });
    let mut refused = 0;
    // The last free place is taken, if there is one.
    let _last = (cluster.client(), cluster.client());
    while Instant::now() < end || refused < TOO_MANY {
        let (bytes, closed) = cluster.client().drain(Duration::from_secs(3));
        refused += usize::from(closed && bytes.starts_with(b"-ERR max number of clients reached"));
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("{refused} clients over the limit were told so");
}

/// Clients at work, and what became of it.
#[derive(Default)]
struct Crowd {
    stop: AtomicBool,
    /// Answered on healthy shards, on the slow one, on that which is down.
    answered: [AtomicUsize; 3],
    /// Errors on healthy shards and on the slow one.
    errors: [AtomicUsize; 2],
}

impl Crowd {
    /// All at once, while something else goes on.
    fn work(&self, clients: Vec<Client>, meanwhile: impl FnOnce()) {
        let share = clients.len().div_ceil(DRIVERS);
        let mut clients = clients.into_iter();
        std::thread::scope(|scope| {
            for _ in 0..DRIVERS {
                let mine: Vec<Client> = clients.by_ref().take(share).collect();
                scope.spawn(move || self.drive(mine).expect("no connection is lost"));
            }
            meanwhile();
            self.stop.store(true, Ordering::Relaxed);
        });
    }

    /// Sends for all, then reads for all.
    fn drive(&self, mut clients: Vec<Client>) -> io::Result<()> {
        let keys: Vec<String> = (0..SHARDS)
            .flat_map(|shard| keys_on("crowd", shard, SHARDS, 1))
            .collect();
        while !self.stop.load(Ordering::Relaxed) {
            for (number, client) in clients.iter_mut().enumerate() {
                client.send(&request(number, &keys))?;
            }
            for (number, client) in clients.iter_mut().enumerate() {
                self.note(kind(number), &client.read()?.value);
            }
        }
        Ok(())
    }

    fn note(&self, kind: usize, value: &Value) {
        self.answered[kind].fetch_add(1, Ordering::Relaxed);
        if value.error().is_some() && kind < 2 {
            self.errors[kind].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn report(&self, cluster: &Cluster) {
        let [healthy, slow, down] =
            [0, 1, 2].map(|kind| self.answered[kind].load(Ordering::Relaxed));
        let [errors, slow_errors] = [0, 1].map(|kind| self.errors[kind].load(Ordering::Relaxed));
        let resident = cluster.resident_kib(0);
        println!(
            "answered: {healthy} on healthy shards, {slow} on the slow one, {down} on that which is down; {resident} KiB resident"
        );
        assert!(healthy > 0 && slow > 0 && down > 0);
        assert_eq!(
            (errors, slow_errors),
            (0, 0),
            "errors on shards that are well, or slow"
        );
        assert!(resident <= RESIDENT_MIB_MAX * 1_024, "{resident} KiB");
        eventually("the limit is counted", Duration::from_secs(3), || {
            cluster.proxies()[0].metric("lockstep_limits_hit_total", "clients") >= TOO_MANY as f64
        });
    }
}

/// Most use what is well: 0; some the slow one: 1, or that which is down: 2.
fn kind(number: usize) -> usize {
    match number % 10 {
        8 => 1,
        9 => 2,
        _ => 0,
    }
}

fn request(number: usize, keys: &[String]) -> Vec<u8> {
    match (kind(number), number % 4) {
        (1, _) => encode(&["INCR", &keys[SLOW]]),
        (2, _) => encode(&["INCR", &keys[DOWN]]),
        (_, 0) => encode(&["MGET", &keys[0], &keys[1]]),
        (_, 1) => encode(&["GET", &keys[1]]),
        _ => encode(&["INCR", &keys[0]]),
    }
}

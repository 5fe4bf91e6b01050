//! What is measured, and what it stands on.

use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::support::ports::Port;
use super::support::process::Process;
use super::support::{Proxy, Redis, encode, eventually};
use super::workloads::{KEYS, VALUE};

/// Which servers stand there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Three shards, and everything that can be compared.
    Plain,
    /// Sixteen shards, lockstep alone.
    Wide,
    /// Three shards behind one lockstep, and behind two.
    Pair,
    /// Three shards behind a lockstep with one worker, and behind one with two.
    Workers,
}

/// Something that clients connect to.
pub struct Endpoint {
    /// Its name in the table.
    pub name: String,
    /// Its ports; clients are spread over them.
    pub ports: Vec<u16>,
    who: Who,
}

enum Who {
    Direct(Redis),
    Proxies(Vec<Proxy>),
    Started { process: Process, _leases: Leases },
    Stranger,
}

/// As in the program, not as in the tests, which are impatient.
const PATIENT: [(&str, &str); 2] = [
    ("lock-ttl-ms", "5000"),
    ("decision-retention-ms", "3600000"),
];

/// Held as long as the process that uses them.
type Leases = (Vec<Port>, Option<TempDir>);

/// What is to be started.
pub struct Stage {
    /// Which.
    pub kind: Kind,
    strangers: Vec<(String, u16)>,
    commands: Vec<(String, String)>,
}

/// What was started.
pub struct Running {
    /// The endpoints, in the order of the table.
    pub all: Vec<Endpoint>,
    shards: Vec<Redis>,
}

impl Stage {
    /// Without others.
    pub fn of(kind: Kind) -> Self {
        Self {
            kind,
            strangers: Vec::new(),
            commands: Vec::new(),
        }
    }

    /// With these others, each as `NAME=HOST:PORT`, and those that these commands start
    /// (`NAME=COMMAND`, with `{port}` and `{shards}`).
    pub fn plain(strangers: &[String], commands: &[String]) -> Self {
        let named = |text: &String| {
            let (name, what) = text.split_once('=').expect("an endpoint is NAME=...");
            (name.to_owned(), what.to_owned())
        };
        let port = |(name, address): (String, String)| {
            let port = address.rsplit(':').next();
            let port = port.and_then(|port| port.parse().ok());
            (name, port.expect("an endpoint has a port"))
        };
        Self {
            kind: Kind::Plain,
            strangers: strangers.iter().map(named).map(port).collect(),
            commands: commands.iter().map(named).collect(),
        }
    }

    /// Starts it, and fills it with keys.
    pub fn start(&self) -> Running {
        let count = if self.kind == Kind::Wide { 16 } else { 3 };
        let shards = redis(count);
        let lockstep = |name, count, settings: &[_]| lockstep(name, &shards, count, settings);
        let mut all = Vec::new();
        match self.kind {
            Kind::Plain => {
                all.push(direct());
                all.extend(nutcracker(&shards));
                all.push(lockstep("lockstep", 1, &[]));
                all.push(lockstep("loose", 1, &[("isolation", "transactions")]));
                all.extend(self.strangers.iter().map(|(name, port)| Endpoint {
                    name: name.clone(),
                    ports: vec![*port],
                    who: Who::Stranger,
                }));
                let start = |(name, command): &(String, String)| started(name, command, &shards);
                all.extend(self.commands.iter().map(start));
            }
            Kind::Wide => all.push(lockstep("lockstep", 1, &[])),
            Kind::Pair => {
                all.push(lockstep("lockstep", 1, &[]));
                all.push(lockstep("two", 2, &[]));
            }
            Kind::Workers => {
                all.push(lockstep("worker", 1, &[("workers", "1")]));
                all.push(lockstep("workers", 1, &[("workers", "2")]));
            }
        }
        all.iter().for_each(fill);
        Running { all, shards }
    }
}

impl Running {
    /// So many shards behind so many locksteps, which are the first endpoint, and one
    /// redis-server alone, which is the second. Filled with keys.
    pub fn of(shards: usize, proxies: usize) -> Self {
        let shards = redis(shards);
        let all = vec![lockstep("lockstep", &shards, proxies, &[]), direct()];
        all.iter().for_each(fill);
        Self { all, shards }
    }
}

fn redis(count: usize) -> Vec<Redis> {
    (0..count).map(|_| Redis::start(&[])).collect()
}

fn direct() -> Endpoint {
    let direct = Redis::start(&[]);
    Endpoint {
        name: "direct".to_owned(),
        ports: vec![direct.port()],
        who: Who::Direct(direct),
    }
}

fn lockstep(name: &str, shards: &[Redis], count: usize, settings: &[(&str, &str)]) -> Endpoint {
    let addresses: Vec<String> = shards.iter().map(Redis::address).collect();
    let settings = PATIENT.iter().chain(settings);
    let settings = settings.map(|(name, value)| (name.to_string(), value.to_string()));
    let settings: Vec<_> = settings.collect();
    let proxies = (0..count).map(|_| Proxy::start(&addresses, &settings));
    let proxies: Vec<Proxy> = proxies.collect();
    // Under such load a warning is no fault.
    proxies.iter().for_each(|proxy| proxy.expect_log(""));
    Endpoint {
        name: name.to_owned(),
        ports: proxies.iter().map(Proxy::port).collect(),
        who: Who::Proxies(proxies),
    }
}

/// What lockstep has counted of itself so far.
#[derive(Clone, Copy, Default)]
pub struct Counted {
    /// Writes to clients and to shards.
    pub sends: f64,
    /// Requests to shards.
    pub requests: f64,
    /// Writes to shards.
    pub shard_writes: f64,
}

impl Endpoint {
    /// See [`Counted`]; nothing of what is not lockstep.
    pub fn counted(&self) -> Option<Counted> {
        let Who::Proxies(proxies) = &self.who else {
            return None;
        };
        // Workers publish ten times a second.
        std::thread::sleep(Duration::from_millis(120));
        let sum = |name| -> f64 { proxies.iter().map(|proxy| proxy.metric(name, "")).sum() };
        let shard_writes = sum("lockstep_shard_writes_total");
        Some(Counted {
            sends: sum("lockstep_client_writes_total") + shard_writes,
            requests: sum("lockstep_shard_requests_total"),
            shard_writes,
        })
    }
}

impl Running {
    /// Processor time so far: of what was started for this endpoint alone, and of the shards.
    pub fn cpu(&self, endpoint: &Endpoint) -> (Duration, Duration) {
        let shards = self.shards.iter().map(Redis::cpu).sum();
        match &endpoint.who {
            Who::Direct(redis) => (Duration::ZERO, redis.cpu()),
            Who::Proxies(proxies) => (proxies.iter().map(Proxy::cpu).sum(), shards),
            Who::Started { process, .. } => (process.cpu(), shards),
            Who::Stranger => (Duration::ZERO, Duration::ZERO),
        }
    }
}

/// twemproxy, if it is installed.
fn nutcracker(shards: &[Redis]) -> Option<Endpoint> {
    let (port, stats) = (Port::lease(), Port::lease());
    let folder = TempDir::with_prefix("lockstep-bench-").expect("a temporary folder");
    let servers: String = shards
        .iter()
        .map(|shard| format!("   - {}:1\n", shard.address()))
        .collect();
    let settings = format!(
        "all:\n  listen: 127.0.0.1:{}\n  hash: crc16\n  distribution: modula\n  redis: true\n  servers:\n{servers}",
        port.number()
    );
    let path = folder.path().join("nutcracker.yml");
    std::fs::write(&path, settings).expect("a file is written");
    let mut command = Command::new("nutcracker");
    command
        .arg("-c")
        .arg(&path)
        .args([
            "-s",
            &stats.number().to_string(),
            "-a",
            "127.0.0.1",
            "-m",
            "16384",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let process = Process::start(&mut command).ok()?;
    Some(listening(
        "nutcracker",
        process,
        (vec![port, stats], Some(folder)),
    ))
}

/// Something else that listens on `{port}` in front of `{shards}`.
fn started(name: &str, command: &str, shards: &[Redis]) -> Endpoint {
    let port = Port::lease();
    let addresses: Vec<String> = shards.iter().map(Redis::address).collect();
    let command = command
        .replace("{port}", &port.number().to_string())
        .replace("{shards}", &addresses.join(","));
    let mut words = command.split_whitespace();
    let mut command = Command::new(words.next().expect("a command has a program"));
    command
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let process = Process::start(&mut command);
    let process = process.unwrap_or_else(|error| panic!("{name} does not start: {error}"));
    listening(name, process, (vec![port], None))
}

/// Once it listens on the first of its ports.
fn listening(name: &str, process: Process, leases: Leases) -> Endpoint {
    let number = leases.0[0].number();
    eventually(&format!("{name} listens"), Duration::from_secs(10), || {
        TcpStream::connect(("127.0.0.1", number)).is_ok()
    });
    Endpoint {
        name: name.to_owned(),
        ports: vec![number],
        who: Who::Started {
            process,
            _leases: leases,
        },
    }
}

/// Every key once.
fn fill(endpoint: &Endpoint) {
    let mut client = super::support::Client::connect(endpoint.ports[0]).expect("it listens");
    let keys: Vec<String> = (0..KEYS)
        .map(|number| format!("key:{number:012}"))
        .collect();
    for keys in keys.chunks(100) {
        let bytes: Vec<u8> = keys
            .iter()
            .flat_map(|key| encode(&["SET", key, VALUE]))
            .collect();
        client.send(&bytes).expect("it takes keys");
        for _ in keys {
            client.read().expect("it answers");
        }
    }
}

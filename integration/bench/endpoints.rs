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
    Nutcracker { process: Process, _leases: Leases },
    Stranger,
}

/// Held as long as the process that uses them.
type Leases = ([Port; 2], TempDir);

/// What is to be started.
pub struct Stage {
    /// Which.
    pub kind: Kind,
    strangers: Vec<(String, u16)>,
}

/// What was started.
pub struct Running {
    /// The endpoints, in the order of the table.
    pub all: Vec<Endpoint>,
    shards: Vec<Redis>,
}

impl Stage {
    /// With these others, each as `NAME=HOST:PORT`.
    pub fn plain(strangers: &[String]) -> Self {
        let parse = |text: &String| {
            let (name, address) = text.split_once('=').expect("an endpoint is NAME=HOST:PORT");
            let port = address
                .rsplit(':')
                .next()
                .and_then(|port| port.parse().ok());
            (name.to_owned(), port.expect("an endpoint has a port"))
        };
        Self {
            kind: Kind::Plain,
            strangers: strangers.iter().map(parse).collect(),
        }
    }

    /// See [`Kind::Wide`].
    pub fn wide() -> Self {
        Self {
            kind: Kind::Wide,
            strangers: Vec::new(),
        }
    }

    /// See [`Kind::Pair`].
    pub fn pair() -> Self {
        Self {
            kind: Kind::Pair,
            strangers: Vec::new(),
        }
    }

    /// Starts it, and fills it with keys.
    pub fn start(&self) -> Running {
        let count = if self.kind == Kind::Wide { 16 } else { 3 };
        let shards: Vec<Redis> = (0..count).map(|_| Redis::start(&[])).collect();
        let lockstep = |name: &str, count: usize, settings: &[(&str, &str)]| {
            let addresses: Vec<String> = shards.iter().map(Redis::address).collect();
            let settings = settings
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string()));
            let settings: Vec<_> = settings.collect();
            let proxies = (0..count).map(|_| Proxy::start(&addresses, &settings));
            let proxies: Vec<Proxy> = proxies.collect();
            Endpoint {
                name: name.to_owned(),
                ports: proxies.iter().map(Proxy::port).collect(),
                who: Who::Proxies(proxies),
            }
        };
        let mut all = Vec::new();
        match self.kind {
            Kind::Plain => {
                let direct = Redis::start(&[]);
                all.push(Endpoint {
                    name: "direct".to_owned(),
                    ports: vec![direct.port()],
                    who: Who::Direct(direct),
                });
                all.extend(nutcracker(&shards));
                all.push(lockstep("lockstep", 1, &[]));
                all.push(lockstep("loose", 1, &[("isolation", "transactions")]));
                all.extend(self.strangers.iter().map(|(name, port)| Endpoint {
                    name: name.clone(),
                    ports: vec![*port],
                    who: Who::Stranger,
                }));
            }
            Kind::Wide => all.push(lockstep("lockstep", 1, &[])),
            Kind::Pair => {
                all.push(lockstep("lockstep", 1, &[]));
                all.push(lockstep("two", 2, &[]));
            }
        }
        all.iter().for_each(fill);
        Running { all, shards }
    }
}

impl Running {
    /// Processor time so far: of what was started for this endpoint alone, and of the shards.
    pub fn cpu(&self, endpoint: &Endpoint) -> (Duration, Duration) {
        let shards = self.shards.iter().map(Redis::cpu).sum();
        match &endpoint.who {
            Who::Direct(redis) => (Duration::ZERO, redis.cpu()),
            Who::Proxies(proxies) => (proxies.iter().map(Proxy::cpu).sum(), shards),
            Who::Nutcracker { process, .. } => (process.cpu(), shards),
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
    let number = port.number();
    eventually("nutcracker listens", Duration::from_secs(10), || {
        TcpStream::connect(("127.0.0.1", number)).is_ok()
    });
    Some(Endpoint {
        name: "nutcracker".to_owned(),
        ports: vec![number],
        who: Who::Nutcracker {
            process,
            _leases: ([port, stats], folder),
        },
    })
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

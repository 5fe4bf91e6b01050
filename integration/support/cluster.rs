//! Shards and the proxies before them, as one thing a test starts and ends.

use super::client::Client;
use super::leftovers::{Leftovers, leftovers};
use super::proxy::{Proxy, program};
use super::redis::Redis;
use super::relay::Relay;
use super::wait::eventually_with;
use std::env;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What stands where clients connect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject {
    /// lockstep over several shards.
    Lockstep,
    /// One plain redis-server, to test the test.
    Redis,
}

impl Subject {
    /// From `LOCKSTEP_SUBJECT`.
    pub fn take() -> Subject {
        match env::var("LOCKSTEP_SUBJECT").as_deref() {
            Ok("redis") => Subject::Redis,
            Ok("lockstep") | Err(_) => Subject::Lockstep,
            Ok(other) => panic!("LOCKSTEP_SUBJECT is redis or lockstep, not {other}"),
        }
    }
}

/// Whether the long form of the tests is wanted.
pub fn long() -> bool {
    env::var("LOCKSTEP_LONG").is_ok_and(|value| value != "0" && !value.is_empty())
}

/// A number from the environment, or its default.
pub fn number_from_env(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number, not {text}"))
    })
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of shards.
    pub shards: usize,
    /// Number of proxies.
    pub proxies: usize,
    /// Whether the shards keep an AOF that loses nothing acknowledged.
    pub durable: bool,
    /// Flags of every redis-server.
    pub redis: Vec<&'static str>,
    /// Flags of every proxy, without dashes, and their values.
    pub proxy: Vec<(String, String)>,
    /// Whether there is a network between each proxy and each shard that can be made to fail.
    pub relayed: bool,
    /// Faults planted in every proxy; see `src/failpoint.rs`.
    pub faults: &'static str,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            shards: 3,
            proxies: 1,
            durable: false,
            redis: Vec::new(),
            proxy: Vec::new(),
            relayed: false,
            faults: "",
        }
    }
}

/// P over these shards, as `lockstep audit` finds it.
pub fn consistency(shards: &[Redis]) -> f64 {
    let output = Command::new(program())
        .args(["audit", "--json"])
        .args(
            shards
                .iter()
                .flat_map(|shard| ["--shard".to_owned(), shard.address()]),
        )
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let json: serde_json::Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    json["p"]
        .as_f64()
        .unwrap_or_else(|| panic!("no P in {text}"))
}

/// Shards and proxies; with [`Subject::Redis`] one redis-server that is both.
#[derive(Debug)]
pub struct Cluster {
    // Dropped first: a proxy that outlives its shards would log errors nobody expected.
    proxies: Vec<Proxy>,
    /// By proxy, then by shard.
    relays: Vec<Vec<Relay>>,
    shards: Vec<Redis>,
}

impl Cluster {
    /// Starts everything and waits until it answers.
    pub fn start(options: &Options) -> Cluster {
        let plain = Subject::take() == Subject::Redis;
        // A redis-server in the proxy's place is killed like a proxy, and must not forget.
        let durable = options.durable || plain;
        let start = |_| match durable {
            true => Redis::start_durable(&options.redis),
            false => Redis::start(&options.redis),
        };
        let shards: Vec<Redis> = (0..if plain { 1 } else { options.shards })
            .map(start)
            .collect();
        let direct: Vec<String> = shards.iter().map(Redis::address).collect();
        let proxies = if plain { 0 } else { options.proxies };
        let relays: Vec<Vec<Relay>> = (0..if options.relayed { proxies } else { 0 })
            .map(|_| shards.iter().map(|shard| Relay::start(shard.port())))
            .map(Iterator::collect)
            .collect();
        let proxies = (0..proxies)
            .map(|number| {
                let relays = relays.get(number).map(|relays| relays.iter());
                let addresses = relays.map(|relays| relays.map(Relay::address).collect());
                let addresses = addresses.unwrap_or_else(|| direct.clone());
                Proxy::start_wrong(&addresses, &options.proxy, options.faults)
            })
            .collect();
        Cluster {
            proxies,
            relays,
            shards,
        }
    }

    /// The network between each proxy and each shard; empty unless asked for.
    pub fn relays(&self) -> &[Vec<Relay>] {
        &self.relays
    }

    /// P, as `lockstep audit` finds it.
    pub fn consistency(&self) -> f64 {
        consistency(&self.shards)
    }

    /// Whether lockstep is the subject, and not a plain redis-server.
    pub fn is_lockstep(&self) -> bool {
        !self.proxies.is_empty()
    }

    /// The shards, in the order of the map.
    pub fn shards(&self) -> &[Redis] {
        &self.shards
    }

    /// One shard, to be killed or paused.
    pub fn shard_mut(&mut self, number: usize) -> &mut Redis {
        &mut self.shards[number]
    }

    /// The proxies; none when the subject is a plain redis-server.
    pub fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }

    /// One proxy, to be stopped or waited for.
    pub fn proxy_mut(&mut self, number: usize) -> &mut Proxy {
        &mut self.proxies[number]
    }

    /// The port clients of proxy `number` connect to.
    pub fn port(&self, number: usize) -> u16 {
        self.proxies
            .get(number)
            .map_or_else(|| self.shards[0].port(), Proxy::port)
    }

    /// A new connection to the first proxy.
    pub fn client(&self) -> Client {
        self.client_at(0)
    }

    /// A new connection to proxy `number`.
    pub fn client_at(&self, number: usize) -> Client {
        Client::connect(self.port(number)).unwrap_or_else(|error| panic!("subject: {error}"))
    }

    /// kill -9 of proxy `number`.
    pub fn kill(&mut self, number: usize) {
        match self.proxies.get_mut(number) {
            Some(proxy) => proxy.kill(),
            None => self.shards[0].kill(),
        }
    }

    /// Starts proxy `number` again.
    pub fn restart(&mut self, number: usize) {
        match self.proxies.get_mut(number) {
            Some(proxy) => proxy.restart(),
            None => self.shards[0].restart(),
        }
    }

    /// Resident memory in KiB of proxy `number`.
    pub fn resident_kib(&self, number: usize) -> u64 {
        self.proxies
            .get(number)
            .map_or_else(|| self.shards[0].resident_kib(), Proxy::resident_kib)
    }

    /// The most that it ever was; what is there in the place of proxies may do as it likes.
    pub fn peak_kib(&self, number: usize) -> u64 {
        self.proxies.get(number).map_or(0, Proxy::peak_kib)
    }

    /// Allows log lines of every proxy that contain `pattern`.
    pub fn expect_log(&self, pattern: &str) {
        for proxy in &self.proxies {
            proxy.expect_log(pattern);
        }
    }

    /// What is left on the shards now.
    pub fn leftovers(&self) -> Leftovers {
        leftovers(&self.shards)
    }

    /// Waits until nothing is locked, settling or undecided; releases run behind the replies,
    /// so even a quiet end needs a moment.
    pub fn wait_settled(&self, limit: Duration) {
        eventually_with("nothing locked, settling or undecided", limit, || {
            let found = self.leftovers();
            if found.is_settled() {
                Ok(())
            } else {
                Err(found)
            }
        });
    }

    /// Waits until no key of ours is left but the permanent ones.
    pub fn wait_clean(&self, limit: Duration) {
        eventually_with("no key of the proxy left on the shards", limit, || {
            let found = self.leftovers();
            if found.is_clean() { Ok(()) } else { Err(found) }
        });
    }

    /// Removes every key but the proxy's own, directly on the shards.
    pub fn wipe(&self) {
        self.shards.iter().for_each(Redis::wipe);
    }
}

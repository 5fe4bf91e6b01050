//! What every integration test stands on: real redis-server processes, the proxy under test,
//! a client that sees raw bytes, seeded randomness, and the check that nothing is left behind.
//!
//! Each test starts its own servers on its own ports and ends them by process id. A test file
//! takes this folder in with `#[path = "../support/mod.rs"] mod support;`.
//!
//! # Settings, all by environment
//!
//! | variable | meaning |
//! |---|---|
//! | `LOCKSTEP_SUBJECT=redis` | a plain redis-server stands in the proxy's place: the tests test themselves |
//! | `LOCKSTEP_SUBJECT_WORKERS` | worker threads of each proxy, 1 unless told |
//! | `LOCKSTEP_BIN` | path of the program under test, instead of the one cargo has just built |
//! | `LOCKSTEP_SEED` | replays the run whose seed a failure printed |
//! | `LOCKSTEP_LONG=1` | the long form of everything |
//! | `LOCKSTEP_OFFLINE=1` | skip what needs a package index |

// Every test target compiles this folder for itself and uses a part of it.
#![allow(dead_code, unused_imports)]

pub mod client;
pub mod cluster;
pub mod keys;
pub mod leftovers;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod relay;
pub mod seed;
pub mod value;
pub mod wait;

pub use client::{Client, Reply, encode};
pub use cluster::{Cluster, Options, Subject, consistency, long, number_from_env};
pub use keys::{key_on, keys_on, shard_of, slot_of, spread};
pub use leftovers::{Leftovers, leftovers, ours};
pub use proxy::Proxy;
pub use redis::Redis;
pub use relay::{Relay, Way};
pub use seed::Seed;
pub use value::{Value, escape};
pub use wait::{eventually, eventually_with};

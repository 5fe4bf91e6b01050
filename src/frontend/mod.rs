//! The way from the clients.
//!
//! * [`client`]: the task of one connection: read, frame, dispatch;
//! * [`roster`]: all clients, over all workers;
//! * [`clients`]: commands about them;
//! * [`session`]: its replies, kept in the order of the requests;
//! * [`crossing`]: commands that write on one shard what they read on another;
//! * [`dispatch`]: a command outside MULTI → shard, pieces, or an answer of our own;
//! * [`multi`]: MULTI, EXEC, DISCARD, and what happens in between;
//! * [`subscriber`]: what a client listens to; the commands for it are in `channels`;
//! * [`scripts`]: EVAL and its kin, and what servers keep of scripts;
//! * [`access`]: who clients are, and what they may do;
//! * [`own`]: commands about the connection, answered here;
//! * [`patience`]: how long a command says that it will wait;
//! * [`lane`]: what a client sets its connection to: protocol, database, replies;
//! * [`gather`]: split reads, from pieces to one reply;
//! * [`guards`]: limits on what clients ask; [`slow`] and [`hot`]: what was slow, and is hot;
//! * [`lockstep`]: the command of that name, for operators and for who asks what became of one;
//! * [`refusal`]: every error text that is not a server's;
//! * [`upload`]: large commands, sent on while they come in;
//! * [`want`]: what a session waits for before it goes on;
//! * [`watch`]: WATCH, UNWATCH, and EXEC of a client that watches;
//! * [`tally`]: what sessions count;
//! * [`traced`]: commands and transactions that are traced;
//! * [`whole`]: commands about the whole keyspace, or about every shard.

pub mod access;
mod busy;
mod channels;
pub mod client;
mod clients;
mod crossing;
pub mod dispatch;
mod fence;
mod flush;
pub mod gather;
pub mod guards;
pub mod hot;
pub mod lane;
pub mod latency;
pub mod lockstep;
pub mod multi;
pub mod own;
mod parts;
mod patience;
mod pausing;
pub mod refusal;
pub mod roster;
mod scripts;
pub mod session;
mod slot;
pub mod slow;
pub mod subscriber;
pub mod tally;
mod traced;
mod tracking;
mod upload;
mod waiting;
mod want;
pub mod watch;
mod whole;

use std::cell::{Cell, Ref, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;

use crate::config::Config;
use crate::engine::Engine;
use crate::engine::channels::Hub;
use crate::engine::sources::Shown;
use crate::keyspace::{CommandTable, Topology};
use crate::metrics::Metrics;
use crate::traces::Tracer;
use crate::turn::Turn;

/// What all sessions of a worker share.
pub struct Context {
    /// The settings, as they were set last.
    pub config: RefCell<Arc<Config>>,
    /// The shard map.
    pub topology: Arc<Topology>,
    /// The commands of the connected servers.
    pub table: Arc<CommandTable>,
    /// What is said of the server itself (`INFO`, `HELLO`).
    pub server: Arc<ServerInfo>,
    /// Links, pools, and the driver of transactions.
    pub engine: Rc<Engine>,
    /// Scripts that clients have shown.
    pub scripts: Shown,
    /// Subscriptions.
    pub hub: Rc<Hub>,
    /// The dirty lists.
    pub turn: Rc<Turn>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The users, and what they may do.
    pub gate: Arc<access::Gate>,
    /// The clients of all workers.
    pub roster: Arc<roster::Roster>,
    /// What sessions count.
    pub tally: Rc<tally::Tally>,
    /// Whether there are limits that each command is held against.
    pub is_guarding: Cell<bool>,
    /// Whether it is looked at how long commands take.
    pub is_timing: Cell<bool>,
    /// How long they take.
    pub latencies: latency::Latencies,
    /// Those that took long.
    pub slow: Arc<slow::SlowLog>,
    /// Where spans go.
    pub tracer: Arc<Tracer>,
    /// Commands that may have been looked at for their keys.
    pub sampled: Cell<usize>,
    /// The keys that are asked for most.
    pub hot: Arc<hot::HotKeys>,
    /// More than `memory-bytes-max` waits: nobody is read from.
    pub is_full: Cell<bool>,
    /// Set when the process is to end: sessions close as soon as they are idle.
    pub is_draining: Cell<bool>,
    /// The clients of this worker.
    pub sessions: RefCell<HashMap<u64, Rc<session::Session>>>,
    /// What clients without a buffer of their own read into.
    pub buffer: RefCell<BytesMut>,
}

impl Context {
    /// The settings as they are now.
    pub fn config(&self) -> Ref<'_, Config> {
        Ref::map(self.config.borrow(), Arc::as_ref)
    }
}

/// What is said of the server itself.
#[derive(Clone, Debug)]
pub struct ServerInfo {
    /// `redis_version` of the shards (the lowest), which clients use to tell features.
    pub redis_version: String,
    /// Logical databases (the fewest of all shards).
    pub databases: u16,
    /// When the proxy started, for `uptime_in_seconds`.
    pub started: std::time::Instant,
}

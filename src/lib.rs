//! lockstep: a Redis-protocol proxy that spreads keys over plain Redis servers and runs
//! MULTI/EXEC, WATCH and multi-key commands across them as two-phase commits.
//!
//! The data path, in the order a command takes it:
//!
//! 1. [`frontend`] accepts a client, reads bytes, keeps replies in order;
//! 2. [`resp`] frames the bytes into commands (ours are the bounds, nothing is trusted);
//! 3. [`keyspace`] finds the command's keys and the shard each lives on; where users are set,
//!    [`acl`] says whether this one may;
//! 4. [`backend`] carries the raw bytes to that shard and its reply back;
//! 5. several shards: [`txn`] plans and decides (pure), [`engine`] carries it out.
//!
//! Beside it, [`operator`] looks at transactions and settles them on a person's word, through
//! [`frontend`] or, without any proxy, through [`console`].
//!
//! Imports point one way: `resp <- keyspace <- txn <- engine <- operator <- frontend <- main`,
//! `keyspace <- acl <- frontend`, and `resp <- backend <- engine`; `config`, `metrics`, `shutdown`, `transport` and `failpoint` are leaves. `resp`,
//! `keyspace`, `acl` and `txn` are pure: no clock, no randomness, no tokio. `integration/tidy.rs` and a
//! lint hold all that.

#[deny(clippy::disallowed_methods)]
pub mod acl;
pub mod admin;
pub mod backend;
pub mod build;
pub mod cli;
pub mod config;
pub mod console;
pub mod dev;
pub mod engine;
pub mod failpoint;
pub mod frontend;
#[deny(clippy::disallowed_methods)]
pub mod keyspace;
pub mod logging;
pub mod metrics;
pub mod operator;
pub mod readiness;
pub mod reload;
#[deny(clippy::disallowed_methods)]
pub mod resp;
pub mod run;
pub mod server;
pub mod shutdown;
pub mod traces;
pub mod transport;
pub mod turn;
#[deny(clippy::disallowed_methods)]
pub mod txn;

//! From the start to the end of a process: rolling restarts under load, listeners that are handed
//! over, what becomes of clients and transactions at SIGTERM, and starts without every shard.

// A test program has no outside that could reach its items.
#![allow(unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod applications;
mod drain;
mod knocks;
mod rolling;
mod start;

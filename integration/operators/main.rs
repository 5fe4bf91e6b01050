//! What operators and applications are told of transactions, and what operators can do to them:
//! from the command line with no lockstep running, and through one. Transactions in doubt are
//! made with the real scripts, on real servers, and left alone by whoever made them.

// A test program has no outside that could reach its items.
#![allow(unreachable_pub)]

mod audit;
mod forget;
mod listing;
mod map;
mod plant;
mod resolve;
mod start;
mod status;
#[path = "../support/mod.rs"]
mod support;
mod wire;

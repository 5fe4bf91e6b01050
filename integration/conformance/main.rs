//! The scripts against a real redis-server: what each does and refuses, that a refusal is whole,
//! that replies come out of `apply` as Redis sends them natively, and that the scripts and their
//! twin in Rust are the same thing.
//!
//! Every test starts servers of its own, on Unix sockets in a temporary folder, and stops them.

mod condition;
mod flush;
mod operations;
mod ownership;
mod pinned;
mod refusals;
mod replies;
mod server;
mod shard;
mod templates;
mod twin;

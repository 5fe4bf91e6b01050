//! Where keys live: slots, the command table, the shard map. Pure.
//!
//! * [`slot`]: key → slot, the function of Redis Cluster;
//! * [`topology`]: slot → shard, an immutable snapshot;
//! * [`membership`]: what each shard notes of the map it is part of;
//! * [`table`]: which arguments of a command are keys, learned from the shards' own `COMMAND`;
//! * [`treatment`]: what lockstep does with each command;
//! * [`compatibility`]: how far each command works;
//! * [`keys`]: finds the keys of one command by the rules of the table;
//! * [`services`]: commands about channels and about scripts;
//! * [`glob`]: the patterns of channels.

pub mod compatibility;
pub mod glob;
pub mod keys;
pub mod membership;
pub mod services;
pub mod slot;
pub mod table;
pub mod topology;
pub mod treatment;

pub use glob::glob_matches;
pub use keys::{Access, KeyError, KeyRule};
pub use services::{ChannelKind, Channels, Library};
pub use slot::key_slot;
pub use table::{CommandSpec, CommandTable, Flag, Lookup};
pub use topology::{Place, Topology};
pub use treatment::{Cross, Merge, Own, Split, Treatment, Whole};

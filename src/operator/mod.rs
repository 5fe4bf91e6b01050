//! What operators and applications can ask about transactions, and what operators can do to
//! them: the same from the command line, straight against the shards, and through any lockstep
//! as `LOCKSTEP TXN …`.
//!
//! * [`mod@list`]: what is unfinished, in doubt or left over;
//! * [`mod@show`]: one transaction in full;
//! * [`mod@status`]: what became of one;
//! * [`mod@resolve`]: finishing one, by the rules of recovery ([`forecast`] says beforehand how that
//!   goes), or [`forget`]ting what is left of it;
//! * [`mod@audit`]: how consistent the shards are, and what puts that at risk;
//! * [`mod@map`]: whether the shards are those of one shard map, and adopting another;
//! * [`look`] asks the shards, [`sight`] is what they say, [`render`] how people, programs and
//!   clients are told.
//!
//! An operator has no power over the outcome: what is decided stays so, and what is not is
//! decided by the same rules as always.

mod audit;
pub mod forecast;
mod forget;
mod list;
mod look;
mod map;
mod render;
mod resolve;
mod show;
pub mod sight;
mod status;

pub use audit::{Audit, audit};
pub use list::{Listing, list};
pub use map::{Map, adopt, map};
pub use render::{Report, reply};
pub use resolve::{Order, Resolution, Wish, refusal, resolve};
pub use show::{Redact, Shown, show};
pub use status::{Status, Told, status, told};

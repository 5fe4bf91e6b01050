//! What operators and applications can ask about transactions, and what operators can do to
//! them: the same from the command line, straight against the shards, and through any lockstep
//! as `LOCKSTEP TXN …`.
//!
//! * [`list`]: what is unfinished, in doubt or left over;
//! * [`show`]: one transaction in full;
//! * [`status`]: what became of one;
//! * [`resolve`]: finishing one, by the rules of recovery ([`forecast`] says beforehand how that
//!   goes), or [`forget`]ting what is left of it;
//! * [`look`] asks the shards, [`sight`] is what they say, [`render`] how people, programs and
//!   clients are told.
//!
//! An operator has no power over the outcome: what is decided stays so, and what is not is
//! decided by the same rules as always.

pub mod forecast;
mod forget;
mod list;
mod look;
mod render;
mod resolve;
mod show;
pub mod sight;
mod status;

pub use list::{Listing, list};
pub use render::{Report, reply};
pub use resolve::{Order, Resolution, Wish, refusal, resolve};
pub use show::{Redact, Shown, show};
pub use status::{Status, Told, status, told};

//! Users and what they may do, by the rules of Redis's ACL files. Pure.
//!
//! * [`mod@file`]: the text of a file → lines of words, and from there to [`Users`];
//! * [`user`]: one user: passwords, flags, rights;
//! * [`rights`]: which commands, keys and channels; the rules that change them;
//! * [`commands`]: the part of it that is about commands, over the servers' own command table;
//! * [`permit`]: whether a user may run a command.
//!
//! Rules that need the command table are read twice: without it, as `lockstep check` does, names
//! of commands are taken as they are; with it, at the start, they must exist.

pub mod commands;
pub mod file;
pub mod permit;
pub mod rights;
pub mod user;

pub use commands::{CATEGORIES, Catalogue};
pub use file::{Drafts, Mistake, Users};
pub use permit::Denied;
pub use rights::Rights;
pub use user::{Digest, User};

/// The user that clients are before they say who they are.
pub const DEFAULT: &str = "default";

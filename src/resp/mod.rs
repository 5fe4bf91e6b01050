//! The bytes layer: commands and replies as they stand on the wire. Pure: no clock, no
//! randomness, no runtime, no allocation that bytes on the wire can announce but not fill.
//!
//! | module | does |
//! |---|---|
//! | [`limits`] | every bound of this layer, in one place |
//! | [`command`] | [`CommandScanner`]: client → proxy, frames commands as redis-server 7.0 does, with its error texts |
//! | [`inline`] | splitting of inline commands (`SET k "a b"`) |
//! | [`reply`] | [`ReplyScanner`]: shard → proxy, frames RESP2 and RESP3 replies |
//! | [`frame`] | looking into a complete reply without decoding it |
//! | [`decode`] | a complete reply as an owned tree ([`Value`]) |
//! | [`build`] | writing replies and commands |
//! | [`lane`] | what a connection is set to: protocol and database |
//! | [`number`] | decimal integers, as strict as Redis |
//!
//! Both scanners are resumable: they are given the bytes from the start of the frame on, again
//! and again as more arrive, and never look at a byte twice. Framing a reply needs one counter
//! and no stack, so depth is no danger to it; only [`decode`] bounds depth.

pub mod build;
pub mod command;
pub mod decode;
pub mod error;
pub mod frame;
pub mod inline;
pub mod lane;
pub mod limits;
pub mod number;
pub mod reply;

pub use build::Protocol;
pub use command::{Command, CommandScanner, Scan};
pub use decode::Value;
pub use error::{DecodeError, ProtocolError, ReplyError};
pub use frame::{Kind, as_bulk, as_int, as_status, elements, error_text, is_error, kind};
pub use lane::Lane;
pub use limits::Limits;
pub use reply::ReplyScanner;

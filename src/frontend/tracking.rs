//! CLIENT TRACKING and its kin: refused, never ignored. Client-side caching rests on every change
//! being told, and changes by a transaction that is settling would have to be told when it is
//! released, not when each shard applies its part. Who never turned it on is answered as by Redis.

use bytes::BytesMut;

use super::dispatch::Dispatcher;
use super::refusal::fixed;
use crate::resp::{Command, build};

const REFUSED: &str = "ERR CLIENT TRACKING is not supported by lockstep: changes would not be told as they become visible, so do not cache";
const CACHING: &str = "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled";

impl Dispatcher {
    /// CLIENT TRACKING, CACHING, GETREDIR and TRACKINGINFO; the subcommand in lower case.
    pub(super) fn tracking(&self, sub: &[u8], command: &Command<'_>, out: &mut BytesMut) {
        let mode = command.arg(2).unwrap_or_default().to_ascii_lowercase();
        match (sub, &mode[..]) {
            (b"tracking", b"on") => build::error(out, REFUSED),
            (b"tracking", b"off") if command.argc() == 3 => build::status(out, "OK"),
            (b"tracking", _) => build::error(out, fixed::SYNTAX),
            (b"caching", _) => build::error(out, CACHING),
            (b"getredir", _) => build::int(out, -1),
            _ => self.tracking_is_off(out),
        }
    }

    fn tracking_is_off(&self, out: &mut BytesMut) {
        let protocol = self.lane.protocol;
        build::map_header(out, protocol, 3);
        build::bulk(out, "flags");
        build::set_header(out, protocol, 1);
        build::bulk(out, "off");
        build::bulk(out, "redirect");
        build::int(out, -1);
        build::bulk(out, "prefixes");
        build::array_header(out, 0);
    }
}

//! DEBUG, as far as it does no harm: what shows a key goes to the key's shard, what sets or
//! tries something goes to every shard, and the rest is refused.

use super::{Inquiry, Replied, error};
use crate::keyspace::Merge;
use crate::txn::names;

/// Subcommands about the key behind them.
const OF_KEY: &[&str] = &[
    "object",
    "listpack",
    "ziplist",
    "quicklist",
    "sdslen",
    "htstats-key",
];
/// Subcommands that change nothing of the data.
const OF_ALL: &[&str] = &[
    "sleep",
    "set-active-expire",
    "quicklist-packed-threshold",
    "set-disable-deny-scripts",
    "stringmatch-len",
    "pause-cron",
    "error",
    "protocol",
    "help",
];

impl Inquiry {
    pub(super) async fn debug(&self) -> Replied {
        let sub = String::from_utf8_lossy(&self.args[1]).to_ascii_lowercase();
        if OF_ALL.contains(&sub.as_str()) {
            return self.every(Merge::First).await;
        }
        match (OF_KEY.contains(&sub.as_str()), self.args.get(2)) {
            (true, Some(key)) if names::is_reserved(key) => {
                Err(error(super::super::refusal::fixed::RESERVED))
            }
            (true, Some(key)) => {
                let shard = self.context.topology.shard_of(key);
                let engine = &self.context.engine;
                let reply = engine.read_one(&self.links, shard, &self.encoded()).await?;
                Ok(bytes::BytesMut::from(&reply[..]))
            }
            _ => Err(error(format!(
                "ERR DEBUG {} acts on a single server: send it to the shard itself",
                sub.to_ascii_uppercase()
            ))),
        }
    }
}

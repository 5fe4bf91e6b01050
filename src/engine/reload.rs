//! Our own scripts, where a shard has lost them or is made to forget all.

use bytes::{Bytes, BytesMut};

use super::inbox::{Inbox, Reply};
use super::{Engine, ask_as};
use crate::backend::{Failure, How};
use crate::txn::script;

impl Engine {
    /// Loads our scripts into a shard that has lost them; it answers nobody.
    pub(super) fn load_scripts(&self, shard: u16) {
        tracing::warn!(
            shard = self.link(shard).address(),
            "the shard has lost our scripts; loading them again"
        );
        let mut request = BytesMut::new();
        for script in script::ALL {
            script.append_load(&mut request);
        }
        let inbox = Inbox::<Reply>::new();
        // If it cannot be sent, the next connection loads them.
        let _ = self.link(shard).send(
            &[&request],
            How::behind(script::ALL.len() as u32 - 1),
            inbox,
            0,
        );
    }

    /// Has every shard run a command that drops all scripts, and load our own again in the same
    /// step, so that no transaction meets a shard without them. The replies to EXEC, by shard.
    pub async fn forget_scripts(&self, command: &[u8]) -> Vec<Result<Bytes, Failure>> {
        let mut request = BytesMut::from(script::MULTI);
        request.extend_from_slice(command);
        for script in script::ALL {
            script.append_load(&mut request);
        }
        request.extend_from_slice(script::EXEC);
        let how = How::behind(script::ALL.len() as u32 + 2);
        self.lanes.each(|link| link.marks.clear());
        let request = &request;
        let ask = |shard| ask_as(self.link(shard), request, how);
        futures::future::join_all((0..self.shards()).map(ask)).await
    }
}

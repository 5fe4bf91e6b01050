//! Commands that wait for data: each on a connection of its own, for as long as it takes.

use std::rc::Rc;

use bytes::BytesMut;
use tokio::task::{AbortHandle, spawn_local};

use super::Engine;
use crate::backend::Failure;
use crate::resp::build;

impl Engine {
    /// Sends a command that may wait, and calls `done` once with its reply. Aborting it closes
    /// the connection, so that the shard stops waiting as well.
    pub fn wait_for(
        self: &Rc<Self>,
        shard: u16,
        request: BytesMut,
        done: impl FnOnce(&[u8]) + 'static,
    ) -> AbortHandle {
        let engine = Rc::clone(self);
        let task = spawn_local(async move {
            match engine.wait_on(shard, &request).await {
                Ok(reply) => done(&reply),
                Err(failure) => {
                    engine.metrics.errors[failure.kind()].increment(1);
                    let mut reply = BytesMut::new();
                    build::error(&mut reply, failure.to_string());
                    done(&reply);
                }
            }
        });
        task.abort_handle()
    }

    async fn wait_on(&self, shard: u16, request: &[u8]) -> Result<bytes::Bytes, Failure> {
        let mut connection = self.waiters(shard).get().await?;
        let reply = connection.exchange_patiently(request).await?;
        connection.give_back();
        Ok(reply)
    }
}

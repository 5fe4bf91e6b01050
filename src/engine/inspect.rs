//! What operators need of an engine: questions to a single shard, and the shards themselves.

use bytes::Bytes;

use super::{Engine, Times};
use crate::backend::Failure;
use crate::txn::script::answer;

impl Engine {
    /// How many shards there are.
    pub fn shards(&self) -> u16 {
        self.ways.len() as u16
    }

    /// The shard's address, as configured.
    pub fn address(&self, shard: u16) -> &str {
        self.link(shard).address()
    }

    /// The times by which transactions live here.
    pub fn times(&self) -> &Times {
        &self.times
    }

    /// Sends one request to a shard, out of turn with any client's, and waits for its reply. A
    /// call of one of our scripts that the shard has lost is repeated once it has it again.
    ///
    /// # Errors
    /// When there is no reply. An error reply is a reply.
    pub async fn query(&self, shard: u16, request: &[u8]) -> Result<Bytes, Failure> {
        let reply = self.ask(shard, request).await?;
        if !answer::is_noscript(&reply) {
            return Ok(reply);
        }
        self.load_scripts(shard);
        self.ask(shard, request).await
    }
}

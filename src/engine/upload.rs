//! Commands that are sent to their shard while they come in: each on a connection of its own, where
//! nobody waits behind it for its client, and which is simply closed if the rest does not come. The
//! shard has never seen a whole command then.
//!
//! The hold rule ([`crate::backend::hold`]) is theirs as well.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncWrite, DuplexStream, duplex};
use tokio::task::{AbortHandle, spawn_local};

use super::Engine;
use super::blocking::maybe_sent;
use crate::backend::Failure;
use crate::resp::Lane;

/// What has come and is not written to the shard, at most.
const PIPE_BYTES: usize = 256 * 1024;

/// A command on its way. Dropping it gives it up.
pub struct Upload {
    /// None once the end of the command was given.
    pipe: Option<DuplexStream>,
    task: AbortHandle,
}

impl Upload {
    /// Takes more of the command; how many bytes. All, when it has failed: nobody wants the rest.
    pub fn poll_take(&mut self, bytes: &[u8], task: &mut Context<'_>) -> Poll<usize> {
        let Some(pipe) = &mut self.pipe else {
            return Poll::Ready(bytes.len());
        };
        let taken = Pin::new(pipe).poll_write(task, bytes);
        taken.map(|taken| taken.unwrap_or(bytes.len()))
    }

    /// The command is complete. Its reply will come, whoever waits for it.
    pub fn end(mut self) {
        self.pipe = None;
    }

    /// It will not be completed; whether it was not answered yet, and never will be.
    pub fn give_up(self) -> bool {
        !self.task.is_finished()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.pipe.is_some() {
            self.task.abort();
        }
    }
}

impl Engine {
    /// Begins to send a command, with keys in this slot only, of which nothing is there yet. Calls
    /// `done` once with its reply, not before the slot is settled.
    pub fn upload(
        self: &Rc<Self>,
        shard: u16,
        lane: Lane,
        slot: u16,
        done: impl FnOnce(&[u8]) + 'static,
    ) -> Upload {
        let (pipe, mut rest) = duplex(PIPE_BYTES);
        let engine = Rc::clone(self);
        let task = spawn_local(async move {
            let answered = engine.send_on(shard, lane, slot, &mut rest).await;
            done(&answered.unwrap_or_else(|failure| engine.failed(&failure)));
        });
        Upload {
            pipe: Some(pipe),
            task: task.abort_handle(),
        }
    }

    async fn send_on(
        &self,
        shard: u16,
        lane: Lane,
        slot: u16,
        rest: &mut DuplexStream,
    ) -> Result<Bytes, Failure> {
        let mut connection = self.waiters(shard).get_in(lane).await?;
        let reply = connection.exchange_as_it_comes(rest).await?;
        let settled = self.hold_for(&mut connection, lane, &[slot]).await;
        // The command itself has been executed, whatever becomes of the question.
        settled.map_err(maybe_sent)?;
        connection.give_back();
        Ok(reply)
    }
}

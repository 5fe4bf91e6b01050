//! What is refused while any shard is busy with a script: see [`crate::backend::Busy`].

use bytes::BytesMut;
use tokio::task::spawn_local;

use std::rc::Rc;

use super::dispatch::{Dispatcher, Flow};
use crate::backend::Isolation;
use crate::engine::Engine;
use crate::keyspace::Whole;
use crate::metrics::Family;
use crate::resp::{self, Command};

impl Dispatcher {
    /// Refuses a command that needs every shard, in the words of the one that is busy.
    pub(super) fn refuse_while_busy(&mut self) -> Option<Flow> {
        let refused = self.context.engine.busy()?;
        Some(self.reject_as(refused.kind(), refused.to_string()))
    }

    /// The same for one of these; INFO tells what can be told, and some tell of lockstep alone.
    pub(super) fn refuse_whole_while_busy(&mut self, whole: Whole) -> Option<Flow> {
        match whole {
            Whole::Info | Whole::LatencyHistogram => None,
            _ => self.refuse_while_busy(),
        }
    }

    /// FUNCTION STATS: a shard that is busy tells what runs there; if none is, all say the same.
    pub(super) fn function_stats(&mut self, command: &Command<'_>) -> Flow {
        if self.context.engine.busy().is_none() {
            return self.forward(self.any_shard(), command, Isolation::None, Family::Read);
        }
        let mut raw = BytesMut::new();
        command.encode(&mut raw);
        let (slot, session) = (self.session.open_slot(), Rc::clone(&self.session));
        let engine = Rc::clone(&self.context.engine);
        self.counted(Family::Local);
        spawn_local(async move { session.complete(slot, &stats(&engine, &raw).await) });
        Flow::Bar
    }
}

async fn stats(engine: &Rc<Engine>, raw: &[u8]) -> BytesMut {
    let mut reply = BytesMut::new();
    for (shard, answer) in (0..).zip(engine.ask_apart(raw).await) {
        let is_busy = engine.link(shard).dial.busy.told().is_some();
        match answer {
            Ok(said) if is_busy || reply.is_empty() => reply = BytesMut::from(&said[..]),
            Err(cause) if reply.is_empty() => {
                resp::build::error(&mut reply, format!("ERR {cause}"))
            }
            _ => {}
        }
    }
    reply
}

//! FLUSHALL and FLUSHDB: transactions over all shards, behind a lock on every slot.
//!
//! No transaction is under way on a shard when its keys go, so none is torn; and of what lockstep
//! keeps there, nothing goes. See `txn/prepare.lua` and `txn/flush.lua`.

use super::dispatch::{Dispatcher, Flow};
use super::refusal::fixed;
use super::session::Want;
use crate::engine::Answer;
use crate::metrics::{ErrorKind, Family};
use crate::resp::{Command, build};
use crate::txn::plan::Plan;
use crate::txn::script;

impl Dispatcher {
    /// Outside MULTI.
    pub(super) fn flush(&mut self, command: &Command<'_>) -> Flow {
        let Some(args) = flush_args(command) else {
            return self.reject(fixed::SYNTAX);
        };
        if !self.session.is_now(Want::Idle) {
            return Flow::Wait;
        }
        if let Some(flow) = self.refuse_while_busy() {
            return flow;
        }
        let mut plan = Plan::new(self.lane.protocol);
        plan.add_everywhere(&args, self.lane.db, &self.context.topology);
        self.counted(Family::Write);
        self.transact(plan, Answer::Bare)
    }

    /// Of a queue. With wrong arguments it fails when it runs, as in Redis.
    pub(super) fn add_flush(&self, plan: &mut Plan, command: &Command<'_>) {
        if let Some(args) = flush_args(command) {
            return plan.add_everywhere(&args, self.lane.db, &self.context.topology);
        }
        self.context.metrics.errors[ErrorKind::Command].increment(1);
        let mut out = bytes::BytesMut::new();
        build::error(&mut out, fixed::SYNTAX);
        plan.add_ready(out.freeze());
    }
}

/// The command in the form in which a redo holds it; None when Redis would not understand it.
fn flush_args<'a>(command: &Command<'a>) -> Option<Vec<&'a [u8]>> {
    let is_all = command.name().eq_ignore_ascii_case(script::FLUSHALL);
    let name = if is_all {
        script::FLUSHALL
    } else {
        script::FLUSHDB
    };
    let mode = command.arg(1).filter(|_| command.argc() == 2);
    match mode {
        None if command.argc() == 1 => Some(vec![name]),
        Some(mode)
            if [&b"ASYNC"[..], b"SYNC"]
                .iter()
                .any(|one| mode.eq_ignore_ascii_case(one)) =>
        {
            Some(vec![name, mode])
        }
        _ => None,
    }
}

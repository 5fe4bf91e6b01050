//! FLUSHALL, FLUSHDB and SWAPDB: transactions over all shards, behind a lock on every slot.
//!
//! No transaction is under way on a shard when its keys go, so none is torn; and of what lockstep
//! keeps there, nothing goes, nor does it leave database 0. See `txn/prepare.lua` and `txn/flush.lua`.

use bytes::{Bytes, BytesMut};

use super::dispatch::{Dispatcher, Flow};
use super::refusal::fixed;
use super::session::Want;
use crate::engine::Answer;
use crate::keyspace::Topology;
use crate::metrics::{ErrorKind, Family};
use crate::resp::{Command, build, number};
use crate::txn::plan::Plan;
use crate::txn::script;

impl Dispatcher {
    /// Outside MULTI.
    pub(super) fn flush(&mut self, command: &Command<'_>) -> Flow {
        let args = match self.args_everywhere(command) {
            Ok(args) => args,
            Err(why) => return self.reject(why),
        };
        if !self.session.is_now(Want::Idle) {
            return Flow::Wait;
        }
        if let Some(flow) = self.refuse_while_busy() {
            return flow;
        }
        let mut plan = Plan::new(self.lane.protocol);
        add(&mut plan, &args, self.lane.db, &self.context.topology);
        self.counted(Family::Write);
        self.transact(plan, Answer::Bare)
    }

    /// Of a queue. With wrong arguments it fails when it runs, as in Redis.
    pub(super) fn add_flush(&self, plan: &mut Plan, command: &Command<'_>) {
        let why = match self.args_everywhere(command) {
            Ok(args) => return add(plan, &args, self.lane.db, &self.context.topology),
            Err(why) => why,
        };
        self.context.metrics.errors[ErrorKind::Command].increment(1);
        let mut out = BytesMut::new();
        build::error(&mut out, why);
        plan.add_ready(out.freeze());
    }

    /// The command in the form in which a redo holds it.
    ///
    /// # Errors
    /// What Redis answers.
    fn args_everywhere(&self, command: &Command<'_>) -> Result<Vec<Bytes>, &'static str> {
        match command.name().eq_ignore_ascii_case(script::SWAPDB) {
            true => swap_args(command, self.context.server.databases),
            false => flush_args(command).ok_or(fixed::SYNTAX),
        }
    }
}

fn add(plan: &mut Plan, args: &[Bytes], db: u16, topology: &Topology) {
    let args: Vec<&[u8]> = args.iter().map(|arg| &arg[..]).collect();
    plan.add_everywhere(&args, db, topology);
}

fn swap_args(command: &Command<'_>, databases: u16) -> Result<Vec<Bytes>, &'static str> {
    let index = |at: usize| {
        let number = number::parse_i64(command.arg(at).unwrap_or_default())?;
        i32::try_from(number).ok()
    };
    let one = index(1).ok_or("ERR invalid first DB index")?;
    let other = index(2).ok_or("ERR invalid second DB index")?;
    let exists = |db: i32| (0..i32::from(databases)).contains(&db);
    if !exists(one) || !exists(other) {
        return Err("ERR DB index is out of range");
    }
    let name = Bytes::from_static(script::SWAPDB);
    Ok(vec![name, one.to_string().into(), other.to_string().into()])
}

/// None when Redis would not understand it.
fn flush_args(command: &Command<'_>) -> Option<Vec<Bytes>> {
    let is_all = command.name().eq_ignore_ascii_case(script::FLUSHALL);
    let name = Bytes::from_static(match is_all {
        true => script::FLUSHALL,
        false => script::FLUSHDB,
    });
    let is_mode = |word: &[u8]| {
        let modes = [&b"ASYNC"[..], b"SYNC"];
        modes.iter().any(|mode| word.eq_ignore_ascii_case(mode))
    };
    match command.arg(1).filter(|_| command.argc() == 2) {
        None if command.argc() == 1 => Some(vec![name]),
        Some(mode) if is_mode(mode) => Some(vec![name, Bytes::copy_from_slice(mode)]),
        _ => None,
    }
}

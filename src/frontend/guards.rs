//! Limits that an operator may set on what clients ask: commands that are denied, commands in a
//! second, and the memory that everything which waits may take.
//!
//! Where none is set, a command costs one look at a flag.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::Context;
use super::dispatch::{Dispatcher, Flow};
use crate::config::Config;
use crate::keyspace::{CommandSpec, CommandTable};
use crate::metrics::{ErrorKind, Limit, Metrics};
use crate::resp::Command;

/// Whether commands are to be looked at.
pub fn are_set(config: &Config) -> bool {
    !config.deny_commands.is_empty()
        || config.client_commands_per_second_max > 0
        || config.hotkeys_sample > 0
        || config.trace_sample > 0
}

/// Says which names of `deny-commands` no shard knows: they deny nothing.
pub fn warn_of_unknown(config: &Config, table: &CommandTable) {
    for name in &config.deny_commands {
        let is_known = match name.split_once('|') {
            None => table.get(name).is_some(),
            Some(_) => table.all().iter().any(|spec| spec.name == *name),
        };
        if !is_known {
            tracing::warn!(
                name,
                "deny-commands names a command that the shards do not know"
            );
        }
    }
}

/// What a client may still ask for, as time passes: a bucket of one second's commands.
#[derive(Debug, Default)]
pub struct Bucket {
    left: f64,
    at: Option<Instant>,
}

impl Bucket {
    /// Takes a command out, if there is one.
    fn take(&mut self, rate: usize, now: Instant) -> bool {
        let full = rate as f64;
        let passed = self.at.map(|at| now.saturating_duration_since(at));
        let more = passed.map_or(full, |passed| passed.as_secs_f64() * full);
        self.left = (self.left + more).min(full);
        self.at = Some(now);
        let may = self.left >= 1.0;
        self.left -= if may { 1.0 } else { 0.0 };
        may
    }
}

impl Dispatcher {
    /// Refuses a command that a limit does not let pass; None if it may.
    pub(super) fn guard(&mut self, spec: &CommandSpec, command: &Command<'_>) -> Option<Flow> {
        let context = std::rc::Rc::clone(&self.context);
        let config = context.config();
        if self.is_turn_to_trace(&config) {
            drop(config);
            return Some(self.sampled(command));
        }
        let container = spec.name.split('|').next().unwrap_or_default();
        let denied = &config.deny_commands;
        let limits = &context.metrics.limits_hit;
        if denied.contains(&spec.name) || denied.contains(container) {
            limits[Limit::DeniedCommand].increment(1);
            let name = spec.name.replace('|', " ").to_uppercase();
            let text =
                format!("ERR {name} is denied by the settings of this lockstep (deny-commands)");
            return Some(self.reject_or_abort(spec, ErrorKind::Denied, &text));
        }
        self.sample(config.hotkeys_sample, spec, command);
        let rate = config.client_commands_per_second_max;
        if rate == 0 || self.bucket.take(rate, self.session.active_at()) {
            return None;
        }
        limits[Limit::ClientRate].increment(1);
        let text = format!(
            "ERR too many commands: this lockstep takes {rate} in a second from a client (client-commands-per-second-max); try again later"
        );
        Some(self.reject_or_abort(spec, ErrorKind::Limit, &text))
    }
}

impl Dispatcher {
    /// Looks at the keys of one command in so many.
    fn sample(&mut self, one_in: usize, spec: &CommandSpec, command: &Command<'_>) {
        if one_in == 0 {
            return;
        }
        let seen = self.context.sampled.get().wrapping_add(1);
        self.context.sampled.set(seen);
        self.keys.clear();
        if seen.is_multiple_of(one_in) && spec.keys.find(command, &mut self.keys).is_ok() {
            let keys = self.keys.iter().filter_map(|&at| command.arg(at));
            keys.for_each(|key| self.context.hot.note(key));
        }
    }
}

/// Bytes that wait, over all workers: input, queues of MULTI, replies, and what is not yet written
/// to shards.
#[derive(Default)]
pub struct Buffered(AtomicUsize);

impl Buffered {
    /// All of it.
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether that is more than `memory-bytes-max`.
    pub fn is_over(&self, config: &Config) -> bool {
        config.memory_bytes_max > 0 && self.bytes() > config.memory_bytes_max
    }
}

/// One worker's part of it, and what it does when there is too much.
pub struct Memory {
    all: Arc<Buffered>,
    mine: Cell<usize>,
    metrics: Arc<Metrics>,
}

impl Memory {
    /// Nothing waits yet.
    pub fn new(all: &Arc<Buffered>, metrics: &Arc<Metrics>) -> Self {
        Self {
            all: Arc::clone(all),
            mine: Cell::new(0),
            metrics: Arc::clone(metrics),
        }
    }

    /// Counts anew, ten times a second. Over `memory-bytes-max` no client is read from until it is less.
    pub fn look(&self, context: &Context) {
        let sessions = context.sessions.borrow();
        let kept: usize = sessions.values().map(|session| session.kept()).sum();
        let now = kept + context.engine.unwritten();
        let before = self.mine.replace(now);
        // Wraps around when it is less, which is as good as subtracting.
        self.all
            .0
            .fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        self.metrics.buffered_bytes.set(self.all.bytes() as f64);
        let is_over = self.all.is_over(&context.config());
        let was_over = context.is_full.replace(is_over);
        if is_over && !was_over {
            self.metrics.limits_hit[Limit::Memory].increment(1);
            tracing::warn!(
                bytes = self.all.bytes(),
                "more than memory-bytes-max waits: clients are not read from"
            );
        } else if was_over && !is_over {
            sessions.values().for_each(|session| session.wake());
        }
    }

    /// Once a second: who still keeps it full, though nothing is read, leaves. It is the client
    /// that most waits for, at a worker that has its share of the whole or more.
    pub fn evict(&self, context: &Context, workers: usize) {
        let most = context.config().memory_bytes_max;
        if !context.is_full.get() || self.mine.get() < most / workers.max(1) {
            return;
        }
        let sessions = context.sessions.borrow();
        let largest = sessions.values().max_by_key(|session| session.kept());
        if let Some(session) = largest.filter(|session| session.kept() > 0) {
            self.metrics.limits_hit[Limit::MemoryEviction].increment(1);
            tracing::warn!(
                client = session.id,
                bytes = session.kept(),
                "a client is disconnected: more than memory-bytes-max waits, and most of it for this one"
            );
            session.evict();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_bucket_holds_one_second_and_fills_again() {
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        let mut taken = |ms| {
            let now = start + Duration::from_millis(ms);
            (0..100).take_while(|_| bucket.take(10, now)).count()
        };
        assert_eq!((taken(0), taken(0), taken(100), taken(550)), (10, 0, 1, 4));
        assert_eq!(taken(60_000), 10);
    }
}

//! MULTI … EXEC.
//!
//! Commands are queued here, not on a shard: where they belong is known only at EXEC. All on
//! one shard: the queue is forwarded as it stands, between a MULTI and an EXEC, in one write.
//! Otherwise it becomes a [`Plan`].

use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use super::dispatch::{Dispatcher, Flow};
use super::gather::scanned_before;
use super::refusal::{self, fixed};
use super::session::Want;
use crate::backend::How;
use crate::engine::{Answer, errors};
use crate::failpoint;
use crate::keyspace::{Channels, CommandSpec, Flag, Library, Lookup, Own, Treatment};
use crate::metrics::{ErrorKind, Family, Label, Limit, Scope};
use crate::resp::{Command, CommandScanner, Kind, Lane, Scan, build, is_error, kind};
use crate::txn::plan::{Home, Misplaced, Plan};
use crate::txn::queue::{Queue, Target};
use crate::txn::script;

const OF_LIBRARIES: &str = "concerns every shard, and cannot be part of a transaction";
const OF_KEYS: &str = "looks at every shard at its own moment, so it cannot be in a transaction";

impl Dispatcher {
    pub(super) fn begin(&mut self) -> Flow {
        self.multi = Some(Queue::default());
        self.fixes.clear();
        self.queued_under = self.badge.generation();
        self.session.acknowledge("OK");
        Flow::Next
    }

    /// A command between MULTI and EXEC whose number of arguments is right.
    pub(super) fn in_multi(&mut self, spec: &CommandSpec, command: &Command<'_>) -> Flow {
        if let Some(queue) = self.multi.as_mut().filter(|_| !spec.is(Flag::ReadOnly)) {
            queue.mark_writing(spec.treatment);
        }
        if let Some(queue) = self
            .multi
            .as_mut()
            .filter(|_| spec.treatment == Treatment::Script)
        {
            queue.mark_script();
        }
        let target = match spec.treatment {
            Treatment::Own(own @ (Own::Exec | Own::Discard)) => {
                self.session.times(spec.id);
                return match own {
                    Own::Exec => self.exec(),
                    _ => self.discard(),
                };
            }
            Treatment::Own(Own::Multi) => {
                return self.complain(ErrorKind::Command, fixed::NESTED_MULTI);
            }
            Treatment::Own(Own::Watch) => {
                return self.complain(ErrorKind::Command, fixed::WATCH_IN_MULTI);
            }
            Treatment::Own(Own::Quit) => return self.quit(),
            Treatment::Own(Own::Reset) => return self.reset(),
            // Redis would go on with half of EXEC's reply.
            Treatment::Own(Own::Client) if spec.name == "client|reply" => {
                return self.reject(refusal::refused(spec, "is not supported inside MULTI"));
            }
            _ if spec.is(Flag::NoMulti) => return self.reject(fixed::NO_MULTI),
            Treatment::Refused(reason) => return self.reject(refusal::refused(spec, reason)),
            Treatment::Whole(whole) if whole.is_of_keys() => {
                return self.reject(refusal::refused(spec, OF_KEYS));
            }
            Treatment::Channels(what) => match self.channels_in_multi(what, spec, command) {
                Ok(target) => target,
                Err(why) => return self.reject(why),
            },
            Treatment::Own(Own::Ping | Own::Echo)
            | Treatment::Anywhere
            | Treatment::Library(Library::Stats) => Target::Whole(Home::Nowhere),
            Treatment::Flush => Target::Everywhere,
            Treatment::Own(_) | Treatment::Whole(_) => Target::Own,
            Treatment::Library(_) => return self.reject(refusal::refused(spec, OF_LIBRARIES)),
            Treatment::Script => return self.queue_script(spec, command),
            Treatment::Route
            | Treatment::Cross(_)
            | Treatment::Block { .. }
            | Treatment::Split(_) => match self.target(spec, command) {
                Ok(target) => target,
                Err(why) => return self.reject_misplaced(spec, why),
            },
        };
        self.enqueue(command, target)
    }

    pub(super) fn target(
        &mut self,
        spec: &CommandSpec,
        command: &Command<'_>,
    ) -> Result<Target, Misplaced> {
        let is_split = matches!(spec.treatment, Treatment::Split(_));
        match self.home_of(spec, command) {
            Ok(Home::Nowhere) if self.is_homeless_script(spec, command) => {
                Err(Misplaced::Undeclared)
            }
            Ok(home) => Ok(Target::Whole(home)),
            // MSET with a key too many fails when it runs, without touching anything.
            Err(Misplaced::CrossSlot) if is_split && !fits_split(spec, command) => {
                Ok(Target::Whole(Home::Nowhere))
            }
            Err(Misplaced::CrossSlot) if is_split => Ok(Target::Split),
            Err(why) => Err(why),
        }
    }

    /// Bytes of the commands queued since MULTI.
    pub fn queued_bytes(&self) -> usize {
        self.multi.as_ref().map_or(0, |queue| queue.raw().len())
    }

    pub(super) fn enqueue(&mut self, command: &Command<'_>, target: Target) -> Flow {
        let bytes_max = self.context.config().client_input_bytes_max;
        let Some(queue) = &mut self.multi else {
            return Flow::Next;
        };
        if queue.raw().len() + command.raw().len() > bytes_max {
            self.context.metrics.limits_hit[Limit::ClientInput].increment(1);
            return self.reject_as(ErrorKind::Limit, fixed::QUEUE_TOO_BIG);
        }
        let shard = target.shard();
        if let Some(refused) =
            shard.and_then(|shard| self.links[usize::from(shard)].dial.busy.refusal())
        {
            return self.reject_as(refused.kind(), refused.to_string());
        }
        if !queue.is_broken() {
            queue.push(command, target);
        }
        self.session.acknowledge("QUEUED");
        self.counted(Family::Transaction)
    }

    /// An error that does not spoil the transaction.
    fn complain(&mut self, kind: ErrorKind, text: &str) -> Flow {
        self.context.metrics.errors[kind].increment(1);
        self.session.reply(|out| build::error(out, text));
        self.counted(Family::Refused)
    }

    fn discard(&mut self) -> Flow {
        self.multi = None;
        self.unwatch();
        self.session.reply(|out| build::status(out, "OK"));
        self.counted(Family::Transaction)
    }

    fn exec(&mut self) -> Flow {
        let Some(queue) = self.multi.take() else {
            return Flow::Next;
        };
        if queue.is_broken() {
            self.unwatch();
            let text =
                self.context.engine.busy().map(|refused| {
                    format!("EXECABORT Transaction discarded because of: {refused}")
                });
            let text = text.as_deref().unwrap_or(fixed::EXECABORT);
            return self.complain(ErrorKind::Aborted, text);
        }
        if self.watching.is_some() && !self.session.is_now(Want::Idle) {
            self.multi = Some(queue);
            return Flow::Wait;
        }
        if let Some(watching) = self.watching.take() {
            return self.exec_watching(&watching, &queue);
        }
        if queue.is_empty() {
            self.session.reply(|out| build::array_header(out, 0));
            return self.counted(Family::Transaction);
        }
        let strict = self.context.engine.is_strict();
        let native = match queue.home() {
            Some(Home::Nowhere) => Some((self.any_shard(), None)),
            Some(Home::Slot(place)) if !self.context.engine.is_fenced() || !queue.may_write() => {
                Some((place.shard, Some(place.slot)))
            }
            Some(Home::Shard(shard)) if !strict => Some((shard, None)),
            _ => None,
        };
        let native = native.filter(|_| !self.must_look_again());
        // Behind a write that waits, or a split read that may have to be repeated; or on several
        // shards.
        let is_behind_writes = self.must_wait_for_fence();
        let must_not_overtake = is_behind_writes || native.is_none() || self.is_reading_split;
        if must_not_overtake && !self.session.is_now(Want::Idle) {
            self.multi = Some(queue);
            return Flow::Wait;
        }
        if let Some((shard, slot)) = native {
            return self.exec_native(shard, slot, &queue);
        }
        self.counted(Family::Transaction);
        let (plan, lane) = self.plan(&queue, None);
        self.transact_exec(plan, lane)
    }

    /// The session goes on in this lane when the queue has run.
    fn transact_exec(&mut self, plan: Plan, lane: Lane) -> Flow {
        if lane == self.lane && self.inquiries.is_empty() {
            return self.transact(plan, Answer::Exec);
        }
        let done = self.done_entering(lane);
        let engine = Rc::clone(&self.context.engine);
        self.run_filled(plan, move |plan| engine.transact(plan, Answer::Exec, done))
    }

    /// Opens a slot for the reply to EXEC, behind which the session goes on in this lane if the
    /// queue has run.
    pub(super) fn done_entering(&mut self, lane: Lane) -> impl FnOnce(&[u8]) + 'static {
        let slot = self.session.open_slot();
        let (session, sink) = (Rc::clone(&self.session), self.exec_sink());
        let is_other = lane != self.lane;
        move |reply| {
            if is_other && kind(reply) == Kind::Array {
                session.enter_lane(lane);
            }
            sink.deliver(slot, reply);
        }
    }

    fn exec_native(&mut self, shard: u16, of_slot: Option<u16>, queue: &Queue) -> Flow {
        failpoint::at("single-before-exec");
        let slot = self.session.open_exec_slot();
        let sink = self.exec_sink();
        let how = How {
            swallow: 1 + queue.len() as u32,
            isolation: self.context.engine.hold(of_slot),
            is_script: queue.has_script(),
        };
        let link = Rc::clone(self.link(shard));
        if let Some(trace) = &self.trace {
            trace.goes_to(shard, link.address());
            trace.note("lockstep.scope", Scope::Single.text());
        }
        if let Err(failure) =
            link.send(&[script::MULTI, queue.raw(), script::EXEC], how, sink, slot)
        {
            self.session.drop_slot();
            self.context.metrics.errors[errors::failed_kind(&failure)].increment(1);
            self.context
                .tally
                .exec_ended(errors::failed_outcome(&failure));
            self.session
                .reply(|out| out.extend_from_slice(&errors::failed(&failure)));
            return self.counted(Family::Refused);
        }
        self.counted(Family::Transaction)
    }

    /// Scans the queue again and tells each command where it goes; also the lane in which the
    /// session goes on if it runs. `at_hand`: a shard that takes part anyway.
    pub(super) fn plan(&mut self, queue: &Queue, at_hand: Option<u16>) -> (Plan, Lane) {
        let context = Rc::clone(&self.context);
        let before = self.lane;
        let mut plan = Plan::new(before.protocol);
        // Where what has no keys goes: to a participant that has some, so that every branch has.
        let homes = queue.items().filter_map(|(_, target)| target.shard());
        let anywhere = homes.into_iter().next().or(at_hand);
        let anywhere = anywhere.unwrap_or_else(|| self.any_shard());
        let mut scanner = CommandScanner::new(scanned_before());
        for (raw, target) in queue.items() {
            // What was queued was scanned and looked up before; it is as it was.
            let Ok(Scan::Command { .. }) = scanner.scan(raw) else {
                continue;
            };
            let command = scanner.command(raw);
            let Lookup::Known(spec) = context.table.lookup(&command) else {
                // No server knows LOCKSTEP TRACE, which has done its work.
                plan.add_ready(Bytes::from_static(b"+OK\r\n"));
                continue;
            };
            if let Some(why) = self.denied_at_exec(spec, &command) {
                let mut out = BytesMut::new();
                build::error(&mut out, why);
                plan.add_ready(out.freeze());
                continue;
            }
            self.add(&mut plan, spec, &command, target, anywhere);
            plan.speak(self.lane.protocol);
        }
        (plan, std::mem::replace(&mut self.lane, before))
    }

    fn add(
        &mut self,
        plan: &mut Plan,
        spec: &CommandSpec,
        command: &Command<'_>,
        target: Target,
        anywhere: u16,
    ) {
        match (target, spec.treatment) {
            (Target::Split, Treatment::Split(split)) => {
                plan.add_split(split, self.lane.db, &self.context.topology, command)
            }
            (Target::Everywhere, _) => self.add_flush(plan, command),
            (Target::Own, Treatment::Whole(whole)) => self.add_whole(plan, whole, command),
            (Target::Own, Treatment::Own(own)) => {
                let mut out = BytesMut::new();
                self.answer(own, spec, command, &mut out);
                if is_error(&out) {
                    self.context.metrics.errors[ErrorKind::Command].increment(1);
                }
                plan.add_ready(out.freeze());
            }
            _ => {
                let mut keys = Vec::new();
                // Hidden keys are possible on a single shard only, where nothing is isolated;
                // malformed arguments name none.
                if spec.keys.find(command, &mut keys).is_err() {
                    keys.clear();
                }
                if matches!(spec.treatment, Treatment::Channels(Channels::Publish(_))) {
                    // So that no branch is without a slot to lock.
                    keys.push(1);
                }
                let shard = target.shard().unwrap_or(anywhere);
                plan.add_whole(self.place(shard), command, &keys);
            }
        }
    }
}

fn fits_split(spec: &CommandSpec, command: &Command<'_>) -> bool {
    match spec.treatment {
        Treatment::Split(split) => (command.argc() - 1).is_multiple_of(split.step()),
        _ => false,
    }
}

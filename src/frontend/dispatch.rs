//! One command → where it goes.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::task::AbortHandle;

use super::Context;
use super::access::Badge;
use super::channels::Fixes;
use super::gather::{Gather, Pieces};
use super::guards::Bucket;
use super::own::Identity;
use super::patience;
use super::refusal;
use super::roster::Entry;
use super::session::{Session, Want};
use super::subscriber::Subscriber;
use super::waiting::can_be_taken_apart;
use super::whole::Queued;
use crate::backend::{How, Isolation, Link, ReplySink};
use crate::engine::Answer;
use crate::engine::blocking::Berth;
use crate::engine::fence::Writes;
use crate::engine::lanes::Links;
use crate::engine::patient::Patient;
use crate::engine::watching::Watching;
use crate::keyspace::{
    CommandSpec, Flag, KeyError, KeyRule, Lookup, Own, Place, Split, Treatment, key_slot,
};
use crate::metrics::{ErrorKind, Family, Label};
use crate::resp::{Command, Lane, build};
use crate::traces::Trace;
use crate::txn::names;
use crate::txn::plan::{self, Home, Misplaced, Plan};
use crate::txn::queue::Queue;
use crate::txn::types::Part;

/// Commands by family, since they were last added to the metrics.
type Counts = [u64; Family::ALL.len()];

/// What the client's task does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// The command was dealt with; on to the next.
    Next,
    /// The same, but nothing may overtake it: the next waits until every reply is there.
    Bar,
    /// The command was not dealt with, since it must not overtake others: show it again when
    /// every reply is there.
    Wait,
}

/// The state of a connection, as far as commands can change it.
pub struct Dispatcher {
    pub(super) context: Rc<Context>,
    pub(super) session: Rc<Session>,
    /// Some between MULTI and EXEC.
    pub(super) multi: Option<Queue>,
    pub(super) identity: Identity,
    /// Whether there are users or passwords, so that commands are looked at.
    pub(super) is_guarded: bool,
    /// Who the client is.
    pub(super) badge: Badge,
    pub(super) bucket: Bucket,
    /// The generation of the users when the last MULTI began.
    pub(super) queued_under: u64,
    /// Argument numbers of keys; kept for its memory.
    pub(super) keys: Vec<usize>,
    counts: Counts,
    /// What the client has set its connection to, and the links of that lane.
    pub(super) lane: Lane,
    pub(super) links: Links,
    is_closing: bool,
    /// What is being dealt with is a script.
    is_running_script: bool,
    /// Split reads may be under way.
    pub(super) is_reading_split: bool,
    /// What is not answered may be writes that the fence keeps waiting.
    pub(super) is_fencing: bool,
    pub(super) writes: Rc<Writes>,
    /// A command that waits for data.
    pub(super) waiting: Option<AbortHandle>,
    /// How others end that.
    pub(super) berth: Option<Arc<Berth>>,
    pub(super) entry: Arc<Entry>,
    /// The command that is shown waits for the end of a pause.
    pub(super) is_held: Rc<Cell<bool>>,
    /// It turned out to be none that a pause holds.
    pub(super) is_cleared: Rc<Cell<bool>>,
    /// The name of the last command; kept for its memory.
    pub(super) last: String,
    /// Of the queue that is being planned.
    pub(super) inquiries: Vec<Queued>,
    /// What the client watches; some since its last WATCH that nothing has ended.
    pub(super) watching: Option<Rc<Watching>>,
    pub(super) subscriber: Rc<Subscriber>,
    /// What the next command, or the transaction since MULTI, is part of.
    pub(super) trace: Option<Rc<Trace>>,
    /// Counts of subscribers in the reply to EXEC, to be put right.
    pub(super) fixes: Fixes,
}

impl Drop for Dispatcher {
    /// The client is gone: nobody waits any more, nor listens.
    fn drop(&mut self) {
        if let Some(wait) = &self.waiting {
            wait.abort();
        }
        self.unwatch();
        self.subscriber.leave_all(&self.context.hub);
    }
}

impl Dispatcher {
    /// For a new connection.
    pub fn new(context: Rc<Context>, session: Rc<Session>, entry: Arc<Entry>) -> Self {
        let subscriber = Subscriber::new(&session, &context.config());
        Self {
            lane: Lane::FIRST,
            links: context.engine.first_links(),
            subscriber,
            fixes: Fixes::new(),
            is_guarded: context.gate.is_guarded(),
            badge: Badge::first(&context.gate),
            bucket: Bucket::default(),
            queued_under: 0,
            writes: Writes::new(session.id),
            is_fencing: false,
            context,
            session,
            multi: None,
            identity: Identity::default(),
            keys: Vec::new(),
            counts: Default::default(),
            is_closing: false,
            is_running_script: false,
            is_reading_split: false,
            waiting: None,
            berth: None,
            entry,
            is_held: Rc::default(),
            is_cleared: Rc::default(),
            last: String::new(),
            watching: None,
            inquiries: Vec::new(),
            trace: None,
        }
    }

    /// The client will send nothing that matters any more; what it is owed is still sent.
    pub fn close(&mut self) {
        self.is_closing = true;
    }

    /// Whether the connection ends when everything owed was sent.
    pub fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// Whether the process drains and this client is in the middle of nothing. Who listens is
    /// not: it will listen elsewhere.
    pub fn is_to_drain(&self) -> bool {
        self.context.is_draining.get() && self.multi.is_none() && self.watching.is_none()
    }

    /// Adds what was counted since the last time to the worker's metrics.
    pub fn count(&mut self) {
        for (count, family) in self.counts.iter_mut().zip(Family::ALL) {
            if *count > 0 {
                self.context.metrics.commands[*family].increment(std::mem::take(count));
            }
        }
    }

    /// Deals with one command.
    pub fn handle(&mut self, command: &Command<'_>) -> Flow {
        if self.session.is_special() {
            return self.handle_specially(command);
        }
        self.dispatch(command)
    }

    pub(super) fn dispatch(&mut self, command: &Command<'_>) -> Flow {
        let context = Rc::clone(&self.context);
        let spec = match context.table.lookup(command) {
            Lookup::Known(spec) => spec,
            Lookup::Unknown if Self::is_lockstep(command) => {
                let refused = self.is_guarded.then(|| self.refuse_lockstep(command));
                return refused.flatten().unwrap_or_else(|| self.lockstep(command));
            }
            Lookup::Unknown => return self.reject(refusal::unknown_command(command)),
            Lookup::UnknownSubcommand(spec) => return self.unknown_subcommand(spec, command),
        };
        if !spec.arity_fits(command.argc()) {
            return self.reject_arity(spec);
        }
        self.last.clone_from(&spec.name);
        if self.is_guarded
            && let Some(flow) = self.refuse(spec, command)
        {
            return flow;
        }
        if self.context.is_guarding.get()
            && let Some(flow) = self.guard(spec, command)
        {
            return flow;
        }
        if self.must_pause(spec, command) {
            return Flow::Wait;
        }
        if let Some(why) = self.out_of_context(spec) {
            return self.reject(why);
        }
        if self.multi.is_some() {
            return self.in_multi(spec, command);
        }
        if self.must_wait_behind_writes(spec) {
            return Flow::Wait;
        }
        self.session.times(spec.id);
        match spec.treatment {
            Treatment::Route | Treatment::Cross(_) => self.route(spec, command),
            Treatment::Script => {
                self.is_running_script = true;
                let flow = self.script(spec, command);
                self.is_running_script = false;
                flow
            }
            Treatment::Library(what) => self.library(what, command),
            Treatment::Split(split) => self.split(spec, split, command),
            Treatment::Block { always } if always || patience::waits(command) => {
                self.block(spec, command)
            }
            Treatment::Block { .. } => self.route(spec, command),
            Treatment::Anywhere => {
                self.forward(self.any_shard(), command, Isolation::None, Family::Read)
            }
            Treatment::Flush => self.flush(command),
            Treatment::Whole(whole) => self.whole(whole, command),
            Treatment::Channels(what) => self.channels(what, spec, command),
            Treatment::Own(own) => self.own(own, spec, command),
            Treatment::Refused(reason) => self.reject(refusal::refused(spec, reason)),
        }
    }

    /// An error in answer to a command; inside MULTI it spoils the transaction, as in Redis.
    pub(super) fn reject(&mut self, text: impl AsRef<[u8]>) -> Flow {
        self.reject_as(ErrorKind::Command, text)
    }

    pub(super) fn reject_misplaced(&mut self, spec: &CommandSpec, why: Misplaced) -> Flow {
        self.reject_as(refusal::misplaced_kind(why), refusal::misplaced(spec, why))
    }

    /// The same for what is not the command's fault.
    pub(super) fn reject_as(&mut self, kind: ErrorKind, text: impl AsRef<[u8]>) -> Flow {
        self.counts[Family::Refused as usize] += 1;
        self.context.metrics.errors[kind].increment(1);
        if let Some(trace) = &self.trace {
            trace.fails(kind.text());
        }
        if let Some(queue) = &mut self.multi {
            queue.mark_broken();
        }
        self.session.times_nothing();
        self.session.reply(|out| build::error(out, text));
        Flow::Next
    }

    fn reject_arity(&mut self, spec: &CommandSpec) -> Flow {
        self.reject_or_abort(spec, ErrorKind::Command, &refusal::arity(spec))
    }

    fn unknown_subcommand(&mut self, container: &CommandSpec, command: &Command<'_>) -> Flow {
        if container.treatment == Treatment::Own(Own::Client)
            && self.multi.is_none()
            && Identity::knows(command)
        {
            return self.own(Own::Client, container, command);
        }
        self.reject(refusal::unknown_subcommand(container, command))
    }

    pub(super) fn counted(&mut self, family: Family) -> Flow {
        self.counts[family as usize] += 1;
        Flow::Next
    }

    /// The shared connection to a shard.
    pub(super) fn link(&self, shard: u16) -> &Rc<Link> {
        &self.links[usize::from(shard)]
    }

    /// Where a command for this shard runs.
    pub(super) fn place(&self, shard: u16) -> Part {
        Part {
            shard,
            db: self.lane.db,
        }
    }

    /// Where all keys of a command live; nowhere also when its arguments are such that the
    /// server will refuse it.
    pub(super) fn home_of(
        &mut self,
        spec: &CommandSpec,
        command: &Command<'_>,
    ) -> Result<Home, Misplaced> {
        let topology = &self.context.topology;
        if let KeyRule::One(at) = spec.keys {
            let key = command.arg(at).unwrap_or_default();
            return if names::is_reserved(key) {
                Err(Misplaced::Reserved)
            } else {
                Ok(Home::Slot(topology.place_of(key)))
            };
        }
        self.keys.clear();
        match spec.keys.find(command, &mut self.keys) {
            Ok(()) => plan::home_of_keys(topology, command, &self.keys),
            Err(KeyError::Malformed) => Ok(Home::Nowhere),
            Err(KeyError::Hidden) if topology.shards() == 1 => Ok(Home::Shard(0)),
            Err(KeyError::Hidden) => Err(Misplaced::Hidden),
        }
    }

    pub(super) fn route(&mut self, spec: &CommandSpec, command: &Command<'_>) -> Flow {
        match self.home_of(spec, command) {
            Ok(Home::Slot(place)) => self.forward_to(place, spec, command),
            Ok(Home::Shard(shard)) => self.over_slots(shard, spec, command),
            Ok(Home::Nowhere) => self.keyless(spec, command),
            Err(Misplaced::CrossSlot) => self.cross(spec, command),
            Err(why) => self.reject_misplaced(spec, why),
        }
    }

    /// A command with keys in several slots of one shard.
    fn over_slots(&mut self, shard: u16, spec: &CommandSpec, command: &Command<'_>) -> Flow {
        if !self.context.engine.is_strict() {
            return self.forward(shard, command, Isolation::None, family(spec));
        }
        if spec.is(Flag::ReadOnly) {
            let pieces = Pieces::Whole(shard);
            return self.read_by_epoch(pieces, command);
        }
        if !self.session.is_now(Want::Idle) {
            return Flow::Wait;
        }
        let mut plan = Plan::new(self.lane.protocol);
        plan.add_whole(self.place(shard), command, &self.keys);
        self.counted(family(spec));
        self.transact(plan, Answer::Bare)
    }

    fn forward_to(&mut self, place: Place, spec: &CommandSpec, command: &Command<'_>) -> Flow {
        if self.is_fenced(spec) {
            return self.write_fenced(place, spec, command);
        }
        let isolation = self.context.engine.hold(Some(place.slot));
        self.forward(place.shard, command, isolation, family(spec))
    }

    /// A script without declared keys: what it touches cannot be told.
    fn keyless(&mut self, spec: &CommandSpec, command: &Command<'_>) -> Flow {
        if self.is_homeless_script(spec, command) {
            return self.reject_misplaced(spec, Misplaced::Undeclared);
        }
        self.forward(self.any_shard(), command, Isolation::None, family(spec))
    }

    /// Whether this is a script that declares no keys, and so could touch any, on several shards.
    pub(super) fn is_homeless_script(&mut self, spec: &CommandSpec, command: &Command<'_>) -> bool {
        self.keys.clear();
        spec.treatment == Treatment::Script
            && self.context.topology.shards() > 1
            && spec.keys.find(command, &mut self.keys).is_ok()
            && self.keys.is_empty()
    }

    /// A command that may wait for data: on a connection of its own. Whatever the client sends
    /// behind it waits as well.
    fn block(&mut self, spec: &CommandSpec, command: &Command<'_>) -> Flow {
        let (shard, slots) = match self.home_of(spec, command) {
            Ok(Home::Slot(place)) if self.is_fenced(spec) => {
                return self.block_fenced(place, spec, command);
            }
            Ok(Home::Slot(Place { shard, slot })) => (shard, vec![slot]),
            Ok(Home::Shard(shard)) if self.must_be_guarded(spec) => {
                return self.block_guarded(shard, spec, command);
            }
            Ok(Home::Shard(_)) if self.is_read_as_one(spec, command) => {
                return self.block_over(spec, command);
            }
            Ok(Home::Shard(shard)) => (shard, self.slots(command)),
            Ok(Home::Nowhere) => return self.keyless(spec, command),
            Err(Misplaced::CrossSlot) => return self.block_over(spec, command),
            Err(why) => return self.reject_misplaced(spec, why),
        };
        if !self.session.is_now(Want::Idle) {
            return Flow::Wait;
        }
        let mut request = BytesMut::new();
        command.encode(&mut request);
        let slot = self.session.open_slot();
        let session = Rc::clone(&self.session);
        let engine = &self.context.engine;
        let berth = Arc::clone(self.berth.get_or_insert_default());
        let wait = engine.wait_for(shard, self.lane, slots, request, &berth, move |reply| {
            session.complete(slot, reply)
        });
        self.waiting = Some(wait);
        self.counted(family(spec));
        Flow::Bar
    }

    /// Whether a command over several slots takes effect only while none of them is settling.
    fn must_be_guarded(&self, spec: &CommandSpec) -> bool {
        self.context.engine.is_strict() && !spec.is(Flag::ReadOnly)
    }

    /// Whether what waits for streams in several slots must see them at one instant.
    fn is_read_as_one(&self, spec: &CommandSpec, command: &Command<'_>) -> bool {
        self.context.engine.is_strict() && can_be_taken_apart(spec, command)
    }

    /// The same over several slots, for what changes data.
    pub(super) fn block_guarded(
        &mut self,
        shard: u16,
        spec: &CommandSpec,
        command: &Command<'_>,
    ) -> Flow {
        if !self.session.is_now(Want::Idle) {
            return Flow::Wait;
        }
        let mut raw = BytesMut::new();
        command.encode(&mut raw);
        let patient = Patient {
            place: Part {
                shard,
                db: self.lane.db,
            },
            protocol: self.lane.protocol,
            raw: raw.freeze(),
            keys: self.key_numbers(spec),
            limit: patience::limit(&spec.name, command),
        };
        let slot = self.session.open_slot();
        let session = Rc::clone(&self.session);
        let taken = self.berth.get_or_insert_default().take();
        let engine = &self.context.engine;
        let done = move |reply: &[u8]| session.complete(slot, reply);
        let wait = engine.wait_guarded(patient, taken, done);
        self.waiting = Some(wait);
        self.counted(family(spec));
        Flow::Bar
    }

    /// The slots of the keys found last.
    fn slots(&self, command: &Command<'_>) -> Vec<u16> {
        let keys = self.keys.iter().filter_map(|&at| command.arg(at));
        keys.map(key_slot).collect()
    }

    /// Whether the client waits for data, for as long as it takes: its end must be noticed.
    pub fn is_waiting(&self) -> bool {
        self.waiting
            .as_ref()
            .is_some_and(|wait| !wait.is_finished())
    }

    /// A split read may have to be repeated, and must not see what came behind it.
    pub(super) fn must_wait_for_split_read(&mut self) -> bool {
        let must_wait = self.is_reading_split && !self.session.is_now(Want::Idle);
        self.is_reading_split &= must_wait;
        must_wait
    }

    /// Sends the command as it is; the reply goes into the next slot.
    pub(super) fn forward(
        &mut self,
        shard: u16,
        command: &Command<'_>,
        isolation: Isolation,
        family: Family,
    ) -> Flow {
        if self.must_wait_for_fence() || (family != Family::Read && self.must_wait_for_split_read())
        {
            return Flow::Wait;
        }
        if command.is_canonical() {
            return self.send(shard, &[command.raw()], isolation, family);
        }
        let mut raw = BytesMut::new();
        command.encode(&mut raw);
        self.send(shard, &[&raw], isolation, family)
    }

    fn send(
        &mut self,
        shard: u16,
        request: &[&[u8]],
        isolation: Isolation,
        family: Family,
    ) -> Flow {
        let slot = self.session.open_slot();
        let sink = self.taker(request.first().copied().unwrap_or_default());
        let link = self.link(shard);
        if let Some(trace) = &self.trace {
            trace.goes_to(shard, link.address());
        }
        let how = How::isolated(isolation).of_script(self.is_running_script);
        if let Err(failure) = link.send(request, how, sink, slot) {
            self.session.drop_slot();
            return self.reject_as(failure.kind(), failure.to_string());
        }
        self.counted(family)
    }

    fn split(&mut self, spec: &CommandSpec, split: Split, command: &Command<'_>) -> Flow {
        match self.home_of(spec, command) {
            Ok(Home::Slot(place)) => return self.forward_to(place, spec, command),
            Ok(Home::Shard(shard)) => return self.over_slots(shard, spec, command),
            // Wrong arguments (MSET with a key too many): the server says it best.
            Ok(Home::Nowhere) => {
                return self.forward(self.any_shard(), command, Isolation::None, family(spec));
            }
            Err(Misplaced::CrossSlot) => {}
            Err(why) => return self.reject_misplaced(spec, why),
        }
        if !(command.argc() - 1).is_multiple_of(split.step()) {
            return self.reject(refusal::arity(spec));
        }
        if split.is_write() {
            return self.split_write(split, command);
        }
        let pieces = plan::pieces(split, &self.context.topology, command);
        self.read_by_epoch(Pieces::Split(split, pieces), command)
    }

    /// A read over several slots, perhaps on several shards: one request each, checked by the
    /// shards' epochs. See [`Gather`].
    fn read_by_epoch(&mut self, pieces: Pieces, command: &Command<'_>) -> Flow {
        if self.must_wait_for_fence() {
            return Flow::Wait;
        }
        let slot = self.session.open_slot();
        let (session, context) = (Rc::clone(&self.session), Rc::clone(&self.context));
        let on = (self.lane, Rc::clone(&self.links));
        Gather::start(context, on, session, slot, pieces, command, &self.keys);
        self.is_reading_split = true;
        self.counted(Family::Split)
    }

    fn split_write(&mut self, split: Split, command: &Command<'_>) -> Flow {
        if !self.session.is_now(Want::Idle) {
            return Flow::Wait;
        }
        let mut plan = Plan::new(self.lane.protocol);
        plan.add_split(split, self.lane.db, &self.context.topology, command);
        self.counted(Family::Split);
        self.transact(plan, Answer::Bare)
    }

    /// Hands a plan over several shards to the engine. Nothing else of this client runs until
    /// it is answered, so that what the client pipelined keeps its order on every shard.
    pub(super) fn transact(&mut self, plan: Plan, answer: Answer) -> Flow {
        let slot = self.session.open_slot();
        let to: Rc<dyn ReplySink> = match answer {
            Answer::Exec => self.exec_sink(),
            _ => Rc::<Session>::clone(&self.session),
        };
        let sink = self.taker_of_transaction(to);
        self.context
            .engine
            .transact(plan, answer, move |reply| sink.deliver(slot, reply));
        Flow::Bar
    }
}

/// How a command that is forwarded counts.
pub(super) fn family(spec: &CommandSpec) -> Family {
    // Scripts say neither: they may write. PFCOUNT says that it reads, but keeps in the key what it
    // has counted: a split read that is repeated behind it would show that.
    if spec.is(Flag::ReadOnly) && spec.name != "pfcount" {
        Family::Read
    } else {
        Family::Write
    }
}

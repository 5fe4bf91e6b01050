//! What the tries of one crossing have in common: reading, and committing.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tokio::task::spawn_local;

use super::values::Fetched;
use super::{Crossing, Spot};
use crate::backend::{Failure, How};
use crate::engine::conditional::Guard;
use crate::engine::inbox::{Inbox, Reply};
use crate::engine::lanes::Links;
use crate::engine::locked::Job;
use crate::engine::patient::with_command;
use crate::engine::seat::Work;
use crate::engine::turnstile::Ticket;
use crate::engine::{Answer, Engine};
use crate::resp::{self, Protocol, build};
use crate::traces::Trace;
use crate::txn::Part;
use crate::txn::plan::Plan;

/// What Redis says of a key that has the wrong type.
pub(super) const WRONGTYPE: &[u8] =
    b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";

/// One crossing, from its turn to its reply.
pub(super) struct Trip<'a> {
    pub(super) engine: &'a Rc<Engine>,
    pub(super) crossing: &'a Crossing,
    ticket: Rc<Ticket>,
    began: Instant,
    trace: Option<Rc<Trace>>,
}

/// How a transaction ended.
pub(super) enum Ended {
    /// It is committed; the replies of its commands, in the order in which they were added.
    Done(Vec<Bytes>),
    /// What was read is not so any more; nothing was applied.
    Broken,
    /// With this reply.
    Failed(Bytes),
}

impl Engine {
    /// The reply to a command that reads this key; it comes when nothing of its slot is settling.
    pub(super) async fn read_held(
        &self,
        links: &Links,
        at: &Spot,
        request: &BytesMut,
    ) -> Result<Bytes, Failure> {
        let how = How::isolated(self.hold(Some(at.place.slot)));
        let inbox = Inbox::<Reply>::new();
        let sink = Rc::<Inbox<Reply>>::clone(&inbox);
        links[usize::from(at.place.shard)].send(&[request], how, sink, 0)?;
        match inbox.next(None).await {
            Some((_, reply)) => reply,
            None => Err(crate::engine::no_reply()),
        }
    }
}

impl<'a> Trip<'a> {
    pub(super) fn new(
        engine: &'a Rc<Engine>,
        crossing: &'a Crossing,
        ticket: Ticket,
        began: Instant,
        trace: Option<Rc<Trace>>,
    ) -> Self {
        Self {
            engine,
            crossing,
            ticket: Rc::new(ticket),
            began,
            trace,
        }
    }

    /// The client's database.
    pub(super) fn db(&self) -> u16 {
        self.crossing.lane.db
    }

    /// A plan whose replies are for us alone.
    pub(super) fn plan(&self) -> Plan {
        Plan::new(Protocol::Resp2)
    }

    /// A plan with a reply for the client.
    pub(super) fn plan_for_client(&self) -> Plan {
        Plan::new(self.crossing.lane.protocol)
    }

    /// Adds a command about this key, and names the key's slot in it.
    pub(super) fn add(&self, plan: &mut Plan, at: &Spot, words: &[&[u8]]) {
        self.add_in(plan, self.db(), at, words);
    }

    /// The same in this database.
    pub(super) fn add_in(&self, plan: &mut Plan, db: u16, at: &Spot, words: &[&[u8]]) {
        // The key is the first argument.
        self.add_words(plan, at.in_db(db), words, &[1]);
    }

    /// Adds a command with keys at these arguments.
    pub(super) fn add_words(&self, plan: &mut Plan, place: Part, words: &[&[u8]], keys: &[usize]) {
        let mut raw = BytesMut::new();
        build::command(&mut raw, words);
        with_command(&raw, |command| plan.add_whole(place, command, keys));
    }

    /// The reply to a command that reads one key, over the client's link; it comes when nothing of
    /// the key's slot is settling.
    pub(super) async fn read(&self, at: &Spot, words: &[&[u8]]) -> Result<Bytes, Failure> {
        let mut request = BytesMut::new();
        build::command(&mut request, words);
        let links = &self.crossing.links;
        self.engine.read_held(links, at, &request).await
    }

    /// The replies to several reads, all at one instant: behind locks.
    pub(super) async fn read_together(
        &self,
        reads: &[(&Spot, &[&[u8]])],
    ) -> Result<Vec<Bytes>, Bytes> {
        let mut plan = Plan::new(self.crossing.lane.protocol);
        for (at, words) in reads {
            self.add(&mut plan, at, words);
        }
        match self.commit(plan, None).await {
            Ended::Done(replies) => Ok(replies),
            // Without a condition there is nothing to break.
            Ended::Broken => Err(Bytes::new()),
            Ended::Failed(error) => Err(error),
        }
    }

    /// Runs a plan behind locks, conditional on what the guard has and the plan requires. Once it
    /// has begun it goes on to its end, whatever becomes of who waits here.
    pub(super) async fn commit(&self, mut plan: Plan, guard: Option<Rc<Guard>>) -> Ended {
        let work: Rc<[Work]> = plan.take_branches().into_iter().map(Work::new).collect();
        let ticket = Rc::clone(&self.ticket);
        let replies = Inbox::<Bytes>::new();
        let (engine, sink) = (Rc::clone(self.engine), Rc::clone(&replies));
        engine.active.set(engine.active.get() + 1);
        let job = Job {
            plan,
            work,
            answer: Answer::Parts,
            guard: guard.clone(),
            began: self.began,
            trace: self.trace.clone(),
            done: Box::new(move |reply| sink.push(Bytes::copy_from_slice(reply))),
        };
        spawn_local(async move {
            engine.run_locked(job, Some(ticket)).await;
            if let Some(guard) = guard {
                guard.leave();
            }
            engine.active.set(engine.active.get() - 1);
        });
        let reply = replies.next(None).await.unwrap_or_default();
        if resp::is_error(&reply) {
            return Ended::Failed(reply);
        }
        if resp::kind(&reply).is_null() {
            return Ended::Broken;
        }
        let parts = resp::elements(&reply).map(|part| reply.slice_ref(part));
        Ended::Done(parts.collect())
    }

    /// The same if what was fetched is still what it was.
    pub(super) async fn commit_fetched(&self, mut plan: Plan, fetched: &Fetched) -> Ended {
        let Some(watched) = fetched.end() else {
            return Ended::Broken;
        };
        let conditional = watched.len() > 1;
        let mut connections = BTreeMap::new();
        for (part, (connection, slots)) in watched {
            plan.watch(part, slots, conditional);
            connections.insert(part, connection);
        }
        self.commit(plan, Some(Guard::new(connections))).await
    }
}

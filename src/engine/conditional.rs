//! EXEC of a client that watches keys: all of it, if nothing that is watched has changed, or
//! nothing.
//!
//! | what is watched | what is queued | how |
//! |---|---|---|
//! | in one slot | in the same slot, or without keys | **native**: `MULTI … EXEC` on the watching connection |
//! | in several slots of one shard | without keys | native |
//! | on one shard | anything else | **decider rule**: that shard's EXEC, under the WATCH and the locks of all participants, is the commit point |
//! | on several shards | anything | **checked prepare**: each watching connection prepares in an EXEC of its own |
//!
//! With `isolation = "transactions"` whatever is on one shard is native.
//!
//! # Why several slots of one shard are not native
//!
//! Natively, the watched slot says *before every transaction that has not been applied here*, and
//! the slot that is read or written says *behind every one that has*. With two transactions that
//! are each applied on one of two shards, two such EXECs, one on either shard, could see them in
//! opposite orders, and no holding of replies undoes that. Behind locks neither transaction can be
//! half-way. In one slot there is but one of them at a time.
//!
//! # What is held
//!
//! The reply to a native EXEC is held until none of its slots settles, also when it is nil: it
//! shows what one shard has of a transaction. The other ways hold locks on the slots, so that none
//! of them can settle; but for a checked prepare that was nil, which is held natively.
//!
//! # Attempts
//!
//! A transaction that is kept out by others' locks is tried again under a new id. Under the
//! decider rule the WATCH stands until the decider's EXEC, so trying again is as guarded as the
//! first time. A checked prepare is an EXEC, which drops the WATCH: there is only one, so it is
//! preceded by waiting until the locks are free. Where it meets a lock all the same, and wherever
//! else the WATCH was used up with nothing applied, EXEC is nil, which is what the client's loop is
//! for. It is rare: inside one process the turnstile keeps such transactions apart.
//!
//! # What may come between
//!
//! With keys watched on several shards, nothing holds them all at one instant: each shard checks
//! its WATCH when it votes, and applies a round trip later. What could come between:
//!
//! * *Transactions over several shards*: not past the locks.
//! * *Other clients' EXECs under a WATCH*, natively on one shard: not past the fence. A client that
//!   watches a slot also watches the lock of its fence ([`names::fence`]), which only conditional
//!   prepares take; so of two such EXECs the later one is nil. The price: a client that watches a
//!   slot gets nil also if somebody else's conditional prepare only watched it, or was aborted.
//! * *Plain writes, and MULTI/EXEC without WATCH*: not past the fence, if it is up at every proxy
//!   ([`super::fence`]). Otherwise: from the vote on the watched slots are *settling*, so the reply
//!   to such a write is held until the transaction is done. To a key that the transaction only
//!   watches it counts as coming behind. One to a key that it also reads or writes is not noticed;
//!   nor is a MULTI/EXEC in a watched slot that writes the watched key and touches another key
//!   there that the transaction touches as well.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures::future::{join_all, try_join_all};

use super::attempt::Attempt;
use super::blocking::{LOOK_AGAIN, append_question, hold, is_clear, maybe_sent};
use super::locked::Job;
use super::seat::Work;
use super::traced::note_single;
use super::watching::{Watched, Watching};
use super::{Answer, Engine, errors, seat};
use crate::backend::{Failure, Pinned};
use crate::failpoint;
use crate::metrics::Outcome as Told;
use crate::resp::{self, Protocol};
use crate::traces::Trace;
use crate::txn::plan::{Branch, Plan};
use crate::txn::{Part, Rule, TxnId, names, script};

/// Looks at locks that others hold before one of them is asked to be settled, if it is overdue.
const LOOKS_PER_RECOVERY: u32 = 16;

/// The watching connections of a transaction over several shards, until they are used.
pub struct Guard {
    /// How the transaction commits.
    pub rule: Rule,
    connections: RefCell<BTreeMap<Part, Pinned>>,
    seats: usize,
}

impl Guard {
    pub(super) fn new(connections: BTreeMap<Part, Pinned>) -> Rc<Self> {
        let mut parts = connections.keys();
        let rule = match (parts.next(), parts.next()) {
            (Some(decider), None) => Rule::Decider(*decider),
            _ => Rule::Implicit,
        };
        Rc::new(Self {
            rule,
            seats: connections.len(),
            connections: RefCell::new(connections),
        })
    }

    /// Without a WATCH: the transaction commits if the condition of this participant holds.
    pub(super) fn of_condition(decider: Part) -> Rc<Self> {
        Rc::new(Self {
            rule: Rule::Decider(decider),
            connections: RefCell::default(),
            seats: 0,
        })
    }

    /// Whether each watching connection checks its WATCH when it prepares.
    pub fn is_checked(&self) -> bool {
        self.rule == Rule::Implicit
    }

    /// The connection that watches there, to be used up.
    pub fn take(&self, part: Part) -> Option<Pinned> {
        self.connections.borrow_mut().remove(&part)
    }

    /// Whether a WATCH was used up.
    pub fn is_spent(&self) -> bool {
        self.connections.borrow().len() < self.seats
    }

    /// Stops watching.
    pub(super) fn leave(&self) {
        for (_, connection) in std::mem::take(&mut *self.connections.borrow_mut()) {
            tokio::task::spawn_local(seat::unwatch(connection));
        }
    }
}

impl Engine {
    /// Runs the queue of a client that watches, and calls `done` once with the reply to EXEC.
    pub fn transact_conditional(
        self: &Rc<Self>,
        plan: Plan,
        watching: &Watching,
        done: impl FnOnce(&[u8]) + 'static,
    ) {
        let Some(watched) = watching.end() else {
            self.count_single(Told::WatchBroken);
            return done(&errors::null_array(plan.protocol()));
        };
        let (engine, trace) = (Rc::clone(self), self.trace());
        self.active.set(self.active.get() + 1);
        tokio::task::spawn_local(async move {
            engine.run_conditional(plan, watched, trace, done).await;
            engine.active.set(engine.active.get() - 1);
        });
    }

    async fn run_conditional(
        self: &Rc<Self>,
        mut plan: Plan,
        watched: Watched,
        trace: Option<Rc<Trace>>,
        done: impl FnOnce(&[u8]) + 'static,
    ) {
        let has_keys = plan
            .branches()
            .iter()
            .any(|branch| !branch.slots.is_empty());
        let mut connections = BTreeMap::new();
        let conditional = watched.len() > 1;
        for (part, (connection, slots)) in watched {
            plan.watch(part, slots, conditional);
            connections.insert(part, connection);
        }
        let native = match plan.branches() {
            [branch] if branch.is_everywhere && self.ways.len() > 1 => None,
            [branch] if !self.is_strict() || branch.slots.len() < 2 || !has_keys => {
                connections.remove(&branch.part)
            }
            _ => None,
        };
        match native {
            Some(connection) => {
                let reply = self.exec_watching(plan, connection).await;
                note_single(trace.as_ref(), &reply);
                done(&reply);
            }
            None => {
                let guard = Guard::new(connections);
                let work = plan.take_branches().into_iter().map(Work::new).collect();
                let job = Job::new(plan, work, Answer::Exec, trace, Box::new(done));
                self.run_locked(job.under(Rc::clone(&guard)), None).await;
                guard.leave();
            }
        }
    }

    /// Natively, on the only watching connection.
    async fn exec_watching(&self, mut plan: Plan, connection: Pinned) -> BytesMut {
        let protocol = plan.protocol();
        let Some(branch) = plan.take_branches().pop() else {
            return errors::null_array(protocol);
        };
        match self.exec_on(&branch, connection).await {
            Ok(Some(replies)) => {
                self.count_single(Told::Committed);
                plan.exec_reply(&[replies])
            }
            // What was not sent was not applied, and its WATCH is gone with the connection.
            Ok(None) | Err(Unanswered::Lost(Failure::NeverSent(_))) => {
                self.count_single(Told::WatchBroken);
                errors::null_array(protocol)
            }
            Err(Unanswered::Refused(error)) => {
                self.count_single(Told::Aborted);
                error
            }
            Err(Unanswered::Lost(failure)) => {
                self.count_single(errors::failed_outcome(&failure));
                self.metrics.errors[errors::failed_kind(&failure)].increment(1);
                errors::failed(&failure)
            }
        }
    }

    /// The elements of the reply to EXEC; None for nil.
    async fn exec_on(
        &self,
        branch: &Branch,
        mut connection: Pinned,
    ) -> Result<Option<Vec<Bytes>>, Unanswered> {
        let slots = match self.is_strict() {
            true => &branch.slots[..],
            false => &[],
        };
        let slots = || slots.iter().map(|slot| &slot[..]);
        let asks = slots().len() > 0;
        let spoken = connection.speak(branch.protocol).await;
        spoken.map_err(Unanswered::Lost)?;
        let mut request = BytesMut::from(script::MULTI);
        request.extend_from_slice(&branch.commands);
        request.extend_from_slice(script::EXEC);
        let at = 1 + branch.count;
        if asks {
            append_question(&mut request, names::SETTLING, slots());
        }
        let replies = at + 1 + usize::from(asks);
        failpoint::at("watch-before-exec");
        let replies = connection.exchange(&request, replies).await;
        failpoint::at("watch-after-exec-before-reply");
        let replies = replies.map_err(Unanswered::Lost)?;
        let frame = replies.get(at).cloned().unwrap_or_default();
        if resp::is_error(&frame) {
            connection.give_back();
            return Err(Unanswered::Refused(BytesMut::from(&frame[..])));
        }
        if replies.get(at + 1).is_some_and(|answer| !is_clear(answer)) {
            let held = hold(&mut connection, slots()).await;
            held.map_err(|failure| Unanswered::Lost(maybe_sent(failure)))?;
        }
        connection.give_back();
        let is_nil = resp::kind(&frame).is_null();
        let elements = resp::elements(&frame).map(|reply| frame.slice_ref(reply));
        Ok((!is_nil).then(|| elements.collect()))
    }
}

/// A transaction whose prepares check the client's WATCH.
impl Engine {
    /// Waits until the slots look free everywhere; whether that was within `lock-wait`. What holds
    /// them although its time is over is settled.
    pub(super) async fn wait_for_locks(self: &Rc<Self>, work: &[Work], began: Instant) -> bool {
        let mut looks = 0_u32;
        loop {
            let all = work.iter().map(|work| self.look(names::INDEX, work));
            // A shard that does not answer will not vote either, and says it better.
            let looked = join_all(all).await.into_iter().filter_map(Result::ok);
            let Some((part, owner)) = looked.flatten().next() else {
                return true;
            };
            looks += 1;
            let wait = super::wakeups::backoff(looks);
            if began.elapsed() + wait > self.times.lock_wait.get() {
                return false;
            }
            if looks.is_multiple_of(LOOKS_PER_RECOVERY) {
                self.recover(part, owner).await;
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Whoever has one of the slots in this hash.
    async fn look(&self, hash: &[u8], work: &Work) -> Result<Option<(Part, TxnId)>, Failure> {
        if work.slots.is_empty() {
            return Ok(None);
        }
        let mut question = BytesMut::new();
        append_question(&mut question, hash, work.slots.iter().map(|slot| &slot[..]));
        let answer = self.ask(work.part.shard, &question).await?;
        let mut owners = resp::elements(&answer).filter_map(resp::as_bulk);
        let owner = owners.next().map(String::from_utf8_lossy);
        Ok(owner.map(|owner| (work.part, TxnId::new(owner.into_owned()))))
    }

    /// Nil, since a checked prepare was. That shows what its shard has of whatever transaction
    /// broke the WATCH, so it is held like a reply.
    pub(super) async fn finish_broken(
        &self,
        attempt: Attempt,
        work: &[Work],
        protocol: Protocol,
        done: impl FnOnce(&[u8]),
    ) {
        let answer = async {
            match self.wait_until_settled(work).await {
                Ok(()) => done(&errors::null_array(protocol)),
                Err(Failure::NeverSent(cause) | Failure::MaybeSent(cause)) => {
                    done(&errors::failed(&Failure::NeverSent(cause)))
                }
            }
        };
        // Its own conditional prepares go with it.
        tokio::join!(attempt.finish(), answer);
    }

    async fn wait_until_settled(&self, work: &[Work]) -> Result<(), Failure> {
        while self.is_strict() {
            let all = work.iter().map(|work| self.look(names::SETTLING, work));
            let settling = try_join_all(all).await?.into_iter().flatten();
            if settling.count() == 0 {
                break;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }
}

/// Why an EXEC has no elements.
enum Unanswered {
    /// The shard's own error: nothing was applied.
    Refused(BytesMut),
    /// No reply.
    Lost(Failure),
}

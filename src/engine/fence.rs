//! The fence: plain writes that keep away from transactions whose WATCH spans shards.
//!
//! Such a transaction checks its WATCH when it votes, and applies a round trip later
//! ([`super::conditional`]). A plain write in between would be overwritten, or missed. With the
//! fence up, at every proxy, there is none: from the vote on the watched slots are *settling*, and
//! a plain write takes effect only while its slot is not. It goes over the armed connection
//! ([`crate::backend::armed`]), many in one EXEC; where that is in vain it goes as everything over
//! several slots does ([`super::guarded`]): as a script that looks at its own slot only, and at
//! last behind locks. So do the EXECs of clients that watch nothing.
//!
//! # Order
//!
//! What one client pipelines to a shard runs in order. What waits for the armed connection keeps
//! it, and when a write of a client is handed back, so are all that it has sent behind it, before
//! anything else happens. From then on they go one after the other, and what the client sends
//! meanwhile to that shard waits behind them ([`Writes`]). Between writes and everything else the frontend waits
//! until all is answered.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use tokio::task::spawn_local;

use super::inbox::Inbox;
use super::patient::with_command;
use super::{Answer, Engine};
use crate::backend::ReplySink;
use crate::backend::armed::{Ended, Run};
use crate::resp::{Protocol, build};
use crate::txn::Part;
use crate::txn::plan::Plan;

/// A command that may write, with all its keys in one slot.
pub struct Write {
    /// Where, in which database.
    pub place: Part,
    /// The protocol of its reply.
    pub protocol: Protocol,
    /// The command in canonical form.
    pub raw: Bytes,
    /// Number of an argument that is one of its keys.
    pub key: usize,
    /// Who gets the reply.
    pub sink: Rc<dyn ReplySink>,
    /// Under which number.
    pub number: u64,
}

/// The writes of one client that were handed back, and those behind them.
pub struct Writes {
    /// Tells this client from others.
    owner: u64,
    /// By shard; with an entry as long as one after the other is being dealt with there.
    waiting: RefCell<BTreeMap<u16, VecDeque<Write>>>,
}

impl Writes {
    /// None, of the client of this number.
    pub fn new(owner: u64) -> Rc<Self> {
        Rc::new(Self {
            owner,
            waiting: RefCell::default(),
        })
    }
}

impl Writes {
    /// The next of those handed back on a shard; with none, its writes go the usual way again.
    fn next(&self, shard: u16) -> Option<Write> {
        let mut waiting = self.waiting.borrow_mut();
        let next = waiting.get_mut(&shard)?.pop_front();
        if next.is_none() {
            waiting.remove(&shard);
        }
        next
    }
}

impl Write {
    /// What is sent, how many commands these are, and which of their replies is meant.
    fn run(&self) -> (Bytes, u32, usize) {
        if self.place.db == 0 {
            return (self.raw.clone(), 1, 0);
        }
        let mut commands = BytesMut::new();
        let db = self.place.db.to_string();
        build::command(&mut commands, [&b"SELECT"[..], db.as_bytes()]);
        commands.extend_from_slice(&self.raw);
        build::command(&mut commands, [&b"SELECT"[..], b"0"]);
        (commands.freeze(), 3, 1)
    }

    fn plan(&self) -> Plan {
        let mut plan = Plan::new(self.protocol);
        with_command(&self.raw, |command| {
            plan.add_whole(self.place, command, &[self.key]);
        });
        plan
    }
}

impl Engine {
    /// Whether the fence is up.
    pub fn is_fenced(&self) -> bool {
        self.times.fenced && self.is_guarded()
    }

    /// Runs a write of a client behind all that it has given before.
    pub fn write_fenced(self: &Rc<Self>, writes: &Rc<Writes>, write: Write) {
        let shard = write.place.shard;
        if let Some(waiting) = writes.waiting.borrow_mut().get_mut(&shard) {
            return waiting.push_back(write);
        }
        let (commands, count, at) = write.run();
        let (engine, of) = (Rc::clone(self), Rc::clone(writes));
        let armed = self.armed(shard, write.protocol);
        armed.run(Run {
            commands,
            count,
            owner: Some(writes.owner),
            done: Box::new(move |ended| match ended {
                Ended::Ran(replies) => {
                    let reply = replies.get(at).copied().unwrap_or_default();
                    Rc::clone(&write.sink).deliver(write.number, reply);
                }
                Ended::Failed(failure) => Rc::clone(&write.sink).fail(write.number, failure),
                // Its own words about a refusal are told to what takes locks.
                Ended::KeptOut | Ended::Refused(_) => engine.go_another_way(&of, write),
            }),
        });
    }

    fn go_another_way(self: &Rc<Self>, writes: &Rc<Writes>, write: Write) {
        let shard = write.place.shard;
        if let Some(waiting) = writes.waiting.borrow_mut().get_mut(&shard) {
            return waiting.push_back(write);
        }
        let waiting = VecDeque::from([write]);
        writes.waiting.borrow_mut().insert(shard, waiting);
        let (engine, writes) = (Rc::clone(self), Rc::clone(writes));
        spawn_local(async move { engine.work_off(&writes, shard).await });
    }

    async fn work_off(self: &Rc<Self>, writes: &Writes, shard: u16) {
        while let Some(write) = writes.next(shard) {
            let replies = Inbox::<Bytes>::new();
            let inbox = Rc::clone(&replies);
            self.transact(write.plan(), Answer::Bare, move |reply| {
                inbox.push(Bytes::copy_from_slice(reply));
            });
            let reply = replies.next(None).await.unwrap_or_default();
            write.sink.deliver(write.number, &reply);
        }
    }
}

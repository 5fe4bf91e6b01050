//! What clients watch.
//!
//! WATCH is a property of a connection to a Redis server, so a client that watches keys has such
//! connections for itself: one to each shard of its keys, from its first WATCH there until EXEC,
//! DISCARD, UNWATCH, RESET or its end. So Redis itself watches: writes by anybody, expiry,
//! eviction. Keys of several databases may be watched on one connection, which is in database 0
//! between two WATCHes. The client's other commands run on the shared links as always. What it reads behind
//! the reply to its WATCH is read behind the WATCH, since that has been executed by then.
//!
//! # Never unguarded
//!
//! Once a watching connection is lost, or a WATCH has failed, nobody knows any more what was
//! written: EXEC will be nil, whatever the client does until then. A client that loops on nil is
//! never wrong.
//!
//! # The hold rule
//!
//! WATCH says: *EXEC only if nothing has changed since now*. It belongs to an instant, and the
//! transactions over several shards around it are before that instant as a whole or behind it:
//!
//! * One that is **applied** here when the WATCH runs, but not yet everywhere, cannot break it any
//!   more. Were the client told `+OK` now, it could read elsewhere what was there before that
//!   transaction, which would then come between its WATCH and its EXEC without breaking it. So
//!   the reply waits, like every reply about such a slot, until the slot was seen not settling
//!   behind the WATCH: by then the transaction has been applied everywhere, and is before it.
//! * One that is **prepared** here and applied later breaks the WATCH when it writes a watched
//!   key, and so is behind it, wherever else it was applied before.
//!
//! * One that has **conditionally prepared** here settles from then on: it is waited for as well.
//!   From the WATCH on such a prepare breaks it, through the lock of the slot's fence, which is
//!   watched along with the keys; see [`super::conditional`].
//!
//! The same is true of the nil that EXEC answers: it says that something was changed, which may
//! be one shard's part of a transaction. See [`super::conditional`].

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use futures::future::join_all;
use tokio::task::spawn_local;

use super::blocking::{LOOK_AGAIN, append_question, hold, is_clear};
use super::seat::UNWATCH;
use super::{Engine, seat};
use crate::backend::{Failure, Pinned};
use crate::failpoint;
use crate::resp::{self, Lane, build};
use crate::txn::{Part, names};

/// What one client watches.
#[derive(Default)]
pub struct Watching {
    seats: RefCell<BTreeMap<Part, Watch>>,
    /// Keys by their hash: two that collide count once.
    keys: RefCell<HashSet<u64>>,
    hasher: RandomState,
    is_broken: Cell<bool>,
    /// Not for as long as a client likes.
    is_brief: bool,
}

/// Why nothing is watched.
pub(super) enum Unwatched {
    /// There was no reply.
    Failed(Failure),
    /// The shard's own error.
    Refused(BytesMut),
}

/// What it watches on one participant.
pub struct Watch {
    /// The connection that does; None while it is in use.
    connection: Option<Pinned>,
    /// The slots of the keys.
    slots: BTreeMap<u16, Bytes>,
}

/// The connections that watched, each with the slots that it did, by participant.
pub(super) type Watched = BTreeMap<Part, (Pinned, BTreeMap<u16, Bytes>)>;

/// Keys to be watched on one participant.
#[derive(Debug, Default)]
pub struct Wanted {
    /// The keys.
    pub keys: Vec<Bytes>,
    /// Commands that are run behind the WATCH, in the same database.
    pub reads: Vec<Bytes>,
    /// Their slots, each also as decimal text.
    pub slots: BTreeMap<u16, Bytes>,
}

impl Watching {
    /// For lockstep itself, until the end of one command: on connections for transactions.
    pub(super) fn briefly() -> Self {
        Self {
            is_brief: true,
            ..Self::default()
        }
    }

    /// Counts these keys of a database in, if there are not more than `max` then; whether it did.
    pub fn admit<'a>(&self, db: u16, keys: impl Iterator<Item = &'a [u8]>, max: usize) -> bool {
        let mut known = self.keys.borrow_mut();
        for key in keys {
            known.insert(self.hasher.hash_one((db, key)));
            if known.len() > max {
                return false;
            }
        }
        true
    }

    /// Whether EXEC can only be nil.
    pub fn is_broken(&self) -> bool {
        self.is_broken.get()
    }

    /// EXEC will be nil, so there is nothing left to watch.
    pub fn break_off(&self) {
        self.is_broken.set(true);
        self.leave();
    }

    /// Stops watching; the connections are of use to others.
    pub fn leave(&self) {
        self.keys.borrow_mut().clear();
        for (_, watch) in std::mem::take(&mut *self.seats.borrow_mut()) {
            if let Some(connection) = watch.connection {
                spawn_local(seat::unwatch(connection));
            }
        }
    }

    /// A shard on which something is watched.
    pub fn any_shard(&self) -> Option<u16> {
        self.seats.borrow().keys().next().map(|part| part.shard)
    }

    /// Ends the watching by handing out the connections, by participant and with the slots
    /// watched there. None if one of them is lost: then nobody knows what was written.
    pub(super) fn end(&self) -> Option<Watched> {
        let alive = |watch: &mut Watch| watch.connection.as_mut().is_some_and(Pinned::is_alive);
        if self.is_broken() || !self.seats.borrow_mut().values_mut().all(alive) {
            self.break_off();
            return None;
        }
        let seats = std::mem::take(&mut *self.seats.borrow_mut());
        let hand_out =
            |(part, watch): (Part, Watch)| Some((part, (watch.connection?, watch.slots)));
        Some(seats.into_iter().filter_map(hand_out).collect())
    }

    fn take_connection(&self, part: Part) -> Option<Pinned> {
        self.seats.borrow_mut().get_mut(&part)?.connection.take()
    }

    fn put(&self, part: Part, connection: Pinned, slots: &BTreeMap<u16, Bytes>) {
        let mut seats = self.seats.borrow_mut();
        let watch = seats.entry(part).or_insert_with(|| Watch {
            connection: None,
            slots: BTreeMap::new(),
        });
        watch.connection = Some(connection);
        let slots = slots.iter().map(|(slot, text)| (*slot, text.clone()));
        watch.slots.extend(slots);
    }
}

impl Wanted {
    /// Takes the replies to the reads out of all.
    fn take_read(&self, db: u16, replies: &mut Vec<Bytes>) -> Vec<Bytes> {
        let first = if db == 0 { 1 } else { 2 };
        let end = (first + self.reads.len()).min(replies.len());
        replies.drain(first.min(end)..end).collect()
    }

    /// The request, from and to database 0, and the number of its replies. One of them is an
    /// error if not all was done as it should be: a server that is busy with a script refuses
    /// SELECT, but not WATCH.
    fn request(&self, db: u16) -> (BytesMut, usize) {
        let mut out = BytesMut::new();
        let select = |out: &mut BytesMut, db: u16| {
            build::command(out, [&b"SELECT"[..], db.to_string().as_bytes()]);
        };
        if db != 0 {
            select(&mut out, db);
        }
        let verb: &[u8] = match failpoint::is_planted("no-watch") {
            true => b"EXISTS",
            false => b"WATCH",
        };
        build::array_header(&mut out, 1 + self.keys.len());
        build::bulk(&mut out, verb);
        self.keys.iter().for_each(|key| build::bulk(&mut out, key));
        self.reads
            .iter()
            .for_each(|read| out.extend_from_slice(read));
        if db != 0 {
            select(&mut out, 0);
        }
        build::array_header(&mut out, 1 + self.slots.len());
        build::bulk(&mut out, b"WATCH");
        let fences = self.slots.values().map(|slot| names::fence(slot));
        fences.for_each(|fence| build::bulk(&mut out, names::lock(&fence)));
        (out, self.reads.len() + if db == 0 { 2 } else { 4 })
    }
}

impl Engine {
    /// Watches more keys of this lane for a client, by participant, and calls `done` once with the reply.
    pub fn watch(
        self: &Rc<Self>,
        watching: &Rc<Watching>,
        lane: Lane,
        wanted: BTreeMap<Part, Wanted>,
        done: impl FnOnce(&[u8]) + 'static,
    ) {
        let (engine, watching) = (Rc::clone(self), Rc::clone(watching));
        spawn_local(async move {
            let all = wanted.iter();
            let all = all.map(|(part, wanted)| engine.watch_on(&watching, *part, lane, wanted));
            match join_all(all).await.into_iter().find_map(Result::err) {
                None => done(b"+OK\r\n"),
                Some(why) => {
                    watching.break_off();
                    done(&not_watched(&why));
                }
            }
        });
    }

    /// The same for lockstep itself; the replies to what is read behind each WATCH.
    pub(super) async fn watch_reading(
        &self,
        watching: &Watching,
        lane: Lane,
        wanted: &BTreeMap<Part, Wanted>,
    ) -> Result<BTreeMap<Part, Vec<Bytes>>, Unwatched> {
        let all = wanted.iter().map(|(part, wanted)| async move {
            let read = self.watch_on(watching, *part, lane, wanted).await;
            read.map(|replies| (*part, replies))
        });
        join_all(all).await.into_iter().collect()
    }

    async fn watch_on(
        &self,
        watching: &Watching,
        part: Part,
        lane: Lane,
        wanted: &Wanted,
    ) -> Result<Vec<Bytes>, Unwatched> {
        let refused = |failure: Failure| {
            self.metrics.errors[failure.kind()].increment(1);
            Unwatched::Failed(failure)
        };
        let (mut connection, is_fresh) = match watching.take_connection(part) {
            Some(connection) => (connection, false),
            None => {
                let pool = match watching.is_brief {
                    true => self.pool(part.shard),
                    false => self.watchers(part.shard),
                };
                let fresh = pool.get(lane.protocol).await;
                (fresh.map_err(refused)?, true)
            }
        };
        let slots = || wanted.slots.values().map(|slot| &slot[..]);
        // Also where plain commands are not isolated: conditional prepares settle, too.
        let asks = self.ways.len() > 1;
        let read = loop {
            let (mut request, mut replies) = wanted.request(lane.db);
            if asks {
                append_question(&mut request, names::SETTLING, slots());
                replies += 1;
            }
            let replies = connection.exchange(&request, replies).await;
            let mut replies = replies.map_err(refused)?;
            let answer = asks.then(|| replies.pop()).flatten();
            let read = wanted.take_read(lane.db, &mut replies);
            if let Some(error) = replies.iter().find(|reply| resp::is_error(reply)) {
                return Err(Unwatched::Refused(BytesMut::from(&error[..])));
            }
            if answer.is_none_or(|answer| is_clear(&answer)) {
                break read;
            }
            if !is_fresh {
                hold(&mut connection, slots()).await.map_err(refused)?;
                break read;
            }
            // What settles may have taken its fence, and would break the WATCH when it drops it.
            connection.exchange(UNWATCH, 1).await.map_err(refused)?;
            tokio::time::sleep(LOOK_AGAIN).await;
        };
        watching.put(part, connection, &wanted.slots);
        Ok(read)
    }
}

/// The error for a WATCH that came to nothing. Nothing was to be executed, so nothing is said of
/// that.
fn not_watched(why: &Unwatched) -> BytesMut {
    let cause = match why {
        Unwatched::Failed(Failure::NeverSent(cause) | Failure::MaybeSent(cause)) => cause,
        Unwatched::Refused(error) => return error.clone(),
    };
    let mut out = BytesMut::new();
    build::error(
        &mut out,
        format!("ERR {cause}; the keys are not watched, the next EXEC will be nil"),
    );
    out
}

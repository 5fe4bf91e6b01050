//! Commands that wait for data: each on a connection of its own, for as long as it takes.
//!
//! The hold rule ([`crate::backend::hold`]) is theirs as well: what ends the waiting is often
//! the apply of a transaction, which is not done everywhere yet.

use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, spawn_local};

use super::Engine;
use crate::backend::{Failure, Pinned};
use crate::resp::{self, Lane, Protocol, build};
use crate::txn::names;

/// Between two looks at what settles, while a reply is held.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What CLIENT UNBLOCK … ERROR gives.
pub(super) const UNBLOCKED: &[u8] = b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n";
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// Where a client waits for data: by it, others can end the waiting.
#[derive(Debug, Default)]
pub struct Berth(Mutex<State>, Notify);

#[derive(Debug, Default)]
struct State {
    is_taken: bool,
    /// How often somebody has begun to wait: who is to be unblocked is not who waits next.
    waits: u64,
    unblocked: Option<Unblock>,
    /// Shards, and the ids of the connections there.
    places: Vec<(u16, i64)>,
    /// No shard counts the client among those that wait: it waits here for news of its keys.
    is_here: bool,
}

/// How CLIENT UNBLOCK ends the waiting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unblock {
    /// As if its time were up.
    AsTimeout,
    /// With an error.
    WithError,
}

impl Berth {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody waits.
    pub fn is_taken(&self) -> bool {
        self.state().is_taken
    }

    /// Whether somebody waits of whom no shard knows that it does.
    pub fn waits_here(&self) -> bool {
        let state = self.state();
        state.is_taken && state.is_here
    }

    /// Nothing was found: from now on it waits here.
    pub(super) fn stay(&self) {
        self.state().is_here = true;
    }

    /// Waits until somebody may have asked to end the waiting, and tells how.
    pub(super) async fn ended(&self) -> Option<Unblock> {
        self.1.notified().await;
        self.state().unblocked
    }

    /// Somebody waits until what is returned is dropped.
    pub fn take(self: &Arc<Self>) -> Taken {
        let mut state = self.state();
        state.is_taken = true;
        state.waits += 1;
        drop(state);
        Taken(Arc::clone(self))
    }

    /// The wait is, or will be, on this connection.
    async fn note(&self, shard: u16, connection: &mut Pinned) -> Result<(), Failure> {
        let id = connection.id().await?;
        self.state().places.push((shard, id));
        Ok(())
    }

    /// Keeps the connection for others; not when somebody may be about to unblock it.
    fn give_back(&self, connection: Pinned) {
        if self.state().unblocked.is_none() {
            connection.give_back();
        }
    }
}

/// Somebody waits as long as this is there.
pub struct Taken(pub(super) Arc<Berth>);

impl Drop for Taken {
    fn drop(&mut self) {
        let mut state = self.0.state();
        *state = State {
            waits: state.waits,
            ..State::default()
        };
    }
}

impl Engine {
    /// CLIENT UNBLOCK of who waits here. The shard itself ends the waiting, so that what it has
    /// given already is not lost; asked again until it has, since it may not have begun.
    pub fn unblock(
        self: &Rc<Self>,
        berth: Arc<Berth>,
        how: Unblock,
    ) -> impl Future<Output = ()> + 'static {
        let this_wait = {
            let mut state = berth.state();
            state.unblocked = Some(how);
            state.waits
        };
        berth.1.notify_one();
        let engine = Rc::clone(self);
        async move {
            while berth.is_taken() && berth.state().waits == this_wait {
                let places = berth.state().places.clone();
                for (shard, id) in places {
                    let reason: &[u8] = match how {
                        Unblock::AsTimeout => b"TIMEOUT",
                        Unblock::WithError => b"ERROR",
                    };
                    let id = id.to_string();
                    let mut request = BytesMut::new();
                    let words = [&b"CLIENT"[..], b"UNBLOCK", id.as_bytes(), reason];
                    build::command(&mut request, words);
                    // A shard that is gone ends the waiting as well.
                    let _ = engine.ask(shard, &request).await;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
    }

    /// Sends a command that may wait, and calls `done` once with its reply; not before none of
    /// the `slots` of its keys is settling. Aborting it closes the connection, so that the shard
    /// stops waiting as well.
    pub fn wait_for(
        self: &Rc<Self>,
        shard: u16,
        lane: Lane,
        slots: Vec<u16>,
        request: BytesMut,
        berth: &Arc<Berth>,
        done: impl FnOnce(&[u8]) + 'static,
    ) -> AbortHandle {
        let (engine, taken) = (Rc::clone(self), berth.take());
        let task = spawn_local(async move {
            let waited = engine
                .wait_on(shard, lane, &slots, &request, &taken.0)
                .await;
            drop(taken);
            done(&waited.unwrap_or_else(|failure| engine.failed(&failure)));
        });
        task.abort_handle()
    }

    /// The error reply to who gets no other, counted.
    pub(super) fn failed(&self, failure: &Failure) -> Bytes {
        self.metrics.errors[failure.kind()].increment(1);
        let mut reply = BytesMut::new();
        build::error(&mut reply, failure.to_string());
        reply.freeze()
    }

    /// WAIT on every shard, for the replicas to have what was written up to now; calls `done`
    /// once with the replies. Aborting it as above.
    pub fn wait_for_replicas(
        self: &Rc<Self>,
        request: BytesMut,
        berth: &Arc<Berth>,
        done: impl FnOnce(Result<Vec<Bytes>, BytesMut>) + 'static,
    ) -> AbortHandle {
        let (engine, taken) = (Rc::clone(self), berth.take());
        let task = spawn_local(async move {
            let berth = &taken.0;
            let shards = 0..engine.shards();
            let waits = shards.map(|shard| engine.wait_at(shard, &request, berth));
            let answers = futures::future::join_all(waits).await;
            drop(taken);
            done(engine.agreed(answers));
        });
        task.abort_handle()
    }

    /// What WAIT waits for is what the shard had written when its connection was last used.
    async fn wait_at(&self, shard: u16, request: &[u8], berth: &Berth) -> Result<Bytes, Failure> {
        let mut connection = self.waiters(shard).get(Protocol::Resp2).await?;
        berth.note(shard, &mut connection).await?;
        connection.exchange(PING, 1).await?;
        let reply = connection.exchange_patiently(request).await?;
        berth.give_back(connection);
        Ok(reply)
    }

    async fn wait_on(
        &self,
        shard: u16,
        lane: Lane,
        slots: &[u16],
        request: &[u8],
        berth: &Berth,
    ) -> Result<Bytes, Failure> {
        let mut connection = self.waiters(shard).get_in(lane).await?;
        berth.note(shard, &mut connection).await?;
        let reply = connection.exchange_patiently(request).await?;
        // The command itself has been executed, whatever becomes of the question.
        let settled = self.hold_for(&mut connection, lane, slots).await;
        settled.map_err(maybe_sent)?;
        berth.give_back(connection);
        Ok(reply)
    }

    /// Waits, if plain commands are isolated, until none of these slots is settling: asks on a
    /// connection in this lane.
    pub(super) async fn hold_for(
        &self,
        connection: &mut Pinned,
        lane: Lane,
        slots: &[u16],
    ) -> Result<(), Failure> {
        if !self.is_strict() || slots.is_empty() {
            return Ok(());
        }
        let slots: Vec<String> = slots.iter().map(u16::to_string).collect();
        let slots = slots.iter().map(String::as_bytes);
        let mut question = BytesMut::new();
        match lane.db {
            0 => append_question(&mut question, names::SETTLING, slots),
            _ => append_question_afar(&mut question, names::SETTLING, slots),
        }
        hold_by(connection, &question).await
    }
}

/// Waits until none of these slots is settling. It began after the command was executed, so the
/// answer is about a later instant, as the hold rule wants it.
pub(super) async fn hold<'a>(
    connection: &mut Pinned,
    slots: impl ExactSizeIterator<Item = &'a [u8]>,
) -> Result<(), Failure> {
    let mut question = BytesMut::new();
    append_question(&mut question, names::SETTLING, slots);
    hold_by(connection, &question).await
}

/// The same with this question.
async fn hold_by(connection: &mut Pinned, question: &[u8]) -> Result<(), Failure> {
    loop {
        let answers = connection.exchange(question, 1).await?;
        if answers.first().is_some_and(|answer| is_clear(answer)) {
            return Ok(());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Appends the question who has these slots, or all of them; one reply, for [`is_clear`].
pub(super) fn append_question<'a>(
    out: &mut BytesMut,
    hash: &[u8],
    slots: impl ExactSizeIterator<Item = &'a [u8]>,
) {
    build::array_header(out, 3 + slots.len());
    build::bulk(out, b"HMGET");
    build::bulk(out, hash);
    slots.for_each(|slot| build::bulk(out, slot));
    build::bulk(out, names::EVERY_SLOT);
}

/// The same from a connection that is not in database 0, and stays where it is.
fn append_question_afar<'a>(
    out: &mut BytesMut,
    hash: &[u8],
    slots: impl ExactSizeIterator<Item = &'a [u8]>,
) {
    const ASK: &[u8] = b"redis.call('SELECT','0')return redis.call('HMGET',KEYS[1],unpack(ARGV))";
    build::array_header(out, 5 + slots.len());
    for word in [b"EVAL_RO", ASK, b"1", hash] {
        build::bulk(out, word);
    }
    slots.for_each(|slot| build::bulk(out, slot));
    build::bulk(out, names::EVERY_SLOT);
}

/// Whether every field that was asked for is missing; an error says nothing.
pub(super) fn is_clear(answer: &[u8]) -> bool {
    !resp::is_error(answer) && resp::elements(answer).all(|owner| resp::as_bulk(owner).is_none())
}

pub(super) fn maybe_sent(failure: Failure) -> Failure {
    match failure {
        Failure::NeverSent(cause) | Failure::MaybeSent(cause) => Failure::MaybeSent(cause),
    }
}

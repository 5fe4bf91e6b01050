//! Waiting for data under keys of several shards: BLPOP, BRPOP, BZPOPMIN, BZPOPMAX, BLMPOP,
//! BZMPOP, XREAD and XREADGROUP.
//!
//! Nothing is ever taken by waiting: were the client to wait on two shards with a command that
//! takes, both could give it an element, and one would be lost. So the shards are asked, on the
//! feed, to tell when a key is changed (client-side caching's invalidations: they need no setting
//! and concern every type), which changes nothing. Then, and whenever one of the keys was
//! changed, the keys are looked at, and *one* command is given to *one* shard, as MULTI, the
//! command for that key, EXEC, so that it takes what is there or nothing. If somebody else was
//! quicker, the waiting goes on. A client that is gone was either given nothing yet, or its
//! element is on the way as it would be from one Redis.
//!
//! *The first key with data wins*, in the order of the arguments. A key is taken from only if all
//! keys before it were seen empty *after* it was seen with data, so that there was an instant at
//! which one Redis would have chosen it. All looks are held until what they have seen is released
//! everywhere, so a transaction over several of the keys is seen as a whole.
//!
//! One thing one Redis does otherwise: it serves a client that waits already from the key that was
//! pushed to first, when one transaction pushes to several of its keys. Here it is the first of
//! its arguments, since nobody sees the order of pushes on different shards.
//!
//! Streams are read on every key at once; what was read is always handed on. A plain XREAD is
//! read until two rounds agree, and so is one view of all streams. What XREADGROUP delivers from
//! several shards is not: it cannot be read twice.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use futures::future::join_all;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::Instant;

use super::blocking::{Berth, Taken, UNBLOCKED, Unblock};
use super::channels::Hub;
use super::inbox::{Inbox, Reply};
use super::lanes::Links;
use super::patient::with_command;
use super::{Answer, Engine};
use crate::backend::{Failure, How};
use crate::keyspace::Place;
use crate::resp::{self, Kind, Protocol, build};
use crate::txn::plan::Plan;
use crate::txn::{Part, script};

/// Rounds after which XREAD takes what it has read.
const ROUNDS_MAX: usize = 8;

/// How the replies for single keys become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Take {
    /// From the first key that has something.
    First,
    /// From all streams; reading them changes nothing.
    Streams,
    /// From all streams, which changes what has been delivered.
    Group,
}

/// One key, and the command that takes from it alone.
#[derive(Clone, Debug)]
pub struct Source {
    /// The key.
    pub key: Bytes,
    /// Where it is.
    pub place: Place,
    /// The command.
    pub command: Bytes,
}

/// What is waited for.
pub struct Wait {
    /// The client's links.
    pub links: Links,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its database.
    pub db: u16,
    /// The keys, in the order of the arguments.
    pub sources: Vec<Source>,
    /// How their replies become one.
    pub take: Take,
    /// When the waiting ends; None: never.
    pub until: Option<Instant>,
}

/// A registration for wake-ups that ends with the waiting, however that ends.
pub(super) struct Registered {
    hub: Rc<Hub>,
    keys: Vec<Vec<u8>>,
    /// Who waits.
    pub(super) task: Rc<Notify>,
}

impl Registered {
    /// From now on, for news of these keys.
    pub(super) fn new(hub: &Rc<Hub>, sources: &[Source]) -> Self {
        let registered = Self {
            hub: Rc::clone(hub),
            keys: sources.iter().map(|source| source.key.to_vec()).collect(),
            task: Rc::default(),
        };
        hub.wakeups().add(&registered.keys, &registered.task);
        registered
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.hub.wakeups().remove(&self.keys, &self.task);
    }
}

impl Engine {
    /// Waits, and calls `done` once with the reply. Aborting it ends the waiting.
    pub fn wait_over(
        self: &Rc<Self>,
        hub: &Rc<Hub>,
        wait: Wait,
        taken: Taken,
        done: impl FnOnce(&[u8]) + 'static,
    ) -> AbortHandle {
        let (engine, hub) = (Rc::clone(self), Rc::clone(hub));
        let task = spawn_local(async move { engine.wait_here(&hub, wait, taken, done).await });
        task.abort_handle()
    }

    /// The same, without a task of its own.
    pub async fn wait_here(
        self: &Rc<Self>,
        hub: &Rc<Hub>,
        wait: Wait,
        taken: Taken,
        done: impl FnOnce(&[u8]),
    ) {
        let mut reply = BytesMut::new();
        let waited = self.wait_until(hub, &wait, &taken.0).await;
        drop(taken);
        match waited {
            Ok(Some(taken)) => return done(&taken),
            Ok(None) => build::null_array(&mut reply, wait.protocol),
            Err(failure) => {
                self.metrics.errors[failure.kind()].increment(1);
                build::error(&mut reply, failure.to_string());
            }
        }
        done(&reply);
    }

    async fn wait_until(
        self: &Rc<Self>,
        hub: &Rc<Hub>,
        wait: &Wait,
        berth: &Berth,
    ) -> Result<Option<Bytes>, Failure> {
        // The first key, if it has something, is right whatever the others have; and a command
        // that is wrong is told so.
        if wait.take == Take::First
            && let Some(first) = wait.sources.first()
            && let Some(reply) = self.take_from(wait, first).await?
        {
            return Ok(Some(reply));
        }
        let registered = Registered::new(hub, &wait.sources);
        loop {
            hub.watch(&wait.sources).await?;
            let taken = match wait.take {
                Take::First => self.take_first(wait).await?,
                Take::Streams => self.read_streams(wait).await?,
                Take::Group => self.read_each(wait).await?,
            };
            if taken.is_some() {
                return Ok(taken);
            }
            berth.stay();
            let over = async {
                match wait.until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = registered.task.notified() => {}
                () = over => return Ok(None),
                how = berth.ended() => match how {
                    Some(Unblock::AsTimeout) => return Ok(None),
                    Some(Unblock::WithError) => return Ok(Some(Bytes::from_static(UNBLOCKED))),
                    None => {}
                },
            }
        }
    }

    /// From the first key with data, if any has.
    async fn take_first(self: &Rc<Self>, wait: &Wait) -> Result<Option<Bytes>, Failure> {
        loop {
            let Some(mut found) = self.first_with_data(wait, wait.sources.len()).await? else {
                return Ok(None);
            };
            // Those before it may have got something since; they count if they had it before
            // this one was taken from.
            while let Some(earlier) = self.first_with_data(wait, found).await? {
                found = earlier;
            }
            if let Some(reply) = self.take_from(wait, &wait.sources[found]).await? {
                return Ok(Some(reply));
            }
        }
    }

    /// The first of so many keys that exists.
    async fn first_with_data(&self, wait: &Wait, count: usize) -> Result<Option<usize>, Failure> {
        let looks = wait.sources.iter().take(count).map(|source| {
            let mut look = BytesMut::new();
            build::command(&mut look, [&b"EXISTS"[..], &source.key]);
            self.ask_held(wait, source, look, 0)
        });
        for (at, look) in join_all(looks).await.into_iter().enumerate() {
            // An error is for the command itself to tell.
            let reply = look?;
            if resp::is_error(&reply) || resp::as_int(&reply).is_some_and(|count| count > 0) {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// What the command gives for this key; None when it gives nothing.
    async fn take_from(
        self: &Rc<Self>,
        wait: &Wait,
        source: &Source,
    ) -> Result<Option<Bytes>, Failure> {
        if self.is_fenced() && wait.take != Take::Streams {
            let reply = self.take_fenced(wait, source).await;
            return Ok((!resp::kind(&reply).is_null()).then_some(reply));
        }
        let mut request = BytesMut::from(script::MULTI);
        request.extend_from_slice(&source.command);
        request.extend_from_slice(script::EXEC);
        let reply = self.ask_held(wait, source, request, 2).await?;
        if resp::is_error(&reply) {
            return Ok(Some(reply));
        }
        let first = resp::elements(&reply).next();
        Ok(first
            .filter(|reply| !resp::kind(reply).is_null())
            .map(|first| reply.slice_ref(first)))
    }

    /// The same, as any write is done while the fence is up.
    async fn take_fenced(self: &Rc<Self>, wait: &Wait, source: &Source) -> Bytes {
        let place = Part {
            shard: source.place.shard,
            db: wait.db,
        };
        let mut plan = Plan::new(wait.protocol);
        with_command(&source.command, |command| {
            let key = command.args().position(|arg| arg == &source.key[..]);
            plan.add_whole(place, command, &[key.unwrap_or_default()]);
        });
        let replies = Inbox::<Bytes>::new();
        let inbox = Rc::clone(&replies);
        self.transact(plan, Answer::Bare, move |reply| {
            inbox.push(Bytes::copy_from_slice(reply));
        });
        replies.next(None).await.unwrap_or_default()
    }

    /// Sends over the client's link; the reply comes when nothing of its slot is settling.
    async fn ask_held(
        &self,
        wait: &Wait,
        source: &Source,
        request: BytesMut,
        swallow: u32,
    ) -> Result<Bytes, Failure> {
        let inbox = Inbox::<Reply>::new();
        let sink = Rc::<Inbox<Reply>>::clone(&inbox);
        let how = How {
            swallow,
            isolation: self.hold(Some(source.place.slot)),
            is_script: false,
        };
        wait.links[usize::from(source.place.shard)].send(&[&request], how, sink, 0)?;
        match inbox.next(None).await {
            Some((_, reply)) => reply,
            None => Err(super::no_reply()),
        }
    }

    /// Reads all streams until two rounds agree.
    async fn read_streams(self: &Rc<Self>, wait: &Wait) -> Result<Option<Bytes>, Failure> {
        let mut before = self.read_each(wait).await?;
        for _ in 1..ROUNDS_MAX {
            if before.is_none() {
                break;
            }
            let now = self.read_each(wait).await?;
            if now == before {
                break;
            }
            before = now;
        }
        Ok(before)
    }

    /// Reads all streams once, at once. What was read is handed on, whatever else failed.
    async fn read_each(self: &Rc<Self>, wait: &Wait) -> Result<Option<Bytes>, Failure> {
        let reads = wait
            .sources
            .iter()
            .map(|source| self.take_from(wait, source));
        let (mut read, mut error, mut failed) = (Vec::new(), None, None);
        for one in join_all(reads).await {
            match one {
                Ok(Some(reply)) if resp::is_error(&reply) => error = error.or(Some(reply)),
                Ok(Some(reply)) => read.push(reply),
                Ok(None) => {}
                Err(failure) => failed = failed.or(Some(failure)),
            }
        }
        match (read.is_empty(), error, failed) {
            (false, ..) => Ok(Some(merged(&read, wait.protocol))),
            (true, Some(error), _) => Ok(Some(error)),
            (true, None, Some(failure)) => Err(failure),
            (true, None, None) => Ok(None),
        }
    }
}

/// The streams of several replies in one.
fn merged(replies: &[Bytes], protocol: Protocol) -> Bytes {
    let is_map = |reply: &Bytes| resp::kind(reply) == Kind::Map;
    let mut out = BytesMut::new();
    let elements = replies.iter().map(|reply| resp::elements(reply).count());
    match replies.iter().all(is_map) {
        true => build::map_header(&mut out, protocol, elements.sum::<usize>() / 2),
        false => build::array_header(&mut out, elements.sum()),
    }
    for element in replies.iter().flat_map(|reply| resp::elements(reply)) {
        out.extend_from_slice(element);
    }
    out.freeze()
}

impl Hub {
    /// Has the shards tell when one of these keys is changed. Whatever is changed after this has
    /// returned will be told.
    ///
    /// # Errors
    /// A shard is down.
    pub(super) async fn watch(&self, sources: &[Source]) -> Result<(), Failure> {
        let inbox = Inbox::<Reply>::new();
        for source in sources {
            let mut look = BytesMut::new();
            // In whichever database: keys are told by their names.
            build::command(&mut look, [&b"EXISTS"[..], &source.key]);
            let sink = Rc::<Inbox<Reply>>::clone(&inbox);
            self.feed(source.place.shard).send(&look, sink, 0)?;
        }
        for _ in sources {
            if let Some((_, answer)) = inbox.next(None).await {
                answer?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_several_replies_become_one() {
        let array = |name: &str| Bytes::from(format!("*1\r\n*2\r\n$1\r\n{name}\r\n*0\r\n"));
        let both = merged(&[array("a"), array("b")], Protocol::Resp2);
        assert_eq!(
            &both[..],
            b"*2\r\n*2\r\n$1\r\na\r\n*0\r\n*2\r\n$1\r\nb\r\n*0\r\n"
        );
        let map = |name: &str| Bytes::from(format!("%1\r\n$1\r\n{name}\r\n*0\r\n"));
        let both = merged(&[map("a"), map("b")], Protocol::Resp3);
        assert_eq!(&both[..], b"%2\r\n$1\r\na\r\n*0\r\n$1\r\nb\r\n*0\r\n");
    }
}

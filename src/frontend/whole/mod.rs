//! Commands about the whole keyspace, or about every shard.
//!
//! Each waits until all that the client asked before is answered, asks the shards, and answers;
//! what the client sends behind it waits meanwhile. The keys that lockstep keeps on the shards
//! are neither shown nor counted.
//!
//! * [`keys`]: KEYS, DBSIZE, RANDOMKEY;
//! * [`scan`]: SCAN, one cursor over all shards.

mod keys;
mod scan;

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use tokio::task::spawn_local;

use super::Context;
use super::dispatch::{Dispatcher, Flow};
use super::session::Want;
use crate::engine::lanes::Links;
use crate::keyspace::{Merge, Whole};
use crate::metrics::Family;
use crate::resp::{self, Command, Lane, build};

/// One such command under way.
struct Inquiry {
    context: Rc<Context>,
    lane: Lane,
    links: Links,
    /// The command's arguments, its name first.
    args: Vec<Bytes>,
}

/// The reply, or the error that is the reply.
type Replied = Result<BytesMut, BytesMut>;

impl Dispatcher {
    /// Answers when the shards have; nothing of this client overtakes it.
    pub(super) fn whole(&mut self, whole: Whole, command: &Command<'_>) -> Flow {
        if !self.session.is_now(Want::Idle) {
            return Flow::Wait;
        }
        self.counted(Family::Split);
        if whole == Whole::Wait {
            return self.wait(command);
        }
        let (slot, session) = (self.session.open_slot(), Rc::clone(&self.session));
        let inquiry = Inquiry {
            context: Rc::clone(&self.context),
            lane: self.lane,
            links: Rc::clone(&self.links),
            args: command.args().map(Bytes::copy_from_slice).collect(),
        };
        spawn_local(async move {
            let (Ok(reply) | Err(reply)) = inquiry.answer(whole).await;
            session.complete(slot, &reply);
        });
        Flow::Bar
    }
}

impl Dispatcher {
    /// WAIT, on connections of its own: it may take long.
    fn wait(&mut self, command: &Command<'_>) -> Flow {
        let (slot, session) = (self.session.open_slot(), Rc::clone(&self.session));
        let mut request = BytesMut::new();
        command.encode(&mut request);
        let done = move |replies: Result<Vec<Bytes>, BytesMut>| {
            let (Ok(reply) | Err(reply)) = replies.map(|replies| merged(Merge::Least, &replies));
            session.complete(slot, &reply);
        };
        let engine = &self.context.engine;
        self.waiting = Some(engine.wait_for_replicas(request, done));
        Flow::Bar
    }
}

impl Inquiry {
    async fn answer(&self, whole: Whole) -> Replied {
        match whole {
            Whole::Scan => self.scan().await,
            Whole::Keys => self.keys().await,
            Whole::DbSize => self.db_size().await,
            Whole::RandomKey => self.random_key().await,
            Whole::Every(merge) => self.every(merge).await,
            // Dealt with before: it must end with its client.
            Whole::Wait => self.every(Merge::Least).await,
        }
    }

    /// The command as it is, to every shard.
    async fn every(&self, merge: Merge) -> Replied {
        let replies = {
            let engine = &self.context.engine;
            engine.ask_all(&self.links, &self.encoded()).all().await?
        };
        Ok(merged(merge, &replies))
    }

    fn encoded(&self) -> BytesMut {
        let mut out = BytesMut::new();
        build::command(&mut out, &self.args);
        out
    }
}

/// One reply from those of all shards.
fn merged(merge: Merge, replies: &[Bytes]) -> BytesMut {
    let ints = replies.iter().filter_map(|reply| resp::as_int(reply));
    let mut out = BytesMut::new();
    match merge {
        Merge::First => out.extend_from_slice(replies.first().map_or(&b""[..], |first| first)),
        Merge::Sum => build::int(&mut out, ints.sum()),
        Merge::Least => build::int(&mut out, ints.min().unwrap_or_default()),
    }
    out
}

/// An error reply.
fn error(text: impl AsRef<[u8]>) -> BytesMut {
    let mut out = BytesMut::new();
    build::error(&mut out, text);
    out
}

/// One command, encoded.
fn request<I>(args: I) -> BytesMut
where
    I: IntoIterator<IntoIter: ExactSizeIterator, Item: AsRef<[u8]>>,
{
    let mut out = BytesMut::new();
    build::command(&mut out, args);
    out
}

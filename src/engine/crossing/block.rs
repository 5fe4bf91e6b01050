//! BLMOVE and BRPOPLPUSH over two shards: waiting takes nothing, and what takes does not wait.
//!
//! As for other commands that wait on several shards ([`crate::engine::waiting`]) the source's
//! shard is asked to tell when the key has changed. Whenever it has, and at first, the move is
//! tried, as LMOVE would be. A move that has begun is finished, whether or not the client is still
//! there, as one Redis would have pushed the element before it found that nobody reads the reply.
//! Among several who wait, the one whose move comes first is served.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::Instant;

use super::{Crossing, Deed, Spot};
use crate::backend::{Failure, How};
use crate::engine::Engine;
use crate::engine::blocking::{Berth, Taken, UNBLOCKED, Unblock};
use crate::engine::channels::Hub;
use crate::engine::inbox::{Inbox, Reply};
use crate::engine::waiting::{Registered, Source};
use crate::resp::{self, build};
use crate::txn::script;

/// How a command waits.
pub struct Patience {
    /// The command with keys that are never there: what is wrong with its other arguments is
    /// wrong with it as well.
    pub dry: Bytes,
    /// When the waiting ends; None: never.
    pub until: Option<Instant>,
}

impl Engine {
    /// Waits until a move can be made, and calls `done` once with the reply. Aborting it ends the
    /// waiting.
    pub fn cross_patiently(
        self: &Rc<Self>,
        hub: &Rc<Hub>,
        crossing: Crossing,
        patience: Patience,
        taken: Taken,
        done: impl FnOnce(&[u8]) + 'static,
    ) -> AbortHandle {
        let (engine, hub) = (Rc::clone(self), Rc::clone(hub));
        let task = spawn_local(async move {
            let waited = engine.cross_when_ready(&hub, &crossing, &patience, &taken.0);
            let reply = match waited.await {
                Ok(Some(reply)) => reply,
                Ok(None) => {
                    let mut reply = BytesMut::new();
                    build::null_array(&mut reply, crossing.lane.protocol);
                    reply.freeze()
                }
                Err(failure) => engine.not_read(failure),
            };
            drop(taken);
            done(&reply);
        });
        task.abort_handle()
    }

    async fn cross_when_ready(
        self: &Rc<Self>,
        hub: &Rc<Hub>,
        crossing: &Crossing,
        patience: &Patience,
        berth: &Berth,
    ) -> Result<Option<Bytes>, Failure> {
        if let Some(error) = self.refusal_of(&patience.dry).await? {
            return Ok(Some(error));
        }
        let reply = self.cross_now(crossing).await;
        if !resp::kind(&reply).is_null() {
            return Ok(Some(reply));
        }
        let Deed::Move(deed) = &crossing.deed else {
            return Ok(Some(reply));
        };
        let source = [source(&deed.from)];
        let news = Registered::new(hub, &source);
        loop {
            hub.watch(&source).await?;
            // Only who sees something stands in line for it.
            if self.is_there(crossing, &deed.from).await? {
                let reply = self.cross_now(crossing).await;
                if !resp::kind(&reply).is_null() {
                    return Ok(Some(reply));
                }
            }
            let over = async {
                match patience.until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = news.task.notified() => {}
                () = over => return Ok(None),
                how = berth.ended() => match how {
                    Some(Unblock::AsTimeout) => return Ok(None),
                    Some(Unblock::WithError) => return Ok(Some(Bytes::from_static(UNBLOCKED))),
                    None => {}
                },
            }
        }
    }

    /// What a server has against this command, which does not wait between MULTI and EXEC.
    async fn refusal_of(&self, dry: &[u8]) -> Result<Option<Bytes>, Failure> {
        let inbox = Inbox::<Reply>::new();
        let sink = Rc::<Inbox<Reply>>::clone(&inbox);
        let request = [script::MULTI, dry, script::EXEC];
        self.link(0).send(&request, How::behind(2), sink, 0)?;
        let reply = match inbox.next(None).await {
            Some((_, reply)) => reply?,
            None => return Err(crate::engine::no_reply()),
        };
        let error = match resp::is_error(&reply) {
            true => Some(&reply[..]),
            false => resp::elements(&reply).find(|reply| resp::is_error(reply)),
        };
        Ok(error.map(|error| reply.slice_ref(error)))
    }

    async fn is_there(&self, crossing: &Crossing, spot: &Spot) -> Result<bool, Failure> {
        let mut look = BytesMut::new();
        build::command(&mut look, [&b"EXISTS"[..], &spot.key]);
        let reply = self.read_held(&crossing.links, spot, &look).await?;
        Ok(resp::as_int(&reply) != Some(0))
    }

    /// In a task of its own, which goes on whatever becomes of who waits here.
    async fn cross_now(self: &Rc<Self>, crossing: &Crossing) -> Bytes {
        let replies = Inbox::<Bytes>::new();
        let sink = Rc::clone(&replies);
        self.cross(crossing.clone(), move |reply| {
            sink.push(Bytes::copy_from_slice(reply));
        });
        replies.next(None).await.unwrap_or_default()
    }
}

/// The key as what is waited for; it is not taken from by a command of its own.
fn source(spot: &Spot) -> Source {
    Source {
        key: spot.key.clone(),
        place: spot.place,
        command: Bytes::new(),
    }
}

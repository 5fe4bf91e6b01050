//! Commands that wait for data and then change it, over several slots of one shard.
//!
//! Such a command (BLMOVE from slot to slot, BLPOP of two keys) must not take effect while one
//! of its slots is settling, and a shard that lets it wait serves it whenever there is data. So
//! lockstep waits instead: it tries the command between MULTI and EXEC, where it never waits,
//! guarded as everything over several slots is ([`super::guarded`]); when there was nothing to
//! be had, it tries again as soon as one of the keys has changed. That it is told by the shard:
//! `CLIENT TRACKING` on a connection of its own, on which nothing has an effect. Each try comes
//! behind the question that makes the shard track the keys, so no change is missed.
//!
//! What is taken is taken by one try, whose reply is the client's. Among several who wait, the
//! one whose try comes first is served, not the one who came first.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{Instant, timeout_at};

use super::blocking::{Berth, Taken, UNBLOCKED, Unblock};
use super::inbox::Inbox;

use super::{Answer, Engine};
use crate::backend::{Failure, Pinned};
use crate::resp::{self, CommandScanner, Kind, Limits, Protocol, Scan, build};
use crate::txn::Part;
use crate::txn::plan::Plan;

/// A command that waits.
pub struct Patient {
    /// Where its keys are, in which database.
    pub place: Part,
    /// The protocol of its reply.
    pub protocol: Protocol,
    /// The command in canonical form.
    pub raw: Bytes,
    /// Numbers of the arguments that are keys.
    pub keys: Vec<usize>,
    /// How long it waits; for ever without.
    pub limit: Option<Duration>,
}

impl Engine {
    /// Tries a command until there is something to be had, and calls `done` once with its reply.
    /// Aborting it ends the waiting, and so does CLIENT UNBLOCK of who has `taken` the berth; a
    /// try that is under way is finished.
    pub fn wait_guarded(
        self: &Rc<Self>,
        patient: Patient,
        taken: Taken,
        done: impl FnOnce(&[u8]) + 'static,
    ) -> AbortHandle {
        let engine = Rc::clone(self);
        let task = spawn_local(async move {
            let reply = engine.try_until_served(&patient, &taken.0).await;
            drop(taken);
            done(&reply.unwrap_or_else(|failure| engine.nothing_done(failure)));
        });
        task.abort_handle()
    }

    /// A failure here is one of the waiting alone, which has no effect.
    fn nothing_done(&self, failure: Failure) -> Bytes {
        let (Failure::NeverSent(cause) | Failure::MaybeSent(cause)) = failure;
        let failure = Failure::NeverSent(cause);
        self.metrics.errors[failure.kind()].increment(1);
        let mut reply = BytesMut::new();
        build::error(&mut reply, failure.to_string());
        reply.freeze()
    }

    async fn try_until_served(
        self: &Rc<Self>,
        patient: &Patient,
        berth: &Berth,
    ) -> Result<Bytes, Failure> {
        let until = patient.limit.map(|limit| Instant::now().checked_add(limit));
        let reply = self.try_once(patient).await;
        if !is_nothing(&reply) {
            return Ok(reply);
        }
        let mut connection = self
            .waiters(patient.place.shard)
            .get(Protocol::Resp3)
            .await?;
        connection.select(patient.place.db).await?;
        ask(&mut connection, TRACKING).await?;
        let question = patient.question();
        loop {
            ask(&mut connection, &question).await?;
            let reply = self.try_once(patient).await;
            if !is_nothing(&reply) {
                return Ok(reply);
            }
            berth.stay();
            let end = match until.flatten() {
                None => news_or_end(&mut connection, berth).await?,
                Some(until) => match timeout_at(until, news_or_end(&mut connection, berth)).await {
                    Ok(end) => end?,
                    Err(_) => Some(Unblock::AsTimeout),
                },
            };
            match end {
                None => {}
                Some(Unblock::AsTimeout) => return Ok(patient.in_vain()),
                Some(Unblock::WithError) => return Ok(Bytes::from_static(UNBLOCKED)),
            }
        }
    }

    /// In a task of its own: a transaction that has begun is finished, whoever has gone.
    async fn try_once(self: &Rc<Self>, patient: &Patient) -> Bytes {
        let replies = Inbox::<Bytes>::new();
        let sink = Rc::clone(&replies);
        self.transact(patient.plan(), Answer::Bare, move |reply| {
            sink.push(Bytes::copy_from_slice(reply));
        });
        replies.next(None).await.unwrap_or_default()
    }
}

const TRACKING: &[u8] = b"*3\r\n$6\r\nCLIENT\r\n$8\r\nTRACKING\r\n$2\r\nON\r\n";

impl Patient {
    fn plan(&self) -> Plan {
        let mut plan = Plan::new(self.protocol);
        with_command(&self.raw, |command| {
            plan.add_whole(self.place, command, &self.keys)
        });
        plan
    }

    /// Reads the keys, so that the shard tells when they change.
    fn question(&self) -> BytesMut {
        let mut out = BytesMut::new();
        with_command(&self.raw, |command| {
            let mut words: Vec<&[u8]> = vec![b"EXISTS"];
            words.extend(self.keys.iter().filter_map(|&key| command.arg(key)));
            build::command(&mut out, words);
        });
        out
    }

    /// The reply when the time is up: the same for all commands that wait.
    fn in_vain(&self) -> Bytes {
        let mut out = BytesMut::new();
        build::null_array(&mut out, self.protocol);
        out.freeze()
    }
}

/// Scans a command again that was scanned before, under the client's own limits.
pub(super) fn with_command(raw: &[u8], act: impl FnOnce(&resp::Command<'_>)) {
    let mut scanner = CommandScanner::new(Limits {
        command_bytes_max: usize::MAX,
        bulk_bytes_max: usize::MAX,
        ..Limits::default()
    });
    if let Ok(Scan::Command { .. }) = scanner.scan(raw) {
        act(&scanner.command(raw));
    }
}

fn is_nothing(reply: &[u8]) -> bool {
    matches!(
        resp::kind(reply),
        Kind::NullArray | Kind::NullBulk | Kind::Null
    )
}

/// Waits for the reply, past news that came in front of it.
async fn ask(connection: &mut Pinned, question: &[u8]) -> Result<(), Failure> {
    let mut replies = connection.exchange(question, 1).await?;
    while replies.first().is_some_and(|reply| is_news(reply)) {
        replies = connection.exchange(b"", 1).await?;
    }
    match replies.first().filter(|reply| resp::is_error(reply)) {
        None => Ok(()),
        Some(error) => {
            let words = String::from_utf8_lossy(resp::error_text(error)).into_owned();
            Err(Failure::NeverSent(crate::backend::Cause::new(words)))
        }
    }
}

/// Waits until the shard says that a key has changed, or CLIENT UNBLOCK says how to end.
async fn news_or_end(connection: &mut Pinned, berth: &Berth) -> Result<Option<Unblock>, Failure> {
    let mut news = pin!(news(connection));
    loop {
        tokio::select! {
            came = &mut news => return came.map(|()| None),
            how = berth.ended() => if how.is_some() {
                return Ok(how);
            },
        }
    }
}

/// Waits until the shard says that a key has changed.
async fn news(connection: &mut Pinned) -> Result<(), Failure> {
    while !is_news(&connection.exchange_patiently(b"").await?) {}
    Ok(())
}

fn is_news(frame: &[u8]) -> bool {
    frame.first() == Some(&b'>')
}

//! Commands about the whole keyspace, or about every shard.
//!
//! Each waits until all that the client asked before is answered, asks the shards, and answers;
//! what the client sends behind it waits meanwhile. The keys that lockstep keeps on the shards
//! are neither shown nor counted.
//!
//! * [`config`]: CONFIG SET, SLOWLOG, LATENCY;
//! * [`debug`]: DEBUG, as far as it does no harm;
//! * [`info`]: INFO of all shards;
//! * [`keys`]: KEYS, DBSIZE, RANDOMKEY;
//! * [`scan`]: SCAN, one cursor over all shards.

mod config;
mod debug;
mod info;
mod keys;
mod scan;

use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::task::spawn_local;

use super::Context;
use super::dispatch::{Dispatcher, Flow};
use super::session::Want;
use crate::engine::lanes::Links;
use crate::keyspace::{Merge, Whole};
use crate::metrics::Family;
use crate::resp::{self, Command, Kind, Lane, build};
use crate::txn::plan::Plan;

/// One such command under way.
struct Inquiry {
    context: Rc<Context>,
    lane: Lane,
    links: Links,
    /// The command's arguments, its name first.
    args: Vec<Bytes>,
}

/// One that was queued: which reply it is in the transaction's.
pub(super) struct Queued {
    index: usize,
    whole: Whole,
    inquiry: Inquiry,
}

/// The reply, or the error that is the reply.
type Replied = Result<BytesMut, BytesMut>;

impl Dispatcher {
    /// Answers when the shards have; nothing of this client overtakes it.
    pub(super) fn whole(&mut self, whole: Whole, command: &Command<'_>) -> Flow {
        if !self.session.is_now(Want::Idle) {
            return Flow::Wait;
        }
        if let Some(flow) = self.refuse_whole_while_busy(whole) {
            return flow;
        }
        self.counted(Family::Split);
        if whole == Whole::Wait {
            return self.wait(command);
        }
        let (slot, session) = (self.session.open_slot(), Rc::clone(&self.session));
        let inquiry = self.inquiry(command);
        spawn_local(async move {
            let (Ok(reply) | Err(reply)) = inquiry.answer(whole).await;
            session.complete(slot, &reply);
        });
        Flow::Bar
    }
}

impl Dispatcher {
    fn inquiry(&self, command: &Command<'_>) -> Inquiry {
        Inquiry {
            context: Rc::clone(&self.context),
            lane: self.lane,
            links: Rc::clone(&self.links),
            args: command.args().map(Bytes::copy_from_slice).collect(),
        }
    }

    /// Of a queue that is being planned; its reply comes later.
    pub(super) fn add_whole(&mut self, plan: &mut Plan, whole: Whole, command: &Command<'_>) {
        let index = plan.add_ready(Bytes::new());
        let inquiry = self.inquiry(command);
        self.inquiries.push(Queued {
            index,
            whole,
            inquiry,
        });
    }

    /// Runs a planned queue. What it asks of lockstep and every shard is no part of the data, and
    /// is asked before the rest runs.
    pub(super) fn run_filled(&mut self, mut plan: Plan, run: impl FnOnce(Plan) + 'static) -> Flow {
        let inquiries = std::mem::take(&mut self.inquiries);
        if inquiries.is_empty() {
            run(plan);
            return Flow::Bar;
        }
        let (engine, trace) = (Rc::clone(&self.context.engine), self.trace.clone());
        spawn_local(async move {
            for queued in inquiries {
                let (Ok(reply) | Err(reply)) = queued.inquiry.answer(queued.whole).await;
                plan.fill(queued.index, reply.freeze());
            }
            engine.under(trace);
            run(plan);
            engine.under(None);
        });
        Flow::Bar
    }

    /// WAIT, on connections of its own: it may take long.
    fn wait(&mut self, command: &Command<'_>) -> Flow {
        let (slot, session) = (self.session.open_slot(), Rc::clone(&self.session));
        let mut request = BytesMut::new();
        command.encode(&mut request);
        let done = move |replies: Result<Vec<Bytes>, BytesMut>| {
            let (Ok(reply) | Err(reply)) = replies.map(|replies| merged(Merge::Least, &replies));
            session.complete(slot, &reply);
        };
        let berth = Arc::clone(self.berth.get_or_insert_default());
        let engine = &self.context.engine;
        self.waiting = Some(engine.wait_for_replicas(request, &berth, done));
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
            Whole::Info => self.info().await,
            Whole::ConfigSet => self.config_set().await,
            Whole::SlowLog => self.slow_log().await,
            Whole::LatencyHistory => self.latency_history().await,
            Whole::LatencyLatest => self.latency_latest().await,
            Whole::LatencyHistogram => Ok(self.latency_histogram()),
            Whole::ResetStat => self.reset_stat().await,
            Whole::Debug => self.debug().await,
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
        if merge == Merge::Texts {
            return Ok(self.texts(&replies));
        }
        Ok(merged(merge, &replies))
    }

    fn texts(&self, replies: &[Bytes]) -> BytesMut {
        if replies.iter().all(|reply| reply == &replies[0]) {
            return merged(Merge::First, replies);
        }
        let mut text = Vec::new();
        for (shard, reply) in (0..).zip(replies) {
            let address = self.context.engine.address(shard);
            text.extend_from_slice(format!("# shard {address}\n").as_bytes());
            text.extend_from_slice(readable(reply));
            text.push(b'\n');
        }
        let mut out = BytesMut::new();
        build::verbatim(&mut out, self.lane.protocol, text);
        out
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
        Merge::First | Merge::Texts => {
            out.extend_from_slice(replies.first().map_or(&b""[..], |first| first))
        }
        Merge::Sum => build::int(&mut out, resp::number::total(ints)),
        Merge::Least => build::int(&mut out, ints.min().unwrap_or_default()),
    }
    out
}

/// A text, without the format that RESP3 puts in front of one.
fn readable(reply: &[u8]) -> &[u8] {
    let text = resp::as_bulk(reply).unwrap_or_default();
    match resp::kind(reply) {
        Kind::Verbatim => text.get(4..).unwrap_or_default(),
        _ => text,
    }
}

/// An array of these replies.
fn array<'a>(elements: impl ExactSizeIterator<Item = &'a [u8]>) -> BytesMut {
    let mut out = BytesMut::new();
    build::array_header(&mut out, elements.len());
    elements.for_each(|element| out.extend_from_slice(element));
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

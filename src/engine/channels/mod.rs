//! Subscriptions: who listens to what, over one [`Feed`] per shard for all clients of a worker.
//!
//! Each channel and pattern that anybody listens to is subscribed to on *every* shard, once.
//! PUBLISH goes to the shard of the channel's slot, so that the messages of a channel keep their
//! order; but scripts publish where their keys live, and keyspace events come from where the key
//! is. So a message is heard wherever it was said, and heard once, as it is said on one shard.
//!
//! A client is told that it is subscribed when the shards have confirmed it: all but those that
//! are down, which nobody can publish on either. A channel whose own shard is down is refused.
//! When a shard's connection is lost, its subscriptions are renewed with the next one. What was
//! published in between is lost, as it is for clients of one Redis that was restarted; it is
//! logged and counted.

pub mod audience;
mod change;
mod wakeups;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::backend::Cause;
use crate::backend::feed::{Feed, FeedOwner};
use crate::keyspace::{ChannelKind, Topology};
use crate::metrics::{Metrics, Portion};
use crate::resp::{self, build};
use crate::txn::names;
use audience::Audience;
use change::Change;
pub use change::Pending;
pub use wakeups::Wakeups;

/// Messages kept for clients whose subscriptions are not confirmed yet, over all of a worker; more
/// are lost to them.
const EARLY_BYTES_MAX: usize = 4 << 20;

/// A client that listens.
pub trait Listener {
    /// A message that is for it: the elements of the push, without its header.
    fn hear(self: Rc<Self>, elements: &[u8]);
}

/// What can be listened to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic {
    /// A channel, a pattern, or a shard channel.
    pub kind: ChannelKind,
    /// Its name.
    pub name: Bytes,
}

/// The subscriptions of one worker.
pub struct Hub {
    feeds: Vec<Rc<Feed>>,
    topology: Arc<Topology>,
    audience: Arc<Audience>,
    metrics: Arc<Metrics>,
    topics: [RefCell<HashMap<Bytes, Entry>>; 3],
    /// Subscriptions of clients.
    held: Cell<usize>,
    /// Bytes of all [`Holder::early`].
    early_bytes: Cell<usize>,
    wakeups: Wakeups,
    gauges: Gauges,
}

/// This worker's part of the gauges.
struct Gauges {
    subscriptions: Portion,
    upstream: Vec<Portion>,
}

/// A channel or pattern with its listeners, by client.
#[derive(Default)]
struct Entry {
    holders: BTreeMap<u64, Holder>,
    /// Whether a subscription to it was confirmed since a shard was last lost.
    is_steady: bool,
}

struct Holder {
    listener: Rc<dyn Listener>,
    /// It was told that it is subscribed.
    is_told: bool,
    /// What it is to hear after that: a shard that has confirmed counts it among the receivers of
    /// a message while another has still to confirm.
    early: Vec<Bytes>,
}

impl Hub {
    /// Over these feeds, one for each shard; their tasks are to be run with it as their owner.
    pub fn new(
        feeds: Vec<Rc<Feed>>,
        topology: Arc<Topology>,
        audience: Arc<Audience>,
        metrics: Arc<Metrics>,
    ) -> Rc<Self> {
        let upstream = metrics.shards.iter();
        let gauges = Gauges {
            subscriptions: Portion::new(&metrics.subscriptions),
            upstream: upstream
                .map(|shard| Portion::new(&shard.subscriptions))
                .collect(),
        };
        Rc::new(Self {
            feeds,
            topology,
            audience,
            metrics,
            topics: Default::default(),
            held: Cell::new(0),
            early_bytes: Cell::new(0),
            wakeups: Wakeups::default(),
            gauges,
        })
    }

    /// The number of those who listen.
    pub fn audience(&self) -> &Arc<Audience> {
        &self.audience
    }

    /// Subscribes a client to topics that it does not listen to yet. What is said on them is kept
    /// for it until [`Hub::told`].
    pub fn join(
        self: &Rc<Self>,
        client: u64,
        listener: &Rc<dyn Listener>,
        topics: Vec<Topic>,
    ) -> Pending {
        let mut change = Change::new(self);
        for (number, topic) in topics.iter().enumerate() {
            let (is_first, is_steady) = self.enter(client, listener, topic);
            for (shard, feed) in self.feeds.iter().enumerate() {
                if is_first || !is_steady || !feed.is_up() {
                    change.ask(feed, shard, number, &command(topic.kind, true, &topic.name));
                }
            }
        }
        self.publish();
        change.pending(topics)
    }

    fn enter(&self, client: u64, listener: &Rc<dyn Listener>, topic: &Topic) -> (bool, bool) {
        let mut topics = self.topics[topic.kind as usize].borrow_mut();
        let entry = topics.entry(topic.name.clone()).or_default();
        let is_first = entry.holders.is_empty();
        let holder = Holder {
            listener: Rc::clone(listener),
            is_told: false,
            early: Vec::new(),
        };
        if entry.holders.insert(client, holder).is_none() {
            self.held.set(self.held.get() + 1);
        }
        self.audience.enter(topic.kind, &topic.name, is_first);
        (is_first, entry.is_steady)
    }

    /// The client was told that it is subscribed to these: from here on it hears.
    pub fn told(&self, client: u64, topics: &[Topic]) {
        let mut heard = 0;
        for topic in topics {
            let mut all = self.topics[topic.kind as usize].borrow_mut();
            if let Some(entry) = all.get_mut(&topic.name) {
                entry.is_steady = true;
                if let Some(holder) = entry.holders.get_mut(&client) {
                    holder.is_told = true;
                    for message in self.take_early(holder) {
                        Rc::clone(&holder.listener).hear(&message);
                        heard += 1;
                    }
                }
            }
        }
        self.metrics.messages.increment(heard);
    }

    fn keep_early(&self, holder: &mut Holder, elements: &[u8]) {
        let bytes = self.early_bytes.get() + elements.len();
        if bytes <= EARLY_BYTES_MAX {
            self.early_bytes.set(bytes);
            holder.early.push(Bytes::copy_from_slice(elements));
        }
    }

    fn take_early(&self, holder: &mut Holder) -> Vec<Bytes> {
        let early = std::mem::take(&mut holder.early);
        let bytes: usize = early.iter().map(Bytes::len).sum();
        self.early_bytes.set(self.early_bytes.get() - bytes);
        early
    }

    /// Takes back subscriptions; the client hears nothing of them from here on. Those that
    /// nobody else has are taken back on the shards as well.
    pub fn leave(self: &Rc<Self>, client: u64, topics: Vec<Topic>) -> Pending {
        let mut change = Change::new(self);
        for (number, topic) in topics.iter().enumerate() {
            let mut all = self.topics[topic.kind as usize].borrow_mut();
            let Some(entry) = all.get_mut(&topic.name) else {
                continue;
            };
            let Some(mut holder) = entry.holders.remove(&client) else {
                continue;
            };
            self.take_early(&mut holder);
            self.held.set(self.held.get() - 1);
            let is_last = entry.holders.is_empty();
            self.audience.leave(topic.kind, &topic.name);
            if is_last {
                change.departs(topic);
                all.remove(&topic.name);
                for (shard, feed) in self.feeds.iter().enumerate() {
                    let command = command(topic.kind, false, &topic.name);
                    change.ask(feed, shard, number, &command);
                }
            }
        }
        self.publish();
        change.pending(topics)
    }

    /// Who waits for keys.
    pub fn wakeups(&self) -> &Wakeups {
        &self.wakeups
    }

    /// The feed of a shard.
    pub fn feed(&self, shard: u16) -> &Rc<Feed> {
        &self.feeds[usize::from(shard)]
    }

    /// All feeds, in the order of the shards.
    pub fn feeds(&self) -> &[Rc<Feed>] {
        &self.feeds
    }

    fn publish(&self) {
        self.gauges.subscriptions.set(self.held.get());
        let topics = self.topics.iter();
        let upstream = topics.map(|topics| topics.borrow().len()).sum();
        for gauge in &self.gauges.upstream {
            gauge.set(upstream);
        }
    }

    fn say(&self, kind: ChannelKind, name: &[u8], elements: &[u8]) {
        let mut topics = self.topics[kind as usize].borrow_mut();
        let Some(entry) = topics.get_mut(name) else {
            return;
        };
        let mut count = 0;
        for holder in entry.holders.values_mut() {
            if holder.is_told {
                Rc::clone(&holder.listener).hear(elements);
                count += 1;
            } else {
                self.keep_early(holder, elements);
            }
        }
        self.metrics.messages.increment(count);
    }
}

impl FeedOwner for Hub {
    fn wanted(&self, _shard: u16, out: &mut BytesMut) -> usize {
        let mut count = 0;
        for kind in ChannelKind::ALL {
            let topics = self.topics[*kind as usize].borrow();
            for name in topics.keys() {
                out.extend_from_slice(&command(*kind, true, name));
            }
            count += topics.len();
        }
        count
    }

    fn lost(&self, shard: u16, cause: &Cause) {
        self.wakeups.wake_all();
        let mut interrupted = 0;
        for topics in &self.topics {
            for entry in topics.borrow_mut().values_mut() {
                entry.is_steady = false;
                interrupted += 1;
            }
        }
        if interrupted > 0 {
            self.metrics.shards[usize::from(shard)]
                .interruptions
                .increment(1);
            tracing::warn!(
                shard = self.topology.addresses()[usize::from(shard)],
                subscriptions = interrupted,
                %cause,
                "subscriptions are interrupted: messages may be lost until they are renewed"
            );
        }
    }

    fn pushed(&self, _shard: u16, frame: &[u8]) {
        let mut parts = resp::elements(frame);
        let (Some(kind), Some(second)) = (parts.next(), parts.next()) else {
            return;
        };
        let (kind, name) = (resp::as_bulk(kind), resp::as_bulk(second));
        let of = |element: Option<&[u8]>| -> Vec<u8> {
            element.and_then(resp::as_bulk).unwrap_or_default().to_vec()
        };
        let (kind, channel) = match (kind, name) {
            (Some(b"invalidate"), _) => return self.wakeups.wake(second),
            (Some(b"message"), Some(name)) => (ChannelKind::Plain, name.to_vec()),
            (Some(b"smessage"), Some(name)) => (ChannelKind::Shard, name.to_vec()),
            (Some(b"pmessage"), Some(_)) => (ChannelKind::Pattern, of(parts.next())),
            _ => return,
        };
        if is_ours(&channel, &of(parts.next())) {
            return;
        }
        self.say(kind, name.unwrap_or_default(), behind_header(frame));
    }
}

/// Whether a message is about what lockstep keeps for itself: from a channel of its own, or an
/// event of a key of its own.
fn is_ours(channel: &[u8], payload: &[u8]) -> bool {
    let event_of = |prefix: &[u8]| {
        let rest = channel.strip_prefix(prefix)?;
        let colon = rest.iter().position(|byte| *byte == b':')?;
        rest.get(colon + 1..)
    };
    names::is_reserved(channel)
        || event_of(b"__keyspace@").is_some_and(names::is_reserved)
        || (event_of(b"__keyevent@").is_some() && names::is_reserved(payload))
}

/// What follows the first line.
fn behind_header(frame: &[u8]) -> &[u8] {
    let end = frame.iter().position(|byte| *byte == b'\n');
    end.and_then(|end| frame.get(end + 1..)).unwrap_or_default()
}

fn command(kind: ChannelKind, is_wanted: bool, name: &[u8]) -> BytesMut {
    let verb = if is_wanted {
        kind.subscribe()
    } else {
        kind.unsubscribe()
    };
    let mut out = BytesMut::new();
    build::command(&mut out, [verb.as_bytes(), name]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_our_own_keys_are_ours() {
        assert!(is_ours(b"__lockstep:released:x", b"1"));
        assert!(is_ours(b"__keyspace@0__:__lockstep:lock:7", b"set"));
        assert!(is_ours(b"__keyevent@15__:expired", b"__lockstep:txn:1"));
        assert!(!is_ours(b"__keyspace@0__:k", b"__lockstep:"));
        assert!(!is_ours(b"__keyevent@0__:set", b"k"));
        assert!(!is_ours(b"news", b"__lockstep:"));
    }

    #[test]
    fn a_push_without_its_header_suits_both_protocols() {
        let frame = b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n";
        assert_eq!(behind_header(frame), &frame[4..]);
    }
}

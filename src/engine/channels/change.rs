//! A change of subscriptions, until the shards have confirmed it.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use tokio::task::spawn_local;

use super::{Hub, Topic};
use crate::backend::feed::Feed;
use crate::backend::{Failure, ReplySink};
use crate::engine::inbox::{self, Reply};
use crate::keyspace::ChannelKind;
use crate::resp::{self, build};

pub(super) type Inbox = inbox::Inbox<Reply>;

/// Collects what is asked of the shards.
pub(super) struct Change {
    hub: Rc<Hub>,
    inbox: Rc<Inbox>,
    asked: usize,
    departing: Vec<Topic>,
}

impl Change {
    pub(super) fn new(hub: &Rc<Hub>) -> Self {
        Self {
            hub: Rc::clone(hub),
            inbox: Inbox::new(),
            asked: 0,
            departing: Vec::new(),
        }
    }

    pub(super) fn ask(&mut self, feed: &Rc<Feed>, shard: usize, topic: usize, command: &BytesMut) {
        let sink: Rc<dyn ReplySink> = Rc::<Inbox>::clone(&self.inbox);
        let number = ((topic as u64) << 16) | shard as u64;
        self.asked += 1;
        if let Err(failure) = feed.send(command, sink, number) {
            self.inbox.push((number, Err(failure)));
        }
    }

    /// Nobody listens to this any more.
    pub(super) fn departs(&mut self, topic: &Topic) {
        self.departing.push(topic.clone());
    }

    pub(super) fn pending(self, topics: Vec<Topic>) -> Pending {
        Pending {
            hub: self.hub,
            inbox: self.inbox,
            left: self.asked,
            topics,
            departing: self.departing,
        }
    }
}

/// A change that was asked for.
pub struct Pending {
    hub: Rc<Hub>,
    inbox: Rc<Inbox>,
    left: usize,
    topics: Vec<Topic>,
    departing: Vec<Topic>,
}

impl Drop for Pending {
    fn drop(&mut self) {
        for topic in &self.departing {
            self.hub.audience.depart(topic.kind, &topic.name);
        }
    }
}

impl Pending {
    /// Whether nobody had to be asked.
    pub fn is_done(&self) -> bool {
        self.left == 0
    }

    /// Lets the shards answer, whatever they say.
    pub fn ignore(mut self) {
        spawn_local(async move {
            let _ = self.confirmed().await;
        });
    }

    /// What it is about.
    pub fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// Waits until every shard has answered or was lost.
    ///
    /// # Errors
    /// The error reply for the client: a shard's own, or that the shard where the channel is
    /// published is down, or for a pattern that all of them are.
    pub async fn confirmed(&mut self) -> Result<(), Bytes> {
        let mut refused = None;
        let mut failures: Vec<Vec<Failure>> = self.topics.iter().map(|_| Vec::new()).collect();
        while self.left > 0 {
            let Some((number, answer)) = self.inbox.next(None).await else {
                break;
            };
            self.left -= 1;
            let (topic, shard) = ((number >> 16) as usize, (number & 0xFFFF) as u16);
            match answer {
                Ok(frame) if resp::is_error(&frame) => refused = Some(frame),
                Ok(_) => {}
                Err(failure) => {
                    if self.is_home(topic, shard) {
                        refused = refused.or_else(|| Some(told(&failure)));
                    }
                    if let Some(failures) = failures.get_mut(topic) {
                        failures.push(failure);
                    }
                }
            }
        }
        let shards = self.hub.feeds().len();
        let hopeless = failures.iter().find(|failures| failures.len() == shards);
        match refused.or_else(|| Some(told(hopeless?.first()?))) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Whether messages of this channel are published on this shard.
    fn is_home(&self, topic: usize, shard: u16) -> bool {
        self.topics.get(topic).is_some_and(|topic| {
            topic.kind != ChannelKind::Pattern && self.hub.topology.shard_of(&topic.name) == shard
        })
    }
}

fn told(failure: &Failure) -> Bytes {
    let mut out = BytesMut::new();
    let (Failure::NeverSent(cause) | Failure::MaybeSent(cause)) = failure;
    build::error(&mut out, format!("ERR {cause}; not subscribed"));
    out.freeze()
}

//! Commands about channels: SUBSCRIBE and its kin, PUBLISH, PUBSUB.

use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::task::spawn_local;

use super::dispatch::{Dispatcher, Flow};
use super::refusal::{self, fixed};
use super::session::{Session, Want};
use crate::backend::{Failure, How, ReplySink};
use crate::engine::channels::audience::Audience;
use crate::engine::channels::{Listener, Pending, Topic};
use crate::keyspace::{ChannelKind, Channels, CommandSpec, Own, Treatment};
use crate::metrics::{ErrorKind, Family, Limit};
use crate::resp::{self, Command, Protocol, build};
use crate::txn::names;
use crate::txn::plan::Home;
use crate::txn::queue::{Queue, Target};

impl Dispatcher {
    /// A command about channels, outside MULTI.
    pub(super) fn channels(
        &mut self,
        what: Channels,
        spec: &CommandSpec,
        command: &Command<'_>,
    ) -> Flow {
        match what {
            Channels::Subscribe(kind) => self.subscribe(kind, command),
            Channels::Unsubscribe(kind) => self.unsubscribe(kind, command),
            Channels::Publish(kind) => self.publish(kind, command),
            Channels::Count(kind) => self.count_subscribers(kind, spec, command),
        }
    }

    /// Whether a client that listens in RESP2 may not give this command, in redis-server's words.
    pub(super) fn out_of_context(&self, spec: &CommandSpec) -> Option<String> {
        let is_free = !self.session.is_listening() || self.subscriber.protocol() == Protocol::Resp3;
        let is_allowed = matches!(
            spec.treatment,
            Treatment::Channels(Channels::Subscribe(_) | Channels::Unsubscribe(_))
                | Treatment::Own(Own::Ping | Own::Quit | Own::Reset)
        );
        (!is_free && !is_allowed).then(|| refusal::listens(spec))
    }

    /// PING of a client that listens in RESP2.
    pub(super) fn ping_listening(&mut self, command: &Command<'_>) -> Option<Flow> {
        let is_free = self.subscriber.protocol() == Protocol::Resp3 || self.subscriber.is_empty();
        if is_free || command.argc() > 2 {
            return None;
        }
        self.session.reply(|out| {
            build::array_header(out, 2);
            build::bulk(out, "pong");
            build::bulk(out, command.arg(1).unwrap_or_default());
        });
        Some(Flow::Next)
    }

    fn subscribe(&mut self, kind: ChannelKind, command: &Command<'_>) -> Flow {
        if !self.session.is_now(Want::Idle) {
            return Flow::Wait;
        }
        if command.args().skip(1).any(names::is_reserved) {
            return self.reject(fixed::RESERVED_CHANNEL);
        }
        let max = self.context.config().client_subscriptions_max;
        if self.subscriber.len() + command.argc() - 1 > max {
            self.context.metrics.limits_hit[Limit::Subscriptions].increment(1);
            return self.reject_as(ErrorKind::Limit, fixed::TOO_MANY_SUBSCRIPTIONS);
        }
        let (mut confirmation, mut topics) = (BytesMut::new(), Vec::new());
        for name in command.args().skip(1).map(Bytes::copy_from_slice) {
            if self.subscriber.add(kind, &name) {
                topics.push(Topic {
                    kind,
                    name: name.clone(),
                });
            }
            self.confirm(kind, kind.subscribe(), Some(&name), &mut confirmation);
        }
        let listener: Rc<dyn Listener> =
            Rc::<super::subscriber::Subscriber>::clone(&self.subscriber);
        let pending = self.context.hub.join(self.session.id, &listener, topics);
        self.counted(Family::Local);
        if pending.is_done() {
            self.session
                .tell(|out| out.extend_from_slice(&confirmation));
            self.context.hub.told(self.session.id, pending.topics());
            return Flow::Next;
        }
        self.confirm_later(pending, confirmation)
    }

    /// Answers when the shards have confirmed it.
    fn confirm_later(&mut self, mut pending: Pending, confirmation: BytesMut) -> Flow {
        let (slot, if_wanted) = self.session.open_loud_slot();
        let (session, hub) = (Rc::clone(&self.session), Rc::clone(&self.context.hub));
        let subscriber = Rc::clone(&self.subscriber);
        let metrics = Arc::clone(&self.context.metrics);
        spawn_local(async move {
            match pending.confirmed().await {
                Ok(()) => {
                    session.complete(slot, &confirmation);
                    hub.told(session.id, pending.topics());
                }
                Err(error) => {
                    let topics = pending.topics().to_vec();
                    for topic in &topics {
                        subscriber.remove(topic.kind, &topic.name);
                    }
                    hub.leave(session.id, topics).ignore();
                    metrics.errors[ErrorKind::ShardDown].increment(1);
                    session.complete(if_wanted, &error);
                }
            }
        });
        Flow::Bar
    }

    fn unsubscribe(&mut self, kind: ChannelKind, command: &Command<'_>) -> Flow {
        if !self.session.is_now(Want::Idle) {
            return Flow::Wait;
        }
        let named: Vec<Bytes> = match command.argc() {
            1 => self.subscriber.names(kind),
            _ => command.args().skip(1).map(Bytes::copy_from_slice).collect(),
        };
        let (mut confirmation, mut topics) = (BytesMut::new(), Vec::new());
        for name in &named {
            if self.subscriber.remove(kind, name) {
                let name = name.clone();
                topics.push(Topic { kind, name });
            }
            self.confirm(kind, kind.unsubscribe(), Some(name), &mut confirmation);
        }
        if named.is_empty() {
            self.confirm(kind, kind.unsubscribe(), None, &mut confirmation);
        }
        let mut pending = self.context.hub.leave(self.session.id, topics);
        self.counted(Family::Local);
        if pending.is_done() {
            self.session
                .tell(|out| out.extend_from_slice(&confirmation));
            return Flow::Next;
        }
        let ((slot, _), session) = (self.session.open_loud_slot(), Rc::clone(&self.session));
        spawn_local(async move {
            // A shard that is lost has forgotten it as well.
            let _ = pending.confirmed().await;
            drop(pending);
            session.complete(slot, &confirmation);
        });
        Flow::Bar
    }

    fn confirm(&self, kind: ChannelKind, verb: &str, name: Option<&[u8]>, out: &mut BytesMut) {
        let protocol = self.subscriber.protocol();
        build::push_header(out, protocol, 3);
        build::bulk(out, verb);
        match name {
            Some(name) => build::bulk(out, name),
            None => build::null_bulk(out, protocol),
        }
        build::int(out, self.subscriber.told_count(kind) as i64);
    }

    fn publish(&mut self, kind: ChannelKind, command: &Command<'_>) -> Flow {
        let channel = command.arg(1).unwrap_or_default();
        if names::is_reserved(channel) {
            return self.reject(fixed::RESERVED_CHANNEL);
        }
        let shard = self.context.topology.shard_of(channel);
        let fix = Fix::Receivers(kind, Bytes::copy_from_slice(channel));
        self.counted_by_shard(shard, command, vec![(Vec::new(), fix)])
    }

    fn count_subscribers(
        &mut self,
        kind: ChannelKind,
        spec: &CommandSpec,
        command: &Command<'_>,
    ) -> Flow {
        if !spec.arity_fits(command.argc()) {
            return self.reject(refusal::arity(spec));
        }
        let channels = command.args().skip(2).enumerate();
        let fixes = channels.map(|(at, channel)| {
            let fix = Fix::Subscribers(kind, Bytes::copy_from_slice(channel));
            (vec![2 * at + 1], fix)
        });
        let fixes = fixes.collect();
        self.counted_by_shard(self.any_shard(), command, fixes)
    }

    /// Where a command about channels runs that stands between MULTI and EXEC.
    ///
    /// # Errors
    /// What the client is told when it cannot stand there.
    pub(super) fn channels_in_multi(
        &mut self,
        what: Channels,
        spec: &CommandSpec,
        command: &Command<'_>,
    ) -> Result<Target, String> {
        let at = self.multi.as_ref().map_or(0, Queue::len);
        match what {
            // Their confirmations would not fit into the array that EXEC answers.
            Channels::Subscribe(_) | Channels::Unsubscribe(_) => Err(refusal::refused(
                spec,
                "is not supported by lockstep inside MULTI: give it outside",
            )),
            Channels::Publish(kind) => {
                let channel = command.arg(1).unwrap_or_default();
                if names::is_reserved(channel) {
                    return Err(fixed::RESERVED_CHANNEL.into());
                }
                let fix = Fix::Receivers(kind, Bytes::copy_from_slice(channel));
                self.fixes.push((vec![at], fix));
                let place = self.context.topology.place_of(channel);
                Ok(Target::Whole(Home::Slot(place)))
            }
            Channels::Count(kind) => {
                for (channel, name) in command.args().skip(2).enumerate() {
                    let fix = Fix::Subscribers(kind, Bytes::copy_from_slice(name));
                    self.fixes.push((vec![at, 2 * channel + 1], fix));
                }
                Ok(Target::Whole(Home::Nowhere))
            }
        }
    }

    /// Who gets the reply of an EXEC: the client, with counts of subscribers put right.
    pub(super) fn exec_sink(&mut self) -> Rc<dyn ReplySink> {
        let fixes = std::mem::take(&mut self.fixes);
        self.sink_with(fixes)
    }

    fn sink_with(&self, fixes: Fixes) -> Rc<dyn ReplySink> {
        let audience = self.context.hub.audience();
        let to = Rc::<Session>::clone(&self.session);
        if fixes.is_empty() || audience.is_empty() {
            return to;
        }
        let audience = Arc::clone(audience);
        Rc::new(Counted {
            to,
            audience,
            fixes,
        })
    }

    /// Sends a command whose reply holds counts of subscribers.
    fn counted_by_shard(&mut self, shard: u16, command: &Command<'_>, fixes: Fixes) -> Flow {
        let mut raw = BytesMut::new();
        command.encode(&mut raw);
        let slot = self.session.open_slot();
        let sink = self.sink_with(fixes);
        let link = Rc::clone(self.link(shard));
        if let Err(failure) = link.send(&[&raw], How::PLAIN, sink, slot) {
            self.session.drop_slot();
            return self.reject_as(failure.kind(), failure.to_string());
        }
        self.counted(Family::Write)
    }
}

/// A count in a reply that a shard gets wrong: it sees connections of lockstep, not clients.
#[derive(Clone, Debug)]
pub(super) enum Fix {
    /// Of those who get a message.
    Receivers(ChannelKind, Bytes),
    /// Of those who listen to a channel.
    Subscribers(ChannelKind, Bytes),
}

/// Each with the way to its integer: positions in nested arrays.
pub(super) type Fixes = Vec<(Vec<usize>, Fix)>;

impl Fix {
    fn right(&self, audience: &Audience, counted: i64) -> i64 {
        match self {
            Self::Receivers(kind, channel) => audience.receivers(*kind, channel, counted),
            Self::Subscribers(kind, channel) => audience.subscribers(*kind, channel, counted),
        }
    }
}

/// The reply with its counts put right; integers only, the rest stays as it is.
pub(super) fn put_right(
    reply: &[u8],
    fixes: &[(Vec<usize>, Fix)],
    audience: &Audience,
) -> BytesMut {
    let mut out = BytesMut::new();
    write_right(reply, &mut Vec::new(), fixes, audience, &mut out);
    out
}

fn write_right(
    frame: &[u8],
    way: &mut Vec<usize>,
    fixes: &[(Vec<usize>, Fix)],
    audience: &Audience,
    out: &mut BytesMut,
) {
    let here = fixes.iter().find(|(to, _)| to == way);
    if let (Some((_, fix)), Some(counted)) = (here, resp::as_int(frame)) {
        return build::int(out, fix.right(audience, counted));
    }
    let is_on_the_way = fixes.iter().any(|(to, _)| to.starts_with(way));
    if !is_on_the_way || resp::kind(frame) != resp::Kind::Array {
        return out.extend_from_slice(frame);
    }
    build::array_header(out, resp::elements(frame).count());
    for (at, element) in resp::elements(frame).enumerate() {
        way.push(at);
        write_right(element, way, fixes, audience, out);
        way.pop();
    }
}

/// Puts the counts of a reply right on its way.
struct Counted {
    to: Rc<dyn ReplySink>,
    audience: Arc<Audience>,
    fixes: Fixes,
}

impl ReplySink for Counted {
    fn deliver(self: Rc<Self>, number: u64, reply: &[u8]) {
        let reply = put_right(reply, &self.fixes, &self.audience);
        Rc::clone(&self.to).deliver(number, &reply);
    }

    fn fail(self: Rc<Self>, number: u64, failure: &Failure) {
        Rc::clone(&self.to).fail(number, failure);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_counts_are_rewritten() {
        let audience = Audience::default();
        let fix = || Fix::Receivers(ChannelKind::Plain, Bytes::from("c"));
        let right = |reply: &[u8], way: Vec<usize>| {
            let out = put_right(reply, &[(way, fix())], &audience);
            String::from_utf8_lossy(&out).into_owned()
        };
        assert_eq!(right(b":3\r\n", vec![]), ":3\r\n");
        assert_eq!(right(b"-ERR x\r\n", vec![]), "-ERR x\r\n");
        assert_eq!(right(b"*-1\r\n", vec![1]), "*-1\r\n");
        let exec = b"*3\r\n+OK\r\n:-4\r\n*1\r\n:5\r\n";
        assert_eq!(right(exec, vec![1]), "*3\r\n+OK\r\n:0\r\n*1\r\n:5\r\n");
        assert_eq!(right(exec, vec![0]), "*3\r\n+OK\r\n:-4\r\n*1\r\n:5\r\n");
    }
}

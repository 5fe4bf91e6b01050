//! What one client is subscribed to, and how messages reach it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::session::Session;
use crate::config::Config;
use crate::engine::channels::{Hub, Listener, Topic};
use crate::keyspace::ChannelKind;
use crate::resp::{Protocol, build};

/// How many messages may wait for a client: as `client-output-buffer-limit pubsub` of Redis.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Bytes that cut it off at once.
    pub hard_bytes: usize,
    /// Bytes that cut it off when there are more for so long.
    pub soft_bytes: usize,
    /// How long.
    pub soft_time: Duration,
}

impl Patience {
    /// As the settings have it.
    pub fn of(config: &Config) -> Self {
        Self {
            hard_bytes: config.pubsub_output_bytes_max,
            soft_bytes: config.pubsub_output_soft_bytes,
            soft_time: config.pubsub_output_soft_time,
        }
    }
}

/// See the module.
pub struct Subscriber {
    session: Rc<Session>,
    patience: Patience,
    protocol: Cell<Protocol>,
    /// By kind, the names in their order.
    names: [RefCell<BTreeSet<Bytes>>; 3],
}

impl Subscriber {
    /// Subscribed to nothing.
    pub fn new(session: &Rc<Session>, config: &Config) -> Rc<Self> {
        Rc::new(Self {
            session: Rc::clone(session),
            patience: Patience::of(config),
            protocol: Cell::new(Protocol::Resp2),
            names: Default::default(),
        })
    }

    /// In which form messages are written.
    pub fn protocol(&self) -> Protocol {
        self.protocol.get()
    }

    /// Messages are written in this form from here on.
    pub fn speak(&self, protocol: Protocol) {
        self.protocol.set(protocol);
    }

    /// The number of subscriptions of all kinds.
    pub fn len(&self) -> usize {
        self.names.iter().map(|names| names.borrow().len()).sum()
    }

    /// Whether it is subscribed to nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number that confirmations tell: channels and patterns together, or shard channels.
    pub fn told_count(&self, kind: ChannelKind) -> usize {
        let count = |kind: ChannelKind| self.names[kind as usize].borrow().len();
        match kind {
            ChannelKind::Shard => count(kind),
            _ => count(ChannelKind::Plain) + count(ChannelKind::Pattern),
        }
    }

    /// Notes a subscription; false if there was one already.
    pub fn add(&self, kind: ChannelKind, name: &Bytes) -> bool {
        let is_new = self.names[kind as usize].borrow_mut().insert(name.clone());
        self.session.listens(!self.is_empty());
        is_new
    }

    /// Drops a subscription; false if there was none.
    pub fn remove(&self, kind: ChannelKind, name: &[u8]) -> bool {
        let was_there = self.names[kind as usize].borrow_mut().remove(name);
        self.session.listens(!self.is_empty());
        was_there
    }

    /// The names of one kind.
    pub fn names(&self, kind: ChannelKind) -> Vec<Bytes> {
        self.names[kind as usize].borrow().iter().cloned().collect()
    }

    /// Takes everything back without a word.
    pub fn leave_all(&self, hub: &Rc<Hub>) {
        let mut topics = Vec::new();
        for kind in ChannelKind::ALL {
            let names = std::mem::take(&mut *self.names[*kind as usize].borrow_mut());
            topics.extend(names.into_iter().map(|name| Topic { kind: *kind, name }));
        }
        self.session.listens(false);
        if !topics.is_empty() {
            hub.leave(self.session.id, topics).ignore();
        }
    }
}

impl Listener for Subscriber {
    fn hear(self: Rc<Self>, elements: &[u8]) {
        let len = if elements.starts_with(b"$8\r\npmessage") {
            4
        } else {
            3
        };
        let write = |out: &mut BytesMut| {
            build::push_header(out, self.protocol(), len);
            out.extend_from_slice(elements);
        };
        self.session.push(write, &self.patience);
    }
}

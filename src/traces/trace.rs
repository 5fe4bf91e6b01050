//! One command or transaction that is traced. It belongs to one worker.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Tracer;
use super::parent::{Parent, SpanId, random};

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Int(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

/// Names and values.
pub type Attributes = Vec<(&'static str, Value)>;

/// What a span is to whom it concerns, by the numbers of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A client asked us.
    Server = 2,
    /// We asked a shard.
    Client = 3,
}

/// Something that took time, as it is exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// What it is part of.
    pub parent: Parent,
    /// Its own id.
    pub id: SpanId,
    /// See [`Kind`].
    pub kind: Kind,
    /// What it is called.
    pub name: String,
    /// Since the Unix epoch.
    pub start: Duration,
    /// Since the Unix epoch.
    pub end: Duration,
    /// What there is to say of it.
    pub attributes: Attributes,
    /// What went wrong, if anything did.
    pub error: Option<String>,
}

/// See the module. It ends once, by [`Trace::end`].
pub struct Trace {
    tracer: Arc<Tracer>,
    parent: Parent,
    id: SpanId,
    began: Instant,
    began_wall: Duration,
    name: RefCell<String>,
    attributes: RefCell<Attributes>,
    error: RefCell<Option<String>>,
    sent_to: RefCell<Attributes>,
    is_recorded: bool,
    is_ended: Cell<bool>,
}

impl Trace {
    /// It begins now. What its parent did not record is not recorded here either.
    pub fn begin(tracer: &Arc<Tracer>, parent: Parent) -> Self {
        let began_wall = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            is_recorded: parent.is_sampled && tracer.is_on(),
            is_ended: Cell::new(false),
            tracer: Arc::clone(tracer),
            parent,
            id: random(),
            began: Instant::now(),
            began_wall: began_wall.unwrap_or_default(),
            name: RefCell::default(),
            attributes: RefCell::default(),
            error: RefCell::default(),
            sent_to: RefCell::default(),
        }
    }

    /// What is done is this.
    pub fn name(&self, name: &str) {
        name.clone_into(&mut self.name.borrow_mut());
    }

    /// More of it; what was noted under this name before is forgotten.
    pub fn note(&self, name: &'static str, value: impl Into<Value>) {
        let mut attributes = self.attributes.borrow_mut();
        attributes.retain(|(known, _)| *known != name);
        attributes.push((name, value.into()));
    }

    /// It is sent to one shard as it is, so the time between the writing and the reply is the
    /// shard's.
    pub fn goes_to(&self, shard: u16, address: &str) {
        *self.sent_to.borrow_mut() = of_shard(shard, address);
    }

    /// A step of it ends now.
    pub fn step(&self, name: &str, began: Instant, attributes: Attributes, error: Option<String>) {
        if !self.is_recorded {
            return;
        }
        let parent = Parent {
            span_id: Some(self.id),
            ..self.parent.clone()
        };
        self.tracer.take(Span {
            parent,
            id: random(),
            kind: Kind::Client,
            name: name.to_owned(),
            start: self.wall(began),
            end: self.wall(Instant::now()),
            attributes,
            error,
        });
    }

    /// It ends now, with this error if any. `asked_at`: when the request was written that was
    /// answered, if it was sent to one shard.
    pub fn end(&self, error: Option<String>, asked_at: Option<Instant>) {
        if !self.is_recorded || self.is_ended.replace(true) {
            return;
        }
        let sent_to = self.sent_to.take();
        if let Some(asked_at) = asked_at.filter(|_| !sent_to.is_empty()) {
            self.step("shard", asked_at.max(self.began), sent_to, error.clone());
        }
        self.tracer.take(Span {
            parent: self.parent.clone(),
            id: self.id,
            kind: Kind::Server,
            name: self.name.take(),
            start: self.began_wall,
            end: self.wall(Instant::now()),
            attributes: self.attributes.take(),
            error: error.or(self.error.take()),
        });
    }

    /// It is going to end with this error.
    pub fn fails(&self, error: &str) {
        *self.error.borrow_mut() = Some(error.to_owned());
    }

    fn wall(&self, at: Instant) -> Duration {
        self.began_wall + at.saturating_duration_since(self.began)
    }
}

/// What is said of a shard.
pub fn of_shard(shard: u16, address: &str) -> Attributes {
    let shard = ("lockstep.shard", Value::Int(shard.into()));
    match address.rsplit_once(':') {
        Some((host, port)) if !address.starts_with("unix:") => vec![
            shard,
            ("server.address", host.trim_matches(['[', ']']).into()),
            ("server.port", Value::Int(port.parse().unwrap_or_default())),
        ],
        _ => vec![shard, ("server.address", address.into())],
    }
}

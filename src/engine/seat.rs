//! What is sent to one participant, and what its answers mean.
//!
//! A branch whose replies survive a script (all but [`Fidelity::Never`]) needs no connection of its own:
//! prepare and apply go over the shared link, many transactions in one write. Any other branch
//! is prepared and applied on a pinned connection that watches the record. Everything else that
//! is asked of a participant goes over the link.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use super::Engine;
use super::inbox::{Inbox, Reply};
use super::stored::Kept;
use crate::backend::{Failure, How, Pinned, ReplySink};
use crate::resp::{Protocol, build};
use crate::txn::condition::Condition;
use crate::txn::plan::Branch;
use crate::txn::redo::{Fidelity, Intent, encode_keys};
use crate::txn::script::answer::{self, Exec};
use crate::txn::script::{self, ApplyPinned};
use crate::txn::{
    Aborted, Action, Applied, Event, Part, Reading, Refusal, Released, State, TxnId, Vote, names,
};

/// What one participant has to do: the same in every attempt.
pub struct Work {
    /// Where.
    pub part: Part,
    /// The commands, raw.
    pub commands: Bytes,
    /// How many.
    pub count: usize,
    /// The slots of their keys.
    pub slots: Vec<Bytes>,
    /// The slots that the client watches, as a prepare wants them; see [`Plan::watch`](crate::txn::plan::Plan::watch).
    pub watched: Bytes,
    /// Whether there are any.
    pub has_watched: bool,
    /// What must be so for the transaction to be committed.
    pub condition: Option<Condition>,
    /// The same as a record holds it.
    pub intent: Intent,
    /// Of the replies.
    pub protocol: Protocol,
}

impl Work {
    /// From a branch of a plan.
    pub fn new(branch: Branch) -> Self {
        let intent = branch
            .intent
            .finish(branch.slots.iter().map(|slot| &slot[..]));
        Self {
            part: branch.part,
            commands: branch.commands.freeze(),
            count: branch.count,
            slots: branch.slots,
            has_watched: !branch.watched.is_empty(),
            condition: branch.condition,
            watched: encode_keys(branch.watched.iter().map(|slot| &slot[..])),
            intent,
            protocol: branch.protocol,
        }
    }

    /// What these have to do, all of it and in this order: the work of one participant in several
    /// transactions that run as one. To be used by the script only.
    pub fn join(works: &[&Self]) -> Option<Self> {
        let first = works.first()?;
        let mut slots: Vec<Bytes> = Vec::new();
        let mut seen = HashSet::new();
        for slot in works.iter().flat_map(|work| &work.slots) {
            if seen.insert(&slot[..]) {
                slots.push(slot.clone());
            }
        }
        let intents = works.iter().map(|work| &work.intent);
        Some(Self {
            part: first.part,
            commands: Bytes::new(),
            count: works.iter().map(|work| work.count).sum(),
            intent: Intent::join(intents, slots.iter().map(|slot| &slot[..])),
            slots,
            watched: first.watched.clone(),
            has_watched: false,
            condition: None,
            protocol: first.protocol,
        })
    }

    /// Whether it is prepared and applied over the shared link.
    pub fn uses_script(&self) -> bool {
        match self.protocol {
            Protocol::Resp2 => self.intent.fidelity != Fidelity::Never,
            Protocol::Resp3 => self.intent.fidelity == Fidelity::Exact,
        }
    }

    /// The replies of its commands in its protocol. The shared link gives those of a script in
    /// RESP2.
    pub fn replies(&self, replies: Vec<Bytes>) -> Vec<Bytes> {
        if self.protocol == Protocol::Resp2 || !self.uses_script() {
            return replies;
        }
        let convert = |reply: Bytes| match answer::to_resp3(&reply) {
            Cow::Borrowed(same) if same.len() == reply.len() => reply,
            other => Bytes::from(other.into_owned()),
        };
        replies.into_iter().map(convert).collect()
    }

    /// The same of replies that a marker kept, in RESP2; None when they cannot be turned into what
    /// its protocol would have made of them.
    pub fn stored_replies(&self, replies: Vec<Bytes>) -> Option<Vec<Bytes>> {
        (self.protocol == Protocol::Resp2 || self.uses_script()).then(|| self.replies(replies))
    }

    pub(super) fn pinned_apply<'a>(
        &'a self,
        id: &'a TxnId,
        keys: &'a [&'a [u8]],
    ) -> ApplyPinned<'a> {
        ApplyPinned {
            id,
            keys,
            commands: &self.commands,
            commands_len: self.count,
        }
    }
}

/// What came back for one transaction.
#[allow(
    clippy::large_enum_variant,
    reason = "short-lived, and the large one is not the common one"
)]
pub enum Arrival {
    /// A reply over a link, to the request of this number; see [`Request`].
    Reply(Reply),
    /// A pinned connection has done something.
    Pinned {
        /// What it means.
        event: Event,
        /// The shard's clock, if it told.
        clock_ms: Option<u64>,
        /// The connection, if it goes on watching.
        connection: Option<Pinned>,
        /// Replies of the branch's commands, once applied.
        replies: Option<Vec<Bytes>>,
    },
}

impl Arrival {
    /// An event without anything else.
    pub fn event(event: Event) -> Self {
        Self::Pinned {
            event,
            clock_ms: None,
            connection: None,
            replies: None,
        }
    }
}

impl From<Reply> for Arrival {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

/// What was asked over a link. Its number also says of which participant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// A vote.
    Prepare = 0,
    /// To run the redo.
    Apply = 1,
    /// To abort, or to write a tombstone.
    Abort = 2,
    /// The record.
    Read = 3,
    /// To release.
    Release = 4,
}

impl Request {
    /// The number under which it is sent for this participant.
    pub fn number(self, part: Part) -> u64 {
        (u64::from(part.shard) << 32) | (u64::from(part.db) << 16) | self as u64
    }

    /// The inverse of [`Request::number`].
    pub fn of_number(number: u64) -> (Part, Option<Self>) {
        let all = [
            Self::Prepare,
            Self::Apply,
            Self::Abort,
            Self::Read,
            Self::Release,
        ];
        let part = Part {
            shard: (number >> 32) as u16,
            db: (number >> 16) as u16,
        };
        (part, all.get((number & 0xFFFF) as usize).copied())
    }
}

/// A request of this kind that was never sent, or got no reply.
pub(super) fn failed(request: Request, part: Part, failure: &Failure) -> Event {
    let never_sent = matches!(failure, Failure::NeverSent(_));
    match (request, failure) {
        (Request::Prepare, Failure::NeverSent(cause)) => {
            Event::Voted(part, Vote::No(Refusal::Unreachable(cause.to_string())))
        }
        (Request::Prepare, _) => Event::Voted(part, Vote::Unknown),
        (Request::Apply, _) => Event::Applied(
            part,
            if never_sent {
                Applied::Refused
            } else {
                Applied::Unknown
            },
        ),
        (Request::Abort, _) => Event::Aborted(part, Aborted::Unknown),
        (Request::Read, _) => Event::Read(part, Reading::Unreachable),
        (Request::Release, _) => Event::Released(part, Released::Unknown),
    }
}

/// What a reply means: the event, the shard's clock, the replies of the branch's commands.
fn read(
    id: &TxnId,
    request: Request,
    part: Part,
    reply: &Result<Bytes, Failure>,
) -> (Event, Option<u64>, Option<Vec<Bytes>>) {
    let frame = match reply {
        Ok(frame) => frame,
        Err(failure) => return (failed(request, part, failure), None, None),
    };
    match request {
        Request::Prepare => {
            let voted = answer::vote(frame);
            (Event::Voted(part, voted.vote), voted.now_ms, None)
        }
        Request::Apply => {
            let answer = answer::applied(frame);
            let replies = answer
                .replies
                .iter()
                .map(|reply| Bytes::copy_from_slice(reply))
                .collect();
            (Event::Applied(part, answer.applied), None, Some(replies))
        }
        Request::Abort => (Event::Aborted(part, answer::aborted(frame)), None, None),
        Request::Release => (Event::Released(part, answer::released(frame)), None, None),
        Request::Read => match answer::record(frame) {
            Ok(Some(record)) => (
                Event::Read(part, Reading::Found(record.clone())),
                Some(record.now_ms),
                None,
            ),
            Ok(None) => (Event::Read(part, Reading::Absent), None, None),
            Err(unreadable) => {
                tracing::error!(%id, %part, %unreadable, "a transaction's record cannot be read");
                (Event::Read(part, Reading::Unreachable), None, None)
            }
        },
    }
}

/// The requests of one transaction, and where their answers go.
#[derive(Clone)]
pub struct Requests {
    /// Links and pools.
    pub engine: Rc<Engine>,
    /// The transaction.
    pub id: TxnId,
    /// Where everything arrives.
    pub inbox: Rc<Inbox<Arrival>>,
    /// What the markers of its participants are to keep.
    pub kept: Kept,
    /// Where it was refused last since another holds a key, and which.
    held: Rc<RefCell<Option<(Part, Bytes)>>>,
}

impl Requests {
    /// For this transaction.
    pub fn new(engine: &Rc<Engine>, id: TxnId) -> Self {
        Self {
            engine: Rc::clone(engine),
            id,
            inbox: Inbox::new(),
            kept: Kept::default(),
            held: Rc::default(),
        }
    }

    /// The key that another transaction holds, and where, if that is why it was refused.
    pub fn held(&self) -> Option<(Part, Bytes)> {
        self.held.borrow().clone()
    }

    /// Sends a request over the participant's link.
    pub fn send(&self, request: Request, part: Part, bytes: &BytesMut) {
        let sink: Rc<dyn ReplySink> = Rc::<Inbox<Arrival>>::clone(&self.inbox);
        let number = request.number(part);
        if let Err(failure) = self
            .engine
            .link(part.shard)
            .send(&[bytes], How::PLAIN, sink, number)
        {
            self.inbox.push(Arrival::Reply((number, Err(failure))));
        }
    }

    /// Carries out an action that coordinators and recoverers have in common. False if it is
    /// none of those.
    pub fn act(&self, action: &Action) -> bool {
        let (id, mut out) = (&self.id, BytesMut::new());
        let retention_ms = self.engine.times.retention.as_millis() as u64;
        let (request, part) = match action {
            Action::Read { part } => {
                script::append_read(&mut out, id);
                (Request::Read, *part)
            }
            Action::Abort {
                part,
                leave,
                tombstone,
            } => {
                let abort = script::Abort {
                    id,
                    retention_ms,
                    leave: *leave,
                    tombstone_until_ms: *tombstone,
                };
                abort.append(&mut out);
                (Request::Abort, *part)
            }
            Action::Tombstone { part, not_after_ms } => {
                script::Tombstone {
                    id,
                    retention_ms,
                    not_after_ms: *not_after_ms,
                }
                .append(&mut out);
                (Request::Abort, *part)
            }
            Action::Release { part, leave } => {
                script::Release {
                    id,
                    leave: *leave,
                    retention_ms,
                    replies: self.kept.of(*part).as_deref(),
                }
                .append(&mut out);
                (Request::Release, *part)
            }
            _ => return false,
        };
        self.send(request, part, &out);
        true
    }

    /// What a reply means; loads the scripts again if the shard has lost them.
    pub fn understand(&self, (number, reply): Reply) -> Option<(Event, Option<Vec<Bytes>>)> {
        let (part, request) = Request::of_number(number);
        if let Ok(frame) = &reply
            && answer::is_noscript(frame)
        {
            self.engine.load_scripts(part.shard);
        }
        if let Ok(frame) = &reply
            && request == Some(Request::Prepare)
            && let Some(key) = answer::held_key(frame)
        {
            *self.held.borrow_mut() = Some((part, frame.slice_ref(key)));
        }
        let (event, clock_ms, replies) = read(&self.id, request?, part, &reply);
        if let Some(clock_ms) = clock_ms {
            self.engine.learn_clock(part, clock_ms);
        }
        Some((event, replies))
    }

    /// Prepares on a pinned connection, which goes on watching the record if the vote is Yes.
    pub async fn prepare_pinned(self, part: Part, protocol: Protocol, request: BytesMut) {
        let arrival = match self.engine.pool(part.shard).get(protocol).await {
            Ok(connection) => vote_pinned(connection, part, &request).await,
            Err(failure) => Arrival::event(failed(Request::Prepare, part, &failure)),
        };
        self.inbox.push(arrival);
    }

    /// Applies on the connection that was prepared, whose WATCH still stands.
    pub async fn apply_pinned(self, connection: Pinned, work: Rc<[Work]>, index: usize) {
        let arrival = self.exec(connection, &work[index]).await;
        self.inbox.push(arrival);
    }

    /// Applies once more, after an apply that was refused or whose connection is gone: as
    /// before, but on a new connection, behind a new WATCH.
    pub async fn apply_again(self, work: Rc<[Work]>, index: usize) {
        let work = &work[index];
        let arrival = match self.watch(work.part, work.protocol).await {
            Ok((connection, Some(State::Prepared))) => self.exec(connection, work).await,
            Ok((connection, state)) => {
                unwatch(connection).await;
                Arrival::event(Event::Applied(work.part, Applied::Not(state)))
            }
            Err(failure) => Arrival::event(failed(Request::Apply, work.part, &failure)),
        };
        self.inbox.push(arrival);
    }

    /// A pinned connection that watches the record, and the state read behind the WATCH. A
    /// failure here is before the apply: nothing of that was sent.
    pub async fn watch(
        &self,
        part: Part,
        protocol: Protocol,
    ) -> Result<(Pinned, Option<State>), Failure> {
        let mut connection = self.engine.pool(part.shard).get(protocol).await?;
        let mut request = BytesMut::new();
        build::command(&mut request, [&b"WATCH"[..], &names::record(&self.id)]);
        script::append_read(&mut request, &self.id);
        let replies = connection
            .exchange(&request, 2)
            .await
            .map_err(never_applied)?;
        match replies.get(1).map(|reply| answer::record(reply)) {
            Some(Ok(record)) => Ok((connection, record.map(|record| record.state))),
            _ => Err(never_applied(Failure::NeverSent(
                crate::backend::Cause::new("the record cannot be watched"),
            ))),
        }
    }

    /// `MULTI`, the marks, the commands, `EXEC`.
    pub(super) async fn exec(&self, connection: Pinned, work: &Work) -> Arrival {
        let keys: Vec<&[u8]> = work.slots.iter().map(|slot| &slot[..]).collect();
        self.exec_of(connection, work.part, &work.pinned_apply(&self.id, &keys))
            .await
    }

    /// The same for any intent.
    pub async fn exec_of(
        &self,
        mut connection: Pinned,
        part: Part,
        apply: &ApplyPinned<'_>,
    ) -> Arrival {
        let mut request = BytesMut::new();
        apply.append(&mut request);
        let replies = match connection.exchange(&request, apply.replies()).await {
            Ok(replies) => replies,
            Err(failure) => return Arrival::event(failed(Request::Apply, part, &failure)),
        };
        let Some(frame) = replies.last() else {
            return Arrival::event(Event::Applied(part, Applied::Unknown));
        };
        let exec = answer::exec(frame, apply.marks());
        // Every EXEC drops what was watched; only after one that is not understood who knows.
        if !matches!(exec, Exec::Unknown(_)) {
            connection.give_back();
        }
        match exec {
            Exec::Ran(of_commands) => {
                let replies = of_commands
                    .into_iter()
                    .map(|reply| frame.slice_ref(reply))
                    .collect();
                Arrival::Pinned {
                    event: Event::Applied(part, Applied::Now),
                    clock_ms: None,
                    connection: None,
                    replies: Some(replies),
                }
            }
            // The record changed since it was read (somebody settled it), or, at the decider,
            // what the client watches.
            Exec::Broken => Arrival::event(Event::Applied(part, self.not_applied(part).await)),
            Exec::Refused(words) => {
                tracing::warn!(id = %self.id, %part, words, "a shard refuses to apply; it will be asked again");
                Arrival::event(Event::Applied(part, Applied::Refused))
            }
            Exec::Unknown(words) => {
                tracing::error!(id = %self.id, %part, words, "EXEC of a prepared branch failed");
                Arrival::event(Event::Applied(part, Applied::Unknown))
            }
        }
    }
}

async fn vote_pinned(mut connection: Pinned, part: Part, request: &BytesMut) -> Arrival {
    let replies = match connection
        .exchange(request, script::VOTE_WATCHING_REPLIES)
        .await
    {
        Ok(replies) => replies,
        Err(failure) => return Arrival::event(failed(Request::Prepare, part, &failure)),
    };
    let [prepare, watch, behind] = &replies[..] else {
        return Arrival::event(Event::Voted(part, Vote::Unknown));
    };
    let voted = answer::vote_watching([prepare, watch, behind]);
    let is_yes = voted.vote == Vote::Yes;
    let connection = if is_yes {
        Some(connection)
    } else {
        // A shard that has lost our scripts gets them with the next connection.
        if !answer::is_noscript(prepare) {
            unwatch(connection).await;
        }
        None
    };
    Arrival::Pinned {
        event: Event::Voted(part, voted.vote),
        clock_ms: voted.now_ms,
        connection,
        replies: None,
    }
}

pub(super) const UNWATCH: &[u8] = b"*1\r\n$7\r\nUNWATCH\r\n";

/// Gives a connection back that watches something.
pub async fn unwatch(mut connection: Pinned) {
    if connection.exchange(UNWATCH, 1).await.is_ok() {
        connection.give_back();
    }
}

/// Only a WATCH and a read were under way.
fn never_applied(failure: Failure) -> Failure {
    match failure {
        Failure::NeverSent(cause) | Failure::MaybeSent(cause) => Failure::NeverSent(cause),
    }
}

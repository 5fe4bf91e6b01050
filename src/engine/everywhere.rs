//! Asking every shard the same, for commands that concern all of them.
//!
//! Small on purpose: one request to each shard, all at once, over the shared connections of the
//! client's lane (so in order with what it sent before), and all replies or one error. What it holds is
//! bounded by the shards times `reply-bytes-max`, and a client has one such command under way.

use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::Engine;
use super::ask_over;
use super::inbox::Inbox;
use super::lanes::Links;
use crate::backend::{Cause, Failure, How, Isolation, ReplySink};
use crate::resp::{self, build};
use crate::txn::names;

/// Times that a read of all shards is repeated for the sake of consistency.
const TRIES_MAX: u32 = 4;
/// Between two looks at what settles, while replies are held.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// One answer for each shard, in their order.
type Answers = Vec<Result<Bytes, Failure>>;

/// What a shard said, and its epoch behind that, if it was asked for it.
struct Said {
    shard: u64,
    answer: Result<Bytes, Failure>,
    epoch: Option<Bytes>,
}

struct Mailbox(Rc<Inbox<Said>>);

impl Mailbox {
    fn put(&self, shard: u64, answer: Result<Bytes, Failure>, epoch: Option<Bytes>) {
        self.0.push(Said {
            shard,
            answer,
            epoch,
        });
    }
}

impl ReplySink for Mailbox {
    fn deliver(self: Rc<Self>, number: u64, reply: &[u8]) {
        self.put(number, Ok(Bytes::copy_from_slice(reply)), None);
    }

    fn deliver_at(self: Rc<Self>, number: u64, reply: &[u8], epoch: Option<&[u8]>) {
        // An epoch that was never moved is known as the empty text.
        let epoch = Bytes::copy_from_slice(epoch.unwrap_or_default());
        self.put(number, Ok(Bytes::copy_from_slice(reply)), Some(epoch));
    }

    fn fail(self: Rc<Self>, number: u64, failure: &Failure) {
        self.put(number, Err(failure.clone()), None);
    }
}

/// Replies that are still to come.
pub struct Gathering {
    engine: Rc<Engine>,
    inbox: Rc<Inbox<Said>>,
    /// By shard; what failed at once is here already.
    answers: Vec<Option<Result<Bytes, Failure>>>,
    epochs: Vec<Option<Bytes>>,
}

impl Engine {
    /// Sends one command to every shard before it returns; [`Gathering::all`] waits for what they
    /// say. A shard that is down keeps the others from nothing: they are asked all the same.
    pub fn ask_all(self: &Rc<Self>, links: &Links, request: &[u8]) -> Gathering {
        self.ask_each(links, |_| request, Isolation::None)
    }

    /// The same with a request for each shard.
    pub fn ask_each<'a>(
        self: &Rc<Self>,
        links: &Links,
        request: impl Fn(u16) -> &'a [u8],
        isolation: Isolation,
    ) -> Gathering {
        let inbox = Inbox::<Said>::new();
        let send = |shard: u16| {
            let sink = Rc::new(Mailbox(Rc::clone(&inbox)));
            let how = How::isolated(isolation);
            let link = &links[usize::from(shard)];
            let sent = link.send(&[request(shard)], how, sink, u64::from(shard));
            sent.err().map(Err)
        };
        Gathering {
            answers: (0..self.shards()).map(send).collect(),
            epochs: vec![None; links.len()],
            engine: Rc::clone(self),
            inbox,
        }
    }

    /// A read of all shards that belongs together with respect to transactions over several of
    /// them, if that can be had in a few tries (by the rule of split reads); if not,
    /// it leaves at least only when all that it may have seen is released everywhere.
    ///
    /// # Errors
    /// As [`Gathering::all`].
    pub async fn read_all(
        self: &Rc<Self>,
        links: &Links,
        request: &[u8],
    ) -> Result<Vec<Bytes>, BytesMut> {
        if !self.is_strict() {
            return self.ask_all(links, request).all().await;
        }
        for _ in 0..TRIES_MAX {
            let known: Vec<_> = links.iter().map(|link| link.epoch()).collect();
            let mut gathering = self.ask_each(links, |_| request, Isolation::Epoch);
            gathering.wait().await;
            let belongs_together = known.iter().all(Option::is_some) && known == gathering.epochs;
            let replies = gathering.all().await?;
            if belongs_together {
                return Ok(replies);
            }
            // So that the answers that came with these are taken in.
            tokio::task::yield_now().await;
        }
        let replies = self.ask_all(links, request).all().await?;
        for shard in 0..self.shards() {
            let settled = self.wait_until_nothing_settles(shard).await;
            settled.map_err(|failure| self.tell(&failure))?;
        }
        Ok(replies)
    }

    /// A read of one shard, of whatever keys. It leaves when all that it may have seen is
    /// released.
    ///
    /// # Errors
    /// The error reply for the client, when there is no reply. An error reply is a reply.
    pub async fn read_one(
        &self,
        links: &Links,
        shard: u16,
        request: &[u8],
    ) -> Result<Bytes, BytesMut> {
        let reply = ask_over(&links[usize::from(shard)], request).await;
        let reply = reply.map_err(|failure| self.tell(&failure))?;
        if self.is_strict() {
            let settled = self.wait_until_nothing_settles(shard).await;
            settled.map_err(|failure| self.tell(&failure))?;
        }
        Ok(reply)
    }

    /// Waits until nothing is settling any more that is now.
    async fn wait_until_nothing_settles(&self, shard: u16) -> Result<(), Failure> {
        let mut question = BytesMut::new();
        build::command(&mut question, [b"HGETALL", names::SETTLING]);
        let first = self.ask(shard, &question).await?;
        let mut left = entries(&first);
        while !left.is_empty() {
            tokio::time::sleep(LOOK_AGAIN).await;
            let now = self.ask(shard, &question).await?;
            let now = entries(&now);
            left.retain(|entry| now.contains(entry));
        }
        Ok(())
    }

    /// Loads our scripts where they may have been lost.
    pub fn load_everywhere(&self) {
        (0..self.shards()).for_each(|shard| self.load_scripts(shard));
    }

    /// What every shard says to this over a connection of its own.
    pub async fn ask_apart(&self, request: &[u8]) -> Vec<Result<Bytes, Cause>> {
        let shards = 0..self.shards();
        let asked = shards.map(|shard| self.link(shard).dial.ask_apart(request));
        futures::future::join_all(asked).await
    }

    /// Why what needs every shard is refused now: one is busy with a script.
    pub fn busy(&self) -> Option<Failure> {
        (0..self.shards()).find_map(|shard| self.link(shard).dial.busy.refusal())
    }

    fn tell(&self, failure: &Failure) -> BytesMut {
        self.metrics.errors[failure.kind()].increment(1);
        told(failure)
    }
}

/// Slot and transaction of what settles.
fn entries(reply: &Bytes) -> Vec<(Bytes, Bytes)> {
    let texts: Vec<Bytes> = resp::elements(reply)
        .filter_map(resp::as_bulk)
        .map(|text| reply.slice_ref(text))
        .collect();
    let pairs = texts.chunks_exact(2);
    pairs
        .map(|pair| (pair[0].clone(), pair[1].clone()))
        .collect()
}

fn told(failure: &Failure) -> BytesMut {
    let mut out = BytesMut::new();
    build::error(&mut out, failure.to_string());
    out
}

impl Gathering {
    /// All replies, in the order of the shards.
    ///
    /// # Errors
    /// The error reply for the client, when any shard gave an error or none at all. If all gave
    /// the same error it is theirs, unchanged, as one server would have given it; else it begins
    /// as the shard's own and names the shard.
    pub async fn all(mut self) -> Result<Vec<Bytes>, BytesMut> {
        self.wait().await;
        let engine = Rc::clone(&self.engine);
        engine.agreed(self.into_answers())
    }

    /// What every shard said, errors and failures included, in the order of the shards.
    pub async fn each(mut self) -> Answers {
        self.wait().await;
        self.into_answers()
    }

    async fn wait(&mut self) {
        let mut missing = self.answers.iter().filter(|known| known.is_none()).count();
        while missing > 0 {
            let Some(said) = self.inbox.next(None).await else {
                return;
            };
            let shard = said.shard as usize;
            if let Some(place) = self.answers.get_mut(shard) {
                *place = Some(said.answer);
            }
            if let Some(place) = self.epochs.get_mut(shard) {
                *place = said.epoch;
            }
            missing -= 1;
        }
    }

    fn into_answers(self) -> Answers {
        let lost = || Err(super::no_reply());
        let answers = self.answers.into_iter();
        answers.map(|answer| answer.unwrap_or_else(lost)).collect()
    }
}

impl Engine {
    /// All replies, if there are all and none is an error; see [`Gathering::all`].
    pub(super) fn agreed(&self, answers: Answers) -> Result<Vec<Bytes>, BytesMut> {
        match self.refusal(&answers) {
            Some(error) => Err(error),
            None => Ok(answers.into_iter().flatten().collect()),
        }
    }

    /// The error that these answers come to, if they do.
    fn refusal(&self, answers: &Answers) -> Option<BytesMut> {
        let mut out = BytesMut::new();
        if let Some(failure) = answers.iter().find_map(|answer| answer.as_ref().err()) {
            self.metrics.errors[failure.kind()].increment(1);
            build::error(&mut out, one_failed(failure));
            return Some(out);
        }
        let mut replies = answers.iter().flatten().enumerate();
        let (shard, error) = replies.find(|(_, reply)| resp::is_error(reply))?;
        if answers.iter().flatten().all(|reply| reply == error) {
            out.extend_from_slice(error);
        } else {
            let text = resp::error_text(error);
            let address = self.address(shard as u16).as_bytes();
            build::error(&mut out, [text, b" (shard ", address, b")"].concat());
        }
        Some(out)
    }
}

/// The others were asked all the same.
fn one_failed(failure: &Failure) -> String {
    match failure {
        Failure::NeverSent(cause) => {
            let text = cause.told().map(str::to_owned);
            let text = text.unwrap_or_else(|| format!("ERR {cause}"));
            format!("{text}; the command was sent to the other shards only")
        }
        Failure::MaybeSent(_) => failure.to_string(),
    }
}

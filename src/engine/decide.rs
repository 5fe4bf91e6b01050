//! What the decider does, and what only the connections do that carry a client's WATCH.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use tokio::task::spawn_local;

use super::inbox::{Inbox, Reply};
use super::seat::{Arrival, Request, Requests, Work, failed, unwatch};
use crate::backend::{Failure, Pinned};
use crate::resp::{self, Protocol, build};
use crate::txn::script::{self, answer};
use crate::txn::{Applied, Event, Part, Refusal, State, Vote, names};

/// Where the answers to the conditions of others than the decider arrive, and of which branch.
pub(super) type Checks = Vec<(Rc<Inbox<Reply>>, usize)>;

/// The replies to `MULTI`, one command, `EXEC`.
const REPLIES: usize = 3;

impl Requests {
    /// The decider's EXEC: applies its branch if what the client watches has not changed *and*
    /// the record is still `prepared`. Both are conditions of the same EXEC. For a branch that a
    /// script can apply the second one is the script's own; any other watches the record as well,
    /// from now on, and looks at it behind that.
    ///
    /// Nobody else ever applies the decider's branch, so not to have sent it, or nil, proves that
    /// it is not applied and never will be. So it is not sent if the condition of another does not
    /// hold: all slots are locked by now. A condition of the decider itself is the script's.
    pub async fn decide(
        self,
        connection: Option<Pinned>,
        checks: Checks,
        work: Rc<[Work]>,
        index: usize,
    ) {
        let all = &work;
        let work = &work[index];
        if !hold(checks, all).await {
            if let Some(connection) = connection {
                unwatch(connection).await;
            }
            return self.inbox.push(not_sent(work.part));
        }
        if let Some(condition) = &work.condition {
            let mut request = BytesMut::new();
            script::append_apply_if(&mut request, &self.id, condition);
            return self.send(Request::Apply, work.part, &request);
        }
        let arrival = match connection {
            None => not_sent(work.part),
            Some(connection) if work.uses_script() => {
                self.decide_by_script(connection, work.part).await
            }
            Some(connection) => self.decide_natively(connection, work).await,
        };
        self.inbox.push(arrival);
    }

    async fn decide_by_script(&self, mut connection: Pinned, part: Part) -> Arrival {
        // As over a link: see `Work::replies`.
        if connection.speak(Protocol::Resp2).await.is_err() {
            return not_sent(part);
        }
        let mut request = BytesMut::from(script::MULTI);
        script::append_apply(&mut request, &self.id);
        request.extend_from_slice(script::EXEC);
        let replies = match connection.exchange(&request, REPLIES).await {
            Ok(replies) => replies,
            Err(Failure::NeverSent(_)) => return not_sent(part),
            Err(Failure::MaybeSent(_)) => {
                return Arrival::event(Event::Applied(part, Applied::Unknown));
            }
        };
        connection.give_back();
        let frame = replies.last().cloned().unwrap_or_default();
        if resp::kind(&frame).is_null() {
            return Arrival::event(Event::Applied(part, self.not_applied(part).await));
        }
        // An error in place of the array is read like one of the script's own.
        let element = resp::elements(&frame).next().unwrap_or(&frame);
        let answer = answer::applied(element);
        if let Some(words) = &answer.error {
            tracing::warn!(id = %self.id, %part, words, "the shard that watches does not apply");
        }
        let replies = answer.replies.iter();
        let replies = replies.map(|reply| Bytes::copy_from_slice(reply));
        Arrival::Pinned {
            event: Event::Applied(part, answer.applied),
            clock_ms: None,
            connection: None,
            replies: Some(replies.collect()),
        }
    }

    async fn decide_natively(&self, mut connection: Pinned, work: &Work) -> Arrival {
        let part = work.part;
        if connection.speak(work.protocol).await.is_err() {
            return not_sent(part);
        }
        let mut request = BytesMut::new();
        build::command(&mut request, [&b"WATCH"[..], &names::record(&self.id)]);
        script::append_read(&mut request, &self.id);
        // No EXEC was sent yet, so whatever fails here, nothing was applied.
        let Ok(replies) = connection.exchange(&request, 2).await else {
            return not_sent(part);
        };
        match replies.get(1).map(|reply| answer::record(reply)) {
            Some(Ok(Some(record))) if record.state == State::Prepared => {
                self.exec(connection, work).await
            }
            Some(Ok(record)) => {
                unwatch(connection).await;
                let state = record.map(|record| record.state);
                Arrival::event(Event::Applied(part, Applied::Not(state)))
            }
            _ => not_sent(part),
        }
    }

    /// Prepares on the connection that carries the client's WATCH, in an EXEC under it. It goes
    /// on watching the record, unless the branch is applied by script.
    pub fn prepare_checked(
        self,
        mut connection: Pinned,
        prepare: &script::Prepare<'_>,
        work: &Work,
    ) {
        let (part, protocol) = (work.part, work.protocol);
        let mut request = BytesMut::new();
        let replies = if work.uses_script() {
            prepare.append_in_exec(&mut request);
            REPLIES
        } else {
            prepare.append_checked(&mut request);
            script::VOTE_CHECKED_REPLIES
        };
        spawn_local(async move {
            let replies = match connection.speak(protocol).await {
                Ok(()) => connection.exchange(&request, replies).await,
                Err(failure) => Err(failure),
            };
            self.inbox.push(match replies {
                Ok(replies) => checked(connection, part, &replies).await,
                Err(failure) => Arrival::event(failed(Request::Prepare, part, &failure)),
            });
        });
    }

    /// What the record is after an EXEC that was nil.
    pub(super) async fn not_applied(&self, part: Part) -> Applied {
        let mut request = BytesMut::new();
        script::append_read(&mut request, &self.id);
        match self.engine.ask(part.shard, &request).await {
            Ok(frame) => match answer::record(&frame) {
                Ok(record) => Applied::Not(record.map(|record| record.state)),
                Err(_) => Applied::Unknown,
            },
            Err(_) => Applied::Unknown,
        }
    }
}

/// Whether all conditions hold.
async fn hold(checks: Checks, work: &[Work]) -> bool {
    for (inbox, at) in checks {
        let reply = inbox.next(None).await;
        let holds = match (reply, &work[at].condition) {
            (Some((_, Ok(reply))), Some(condition)) => condition.holds(&reply),
            _ => false,
        };
        if !holds {
            return false;
        }
    }
    true
}

/// What the answers to a checked prepare mean.
async fn checked(connection: Pinned, part: Part, replies: &[Bytes]) -> Arrival {
    let (voted, goes_on_watching) = match replies {
        [_, _, exec] => (answer::vote_in_exec(exec), false),
        [a, b, exec, c, d] => (answer::vote_checked([a, b, exec, c, d]), true),
        _ => return Arrival::event(Event::Voted(part, Vote::Unknown)),
    };
    let (vote, clock_ms) = match voted {
        Some(voted) => (voted.vote, voted.now_ms),
        None => (Vote::No(Refusal::WatchBroken), None),
    };
    let connection = match (goes_on_watching, &vote) {
        (true, Vote::Yes) => Some(connection),
        (true, _) => {
            unwatch(connection).await;
            None
        }
        (false, _) => {
            connection.give_back();
            None
        }
    };
    Arrival::Pinned {
        event: Event::Voted(part, vote),
        clock_ms,
        connection,
        replies: None,
    }
}

/// The decider's EXEC was not sent: as when its WATCH had broken.
fn not_sent(part: Part) -> Arrival {
    Arrival::event(Event::Applied(part, Applied::Not(Some(State::Prepared))))
}

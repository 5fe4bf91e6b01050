//! Drives recoverers.

use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::Engine;
use super::moments::{Moments, Who};
use super::seat::{Arrival, Request, Requests, unwatch};
use crate::metrics::Recovery;
use crate::resp::Protocol;
use crate::txn::recovery::{Recoverer, Start};
use crate::txn::redo::Fidelity;
use crate::txn::script::{self, ApplyPinned, answer};
use crate::txn::{Action, Applied, Ending, Event, Millis, Part, Reading, Rule, State, TxnId, redo};

/// Whether a recovery waits for the deadline of the record it starts from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deadline {
    /// Nothing is done before it.
    Respected,
    /// An operator says that the coordinator is gone for good.
    Ignored,
}

/// Why a recovery was not begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotBegun {
    /// This worker is at it already.
    Busy,
    /// The record could not be read.
    Unreadable,
    /// There is no record here, or one that says *aborted*.
    Nothing,
    /// The deadline is still so many milliseconds away.
    Early(Millis),
    /// The record is not one of ours, or belongs to another shard map.
    Malformed,
}

impl Engine {
    /// Settles a transaction whose record was met at `part`, if its time is over. Does nothing
    /// if this worker is at it already.
    pub async fn recover(self: &Rc<Self>, part: Part, id: TxnId) {
        // Why nothing was done is of no interest to who merely came across it.
        let _ = self.settle(part, id, Deadline::Respected).await;
    }

    /// The same, and tells how it went.
    ///
    /// # Errors
    /// Why nothing was begun.
    pub async fn settle(
        self: &Rc<Self>,
        part: Part,
        id: TxnId,
        deadline: Deadline,
    ) -> Result<Ending, NotBegun> {
        if !self.recovering.borrow_mut().insert(id.clone()) {
            return Err(NotBegun::Busy);
        }
        let recovery = Drive::new(self, id.clone()).run(part, deadline).await;
        self.recovering.borrow_mut().remove(&id);
        if let Ok(ending) = &recovery {
            tracing::info!(%id, ?ending, "recovered a transaction that nobody finished");
            self.metrics.recoveries[label(ending)].increment(1);
        }
        recovery
    }

    pub(super) fn note_ending(&self, id: &TxnId, ending: &Ending) {
        match ending {
            Ending::Committed { left } | Ending::Aborted { left } if left.is_empty() => {}
            Ending::Nothing => {}
            Ending::Contradiction(part) => {
                tracing::error!(%id, %part, "a record contradicts the transaction's outcome")
            }
            other => tracing::warn!(%id, ending = ?other, "a transaction is left to recovery"),
        }
    }
}

fn label(ending: &Ending) -> Recovery {
    match ending {
        Ending::Committed { .. } => Recovery::Committed,
        Ending::Aborted { .. } => Recovery::Aborted,
        Ending::Nothing => Recovery::Nothing,
        Ending::InDoubt { .. } | Ending::Contradiction(_) => Recovery::Failed,
    }
}

/// One recovery.
struct Drive {
    engine: Rc<Engine>,
    requests: Requests,
    actions: Vec<Action>,
    timer: Option<Millis>,
    moments: Moments,
}

impl Drive {
    fn new(engine: &Rc<Engine>, id: TxnId) -> Self {
        Self {
            engine: Rc::clone(engine),
            requests: Requests::new(engine, id),
            actions: Vec::new(),
            timer: None,
            moments: Moments::new(Who::Recoverer, Rule::Implicit),
        }
    }

    async fn run(mut self, part: Part, deadline: Deadline) -> Result<Ending, NotBegun> {
        let mut reading = self.read(part).await.ok_or(NotBegun::Unreadable)?;
        if let (Deadline::Ignored, Reading::Found(record)) = (deadline, &mut reading) {
            record.now_ms = record.now_ms.max(record.deadline_ms);
        }
        let now = self.engine.now();
        let mut recoverer = match Recoverer::start(
            part,
            &reading,
            &self.engine.times.limits,
            now,
            &mut self.actions,
        ) {
            Start::Recover(recoverer) => recoverer,
            Start::Wait(ms) => return Err(NotBegun::Early(ms)),
            Start::Nothing if reading == Reading::Unreachable => return Err(NotBegun::Unreadable),
            Start::Nothing => return Err(NotBegun::Nothing),
            Start::Malformed => {
                tracing::error!(id = %self.requests.id, %part, "a record is not as lockstep writes it; it needs an operator");
                return Err(NotBegun::Malformed);
            }
        };
        loop {
            if let Some(ending) = self.act() {
                return Ok(ending);
            }
            let event = self.next().await;
            if let Some(event) = event {
                self.moments.saw(&event, &mut self.actions);
                recoverer.step(self.engine.now(), event, &mut self.actions);
            }
        }
    }

    async fn read(&self, part: Part) -> Option<Reading> {
        self.requests.act(&Action::Read { part });
        match self.requests.inbox.next(None).await? {
            Arrival::Reply(reply) => match self.requests.understand(reply)?.0 {
                Event::Read(_, reading) => Some(reading),
                _ => None,
            },
            Arrival::Pinned { .. } => None,
        }
    }

    async fn next(&mut self) -> Option<Event> {
        let until = self.timer.map(|at| {
            tokio::time::Instant::from_std(self.engine.epoch + Duration::from_millis(at))
        });
        match self.requests.inbox.next(until).await {
            Some(Arrival::Reply(reply)) => {
                let (event, replies) = self.requests.understand(reply)?;
                self.requests.kept.note(&event, replies.as_deref());
                Some(event)
            }
            Some(Arrival::Pinned { event, replies, .. }) => {
                self.requests.kept.note(&event, replies.as_deref());
                Some(event)
            }
            None => {
                self.timer = None;
                Some(Event::Timer)
            }
        }
    }

    fn act(&mut self) -> Option<Ending> {
        let actions = std::mem::take(&mut self.actions);
        for action in self.moments.admit(actions) {
            match action {
                Action::SetTimer(at) => self.timer = Some(at),
                Action::Done(ending) => {
                    return Some(ending);
                }
                Action::Apply { part, .. } => {
                    tokio::task::spawn_local(apply_stored(self.requests.clone(), part));
                }
                other => {
                    self.requests.act(&other);
                }
            }
        }
        None
    }
}

/// Applies a branch from the redo in its record, natively: only so can every command be run that
/// a client could have queued, and its replies be kept as they are. A shard short of memory
/// refuses that; then by script, which it lets pass, if a script can run it.
async fn apply_stored(requests: Requests, part: Part) {
    let tried = try_apply_stored(&requests, part).await;
    let arrival = match tried {
        Some(Tried {
            applied: Applied::Refused,
            by_script: true,
            ..
        }) => {
            let mut request = BytesMut::new();
            script::append_apply(&mut request, &requests.id);
            return requests.send(Request::Apply, part, &request);
        }
        Some(tried) => Arrival::Pinned {
            event: Event::Applied(part, tried.applied),
            clock_ms: None,
            connection: None,
            replies: tried.replies,
        },
        None => Arrival::event(Event::Applied(part, Applied::Refused)),
    };
    requests.inbox.push(arrival);
}

struct Tried {
    applied: Applied,
    /// Whether a script could run all of it.
    by_script: bool,
    /// Of its commands, once applied.
    replies: Option<Vec<Bytes>>,
}

/// None when nothing was sent that could apply it.
async fn try_apply_stored(requests: &Requests, part: Part) -> Option<Tried> {
    let (mut connection, state) = requests.watch(part, Protocol::Resp2).await.ok()?;
    if state != Some(State::Prepared) {
        unwatch(connection).await;
        return Some(Tried {
            applied: Applied::Not(state),
            by_script: false,
            replies: None,
        });
    }
    let mut request = BytesMut::new();
    script::append_read_intent(&mut request, &requests.id);
    let replies = connection.exchange(&request, 1).await.ok()?;
    let intent = answer::intent(replies.first()?).ok()??;
    let (commands, keys) = (
        redo::decode(intent.redo).ok()?,
        redo::decode_keys(intent.keys).ok()?,
    );
    let by_script = commands
        .iter()
        .all(|command| redo::fidelity(command.iter().copied()) != Fidelity::Never);
    let mut raw = BytesMut::new();
    for command in &commands {
        script::append_native(&mut raw, command.iter().copied());
    }
    let apply = ApplyPinned {
        id: &requests.id,
        keys: &keys,
        commands: &raw,
        commands_len: commands.len(),
    };
    match requests.exec_of(connection, part, &apply).await {
        Arrival::Pinned {
            event: Event::Applied(_, applied),
            replies,
            ..
        } => Some(Tried {
            applied,
            by_script,
            replies,
        }),
        _ => Some(Tried {
            applied: Applied::Unknown,
            by_script,
            replies: None,
        }),
    }
}

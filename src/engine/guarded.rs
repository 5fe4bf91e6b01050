//! What touches several slots of one shard, under strict isolation: no transaction over several
//! shards, but it must not take effect while one of its slots is settling.
//!
//! Three ways, each when the one before it is in vain:
//!
//! 1. the armed connection ([`crate::backend::armed`]): no lock, no script, one round trip, and
//!    nothing that the shard would not have done for the same MULTI/EXEC anyway. It needs a
//!    moment in which nothing at all settles on the shard;
//! 2. the script `guarded`: one round trip on the shared link, dearer for the shard. It asks for
//!    the run's own slots only, so it serves as well when the shard is busy with transactions
//!    over several shards. It runs at an instant at which none of its slots is settling; whoever
//!    has seen a transaction that settles meanwhile was either held or touched other slots, so
//!    no order of events leads through that transaction to this run and back;
//! 3. locks, as a transaction with one participant: for commands whose replies do not survive a
//!    script, and for slots that settle again and again, where locks make others wait in turn.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use super::inbox::Inbox;
use super::seat::Work;
use super::wakeups::backoff;
use super::{Answer, Engine, compose, errors};
use crate::backend::armed::{Ended, Run};
use crate::backend::{Cause, Failure};
use crate::failpoint;
use crate::metrics::{GuardedWay as Way, Outcome as Told};
use crate::txn::Part;
use crate::txn::plan::{Branch, Plan};
use crate::txn::script::{self, answer};

/// Times that the script is sent before locks are taken.
const TRIES_MAX: u32 = 8;

/// How a try ended.
enum Tried {
    /// The replies to its commands.
    Ran(Vec<Bytes>),
    /// With this error of the shard: nothing was executed.
    Refused(Bytes),
    /// No reply.
    Failed(Failure),
    /// Nothing was executed: another way must be taken.
    InVain,
}

/// What became of a plan.
pub(super) enum Guarded {
    /// This is the reply.
    Answered(BytesMut),
    /// Nothing of it was executed: this is to be done as a transaction.
    ToDo(Rc<[Work]>),
}

impl Engine {
    /// Runs a plan without locks, if it has one participant and that can be.
    pub(super) async fn run_guarded(&self, plan: &mut Plan, answer: Answer) -> Guarded {
        let mut branches = plan.take_branches();
        let mut tried = Tried::InVain;
        let mut way = Way::Locks;
        // FLUSHALL is guarded by its locks even where there is one shard.
        let may_go = !branches.iter().any(|branch| branch.is_everywhere);
        if let ([branch], true) = (&mut branches[..], may_go) {
            (tried, way) = (self.run_armed(branch).await, Way::Armed);
        }
        let work: Rc<[Work]> = branches.into_iter().map(Work::new).collect();
        if let ([alone], Tried::InVain, true) = (&work[..], &tried, may_go) {
            (tried, way) = (self.run_by_script(alone).await, Way::Script);
        }
        let told = match &tried {
            Tried::Ran(_) => Told::Committed,
            Tried::Refused(_) if answer == Answer::Exec => Told::Aborted,
            Tried::Failed(failure) => errors::failed_outcome(failure),
            // What refuses a prepare as well is told in the server's own words there.
            Tried::Refused(_) | Tried::InVain => {
                if let [alone] = &work[..] {
                    self.count_guarded(alone.part, Way::Locks);
                }
                return Guarded::ToDo(work);
            }
        };
        self.count_single(told);
        work.iter()
            .for_each(|alone| self.count_guarded(alone.part, way));
        Guarded::Answered(match tried {
            Tried::Ran(replies) => compose(plan, answer, &[replies]),
            Tried::Failed(failure) => {
                self.metrics.errors[errors::lost_kind(&failure, answer)].increment(1);
                errors::lost(&failure, answer)
            }
            Tried::Refused(error) => BytesMut::from(error),
            Tried::InVain => BytesMut::new(),
        })
    }

    fn count_guarded(&self, part: Part, way: Way) {
        self.metrics.shards[usize::from(part.shard)].guarded_runs[way].increment(1);
    }

    /// The shard is busy with transactions over several shards, but most likely with other slots.
    async fn run_by_script(&self, work: &Work) -> Tried {
        if !work.uses_script() {
            return Tried::InVain;
        }
        let mut request = BytesMut::new();
        script::append_guarded(&mut request, &work.intent);
        for tries in 1..=TRIES_MAX {
            let frame = match self.ask(work.part.shard, &request).await {
                Ok(frame) => frame,
                Err(failure) => return Tried::Failed(failure),
            };
            match answer::guarded(&frame) {
                answer::Guarded::Ran(replies) => {
                    let replies = replies.iter().map(|reply| Bytes::copy_from_slice(reply));
                    return Tried::Ran(work.replies(replies.collect()));
                }
                answer::Guarded::Settling(owner) => {
                    self.wait_for_release(work.part, &owner, backoff(tries), 1)
                        .await;
                }
                answer::Guarded::Refused => {
                    if answer::is_noscript(&frame) {
                        self.load_scripts(work.part.shard);
                    }
                    return Tried::InVain;
                }
                answer::Guarded::Unknown(words) => {
                    tracing::error!(part = %work.part, words, "a guarded script failed");
                    return Tried::Failed(Failure::MaybeSent(Cause::new(words)));
                }
            }
        }
        Tried::InVain
    }

    async fn run_armed(&self, branch: &mut Branch) -> Tried {
        failpoint::at("single-before-guarded-exec");
        let commands = branch.commands.split().freeze();
        let ended = Inbox::<Tried>::new();
        let told = Rc::clone(&ended);
        self.armed(branch.part.shard, branch.protocol).run(Run {
            commands: commands.clone(),
            count: branch.count as u32,
            owner: None,
            done: Box::new(move |end| told.push(Tried::from(end))),
        });
        let tried = ended.next(None).await.unwrap_or(Tried::InVain);
        failpoint::at("single-after-guarded-exec-before-reply");
        if matches!(tried, Tried::InVain | Tried::Refused(_)) {
            branch.commands = BytesMut::from(commands);
        }
        tried
    }
}

impl From<Ended<'_>> for Tried {
    fn from(ended: Ended<'_>) -> Self {
        match ended {
            Ended::Ran(replies) => {
                let all = Bytes::from(replies.concat());
                let mut at = 0;
                let each = replies.iter().map(|reply| {
                    at += reply.len();
                    all.slice(at - reply.len()..at)
                });
                Self::Ran(each.collect())
            }
            Ended::Refused(error) => Self::Refused(Bytes::copy_from_slice(error)),
            Ended::Failed(failure) => Self::Failed(failure.clone()),
            Ended::KeptOut => Self::InVain,
        }
    }
}

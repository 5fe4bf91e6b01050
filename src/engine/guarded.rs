//! What touches several slots of one shard, under strict isolation: no transaction over several
//! shards, but it must not take effect while one of its slots is settling.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use super::inbox::Inbox;
use super::{Answer, Engine, compose, errors};
use crate::backend::Failure;
use crate::backend::armed::{Ended, Run};
use crate::metrics::Outcome as Told;
use crate::txn::plan::{Branch, Plan};

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

impl Engine {
    /// Runs a plan that has one participant without locks. None when it must take them.
    pub(super) async fn run_guarded(&self, plan: &mut Plan, answer: Answer) -> Option<BytesMut> {
        // FLUSHALL is guarded by its locks even where there is one shard.
        if !matches!(plan.branches(), [branch] if !branch.is_everywhere) {
            return None;
        }
        let mut branches = plan.take_branches();
        let tried = match branches.first_mut() {
            Some(branch) => self.run_armed(branch).await,
            None => Tried::InVain,
        };
        let told = match &tried {
            Tried::Ran(_) => Told::Committed,
            Tried::Refused(_) if answer == Answer::Exec => Told::Aborted,
            Tried::Failed(failure) => errors::failed_outcome(failure),
            // What refuses a prepare as well is told in the server's own words there.
            Tried::Refused(_) | Tried::InVain => {
                plan.put_branches(branches);
                return None;
            }
        };
        self.count_single(told);
        Some(match tried {
            Tried::Ran(replies) => compose(plan, answer, &[replies]),
            Tried::Refused(error) => BytesMut::from(error),
            Tried::Failed(failure) => {
                self.metrics.errors[errors::lost_kind(&failure, answer)].increment(1);
                errors::lost(&failure, answer)
            }
            Tried::InVain => return None,
        })
    }

    async fn run_armed(&self, branch: &mut Branch) -> Tried {
        let commands = branch.commands.split().freeze();
        let ended = Inbox::<Tried>::new();
        let told = Rc::clone(&ended);
        self.armed(branch.part.shard, branch.protocol).run(Run {
            commands: commands.clone(),
            count: branch.count as u32,
            done: Box::new(move |end| told.push(Tried::from(end))),
        });
        let tried = ended.next(None).await.unwrap_or(Tried::InVain);
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

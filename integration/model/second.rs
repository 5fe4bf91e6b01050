//! The second transaction, which stands in the way of the first.

use lockstep::txn::*;

use super::bugs::{Bug, part};
use super::model::Protocol;
use super::sights::Sight;
use super::world::*;

impl Protocol {
    /// The second transaction prepares one more branch, and aborts what it has at the first No;
    /// or it applies all and releases them outright.
    pub(crate) fn advance_second(&self, world: &mut World) {
        let txn = if self.bug == Some(Bug::SameIdOnRetry) {
            0
        } else {
            1
        };
        let Second::Preparing(done) = world.second else {
            return;
        };
        if done == 0 {
            world.truths[txn] = Truth::new(self.parts);
        }
        let run = |world: &mut World, at, op| self.run(world, Request { txn, at, op });
        if done == self.parts {
            (0..done).for_each(|at| drop(run(world, at, Op::Apply)));
            (0..done).for_each(|at| drop(run(world, at, Op::Release { marker: false })));
            world.truths[txn].told = Told::Committed;
            self.sights.saw_told(txn, Told::Committed);
            if world.truths[0].all_applied() {
                self.sights.saw(Sight::SecondAfterFirst);
            }
            world.second = Second::Over;
            return;
        }
        world.second = Second::Preparing(done + 1);
        let prepare = Op::Prepare {
            not_after: Millis::MAX,
        };
        if run(world, done, prepare) != Event::Voted(part(done), Vote::Yes) {
            let abort = Op::Abort {
                marker: false,
                tombstone: None,
            };
            (0..done).for_each(|at| drop(run(world, at, abort)));
            world.truths[txn].told = Told::Aborted;
            world.second = Second::Over;
        }
    }

    pub(crate) fn second_may_go_on(&self, world: &World) -> bool {
        match world.second {
            Second::Over => false,
            Second::Preparing(0) if self.bug == Some(Bug::SameIdOnRetry) => {
                world.truths[0].told == Told::Aborted
            }
            Second::Preparing(_) => self.second,
        }
    }
}

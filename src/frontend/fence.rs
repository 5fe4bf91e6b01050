//! Plain writes while the fence is up; see [`crate::engine::fence`].
//!
//! They go over another connection than what is merely read, so neither may overtake the other:
//! where a client changes from one to the other within a pipeline, it waits until all is answered.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use super::dispatch::{Dispatcher, Flow};
use super::session::{Session, Want};
use super::waiting;
use crate::engine::fence::Write;
use crate::keyspace::{CommandSpec, Flag, KeyRule, Place, Treatment};
use crate::metrics::Family;
use crate::resp::Command;

impl Dispatcher {
    /// Whether a command with all its keys in one slot must keep away from what settles there.
    pub(super) fn is_fenced(&self, spec: &CommandSpec) -> bool {
        !spec.is(Flag::ReadOnly) && self.context.engine.is_fenced()
    }

    /// A command that may write, with all its keys in one slot; [`Self::home_of`] found it last.
    pub(super) fn write_fenced(
        &mut self,
        place: Place,
        spec: &CommandSpec,
        command: &Command<'_>,
    ) -> Flow {
        if !self.is_fencing && !self.session.is_now(Want::Idle) {
            return Flow::Wait;
        }
        self.is_fencing = true;
        let raw = if command.is_canonical() {
            Bytes::copy_from_slice(command.raw())
        } else {
            let mut raw = BytesMut::new();
            command.encode(&mut raw);
            raw.freeze()
        };
        let write = Write {
            place: self.place(place.shard),
            protocol: self.lane.protocol,
            raw,
            key: self.key_numbers(spec).first().copied().unwrap_or_default(),
            sink: Rc::<Session>::clone(&self.session),
            number: self.session.open_slot(),
        };
        self.context.engine.write_fenced(&self.writes, write);
        self.counted(Family::Write)
    }

    /// Writes may be waiting for the armed connection, and must not be overtaken.
    pub(super) fn must_wait_for_fence(&mut self) -> bool {
        let must_wait = self.is_fencing && !self.session.is_now(Want::Idle);
        self.is_fencing &= must_wait;
        must_wait
    }

    /// The same of a command that is not going to ask itself.
    pub(super) fn must_wait_behind_writes(&mut self, spec: &CommandSpec) -> bool {
        let asks = matches!(
            spec.treatment,
            Treatment::Route
                | Treatment::Cross(_)
                | Treatment::Split(_)
                | Treatment::Script
                | Treatment::Block { .. }
                | Treatment::Own(_)
        );
        !asks && self.must_wait_for_fence()
    }

    /// Numbers of the arguments that are keys; [`Self::home_of`] found them last.
    pub(super) fn key_numbers(&self, spec: &CommandSpec) -> Vec<usize> {
        match spec.keys {
            KeyRule::One(at) => vec![at],
            _ => self.keys.clone(),
        }
    }

    /// A command that waits for data under keys of one slot, and takes it.
    pub(super) fn block_fenced(
        &mut self,
        place: Place,
        spec: &CommandSpec,
        command: &Command<'_>,
    ) -> Flow {
        if waiting::can_be_taken_apart(spec, command) {
            self.block_over(spec, command)
        } else {
            self.block_guarded(place.shard, spec, command)
        }
    }
}

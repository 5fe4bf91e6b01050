//! Large commands leave while they are still coming in, so that their size is nobody's memory.
//!
//! Once [`BYTES_MIN`] of a command are there and it is not complete, it is sent on as it is and as it
//! comes, on a connection of its own ([`crate::engine::upload`]), if all that decides about it is
//! there: a command with a single key that goes to the key's shard unchanged (SET, APPEND, RPUSH,
//! HSET ...), and its key. It must be the only one of its client then: it waits until all in front of
//! it is answered, and what is behind it waits for its reply.
//!
//! Collected as ever, up to `client-input-bytes-max`, are those with several keys, scripts, what
//! MULTI queues, plain writes while the fence is up, whatever is looked at as a whole (`hotkeys-sample`,
//! `trace-sample`, `deny-commands`, rate limits), and what will be refused at its end.
//!
//! If the shard fails meanwhile, the client is told at once; the rest of the command is dropped as it
//! comes, and the connection stays in step.

use std::rc::Rc;
use std::task::{Context as Task, Poll};

use super::client::{Client, Stop};
use super::dispatch::{Dispatcher, family};
use super::session::Want;
use crate::engine::upload::Upload;
use crate::keyspace::{CommandSpec, KeyRule, Lookup, Treatment};
use crate::resp::{Command, ProtocolError, Scan};
use crate::txn::plan::Home;

/// So much of a command is collected before it is sent on.
const BYTES_MIN: usize = 2 * 1024 * 1024;

/// What a client sends on while it comes.
pub(super) struct Uploading {
    upload: Upload,
    /// Bytes of the input that belong to it and were not taken yet.
    understood: usize,
    /// The end of the command is among them.
    has_ended: bool,
}

/// What becomes of a command that is not complete.
pub(super) enum Outset {
    /// The rest is waited for.
    Collect,
    /// It may be sent on, but not now: the client's task is woken when it may.
    Wait,
    /// It is being sent.
    Begun(Upload),
}

impl Dispatcher {
    /// Begins to send a command that will have so many arguments and is there up to the last of
    /// those that it shows.
    fn upload(&mut self, command: &Command<'_>, argc: usize) -> Outset {
        let context = Rc::clone(&self.context);
        let is_plain = !self.session.is_special() && self.multi.is_none();
        if !is_plain || context.is_guarding.get() {
            return Outset::Collect;
        }
        let Lookup::Known(spec) = context.table.lookup(command) else {
            return Outset::Collect;
        };
        if !self.is_known_by_its_key(spec, command) || !spec.arity_fits(argc) {
            return Outset::Collect;
        }
        let Ok(Home::Slot(place)) = self.home_of(spec, command) else {
            return Outset::Collect;
        };
        if self.must_pause(spec, command) || !self.session.is_now(Want::Idle) {
            return Outset::Wait;
        }
        self.last.clone_from(&spec.name);
        self.session.times(spec.id);
        let (session, slot) = (Rc::clone(&self.session), self.session.open_slot());
        let done = move |reply: &[u8]| session.complete(slot, reply);
        let upload = (context.engine).upload(place.shard, self.lane, place.slot, done);
        self.counted(family(spec));
        Outset::Begun(upload)
    }

    /// Whether nothing but its key, which is there, decides where the command goes, and that it may.
    fn is_known_by_its_key(&mut self, spec: &CommandSpec, command: &Command<'_>) -> bool {
        let KeyRule::One(at) = spec.keys else {
            return false;
        };
        spec.treatment == Treatment::Route
            && at < command.argc()
            && !self.is_fenced(spec)
            && self.may_give(spec, command)
    }
}

impl Client {
    /// A command is not complete. Why handling stops, unless it is on its way now.
    pub(super) fn set_out(&mut self) -> Option<Stop> {
        let bytes = &self.input[self.done..];
        if bytes.len() < BYTES_MIN {
            return Some(Stop::NeedBytes);
        }
        let outset = match self.scanner.begun(bytes) {
            Some((command, argc)) => self.dispatcher.upload(&command, argc),
            None => Outset::Collect,
        };
        match outset {
            Outset::Collect => Some(Stop::NeedBytes),
            Outset::Wait => Some(Stop::Stalled),
            Outset::Begun(upload) => {
                self.upload = Some(Uploading {
                    upload,
                    understood: self.scanner.hand_on(bytes.len()),
                    has_ended: false,
                });
                None
            }
        }
    }

    /// Sends on what has come of the command that is under way, if one is. Why handling stops,
    /// unless it is complete.
    pub(super) fn go_on(&mut self, task: &mut Task<'_>) -> Option<Stop> {
        loop {
            let uploading = self.upload.as_mut()?;
            while uploading.understood > 0 {
                let bytes = &self.input[self.done..self.done + uploading.understood];
                let Poll::Ready(taken) = uploading.upload.poll_take(bytes, task) else {
                    return Some(Stop::Stalled);
                };
                self.done += taken;
                uploading.understood -= taken;
            }
            if uploading.has_ended {
                self.is_barred = true;
                self.upload.take()?.upload.end();
                return None;
            }
            let bytes = &self.input[self.done..];
            let scanned = self.scanner.scan(bytes);
            uploading.understood = match scanned {
                Ok(Scan::Incomplete) => self.scanner.hand_on(bytes.len()),
                Ok(Scan::Command { len } | Scan::Empty { len }) => len,
                Err(error) => return Some(self.break_off(error)),
            };
            if !self.scanner.is_canonical() {
                return Some(self.break_off(ProtocolError::SloppyLine));
            }
            uploading.has_ended = !matches!(scanned, Ok(Scan::Incomplete));
            if uploading.understood == 0 {
                return Some(Stop::NeedBytes);
            }
        }
    }

    /// What follows is not the rest of the command.
    fn break_off(&mut self, error: ProtocolError) -> Stop {
        self.give_up();
        self.refuse(error)
    }

    /// The rest of a command that is under way will not come.
    pub(super) fn give_up(&mut self) {
        if let Some(uploading) = self.upload.take()
            && uploading.upload.give_up()
        {
            self.session.drop_slot();
        }
    }
}

//! Scripts and functions: EVAL and its kin run natively where their keys are; libraries and
//! cached scripts are kept on every shard.
//!
//! EVALSHA works as long as the script is known, to the shard or to this lockstep, which keeps
//! the sources that it was shown: the first time on a connection the script is loaded in front of
//! it; and if the shard has lost it since, it runs as EVAL, unless the client has sent more
//! behind it, which must not be overtaken. Where a script becomes part of something larger (a
//! MULTI, keys in several slots) it is put there with its source, since what runs then may run
//! again, on a server that was restarted meanwhile.

mod guard;
mod library;

use std::cell::Cell;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use super::dispatch::{Dispatcher, Flow};
use super::gather::scanned_before;
use super::refusal::fixed;
use super::session::Session;
use crate::backend::{Failure, How, Isolation, Link, ReplySink};
use crate::engine::sources::{Sha, sha_named, sha_of};
use crate::keyspace::{CommandSpec, Place};
use crate::metrics::Family;
use crate::resp::{self, Command, CommandScanner, Scan, build};
use crate::txn::plan::{Home, Misplaced};
use crate::txn::queue::Target;

/// What is run.
enum Code {
    /// This source.
    Text(Bytes),
    /// A cached script of this name, whose source is not known.
    Unknown,
    /// A function of a library.
    Function,
}

/// In which form a script can run.
enum Form {
    /// As the client gave it.
    AsGiven,
    /// As EVAL of its source.
    Eval(BytesMut),
    /// As EVAL of its source, which is this, behind a guard.
    Guarded(BytesMut, Bytes),
}

impl Dispatcher {
    /// EVAL and its kin, outside MULTI.
    pub(super) fn script(&mut self, spec: &CommandSpec, command: &Command<'_>) -> Flow {
        let is_homeless = self.is_homeless_script(spec, command);
        if !is_homeless && !is_by_name(spec) {
            self.learn(spec, command);
            return self.route(spec, command);
        }
        let code = self.code(spec, command);
        if is_homeless {
            let home = self.home_of_script(&code);
            return match self.without_keys(&code, spec, command) {
                Ok(form) => self.run_anywhere(home, form, command),
                Err(None) => self.reject(fixed::NOSCRIPT),
                Err(Some(_)) => self.call_without_keys(spec, command),
            };
        }
        match (self.home_of(spec, command), code) {
            (Ok(Home::Slot(place)), Code::Text(source)) if !self.is_fenced(spec) => {
                self.run_by_name(place, spec, command, &source)
            }
            (Ok(Home::Slot(_) | Home::Shard(_)), Code::Text(source)) => {
                let raw = as_eval(spec, command, &source);
                self.again(&raw, Self::route)
            }
            _ => self.route(spec, command),
        }
    }

    /// Queues EVAL and its kin.
    pub(super) fn queue_script(&mut self, spec: &CommandSpec, command: &Command<'_>) -> Flow {
        let is_homeless = self.is_homeless_script(spec, command);
        if !is_homeless && !is_by_name(spec) {
            self.learn(spec, command);
            return self.queue_whole(spec, command);
        }
        let code = self.code(spec, command);
        if is_homeless {
            return match self.without_keys(&code, spec, command) {
                Ok(Form::AsGiven) => self.enqueue(command, Target::Whole(Home::Nowhere)),
                Ok(Form::Eval(raw) | Form::Guarded(raw, _)) => self
                    .again(&raw, |this, _, command| {
                        this.enqueue(command, Target::Whole(Home::Nowhere))
                    }),
                Err(why) => self.reject_misplaced(spec, why.unwrap_or(Misplaced::Undeclared)),
            };
        }
        if let Code::Text(source) = code {
            let raw = as_eval(spec, command, &source);
            return self.again(&raw, Self::queue_whole);
        }
        self.queue_whole(spec, command)
    }

    fn queue_whole(&mut self, spec: &CommandSpec, command: &Command<'_>) -> Flow {
        match self.target(spec, command) {
            Ok(target) => self.enqueue(command, target),
            Err(why) => self.reject_misplaced(spec, why),
        }
    }

    /// Remembers the source that EVAL shows.
    fn learn(&self, spec: &CommandSpec, command: &Command<'_>) {
        if matches!(spec.name.as_str(), "eval" | "eval_ro") {
            self.context
                .scripts
                .learn(command.arg(1).unwrap_or_default());
        }
    }

    /// What a command runs; a source that it shows is remembered.
    fn code(&self, spec: &CommandSpec, command: &Command<'_>) -> Code {
        let argument = command.arg(1).unwrap_or_default();
        let scripts = &self.context.scripts;
        match spec.name.as_str() {
            "eval" | "eval_ro" => {
                scripts.learn(argument);
                Code::Text(Bytes::copy_from_slice(argument))
            }
            "evalsha" | "evalsha_ro" => match sha_named(argument).and_then(|sha| scripts.get(&sha))
            {
                Some(source) => Code::Text(source),
                None => Code::Unknown,
            },
            _ => Code::Function,
        }
    }

    /// The form in which a script without keys may run on any of several shards.
    ///
    /// # Errors
    /// Why it may not; None when it is not known.
    fn without_keys(
        &self,
        code: &Code,
        spec: &CommandSpec,
        command: &Command<'_>,
    ) -> Result<Form, Option<Misplaced>> {
        match code {
            Code::Text(source) if guard::can_touch(source, &self.context.table) => {
                let raw = as_eval(spec, command, &guard::guarded(source));
                Ok(Form::Guarded(raw, source.clone()))
            }
            Code::Text(source) if is_by_name(spec) => {
                Ok(Form::Eval(as_eval(spec, command, source)))
            }
            Code::Text(_) => Ok(Form::AsGiven),
            Code::Unknown => Err(None),
            Code::Function => Err(Some(Misplaced::Undeclared)),
        }
    }

    /// Where a script without keys runs: always on the same shard, as long as that is there, so
    /// that no other has to compile and keep it.
    fn home_of_script(&self, code: &Code) -> u16 {
        let home = match code {
            Code::Text(source) => self.context.topology.shard_of(&sha_of(source)),
            _ => return self.any_shard(),
        };
        match self.link(home).is_available() {
            true => home,
            false => self.any_shard(),
        }
    }

    fn run_anywhere(&mut self, shard: u16, form: Form, command: &Command<'_>) -> Flow {
        match form {
            Form::AsGiven => self.forward(shard, command, Isolation::None, Family::Write),
            Form::Eval(raw) => self.again(&raw, |this, _, command| {
                this.forward(shard, command, Isolation::None, Family::Write)
            }),
            Form::Guarded(raw, source) => self.run_guarded(shard, &raw, source),
        }
    }

    fn run_guarded(&mut self, shard: u16, raw: &[u8], source: Bytes) -> Flow {
        if self.must_wait_for_fence() || self.must_wait_for_split_read() {
            return Flow::Wait;
        }
        let slot = self.session.open_slot();
        let to = Rc::clone(&self.session);
        let link = Rc::clone(self.link(shard));
        let sink = Rc::new(guard::Unguarded { to, source });
        if let Err(failure) = link.send(&[raw], How::PLAIN.of_script(true), sink, slot) {
            self.session.drop_slot();
            return self.reject_as(failure.kind(), failure.to_string());
        }
        self.counted(Family::Write)
    }

    /// Goes on with a command of our own making in the client's place.
    fn again(
        &mut self,
        raw: &[u8],
        go_on: impl FnOnce(&mut Self, &CommandSpec, &Command<'_>) -> Flow,
    ) -> Flow {
        let context = Rc::clone(&self.context);
        let mut scanner = CommandScanner::new(scanned_before());
        if let Ok(Scan::Command { .. }) = scanner.scan(raw) {
            let command = scanner.command(raw);
            if let crate::keyspace::Lookup::Known(spec) = context.table.lookup(&command) {
                return go_on(self, spec, &command);
            }
        }
        self.reject(fixed::NOSCRIPT)
    }

    /// EVALSHA with all its keys in one slot, of a script whose source is known.
    fn run_by_name(
        &mut self,
        place: Place,
        spec: &CommandSpec,
        command: &Command<'_>,
        source: &Bytes,
    ) -> Flow {
        if self.must_wait_for_fence() || self.must_wait_for_split_read() {
            return Flow::Wait;
        }
        let Some(sha) = command.arg(1).and_then(sha_named) else {
            return Flow::Next;
        };
        let mut request = BytesMut::new();
        let link = Rc::clone(self.link(place.shard));
        let is_new = link.marks.add(sha);
        if is_new {
            build::command(&mut request, [&b"SCRIPT"[..], b"LOAD", source]);
        }
        command.encode(&mut request);
        let isolation = self.context.engine.hold(Some(place.slot));
        let how = How {
            swallow: u32::from(is_new),
            isolation,
            is_script: true,
        };
        let slot = self.session.open_slot();
        let heal = Rc::new(Heal {
            session: Rc::clone(&self.session),
            link: Rc::clone(&link),
            isolation,
            sha,
            source: source.clone(),
            verb: verb(spec),
            args: command.args().skip(2).map(Bytes::copy_from_slice).collect(),
            is_tried: Cell::new(false),
        });
        if let Err(failure) = link.send(&[&request], how, heal, slot) {
            link.marks.remove(&sha);
            self.session.drop_slot();
            return self.reject_as(failure.kind(), failure.to_string());
        }
        self.counted(Family::Write)
    }
}

fn is_by_name(spec: &CommandSpec) -> bool {
    matches!(spec.name.as_str(), "evalsha" | "evalsha_ro")
}

fn verb(spec: &CommandSpec) -> &'static str {
    if spec.name.ends_with("_ro") {
        "EVAL_RO"
    } else {
        "EVAL"
    }
}

/// The command as EVAL, or EVAL_RO, of this source.
fn as_eval(spec: &CommandSpec, command: &Command<'_>, source: &[u8]) -> BytesMut {
    let args = command.args().skip(2);
    let mut out = BytesMut::new();
    build::array_header(&mut out, 2 + args.len());
    build::bulk(&mut out, verb(spec));
    build::bulk(&mut out, source);
    args.for_each(|arg| build::bulk(&mut out, arg));
    out
}

/// Runs a script by its source when the shard has lost it.
struct Heal {
    session: Rc<Session>,
    link: Rc<Link>,
    isolation: Isolation,
    sha: Sha,
    source: Bytes,
    verb: &'static str,
    args: Vec<Bytes>,
    is_tried: Cell<bool>,
}

impl Heal {
    fn request(&self) -> BytesMut {
        let mut out = BytesMut::new();
        build::array_header(&mut out, 2 + self.args.len());
        build::bulk(&mut out, self.verb);
        build::bulk(&mut out, &self.source);
        self.args.iter().for_each(|arg| build::bulk(&mut out, arg));
        out
    }
}

impl ReplySink for Heal {
    fn deliver(self: Rc<Self>, number: u64, reply: &[u8]) {
        let is_lost = resp::is_error(reply) && resp::error_text(reply).starts_with(b"NOSCRIPT");
        if is_lost {
            self.link.marks.remove(&self.sha);
        }
        if !is_lost || self.is_tried.replace(true) || !self.session.is_last(number) {
            return Rc::clone(&self.session).deliver(number, reply);
        }
        let (link, how) = (
            Rc::clone(&self.link),
            How::isolated(self.isolation).of_script(true),
        );
        let request = self.request();
        if let Err(failure) = link.send(&[&request], how, Rc::<Self>::clone(&self), number) {
            self.fail(number, &failure);
        }
    }

    fn fail(self: Rc<Self>, number: u64, failure: &Failure) {
        Rc::clone(&self.session).fail(number, failure);
    }
}

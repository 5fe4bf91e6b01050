//! What a client sets its connection to: the protocol (HELLO), the database (SELECT), whether it
//! wants replies (CLIENT REPLY), and all of it back (RESET).
//!
//! A client's commands go over links of its own lane, so it changes lane only when every reply is
//! there: two links keep no order between them. Inside MULTI a change counts from there on, and
//! for the session if and when EXEC has run.

use bytes::BytesMut;

use super::access::Badge;
use super::dispatch::{Dispatcher, Flow};
use super::own::Identity;
use super::refusal::{self, fixed};
use super::session::{Session, Want};
use crate::engine::lanes;
use crate::keyspace::{CommandSpec, Own};
use crate::metrics::{ErrorKind, Family};
use crate::resp::{Command, Lane, Protocol, build, is_error, number};

/// Which replies a client wants; CLIENT REPLY.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Replies {
    /// All.
    #[default]
    On,
    /// None.
    Off,
    /// All but that to the next command.
    SkipNext,
    /// All but that to the command that is being dealt with.
    Skip,
}

/// What is more than usual about the next command.
impl Session {
    /// Whether the next command needs more than usual: [`Session::take_lane`],
    /// [`Session::begin_command`], [`Session::end_command`].
    pub fn is_special(&self) -> bool {
        self.is_special.get()
    }

    /// The lane is to be entered before the next command.
    pub fn enter_lane(&self, lane: Lane) {
        self.lane.set(Some(lane));
        self.is_special.set(true);
    }

    /// The lane that is to be entered now.
    pub fn take_lane(&self) -> Option<Lane> {
        self.lane.take()
    }

    /// The client wants these replies from now on. While it wants none, there are none to skip.
    pub fn set_replies(&self, replies: Replies) {
        if (self.replies.get(), replies) != (Replies::Off, Replies::SkipNext) {
            self.replies.set(replies);
        }
        self.is_special.set(true);
    }

    /// The client wants replies again, but for one that it has given up already.
    pub fn speak_again(&self) {
        if self.replies.get() == Replies::Off {
            self.replies.set(Replies::On);
        }
    }

    /// A command is to be dealt with.
    pub fn begin_command(&self) {
        if self.replies.get() == Replies::SkipNext {
            self.replies.set(Replies::Skip);
        }
    }

    /// It was dealt with.
    pub fn end_command(&self) {
        if self.replies.get() == Replies::Skip {
            self.replies.set(Replies::On);
        }
        let is_usual = self.replies.get() == Replies::On;
        let is_traced = self.traces.is_pending();
        self.is_special
            .set(!is_usual || is_traced || self.lane.get().is_some());
    }

    pub(super) fn is_muted(&self) -> bool {
        matches!(self.replies.get(), Replies::Off | Replies::Skip)
    }
}

impl Dispatcher {
    /// Deals with a command while there is more to it than usual: replies are muted, or the last
    /// EXEC has changed the lane.
    pub(super) fn handle_specially(&mut self, command: &Command<'_>) -> Flow {
        if let Some(lane) = self.session.take_lane() {
            let Some(links) = self.context.engine.links_of(lane) else {
                // Closed since, and no room to open it again: better no database than another.
                self.close();
                return self.reject_as(ErrorKind::Limit, lanes::too_many().to_string());
            };
            (self.lane, self.links) = (lane, links);
            self.subscriber.speak(lane.protocol);
        }
        self.session.begin_command();
        let flow = self.dispatch_traced(command);
        if flow != Flow::Wait {
            self.session.end_command();
        }
        flow
    }

    /// A shard for what any shard can answer: not always the same, and not one that is down.
    pub(super) fn any_shard(&self) -> u16 {
        let shards = self.context.topology.shards() as u64;
        let first = self.session.id % shards;
        let tries = (0..shards).map(|i| ((first + i) % shards) as u16);
        let mut available = tries.filter(|&shard| self.link(shard).is_available());
        available.next().unwrap_or(first as u16)
    }

    /// HELLO or SELECT, outside MULTI.
    pub(super) fn switch(&mut self, own: Own, spec: &CommandSpec, command: &Command<'_>) -> Flow {
        if !self.session.is_now(Want::Idle) {
            return Flow::Wait;
        }
        let mut out = BytesMut::new();
        self.answer(own, spec, command, &mut out);
        // Opened by the answer, if it was not before.
        if let Some(links) = self.context.engine.links_of(self.lane) {
            self.links = links;
            self.subscriber.speak(self.lane.protocol);
        }
        if is_error(&out) {
            self.context.metrics.errors[ErrorKind::Command].increment(1);
        }
        self.session.reply(|to| to.extend_from_slice(&out));
        self.counted(Family::Local)
    }

    /// RESET, at once even inside MULTI.
    pub(super) fn reset(&mut self) -> Flow {
        if self.lane != Lane::FIRST {
            if !self.session.is_now(Want::Idle) {
                return Flow::Wait;
            }
            (self.lane, self.links) = (Lane::FIRST, self.context.engine.first_links());
        }
        self.multi = None;
        self.unwatch();
        self.subscriber.leave_all(&self.context.hub);
        self.subscriber.speak(Protocol::Resp2);
        self.identity.name.clear();
        self.badge = Badge::first(&self.context.gate);
        self.session.speak_again();
        self.session.reply(|out| build::status(out, "RESET"));
        self.counted(Family::Local)
    }

    /// CLIENT REPLY ON|OFF|SKIP, outside MULTI.
    pub(super) fn reply_mode(&mut self, mode: &[u8], out: &mut BytesMut) {
        match mode.to_ascii_lowercase().as_slice() {
            b"on" => {
                self.session.set_replies(Replies::On);
                build::status(out, "OK");
            }
            b"off" => self.session.set_replies(Replies::Off),
            b"skip" => self.session.set_replies(Replies::SkipNext),
            _ => build::error(out, fixed::SYNTAX),
        }
    }

    /// Enters a lane, if there are connections for it.
    fn enter(&mut self, lane: Lane) -> Result<(), Vec<u8>> {
        match self.context.engine.links_of(lane) {
            Some(_) => {
                self.lane = lane;
                Ok(())
            }
            None => Err(lanes::too_many().to_string().into_bytes()),
        }
    }

    pub(super) fn select(&mut self, command: &Command<'_>, out: &mut BytesMut) {
        let databases = self.context.server.databases;
        let db = match number::parse_i64(command.arg(1).unwrap_or_default()) {
            None => return build::error(out, fixed::NOT_AN_INTEGER),
            Some(number) if i32::try_from(number).is_err() => {
                return build::error(out, fixed::NO_INT);
            }
            Some(number) => match u16::try_from(number) {
                Ok(db) if db < databases => db,
                _ => return build::error(out, fixed::DB_OUT_OF_RANGE),
            },
        };
        match self.enter(Lane { db, ..self.lane }) {
            Ok(()) => build::status(out, "OK"),
            Err(why) => build::error(out, why),
        }
    }

    /// HELLO [version [AUTH user password] [SETNAME name]].
    pub(super) fn hello(&mut self, command: &Command<'_>, out: &mut BytesMut) {
        let protocol = match command.arg(1).map(number::parse_i64) {
            None => self.lane.protocol,
            Some(Some(2)) => Protocol::Resp2,
            Some(Some(3)) => Protocol::Resp3,
            Some(Some(_)) => return build::error(out, fixed::NOPROTO),
            Some(None) => return build::error(out, fixed::PROTO_NOT_INT),
        };
        let lane = Lane {
            protocol,
            ..self.lane
        };
        let done = self.hello_options(command).and_then(|()| self.enter(lane));
        match done {
            Ok(()) => self.greet(out),
            Err(why) => build::error(out, why),
        }
    }

    /// They take effect one by one, as far as they are right.
    fn hello_options(&mut self, command: &Command<'_>) -> Result<(), Vec<u8>> {
        let mut at = 2;
        while let Some(option) = command.arg(at) {
            let (first, second) = (command.arg(at + 1), command.arg(at + 2));
            match (option.to_ascii_lowercase().as_slice(), first, second) {
                (b"auth", Some(user), Some(password)) => {
                    if !self.authenticate(user, password, command.name()) {
                        return Err(fixed::WRONGPASS.into());
                    }
                    at += 3;
                }
                (b"setname", Some(name), _) if !Identity::is_valid(name) => {
                    return Err(fixed::CLIENT_NAME.into());
                }
                (b"setname", Some(name), _) => {
                    self.identity.name = name.to_vec();
                    at += 2;
                }
                _ => return Err(refusal::hello_option(option)),
            }
        }
        match self.must_authenticate() {
            true => Err(fixed::NOAUTH_HELLO.into()),
            false => Ok(()),
        }
    }

    fn greet(&self, out: &mut BytesMut) {
        let protocol = self.lane.protocol;
        build::map_header(out, protocol, 7);
        let text = |out: &mut BytesMut, name: &str, value: &str| {
            build::bulk(out, name);
            build::bulk(out, value);
        };
        text(out, "server", "redis");
        text(out, "version", &self.context.server.redis_version);
        build::bulk(out, "proto");
        build::int(
            out,
            match protocol {
                Protocol::Resp2 => 2,
                Protocol::Resp3 => 3,
            },
        );
        build::bulk(out, "id");
        build::int(out, self.session.id as i64);
        text(out, "mode", "standalone");
        text(out, "role", "master");
        build::bulk(out, "modules");
        build::array_header(out, 0);
    }
}

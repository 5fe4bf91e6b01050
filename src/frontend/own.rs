//! Commands about the connection, answered by lockstep: what clients send when they connect.

use bytes::BytesMut;

use super::dispatch::{Dispatcher, Flow};
use super::refusal::{self, fixed};

use crate::keyspace::{CommandSpec, Own};
use crate::metrics::{ErrorKind, Family};
use crate::resp::{Command, build, is_error};

/// What a client told of itself.
#[derive(Debug, Default)]
pub struct Identity {
    /// CLIENT SETNAME; empty for none.
    pub name: Vec<u8>,
    /// CLIENT SETINFO LIB-NAME and LIB-VER.
    pub library: [Vec<u8>; 2],
}

impl Identity {
    /// Subcommands of CLIENT that are answered even if the shards' version does not know them.
    pub fn knows(command: &Command<'_>) -> bool {
        command
            .arg(1)
            .is_some_and(|sub| sub.eq_ignore_ascii_case(b"setinfo"))
            && command.argc() == 4
    }

    /// The rule of `validateClientAttr` in redis-server: printable ASCII without spaces.
    pub(super) fn is_valid(text: &[u8]) -> bool {
        text.iter().all(|b| (b'!'..=b'~').contains(b))
    }
}

impl Dispatcher {
    /// Commands about the connection, outside MULTI.
    pub(super) fn own(&mut self, own: Own, spec: &CommandSpec, command: &Command<'_>) -> Flow {
        match own {
            Own::Hello | Own::Select => return self.switch(own, spec, command),
            Own::Reset => return self.reset(),
            Own::Watch => return self.watch(spec, command),
            Own::Ping if let Some(flow) = self.refuse_while_busy() => return flow,
            _ => self.counted(Family::Local),
        };
        match own {
            Own::Multi => self.begin(),
            Own::Exec => self.reject(fixed::EXEC_WITHOUT_MULTI),
            Own::Discard => self.reject(fixed::DISCARD_WITHOUT_MULTI),
            Own::Quit => self.quit(),
            Own::Ping if let Some(flow) = self.ping_listening(command) => flow,
            _ => {
                if own == Own::Unwatch {
                    self.unwatch();
                }
                let mut out = BytesMut::new();
                self.answer(own, spec, command, &mut out);
                if is_error(&out) {
                    self.context.metrics.errors[ErrorKind::Command].increment(1);
                }
                self.session.reply(|to| to.extend_from_slice(&out));
                Flow::Next
            }
        }
    }

    pub(super) fn quit(&mut self) -> Flow {
        self.session.reply(|out| build::status(out, "OK"));
        self.close();
        Flow::Next
    }

    /// Writes the answer; also called at EXEC, for those that were queued. HELLO and SELECT change
    /// the lane.
    pub(super) fn answer(
        &mut self,
        own: Own,
        spec: &CommandSpec,
        command: &Command<'_>,
        out: &mut BytesMut,
    ) {
        match own {
            Own::Ping => ping(spec, command, out),
            Own::Echo => build::bulk(out, command.arg(1).unwrap_or_default()),
            Own::Unwatch => build::status(out, "OK"),
            Own::Select => self.select(command, out),
            Own::Auth => match self.auth(command) {
                Ok(()) => build::status(out, "OK"),
                Err(why) => build::error(out, why),
            },
            Own::Acl => self.acl(spec, command, out),
            Own::Hello => self.hello(command, out),
            Own::Client => self.client(spec, command, out),
            // These change what a queue means, and are dealt with before anything is queued.
            Own::Multi | Own::Exec | Own::Discard | Own::Watch | Own::Quit | Own::Reset => {
                build::error(out, fixed::NO_MULTI)
            }
        }
    }

    fn client(&mut self, spec: &CommandSpec, command: &Command<'_>, out: &mut BytesMut) {
        let sub = command.arg(1).unwrap_or_default().to_ascii_lowercase();
        let value = command.arg(2).unwrap_or_default();
        if let Some(reply) = self.about_clients(command) {
            return out.extend_from_slice(&reply);
        }
        match (&sub[..], command.argc()) {
            (b"id", _) => build::int(out, self.session.id as i64),
            (b"getname", _) if self.identity.name.is_empty() => {
                build::null_bulk(out, self.lane.protocol)
            }
            (b"getname", _) => build::bulk(out, &self.identity.name),
            (b"tracking" | b"caching" | b"getredir" | b"trackinginfo", _) => {
                self.tracking(&sub, command, out);
            }
            (b"reply", 3) => self.reply_mode(value, out),
            (b"no-evict", 3) => no_evict(value, out),
            (b"setname", _) => self.set_name(value, out),
            (b"setinfo", 4) => self.set_info(value, command.arg(3).unwrap_or_default(), out),
            _ => build::error(
                out,
                refusal::refused(spec, "is not supported by this version of lockstep"),
            ),
        }
    }

    fn set_name(&mut self, name: &[u8], out: &mut BytesMut) {
        if Identity::is_valid(name) {
            self.identity.name = name.to_vec();
            build::status(out, "OK");
        } else {
            build::error(out, fixed::CLIENT_NAME);
        }
    }

    fn set_info(&mut self, option: &[u8], value: &[u8], out: &mut BytesMut) {
        let which = match option.to_ascii_lowercase().as_slice() {
            b"lib-name" => 0,
            b"lib-ver" => 1,
            _ => {
                let option = String::from_utf8_lossy(option).into_owned();
                return build::error(out, format!("ERR Unrecognized option '{option}'"));
            }
        };
        if Identity::is_valid(value) {
            self.identity.library[which] = value.to_vec();
            build::status(out, "OK");
        } else {
            let name = ["lib-name", "lib-ver"][which];
            build::error(
                out,
                format!("ERR {name} cannot contain spaces, newlines or special characters."),
            );
        }
    }
}

/// A client is never evicted here for what it is owed, so there is nothing to exempt it from.
fn no_evict(mode: &[u8], out: &mut BytesMut) {
    match mode.to_ascii_lowercase().as_slice() {
        b"on" | b"off" => build::status(out, "OK"),
        _ => build::error(out, fixed::SYNTAX),
    }
}

fn ping(spec: &CommandSpec, command: &Command<'_>, out: &mut BytesMut) {
    match (command.argc(), command.arg(1)) {
        (2, Some(text)) => build::bulk(out, text),
        (1, _) => build::status(out, "PONG"),
        _ => build::error(out, refusal::arity(spec)),
    }
}

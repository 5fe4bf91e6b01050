//! CLIENT LIST, INFO, KILL, UNBLOCK, PAUSE and UNPAUSE: about all clients of the process,
//! whichever worker serves them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::task::spawn_local;

use super::dispatch::Dispatcher;
use super::refusal::fixed;
use super::roster::{Entry, Pause};
use crate::engine::blocking::Unblock;
use crate::resp::{Command, build, number};

/// Longest pause, so that no sum overflows: a year.
const PAUSE_MAX: Duration = Duration::from_secs(365 * 86_400);

/// What CLIENT KILL and CLIENT LIST select by.
#[derive(Default)]
struct Filter {
    ids: Vec<u64>,
    address: Option<Vec<u8>>,
    local_address: Option<Vec<u8>>,
    user: Option<Vec<u8>>,
    /// Clients of a type that no client of lockstep has.
    is_of_other_type: bool,
    spares_me: bool,
}

impl Filter {
    fn takes(&self, entry: &Entry, me: u64) -> bool {
        let same = |wanted: &Option<Vec<u8>>, is: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == is.as_bytes())
        };
        (self.ids.is_empty() || self.ids.contains(&entry.id))
            && same(&self.address, &entry.address)
            && same(&self.local_address, &entry.local_address)
            && self
                .user
                .as_ref()
                .is_none_or(|_| same(&self.user, &entry.told().user))
            && !self.is_of_other_type
            && !(self.spares_me && entry.id == me)
    }
}

impl Dispatcher {
    /// The subcommands of CLIENT that are about clients; None for any other.
    pub(super) fn about_clients(&mut self, command: &Command<'_>) -> Option<BytesMut> {
        let sub = command.arg(1).unwrap_or_default().to_ascii_lowercase();
        let mut out = BytesMut::new();
        let done = match &sub[..] {
            b"list" => self.client_list(command, &mut out),
            b"info" => {
                self.tell_of(command);
                build::verbatim(&mut out, self.lane.protocol, self.entry.line());
                Ok(())
            }
            b"kill" => self.client_kill(command, &mut out),
            b"unblock" => self.client_unblock(command, &mut out),
            b"pause" => self.client_pause(command, &mut out),
            b"unpause" => {
                self.context.roster.go_on();
                build::status(&mut out, "OK");
                Ok(())
            }
            b"getredir" => {
                build::int(&mut out, -1);
                Ok(())
            }
            _ => return None,
        };
        if let Err(why) = done {
            build::error(&mut out, why);
        }
        Some(out)
    }

    fn client_list(&mut self, command: &Command<'_>, out: &mut BytesMut) -> Result<(), String> {
        let mut filter = Filter::default();
        let option = command.arg(2).map(<[u8]>::to_ascii_lowercase);
        match (option.as_deref(), command.argc()) {
            (None, _) => {}
            (Some(b"type"), 4) => filter.read_type(command.arg(3).unwrap_or_default())?,
            (Some(b"id"), 4..) => {
                for id in command.args().skip(3) {
                    let id = number::parse_i64(id).and_then(|id| u64::try_from(id).ok());
                    filter.ids.push(id.ok_or("ERR Invalid client ID")?);
                }
            }
            _ => return Err(fixed::SYNTAX.into()),
        }
        self.tell_of(command);
        let mut text = Vec::new();
        for entry in self.context.roster.all() {
            if filter.takes(&entry, self.session.id) {
                text.extend_from_slice(&entry.line());
            }
        }
        build::verbatim(out, self.lane.protocol, text);
        Ok(())
    }

    fn client_kill(&mut self, command: &Command<'_>, out: &mut BytesMut) -> Result<(), String> {
        let is_old = command.argc() == 3;
        let filter = match is_old {
            true => Filter {
                address: command.arg(2).map(<[u8]>::to_vec),
                ..Filter::default()
            },
            false => Filter::read(command)?,
        };
        if let Some(user) = filter
            .user
            .as_ref()
            .filter(|user| !self.context.gate.knows(user))
        {
            let user = String::from_utf8_lossy(user);
            return Err(format!("ERR No such user '{user}'"));
        }
        let me = self.session.id;
        let mut killed = 0;
        for entry in self.context.roster.all() {
            if filter.takes(&entry, me) {
                self.kill(&entry);
                killed += 1;
            }
        }
        match (is_old, killed) {
            (true, 0) => return Err("ERR No such client".into()),
            (true, _) => build::status(out, "OK"),
            (false, killed) => build::int(out, killed),
        }
        Ok(())
    }

    /// Who kills itself gets its reply first.
    fn kill(&mut self, entry: &Arc<Entry>) {
        if entry.id == self.session.id {
            self.close();
        } else {
            entry.kill();
        }
    }

    fn client_unblock(&mut self, command: &Command<'_>, out: &mut BytesMut) -> Result<(), String> {
        let how = match command.arg(3).map(<[u8]>::to_ascii_lowercase).as_deref() {
            None | Some(b"timeout") => Unblock::AsTimeout,
            Some(b"error") => Unblock::WithError,
            Some(_) => {
                return Err("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR".into());
            }
        };
        let id =
            number::parse_i64(command.arg(2).unwrap_or_default()).ok_or(fixed::NOT_AN_INTEGER)?;
        let entry = u64::try_from(id)
            .ok()
            .and_then(|id| self.context.roster.get(id));
        let berth = entry.and_then(|entry| entry.berth());
        build::int(out, i64::from(berth.is_some()));
        if let Some(berth) = berth {
            spawn_local(self.context.engine.unblock(berth, how));
        }
        Ok(())
    }

    fn client_pause(&mut self, command: &Command<'_>, out: &mut BytesMut) -> Result<(), String> {
        let is_of_all = match command.arg(3).map(<[u8]>::to_ascii_lowercase).as_deref() {
            None | Some(b"all") => true,
            Some(b"write") => false,
            Some(_) => return Err("ERR CLIENT PAUSE mode must be WRITE or ALL".into()),
        };
        let ms = number::parse_i64(command.arg(2).unwrap_or_default())
            .ok_or("ERR timeout is not an integer or out of range")?;
        let ms = u64::try_from(ms).map_err(|_| "ERR timeout is negative")?;
        self.context.roster.pause(Pause {
            until: Instant::now() + Duration::from_millis(ms).min(PAUSE_MAX),
            is_of_all,
        });
        build::status(out, "OK");
        Ok(())
    }

    /// Brings what is told of this client up to date, in the middle of a command.
    fn tell_of(&self, command: &Command<'_>) {
        let bytes = command.raw().len();
        self.entry.tell(|told| told.input_bytes = bytes);
        self.tell();
    }

    /// The same between commands.
    pub fn tell(&self) {
        let queued = self.multi.as_ref().map(crate::txn::queue::Queue::len);
        let berth = self.berth.clone().filter(|berth| berth.is_taken());
        self.entry.tell(|told| {
            told.lane = self.lane;
            if told.command != self.last && !self.last.is_empty() {
                told.command.clone_from(&self.last);
            }
            told.queued = queued;
            told.at = self.session.active_at();
            told.berth = berth;
            if told.user != self.badge.name() {
                self.badge.name().clone_into(&mut told.user);
            }
            if told.name != self.identity.name {
                told.name.clone_from(&self.identity.name);
            }
        });
    }
}

impl Filter {
    fn read(command: &Command<'_>) -> Result<Self, String> {
        let mut filter = Filter {
            spares_me: true,
            ..Filter::default()
        };
        let args: Vec<&[u8]> = command.args().skip(2).collect();
        for pair in args.chunks(2) {
            let [name, value] = pair else {
                return Err(fixed::SYNTAX.into());
            };
            match name.to_ascii_lowercase().as_slice() {
                b"id" => filter.ids.push(positive(value)?),
                b"type" => filter.read_type(value)?,
                b"addr" => filter.address = Some(value.to_vec()),
                b"laddr" => filter.local_address = Some(value.to_vec()),
                b"user" => filter.user = Some(value.to_vec()),
                b"skipme" => match value.to_ascii_lowercase().as_slice() {
                    b"yes" => filter.spares_me = true,
                    b"no" => filter.spares_me = false,
                    _ => return Err(fixed::SYNTAX.into()),
                },
                _ => return Err(fixed::SYNTAX.into()),
            }
        }
        Ok(filter)
    }

    fn read_type(&mut self, name: &[u8]) -> Result<(), String> {
        match name.to_ascii_lowercase().as_slice() {
            b"normal" => Ok(()),
            b"master" | b"replica" | b"slave" | b"pubsub" => {
                self.is_of_other_type = true;
                Ok(())
            }
            _ => {
                let name = String::from_utf8_lossy(name);
                Err(format!("ERR Unknown client type '{name}'"))
            }
        }
    }
}

fn positive(text: &[u8]) -> Result<u64, String> {
    let id = number::parse_i64(text).filter(|id| *id > 0);
    let id = id.and_then(|id| u64::try_from(id).ok());
    id.ok_or_else(|| "ERR client-id should be greater than 0".into())
}

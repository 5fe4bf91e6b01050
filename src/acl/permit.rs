//! Whether a user may run a command.

use super::user::User;
use crate::keyspace::{
    Access, ChannelKind, Channels, CommandSpec, CommandTable, Flag, KeyError, KeyRule, Treatment,
};
use crate::resp::Command;

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Not this command.
    Command,
    /// Not the key at this argument.
    Key(usize),
    /// Not the channel at this argument.
    Channel(usize),
    /// This option of SORT (BY or GET) looks at keys that only the data names.
    SortOption(&'static str),
    /// A script, whose calls nobody would check.
    Script,
}

impl User {
    /// Whether the user may run the command; see [`Denied`]. `trusts_scripts`: whether what a
    /// script calls is of no concern.
    ///
    /// # Errors
    /// Why not.
    pub fn permit(
        &self,
        spec: &CommandSpec,
        command: &Command<'_>,
        trusts_scripts: bool,
    ) -> Result<(), Denied> {
        if self.rights.is_everything() {
            return Ok(());
        }
        if !spec.is(Flag::NoAuth) && !self.rights.commands.permit(spec, command) {
            return Err(Denied::Command);
        }
        if spec.treatment == Treatment::Script && !trusts_scripts {
            return Err(Denied::Script);
        }
        self.permit_keys(spec, command)?;
        self.permit_channels(spec, command)
    }

    /// Whether the user may give the command LOCKSTEP.
    ///
    /// # Errors
    /// It may not.
    pub fn permit_lockstep(&self, table: &CommandTable) -> Result<(), Denied> {
        match self.rights.commands.permit_lockstep(table) {
            true => Ok(()),
            false => Err(Denied::Command),
        }
    }

    fn permit_keys(&self, spec: &CommandSpec, command: &Command<'_>) -> Result<(), Denied> {
        if self.rights.has_every_key() || spec.keys == KeyRule::None {
            return Ok(());
        }
        if spec.keys == KeyRule::Sort {
            return self.permit_sort(command);
        }
        let keys = match spec.keys.find_with(&spec.accesses, command) {
            Ok(keys) => keys,
            // The server refuses it, and touches nothing.
            Err(KeyError::Malformed) => return Ok(()),
            Err(KeyError::Hidden) => return Err(Denied::Key(0)),
        };
        for (at, access) in keys {
            self.permit_key(command, at, by_options(spec, command).unwrap_or(access))?;
        }
        Ok(())
    }

    fn permit_key(&self, command: &Command<'_>, at: usize, access: Access) -> Result<(), Denied> {
        let key = command.arg(at).unwrap_or_default();
        match self.rights.permit_key(key, access) {
            true => Ok(()),
            false => Err(Denied::Key(at)),
        }
    }

    /// SORT key [BY pattern] [LIMIT offset count] [GET pattern …] [STORE destination] …
    fn permit_sort(&self, command: &Command<'_>) -> Result<(), Denied> {
        let (mut at, mut store, mut option) = (2, None, None);
        while let Some(word) = command.arg(at) {
            let left = command.argc() - at - 1;
            let value = command.arg(at + 1).unwrap_or_default();
            at += 1;
            if word.eq_ignore_ascii_case(b"limit") && left >= 2 {
                at += 2;
            } else if word.eq_ignore_ascii_case(b"store") && left >= 1 {
                store = Some(at);
                at += 1;
            } else if word.eq_ignore_ascii_case(b"by") && left >= 1 {
                if value.contains(&b'*') {
                    option = option.or(Some("BY"));
                }
                at += 1;
            } else if word.eq_ignore_ascii_case(b"get") && left >= 1 {
                option = option.or(Some("GET"));
                at += 1;
            }
        }
        let (reads, writes) = (true, true);
        let read = Access {
            reads,
            ..Access::default()
        };
        let write = Access {
            writes,
            ..Access::default()
        };
        self.permit_key(command, 1, read)?;
        if let Some(at) = store {
            self.permit_key(command, at, write)?;
        }
        match option.filter(|_| !self.rights.reads_every_key()) {
            Some(option) => Err(Denied::SortOption(option)),
            None => Ok(()),
        }
    }

    fn permit_channels(&self, spec: &CommandSpec, command: &Command<'_>) -> Result<(), Denied> {
        if self.rights.has_every_channel() {
            return Ok(());
        }
        let (last, is_pattern) = match spec.treatment {
            Treatment::Channels(Channels::Publish(_)) => (1, false),
            Treatment::Channels(Channels::Subscribe(kind)) => {
                (command.argc() - 1, kind == ChannelKind::Pattern)
            }
            _ => return Ok(()),
        };
        for at in 1..=last {
            let name = command.arg(at).unwrap_or_default();
            if !self.rights.permit_channel(name, is_pattern) {
                return Err(Denied::Channel(at));
            }
        }
        Ok(())
    }
}

/// What commands do whose options decide it.
fn by_options(spec: &CommandSpec, command: &Command<'_>) -> Option<Access> {
    let reads = match spec.name.as_str() {
        "set" => {
            let mut options = command.args().skip(3);
            options.any(|word| word.eq_ignore_ascii_case(b"get"))
        }
        "bitfield" => {
            let writes = bitfield_writes(command);
            return Some(Access {
                reads: true,
                writes,
            });
        }
        _ => return None,
    };
    Some(Access {
        reads,
        writes: true,
    })
}

fn bitfield_writes(command: &Command<'_>) -> bool {
    let mut at = 2;
    while let Some(word) = command.arg(at) {
        at += match word.to_ascii_lowercase().as_slice() {
            b"get" => 3,
            b"overflow" => 2,
            _ => return true,
        };
    }
    false
}

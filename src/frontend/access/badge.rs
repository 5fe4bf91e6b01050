//! Who a client is, and the look at each of its commands.

use std::sync::Arc;

use super::Gate;
use super::log::Reason;
use crate::acl::{DEFAULT, Denied, User};
use crate::frontend::dispatch::{Dispatcher, Flow};
use crate::frontend::refusal::fixed;
use crate::keyspace::{CommandSpec, Flag, Own, Treatment};
use crate::metrics::{Denial, ErrorKind};
use crate::resp::Command;

/// The longest user name that is logged.
const LOGGED_BYTES_MAX: usize = 128;

/// See the module.
#[derive(Clone)]
pub(in crate::frontend) struct Badge {
    user: Arc<User>,
    /// Of the users, when `user` was looked up.
    generation: u64,
    /// Whether the client has said who it is, or need not.
    is_in: bool,
}

impl Badge {
    /// At the start of a connection, and after RESET.
    pub(in crate::frontend) fn first(gate: &Gate) -> Self {
        let generation = gate.generation();
        let user = Arc::clone(gate.users().default_user());
        Self {
            is_in: user.is_open(),
            user,
            generation,
        }
    }

    /// The user's name.
    pub(in crate::frontend) fn name(&self) -> &str {
        &self.user.name
    }

    /// When the user's rights were looked up.
    pub(in crate::frontend) fn generation(&self) -> u64 {
        self.generation
    }

    /// After ACL LOAD: false if the user is no more, or not what it was.
    fn renew(&mut self, gate: &Gate) -> bool {
        let generation = gate.generation();
        if generation == self.generation {
            return true;
        }
        let users = gate.users();
        self.generation = generation;
        match users.get(self.user.name.as_bytes()) {
            Some(user) if self.user.name == DEFAULT || *user == self.user => {
                self.user = Arc::clone(user);
                true
            }
            _ => false,
        }
    }
}

impl Dispatcher {
    /// Whether the client must say who it is before anything else.
    pub fn must_authenticate(&self) -> bool {
        self.is_guarded && !self.badge.is_in && !self.context.gate.users().default_user().is_open()
    }

    /// Refuses a command that the client may not give; None if it may.
    pub(in crate::frontend) fn refuse(
        &mut self,
        spec: &CommandSpec,
        command: &Command<'_>,
    ) -> Option<Flow> {
        if let Some(flow) = self.refuse_stranger(!spec.is(Flag::NoAuth), Some(spec)) {
            return Some(flow);
        }
        if self.multi.is_some() && spec.is(Flag::NoMulti) {
            return None;
        }
        let trusts_scripts = self.context.gate.trusts_scripts;
        let why = self
            .badge
            .user
            .permit(spec, command, trusts_scripts)
            .err()?;
        self.note_denied(why, &spec.name, command);
        let text = text(why, &spec.name);
        Some(self.reject_or_abort(spec, ErrorKind::Denied, &text))
    }

    /// Whether the client may give a command, of which not all has come; nothing is said or noted.
    pub(in crate::frontend) fn may_give(
        &mut self,
        spec: &CommandSpec,
        command: &Command<'_>,
    ) -> bool {
        if !self.is_guarded {
            return true;
        }
        let trusts_scripts = self.context.gate.trusts_scripts;
        self.badge.renew(&self.context.gate)
            && !self.must_authenticate()
            && (self.badge.user)
                .permit(spec, command, trusts_scripts)
                .is_ok()
    }

    /// [`Self::refuse`] for LOCKSTEP, which is in no table.
    pub(in crate::frontend) fn refuse_lockstep(&mut self, command: &Command<'_>) -> Option<Flow> {
        if let Some(flow) = self.refuse_stranger(true, None) {
            return Some(flow);
        }
        // Whoever may be here may say what he does it for.
        if Self::is_trace(command) {
            return None;
        }
        let why = self.badge.user.permit_lockstep(&self.context.table).err()?;
        self.note_denied(why, "lockstep", command);
        Some(self.reject_as(ErrorKind::Denied, text(why, "lockstep")))
    }

    /// A client that is nobody yet, or nobody any more.
    fn refuse_stranger(&mut self, is_secret: bool, spec: Option<&CommandSpec>) -> Option<Flow> {
        if !self.badge.renew(&self.context.gate) {
            self.close();
            return Some(Flow::Next);
        }
        if !is_secret || !self.must_authenticate() {
            return None;
        }
        self.context.metrics.denials[Denial::Unauthenticated].increment(1);
        Some(match spec {
            Some(spec) => self.reject_or_abort(spec, ErrorKind::Denied, fixed::NOAUTH),
            None => self.reject_as(ErrorKind::Denied, fixed::NOAUTH),
        })
    }

    /// What stands in the reply of an EXEC in place of a command that may not be run any more.
    pub(in crate::frontend) fn denied_at_exec(
        &mut self,
        spec: &CommandSpec,
        command: &Command<'_>,
    ) -> Option<String> {
        if !self.is_guarded {
            return None;
        }
        let trusts_scripts = self.context.gate.trusts_scripts;
        let why = self
            .badge
            .user
            .permit(spec, command, trusts_scripts)
            .err()?;
        self.note_denied(why, &spec.name, command);
        let reason = match why {
            Denied::Command => "no permission to execute the command or subcommand",
            Denied::Key(_) => "no permission to touch the specified keys",
            Denied::Channel(_) => {
                "no permission to access one of the channels used as arguments to the command"
            }
            Denied::SortOption(_) | Denied::Script => "no permission",
        };
        Some(format!(
            "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This command is no longer allowed for the following reason: {reason}"
        ))
    }

    /// Whether rights may have changed since the commands of a MULTI were queued.
    pub(in crate::frontend) fn must_look_again(&self) -> bool {
        self.is_guarded && self.queued_under != self.badge.generation()
    }

    fn note_denied(&mut self, why: Denied, name: &str, command: &Command<'_>) {
        let (denial, reason, at) = match why {
            Denied::Command | Denied::Script => (Denial::Command, Reason::Command, None),
            Denied::Key(at) => (Denial::Key, Reason::Key, Some(at)),
            Denied::SortOption(_) => (Denial::Key, Reason::Key, Some(1)),
            Denied::Channel(at) => (Denial::Channel, Reason::Channel, Some(at)),
        };
        self.context.metrics.denials[denial].increment(1);
        let argument = at.and_then(|at| command.arg(at));
        let object = argument.unwrap_or(name.as_bytes());
        let name = self.badge.user.name.clone();
        self.note(reason, object, name.as_bytes());
    }

    fn note(&self, reason: Reason, object: &[u8], user: &[u8]) {
        self.tell();
        let line = self.entry.line();
        let is_queued = self.multi.is_some();
        self.context
            .gate
            .log()
            .note(reason, is_queued, object, user, line.trim_ascii_end());
    }

    /// The client says who it is, by AUTH or HELLO (`through`). Whether that is so.
    pub(in crate::frontend) fn authenticate(
        &mut self,
        name: &[u8],
        password: &[u8],
        through: &[u8],
    ) -> bool {
        let gate = &self.context.gate;
        let generation = gate.generation();
        if let Some(user) = gate.users().admit(name, password) {
            self.badge = Badge {
                user,
                generation,
                is_in: true,
            };
            return true;
        }
        self.context.metrics.denials[Denial::Auth].increment(1);
        let shown = String::from_utf8_lossy(&name[..name.len().min(LOGGED_BYTES_MAX)]);
        tracing::warn!(
            client = self.entry.address,
            user = %shown.escape_debug(),
            "a client gave a wrong password, or a user who is not there or disabled"
        );
        self.note(Reason::Auth, through, name);
        false
    }

    /// What AUTH is answered.
    ///
    /// # Errors
    /// In the words of redis-server.
    pub(in crate::frontend) fn auth(&mut self, command: &Command<'_>) -> Result<(), &'static str> {
        let through = command.name();
        let (name, password) = match (command.argc(), command.arg(1), command.arg(2)) {
            (2, Some(password), _) => {
                let is_open = self.context.gate.users().default_user().has_no_password();
                if is_open {
                    return Err(fixed::AUTH_UNSET);
                }
                (DEFAULT.as_bytes(), password)
            }
            (3, Some(name), Some(password)) => (name, password),
            _ => return Err(fixed::SYNTAX),
        };
        match self.authenticate(name, password, through) {
            true => Ok(()),
            false => Err(fixed::WRONGPASS),
        }
    }

    /// An error that refuses a command before it is looked into. EXEC takes its transaction with
    /// it, as `rejectCommand` of redis-server does.
    pub(in crate::frontend) fn reject_or_abort(
        &mut self,
        spec: &CommandSpec,
        kind: ErrorKind,
        text: &str,
    ) -> Flow {
        if spec.treatment != Treatment::Own(Own::Exec) {
            return self.reject_as(kind, text);
        }
        self.multi = None;
        self.unwatch();
        let text = text.trim_start_matches("ERR ");
        let text = format!("EXECABORT Transaction discarded because of: {text}");
        self.reject_as(ErrorKind::Aborted, text)
    }
}

/// In the words of redis-server, but for scripts.
fn text(why: Denied, name: &str) -> String {
    match why {
        Denied::Command => {
            format!("NOPERM this user has no permissions to run the '{name}' command")
        }
        Denied::Key(_) => {
            "NOPERM this user has no permissions to access one of the keys used as arguments".into()
        }
        Denied::Channel(_) => {
            "NOPERM this user has no permissions to access one of the channels used as arguments"
                .into()
        }
        Denied::SortOption(option) => {
            format!("ERR {option} option of SORT denied due to insufficient ACL permissions.")
        }
        Denied::Script => format!(
            "NOPERM this user has no permissions to run the '{name}' command: what a script calls cannot be checked on the shards, so scripts are for users who may do everything, unless acl-trust-scripts is set"
        ),
    }
}

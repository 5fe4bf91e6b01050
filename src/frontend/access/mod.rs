//! Who may do what: the users of this lockstep, and what was denied to them.
//!
//! * [`Gate`]: what all workers share: the users, read again by ACL LOAD, and the log;
//! * [`badge`]: who one client is, and the look at each of its commands;
//! * [`commands`]: the command ACL;
//! * [`log`]: what ACL LOG shows.
//!
//! Where neither a password nor a file of users is set there is the default user alone, who may do
//! everything, and no command is looked at.

mod badge;
mod commands;
mod log;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

pub(super) use badge::Badge;

use self::log::Log;
use super::roster::Roster;
use crate::acl::{Catalogue, DEFAULT, Digest, Drafts, Users};
use crate::config::{Config, read_bounded};
use crate::keyspace::CommandTable;

/// See the module.
pub struct Gate {
    users: RwLock<Arc<Users>>,
    /// Counts the times the users were read.
    generation: AtomicU64,
    file: Option<String>,
    is_guarded: AtomicBool,
    trusts_scripts: bool,
    log: Mutex<Log>,
}

impl Gate {
    /// The users that the settings tell of.
    ///
    /// # Errors
    /// The file of users cannot be read, or something in it is wrong: a line for each mistake.
    pub fn open(config: &Config, table: &CommandTable) -> Result<Self, String> {
        let catalogue = Catalogue::Table(table);
        let users = match &config.acl_file {
            Some(path) => from_file(path, catalogue)?,
            None => Users::alone(catalogue, config.password.map(Digest::new)),
        };
        Ok(Self {
            users: RwLock::new(Arc::new(users)),
            generation: AtomicU64::new(0),
            file: config.acl_file.clone(),
            is_guarded: AtomicBool::new(config.acl_file.is_some() || config.password.is_some()),
            trusts_scripts: config.acl_trust_scripts,
            log: Mutex::default(),
        })
    }

    /// Whether commands are looked at: there is a password, or a file of users.
    pub fn is_guarded(&self) -> bool {
        self.is_guarded.load(Ordering::Acquire)
    }

    fn users(&self) -> Arc<Users> {
        Arc::clone(&self.users.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether there is such a user.
    pub fn knows(&self, name: &[u8]) -> bool {
        self.users().get(name).is_some()
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// ACL LOAD: all of the file counts, or nothing. Clients whose user is no more, or is not what
    /// it was, are disconnected; those of the default user stay.
    ///
    /// # Errors
    /// As [`Gate::open`], or there is no file.
    fn reload(&self, table: &CommandTable, roster: &Roster) -> Result<(), String> {
        let path = self.file.as_deref().ok_or(
            "This lockstep is not configured to use an ACL file: set acl-file, and ACL LOAD reads it again",
        )?;
        self.admit(from_file(path, Catalogue::Table(table))?, roster);
        Ok(())
    }

    /// Takes over what the settings say now: the password, or what the file of users holds. Of
    /// clients as with [`Gate::reload`]; those that were served before there was a password still are.
    ///
    /// # Errors
    /// As [`Gate::open`]; nothing has changed then.
    pub fn configure(
        &self,
        config: &Config,
        table: &CommandTable,
        roster: &Roster,
    ) -> Result<(), String> {
        if self.file.is_some() {
            return self.reload(table, roster);
        }
        let password = config.password.map(Digest::new);
        self.admit(Users::alone(Catalogue::Table(table), password), roster);
        self.is_guarded
            .store(config.password.is_some(), Ordering::Release);
        Ok(())
    }

    /// These are the users from now on.
    fn admit(&self, users: Users, roster: &Roster) {
        let users = Arc::new(users);
        let before = {
            let mut current = self.users.write().unwrap_or_else(PoisonError::into_inner);
            let before = std::mem::replace(&mut *current, Arc::clone(&users));
            self.generation.fetch_add(1, Ordering::AcqRel);
            before
        };
        for entry in roster.all() {
            let name = entry.told().user;
            if name != DEFAULT && before.get(name.as_bytes()) != users.get(name.as_bytes()) {
                entry.kill();
            }
        }
    }
}

/// Every mistake in a file of users as far as it can be told without the servers: a line for each.
///
/// # Errors
/// These.
pub fn check_file(path: &str) -> Result<Drafts, Vec<String>> {
    let text = read_bounded(Path::new(path))
        .map_err(|error| vec![format!("{path}: cannot read the file: {error}")])?;
    let told = |mistakes: Vec<_>| {
        let lines = mistakes.iter().map(|mistake| format!("{path}:{mistake}"));
        lines.collect()
    };
    Drafts::read(&text).map_err(told)
}

/// What there is to say of a file without mistakes.
pub fn remark(drafts: &Drafts) -> Option<&'static str> {
    (!drafts.has_default()).then_some(
        "acl-file does not tell of the user default, so clients need no password and may do everything",
    )
}

fn from_file(path: &str, catalogue: Catalogue<'_>) -> Result<Users, String> {
    let drafts = check_file(path).map_err(|mistakes| mistakes.join("\n"))?;
    if let Some(remark) = remark(&drafts) {
        tracing::warn!(file = path, "{remark}");
    }
    Users::new(catalogue, &drafts).map_err(|mistakes| {
        let lines = mistakes.iter().map(|mistake| format!("{path}:{mistake}"));
        lines.collect::<Vec<_>>().join("\n")
    })
}

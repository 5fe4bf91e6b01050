//! Which commands: a bit for each command and subcommand of the servers' table.

use std::collections::HashMap;

use crate::keyspace::{CommandSpec, CommandTable};
use crate::resp::Command;

/// The categories of redis-server 7.0, in the order of ACL CAT.
pub const CATEGORIES: &[&str] = &[
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

/// The categories of LOCKSTEP, which no server knows.
const OF_LOCKSTEP: &[&str] = &["admin", "slow", "dangerous"];
/// Its name.
const LOCKSTEP: &str = "lockstep";

/// Why a rule cannot be applied, in the words of redis-server where it has some.
pub(super) type Why = String;

/// What rules about commands are looked up in.
#[derive(Clone, Copy, Debug)]
pub enum Catalogue<'a> {
    /// The commands of the servers, and LOCKSTEP.
    Table(&'a CommandTable),
    /// Not known yet: any name is taken for a command.
    Unknown,
}

impl<'a> Catalogue<'a> {
    fn table(self) -> Option<&'a CommandTable> {
        match self {
            Self::Table(table) => Some(table),
            Self::Unknown => None,
        }
    }

    /// Whether there is such a category.
    pub fn has_category(self, name: &str) -> bool {
        let of_servers = |table: &CommandTable| {
            let mut categories = table.commands().flat_map(|spec| spec.categories.iter());
            categories.any(|category| category == name)
        };
        CATEGORIES.contains(&name) || self.table().is_some_and(of_servers)
    }

    /// The commands and subcommands in a category, by name.
    pub fn in_category(self, name: &str) -> Vec<String> {
        let mut names = Vec::new();
        let Some(table) = self.table() else {
            return names;
        };
        for spec in table.commands() {
            let all = std::iter::once(spec).chain(spec.subcommands());
            let inside = all.filter(|spec| spec.categories.iter().any(|c| c == name));
            names.extend(inside.map(|spec| spec.name.clone()));
        }
        if OF_LOCKSTEP.contains(&name) {
            names.push(LOCKSTEP.to_owned());
        }
        names.sort();
        names
    }
}

/// A command or subcommand by its whole name in lower case.
fn find<'a>(table: &'a CommandTable, name: &str) -> Option<&'a CommandSpec> {
    match name.split_once('|') {
        None => table.get(name),
        Some((container, sub)) => table.get(container)?.subcommand(sub),
    }
}

/// The commands that may be run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commands {
    /// Commands that nobody knows yet as well.
    all: bool,
    bits: Vec<u64>,
    /// Of a command that may not be run as such: the first arguments with which it may.
    first_arguments: HashMap<usize, Vec<String>>,
    /// The rules that led here, without those that others made void.
    rules: Vec<String>,
}

impl Commands {
    /// Whether every command may be run.
    pub fn is_all(&self) -> bool {
        self.all
    }

    /// Applies `+…` or `-…`, `allcommands` or `nocommands`.
    ///
    /// # Errors
    /// There is no such command or category, or the rule makes no sense.
    pub(super) fn apply(&mut self, catalogue: Catalogue<'_>, rule: &str) -> Result<(), Why> {
        let rule = match rule {
            "allcommands" => "+@all".to_owned(),
            "nocommands" => "-@all".to_owned(),
            other => other.to_ascii_lowercase(),
        };
        let (is_on, name) = match rule.split_at_checked(1) {
            Some((sign, name)) => (sign == "+", name),
            None => return Err("Syntax error".into()),
        };
        match name.strip_prefix('@') {
            Some("all") => self.all(catalogue, is_on),
            Some(category) => self.category(catalogue, is_on, category)?,
            None => self.command(catalogue, is_on, name)?,
        }
        self.note(rule);
        Ok(())
    }

    fn all(&mut self, catalogue: Catalogue<'_>, is_on: bool) {
        let ids = catalogue.table().map_or(0, |table| table.ids() + 1);
        *self = Self::default();
        self.all = is_on;
        self.bits = vec![if is_on { u64::MAX } else { 0 }; ids.div_ceil(64)];
    }

    fn category(&mut self, of: Catalogue<'_>, is_on: bool, name: &str) -> Result<(), Why> {
        if !of.has_category(name) {
            return Err("Unknown command or category name in ACL".into());
        }
        let Some(table) = of.table() else {
            return Ok(());
        };
        for spec in table.commands() {
            if spec.categories.iter().any(|category| category == name) {
                self.set_whole(spec, is_on);
            }
            for sub in spec.subcommands() {
                if sub.categories.iter().any(|category| category == name) {
                    self.set_whole(sub, is_on);
                }
            }
        }
        if OF_LOCKSTEP.contains(&name) {
            self.set(table.ids(), is_on);
        }
        Ok(())
    }

    fn command(&mut self, of: Catalogue<'_>, is_on: bool, name: &str) -> Result<(), Why> {
        let unknown = || Err("Unknown command or category name in ACL".into());
        if name.is_empty() || name.ends_with('|') || name.starts_with('|') {
            return Err("Syntax error".into());
        }
        let Some(table) = of.table() else {
            return Ok(());
        };
        if name == LOCKSTEP {
            self.set(table.ids(), is_on);
            return Ok(());
        }
        if let Some(spec) = find(table, name) {
            self.set_whole(spec, is_on);
            return Ok(());
        }
        let Some((container, first)) = name.split_once('|').filter(|_| is_on) else {
            return unknown();
        };
        if first.contains('|') {
            return Err("Allowing first-arg of a subcommand is not supported".into());
        }
        match table.get(container) {
            Some(spec) if spec.subcommands().next().is_none() => {
                let allowed = self.first_arguments.entry(spec.id).or_default();
                allowed.push(first.to_owned());
                Ok(())
            }
            _ => unknown(),
        }
    }

    /// A command with its subcommands.
    fn set_whole(&mut self, spec: &CommandSpec, is_on: bool) {
        self.set(spec.id, is_on);
        for sub in spec.subcommands() {
            self.set(sub.id, is_on);
        }
    }

    fn set(&mut self, id: usize, is_on: bool) {
        let word = id / 64;
        if self.bits.len() <= word {
            self.bits.resize(word + 1, 0);
        }
        if let Some(bits) = self.bits.get_mut(word) {
            match is_on {
                true => *bits |= 1 << (id % 64),
                false => *bits &= !(1 << (id % 64)),
            }
        }
        self.all &= is_on;
        self.first_arguments.remove(&id);
    }

    /// Keeps the rule for show: the last one about the same thing counts.
    fn note(&mut self, rule: String) {
        if rule.ends_with("@all") && rule.len() == "+@all".len() {
            self.rules.clear();
        }
        let about = |rule: &str| rule.get(1..).unwrap_or_default().to_owned();
        let name = about(&rule);
        let inside = format!("{name}|");
        self.rules.retain(|known| {
            let known = about(known);
            known != name && (name.contains('@') || !known.starts_with(&inside))
        });
        // Without a table there are no bits that would tell.
        self.all &= !rule.starts_with('-');
        self.rules.push(rule);
    }

    /// As ACL LIST shows it.
    pub fn text(&self) -> String {
        let begin = match self.rules.first().map(String::as_str) {
            Some("+@all" | "-@all") => None,
            _ => Some("-@all"),
        };
        let rules = self.rules.iter().map(String::as_str);
        begin.into_iter().chain(rules).collect::<Vec<_>>().join(" ")
    }

    fn has(&self, id: usize) -> bool {
        let bits = self.bits.get(id / 64);
        bits.is_some_and(|bits| bits & (1 << (id % 64)) != 0)
    }

    /// Whether this command may be run.
    pub(super) fn permit(&self, spec: &CommandSpec, command: &Command<'_>) -> bool {
        if self.all || self.has(spec.id) {
            return true;
        }
        let first = command.arg(1).unwrap_or_default();
        let allowed = self.first_arguments.get(&spec.id);
        allowed.is_some_and(|allowed| {
            let mut allowed = allowed.iter();
            allowed.any(|argument| argument.as_bytes().eq_ignore_ascii_case(first))
        })
    }

    /// Whether LOCKSTEP may be run.
    pub(super) fn permit_lockstep(&self, table: &CommandTable) -> bool {
        self.all || self.has(table.ids())
    }
}

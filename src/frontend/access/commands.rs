//! ACL, answered for the users of this lockstep; the shards have users of their own.

use bytes::BytesMut;

use crate::acl::{CATEGORIES, Catalogue, Denied, User};
use crate::frontend::dispatch::Dispatcher;
use crate::frontend::gather::scanned_before;
use crate::frontend::refusal::{self, fixed};
use crate::keyspace::{CommandSpec, Lookup};
use crate::resp::{Command, CommandScanner, Scan, build, number};

/// Entries that ACL LOG shows if not told otherwise.
const LOG_SHOWN: usize = 10;
/// Bits of a password, unless told otherwise, and at most.
const PASSWORD_BITS: i64 = 256;
const PASSWORD_BITS_MAX: i64 = 4096;
const GENPASS: &str = "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to 4096";

impl Dispatcher {
    /// ACL with its subcommands, but for those that change users.
    pub(in crate::frontend) fn acl(
        &mut self,
        spec: &CommandSpec,
        command: &Command<'_>,
        out: &mut BytesMut,
    ) {
        let first = command.arg(2);
        let done = match (spec.name.as_str(), command.argc()) {
            ("acl|whoami", _) => {
                build::bulk(out, self.badge.name());
                Ok(())
            }
            ("acl|list", _) => {
                self.names(out, User::line);
                Ok(())
            }
            ("acl|users", _) => {
                self.names(out, |user| user.name.clone());
                Ok(())
            }
            ("acl|getuser", _) => {
                self.get_user(first.unwrap_or_default(), out);
                Ok(())
            }
            ("acl|cat", 2 | 3) => self.categories(first, out),
            ("acl|genpass", 2 | 3) => genpass(first, out),
            ("acl|log", 2 | 3) => self.acl_log(first, out),
            ("acl|dryrun", _) => self.dry_run(command, out),
            ("acl|load", _) => self.load_users(out),
            _ => Err(refusal::arity(spec)),
        };
        if let Err(why) = done {
            build::error(out, why);
        }
    }

    fn names(&self, out: &mut BytesMut, text: impl Fn(&User) -> String) {
        let users = self.context.gate.users();
        build::array_header(out, users.all().len());
        users.all().for_each(|user| build::bulk(out, text(user)));
    }

    fn get_user(&self, name: &[u8], out: &mut BytesMut) {
        let (users, protocol) = (self.context.gate.users(), self.lane.protocol);
        let Some(user) = users.get(name) else {
            return build::null_bulk(out, protocol);
        };
        build::map_header(out, protocol, 6);
        build::bulk(out, "flags");
        let flags = user.flags();
        build::set_header(out, protocol, flags.len());
        flags.iter().for_each(|flag| build::bulk(out, flag));
        build::bulk(out, "passwords");
        build::array_header(out, user.passwords().len());
        user.passwords().for_each(|hash| build::bulk(out, hash));
        for (name, text) in [
            ("commands", user.rights.commands.text()),
            ("keys", user.rights.keys_text()),
            ("channels", user.rights.channels_text()),
        ] {
            build::bulk(out, name);
            build::bulk(out, text);
        }
        build::bulk(out, "selectors");
        build::array_header(out, 0);
    }

    fn categories(&self, name: Option<&[u8]>, out: &mut BytesMut) -> Result<(), String> {
        let Some(name) = name else {
            build::array_header(out, CATEGORIES.len());
            CATEGORIES.iter().for_each(|name| build::bulk(out, name));
            return Ok(());
        };
        let catalogue = Catalogue::Table(&self.context.table);
        let lower = String::from_utf8_lossy(name).to_ascii_lowercase();
        if !catalogue.has_category(&lower) {
            let name = String::from_utf8_lossy(name);
            return Err(format!("ERR Unknown category '{name}'"));
        }
        let names = catalogue.in_category(&lower);
        build::array_header(out, names.len());
        names.iter().for_each(|name| build::bulk(out, name));
        Ok(())
    }

    fn acl_log(&self, what: Option<&[u8]>, out: &mut BytesMut) -> Result<(), String> {
        let count = match what {
            None => LOG_SHOWN,
            Some(word) if word.eq_ignore_ascii_case(b"reset") => {
                self.context.gate.log().clear();
                build::status(out, "OK");
                return Ok(());
            }
            Some(count) => {
                let count = number::parse_i64(count).ok_or(fixed::NOT_AN_INTEGER)?;
                usize::try_from(count).unwrap_or(0)
            }
        };
        self.context.gate.log().show(count, self.lane.protocol, out);
        Ok(())
    }

    /// ACL DRYRUN user command [arg …].
    fn dry_run(&self, command: &Command<'_>, out: &mut BytesMut) -> Result<(), String> {
        let name = command.arg(2).unwrap_or_default();
        let users = self.context.gate.users();
        let text = String::from_utf8_lossy;
        let user = users
            .get(name)
            .ok_or_else(|| format!("ERR User '{}' not found", text(name)))?;
        let mut raw = BytesMut::new();
        build::command(&mut raw, command.args().skip(3));
        let mut scanner = CommandScanner::new(scanned_before());
        let not_found = || {
            let name = text(command.arg(3).unwrap_or_default());
            format!("ERR Command '{name}' not found")
        };
        let Ok(Scan::Command { .. }) = scanner.scan(&raw) else {
            return Err(not_found());
        };
        let asked = scanner.command(&raw);
        let Lookup::Known(spec) = self.context.table.lookup(&asked) else {
            return Err(not_found());
        };
        if !spec.arity_fits(asked.argc()) {
            return Err(refusal::arity(spec));
        }
        let what = match user.permit(spec, &asked, self.context.gate.trusts_scripts) {
            Ok(()) => {
                build::status(out, "OK");
                return Ok(());
            }
            Err(Denied::Command | Denied::Script) => format!("run the '{}' command", spec.name),
            Err(Denied::Key(at)) => {
                format!(
                    "access the '{}' key",
                    text(asked.arg(at).unwrap_or_default())
                )
            }
            Err(Denied::Channel(at)) => {
                let channel = text(asked.arg(at).unwrap_or_default());
                format!("access the '{channel}' channel")
            }
            Err(Denied::SortOption(option)) => format!("use the {option} option of SORT"),
        };
        build::bulk(out, format!("This user has no permissions to {what}"));
        Ok(())
    }

    fn load_users(&mut self, out: &mut BytesMut) -> Result<(), String> {
        let context = &self.context;
        let loaded = context.gate.reload(&context.table, &context.roster);
        loaded.map_err(|why| {
            let why = why.replace('\n', "; ");
            tracing::warn!(why, "ACL LOAD: the users stay as they were");
            format!("ERR {why}. No user was changed")
        })?;
        tracing::info!(
            client = self.entry.address,
            "ACL LOAD: the users were read again"
        );
        build::status(out, "OK");
        Ok(())
    }
}

fn genpass(bits: Option<&[u8]>, out: &mut BytesMut) -> Result<(), String> {
    let bits = match bits {
        None => PASSWORD_BITS,
        Some(bits) => number::parse_i64(bits).ok_or(fixed::NOT_AN_INTEGER)?,
    };
    if !(1..=PASSWORD_BITS_MAX).contains(&bits) {
        return Err(GENPASS.into());
    }
    let digits = (bits as usize).div_ceil(4);
    let mut random = vec![0; digits.div_ceil(2)];
    getrandom::fill(&mut random).map_err(|error| format!("ERR no randomness: {error}"))?;
    let mut text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    text.truncate(digits);
    build::bulk(out, text);
    Ok(())
}

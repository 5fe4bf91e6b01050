//! The settings as command-line flags.

use std::collections::BTreeMap;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{Group, SETTINGS, Setting};

/// Adds a flag for every setting, under its group's heading.
pub fn with_flags(command: Command) -> Command {
    command.args(SETTINGS.iter().map(flag))
}

/// The same for a command that only talks to the shards: the help shows what matters there.
/// The others are accepted as well, so that one set of flags, or one file, serves for all.
pub fn with_shard_flags(command: Command) -> Command {
    let matters = |setting: &Setting| match setting.group {
        Group::Shards | Group::Tls | Group::Transactions => true,
        Group::Addresses => setting.kind.is_list(),
        Group::Process | Group::Clients | Group::Access => false,
    };
    command.args(
        SETTINGS
            .iter()
            .map(|setting| flag(setting).hide(!matters(setting))),
    )
}

fn flag(setting: &Setting) -> Arg {
    let default = match setting.kind.default_text() {
        text if text.is_empty() => String::new(),
        text => format!(", default {text}"),
    };
    let help = format!(
        "{} [{}{default}] [env: {}]",
        setting.help,
        setting.kind.domain(),
        setting.environment_variable()
    );
    let action = match setting.kind.is_list() {
        true => ArgAction::Append,
        false => ArgAction::Set,
    };
    Arg::new(setting.name)
        .long(setting.name)
        .value_name(setting.kind.value_name())
        .help(help)
        .help_heading(setting.group.title())
        .action(action)
}

/// The values given on the command line, by name of the setting.
pub fn flags_given(matches: &ArgMatches) -> BTreeMap<String, Vec<String>> {
    let given = |setting: &Setting| {
        let values = matches.get_many::<String>(setting.name)?;
        Some((setting.name.to_owned(), values.cloned().collect()))
    };
    SETTINGS.iter().filter_map(given).collect()
}

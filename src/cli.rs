//! The command line: what is to be done, and with which settings.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::config::{self, Sources};
use crate::{build, dev};

/// What the command line asks for.
#[derive(Clone, Debug)]
pub enum Invocation {
    /// Serve clients.
    Serve(Sources),
    /// Serve in front of shards of our own.
    Dev(Sources, dev::Options),
    /// Report the mistakes of a file.
    Check(PathBuf),
}

const ABOUT: &str = "A Redis proxy that spreads keys over plain Redis servers and runs MULTI/EXEC \
                     across them, atomically.";

const PRECEDENCE: &str = "Every setting is also an environment variable and a key of the TOML \
                          file given by --config (clients-max = 5000). A flag beats the \
                          environment, that beats the file, that beats the default.";

/// The whole command line.
pub fn command() -> Command {
    let serve = Command::new("lockstep")
        .about(ABOUT)
        .version(build::summary())
        .after_help(PRECEDENCE)
        .args_conflicts_with_subcommands(true)
        .arg(config_file());
    config::with_flags(serve)
        .subcommand(dev_command())
        .subcommand(check_command())
}

fn config_file() -> Arg {
    Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("TOML file with settings [env: LOCKSTEP_CONFIG]")
}

fn dev_command() -> Command {
    let dev = Command::new("dev")
        .about("Start Redis servers of its own and a lockstep in front of them, for trying out")
        .after_help(PRECEDENCE)
        .arg(config_file())
        .next_help_heading("Trying out")
        .arg(
            Arg::new("shards")
                .long("shards")
                .value_name("N")
                .value_parser(value_parser!(u16).range(1..=dev::SHARDS_MAX))
                .default_value("3")
                .help("Number of Redis servers to start"),
        )
        .arg(
            Arg::new("appendonly")
                .long("appendonly")
                .action(ArgAction::SetTrue)
                .help("Let them write an append-only file, as in production"),
        )
        .arg(
            Arg::new("redis-server")
                .long("redis-server")
                .value_name("PROGRAM")
                .default_value("redis-server")
                .help("Which Redis server to start"),
        )
        .arg(
            Arg::new("for")
                .long("for")
                .value_name("SECONDS")
                .value_parser(value_parser!(u64))
                .help("Stop by itself after this time"),
        )
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .num_args(1..)
                .last(true)
                .help(
                    "Run this command and stop when it ends, with its exit status. It finds \
                     LOCKSTEP_URL, LOCKSTEP_PORT, LOCKSTEP_METRICS_URL and LOCKSTEP_DEV_SHARDS \
                     in its environment",
                ),
        );
    // It brings its own shards; a `shard` given all the same gets an explanation.
    config::with_flags(dev).mut_arg("shard", |shard| shard.hide(true))
}

fn check_command() -> Command {
    Command::new("check")
        .about("Report all mistakes in a file of settings; the exit status is 1 if there is any")
        .arg(config_file().required(true))
}

/// Reads what [`command`] matched.
pub fn invocation(matches: &ArgMatches, environment: Vec<(String, String)>) -> Invocation {
    let file = |matches: &ArgMatches| matches.get_one::<PathBuf>("config").cloned();
    match matches.subcommand() {
        Some(("check", matches)) => Invocation::Check(file(matches).unwrap_or_default()),
        Some(("dev", matches)) => Invocation::Dev(
            sources(matches, file(matches), environment),
            dev_options(matches),
        ),
        _ => Invocation::Serve(sources(matches, file(matches), environment)),
    }
}

fn sources(
    matches: &ArgMatches,
    file: Option<PathBuf>,
    environment: Vec<(String, String)>,
) -> Sources {
    let from_environment = |(name, value): &(String, String)| {
        (name == "LOCKSTEP_CONFIG" && !value.is_empty()).then(|| value.into())
    };
    Sources {
        flags: config::flags_given(matches),
        file: file.or_else(|| environment.iter().find_map(from_environment)),
        environment: environment.into_iter().collect(),
    }
}

fn dev_options(matches: &ArgMatches) -> dev::Options {
    let text = |name| matches.get_one::<String>(name).cloned().unwrap_or_default();
    let command = matches.get_many::<String>("command");
    dev::Options {
        shards: matches.get_one::<u16>("shards").copied().unwrap_or(3),
        appendonly: matches.get_flag("appendonly"),
        redis_server: text("redis-server"),
        duration: matches
            .get_one::<u64>("for")
            .copied()
            .map(Duration::from_secs),
        command: command
            .map(|words| words.cloned().collect())
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn flags_reach_the_sources() {
        let line = [
            "lockstep", "--shard", "a:1,b:1", "--shard", "c:1", "--config", "x",
        ];
        let matches = command().try_get_matches_from(line).unwrap();
        let environment = vec![("LOCKSTEP_CONFIG".to_owned(), "y".to_owned())];
        let Invocation::Serve(sources) = invocation(&matches, environment) else {
            panic!("must serve");
        };
        assert_eq!(sources.flags["shard"], ["a:1,b:1", "c:1"]);
        assert_eq!(sources.file, Some("x".into()));
    }

    #[test]
    fn dev_takes_settings_and_a_command() {
        let line = [
            "lockstep",
            "dev",
            "--lock-ttl-ms",
            "900",
            "--for",
            "2",
            "--",
            "sh",
            "-c",
            "x",
        ];
        let matches = command().try_get_matches_from(line).unwrap();
        let Invocation::Dev(sources, options) = invocation(&matches, Vec::new()) else {
            panic!("must be dev");
        };
        assert_eq!(sources.flags["lock-ttl-ms"], ["900"]);
        assert_eq!(options.command, ["sh", "-c", "x"]);
        assert_eq!(
            (options.shards, options.duration),
            (3, Some(Duration::from_secs(2)))
        );
    }
}

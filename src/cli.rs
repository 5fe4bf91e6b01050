//! The command line: what is to be done, and with which settings.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, value_parser};

use crate::config::{self, Sources};
use crate::operator::{Order, Redact, Wish};
use crate::txn::TxnId;
use crate::{build, console, dev};

/// What the command line asks for.
#[derive(Clone, Debug)]
pub enum Invocation {
    /// Serve clients.
    Serve(Sources),
    /// Serve in front of shards of our own.
    Dev(Sources, dev::Options),
    /// Report the mistakes of a file.
    Check(PathBuf),
    /// Ask the shards something.
    Ask(Sources, console::Options),
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
        .subcommand(txn_command())
        .subcommand(map_command())
        .subcommand(asking(
            "audit",
            "Say how consistent the shards are, what is left over, and what puts promises at risk",
        ))
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

const WITHOUT_PROXY: &str = "This talks to the shards themselves; no lockstep need be running. The \
                             shards must be given in the same order as to the lockstep that \
                             serves them. The exit status is 0 when all is well and everything \
                             asked for was done.";

fn txn_command() -> Command {
    let id = || {
        Arg::new("id")
            .value_name("ID")
            .required(true)
            .help("Id of the transaction")
    };
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .action(ArgAction::SetTrue)
            .help(help)
    };
    let list = asking(
        "list",
        "List transactions that are unfinished, in doubt or left over",
    )
    .arg(flag(
        "all",
        "Settled ones, too; looks at every key of every shard",
    ));
    let show = asking(
        "show",
        "Show a transaction: its record on every shard, what it holds and runs",
    )
    .arg(id())
    .arg(flag("redact", "Show no keys and no values"));
    let status = asking(
        "status",
        "Say what became of a transaction: committed, aborted, pending or unknown",
    )
    .arg(id());
    let resolve = asking("resolve", "Finish a transaction by the rules of recovery")
        .arg(id())
        .arg(flag("commit", "Only if that means to commit it"))
        .arg(flag("abort", "Only if that means to abort it"))
        .arg(flag(
            "forget",
            "Drop what is left of it, when its records are gone",
        ))
        .arg(flag("dry-run", "Only say what would be done"))
        .arg(flag(
            "force",
            "Do not wait for its deadline; only when the process that began it is gone for good",
        ))
        .group(ArgGroup::new("wish").args(["commit", "abort", "forget"]));
    Command::new("txn")
        .about("List, show and resolve transactions, straight against the shards")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([list, show, status, resolve])
}

fn map_command() -> Command {
    Command::new("map")
        .about("Show or change the shard map that the shards note, straight against them")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([
            asking("show", "Show what every shard notes of the shard map"),
            asking(
                "adopt",
                "Make these shards, in this order, those of a new map; stop every lockstep first. \
                 No key is moved",
            ),
        ])
}

/// A command that asks the shards.
fn asking(name: &'static str, about: &'static str) -> Command {
    let command = Command::new(name)
        .about(about)
        .after_help(WITHOUT_PROXY)
        .arg(config_file())
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Answer in JSON"),
        );
    config::with_shard_flags(command)
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
        Some(("audit", matches)) => Invocation::Ask(
            sources(matches, file(matches), environment),
            console::Options {
                question: console::Question::Audit,
                json: matches.get_flag("json"),
            },
        ),
        Some(("txn" | "map", matches)) => match matches.subcommand() {
            Some((verb, matches)) => Invocation::Ask(
                sources(matches, file(matches), environment),
                console::Options {
                    question: question(verb, matches),
                    json: matches.get_flag("json"),
                },
            ),
            // Not without a subcommand; see `txn_command` and `map_command`.
            None => Invocation::Serve(Sources::default()),
        },
        _ => Invocation::Serve(sources(matches, file(matches), environment)),
    }
}

fn question(verb: &str, matches: &ArgMatches) -> console::Question {
    let id = || {
        let id = matches.get_one::<String>("id").cloned().unwrap_or_default();
        TxnId::new(id)
    };
    match verb {
        "adopt" => console::Question::AdoptMap,
        // Of `map`: that of `txn` names one.
        "show" if matches.try_contains_id("id").is_err() => console::Question::Map,
        "show" if matches.get_flag("redact") => console::Question::Show(id(), Redact::Yes),
        "show" => console::Question::Show(id(), Redact::No),
        "status" => console::Question::Status(id()),
        "resolve" => console::Question::Resolve(id(), order(matches)),
        _ => console::Question::List {
            all: matches.get_flag("all"),
        },
    }
}

fn order(matches: &ArgMatches) -> Order {
    let wishes = [
        ("commit", Wish::Commit),
        ("abort", Wish::Abort),
        ("forget", Wish::Forget),
    ];
    let wish = wishes.into_iter().find(|(name, _)| matches.get_flag(name));
    Order {
        wish: wish.map_or(Wish::Finish, |(_, wish)| wish),
        dry_run: matches.get_flag("dry-run"),
        force: matches.get_flag("force"),
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
    fn an_order_is_read_with_the_settings_of_the_shards() {
        let line = [
            "lockstep",
            "txn",
            "resolve",
            "b0-1",
            "--abort",
            "--dry-run",
            "--json",
            "--shard",
            "a:1",
        ];
        let matches = command().try_get_matches_from(line).unwrap();
        let Invocation::Ask(sources, options) = invocation(&matches, Vec::new()) else {
            panic!("must ask");
        };
        assert_eq!(sources.flags["shard"], ["a:1"]);
        assert!(options.json);
        let console::Question::Resolve(id, order) = options.question else {
            panic!("must resolve");
        };
        assert_eq!(id.as_str(), "b0-1");
        assert_eq!(
            (order.wish, order.dry_run, order.force),
            (Wish::Abort, true, false)
        );
        let two = ["lockstep", "txn", "resolve", "b0-1", "--abort", "--commit"];
        assert!(command().try_get_matches_from(two).is_err());
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

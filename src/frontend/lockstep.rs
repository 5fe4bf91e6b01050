//! The command LOCKSTEP: transactions, for applications that got an error with an id, and for
//! operators. No server knows it, so it is looked for only where a command is unknown.

use std::rc::Rc;

use bytes::BytesMut;
use tokio::task::spawn_local;

use super::dispatch::{Dispatcher, Flow};
use super::refusal::fixed;
use crate::engine::Engine;
use crate::metrics::Family;
use crate::operator::{self, Order, Redact, Report, Wish};
use crate::resp::{Command, Protocol, build, number};
use crate::txn::TxnId;

const HELP: &[&str] = &[
    "LOCKSTEP <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "TXN STATUS <id>",
    "    What became of a transaction: committed, aborted, pending, or unknown when no shard has",
    "    a record of it (records are kept for decision-retention-ms).",
    "TXN LIST [ALL]",
    "    Transactions that are unfinished, in doubt or left over; ALL: settled ones too, for which",
    "    every key of every shard is looked at.",
    "TXN SHOW <id> [REDACT]",
    "    A transaction's record on every shard, what it holds and what it runs.",
    "TXN RESOLVE <id> [COMMIT|ABORT|FORGET] [DRYRUN] [FORCE]",
    "    Finish it by the rules of recovery: COMMIT or ABORT only if that is what they lead to.",
    "    FORGET drops entries whose records are gone. FORCE does not wait for the deadline: only",
    "    when the lockstep that began it is gone for good. DRYRUN changes nothing.",
    "SLOWLOG GET [<count>] | LEN | RESET",
    "    Commands that took slowlog-slower-than-ms or longer: id, time, microseconds, those of them",
    "    that were the shard's (-1: a transaction), arguments, client, its address.",
    "TRACE <traceparent> [<tracestate>]",
    "    The next command of this connection, or all from the next MULTI to its EXEC, is part of this",
    "    trace (W3C Trace Context). Inside MULTI: the transaction that it stands in.",
    "LATENCY [<command> ...]",
    "    How long commands took since CONFIG RESETSTAT: calls, microseconds, those of them that were",
    "    the shards'. LATENCY HISTOGRAM has the distribution.",
    "HOTKEYS [<count> | RESET]",
    "    Keys asked for most, by a sample of one command in hotkeys-sample: key, samples, how many",
    "    of these may be another key's.",
    "HELP",
    "    Print this help.",
];

/// An id is not longer than this; see [`TxnId::new`].
const ID_BYTES_MAX: usize = 64;

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
enum Question {
    Help,
    Status(TxnId),
    List { all: bool },
    Show(TxnId, Redact),
    Resolve(TxnId, Order),
}

impl Dispatcher {
    /// Whether an unknown command is this one.
    pub(super) fn is_lockstep(command: &Command<'_>) -> bool {
        command.name().eq_ignore_ascii_case(b"lockstep")
    }

    /// Answers when the shards have; nothing of this client overtakes it.
    pub(super) fn lockstep(&mut self, command: &Command<'_>) -> Flow {
        if Self::is_trace(command) {
            return self.trace_next(command);
        }
        if self.multi.is_some() {
            return self.reject(fixed::NO_MULTI);
        }
        if let Some(answer) = self.look(command) {
            self.session.reply(|out| out.extend_from_slice(&answer));
            return self.counted(Family::Local);
        }
        let question = match Question::read(command) {
            Ok(question) => question,
            Err(why) => return self.reject(why),
        };
        self.counted(Family::Local);
        let (slot, session) = (self.session.open_slot(), Rc::clone(&self.session));
        let (engine, protocol) = (Rc::clone(&self.context.engine), self.lane.protocol);
        spawn_local(async move {
            let mut reply = BytesMut::new();
            question.answer(&engine, protocol, &mut reply).await;
            session.complete(slot, &reply);
        });
        Flow::Bar
    }
}

impl Dispatcher {
    /// SLOWLOG, LATENCY and HOTKEYS, answered from what is here; None for anything else, also if its
    /// arguments make no sense.
    fn look(&self, command: &Command<'_>) -> Option<BytesMut> {
        let context = &self.context;
        let word = |at: usize| command.arg(at).map(<[u8]>::to_ascii_lowercase);
        let (first, second, third) = (word(1)?, word(2), word(3));
        let count = |text: &Option<Vec<u8>>| match text {
            None => Some(SHOWN),
            Some(text) => usize::try_from(number::parse_i64(text)?).ok(),
        };
        let mut out = BytesMut::new();
        match (&first[..], second.as_deref(), command.argc()) {
            (b"slowlog", Some(b"get"), 3 | 4) => context.slow.show(count(&third)?, &mut out),
            (b"slowlog", Some(b"len"), 3) => build::int(&mut out, context.slow.len() as i64),
            (b"slowlog", Some(b"reset"), 3) => {
                context.slow.reset();
                build::status(&mut out, "OK");
            }
            (b"latency", _, _) => {
                let names: Vec<&[u8]> = command.args().skip(2).collect();
                let protocol = self.lane.protocol;
                context.tally.stopwatch.put_down();
                out = context
                    .latencies
                    .show_shares(&context.table, &names, protocol);
            }
            (b"hotkeys", Some(b"reset"), 3) => {
                context.hot.reset();
                build::status(&mut out, "OK");
            }
            (b"hotkeys", _, 2 | 3) => context.hot.show(count(&second)?, &mut out),
            _ => return None,
        }
        Some(out)
    }
}

/// Entries that are shown if not told otherwise, as by SLOWLOG GET of Redis.
const SHOWN: usize = 10;

impl Question {
    fn read(command: &Command<'_>) -> Result<Self, String> {
        // `--dry-run` as on the command line is as good as `DRYRUN`.
        let word = |arg: &[u8]| {
            let text = String::from_utf8_lossy(arg).to_ascii_lowercase();
            text.trim_start_matches('-').replace('-', "")
        };
        let args: Vec<String> = command.args().skip(1).map(word).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let id = || read_id(command.arg(3).unwrap_or_default());
        match args[..] {
            ["help"] => Ok(Self::Help),
            ["txn", "status", _] => Ok(Self::Status(id()?)),
            ["txn", "list"] => Ok(Self::List { all: false }),
            ["txn", "list", "all"] => Ok(Self::List { all: true }),
            ["txn", "show", _] => Ok(Self::Show(id()?, Redact::No)),
            ["txn", "show", _, "redact"] => Ok(Self::Show(id()?, Redact::Yes)),
            ["txn", "resolve", _, ref words @ ..] => Ok(Self::Resolve(id()?, read_order(words)?)),
            _ => Err("ERR unknown subcommand or wrong number of arguments for 'lockstep'. Try LOCKSTEP HELP.".into()),
        }
    }

    async fn answer(self, engine: &Rc<Engine>, protocol: Protocol, out: &mut BytesMut) {
        match self {
            Self::Help => {
                build::array_header(out, HELP.len());
                HELP.iter().for_each(|line| build::status(out, line));
            }
            Self::Status(id) => match operator::status(engine, &id).await {
                Ok(status) => build::bulk(out, status.text()),
                Err(why) => build::error(out, format!("ERR {why}")),
            },
            Self::List { all } => {
                let list = operator::list(engine, all).await.json();
                operator::reply(&list, protocol, out);
            }
            Self::Show(id, redact) => {
                let shown = operator::show(engine, &id, redact).await.json();
                operator::reply(&shown, protocol, out);
            }
            Self::Resolve(id, order) => {
                let resolution = operator::resolve(engine, &id, order).await;
                match operator::refusal(&resolution) {
                    Some(why) => build::error(out, why),
                    None => operator::reply(&resolution.json(), protocol, out),
                }
            }
        }
    }
}

fn read_id(arg: &[u8]) -> Result<TxnId, String> {
    let is_id =
        !arg.is_empty() && arg.len() <= ID_BYTES_MAX && arg.iter().all(u8::is_ascii_graphic);
    match std::str::from_utf8(arg) {
        Ok(id) if is_id => Ok(TxnId::new(id)),
        _ => Err("ERR that is no id of a transaction".into()),
    }
}

fn read_order(words: &[&str]) -> Result<Order, String> {
    let mut order = Order {
        wish: Wish::Finish,
        dry_run: false,
        force: false,
    };
    for word in words {
        let wish = match *word {
            "commit" => Wish::Commit,
            "abort" => Wish::Abort,
            "forget" => Wish::Forget,
            "dryrun" => {
                order.dry_run = true;
                continue;
            }
            "force" => {
                order.force = true;
                continue;
            }
            _ => return Err(fixed::SYNTAX.into()),
        };
        if order.wish != Wish::Finish {
            return Err(fixed::SYNTAX.into());
        }
        order.wish = wish;
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::{CommandScanner, Limits, Scan};

    fn read(line: &str) -> Result<Question, String> {
        let bytes = format!("{line}\r\n").into_bytes();
        let mut scanner = CommandScanner::new(Limits::default());
        assert!(matches!(scanner.scan(&bytes), Ok(Scan::Command { .. })));
        Question::read(&scanner.command(&bytes))
    }

    #[test]
    fn questions_are_understood_in_either_spelling() {
        let id = || TxnId::new("Ab-1");
        assert_eq!(read("LOCKSTEP TXN STATUS Ab-1"), Ok(Question::Status(id())));
        assert_eq!(
            read("lockstep txn list --all"),
            Ok(Question::List { all: true })
        );
        assert_eq!(
            read("lockstep txn show Ab-1 REDACT"),
            Ok(Question::Show(id(), Redact::Yes))
        );
        let order = Order {
            wish: Wish::Abort,
            dry_run: true,
            force: true,
        };
        for line in [
            "lockstep txn resolve Ab-1 abort dryrun force",
            "LOCKSTEP TXN RESOLVE Ab-1 --abort --dry-run --force",
        ] {
            assert_eq!(read(line), Ok(Question::Resolve(id(), order)));
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for line in [
            "lockstep",
            "lockstep txn",
            "lockstep txn status",
            "lockstep txn list some",
            "lockstep txn resolve a commit abort",
            "lockstep txn show \u{e9}",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
        let long = format!("lockstep txn show {}", "x".repeat(65));
        assert!(read(&long).is_err());
    }
}

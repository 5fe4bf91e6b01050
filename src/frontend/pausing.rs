//! What a standing CLIENT PAUSE holds: with WRITE only what may change data, or what replicas are
//! told of, by redis-server's own rules. EXEC counts as what is queued, a script as what its first
//! line declares, a function as its flags say.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::spawn_local;

use super::dispatch::Dispatcher;
use super::gather::scanned_before;
use crate::engine::sources::sha_named;
use crate::keyspace::{CommandSpec, Flag, Lookup, Own, Treatment};
use crate::resp::{self, Command, CommandScanner, Scan};

/// Between two looks at whether a pause has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
const LIST_FUNCTIONS: &[u8] = b"*2\r\n$8\r\nFUNCTION\r\n$4\r\nLIST\r\n";
const NO_WRITES: &[u8] = b"no-writes";

impl Dispatcher {
    /// Whether the command must wait for the end of a pause; if so, the client's task is woken
    /// then.
    pub(super) fn must_pause(&self, spec: &CommandSpec, command: &Command<'_>) -> bool {
        let Some(pause) = self.context.roster.paused() else {
            self.is_cleared.set(false);
            return false;
        };
        if !pause.is_of_all && !self.may_write(spec, command) {
            return false;
        }
        if !pause.is_of_all && self.is_cleared.take() {
            return false;
        }
        // Shown again for another reason, it waits already.
        if self.is_held.replace(true) {
            return true;
        }
        let is_in_doubt = !pause.is_of_all && spec.name == "fcall" && self.multi.is_none();
        self.hold(is_in_doubt.then(|| Bytes::copy_from_slice(command.arg(1).unwrap_or_default())));
        true
    }

    /// Wakes the client's task when the pause has ended, or when the function that it calls turns
    /// out to be one that never writes.
    fn hold(&self, function: Option<Bytes>) {
        let (roster, session) = (Arc::clone(&self.context.roster), self.session.clone());
        let (is_held, is_cleared) = (Rc::clone(&self.is_held), Rc::clone(&self.is_cleared));
        let (engine, shard) = (Rc::clone(&self.context.engine), self.any_shard());
        roster.hold(1);
        spawn_local(async move {
            if let Some(function) = function {
                let list = engine.ask(shard, LIST_FUNCTIONS).await;
                is_cleared.set(list.is_ok_and(|list| never_writes(&list, &function)));
            }
            while !is_cleared.get() && roster.paused().is_some() && session.is_open() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            roster.hold(-1);
            is_held.set(false);
            session.wake();
        });
    }

    fn may_write(&self, spec: &CommandSpec, command: &Command<'_>) -> bool {
        match spec.treatment {
            Treatment::Own(Own::Exec) => self.queue_may_write(),
            Treatment::Script => {
                let reads = spec.is(Flag::ReadOnly) || spec.name.ends_with("_ro");
                !reads && !self.declares_no_writes(spec, command)
            }
            _ => {
                let publishes = ["publish", "spublish", "pfcount"];
                spec.is(Flag::Write) || publishes.contains(&spec.name.as_str())
            }
        }
    }

    fn queue_may_write(&self) -> bool {
        let Some(queue) = &self.multi else {
            return false;
        };
        let mut scanner = CommandScanner::new(scanned_before());
        queue.items().any(|(raw, _)| {
            let Ok(Scan::Command { .. }) = scanner.scan(raw) else {
                return true;
            };
            let command = scanner.command(raw);
            match self.context.table.lookup(&command) {
                Lookup::Known(spec) => self.may_write(spec, &command),
                _ => true,
            }
        })
    }

    /// Whether a script says so in its first line.
    fn declares_no_writes(&self, spec: &CommandSpec, command: &Command<'_>) -> bool {
        let argument = command.arg(1).unwrap_or_default();
        match spec.name.as_str() {
            "eval" => is_marked(argument),
            "evalsha" => sha_named(argument)
                .and_then(|sha| self.context.scripts.get(&sha))
                .is_some_and(|source| is_marked(&source)),
            _ => false,
        }
    }
}

/// Whether the source begins with a line such as `#!lua flags=no-writes`.
fn is_marked(source: &[u8]) -> bool {
    let Some(marks) = source.strip_prefix(b"#!") else {
        return false;
    };
    let line = marks.split(|&byte| byte == b'\n').next();
    let mut words = line.unwrap_or_default().split(u8::is_ascii_whitespace);
    words.any(|word| {
        let flags = word.strip_prefix(b"flags=").unwrap_or_default();
        flags.split(|&byte| byte == b',').any(|f| f == NO_WRITES)
    })
}

/// Whether this function is known, and flagged so, in a reply of FUNCTION LIST.
fn never_writes(list: &[u8], function: &[u8]) -> bool {
    let text = |frame| resp::as_bulk(frame).or_else(|| resp::as_status(frame));
    resp::elements(list).any(|library| {
        field(library, b"functions").is_some_and(|functions| {
            resp::elements(functions).any(|one| {
                let name = field(one, b"name").and_then(text);
                let is_it = name.is_some_and(|name| name.eq_ignore_ascii_case(function));
                let mut flags = field(one, b"flags")
                    .map(resp::elements)
                    .into_iter()
                    .flatten();
                is_it && flags.any(|flag| text(flag) == Some(NO_WRITES))
            })
        })
    })
}

/// The value behind this name, in a list of names and values.
fn field<'a>(pairs: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let fields: Vec<&[u8]> = resp::elements(pairs).collect();
    let mut named = fields
        .chunks_exact(2)
        .filter(|pair| resp::as_bulk(pair[0]) == Some(name));
    named.next().map(|pair| pair[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_line_declares_that_nothing_is_written() {
        assert!(is_marked(b"#!lua flags=no-writes\nreturn 1"));
        assert!(is_marked(
            b"#!lua name=x flags=allow-stale,no-writes\nreturn 1"
        ));
        assert!(!is_marked(b"#!lua\n-- flags=no-writes"));
        assert!(!is_marked(b"#!lua flags=allow-stale\nreturn 1"));
        assert!(!is_marked(b"return 'flags=no-writes'"));
    }

    #[test]
    fn a_function_is_known_by_its_flags() {
        let list = b"*1\r\n*6\r\n$12\r\nlibrary_name\r\n$1\r\nl\r\n$6\r\nengine\r\n$3\r\nLUA\r\n$9\r\nfunctions\r\n*2\r\n\
            *6\r\n$4\r\nname\r\n$1\r\nf\r\n$11\r\ndescription\r\n$-1\r\n$5\r\nflags\r\n*1\r\n+no-writes\r\n\
            *6\r\n$4\r\nname\r\n$1\r\ng\r\n$11\r\ndescription\r\n$-1\r\n$5\r\nflags\r\n*0\r\n";
        assert!(never_writes(list, b"F"));
        assert!(!never_writes(list, b"g"));
        assert!(!never_writes(list, b"h"));
        assert!(!never_writes(b"-ERR no", b"f"));
    }
}

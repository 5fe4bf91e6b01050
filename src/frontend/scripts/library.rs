//! What servers keep of scripts and functions: the same on every shard.

use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::task::spawn_local;

use super::guard;
use crate::backend::How;
use crate::engine::lanes::Links;
use crate::engine::sources::sha_named;
use crate::engine::{self, Engine};
use crate::frontend::dispatch::{Dispatcher, Flow};
use crate::frontend::refusal::{self, fixed};
use crate::frontend::session::Want;
use crate::keyspace::{CommandSpec, CommandTable, Library};
use crate::metrics::Family;
use crate::resp::{self, Command, build};
use crate::txn::plan::Misplaced;

const LIST_FUNCTIONS: &[u8] = b"*3\r\n$8\r\nFUNCTION\r\n$4\r\nLIST\r\n$8\r\nWITHCODE\r\n";

impl Dispatcher {
    /// SCRIPT LOAD, FUNCTION LOAD and the like, outside MULTI: answered when every shard has.
    pub(in super::super) fn library(&mut self, what: Library, command: &Command<'_>) -> Flow {
        if !self.session.is_now(Want::Idle) {
            return Flow::Wait;
        }
        if what == Library::Stats {
            return self.function_stats(command);
        }
        if what != Library::Kill
            && let Some(flow) = self.refuse_while_busy()
        {
            return flow;
        }
        match what {
            Library::Load => {
                let source = command.arg(2).unwrap_or_default();
                self.context.scripts.learn(source);
            }
            Library::Forget => self.context.scripts.clear(),
            _ => {}
        }
        // What is known here runs on every shard, whether or not that has it now.
        let names = command.args().skip(2).map(sha_named);
        let known =
            names.map(|sha| sha.is_some_and(|sha| self.context.scripts.get(&sha).is_some()));
        let known: Vec<bool> = known.collect();
        let mut raw = BytesMut::new();
        command.encode(&mut raw);
        let (slot, session) = (self.session.open_slot(), Rc::clone(&self.session));
        let (engine, links) = (Rc::clone(&self.context.engine), Rc::clone(&self.links));
        self.counted(Family::Local);
        spawn_local(async move {
            let reply = match what {
                Library::Kill => kill(&engine, &raw).await,
                Library::Forget => forget(&engine, &raw).await,
                _ => everywhere(&engine, &links, &known, what, &raw).await,
            };
            session.complete(slot, &reply);
        });
        Flow::Bar
    }

    /// FCALL without keys, on several shards: runs if the library's code cannot touch data.
    pub(super) fn call_without_keys(&mut self, spec: &CommandSpec, command: &Command<'_>) -> Flow {
        if !self.session.is_now(Want::Idle) {
            return Flow::Wait;
        }
        let mut raw = BytesMut::new();
        command.encode(&mut raw);
        let function = Bytes::copy_from_slice(command.arg(1).unwrap_or_default());
        let refused = refusal::misplaced(spec, Misplaced::Undeclared);
        let (slot, session) = (self.session.open_slot(), Rc::clone(&self.session));
        let (shard, engine) = (self.any_shard(), Rc::clone(&self.context.engine));
        let table = Arc::clone(&self.context.table);
        let link = Rc::clone(self.link(shard));
        self.counted(Family::Write);
        spawn_local(async move {
            let mut reply = BytesMut::new();
            let first = engine.ask(shard, LIST_FUNCTIONS).await;
            let answer = match first {
                Ok(list) if may_touch_data(&list, &function, &table) => {
                    build::error(&mut reply, refused);
                    return session.complete(slot, &reply);
                }
                Ok(_) => engine::ask_as(&link, &raw, How::PLAIN.of_script(true)).await,
                Err(failure) => Err(failure),
            };
            match answer {
                Ok(answer) => session.complete(slot, &answer),
                Err(failure) => {
                    build::error(&mut reply, failure.to_string());
                    session.complete(slot, &reply);
                }
            }
        });
        Flow::Bar
    }
}

/// Whether the function is one of a library whose code can touch data. (An unknown function
/// is not: the shard will say so.)
fn may_touch_data(list: &[u8], function: &[u8], table: &CommandTable) -> bool {
    resp::elements(list).any(|library| {
        let fields: Vec<&[u8]> = resp::elements(library).collect();
        let field = |name: &[u8]| {
            let pairs = fields.chunks_exact(2);
            let mut named = pairs.filter(|pair| resp::as_bulk(pair[0]) == Some(name));
            named.next().map(|pair| pair[1])
        };
        let has_it = field(b"functions").is_some_and(|functions| {
            resp::elements(functions).any(|one| {
                let fields: Vec<&[u8]> = resp::elements(one).collect();
                let mut pairs = fields.chunks_exact(2);
                pairs.any(|pair| {
                    resp::as_bulk(pair[0]) == Some(b"name")
                        && resp::as_bulk(pair[1])
                            .is_some_and(|name| name.eq_ignore_ascii_case(function))
                })
            })
        });
        let code = field(b"library_code").and_then(resp::as_bulk);
        has_it && code.is_none_or(|code| guard::can_touch(code, table))
    })
}

/// The reply of all shards.
async fn everywhere(
    engine: &Rc<Engine>,
    links: &Links,
    known: &[bool],
    what: Library,
    raw: &[u8],
) -> BytesMut {
    match engine.ask_all(links, raw).all().await {
        Err(error) => error,
        Ok(replies) if what == Library::Exists => {
            let mut out = BytesMut::new();
            on_all(&replies, known, &mut out);
            out
        }
        Ok(replies) => replies
            .first()
            .map(|reply| BytesMut::from(&reply[..]))
            .unwrap_or_default(),
    }
}

/// SCRIPT FLUSH, with our own scripts loaded again in the same step.
async fn forget(engine: &Rc<Engine>, raw: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    for answer in engine.forget_scripts(raw).await {
        match answer {
            Ok(reply) if resp::is_error(&reply) => return BytesMut::from(&reply[..]),
            Ok(reply) => {
                let first = resp::elements(&reply).next().unwrap_or_default();
                if out.is_empty() || resp::is_error(first) {
                    out = BytesMut::from(first);
                }
            }
            Err(failure) => {
                out.clear();
                build::error(&mut out, failure.to_string());
                return out;
            }
        }
    }
    out
}

/// A script exists if every shard has it, or it is known.
fn on_all(replies: &[Bytes], known: &[bool], out: &mut BytesMut) {
    let lists: Vec<Vec<&[u8]>> = replies
        .iter()
        .map(|reply| resp::elements(reply).collect())
        .collect();
    let count = lists.first().map_or(0, Vec::len);
    build::array_header(out, count);
    for at in 0..count {
        let everywhere = lists
            .iter()
            .all(|list| list.get(at).and_then(|one| resp::as_int(one)) == Some(1));
        let is_known = known.get(at).copied().unwrap_or_default();
        build::int(out, i64::from(everywhere || is_known));
    }
}

/// SCRIPT KILL and FUNCTION KILL: over connections of their own, since the shared ones stand
/// behind the script that is to be killed. One that was killed is success; otherwise what speaks
/// against it counts for more than that nothing runs.
async fn kill(engine: &Rc<Engine>, raw: &[u8]) -> BytesMut {
    let answers = engine.ask_apart(raw).await;
    let mut idle = None;
    let (mut killed, mut worst) = (None, None);
    for answer in answers {
        match answer {
            Ok(reply) if !resp::is_error(&reply) => killed = Some(BytesMut::from(&reply[..])),
            Ok(reply) if resp::error_text(&reply).starts_with(b"NOTBUSY") => {
                idle = Some(BytesMut::from(&reply[..]));
            }
            Ok(reply) => worst = Some(BytesMut::from(&reply[..])),
            Err(cause) => {
                let mut out = BytesMut::new();
                build::error(&mut out, format!("ERR {cause}; nothing was killed there"));
                worst = Some(out);
            }
        }
    }
    let answer = killed.or(worst).or(idle);
    answer.unwrap_or_else(|| {
        let mut out = BytesMut::new();
        build::error(&mut out, fixed::NOSCRIPT);
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_exists_if_it_does_everywhere() {
        let replies = [
            Bytes::from("*3\r\n:1\r\n:1\r\n:0\r\n"),
            Bytes::from("*3\r\n:1\r\n:0\r\n:0\r\n"),
        ];
        let mut out = BytesMut::new();
        on_all(&replies, &[false, false, true], &mut out);
        assert_eq!(&out[..], b"*3\r\n:1\r\n:0\r\n:1\r\n");
    }

    #[test]
    fn a_function_is_found_with_its_librarys_code() {
        let list = |code: &str| {
            let mut out = BytesMut::new();
            build::array_header(&mut out, 1);
            build::array_header(&mut out, 6);
            build::bulk(&mut out, "library_name");
            build::bulk(&mut out, "l");
            build::bulk(&mut out, "functions");
            build::array_header(&mut out, 1);
            build::command(&mut out, ["name", "f"]);
            build::bulk(&mut out, "library_code");
            build::bulk(&mut out, code);
            out
        };
        let table = guard::tests::table();
        let may = |code: &str, name: &[u8]| may_touch_data(&list(code), name, &table);
        assert!(may("redis.call('get', 'x')", b"F"));
        assert!(!may("return 1", b"f"));
        assert!(!may("redis.call('get', 'x')", b"g"));
    }
}

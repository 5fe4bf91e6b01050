//! LOCKSTEP SLOWLOG: commands that took long from here, with the part of it that was the shard's.
//! (SLOWLOG itself tells of the shards' own logs.)
//!
//! Off unless `slowlog-slower-than-ms` is set; then each command that is sent to one shard, and each
//! transaction, has a companion until its reply is there.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};

use super::Context;
use super::dispatch::Dispatcher;
use super::roster::Entry as Client;
use crate::backend::{Failure, ReplySink};
use crate::resp::{as_bulk, build, elements};

/// Arguments, and bytes of each, that are kept of a command; as SLOWLOG of Redis does.
const ARGS_MAX: usize = 32;
const ARG_BYTES_MAX: usize = 128;

/// The log, for all workers.
#[derive(Default)]
pub struct SlowLog(Mutex<Log>);

#[derive(Default)]
struct Log {
    next_id: u64,
    /// The newest in front.
    entries: VecDeque<Entry>,
}

struct Entry {
    id: u64,
    at: u64,
    taken: Duration,
    /// From the write to the shard to its reply; None for a transaction.
    by_shard: Option<Duration>,
    args: Vec<Bytes>,
    client: u64,
    address: String,
}

impl SlowLog {
    fn note(&self, mut entry: Entry, len_max: usize) {
        let mut log = self.locked();
        entry.id = log.next_id;
        log.next_id += 1;
        log.entries.push_front(entry);
        log.entries.truncate(len_max);
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.locked().entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all of them; ids go on.
    pub fn reset(&self) {
        self.locked().entries.clear();
    }

    /// The newest: id, time, microseconds, those of them that were the shard's (-1 for a
    /// transaction), arguments, client and its address.
    pub fn show(&self, most: usize, out: &mut BytesMut) {
        let log = self.locked();
        let shown = log.entries.len().min(most);
        build::array_header(out, shown);
        for entry in log.entries.iter().take(shown) {
            build::array_header(out, 7);
            build::int(out, entry.id as i64);
            build::int(out, entry.at as i64);
            build::int(out, micros(entry.taken));
            build::int(out, entry.by_shard.map_or(-1, micros));
            build::array_header(out, entry.args.len());
            entry.args.iter().for_each(|arg| build::bulk(out, arg));
            build::int(out, entry.client as i64);
            build::bulk(out, &entry.address);
        }
    }

    fn locked(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// Waits for a reply in the place of the session, and hands it on.
struct Companion {
    to: Rc<dyn ReplySink>,
    context: Rc<Context>,
    began: Instant,
    is_sent: bool,
    args: Vec<Bytes>,
    client: Arc<Client>,
}

impl Companion {
    fn end(&self) {
        let (taken, config) = (self.began.elapsed(), self.context.config());
        if taken < config.slowlog_slower_than {
            return;
        }
        let asked = self.context.turn.asked_at().max(self.began);
        let by_shard = self.is_sent.then(|| asked.elapsed().min(taken));
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let entry = Entry {
            id: 0,
            at: now.map_or(0, |now| now.as_secs()),
            taken,
            by_shard,
            args: self.args.clone(),
            client: self.client.id,
            address: self.client.address.clone(),
        };
        self.context.metrics.slow_commands.increment(1);
        self.context.slow.note(entry, config.slowlog_max_len);
    }
}

impl ReplySink for Companion {
    fn deliver(self: Rc<Self>, number: u64, reply: &[u8]) {
        self.end();
        Rc::clone(&self.to).deliver(number, reply);
    }

    fn deliver_at(self: Rc<Self>, number: u64, reply: &[u8], epoch: Option<&[u8]>) {
        self.end();
        Rc::clone(&self.to).deliver_at(number, reply, epoch);
    }

    fn fail(self: Rc<Self>, number: u64, failure: &Failure) {
        self.end();
        Rc::clone(&self.to).fail(number, failure);
    }

    fn takes_parts(&self, number: u64) -> bool {
        self.to.takes_parts(number)
    }

    fn part(self: Rc<Self>, number: u64, part: &[u8]) {
        Rc::clone(&self.to).part(number, part);
    }

    fn unsent(&self, number: u64, enough: usize, task: &std::task::Context<'_>) -> usize {
        self.to.unsent(number, enough, task)
    }
}

impl Dispatcher {
    /// Who takes the reply to this request: the session, or a companion that looks at the time.
    pub(super) fn taker(&self, request: &[u8]) -> Rc<dyn ReplySink> {
        let session = Rc::<super::session::Session>::clone(&self.session);
        match self.context.is_timing.get() {
            false => session,
            true => self.accompanied(session, args(request), true),
        }
    }

    /// The same for a transaction.
    pub(super) fn taker_of_transaction(&self, to: Rc<dyn ReplySink>) -> Rc<dyn ReplySink> {
        match self.context.is_timing.get() {
            false => to,
            true => {
                let name = self.last.to_uppercase();
                self.accompanied(to, vec![name.into()], false)
            }
        }
    }

    fn accompanied(
        &self,
        to: Rc<dyn ReplySink>,
        args: Vec<Bytes>,
        is_sent: bool,
    ) -> Rc<dyn ReplySink> {
        Rc::new(Companion {
            to,
            context: Rc::clone(&self.context),
            began: Instant::now(),
            is_sent,
            args,
            client: Arc::clone(&self.entry),
        })
    }
}

/// What is kept of a request's arguments.
fn args(request: &[u8]) -> Vec<Bytes> {
    let kept = |arg: &[u8]| Bytes::copy_from_slice(&arg[..arg.len().min(ARG_BYTES_MAX)]);
    elements(request)
        .filter_map(as_bulk)
        .take(ARGS_MAX)
        .map(kept)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_bounded_and_its_ids_go_on() {
        let log = SlowLog::default();
        let note = || {
            let entry = Entry {
                id: 0,
                at: 1,
                taken: Duration::from_millis(5),
                by_shard: None,
                args: args(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"),
                client: 7,
                address: "a:1".into(),
            };
            log.note(entry, 2);
        };
        (0..3).for_each(|_| note());
        assert_eq!(log.len(), 2);
        let mut out = BytesMut::new();
        log.show(1, &mut out);
        assert_eq!(
            &out[..],
            b"*1\r\n*7\r\n:2\r\n:1\r\n:5000\r\n:-1\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n:7\r\n$3\r\na:1\r\n"
        );
        log.reset();
        assert!(log.is_empty());
    }
}

//! The clients of the process, over all workers: what CLIENT LIST tells of them, and how another
//! worker's client is reached. One entry for each client, so `clients-max` bounds it.
//!
//! An entry is written by its client's task, once for each time it runs; what others want of a
//! client they leave there, and wake its task.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;

use crate::engine::blocking::Berth;
use crate::resp::{Lane, Protocol};

/// All clients.
#[derive(Default)]
pub struct Roster {
    entries: Mutex<BTreeMap<u64, Arc<Entry>>>,
    is_paused: AtomicBool,
    /// Clients whose command waits for the end of a pause.
    held: AtomicUsize,
    pause: Mutex<Option<Pause>>,
}

/// CLIENT PAUSE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pause {
    /// When it ends by itself.
    pub until: Instant,
    /// Reads too.
    pub is_of_all: bool,
}

/// One client.
pub struct Entry {
    /// `CLIENT ID`.
    pub id: u64,
    /// The client's address.
    pub address: String,
    /// The address it has connected to.
    pub local_address: String,
    since: Instant,
    told: Mutex<Told>,
    is_killed: AtomicBool,
    /// The client's task.
    pub task: AtomicWaker,
}

/// What changes.
#[derive(Clone, Debug)]
pub struct Told {
    /// CLIENT SETNAME.
    pub name: Vec<u8>,
    /// The user's name.
    pub user: String,
    /// Protocol and database.
    pub lane: Lane,
    /// The last command, in lower case, with its subcommand.
    pub command: String,
    /// When it came.
    pub at: Instant,
    /// Commands queued since MULTI.
    pub queued: Option<usize>,
    /// Bytes of the command under way.
    pub input_bytes: usize,
    /// Where the client waits for data.
    pub berth: Option<Arc<Berth>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Roster {
    /// A client has connected.
    pub fn enter(&self, id: u64, address: String, local_address: String) -> Arc<Entry> {
        let now = Instant::now();
        let told = Told {
            name: Vec::new(),
            user: crate::acl::DEFAULT.into(),
            lane: Lane::FIRST,
            command: "NULL".into(),
            at: now,
            queued: None,
            input_bytes: 0,
            berth: None,
        };
        let entry = Arc::new(Entry {
            id,
            address,
            local_address,
            since: now,
            told: Mutex::new(told),
            is_killed: AtomicBool::new(false),
            task: AtomicWaker::new(),
        });
        locked(&self.entries).insert(id, Arc::clone(&entry));
        entry
    }

    /// It is gone.
    pub fn leave(&self, id: u64) {
        locked(&self.entries).remove(&id);
    }

    /// Of all clients, by age.
    pub fn all(&self) -> Vec<Arc<Entry>> {
        locked(&self.entries).values().cloned().collect()
    }

    /// One client.
    pub fn get(&self, id: u64) -> Option<Arc<Entry>> {
        locked(&self.entries).get(&id).cloned()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        locked(&self.entries).len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// CLIENT PAUSE: a pause that stands already is made longer and wider, never the reverse.
    pub fn pause(&self, wanted: Pause) {
        let mut pause = locked(&self.pause);
        let stands = pause.filter(|pause| pause.until > Instant::now());
        *pause = Some(match stands {
            None => wanted,
            Some(stands) => Pause {
                until: stands.until.max(wanted.until),
                is_of_all: stands.is_of_all || wanted.is_of_all,
            },
        });
        self.is_paused.store(true, Ordering::Release);
    }

    /// A command waits for the end of a pause (1), or does no more (-1).
    pub fn hold(&self, change: isize) {
        self.held.fetch_add(change as usize, Ordering::Relaxed);
    }

    /// Clients whose command waits here, and not on a connection to a shard.
    pub fn waiting_here(&self) -> usize {
        let waits = |entry: &&Arc<Entry>| entry.berth().is_some_and(|berth| berth.waits_here());
        let waiting = locked(&self.entries).values().filter(waits).count();
        waiting + self.held.load(Ordering::Relaxed)
    }

    /// CLIENT UNPAUSE.
    pub fn go_on(&self) {
        *locked(&self.pause) = None;
        self.is_paused.store(false, Ordering::Release);
    }

    /// The pause that stands.
    pub fn paused(&self) -> Option<Pause> {
        if !self.is_paused.load(Ordering::Acquire) {
            return None;
        }
        let mut pause = locked(&self.pause);
        *pause = pause.filter(|pause| pause.until > Instant::now());
        self.is_paused.store(pause.is_some(), Ordering::Release);
        *pause
    }
}

impl Entry {
    /// Changes what is told of the client.
    pub fn tell(&self, change: impl FnOnce(&mut Told)) {
        change(&mut locked(&self.told));
    }

    /// What is told of it.
    pub fn told(&self) -> Told {
        locked(&self.told).clone()
    }

    /// CLIENT KILL: its task ends as soon as it runs, which is at once.
    pub fn kill(&self) {
        self.is_killed.store(true, Ordering::Release);
        self.task.wake();
    }

    /// Whether it was killed.
    pub fn is_killed(&self) -> bool {
        self.is_killed.load(Ordering::Acquire)
    }

    /// Where it waits for data, if it does.
    pub fn berth(&self) -> Option<Arc<Berth>> {
        locked(&self.told)
            .berth
            .clone()
            .filter(|berth| berth.is_taken())
    }

    /// A line of CLIENT LIST, as redis-server 7.0 prints it. What lockstep does not keep for each
    /// client is 0.
    pub fn line(&self) -> Vec<u8> {
        let told = self.told();
        let since = |then: Instant| {
            let age: Duration = then.elapsed();
            age.as_secs()
        };
        let flags = match (self.berth().is_some(), told.queued) {
            (true, _) => "b",
            (_, Some(_)) => "x",
            _ => "N",
        };
        let protocol = match told.lane.protocol {
            Protocol::Resp2 => 2,
            Protocol::Resp3 => 3,
        };
        let multi = told.queued.map_or(-1, |queued| queued as i64);
        let head = format!(
            "id={} addr={} laddr={} fd={} name=",
            self.id, self.address, self.local_address, self.id,
        );
        let mut tail = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(
            tail,
            " age={} idle={} flags={flags} db={} sub=0 psub=0 ssub=0 multi={multi} qbuf={} \
             qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r \
             cmd={} user={} redir=-1 resp={protocol}",
            since(self.since),
            since(told.at),
            told.lane.db,
            told.input_bytes,
            told.command,
            told.user,
        );
        [head.as_bytes(), &told.name, tail.as_bytes()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_never_made_shorter_or_narrower() {
        let roster = Roster::default();
        let later = |ms| Instant::now() + Duration::from_millis(ms);
        assert_eq!(roster.paused(), None);
        let long = Pause {
            until: later(60_000),
            is_of_all: false,
        };
        roster.pause(long);
        roster.pause(Pause {
            until: later(30_000),
            is_of_all: true,
        });
        let stands = Pause {
            is_of_all: true,
            ..long
        };
        assert_eq!(roster.paused(), Some(stands));
        roster.go_on();
        assert_eq!(roster.paused(), None);
    }

    #[test]
    fn a_client_is_listed_until_it_leaves() {
        let roster = Roster::default();
        let entry = roster.enter(7, "a:1".into(), "b:2".into());
        entry.tell(|told| told.name = b"n".to_vec());
        let line = String::from_utf8(roster.get(7).unwrap().line()).unwrap();
        assert!(line.starts_with("id=7 addr=a:1 laddr=b:2 fd=7 name=n age=0 idle=0 flags=N db=0 "));
        assert!(line.ends_with(" cmd=NULL user=default redir=-1 resp=2\n"));
        roster.leave(7);
        assert!(roster.is_empty() && roster.get(7).is_none());
    }
}

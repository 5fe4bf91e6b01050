//! People with plain commands beside the transactions: GET and SET of one key, whose replies are
//! held, and split reads, which go by epochs.
//!
//! They have good connections, on which only time passes: what faults do to a plain command is
//! that it is not answered, and then it promises nothing. With the fence up no write takes effect
//! while its key settles. Split reads promise no order with plain writes: who has them in a
//! schedule has no plain writes.

use std::collections::HashSet;

use lockstep::backend::rules::{self, Settling};
use lockstep::txn::*;

use super::history::Plain;
use super::world::{Bug, Happening, World};

/// Times that a split read is tried. In production it takes locks then.
const TRIES_MAX: u32 = 4;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Wish {
    Get {
        at: usize,
        key: usize,
    },
    Set {
        at: usize,
        key: usize,
    },
    /// One key of every shard.
    Split {
        key: usize,
    },
}

/// What is next for a person.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Move {
    /// The next command is sent.
    Send,
    /// It runs on a shard, or a piece of it does.
    Run(usize),
    /// The look at what settles, behind it.
    Look,
    /// The look at a shard's index, behind an epoch.
    Index(usize, u64),
}

#[derive(Debug)]
pub(crate) struct Person {
    wishes: Vec<Wish>,
    next: usize,
    /// The number of the command under way.
    command: usize,
    /// What was known of each shard before the first piece was sent.
    known: Vec<Option<u64>>,
    missing: usize,
    is_consistent: bool,
    tries: u32,
}

impl World {
    /// A few people with a few wishes each.
    pub(crate) fn invite(&mut self, keys: usize) {
        for _ in 0..self.dice.below(4) {
            let wishes = (0..self.dice.between(1, 4))
                .map(|_| self.wish(keys))
                .collect();
            self.people.push(Person {
                wishes,
                next: 0,
                command: 0,
                known: Vec::new(),
                missing: 0,
                is_consistent: true,
                tries: 0,
            });
            let at = self.dice.below(500);
            let who = self.people.len() - 1;
            self.at(at, Happening::Plain(who, Move::Send));
        }
    }

    fn wish(&mut self, keys: usize) -> Wish {
        let at = self.dice.index(self.shards.len());
        let key = self.dice.index(keys);
        match self.dice.below(3) {
            0 if self.splits => Wish::Split { key },
            0 => Wish::Set { at, key },
            _ => Wish::Get { at, key },
        }
    }

    fn pass(&mut self, who: usize, next: Move) {
        let at = self.now + self.dice.between(1, 8);
        self.at(at, Happening::Plain(who, next));
    }

    pub(crate) fn plain(&mut self, who: usize, now: Move) {
        match now {
            Move::Send => self.send_plain(who),
            Move::Run(at) => self.run_plain(who, at),
            Move::Look => self.look(who),
            Move::Index(at, epoch) => {
                let index = &self.shards[at].twin.index;
                let is_empty = index.is_empty() || self.bug == Some(Bug::IndexUnread);
                self.epochs[at] = rules::known_epoch(Some(epoch), is_empty);
            }
        }
    }

    fn send_plain(&mut self, who: usize) {
        let Some(&wish) = self.people[who].wishes.get(self.people[who].next) else {
            return;
        };
        let command = self.history.begin_plain(self.now);
        let (all, known) = (self.shards.len(), self.epochs.clone());
        let person = &mut self.people[who];
        person.command = command;
        person.known = known;
        person.missing = all;
        person.is_consistent = true;
        match wish {
            Wish::Get { at, .. } | Wish::Set { at, .. } => self.pass(who, Move::Run(at)),
            Wish::Split { .. } => (0..all).for_each(|at| self.pass(who, Move::Run(at))),
        }
    }

    fn run_plain(&mut self, who: usize, at: usize) {
        let command = self.people[who].command;
        match self.people[who].wishes[self.people[who].next] {
            Wish::Get { key, .. } => {
                let seen = self.shards[at].data[key].len();
                self.history.plain[command].reads.push((at, key, seen));
                self.pass(who, Move::Look);
            }
            Wish::Set { key, .. } if self.is_fenced(at, key) => self.pass(who, Move::Run(at)),
            Wish::Set { key, .. } => {
                let id = self.history.plain[command].id.clone();
                self.shards[at].data[key].push(id);
                self.pass(who, Move::Look);
            }
            Wish::Split { key } => self.run_piece(who, at, key),
        }
    }

    /// Whether a plain write may not take effect now.
    pub(crate) fn is_fenced(&self, at: usize, key: usize) -> bool {
        let settling = &self.shards[at].twin.settling;
        self.fence
            && self.bug != Some(Bug::FenceOff)
            && settling.contains_key(&super::shard::key(key))
    }

    fn run_piece(&mut self, who: usize, at: usize, key: usize) {
        let (seen, epoch) = (self.shards[at].data[key].len(), self.shards[at].twin.epoch);
        let person = &mut self.people[who];
        self.history.plain[person.command]
            .reads
            .push((at, key, seen));
        person.is_consistent &= rules::is_consistent(person.known[at].as_ref(), &epoch);
        person.missing -= 1;
        let (is_last, is_consistent) = (person.missing == 0, person.is_consistent);
        self.pass(who, Move::Index(at, epoch));
        if !is_last {
            return;
        }
        if is_consistent {
            return self.end_plain(who);
        }
        // What it read is forgotten, and it begins anew.
        self.history.plain[self.people[who].command].reads.clear();
        self.people[who].tries += 1;
        if self.people[who].tries < TRIES_MAX {
            let at = self.now + self.dice.between(10, 60);
            self.at(at, Happening::Plain(who, Move::Send));
        }
    }

    fn look(&mut self, who: usize) {
        let person = &self.people[who];
        let (Wish::Get { at, key } | Wish::Set { at, key }) = person.wishes[person.next] else {
            return;
        };
        let settling = self.shards[at].twin.settling.keys();
        let slots: HashSet<u16> = settling
            .map(|key| super::shard::number(key) as u16)
            .collect();
        let may_leave = Settling::Slots(&slots).may_leave(key as u16);
        if may_leave || self.bug == Some(Bug::NoHold) {
            self.end_plain(who);
        } else {
            self.history.held += 1;
            self.pass(who, Move::Look);
        }
    }

    /// The reply is there; the next command follows soon.
    fn end_plain(&mut self, who: usize) {
        let person = &mut self.people[who];
        self.history.plain[person.command].told = Some(self.now);
        person.next += 1;
        person.tries = 0;
        let at = self.now + self.dice.between(1, 20);
        self.at(at, Happening::Plain(who, Move::Send));
    }

    /// Somebody writes a key that a client watches, and does not wait for the reply.
    pub(crate) fn write(&mut self, at: usize, key: usize) {
        if !self.is_fenced(at, key) {
            let command = self.history.begin_plain(self.now);
            let id = self.history.plain[command].id.clone();
            self.shards[at].data[key].push(id);
        }
    }
}

impl Plain {
    pub(crate) fn new(number: usize, began: Millis) -> Self {
        Self {
            id: TxnId::new(format!("p{number}")),
            began,
            told: None,
            reads: Vec::new(),
        }
    }
}

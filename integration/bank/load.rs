//! The clients: movers that transfer, readers that sum.

use crate::books::{Books, Outcome};
use crate::support::{Client, Seed, Value};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle, sleep};
use std::time::Duration;

/// How long a client thinks between two transfers: 50 of them keep two cores busy enough.
const THINK: Duration = Duration::from_millis(3);
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);

/// The load on two proxies.
#[derive(Debug)]
pub struct Load<'a> {
    books: &'a Books,
    seed: Seed,
    ports: [u16; 2],
    moving: AtomicBool,
    reading: AtomicBool,
}

/// What all clients together have seen.
#[derive(Debug, Default)]
pub struct Totals {
    /// Transfers that went through.
    pub moved: u64,
    /// Transfers given up with nothing applied.
    pub aborted: u64,
    /// Transfers whose outcome their client does not know.
    pub unknown: u64,
    /// Sums that were right, read in transactions.
    pub sums: u64,
    /// Sums that were right, read by MGET.
    pub mget_sums: u64,
    /// Transfers of which plain commands found both ends.
    pub followed: u64,
    /// Transfers of which they found one.
    pub halves: u64,
    /// Sums that were not.
    pub wrong_sums: Vec<i64>,
    /// Errors by text; words with digits left out.
    pub errors: BTreeMap<String, u64>,
    /// Every transfer that was sent.
    pub outcomes: HashMap<String, Outcome>,
}

/// The threads of a running load; dropping it stops them, so that a test that fails ends.
#[derive(Debug)]
pub struct Running<'scope> {
    load: &'scope Load<'scope>,
    threads: Vec<ScopedJoinHandle<'scope, Totals>>,
}

impl Running<'_> {
    /// Waits for all clients and adds up.
    pub fn join(mut self) -> Totals {
        let mut all = Totals::default();
        for thread in std::mem::take(&mut self.threads) {
            all.add(thread.join().expect("a client does not panic"));
        }
        all
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.load.stop_movers();
        self.load.stop_readers();
    }
}

impl<'a> Load<'a> {
    /// Clients take the two ports in turn.
    pub fn new(books: &'a Books, seed: Seed, ports: [u16; 2]) -> Load<'a> {
        let (moving, reading) = (AtomicBool::new(true), AtomicBool::new(true));
        Load {
            books,
            seed,
            ports,
            moving,
            reading,
        }
    }

    /// Starts the clients.
    pub fn start<'scope, 'env>(
        &'scope self,
        scope: &'scope Scope<'scope, 'env>,
        movers: usize,
        readers: usize,
    ) -> Running<'scope> {
        let movers = (0..movers).map(|number| scope.spawn(move || self.move_money(number)));
        let mut threads: Vec<_> = movers.collect();
        threads.extend((0..readers).map(|number| {
            scope.spawn(move || match number % 3 {
                0 => self.sum_up(number, false),
                1 => self.sum_up(number, true),
                _ => self.follow(number),
            })
        }));
        Running {
            load: self,
            threads,
        }
    }

    /// Movers end after what they are doing.
    pub fn stop_movers(&self) {
        self.moving.store(false, Ordering::Relaxed);
    }

    /// Readers end after what they are doing.
    pub fn stop_readers(&self) {
        self.reading.store(false, Ordering::Relaxed);
    }

    fn move_money(&self, number: usize) -> Totals {
        let mut rng = self.seed.rng(number as u64);
        let (mut totals, mut client) = (Totals::default(), None);
        let mut turn = 0_u64;
        while self.moving.load(Ordering::Relaxed) {
            let Some(open) = self.connected(&mut client, number) else {
                continue;
            };
            turn += 1;
            let id = format!("c{number}-{turn}");
            match self.transfer(open, &mut rng, &id) {
                Ok(reply) => totals.note_transfer(id, &reply),
                Err(error) => {
                    totals.note_lost(id, error.kind());
                    client = None;
                }
            }
            sleep(THINK.mul_f64(rng.random_range(0.5..1.5)));
        }
        totals
    }

    fn connected<'c>(
        &self,
        client: &'c mut Option<Client>,
        number: usize,
    ) -> Option<&'c mut Client> {
        if client.is_none() {
            *client = Client::connect(self.ports[number % 2]).ok();
            if client.is_none() {
                sleep(RECONNECT_PAUSE);
            }
        }
        client.as_mut()
    }

    fn transfer(&self, client: &mut Client, rng: &mut StdRng, id: &str) -> std::io::Result<Value> {
        let accounts = self.books.accounts();
        let pair: Vec<&String> = accounts.sample(rng, 2).collect();
        let amount: i64 = rng.random_range(1..=50);
        let (from, to) = (pair[0].as_str(), pair[1].as_str());
        let words = |words: [&str; 3]| words.map(str::to_owned).to_vec();
        client.try_transaction(&[
            words(["DECRBY", from, &amount.to_string()]),
            words(["RPUSH", &Books::ledger(from), &Books::line(id, -amount, to)]),
            words(["INCRBY", to, &amount.to_string()]),
            words(["RPUSH", &Books::ledger(to), &Books::line(id, amount, from)]),
        ])
    }

    /// Reads all accounts, in a transaction or by one MGET.
    fn sum_up(&self, number: usize, by_mget: bool) -> Totals {
        let (mut totals, mut client) = (Totals::default(), None);
        let mut mget = vec!["MGET".to_owned()];
        mget.extend(self.books.accounts().iter().cloned());
        let get = |account: &String| vec!["GET".to_owned(), account.clone()];
        let commands: Vec<_> = self.books.accounts().iter().map(get).collect();
        while self.reading.load(Ordering::Relaxed) {
            let Some(open) = self.connected(&mut client, number) else {
                continue;
            };
            let reply = if by_mget {
                open.try_call(&mget).map(|reply| reply.value)
            } else {
                open.try_transaction(&commands)
            };
            match reply {
                Ok(reply) => totals.note_sum(&reply, self.books.total(), by_mget),
                Err(error) => {
                    totals.note_error(&format!("reader: {:?}", error.kind()));
                    client = None;
                }
            }
            sleep(THINK * 4);
        }
        totals
    }

    /// Finds the other end of the last transfer of some account, with plain commands: who has
    /// seen one end can see the other.
    fn follow(&self, number: usize) -> Totals {
        let mut rng = self.seed.rng(1_000 + number as u64);
        let (mut totals, mut client) = (Totals::default(), None);
        while self.reading.load(Ordering::Relaxed) {
            let Some(open) = self.connected(&mut client, number / 3) else {
                continue;
            };
            match self.both_ends(open, &mut rng) {
                Ok(Ok(found)) => totals.note_followed(found),
                Ok(Err(text)) => totals.note_error(&format!("follower: {text}")),
                Err(error) => {
                    totals.note_error(&format!("follower: {:?}", error.kind()));
                    client = None;
                }
            }
            sleep(THINK);
        }
        totals
    }

    /// None if the account has no transfers yet, else whether both ends were there; an error
    /// that was answered.
    fn both_ends(
        &self,
        client: &mut Client,
        rng: &mut StdRng,
    ) -> std::io::Result<Result<Option<bool>, String>> {
        let accounts = self.books.accounts();
        let account = &accounts[rng.random_range(0..accounts.len())];
        let ledger = Books::ledger(account);
        let last = client.try_call(&["LRANGE", &ledger, "-1", "-1"])?.value;
        if let Some(text) = last.error() {
            return Ok(Err(text));
        }
        let Some(line) = last.elements().first().and_then(Value::bytes) else {
            return Ok(Ok(None));
        };
        let line = String::from_utf8_lossy(line).into_owned();
        let words: Vec<&str> = line.split(' ').collect();
        let balance = client.try_call(&["GET", words[2]])?.value;
        let other = client
            .try_call(&["LRANGE", &Books::ledger(words[2]), "-3000", "-1"])?
            .value;
        if let Some(text) = balance.error().or(other.error()) {
            return Ok(Err(text));
        }
        let start = format!("{} ", words[0]);
        let is_it = |line: &Value| {
            line.bytes()
                .is_some_and(|line| line.starts_with(start.as_bytes()))
        };
        Ok(Ok(Some(
            balance.integer().is_some() && other.elements().iter().any(is_it),
        )))
    }
}

impl Totals {
    fn note_transfer(&mut self, id: String, reply: &Value) {
        let outcome = match reply.error() {
            None => {
                let fine = matches!(
                    reply.elements(),
                    [
                        Value::Integer(_),
                        Value::Integer(1..),
                        Value::Integer(_),
                        Value::Integer(1..)
                    ]
                );
                assert!(fine, "P3: EXEC of {id} answered {reply}");
                Outcome::Committed
            }
            Some(text) => {
                self.note_error(&text);
                classify(&text)
            }
        };
        self.note_outcome(id, outcome);
    }

    fn note_lost(&mut self, id: String, kind: std::io::ErrorKind) {
        self.note_error(&format!("mover: {kind:?}"));
        self.note_outcome(id, Outcome::Unknown);
    }

    fn note_outcome(&mut self, id: String, outcome: Outcome) {
        match outcome {
            Outcome::Committed => self.moved += 1,
            Outcome::Aborted => self.aborted += 1,
            Outcome::Unknown => self.unknown += 1,
        }
        self.outcomes.insert(id, outcome);
    }

    fn note_followed(&mut self, found: Option<bool>) {
        self.followed += u64::from(found == Some(true));
        self.halves += u64::from(found == Some(false));
    }

    fn note_sum(&mut self, reply: &Value, wanted: i64, by_mget: bool) {
        if let Some(text) = reply.error() {
            self.note_error(&format!("reader: {text}"));
            return;
        }
        let sum: i64 = reply.elements().iter().filter_map(Value::integer).sum();
        if sum == wanted {
            self.sums += u64::from(!by_mget);
            self.mget_sums += u64::from(by_mget);
        } else {
            self.wrong_sums.push(sum);
        }
    }

    fn note_error(&mut self, text: &str) {
        let words = text.split_whitespace();
        let masked: Vec<&str> = words
            .map(|word| {
                if word.contains(|symbol: char| symbol.is_ascii_digit()) {
                    "…"
                } else {
                    word
                }
            })
            .collect();
        *self.errors.entry(masked.join(" ")).or_default() += 1;
    }

    fn add(&mut self, other: Totals) {
        self.moved += other.moved;
        self.aborted += other.aborted;
        self.unknown += other.unknown;
        self.sums += other.sums;
        self.mget_sums += other.mget_sums;
        self.followed += other.followed;
        self.halves += other.halves;
        self.wrong_sums.extend(other.wrong_sums);
        self.outcomes.extend(other.outcomes);
        for (text, count) in other.errors {
            *self.errors.entry(text).or_default() += count;
        }
    }

    /// One paragraph for people.
    pub fn print(&self, lasted: Duration) {
        let per_second = |count: u64| count as f64 / lasted.as_secs_f64();
        println!(
            "{:.1} s: {} transfers ({:.0}/s), {} aborted, {} unknown; {} right sums ({:.0}/s) and {} by MGET, {} wrong; {} followed",
            lasted.as_secs_f64(),
            self.moved,
            per_second(self.moved),
            self.aborted,
            self.unknown,
            self.sums,
            per_second(self.sums),
            self.mget_sums,
            self.wrong_sums.len(),
            self.followed
        );
        for (text, count) in &self.errors {
            println!("  {count} x {text}");
        }
    }
}

/// What an error of EXEC says about the transaction (P4).
fn classify(text: &str) -> Outcome {
    if text.starts_with("EXECABORT") {
        Outcome::Aborted
    } else if text.contains(" committed") && !text.contains("not committed") {
        Outcome::Committed
    } else {
        Outcome::Unknown
    }
}

//! Three shards; a proxy that is stopped, with a network of its own; one that survives; and one
//! that dies first, where it is about recovery.

use super::cases::{Case, Setting};
use crate::support::{
    Client, Proxy, Redis, Relay, Value, Way, consistency, encode, eventually, eventually_with,
    key_on, leftovers,
};
use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

const SHARDS: usize = 3;
const LOCK_TTL: Duration = Duration::from_millis(1_200);
/// P5, and some time for the machine to be slow.
const SETTLED_WITHIN: Duration = Duration::from_millis(1_200 + 5_000);
const REACHED_WITHIN: Duration = Duration::from_secs(15);
const ASK_AGAIN: Duration = Duration::from_secs(2);
const START: i64 = 100;
/// What is added to the balance on each shard.
const AMOUNTS: [i64; SHARDS] = [-10, 4, 6];
/// Run by no script of ours, so the branch takes a connection of its own.
const BY_SCRIPT: &str =
    "redis.call('INCRBY',KEYS[1],ARGV[1]) return redis.call('RPUSH',KEYS[2],ARGV[2])";

/// What is done to the process that stands still.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// kill -9.
    Kill,
    /// It goes on, long after its locks have died.
    Stall,
}

/// What the client was told (P4).
#[derive(Debug, PartialEq)]
enum Told {
    Committed,
    Aborted,
    /// Neither, or nothing; with the id, if one was named.
    Unknown(Option<String>),
}

/// Servers for one case after the other.
pub struct Stage {
    // Dropped first.
    origin: Proxy,
    victim: Proxy,
    survivor: Proxy,
    relays: Vec<Relay>,
    shards: Vec<Redis>,
    turn: usize,
    /// Ids of what was there before the case: decisions are kept for a while.
    before: BTreeSet<String>,
}

/// The keys of one case: a balance and a log for each shard.
struct Accounts {
    tags: Vec<String>,
    /// What is written into the logs.
    id: String,
}

impl Accounts {
    fn balance(&self, shard: usize) -> String {
        format!("{{{}}}", self.tags[shard])
    }

    fn log(&self, shard: usize) -> String {
        format!("{{{}}}:log", self.tags[shard])
    }
}

/// Changes nothing, on all shards.
fn touch(accounts: &Accounts) -> Vec<Vec<String>> {
    let touch = |shard| vec!["TOUCH".to_owned(), accounts.balance(shard)];
    (0..SHARDS).map(touch).collect()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

impl Stage {
    /// Starts everything.
    pub fn start() -> Stage {
        let shards: Vec<Redis> = (0..SHARDS).map(|_| Redis::start(&[])).collect();
        let relays: Vec<Relay> = shards
            .iter()
            .map(|shard| Relay::start(shard.port()))
            .collect();
        let direct: Vec<String> = shards.iter().map(Redis::address).collect();
        let relayed: Vec<String> = relays.iter().map(Relay::address).collect();
        let proxy = |addresses: &[String], scan: &str| {
            let settings = [
                ("lock-ttl-ms", LOCK_TTL.as_millis().to_string()),
                ("decision-retention-ms", "30000".to_owned()),
                ("lock-wait-ms", "4000".to_owned()),
                ("request-timeout-ms", "800".to_owned()),
                ("recovery-scan-interval-ms", scan.to_owned()),
            ];
            let proxy = Proxy::start(
                addresses,
                &settings.map(|(name, value)| (name.to_owned(), value)),
            );
            for pattern in ["recover", "shard", "settled", "late", "EXEC of a prepared"] {
                proxy.expect_log(pattern);
            }
            proxy
        };
        Stage {
            origin: proxy(&direct, "3600000"),
            victim: proxy(&relayed, "3600000"),
            survivor: proxy(&direct, "300"),
            relays,
            shards,
            turn: 0,
            before: BTreeSet::new(),
        }
    }

    /// One case, from start to end.
    pub fn run(&mut self, case: &Case, ending: Ending) {
        let begin = Instant::now();
        self.turn += 1;
        self.before = self.all_records();
        let accounts = self.open_accounts(case.setting);
        let named = format!("{} in {:?} by {ending:?}", case.failpoint, case.setting);
        let recovers = case.setting.recovers();
        let mut ids = BTreeSet::new();
        let mut trigger = Vec::new();
        let mut client = if recovers {
            ids = self.leave_behind(case.setting, &accounts);
            // Only the one that is stopped may find it, until then.
            self.victim.arm(case.failpoint);
            let mut client = self.victim.client();
            trigger = self.trigger(case.setting, &accounts, &ids);
            client.send(&trigger).expect("sent");
            client
        } else {
            self.set_up(case.setting);
            self.victim.arm(case.failpoint);
            let mut client = self.victim.client();
            client
                .send(&self.transaction(case.setting, &accounts))
                .expect("sent");
            client
        };
        self.wait_until_there(case, &trigger, &named);
        if !recovers {
            ids.extend(self.records());
        }
        let told = self.end(case, ending, &mut client);
        self.finish(case, ending, &accounts, recovers);
        if !recovers {
            ids.extend(self.records());
        }
        let lived = ending == Ending::Stall;
        let is_applied = self.check_accounts(case.setting, &accounts, &named);
        check_told(&told, is_applied, &named);
        self.check_status(&told, (&ids, lived), is_applied, &named);
        self.check_plain_reads(case.setting, &accounts, is_applied, &named);
        assert_eq!(consistency(&self.shards), 1.0, "P: {named}");
        println!(
            "{named}: {}, told {told:?}, {:.1} s",
            if is_applied { "applied" } else { "not applied" },
            begin.elapsed().as_secs_f64()
        );
    }

    fn wait_until_there(&self, case: &Case, trigger: &[u8], named: &str) {
        let mut asked_at = Instant::now();
        let mut again = self.victim.client();
        eventually(&format!("{named}: it comes there"), REACHED_WITHIN, || {
            // A shard may have been too slow to tell.
            if !trigger.is_empty() && asked_at.elapsed() > ASK_AGAIN {
                asked_at = Instant::now();
                again.send(trigger).expect("sent");
            }
            self.victim.is_at(case.failpoint)
        });
    }

    fn parts(setting: Setting) -> usize {
        match setting {
            Setting::Single | Setting::Guarded | Setting::WatchSlot => 1,
            _ => SHARDS,
        }
    }

    fn open_accounts(&self, setting: Setting) -> Accounts {
        let name = format!("case{}-", self.turn);
        let tags: Vec<String> = (0..SHARDS)
            .map(|shard| key_on(&name, shard, SHARDS))
            .collect();
        let accounts = Accounts {
            tags,
            id: format!("t{}", self.turn),
        };
        for shard in 0..Stage::parts(setting) {
            let start = START.to_string();
            let mut client = self.shards[shard].client();
            client.call(&["SET", &accounts.balance(shard), &start]);
        }
        accounts
    }

    /// The bytes of MULTI … EXEC.
    fn transaction(&self, setting: Setting, accounts: &Accounts) -> Vec<u8> {
        let mut watch = vec!["WATCH".to_owned()];
        watch.extend((0..setting.watched()).map(|shard| accounts.balance(shard)));
        let mut bytes = match setting.watched() {
            0 => Vec::new(),
            _ => encode(&watch),
        };
        bytes.extend(encode(&["MULTI"]));
        for (shard, amount) in AMOUNTS.iter().enumerate().take(Stage::parts(setting)) {
            let (balance, log) = (accounts.balance(shard), accounts.log(shard));
            let amount = amount.to_string();
            // What must get lost goes over the one connection that loses it.
            let by_script = shard == SHARDS - 1 && setting != Setting::LostPrepare;
            let commands = if by_script {
                vec![words(&[
                    "EVAL",
                    BY_SCRIPT,
                    "2",
                    &balance,
                    &log,
                    &amount,
                    &accounts.id,
                ])]
            } else {
                vec![
                    words(&["INCRBY", &balance, &amount]),
                    words(&["RPUSH", &log, &accounts.id]),
                ]
            };
            commands
                .iter()
                .for_each(|command| bytes.extend(encode(command)));
        }
        if setting == Setting::Guarded {
            let other = key_on("other", 0, SHARDS);
            bytes.extend(encode(&["SET", &other, "in another slot"]));
        }
        bytes.extend(encode(&["EXEC"]));
        bytes
    }

    fn set_up(&self, setting: Setting) {
        match setting {
            Setting::Refused => {
                self.memory_limit("1");
            }
            Setting::LostPrepare => {
                self.relays[1..]
                    .iter()
                    .for_each(|relay| relay.half_open(Way::There));
            }
            _ => {}
        }
    }

    fn memory_limit(&self, bytes: &str) {
        let mut client = self.shards[2].client();
        client.call(&["CONFIG", "SET", "maxmemory", bytes]);
    }

    /// Lets a coordinator die half way, and waits until it is given up; ids of what it left.
    fn leave_behind(&mut self, setting: Setting, accounts: &Accounts) -> BTreeSet<String> {
        let failpoint = match setting {
            Setting::RecoverForward => "coordinator-after-votes",
            Setting::RecoverDecided => "coordinator-after-decision",
            Setting::RecoverUndecided => "coordinator-before-decision",
            _ => "coordinator-after-first-vote",
        };
        // Until the one that is stopped has it, nobody else may come across it.
        self.survivor.pause();
        self.origin.arm(failpoint);
        let mut client = self.origin.client();
        client
            .send(&self.transaction(setting, accounts))
            .expect("sent");
        eventually("the first coordinator stops", REACHED_WITHIN, || {
            self.origin.is_at(failpoint)
        });
        let ids = self.records();
        self.origin.kill();
        self.origin.disarm(failpoint);
        self.origin.restart();
        eventually("it is given up", LOCK_TTL * 4, || self.are_overdue());
        ids
    }

    /// What makes a proxy recover what was left: the question what became of it, or, where that
    /// can be told without recovery, a transaction on its keys.
    fn trigger(&self, setting: Setting, accounts: &Accounts, ids: &BTreeSet<String>) -> Vec<u8> {
        if setting != Setting::RecoverDecided {
            let id = ids.first().expect("a record was left");
            return encode(&["LOCKSTEP", "TXN", "STATUS", id]);
        }
        let queue = touch(accounts).into_iter().flat_map(|words| encode(&words));
        let mut bytes = encode(&["MULTI"]);
        bytes.extend(queue);
        bytes.extend(encode(&["EXEC"]));
        bytes
    }

    /// Whether no lock is left alive.
    fn are_overdue(&self) -> bool {
        self.shards.iter().all(|shard| {
            let mut client = shard.client();
            client
                .value(&["KEYS", "__lockstep:lock:*"])
                .elements()
                .is_empty()
        })
    }

    /// Ids of the records of this case.
    fn records(&self) -> BTreeSet<String> {
        &self.all_records() - &self.before
    }

    fn all_records(&self) -> BTreeSet<String> {
        let mut ids = BTreeSet::new();
        for shard in &self.shards {
            let keys = shard.client().value(&["KEYS", "__lockstep:txn:*"]);
            let names = keys.elements().iter().filter_map(Value::bytes);
            ids.extend(
                names.map(|name| String::from_utf8_lossy(name).replacen("__lockstep:txn:", "", 1)),
            );
        }
        ids
    }

    /// Kills it, or lets it go on when others have had their time.
    fn end(&mut self, case: &Case, ending: Ending, client: &mut Client) -> Told {
        if case.setting == Setting::Refused {
            self.memory_limit("0");
        }
        self.survivor.resume();
        if ending == Ending::Kill {
            self.victim.kill();
        } else {
            sleep(LOCK_TTL + Duration::from_millis(500));
        }
        self.victim.disarm(case.failpoint);
        let answers = match case.setting {
            setting if setting.recovers() => return Told::Unknown(None),
            Setting::WatchSlot => 3 + 2,
            Setting::Watch | Setting::WatchAll => 3 + 2 * SHARDS - 1,
            Setting::Single => 2 + 2,
            Setting::Guarded => 2 + 3,
            Setting::LostPrepare => 2 + 2 * SHARDS,
            _ => 2 + 2 * SHARDS - 1,
        };
        let last = (0..answers).map(|_| client.read()).last();
        match last.expect("some") {
            Ok(reply) => what_was_told(&reply.value),
            Err(_) => Told::Unknown(None),
        }
    }

    /// All is settled in time; the one that was killed is back.
    fn finish(&mut self, case: &Case, ending: Ending, accounts: &Accounts, recovers: bool) {
        if recovers {
            // Who meets the keys settles them, if the scan has not yet.
            let reply = self.survivor.client().try_transaction(&touch(accounts));
            let reply = reply.expect("a reply");
            assert!(reply.error().is_none(), "{}: {reply}", case.failpoint);
        }
        eventually_with("nothing is left (P5)", SETTLED_WITHIN, || {
            let found = leftovers(&self.shards);
            if found.is_settled() {
                Ok(())
            } else {
                Err(format!("{} by {ending:?}: {found:?}", case.failpoint))
            }
        });
        if ending == Ending::Kill {
            self.victim.restart();
        }
    }

    /// P1: whether it was applied; panics if it was in part, or twice.
    fn check_accounts(&self, setting: Setting, accounts: &Accounts, named: &str) -> bool {
        let state = |shard: usize| {
            let mut client = self.shards[shard].client();
            let log = client.value(&["LRANGE", &accounts.log(shard), "0", "-1"]);
            let balance = client.value(&["GET", &accounts.balance(shard)]);
            (
                balance.integer().expect("a balance"),
                log.elements().to_vec(),
            )
        };
        let line = Value::Bulk(accounts.id.clone().into_bytes());
        let states: Vec<_> = (0..Stage::parts(setting)).map(state).collect();
        let whole = states
            .iter()
            .zip(AMOUNTS)
            .all(|((balance, log), amount)| *balance == START + amount && *log == [line.clone()]);
        let nothing = states
            .iter()
            .all(|(balance, log)| *balance == START && log.is_empty());
        assert!(whole || nothing, "P1: {named}: {states:?}");
        whole
    }

    /// P4: what the records say, at both proxies.
    fn check_status(
        &self,
        told: &Told,
        (ids, lived): (&BTreeSet<String>, bool),
        is_applied: bool,
        named: &str,
    ) {
        let mut committed = 0;
        for id in ids {
            // Each tells the truth. Not always the same: one that goes on late may forget what
            // another has kept, if nobody was given the id.
            let status = status([&self.survivor, &self.victim][self.turn % 2], id);
            let right = match &status[..] {
                "committed" => is_applied,
                // Another attempt may have gone through, if its coordinator lived to make one.
                "aborted" => !is_applied || lived,
                // Nobody was given the id.
                "unknown" => true,
                _ => false,
            };
            assert!(
                right,
                "P4: {named}: {id} is {status}, applied: {is_applied}"
            );
            committed += usize::from(status == "committed");
        }
        assert!(
            committed <= 1,
            "P1: {named}: {committed} attempts are committed"
        );
        if let Told::Unknown(Some(id)) = told {
            let status = status(&self.survivor, id);
            let right = if is_applied {
                status == "committed"
            } else {
                ["aborted", "unknown"].contains(&&status[..])
            };
            assert!(
                right,
                "P4: {named}: {id} is {status}, applied: {is_applied}"
            );
        }
    }

    fn check_plain_reads(&self, setting: Setting, accounts: &Accounts, applied: bool, named: &str) {
        let parts = Stage::parts(setting);
        let wanted = |shard: usize| START + if applied { AMOUNTS[shard] } else { 0 };
        for proxy in [&self.survivor, &self.victim] {
            let mut client = proxy.client();
            let mut all = words(&["MGET"]);
            for shard in 0..parts {
                let read = answer(&mut client, &words(&["GET", &accounts.balance(shard)]));
                assert_eq!(read.integer(), Some(wanted(shard)), "{named}");
                all.push(accounts.balance(shard));
            }
            let read = answer(&mut client, &all);
            let read: Vec<_> = read.elements().iter().map(Value::integer).collect();
            let wanted: Vec<_> = (0..parts).map(|shard| Some(wanted(shard))).collect();
            assert_eq!(read, wanted, "{named}");
        }
    }
}

fn status(proxy: &Proxy, id: &str) -> String {
    let reply = proxy.client().value(&["LOCKSTEP", "TXN", "STATUS", id]);
    match reply.error() {
        Some(error) => error,
        None => String::from_utf8_lossy(reply.bytes().unwrap_or_default()).into_owned(),
    }
}

/// The reply, once the proxy is connected to its shards again.
fn answer(client: &mut Client, command: &[String]) -> Value {
    eventually_with("an answer", REACHED_WITHIN, || {
        let reply = client.value(command);
        match reply.error() {
            None => Ok(reply),
            Some(error) => Err(error),
        }
    })
}

fn what_was_told(reply: &Value) -> Told {
    if *reply == Value::Nil {
        return Told::Aborted;
    }
    let Some(text) = reply.error() else {
        assert!(
            matches!(reply, Value::Array(_)),
            "P3: EXEC answered {reply}"
        );
        return Told::Committed;
    };
    if text.starts_with("EXECABORT") {
        Told::Aborted
    } else if text.contains(" is committed") {
        Told::Committed
    } else {
        let id = text.split_once("TXN STATUS ").map(|(_, id)| {
            let end = id.find(|symbol: char| !symbol.is_ascii_alphanumeric() && symbol != '-');
            id[..end.unwrap_or(id.len())].to_owned()
        });
        Told::Unknown(id)
    }
}

/// I8: replies imply committed, EXECABORT implies nothing applied.
fn check_told(told: &Told, is_applied: bool, named: &str) {
    let right = match told {
        Told::Committed => is_applied,
        Told::Aborted => !is_applied,
        Told::Unknown(_) => true,
    };
    assert!(right, "P4: {named}: told {told:?}, applied: {is_applied}");
}

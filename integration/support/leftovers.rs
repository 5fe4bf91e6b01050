//! What the proxy keeps on the shards, and what of it must be gone when nothing runs.

use super::client::Client;
use super::redis::Redis;
use super::value::{Value, escape};

/// The reserved prefix.
pub const PREFIX: &str = "__lockstep:";
/// Housekeeping that stays for good.
const PERMANENT: [&str; 3] = ["__lockstep:epoch", "__lockstep:kept", "__lockstep:map"];
const PAGE: &str = "1000";

/// Whether a key is the proxy's own.
pub fn ours(key: &[u8]) -> bool {
    key.starts_with(PREFIX.as_bytes())
}

/// All keys of the server's current database.
pub fn all_keys(client: &mut Client) -> Vec<Vec<u8>> {
    let mut cursor = b"0".to_vec();
    let mut keys = Vec::new();
    loop {
        let page = client.value(&[b"SCAN".as_slice(), &cursor, b"COUNT", PAGE.as_bytes()]);
        let [next, found] = page.elements() else {
            panic!("SCAN answered {page}");
        };
        keys.extend(
            found
                .elements()
                .iter()
                .filter_map(Value::bytes)
                .map(<[u8]>::to_vec),
        );
        cursor = next.bytes().expect("a cursor").to_vec();
        if cursor == b"0" {
            keys.sort();
            keys.dedup();
            return keys;
        }
    }
}

/// What transactions have left on the shards.
#[derive(Debug, Default, PartialEq)]
pub struct Leftovers {
    /// Locks, index and settling entries, and records not yet decided: a line for each.
    pub in_doubt: Vec<String>,
    /// Decided records that are kept for a while.
    pub markers: Vec<String>,
    /// Keys under our prefix that this check does not know.
    pub unknown: Vec<String>,
}

impl Leftovers {
    /// Nothing at all but the permanent keys.
    pub fn is_clean(&self) -> bool {
        *self == Leftovers::default()
    }

    /// Nothing locked, settling or undecided.
    pub fn is_settled(&self) -> bool {
        self.in_doubt.is_empty()
    }
}

/// Looks at every shard directly.
pub fn leftovers(shards: &[Redis]) -> Leftovers {
    let mut found = Leftovers::default();
    for (number, shard) in shards.iter().enumerate() {
        let mut client = shard.client();
        let mine = all_keys(&mut client).into_iter().filter(|key| ours(key));
        for key in mine {
            let name = String::from_utf8_lossy(&key).into_owned();
            if !PERMANENT.contains(&name.as_str()) {
                sort_in(&mut found, &mut client, number, &name);
            }
        }
    }
    found
}

fn sort_in(found: &mut Leftovers, client: &mut Client, shard: usize, name: &str) {
    let rest = &name[PREFIX.len()..];
    let line = |detail: Value| format!("shard {shard}: {name} {detail}");
    if rest.starts_with("txn:") {
        let state = client.value(&["HGET", name, "state"]);
        let undecided = state == Value::Bulk(b"prepared".to_vec());
        let ttl = client.value(&["PTTL", name]).integer().unwrap_or(-1);
        match (undecided, state == Value::Nil, ttl) {
            // It went away between the scan and this look.
            (_, true, -2) => {}
            // Decided, and about to be released: the marker's time to live is set then.
            (true, ..) | (false, _, -1) => found.in_doubt.push(line(state)),
            _ => found.markers.push(line(state)),
        }
    } else if rest.starts_with("lock:") {
        let owner = client.value(&["GET", name]);
        if owner != Value::Nil {
            found.in_doubt.push(line(owner));
        }
    } else if rest == "index" || rest == "settling" {
        let entries = client.value(&["HGETALL", name]);
        if !entries.elements().is_empty() {
            found.in_doubt.push(line(entries));
        }
    } else {
        let kind = client.value(&["TYPE", name]);
        found
            .unknown
            .push(format!("shard {shard}: {} {kind}", escape(name.as_bytes())));
    }
}

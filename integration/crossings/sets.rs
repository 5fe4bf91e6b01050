//! Members of sets that are each in one set.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Scope;

use rand::RngExt;

use crate::support::{Client, spread};
use crate::{Scene, fine, pick};

const MEMBERS: usize = 30;

/// Three sets on three shards.
pub struct Sets {
    keys: Vec<String>,
    moved: AtomicU64,
    looks: AtomicU64,
}

impl Sets {
    /// All members in the first.
    pub fn fill(client: &mut Client) -> Self {
        let keys = spread("set", 3, 3);
        for member in 0..MEMBERS {
            client.call(&["SADD", &keys[0], &member.to_string()]);
        }
        Self {
            keys,
            moved: AtomicU64::new(0),
            looks: AtomicU64::new(0),
        }
    }

    /// SMOVE through either proxy.
    pub fn start<'s>(&'s self, scene: &'s Scene, scope: &'s Scope<'s, '_>) {
        for number in 200..204 {
            scene.keep_doing(
                scope,
                (number, (number % 2) as usize),
                move |client, rng| {
                    let (from, to) = (pick(rng, &self.keys), pick(rng, &self.keys));
                    let member = rng.random_range(0..MEMBERS).to_string();
                    let reply = client.try_call(&["SMOVE", from, to, &member])?.value;
                    fine(&reply, "SMOVE");
                    let moved = reply.integer().unwrap_or(0) as u64;
                    self.moved.fetch_add(moved, Ordering::Relaxed);
                    Ok(())
                },
            );
        }
    }

    /// Whoever looks at all sets at once finds all members, and none twice.
    pub fn look<'s>(&'s self, scene: &'s Scene, scope: &'s Scope<'s, '_>) {
        for number in 300..302 {
            scene.keep_doing(
                scope,
                (number, (number % 2) as usize),
                move |client, rng| {
                    let [a, b, c] = [&self.keys[0], &self.keys[1], &self.keys[2]];
                    let store = spread("union", 3, 3);
                    let (line, wanted) = match rng.random_range(0..4) {
                        0 => (format!("SINTERCARD 2 {a} {c}"), 0),
                        1 => (
                            format!("SUNIONSTORE {} {a} {b} {c}", pick(rng, &store)),
                            MEMBERS,
                        ),
                        _ => (format!("SUNION {a} {b} {c}"), MEMBERS),
                    };
                    let words: Vec<&str> = line.split(' ').collect();
                    let reply = client.try_call(&words)?.value;
                    fine(&reply, &line);
                    if reply.error().is_none() {
                        let found = reply
                            .integer()
                            .unwrap_or_else(|| reply.elements().len() as i64);
                        assert_eq!(found, wanted as i64, "{line}");
                        self.looks.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                },
            );
        }
    }

    /// Each member is in one set.
    pub fn check(&self, client: &mut Client) {
        let mut found = Vec::new();
        for key in &self.keys {
            let set = client.value(&["SMEMBERS", key]);
            let members = set.elements().iter().filter_map(|member| member.bytes());
            found.extend(members.map(<[u8]>::to_vec));
        }
        assert_eq!(found.len(), MEMBERS, "a member is lost, or there twice");
        let found: BTreeSet<_> = found.into_iter().collect();
        assert_eq!(found.len(), MEMBERS, "a member is in two sets");
        let moved = self.moved.load(Ordering::Relaxed);
        let looks = self.looks.load(Ordering::Relaxed);
        println!("{moved} members moved, {looks} looks at all");
    }

    /// Whether enough was done to show something.
    pub fn has_enough(&self) -> bool {
        self.moved.load(Ordering::Relaxed) > 50 && self.looks.load(Ordering::Relaxed) > 10
    }
}

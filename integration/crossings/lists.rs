//! Elements that are each pushed once, move from list to list, and are popped at most once.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Scope;

use rand::RngExt;

use crate::support::{Client, spread};
use crate::{Scene, fine, pick};

const AT_FIRST: usize = 60;
/// Through either proxy.
const MOVERS: u64 = 5;

/// Three lists on three shards.
pub struct Lists {
    keys: Vec<String>,
    pushed: Mutex<BTreeSet<String>>,
    popped: Mutex<Vec<String>>,
    moved: AtomicU64,
}

impl Lists {
    /// With some elements each.
    pub fn fill(client: &mut Client) -> Self {
        let keys = spread("list", 3, 3);
        let mut pushed = BTreeSet::new();
        for (key, at) in keys.iter().cycle().zip(0..AT_FIRST) {
            client.call(&["RPUSH", key, &format!("e{at}")]);
            pushed.insert(format!("e{at}"));
        }
        Self {
            keys,
            pushed: Mutex::new(pushed),
            popped: Mutex::default(),
            moved: AtomicU64::new(0),
        }
    }

    /// Who moves does so through either proxy; who pushes and pops must know what has become of it,
    /// and goes through the one that is not killed.
    pub fn start<'s>(&'s self, scene: &'s Scene, scope: &'s Scope<'s, '_>) {
        for number in 0..2 * MOVERS {
            scene.keep_doing(
                scope,
                (number, (number % 2) as usize),
                move |client, rng| {
                    let (from, to) = (pick(rng, &self.keys), pick(rng, &self.keys));
                    let ends = ["LEFT", "RIGHT"];
                    let (pop, push) = (ends[rng.random_range(0..2)], ends[rng.random_range(0..2)]);
                    let line = match rng.random_range(0..4) {
                        0 => format!("RPOPLPUSH {from} {to}"),
                        1 => format!("BLMOVE {from} {to} {pop} {push} 0.05"),
                        _ => format!("LMOVE {from} {to} {pop} {push}"),
                    };
                    let words: Vec<&str> = line.split(' ').collect();
                    let reply = client.try_call(&words)?.value;
                    fine(&reply, &line);
                    let moved = u64::from(reply.bytes().is_some());
                    self.moved.fetch_add(moved, Ordering::Relaxed);
                    Ok(())
                },
            );
        }
        for number in 100..102 {
            let mut count = 0;
            scene.keep_doing(scope, (number, 1), move |client, rng| {
                let key = pick(rng, &self.keys);
                if rng.random_range(0..5) < 2 {
                    count += 1;
                    let element = format!("n{number}-{count}");
                    let verb = ["LPUSH", "RPUSH"][rng.random_range(0..2)];
                    let reply = client.try_call(&[verb, key, &element])?.value;
                    assert!(reply.integer().is_some(), "{reply}");
                    self.pushed.lock().unwrap().insert(element);
                } else {
                    let verb = ["LPOP", "RPOP"][rng.random_range(0..2)];
                    let reply = client.try_call(&[verb, key])?.value;
                    assert!(reply.error().is_none(), "{reply}");
                    let element = reply.bytes().map(String::from_utf8_lossy);
                    let element = element.map(|element| element.into_owned());
                    self.popped.lock().unwrap().extend(element);
                }
                Ok(())
            });
        }
    }

    /// What was pushed is in a list or was popped, once.
    pub fn check(&self, client: &mut Client) {
        let mut found = self.popped.lock().unwrap().clone();
        for key in &self.keys {
            let list = client.value(&["LRANGE", key, "0", "-1"]);
            let elements = list.elements().iter().filter_map(|element| element.bytes());
            found.extend(elements.map(|element| String::from_utf8_lossy(element).into_owned()));
        }
        let count = found.len();
        let found: BTreeSet<String> = found.into_iter().collect();
        assert_eq!(found.len(), count, "an element is there twice");
        let pushed = self.pushed.lock().unwrap();
        assert_eq!(found, *pushed, "an element is lost");
        let moved = self.moved.load(Ordering::Relaxed);
        println!("{} elements, {moved} moves", pushed.len());
    }

    /// Whether enough was done to show something.
    pub fn has_enough(&self) -> bool {
        self.moved.load(Ordering::Relaxed) > 100
    }
}

//! MSETNX as a lock: whoever has it is alone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Scope;

use crate::support::spread;
use crate::{Scene, fine, pick};

/// A lock of three keys, of which everybody takes two.
pub struct Locks {
    keys: Vec<String>,
    inside: AtomicU64,
    taken: AtomicU64,
}

impl Locks {
    /// Free.
    pub fn new() -> Self {
        Self {
            keys: spread("lock", 3, 3),
            inside: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        }
    }

    /// Everybody through the proxy that is not killed, to know what they have.
    pub fn start<'s>(&'s self, scene: &'s Scene, scope: &'s Scope<'s, '_>) {
        for number in 500..503_u64 {
            let id = number.to_string();
            scene.keep_doing(scope, (number, 1), move |client, rng| {
                let first = pick(rng, &self.keys);
                let others: Vec<&String> = self.keys.iter().filter(|key| *key != first).collect();
                let second = others[(number % 2) as usize];
                let reply = client.try_call(&["MSETNX", first, &id, second, &id])?.value;
                fine(&reply, "MSETNX");
                if reply.integer() == Some(1) {
                    // Any two of three have one in common.
                    assert_eq!(self.inside.fetch_add(1, Ordering::SeqCst), 0, "not alone");
                    let values = client.try_call(&["MGET", first, second])?.value;
                    let mine = values.elements().iter();
                    assert!(
                        mine.clone()
                            .all(|value| value.bytes() == Some(id.as_bytes()))
                    );
                    self.taken.fetch_add(1, Ordering::Relaxed);
                    self.inside.fetch_sub(1, Ordering::SeqCst);
                    client.try_call(&["DEL", first, second])?;
                }
                Ok(())
            });
        }
    }

    /// It was taken.
    pub fn check(&self) {
        let taken = self.taken.load(Ordering::Relaxed);
        println!("{taken} times locked");
    }

    /// Whether enough was done to show something.
    pub fn has_enough(&self) -> bool {
        self.taken.load(Ordering::Relaxed) > 20
    }
}

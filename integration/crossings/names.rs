//! A list that is renamed again and again while others push to it under whatever name it has.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Scope;

use rand::RngExt;

use crate::support::{Client, spread};
use crate::{Scene, fine, pick};

/// Three names on three shards, one of which is in use.
pub struct Names {
    names: Vec<String>,
    pushed: Mutex<BTreeSet<String>>,
    renamed: AtomicU64,
}

impl Names {
    /// With one element.
    pub fn fill(client: &mut Client) -> Self {
        let names = spread("name", 3, 3);
        client.call(&["RPUSH", &names[0], "first"]);
        Self {
            names,
            pushed: Mutex::new(BTreeSet::from(["first".to_owned()])),
            renamed: AtomicU64::new(0),
        }
    }

    /// Renaming through either proxy; pushing, which must be told what it has done, through the
    /// one that is not killed.
    pub fn start<'s>(&'s self, scene: &'s Scene, scope: &'s Scope<'s, '_>) {
        for number in 400..402 {
            scene.keep_doing(
                scope,
                (number, (number % 2) as usize),
                move |client, rng| {
                    let (from, to) = (pick(rng, &self.names), pick(rng, &self.names));
                    let verb = ["RENAME", "RENAMENX"][rng.random_range(0..2)];
                    let reply = client.try_call(&[verb, from, to])?.value;
                    if reply
                        .error()
                        .is_some_and(|error| error == "ERR no such key")
                    {
                        return Ok(());
                    }
                    fine(&reply, verb);
                    let renamed = u64::from(from != to && reply.error().is_none());
                    self.renamed.fetch_add(renamed, Ordering::Relaxed);
                    Ok(())
                },
            );
        }
        let mut count = 0;
        scene.keep_doing(scope, (410, 1), move |client, rng| {
            count += 1;
            let element = format!("p{count}");
            let reply = client.try_call(&["RPUSHX", pick(rng, &self.names), &element])?;
            let length = reply.value.integer().expect("a length");
            if length > 0 {
                self.pushed.lock().unwrap().insert(element);
            }
            // Not so fast that nothing else ever finds the list as it was.
            std::thread::sleep(std::time::Duration::from_millis(1));
            Ok(())
        });
    }

    /// The list is there once, with everything.
    pub fn check(&self, client: &mut Client) {
        let mut found = Vec::new();
        for name in &self.names {
            let list = client.value(&["LRANGE", name, "0", "-1"]);
            let elements = list.elements().iter().filter_map(|element| element.bytes());
            found.extend(elements.map(|element| String::from_utf8_lossy(element).into_owned()));
        }
        let pushed = self.pushed.lock().unwrap();
        assert_eq!(
            found.len(),
            pushed.len(),
            "an element is lost, or there twice"
        );
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), *pushed);
        let renamed = self.renamed.load(Ordering::Relaxed);
        println!("{renamed} times renamed, {} elements", pushed.len());
    }

    /// Whether enough was done to show something.
    pub fn has_enough(&self) -> bool {
        self.renamed.load(Ordering::Relaxed) > 20
    }
}

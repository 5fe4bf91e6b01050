//! The data behind the replies: the same in one redis-server as on all shards together, and
//! each key only on the shard that its slot says.

use crate::support::leftovers::{all_keys, databases};
use crate::support::{Client, Cluster, Redis, Value, escape, ours, shard_of};

const NOTHING: &str = "0000000000000000000000000000000000000000";

/// Direct connections to the plain server and to every shard.
#[derive(Debug)]
pub struct States {
    oracle: Client,
    shards: Vec<Client>,
}

impl States {
    /// Connects to all.
    pub fn connect(oracle: &Redis, cluster: &Cluster) -> States {
        States {
            oracle: oracle.client(),
            shards: cluster.shards().iter().map(Redis::client).collect(),
        }
    }

    /// Compares all keys of all databases; tells the first difference.
    pub fn compare_all(&mut self) -> Option<String> {
        let mut all: Vec<String> = Vec::new();
        for server in self.shards.iter_mut().chain([&mut self.oracle]) {
            all.extend(databases(server));
        }
        all.sort();
        all.dedup();
        let difference = all.iter().find_map(|db| {
            self.select(db);
            self.compare_database(db)
        });
        self.select("0");
        difference
    }

    fn select(&mut self, db: &str) {
        for server in self.shards.iter_mut().chain([&mut self.oracle]) {
            server.call(&["SELECT", db]);
        }
    }

    fn compare_database(&mut self, db: &str) -> Option<String> {
        let mut keys = all_keys(&mut self.oracle);
        for shard in &mut self.shards {
            keys.extend(all_keys(shard).into_iter().filter(|key| !ours(key)));
        }
        keys.sort();
        keys.dedup();
        let difference = self.compare_here(&keys)?;
        Some(format!("database {db}: {difference}"))
    }

    /// Compares these keys in these databases; tells the first difference.
    pub fn compare(&mut self, keys: &[Vec<u8>], databases: &[&str]) -> Option<String> {
        for db in databases {
            self.select(db);
            if let Some(difference) = self.compare_here(keys) {
                self.select("0");
                return Some(format!("database {db}: {difference}"));
            }
        }
        self.select("0");
        None
    }

    fn compare_here(&mut self, keys: &[Vec<u8>]) -> Option<String> {
        if keys.is_empty() {
            return None;
        }
        let wanted = digests(&mut self.oracle, keys);
        let count = self.shards.len();
        for (number, shard) in self.shards.iter_mut().enumerate() {
            let found = digests(shard, keys);
            for ((key, wanted), found) in keys.iter().zip(&wanted).zip(&found) {
                let home = shard_of(key, count);
                let wanted = if home == number { wanted } else { NOTHING };
                if found != wanted {
                    let held = if found == NOTHING {
                        "nothing"
                    } else {
                        "other data"
                    };
                    let key = escape(key);
                    return Some(format!(
                        "key {key} of shard {home}: shard {number} has {held}"
                    ));
                }
            }
        }
        None
    }

    /// Removes the keys everywhere.
    pub fn clear(&mut self, keys: &[Vec<u8>]) {
        let mut command: Vec<&[u8]> = vec![b"DEL"];
        command.extend(keys.iter().map(Vec::as_slice));
        for db in ["2", "1", "0"] {
            self.select(db);
            for client in self.shards.iter_mut().chain([&mut self.oracle]) {
                client.call(&command);
            }
        }
    }
}

/// Redis's own digest of each key's value, the same whatever the order of a hash table.
fn digests(client: &mut Client, keys: &[Vec<u8>]) -> Vec<String> {
    let mut command: Vec<&[u8]> = vec![b"DEBUG", b"DIGEST-VALUE"];
    command.extend(keys.iter().map(Vec::as_slice));
    let reply = client.value(&command);
    let text =
        |value: &Value| String::from_utf8_lossy(value.bytes().unwrap_or_default()).into_owned();
    reply.elements().iter().map(text).collect()
}

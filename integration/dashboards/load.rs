//! Clients of every kind, so that every figure has something to show.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use super::support::{Client, Cluster, keys_on};

/// Runs until dropped.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Some clients at each proxy; errors are expected, since shards come and go.
    pub fn start(cluster: &Cluster) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let ports: Vec<u16> = (0..cluster.proxies().len())
            .map(|n| cluster.port(n))
            .collect();
        let shards = cluster.shards().len();
        let keys: Vec<String> = (0..shards)
            .map(|shard| keys_on("load:", shard, shards, 1).remove(0))
            .collect();
        let mut clients = Vec::new();
        for number in 0..8 {
            let (stop, keys) = (Arc::clone(&stop), keys.clone());
            let port = ports[number % ports.len()];
            clients.push(spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let _ = work(port, number, &keys, &stop);
                }
            }));
        }
        for port in ports {
            let stop = Arc::clone(&stop);
            clients.push(spawn(move || crowd(port, &stop)));
        }
        Load { stop, clients }
    }

    /// Lets it run on. What is measured is a rate over time, so time must pass.
    pub fn run_for(&self, time: Duration) {
        sleep(time);
    }
}

fn work(port: u16, number: usize, keys: &[String], stop: &AtomicBool) -> Result<(), String> {
    let mut client = Client::connect(port).map_err(|error| error.to_string())?;
    client.reply_limit(Duration::from_secs(8));
    let mut call = |words: &[&str]| client.try_call(words).map_err(|error| error.to_string());
    let hash = format!("load:{{{number}}}");
    while !stop.load(Ordering::Relaxed) {
        call(&["SET", &hash, "1"])?;
        call(&["GET", &keys[0]])?;
        call(&["MGET", &keys[0], &keys[1], &keys[2]])?;
        call(&["MSET", &keys[0], "a", &keys[1], "b"])?;
        call(&["NOSUCH"])?;
        for command in [
            &["MULTI"][..],
            &["INCR", &hash],
            &["EXEC"],
            &["MULTI"],
            &["SET", &keys[0], "c"],
            &["SET", &keys[2], "d"],
            &["EXEC"],
        ] {
            call(command)?;
        }
        call(&["BLPOP", "load:nothing", "0.01"])?;
    }
    Ok(())
}

/// More clients than there is room for.
fn crowd(port: u16, stop: &AtomicBool) {
    let mut clients: Vec<Client> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        clients.extend(Client::connect(port));
        if clients.len() > 50 {
            clients.clear();
        }
        sleep(Duration::from_millis(20));
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            let _ = client.join();
        }
    }
}

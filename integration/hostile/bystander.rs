//! The client that does nothing wrong while others do.

use crate::support::{Client, Cluster, Value, spread};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

/// Longest wait for one reply that counts as "answered as before" on a busy two-core machine.
pub const PATIENCE: Duration = Duration::from_millis(1_500);
const PAUSE: Duration = Duration::from_millis(5);

/// A running bystander.
#[derive(Debug)]
pub struct Bystander {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Report>>,
}

/// What it has seen.
#[derive(Debug)]
pub struct Report {
    /// Number of rounds, each a write, a read and a transaction.
    pub rounds: usize,
    /// Longest wait for a reply.
    pub slowest: Duration,
}

impl Bystander {
    /// Starts one on every shard's keys.
    pub fn start(cluster: &Cluster) -> Bystander {
        let shards = cluster.shards().len();
        Bystander::on(cluster.client(), spread("bystander", shards, 6))
    }

    /// Starts one on these keys.
    pub fn on(client: Client, keys: Vec<String>) -> Bystander {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = Some(std::thread::spawn(move || behave(client, &keys, &flag)));
        Bystander { stop, thread }
    }

    /// Lets it go on for `time`, then checks that it was never refused and never waited.
    pub fn finish_after(self, time: Duration) {
        sleep(time);
        self.finish();
    }

    /// Checks that it was never refused and never waited.
    pub fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("finished once");
        let report = match thread.join() {
            Ok(report) => report,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        println!(
            "bystander: {} rounds, slowest {:?}",
            report.rounds, report.slowest
        );
        assert!(report.rounds > 0, "the bystander was not served at all");
        assert!(
            report.slowest < PATIENCE,
            "the bystander waited {:?}",
            report.slowest
        );
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn behave(mut client: Client, keys: &[String], stop: &AtomicBool) -> Report {
    let mut report = Report {
        rounds: 0,
        slowest: Duration::ZERO,
    };
    while !stop.load(Ordering::Relaxed) || report.rounds == 0 {
        let value = report.rounds.to_string();
        let key = &keys[report.rounds % keys.len()];
        let mut timed = |act: &mut dyn FnMut(&mut Client)| {
            let begin = Instant::now();
            act(&mut client);
            report.slowest = report.slowest.max(begin.elapsed());
        };
        timed(&mut |client| {
            expect(&client.value(&["SET", key, &value]), "+OK");
        });
        timed(&mut |client| {
            expect(&client.value(&["GET", key]), &format!("\"{value}\""));
        });
        if report.rounds.is_multiple_of(4) {
            timed(&mut |client| write_all(client, keys, &value));
        }
        report.rounds += 1;
        sleep(PAUSE);
    }
    report
}

/// One transaction over all keys.
fn write_all(client: &mut Client, keys: &[String], value: &str) {
    let set = |key: &String| vec!["SET".to_owned(), key.clone(), value.to_owned()];
    let commands: Vec<_> = keys.iter().map(set).collect();
    let reply = client.try_transaction(&commands).expect("EXEC is answered");
    expect(&reply, &format!("[{}]", vec!["+OK"; keys.len()].join(", ")));
}

fn expect(reply: &Value, wanted: &str) {
    let got = reply.to_string();
    assert_eq!(got, wanted, "the bystander was answered {got}");
}

//! Whoever connects anew all the time, and counts how that goes.

use crate::support::Client;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How connections fared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Knocks {
    /// Connected, and PING was answered.
    pub served: usize,
    /// Nobody listened.
    pub refused: usize,
    /// Connected, and closed or reset before the answer.
    pub closed: usize,
    /// The longest from connecting to the answer.
    pub slowest: Duration,
}

/// Connects until told to stop.
pub struct Knocker {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Knocks>,
}

impl Knocker {
    pub fn start(port: u16) -> Knocker {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut knocks = Knocks::default();
            while !flag.load(Ordering::Relaxed) {
                let begin = Instant::now();
                match Client::connect(port).and_then(|mut client| client.try_call(&["PING"])) {
                    Ok(_) => {
                        knocks.served += 1;
                        knocks.slowest = knocks.slowest.max(begin.elapsed());
                    }
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                        knocks.refused += 1
                    }
                    Err(_) => knocks.closed += 1,
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            knocks
        });
        Knocker { stop, thread }
    }

    pub fn finish(self) -> Knocks {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic")
    }
}

//! The scanners under fire: whatever bytes come, in whatever pieces.
//!
//! | promise | test |
//! |---|---|
//! | no panic, memory bounded by bytes received, pieces frame like the whole, what is a command re-encodes to itself | [`commands`] |
//! | redis-server gives the same verdict: the same commands run, the same error line, closed or not | [`differential`] |
//! | replies are framed as an independent, recursive reader frames them, and looked into rightly | [`replies`] |
//! | the same as properties that shrink | [`properties`] |
//!
//! `LOCKSTEP_FUZZ_INPUTS` sets the number of inputs of each loop (default 100,000, of which the
//! differential runs one in 50 or 1,500); `LOCKSTEP_FUZZ_SEED` replays a run. Both are printed.
//!
//! `cargo test --release --test scanner -- --ignored --nocapture speed` measures.

mod commands;
mod differential;
mod generate;
mod properties;
mod reference;
mod replies;
mod speed;

use std::time::{SystemTime, UNIX_EPOCH};

/// How much to do, and from which seed.
struct Plan {
    inputs: u64,
    seed: u64,
}

impl Plan {
    fn from_env() -> Self {
        let clock = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            inputs: number("LOCKSTEP_FUZZ_INPUTS").unwrap_or(100_000),
            seed: number("LOCKSTEP_FUZZ_SEED").unwrap_or(clock.as_nanos() as u64),
        }
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
    )
}

/// Resident memory of this process in KiB; 0 where /proc does not tell.
fn resident_kib() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|text| text.parse::<u64>().ok());
    pages.unwrap_or(0) * 4
}

//! Seeded randomness: a failing run prints its seed, `LOCKSTEP_SEED` replays it.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::env;

/// The seed of one test run; prints itself when the test fails.
#[derive(Debug, Clone, Copy)]
pub struct Seed(pub u64);

impl Seed {
    /// From `LOCKSTEP_SEED`, else fresh.
    pub fn take() -> Seed {
        let given = env::var("LOCKSTEP_SEED").ok();
        Seed(match given {
            Some(text) => text.parse().expect("LOCKSTEP_SEED is a decimal number"),
            None => rand::rng().random_range(0..1_000_000_000),
        })
    }

    /// A generator for part `stream` of the run: its numbers do not depend on how the other
    /// parts (threads, sequences) interleave.
    pub fn rng(self, stream: u64) -> StdRng {
        StdRng::seed_from_u64(self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ stream)
    }
}

/// Prints how to replay when the test that holds it panics.
#[derive(Debug)]
pub struct PrintOnFailure(pub Seed);

impl Drop for PrintOnFailure {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with LOCKSTEP_SEED={}", self.0.0);
        }
    }
}

//! Waiting for conditions instead of sleeping.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Polls until `condition` holds; panics with `what` when `limit` has passed.
pub fn eventually(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    eventually_with(what, limit, || if condition() { Ok(()) } else { Err(()) });
}

/// Polls until `attempt` succeeds and gives its result; panics with `what` and the last
/// failure when `limit` has passed.
pub fn eventually_with<T, E: std::fmt::Debug>(
    what: &str,
    limit: Duration,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> T {
    let begin = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) if begin.elapsed() >= limit => {
                panic!("not within {limit:?}: {what} (last: {error:?})")
            }
            Err(_) => sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

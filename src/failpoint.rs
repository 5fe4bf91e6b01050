//! Places at which tests stop the process, and faults that tests plant.
//!
//! Only in builds with debug assertions, and only if the environment asks for it: in a release
//! build all of this is empty, and nothing of it is compiled in.
//!
//! * `LOCKSTEP_FAILPOINTS` names a folder. A thread that comes to the failpoint `x` while there
//!   is a file `x` in that folder renames it to `x.reached` and stands still until that is gone.
//!   The test then kills the process, or lets it go on when it likes.
//! * `LOCKSTEP_FAULTS` lists, with commas, what is to be done wrong on purpose. The tests that
//!   look for anomalies are tested so: they must find some.

#[cfg(debug_assertions)]
pub use on::{at, is_armed, is_planted};

#[cfg(not(debug_assertions))]
pub use off::{at, is_armed, is_planted};

#[cfg(debug_assertions)]
mod on {
    use std::path::PathBuf;
    use std::sync::OnceLock;
    use std::time::Duration;

    const LOOK_AGAIN: Duration = Duration::from_millis(1);

    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    static FAULTS: OnceLock<String> = OnceLock::new();

    fn folder() -> Option<&'static PathBuf> {
        FOLDER
            .get_or_init(|| std::env::var_os("LOCKSTEP_FAILPOINTS").map(PathBuf::from))
            .as_ref()
    }

    /// Stands still here if a test wants it.
    pub fn at(name: &str) {
        let Some(folder) = folder() else { return };
        let reached = folder.join(format!("{name}.reached"));
        if std::fs::rename(folder.join(name), &reached).is_ok() {
            while reached.exists() {
                std::thread::sleep(LOOK_AGAIN);
            }
        }
    }

    /// Whether [`at`] would stand still.
    pub fn is_armed(name: &str) -> bool {
        folder().is_some_and(|folder| folder.join(name).exists())
    }

    /// Whether this is to be done wrong.
    pub fn is_planted(fault: &str) -> bool {
        let faults = FAULTS.get_or_init(|| std::env::var("LOCKSTEP_FAULTS").unwrap_or_default());
        !faults.is_empty() && faults.split(',').any(|planted| planted == fault)
    }
}

#[cfg(not(debug_assertions))]
mod off {
    /// Nothing.
    #[inline(always)]
    pub fn at(_: &str) {}

    /// Never.
    #[inline(always)]
    pub fn is_armed(_: &str) -> bool {
        false
    }

    /// Never.
    #[inline(always)]
    pub fn is_planted(_: &str) -> bool {
        false
    }
}

//! What this program was built from.

/// Version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Commit of the source; `unknown` when built outside a repository.
pub const COMMIT: &str = env!("LOCKSTEP_BUILD_COMMIT");
/// Version of the compiler.
pub const RUSTC: &str = env!("LOCKSTEP_BUILD_RUSTC");
/// Triple it was built for.
pub const TARGET: &str = env!("LOCKSTEP_BUILD_TARGET");
/// `release` or `debug`.
pub const PROFILE: &str = env!("LOCKSTEP_BUILD_PROFILE");

/// For `--version`: `0.1.0 (0123abc, release, x86_64-unknown-linux-gnu, rustc 1.95.0)`.
pub fn summary() -> String {
    format!("{VERSION} ({COMMIT}, {PROFILE}, {TARGET}, {RUSTC})")
}

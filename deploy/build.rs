//! Build script: tells the program what it is built from. No time stamps, so that the same
//! source gives the same program.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    set("COMMIT", commit().as_deref().unwrap_or("unknown"));
    set(
        "RUSTC",
        short_rustc(&output(&rustc, &["--version"])).as_str(),
    );
    set("TARGET", &env::var("TARGET").unwrap_or_default());
    set("PROFILE", &env::var("PROFILE").unwrap_or_default());
    println!("cargo::rerun-if-changed=deploy/build.rs");
    for path in [".git/HEAD", ".git/logs/HEAD"] {
        if Path::new(path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

fn set(name: &str, value: &str) {
    println!("cargo::rustc-env=LOCKSTEP_BUILD_{name}={value}");
}

fn commit() -> Option<String> {
    output("git", &["rev-parse", "--short=12", "HEAD"])
}

/// `rustc 1.95.0 (hash date)` → `rustc 1.95.0`.
fn short_rustc(version: &Option<String>) -> String {
    let words = version.as_deref().unwrap_or("rustc unknown").split(' ');
    words.take(2).collect::<Vec<_>>().join(" ")
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.is_empty()).then(|| text.trim().to_owned())
}

//! What is under `deploy/`, held against the validators of those who read it, and tried for real
//! as far as that goes without a container engine and without a running systemd.
//!
//! Tools that are not here (kubectl, systemd) are named, and their part is left out; what comes
//! from PyPI is fetched, unless `LOCKSTEP_OFFLINE=1`.

// A test program has no outside that could reach its items.
#![allow(unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod containers;
mod package;
mod systemd;

use std::path::{Path, PathBuf};
use std::process::Command;

/// A path of the repository.
fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Whether this program is here; says so if not.
fn has(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output();
    let has = found.is_ok_and(|output| output.status.success());
    if !has {
        println!("{program} is not here: what needs it is left out");
    }
    has
}

/// What it printed, and whether it succeeded.
fn outcome(command: &mut Command) -> (bool, String) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.success(), text.concat())
}

/// What it printed; it must succeed.
fn run(command: &mut Command) -> String {
    let (good, text) = outcome(command);
    assert!(good, "{command:?}: {text}");
    text
}

/// The command that runs a validator from PyPI; None without a package index.
fn validator(kind: &str) -> Option<Command> {
    if std::env::var("LOCKSTEP_OFFLINE").is_ok_and(|value| value == "1") {
        println!("LOCKSTEP_OFFLINE=1: {kind} is not validated");
        return None;
    }
    let setup = Command::new(at("integration/deploy/setup"))
        .output()
        .expect("it starts");
    assert!(
        setup.status.success(),
        "{}",
        String::from_utf8_lossy(&setup.stderr)
    );
    let python = String::from_utf8_lossy(&setup.stdout).trim().to_owned();
    let mut command = Command::new(python);
    command.arg(at("integration/deploy/validate.py")).arg(kind);
    Some(command)
}

//! What the program says about itself, and what the README says about it.

use std::fs;
use std::path::Path;

use lockstep::config::{Group, SETTINGS, markdown_table};

use crate::running::{run, text};

#[test]
fn help_explains_every_setting_under_its_heading() {
    let output = run(&["--help"]);
    assert!(output.status.success());
    let help = text(&output.stdout);
    let mut position = 0;
    for group in Group::ALL {
        let heading = format!("\n{}:\n", group.title());
        position += help[position..]
            .find(&heading)
            .unwrap_or_else(|| panic!("{heading}"));
        for setting in SETTINGS.iter().filter(|s| s.group == *group) {
            let flag = format!("--{} <", setting.name);
            position += help[position..]
                .find(&flag)
                .unwrap_or_else(|| panic!("{flag}"));
            let variable = setting.environment_variable();
            position += help[position..]
                .find(&variable)
                .unwrap_or_else(|| panic!("{variable}"));
        }
    }
}

#[test]
fn version_says_what_it_was_built_from() {
    let output = run(&["--version"]);
    let version = text(&output.stdout);
    let start = format!("lockstep {} (", env!("CARGO_PKG_VERSION"));
    assert!(
        version.starts_with(&start) && version.contains("rustc 1."),
        "{version}"
    );
}

#[test]
fn without_shards_it_says_how_to_give_some() {
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    for part in [
        "no shards given",
        "--shard HOST:PORT",
        "LOCKSTEP_SHARD",
        "lockstep dev",
    ] {
        assert!(error.contains(part), "{part} in {error}");
    }
}

#[test]
fn mistakes_in_flags_and_environment_are_reported_together() {
    let output = crate::running::lockstep(&["--clients-max", "0", "--shard", "x"])
        .env("LOCKSTEP_LOCK_TTL_MS", "soon")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let lines = text(&output.stderr);
    let starts: Vec<_> = lines.lines().filter_map(|l| l.split(": ").nth(1)).collect();
    assert_eq!(starts, ["LOCKSTEP_LOCK_TTL_MS", "--shard", "--clients-max"]);
}

#[test]
fn the_readme_lists_the_settings_as_they_are() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- settings -->", "<!-- /settings -->");
    let (before, rest) = readme
        .split_once(begin)
        .expect("the mark where the table begins");
    let (table, after) = rest.split_once(end).expect("the mark where the table ends");
    let expected = format!("\n{}\n", markdown_table());
    if table == expected {
        return;
    }
    if std::env::var_os("UPDATE_README").is_some() {
        fs::write(&path, format!("{before}{begin}{expected}{end}{after}")).unwrap();
        return;
    }
    panic!("the table of settings in README.md is stale: run integration/run --update-readme");
}

//! `lockstep check`.

use std::io::Write;

use crate::running::{run, text};

fn check(content: &str) -> (Option<i32>, String) {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    let path = file.path().to_str().unwrap();
    let output = run(&["check", "--config", path]);
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    (
        output.status.code(),
        text(&output.stdout).replace(path, "FILE"),
    )
}

#[test]
fn a_good_file_is_summed_up() {
    let (code, report) = check("shard = ['a:1', 'b:1']\nshard-password = 'secret'\nworkers = 2\n");
    assert_eq!(code, Some(0));
    let lines: Vec<_> = report.lines().collect();
    assert_eq!(
        lines,
        [
            "FILE: no mistakes",
            "  shard = a:1,b:1",
            "  shard-password = (hidden)",
            "  workers = 2",
        ]
    );
}

#[test]
fn all_mistakes_are_reported_with_line_and_key() {
    let (code, report) = check(
        "listen = 'nowhere'\n\nlock-tll-ms = 1\nclients-max = true\nshard = ['a:1', 'a:1']\n\
         reconnect-backoff-min-ms = 3000\nreconnect-backoff-max-ms = 2000\n= 7\n",
    );
    assert_eq!(code, Some(1));
    for start in [
        "FILE:1: listen: expects HOST:PORT",
        "FILE:3: lock-tll-ms: unknown setting; did you mean lock-ttl-ms?",
        "FILE:4: clients-max: must be an integer",
        "FILE:5: shard: a:1 is given twice",
        "FILE:7: reconnect-backoff-max-ms: must not be less",
        "FILE:8: ",
    ] {
        assert!(
            report.lines().any(|line| line.starts_with(start)),
            "{start}\n{report}"
        );
    }
    assert!(report.ends_with("FILE: 6 mistakes\n"), "{report}");
}

#[test]
fn a_file_that_is_not_there_is_a_mistake() {
    let output = run(&["check", "--config", "/nonexistent/lockstep.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("cannot read the file"));
}

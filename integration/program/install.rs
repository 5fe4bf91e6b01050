//! `deploy/need.sh`: the scripts install what is missing, and nothing else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::running::text;

/// A folder of stand-ins for the system's commands, first in PATH.
struct Fakes(TempDir);

impl Fakes {
    /// Packages are installed by a stand-in that writes down what it is asked, knows no package
    /// before an update, and fails after installing, as when a service does not start.
    fn new(user: &str) -> Self {
        let fakes = Self(TempDir::new().unwrap());
        fakes.add("id", &format!("echo {user}"));
        fakes.add("sudo", "echo sudo >> \"$FAKES/log\"; exec \"$@\"");
        fakes.add(
            "apt-get",
            "echo \"$@\" >> \"$FAKES/log\"
             case $1 in
             update) touch \"$FAKES/lists\" ;;
             install) [ -e \"$FAKES/lists\" ] && cp \"$FAKES/id\" \"$FAKES/no-such-server\" ;;
             esac
             [ \"$1\" = update ]",
        );
        fakes
    }

    fn add(&self, name: &str, script: &str) {
        let path = self.0.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn need(&self, arguments: &str) -> Output {
        let folder = self.0.path().to_str().unwrap();
        let script = format!("set -euo pipefail; . deploy/need.sh; need {arguments}; echo there");
        Command::new("bash")
            .args(["-c", script.as_str()])
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
            .env_clear()
            .env("PATH", format!("{folder}:/usr/bin:/bin"))
            .env("FAKES", folder)
            .output()
            .unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.0.path().join("log")).unwrap_or_default()
    }
}

#[test]
fn what_is_there_is_not_installed() {
    let fakes = Fakes::new("0");
    let output = fakes.need("sh some-package");
    assert_eq!(
        (text(&output.stdout).as_str(), fakes.log().as_str()),
        ("there\n", "")
    );
}

#[test]
fn a_command_of_several_words_must_succeed() {
    let fakes = Fakes::new("0");
    let output = fakes.need("'test 1 = 1' some-package");
    assert_eq!(
        (text(&output.stdout).as_str(), fakes.log().as_str()),
        ("there\n", "")
    );
    let output = fakes.need("'test 1 = 2' some-package");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        fakes
            .log()
            .ends_with("install -y --no-install-recommends some-package\n")
    );
}

#[test]
fn what_is_missing_is_installed_even_if_its_service_does_not_start() {
    let fakes = Fakes::new("0");
    let output = fakes.need("no-such-server no-such-package");
    assert_eq!(text(&output.stdout), "there\n", "{}", text(&output.stderr));
    let install = "install -y --no-install-recommends no-such-package";
    assert_eq!(fakes.log(), format!("{install}\nupdate\n{install}\n"));
}

#[test]
fn others_than_root_use_sudo() {
    let fakes = Fakes::new("1000");
    let output = fakes.need("no-such-server no-such-package");
    assert_eq!(text(&output.stdout), "there\n", "{}", text(&output.stderr));
    assert!(fakes.log().starts_with("sudo\ninstall"), "{}", fakes.log());
}

#[test]
fn what_cannot_be_installed_is_named() {
    let fakes = Fakes::new("0");
    let output = fakes.need("no-such-client no-such-package");
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(
        error.contains("no-such-client is still missing: install no-such-package"),
        "{error}"
    );
}

//! Compose, Kubernetes, Dockerfile.

use crate::support::Redis;
use crate::{at, has, outcome, read, run, validator};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

/// The environment of validators is made once.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const COMPOSE: &str = "deploy/compose/compose.yaml";
const KUSTOMIZATIONS: [&str; 3] = ["base", "overlays/production", "overlays/sidecar"];

#[test]
fn the_compose_file() {
    let _turn = ONE_AT_A_TIME.lock();
    let Some(mut command) = validator("compose") else {
        return;
    };
    assert_eq!(run(command.arg(at(COMPOSE))).trim(), "services 7");
    // The validator sees mistakes.
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("compose.yaml");
    for (right, wrong) in [("ports:", "prots:"), ("service_healthy", "service_fine")] {
        fs::write(&path, read(COMPOSE).replace(right, wrong)).expect("written");
        let mut command = validator("compose").expect("as above");
        assert!(!outcome(command.arg(&path)).0, "{wrong} is taken for right");
    }
    if outcome(Command::new("docker").args(["compose", "version"])).0 {
        run(Command::new("docker")
            .args(["compose", "-f"])
            .arg(at(COMPOSE))
            .args(["config", "--quiet"]));
    } else {
        println!("docker compose is not here: config is not run");
    }
}

/// Every file that the compose file mounts is there.
#[test]
fn what_compose_mounts_is_there() {
    let text = read(COMPOSE);
    let mounts = text.lines().filter_map(|line| {
        line.trim()
            .strip_prefix("- ./")
            .or(line.trim().strip_prefix("- ../"))
    });
    let paths: Vec<PathBuf> = mounts
        .filter_map(|mount| mount.split(':').next())
        .map(|path| {
            at("deploy/compose").join(if path.starts_with("../") {
                format!("../{path}")
            } else {
                path.to_owned()
            })
        })
        .collect();
    assert!(paths.len() >= 5, "{paths:?}");
    for path in paths {
        assert!(path.exists(), "{} is not there", path.display());
    }
}

#[test]
fn the_manifests_of_kubernetes() {
    let _turn = ONE_AT_A_TIME.lock();
    let Some(mut command) = validator("kubernetes") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    if !has("kubectl") {
        let files = ["service", "disruption", "network", "podmonitor"];
        let paths = files.map(|name| at(&format!("deploy/kubernetes/base/{name}.yaml")));
        println!("not rendered: {}", run(command.args(paths)).trim());
        return;
    }
    for name in KUSTOMIZATIONS {
        let rendered = folder.path().join(name.replace('/', "-"));
        let text = run(Command::new("kubectl")
            .arg("kustomize")
            .arg(at("deploy/kubernetes").join(name)));
        fs::write(&rendered, text).expect("written");
        command.arg(rendered);
    }
    let said = run(&mut command);
    println!("{}", said.trim());
    assert_eq!(
        said.trim(),
        "valid 12 without a schema PodMonitor,PodMonitor,PodMonitor"
    );
    let wrong = folder.path().join("wrong");
    let text = fs::read_to_string(folder.path().join("base")).expect("rendered");
    fs::write(
        &wrong,
        text.replace("containerPort: 6380", "containerPort: many"),
    )
    .expect("written");
    let mut command = validator("kubernetes").expect("as above");
    assert!(
        !outcome(command.arg(wrong)).0,
        "a wrong port is taken for right"
    );
}

/// The settings in the ConfigMaps are right.
#[test]
fn the_settings_of_all_deployments() {
    for path in [
        "deploy/kubernetes/base/lockstep.toml",
        "deploy/kubernetes/overlays/sidecar/lockstep.toml",
        "deploy/debian/lockstep.toml",
    ] {
        let said = run(Command::new(crate::support::proxy::program())
            .args(["check", "--config"])
            .arg(at(path)));
        assert!(said.contains("no mistakes"), "{said}");
    }
}

/// What it copies is there, and no more is needed to build: every path that Cargo.toml names.
#[test]
fn the_dockerfile() {
    let text = read("deploy/docker/Dockerfile");
    let copies = text
        .lines()
        .filter_map(|line| line.strip_prefix("COPY "))
        .filter(|line| !line.starts_with("--from"));
    let mut copied = Vec::new();
    for line in copies {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        words.pop();
        copied.extend(words);
    }
    // A clone made as a worktree has a file there.
    for path in &copied {
        assert!(
            at(path.trim_end_matches('/')).exists(),
            "COPY {path}: not there"
        );
    }
    let manifest = read("Cargo.toml");
    let named = manifest.lines().filter_map(|line| {
        line.strip_prefix("path = ")
            .or(line.strip_prefix("build = "))
    });
    for path in named.map(|path| path.trim_matches('"')) {
        let is_copied = copied
            .iter()
            .any(|prefix| path.starts_with(prefix.trim_end_matches('/')));
        assert!(
            is_copied,
            "Cargo.toml names {path}, which the image does not get"
        );
    }
    for wanted in [
        "FROM scratch",
        "USER 65534",
        "ENTRYPOINT [\"/lockstep\"]",
        "--locked",
    ] {
        assert!(text.contains(wanted), "{wanted}");
    }
}

/// A static binary runs and serves. It takes a build of its own: in the long form only.
#[test]
fn a_static_binary() {
    if !crate::support::long() {
        println!("LOCKSTEP_LONG is not set: no static binary is built");
        return;
    }
    let target = "x86_64-unknown-linux-gnu";
    if !cfg!(all(
        target_arch = "x86_64",
        target_os = "linux",
        target_env = "gnu"
    )) {
        return;
    }
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--locked", "--bin", "lockstep", "--target", target]);
    build
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .current_dir(at("."));
    run(&mut build);
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| at("target"), PathBuf::from);
    let program = folder.join(target).join("debug/lockstep");
    let (_, said) = outcome(Command::new("ldd").arg(&program));
    assert!(
        said.contains("statically linked") || said.contains("not a dynamic"),
        "{said}"
    );
    let shard = Redis::start(&[]);
    crate::systemd::serves(Command::new(&program).args(["--shard", &shard.address()]));
}

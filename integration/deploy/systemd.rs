//! The unit, its hardening, and its socket.

use crate::support::ports::Port;
use crate::support::process::Process;
use crate::support::proxy::program;
use crate::support::{Client, Redis, eventually};
use crate::{has, outcome, read, run};
use rustix::process::Signal;
use std::fs;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
/// What `systemd-analyze security` may find, of 100: it finds 12.
const EXPOSURE_MAX: &str = "15";

/// The unit as it is, but for the path of the program.
fn unit_here(folder: &std::path::Path) -> std::path::PathBuf {
    let program = program().display().to_string();
    let unit = read("deploy/systemd/lockstep.service").replace("/usr/bin/lockstep", &program);
    let path = folder.join("lockstep.service");
    fs::write(&path, unit).expect("written");
    fs::write(
        folder.join("lockstep.socket"),
        read("deploy/systemd/lockstep.socket"),
    )
    .expect("written");
    path
}

#[test]
fn the_units_are_right() {
    if !has("systemd-analyze") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let service = unit_here(folder.path());
    let socket = folder.path().join("lockstep.socket");
    let (_, said) = outcome(
        Command::new("systemd-analyze")
            .arg("verify")
            .arg(&service)
            .arg(&socket),
    );
    let ours: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("lockstep"))
        .collect();
    assert_eq!(ours, Vec::<&str>::new());
    let text = fs::read_to_string(&service).expect("written");
    fs::write(&service, text.replace("ProtectClock=", "ProtectCluck=")).expect("written");
    let (_, said) = outcome(Command::new("systemd-analyze").arg("verify").arg(&service));
    assert!(
        said.contains("ProtectCluck"),
        "a mistake is taken for right: {said}"
    );
}

#[test]
fn the_unit_is_hardened() {
    if !has("systemd-analyze") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let service = unit_here(folder.path());
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let mut command = Command::new("systemd-analyze");
    let said = run(command
        .args(["security", "--offline=true", "--no-pager", &threshold])
        .arg(service));
    println!(
        "{}",
        said.lines()
            .rfind(|line| line.contains("exposure"))
            .unwrap_or_default()
    );
}

/// The socket is there before the program: who connects starts it.
#[test]
fn it_is_activated_by_its_socket() {
    if !has("systemd-socket-activate") {
        return;
    }
    let (shard, port) = (Redis::start(&[]), Port::lease());
    let listen = format!("--listen=127.0.0.1:{}", port.number());
    let mut command = Command::new("systemd-socket-activate");
    command.arg(listen).arg("--fdname=lockstep").arg(program());
    command.args([
        "--shard",
        &shard.address(),
        "--metrics-listen",
        "",
        "--listen",
        "127.0.0.1:1",
    ]);
    let mut process = Process::start(&mut command).expect("it starts");
    expect_service(&mut process, port.number());
}

/// As much of the hardening as a process can take on itself: nobody's user, no privileges and
/// none to gain, a root that is read-only where the machine allows that.
#[test]
fn it_serves_without_privileges() {
    let is_root = rustix::process::getuid().is_root();
    if !is_root || !has("setpriv") || !has("unshare") {
        println!("not tried: it needs root, setpriv and unshare");
        return;
    }
    let shard = Redis::start(&[]);
    // Where the program lies may not be for everybody.
    let folder = tempfile::tempdir().expect("a folder");
    let public = folder.path().join("lockstep");
    fs::copy(program(), &public).expect("copied");
    run(Command::new("chmod")
        .arg("755")
        .arg(folder.path())
        .arg(&public));
    let script = "mount -o remount,bind,ro / 2>/dev/null; exec setpriv --reuid 65534 --regid 65534 --clear-groups \
                  --bounding-set -all --inh-caps -all --no-new-privs \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--ipc", "--uts"]);
    command
        .args(["sh", "-c", script, "sh"])
        .arg(&public)
        .args(["--shard", &shard.address()]);
    let probe = ["--mount", "--ipc", "--uts", "true"];
    if !outcome(Command::new("unshare").args(probe)).0 {
        println!("not tried: this machine allows no namespaces");
        return;
    }
    serves(&mut command);
}

/// Starts it, uses it, ends it.
pub fn serves(command: &mut Command) {
    let port = Port::lease();
    let listen = format!("127.0.0.1:{}", port.number());
    command.args(["--listen", &listen, "--metrics-listen", ""]);
    let mut process = Process::start(command).expect("it starts");
    expect_service(&mut process, port.number());
}

fn expect_service(process: &mut Process, port: u16) {
    eventually("it serves", SOON, || {
        let reply = Client::connect(port).and_then(|mut client| {
            client.try_transaction(&[vec!["INCR", "a"], vec!["SET", "b", "1"]])
        });
        reply.is_ok_and(|reply| reply.error().is_none())
    });
    process.signal(Signal::TERM);
    assert!(process.wait(SOON).is_some(), "it does not end");
}

//! What bytes travel on: TLS towards clients and shards, unix sockets, sockets handed over by a
//! service manager. Unmodified programs on both sides: redis-cli, redis-server.

// A test program has no outside that could reach its items.
#![allow(unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod certificates;
mod proxied;
mod verdicts;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use certificates::{Authority, Made};
use support::ports::Port;
use support::process::Process;
use support::{Proxy, Redis, eventually, eventually_with, spread};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(15);

/// Three shards that speak TLS on another port of theirs, and show this certificate.
struct Shards {
    all: Vec<Redis>,
    ports: Vec<Port>,
}

impl Shards {
    fn start(made: &Made, ca: &Path) -> Shards {
        let ports: Vec<Port> = (0..3).map(|_| Port::lease()).collect();
        let start = |port: &Port| {
            Redis::start(&[
                "--tls-port",
                &port.number().to_string(),
                "--tls-cert-file",
                made.certificate(),
                "--tls-key-file",
                made.key(),
                "--tls-ca-cert-file",
                &ca.display().to_string(),
            ])
        };
        let all = ports.iter().map(start).collect();
        Shards { all, ports }
    }

    fn addresses(&self) -> Vec<String> {
        let address = |port: &Port| format!("localhost:{}", port.number());
        self.ports.iter().map(address).collect()
    }
}

fn settings(given: &[(&str, &str)]) -> Vec<(String, String)> {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    given.iter().map(own).collect()
}

/// redis-cli with these arguments, fed with lines.
fn redis_cli(args: &[&str], commands: &str) -> Output {
    use std::io::Write as _;
    let mut child = Command::new("redis-cli")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("redis-cli");
    let mut stdin = child.stdin.take().expect("piped");
    // One that cannot connect does not read.
    let _ = stdin.write_all(commands.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("its output")
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(out).into_owned() + &String::from_utf8_lossy(err)
}

/// A transaction over all shards, typed into redis-cli.
fn check_transaction(args: &[&str]) {
    let keys = spread("tls:", 3, 3);
    let typed = format!(
        "MULTI\nSET {} one\nINCR {}\nLPUSH {} a b\nEXEC\nDEL {} {} {}\n",
        keys[0], keys[1], keys[2], keys[0], keys[1], keys[2]
    );
    let output = redis_cli(args, &typed);
    let wanted = "OK\nQUEUED\nQUEUED\nQUEUED\nOK\n1\n2\n3\n";
    assert_eq!(text(&output).replace("\n\n", "\n"), wanted);
}

/// Clients and shards over TLS, both sides with certificates; a large value passes whole.
#[test]
fn tls_on_both_sides() {
    let folder = TempDir::new().expect("a temporary folder");
    let authority = Authority::new(folder.path(), "ca");
    let shard = authority.issue("shard", &["localhost"], certificates::VALID);
    let server = authority.issue("server", &["localhost"], certificates::VALID);
    let client = authority.issue("client", &["client"], certificates::VALID);
    // One of the shards knows the older protocol alone.
    let shards = Shards::start(&shard, authority.path());
    shards.all[1]
        .client()
        .call(&["CONFIG", "SET", "tls-protocols", "TLSv1.2"]);
    let ca = authority.path().display().to_string();
    let port = Port::lease();
    let proxy = Proxy::start(
        &shards.addresses(),
        &settings(&[
            ("shard-tls-ca-file", &ca),
            ("shard-tls-cert-file", client.certificate()),
            ("shard-tls-key-file", client.key()),
            ("tls-listen", &format!("127.0.0.1:{}", port.number())),
            ("tls-cert-file", server.certificate()),
            ("tls-key-file", server.key()),
            ("tls-client-ca-file", &ca),
        ]),
    );
    let number = port.number().to_string();
    let mut args = vec!["-h", "localhost", "-p", &number, "--tls", "--cacert", &ca];
    let own = ["--cert", client.certificate(), "--key", client.key()];
    proxy.expect_log("a client's connection failed before it was served");
    let without = redis_cli(&args, "PING\n");
    assert!(
        !text(&without).contains("PONG"),
        "served without a certificate"
    );
    args.extend(own);
    check_transaction(&args);
    // Larger than any buffer on the way.
    let value = "x".repeat(3_000_000);
    let output = redis_cli(&args, &format!("SET big {value}\nGET big\n"));
    assert_eq!(text(&output), format!("OK\n{value}\n"));
    // The shards hear nothing from us in plain text.
    for (shard, port) in shards.all.iter().zip(&shards.ports) {
        let list = shard.client().call(&["CLIENT", "LIST"]).raw;
        let list = String::from_utf8_lossy(&list).into_owned();
        let ours: Vec<&str> = list
            .lines()
            .filter(|l| l.contains("name=lockstep"))
            .collect();
        let here = format!("laddr=127.0.0.1:{} ", port.number());
        assert!(
            !ours.is_empty() && ours.iter().all(|l| l.contains(&here)),
            "{list}"
        );
    }
    // redis-cli tries more than once.
    assert!(proxy.metric("lockstep_clients_rejected_total", "handshake") >= 1.0);
}

/// A shard whose certificate is not in order is not spoken to, and the log says why.
#[test]
fn shards_that_cannot_be_trusted_are_refused() {
    let folder = TempDir::new().expect("a temporary folder");
    let authority = Authority::new(folder.path(), "ca");
    let stranger = Authority::new(folder.path(), "stranger");
    let cases = [
        (
            authority.issue("expired", &["localhost"], certificates::EXPIRED),
            "xpired",
        ),
        (
            authority.issue("other", &["elsewhere"], certificates::VALID),
            "localhost",
        ),
        (
            stranger.issue("unknown", &["localhost"], certificates::VALID),
            "unknown issuer",
        ),
    ];
    for (made, word) in &cases {
        let port = Port::lease();
        let _shard = Redis::start(&[
            "--tls-port",
            &port.number().to_string(),
            "--tls-cert-file",
            made.certificate(),
            "--tls-key-file",
            made.key(),
            "--tls-ca-cert-file",
            &authority.path().display().to_string(),
            "--tls-auth-clients",
            "no",
        ]);
        let output = Command::new(env!("CARGO_BIN_EXE_lockstep"))
            .args(["audit", "--shard", &format!("localhost:{}", port.number())])
            .args([
                "--shard-tls-ca-file",
                &authority.path().display().to_string(),
            ])
            .output()
            .expect("lockstep");
        let said = text(&output);
        assert!(
            !output.status.success() && said.contains(word),
            "{word}: {said}"
        );
    }
}

/// Certificates that change on disk are used from then on; broken ones change nothing.
#[test]
fn certificates_are_read_again_when_they_change() {
    let folder = TempDir::new().expect("a temporary folder");
    let (old, new) = (
        Authority::new(folder.path(), "old"),
        Authority::new(folder.path(), "new"),
    );
    let first = old.issue("first", &["localhost"], certificates::VALID);
    let second = new.issue("second", &["localhost"], certificates::VALID);
    let shard = Redis::start(&[]);
    let port = Port::lease();
    let proxy = Proxy::start(
        &[shard.address()],
        &settings(&[
            ("tls-listen", &format!("127.0.0.1:{}", port.number())),
            ("tls-cert-file", first.certificate()),
            ("tls-key-file", first.key()),
        ]),
    );
    proxy.expect_log("a client's connection failed before it was served");
    proxy.expect_log("changed certificates cannot be used");
    let number = port.number().to_string();
    let ping = |authority: &Authority| {
        let ca = authority.path().display().to_string();
        let args = ["-h", "localhost", "-p", &number, "--tls", "--cacert", &ca];
        text(&redis_cli(&args, "PING\n")) == "PONG\n"
    };
    assert!(ping(&old) && !ping(&new));
    std::fs::write(first.certificate(), "no certificate").expect("written");
    assert!(ping(&old), "a broken file ends what worked");
    std::fs::copy(second.key(), first.key()).expect("copied");
    std::fs::copy(second.certificate(), first.certificate()).expect("copied");
    eventually("the new certificate is shown", LIMIT, || ping(&new));
    assert!(!ping(&old));
}

/// No TCP at all between clients, proxy and shards.
#[test]
fn unix_sockets_on_both_sides() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let paths: Vec<String> = (0..3).map(|n| path(&format!("shard-{n}"))).collect();
    let _shards: Vec<Redis> = paths
        .iter()
        .map(|path| Redis::start(&["--unixsocket", path]))
        .collect();
    let addresses: Vec<String> = paths.iter().map(|path| format!("unix:{path}")).collect();
    let own = path("lockstep");
    // Left by a process that was killed.
    drop(std::os::unix::net::UnixListener::bind(&own).expect("bound"));
    let mut proxy = Proxy::start(&addresses, &settings(&[("listen-unix", &own)]));
    check_transaction(&["-s", &own]);
    proxy.terminate();
    assert!(proxy.wait(LIMIT).is_some_and(|status| status.success()));
    assert!(!Path::new(&own).exists(), "the socket's file is left");
}

/// A listening socket is taken over from who started the process (systemd's socket activation).
#[test]
fn a_socket_that_is_handed_over_is_used() {
    let activate = Command::new("systemd-socket-activate")
        .arg("--version")
        .output();
    if !activate.is_ok_and(|output| output.status.success()) {
        println!("no systemd-socket-activate here: left out");
        return;
    }
    let shard = Redis::start(&[]);
    let (port, other) = (Port::lease(), Port::lease());
    let _process = Process::start(
        Command::new("systemd-socket-activate")
            .arg(format!("--listen=127.0.0.1:{}", port.number()))
            .arg(env!("CARGO_BIN_EXE_lockstep"))
            .args(["--shard", &shard.address(), "--workers", "1"])
            .args(["--listen", &format!("127.0.0.1:{}", other.number())])
            .args(["--metrics-listen", ""])
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    )
    .expect("started");
    let ping = || -> Result<(), String> {
        let mut client =
            support::Client::connect(port.number()).map_err(|error| error.to_string())?;
        client.reply_limit(LIMIT);
        let reply = client
            .try_call(&["PING"])
            .map_err(|error| error.to_string())?;
        (reply.raw == b"+PONG\r\n")
            .then_some(())
            .ok_or_else(|| reply.text())
    };
    eventually_with("lockstep serves the socket", LIMIT, ping);
    let own = support::Client::connect(other.number());
    assert!(own.is_err(), "it listens where it was not to");
}

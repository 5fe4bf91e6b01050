//! Certificates that are not in order are refused, on both sides, by us and by others, and the log
//! says by whom and why.

use std::fs::copy;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::certificates::{self, Authority, Made};
use crate::support::ports::Port;
use crate::support::{Proxy, Redis, eventually, eventually_with, spread};
use crate::{LIMIT, Shards, check_transaction, redis_cli, settings, text};

const FAILED: &str = "a client's connection failed before it was served";

/// Certificates that are each wrong in one way.
struct Wrong {
    expired: Made,
    other_name: Made,
    unknown: Made,
}

/// A folder with who vouches, a certificate of `localhost` in order, and wrong ones.
struct Stage {
    folder: TempDir,
    authority: Authority,
    good: Made,
    wrong: Wrong,
}

impl Stage {
    fn new() -> Stage {
        let folder = TempDir::new().expect("a temporary folder");
        let authority = Authority::new(folder.path(), "ca");
        let stranger = Authority::new(folder.path(), "stranger");
        let (valid, localhost) = (certificates::VALID, ["localhost"]);
        Stage {
            good: authority.issue("good", &localhost, valid),
            wrong: Wrong {
                expired: authority.issue("expired", &localhost, certificates::EXPIRED),
                other_name: authority.issue("other", &["elsewhere"], valid),
                unknown: stranger.issue("unknown", &localhost, valid),
            },
            authority,
            folder,
        }
    }

    fn ca(&self) -> String {
        self.authority.path().display().to_string()
    }

    /// A proxy that shows TLS clients this, before one plain shard.
    fn proxy(&self, shard: &Redis, tls: &Port, made: &Made, more: &[(&str, &str)]) -> Proxy {
        let listen = format!("127.0.0.1:{}", tls.number());
        let given = [
            &[
                ("tls-listen", &*listen),
                ("tls-cert-file", made.certificate()),
                ("tls-key-file", made.key()),
            ],
            more,
        ];
        Proxy::start(&[shard.address()], &settings(&given.concat()))
    }
}

/// What redis-cli is told to use towards this port.
fn tls_args<'a>(port: &'a str, ca: &'a str, made: Option<&'a Made>) -> Vec<&'a str> {
    let mut args = vec!["-h", "localhost", "-p", port, "--tls", "--cacert", ca];
    if let Some(made) = made {
        args.extend(["--cert", made.certificate(), "--key", made.key()]);
    }
    args
}

fn expect_line(proxy: &Proxy, words: &[&str]) {
    eventually_with("the log says so", LIMIT, || {
        let log = proxy.log();
        let says = |line: &str| words.iter().all(|word| line.contains(word));
        if log.lines().any(says) {
            Ok(())
        } else {
            Err(format!("{words:?}\n{log}"))
        }
    });
}

/// redis-py, if it can be installed here.
fn python() -> Option<PathBuf> {
    if std::env::var("LOCKSTEP_OFFLINE").is_ok_and(|value| value == "1") {
        println!("LOCKSTEP_OFFLINE=1: redis-py is left out");
        return None;
    }
    let setup = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/clients/setup");
    let output = Command::new(setup).arg("python").output().expect("setup");
    assert!(output.status.success(), "{}", text(&output));
    Some(String::from_utf8_lossy(&output.stdout).trim().into())
}

fn redis_py(python: &Path, port: u16, ca: &str, made: Option<&Made>, keys: &[String]) -> String {
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/transport/redis_py_tls.py");
    let (certificate, key) = made.map_or(("", ""), |made| (made.certificate(), made.key()));
    let mut command = Command::new(python);
    command
        .arg(script)
        .args([&port.to_string(), ca, certificate, key]);
    text(&command.args(keys).output().expect("python"))
}

/// Certificates that clients show.
#[test]
fn clients_that_cannot_be_trusted_are_refused() {
    let (stage, shard, port) = (Stage::new(), Redis::start(&[]), Port::lease());
    let (ca, number) = (stage.ca(), port.number().to_string());
    let proxy = stage.proxy(&shard, &port, &stage.good, &[("tls-client-ca-file", &ca)]);
    proxy.expect_log(FAILED);
    let cases: [(Option<&Made>, &str); 3] = [
        (
            None,
            "it shows no certificate, as tls-client-ca-file demands",
        ),
        (
            Some(&stage.wrong.expired),
            "its certificate is not accepted: it has expired, ",
        ),
        (
            Some(&stage.wrong.unknown),
            "its certificate is not accepted: nobody in tls-client-ca-file vouches for it (unknown issuer)",
        ),
    ];
    for (made, words) in cases {
        let said = text(&redis_cli(&tls_args(&number, &ca, made), "PING\n"));
        assert!(!said.contains("PONG"), "served: {words}");
        expect_line(&proxy, &[FAILED, "client=\"127.0.0.1:", words]);
    }
    // Whom a certificate names is of no importance: it is the authority that lets in.
    let named = tls_args(&number, &ca, Some(&stage.wrong.other_name));
    assert_eq!(text(&redis_cli(&named, "PING\n")), "PONG\n");
    assert!(proxy.metric("lockstep_clients_rejected_total", "handshake") >= 3.0);
    // One who does not speak TLS at all, and one that says nothing.
    let plain = text(&redis_cli(&["-p", &number], "PING\n"));
    assert!(!plain.contains("PONG"));
    expect_line(&proxy, &[FAILED, "it does not speak TLS"]);
}

/// Who may come without a certificate may not come with one that is wrong.
#[test]
fn an_optional_certificate_must_be_in_order() {
    let (stage, shard, port) = (Stage::new(), Redis::start(&[]), Port::lease());
    let (ca, number) = (stage.ca(), port.number().to_string());
    let more = [
        ("tls-client-ca-file", &*ca),
        ("tls-client-optional", "true"),
    ];
    let proxy = stage.proxy(&shard, &port, &stage.good, &more);
    proxy.expect_log(FAILED);
    let ping = |made| text(&redis_cli(&tls_args(&number, &ca, made), "PING\n"));
    assert_eq!(ping(None), "PONG\n");
    assert_eq!(ping(Some(&stage.good)), "PONG\n");
    assert!(!ping(Some(&stage.wrong.expired)).contains("PONG"));
    expect_line(&proxy, &[FAILED, "it has expired"]);
}

/// Certificates of ours that clients refuse. redis-cli does not look at the name.
#[test]
fn clients_that_do_not_trust_us_are_told_of() {
    let (stage, shard, port) = (Stage::new(), Redis::start(&[]), Port::lease());
    let (ca, number) = (stage.ca(), port.number().to_string());
    let shown = stage
        .authority
        .issue("shown", &["localhost"], certificates::VALID);
    let proxy = stage.proxy(&shard, &port, &shown, &[]);
    proxy.expect_log(FAILED);
    proxy.expect_log("changed certificates cannot be used");
    let python = python();
    let keys = ["k".to_owned()];
    let wrong = &stage.wrong;
    let cases = [
        (&wrong.expired, "CertificateExpired", true),
        (&wrong.unknown, "UnknownCA", true),
        (&wrong.other_name, "BadCertificate", false),
    ];
    let args = tls_args(&number, &ca, None);
    for (made, alert, is_seen_by_redis_cli) in cases {
        copy(made.key(), shown.key()).expect("copied");
        copy(made.certificate(), shown.certificate()).expect("copied");
        if is_seen_by_redis_cli {
            let said = text(&redis_cli(&args, "PING\n"));
            assert!(
                said.contains("certificate verify failed"),
                "{alert}: {said}"
            );
            let words = "it does not accept our certificate (tls-cert-file)";
            expect_line(&proxy, &[FAILED, words, alert]);
        }
        let before = proxy.metric("lockstep_clients_rejected_total", "handshake");
        let Some(python) = &python else { continue };
        let said = redis_py(python, port.number(), &ca, None, &keys);
        assert!(
            said.starts_with("refused ConnectionError"),
            "{alert}: {said}"
        );
        let words = "it does not accept our certificate (tls-cert-file)";
        expect_line(&proxy, &[FAILED, words, alert]);
        eventually("it is counted", LIMIT, || {
            proxy.metric("lockstep_clients_rejected_total", "handshake") > before
        });
    }
    copy(stage.good.key(), shown.key()).expect("copied");
    copy(stage.good.certificate(), shown.certificate()).expect("copied");
    assert_eq!(text(&redis_cli(&args, "PING\n")), "PONG\n");
    drop(stage.folder);
}

/// Certificates that shards show to a lockstep that serves: it says why it does not start, and
/// does as soon as they are in order.
#[test]
fn shards_that_cannot_be_trusted_are_told_of() {
    let stage = Stage::new();
    let wrong = &stage.wrong;
    let cases = [
        (
            &wrong.expired,
            "its certificate is not accepted: it has expired, ",
        ),
        (
            &wrong.other_name,
            "certificate not valid for name \"localhost\"",
        ),
        (
            &wrong.unknown,
            "nobody in shard-tls-ca-file vouches for it (unknown issuer)",
        ),
    ];
    let shards = Shards::start(&stage.good, stage.authority.path());
    for shard in &shards.all {
        shard
            .client()
            .call(&["CONFIG", "SET", "tls-auth-clients", "no"]);
    }
    let show = |shard: &Redis, made: &Made| {
        let (certificate, key) = (made.certificate(), made.key());
        let set = [
            "CONFIG",
            "SET",
            "tls-cert-file",
            certificate,
            "tls-key-file",
            key,
        ];
        assert_eq!(shard.client().call(&set).raw, b"+OK\r\n");
    };
    for (shard, (made, _)) in shards.all.iter().zip(&cases) {
        show(shard, made);
    }
    let given = settings(&[("shard-tls-ca-file", &stage.ca())]);
    let mut proxy = Proxy::prepared(&shards.addresses(), &given);
    proxy.expect_log("cannot start without this shard; trying again");
    proxy.launch();
    for ((shard, address), (_, words)) in shards.all.iter().zip(shards.addresses()).zip(&cases) {
        expect_line(
            &proxy,
            &["cannot start without this shard", &address, words],
        );
        show(shard, &stage.good);
    }
    eventually("it serves", LIMIT, || {
        proxy.http_get("/readyz").starts_with("HTTP/1.1 200")
    });
    check_transaction(&["-p", &proxy.port().to_string()]);
}

/// A certificate of ours, or none, that shards refuse.
#[test]
fn shards_that_do_not_trust_us_are_told_of() {
    let stage = Stage::new();
    let (ca, wrong) = (stage.ca(), &stage.wrong);
    let cases = [
        (None, "it demands a certificate (shard-tls-cert-file)"),
        (
            Some(&wrong.expired),
            "it does not accept our certificate (shard-tls-cert-file): it says CertificateExpired",
        ),
        (
            Some(&wrong.unknown),
            "it does not accept our certificate (shard-tls-cert-file): it says UnknownCA",
        ),
    ];
    let shards = Shards::start(&stage.good, stage.authority.path());
    // The protocols tell at different times.
    shards.all[1]
        .client()
        .call(&["CONFIG", "SET", "tls-protocols", "TLSv1.2"]);
    for (made, words) in cases {
        for (number, address) in shards.addresses().iter().enumerate() {
            // TLS 1.2 has no word for a certificate that is missing.
            let words = if made.is_none() && number == 1 {
                "not available"
            } else {
                words
            };
            let mut command = Command::new(env!("CARGO_BIN_EXE_lockstep"));
            command.args(["audit", "--shard", address, "--shard-tls-ca-file", &ca]);
            if let Some(made) = made {
                command.args(["--shard-tls-cert-file", made.certificate()]);
                command.args(["--shard-tls-key-file", made.key()]);
            }
            let output = command.output().expect("lockstep");
            let said = text(&output);
            assert!(
                !output.status.success() && said.contains(words),
                "{words}: {said}"
            );
        }
    }
}

/// redis-py with certificates on both sides, over three shards.
#[test]
fn redis_py_over_tls_on_both_sides() {
    let Some(python) = python() else { return };
    let (stage, port) = (Stage::new(), Port::lease());
    let (ca, good) = (stage.ca(), &stage.good);
    let shards = Shards::start(good, stage.authority.path());
    let proxy = Proxy::start(
        &shards.addresses(),
        &settings(&[
            ("shard-tls-ca-file", &ca),
            ("shard-tls-cert-file", good.certificate()),
            ("shard-tls-key-file", good.key()),
            ("tls-listen", &format!("127.0.0.1:{}", port.number())),
            ("tls-cert-file", good.certificate()),
            ("tls-key-file", good.key()),
            ("tls-client-ca-file", &ca),
        ]),
    );
    proxy.expect_log(FAILED);
    let keys = spread("tls:", 3, 3);
    let said = redis_py(&python, port.number(), &ca, Some(good), &keys);
    assert_eq!(said, "transaction [1, 1, 1]\ndeleted 3\n");
    let said = redis_py(&python, port.number(), &ca, None, &keys);
    assert!(said.starts_with("refused ConnectionError"), "{said}");
    expect_line(&proxy, &[FAILED, "it shows no certificate"]);
}

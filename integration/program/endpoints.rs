//! The endpoint for machines that watch, and the way from SIGTERM to the exit.

use std::io::Read;
use std::net::{Ipv4Addr, TcpStream};

use lockstep::metrics::names;

use crate::running::{PATIENCE, Running, http_get, until};
use crate::support::ports::Port;
use rustix::process::Signal;

/// `dev` with one shard, and the port of its metrics endpoint.
fn start() -> (Running, u16) {
    let mut running = Running::start(&["dev", "--shards", "1", "--listen", "127.0.0.1:0"]);
    let line = running.read_until("/metrics");
    let port = line
        .split("127.0.0.1:")
        .nth(1)
        .and_then(|rest| rest.split('/').next());
    let port = port.and_then(|digits| digits.parse().ok()).expect("a port");
    running.read_until("Ctrl-C");
    (running, port)
}

#[test]
fn metrics_are_all_there_and_health_is_told() {
    let (_running, port) = start();
    let (status, body) = http_get(port, "/metrics").unwrap();
    assert_eq!(status, 200);
    for metric in names::ALL {
        assert!(
            body.contains(&format!("# TYPE {} ", metric.name)),
            "{}",
            metric.name
        );
    }
    assert!(body.contains("lockstep_build_info{version="), "{body}");
    assert_eq!(
        http_get(port, "/healthz").unwrap(),
        (200, "alive\n".to_owned())
    );
    until("it is ready", || {
        http_get(port, "/readyz").unwrap() == (200, "ready\n".to_owned())
    });
    assert_eq!(http_get(port, "/nothing").unwrap().0, 404);
    let page = http_get(port, "/").unwrap().1;
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert!(page.contains(&format!("href=\"{path}\"")), "{path}");
    }
}

#[test]
fn whoever_connects_and_says_nothing_is_sent_away() {
    let (_running, port) = start();
    // As many as there are places: who comes later waits until their time is up.
    let silent: Vec<_> = (0..64)
        .map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap())
        .collect();
    assert_eq!(http_get(port, "/healthz").unwrap().0, 200);
    for mut stream in silent {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut rest = Vec::new();
        // An end or a reset, but no timeout.
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
    }
}

#[test]
fn while_a_shard_cannot_be_reached_it_is_alive_but_not_ready() {
    let (metrics, nobody) = (Port::lease(), Port::lease());
    let metrics_port = metrics.number();
    let mut running = Running::start(&[
        "--listen",
        "127.0.0.1:0",
        "--metrics-listen",
        &format!("127.0.0.1:{metrics_port}"),
        "--shard",
        &format!("127.0.0.1:{}", nobody.number()),
        "--log-level",
        "off",
    ]);
    until("it is alive", || {
        http_get(metrics_port, "/healthz").is_ok_and(|(status, _)| status == 200)
    });
    let (status, body) = http_get(metrics_port, "/readyz").unwrap();
    assert_eq!(status, 503, "{body}");
    assert!(
        body.contains("server: ") || body.contains("shard "),
        "{body}"
    );
    running.process.signal(Signal::TERM);
    assert_eq!(running.ended(), Some(0));
}

#[test]
fn a_taken_address_is_an_error_that_names_the_setting() {
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = crate::running::run(&[
        "--shard",
        "127.0.0.1:1",
        "--metrics-listen",
        address.as_str(),
    ]);
    assert_eq!(output.status.code(), Some(1));
    let error = crate::running::text(&output.stderr);
    let expected = format!("lockstep: cannot listen on {address} (setting metrics-listen): ");
    assert!(error.starts_with(&expected), "{error}");
}

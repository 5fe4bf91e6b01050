//! SIGTERM: not ready, nobody new, idle clients go, what runs is finished, what cannot be
//! finished is named; a second SIGTERM hurries.

use crate::support::{Client, Cluster, Options, encode, eventually, leftovers, spread};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(3);

fn start(drain_timeout_ms: &str) -> (Cluster, Vec<String>) {
    let settings = [
        ("drain-timeout-ms", drain_timeout_ms),
        ("request-timeout-ms", "30000"),
    ];
    let cluster = Cluster::start(&Options {
        proxy: settings
            .map(|(name, value)| (name.into(), value.into()))
            .into(),
        ..Options::default()
    });
    let keys = spread("drain", 3, 3);
    (cluster, keys)
}

/// A transaction over all shards that stands still, since one of them does.
fn stuck(cluster: &Cluster, keys: &[String]) -> Client {
    let mut client = cluster.client();
    cluster.shards()[2].pause();
    let commands = [
        vec!["MULTI"],
        vec!["INCR", &keys[0]],
        vec!["INCR", &keys[1]],
        vec!["INCR", &keys[2]],
    ];
    let bytes: Vec<u8> = commands
        .iter()
        .flat_map(|command| encode(command))
        .collect();
    client.send(&bytes).expect("sent");
    for _ in 0..4 {
        client.read().expect("MULTI and what is queued");
    }
    client.send(&encode(&["EXEC"])).expect("sent");
    eventually("it is prepared on the others", SOON, || {
        !leftovers(&cluster.shards()[..2]).is_settled()
    });
    client
}

#[test]
fn what_runs_is_finished_and_the_idle_go() {
    let (mut cluster, keys) = start("20000");
    let mut idle = cluster.client();
    idle.call(&["PING"]);
    let mut client = stuck(&cluster, &keys);
    cluster.proxies()[0].terminate();
    assert!(idle.is_closed_within(SOON), "an idle client stays");
    eventually("nobody new is let in", SOON, || {
        Client::connect(cluster.port(0)).is_err()
    });
    let ready = cluster.proxies()[0].http_get("/readyz");
    assert!(
        ready.starts_with("HTTP/1.1 503") && ready.contains("draining"),
        "{ready}"
    );
    assert!(cluster.proxy_mut(0).is_running(), "it has not waited");
    cluster.shards()[2].resume();
    let reply = client.read().expect("EXEC is answered").value;
    assert_eq!(reply.elements().len(), 3, "{reply}");
    let status = cluster.proxy_mut(0).wait(SOON).expect("it ends");
    assert!(status.success(), "{status}");
    cluster.wait_settled(SOON);
}

#[test]
fn what_cannot_be_finished_is_named() {
    let (mut cluster, keys) = start("1000");
    expect_left(&cluster);
    let _client = stuck(&cluster, &keys);
    cluster.proxies()[0].terminate();
    cluster.proxy_mut(0).wait(SOON).expect("it ends");
    check_named(&mut cluster);
}

#[test]
fn a_second_signal_hurries() {
    let (mut cluster, keys) = start("60000");
    expect_left(&cluster);
    let _client = stuck(&cluster, &keys);
    cluster.proxies()[0].terminate();
    std::thread::sleep(Duration::from_millis(300));
    assert!(
        cluster.proxy_mut(0).is_running(),
        "the first one hurries already"
    );
    let begin = Instant::now();
    cluster.proxies()[0].terminate();
    cluster.proxy_mut(0).wait(SOON).expect("it ends");
    println!("ended {:?} after the second signal", begin.elapsed());
    check_named(&mut cluster);
}

fn expect_left(cluster: &Cluster) {
    for text in ["hurrying", "left to recovery"] {
        cluster.expect_log(text);
    }
}

/// The log has the id that the shards have, and the next process settles it.
fn check_named(cluster: &mut Cluster) {
    let log = cluster.proxies()[0].log();
    let line = log
        .lines()
        .find(|line| line.contains("a transaction is left to recovery"));
    let id = line.and_then(|line| line.split("id=").nth(1)?.split_whitespace().next());
    let id = id.unwrap_or_else(|| panic!("no id in\n{log}")).to_owned();
    let record = format!("__lockstep:txn:{id}");
    let known = cluster.shards()[0]
        .client()
        .value(&["EXISTS", &record])
        .integer();
    assert_eq!(known, Some(1), "the shards know nothing of {id}");
    cluster.shards()[2].resume();
    cluster.restart(0);
    cluster.wait_settled(Duration::from_secs(10));
    // Its end has the same name in the log of who brought it about.
    let recovered = |line: &str| {
        line.contains("recovered a transaction that nobody finished") && line.contains(&id)
    };
    eventually("the log names what was recovered", SOON, || {
        cluster.proxies()[0].log().lines().any(recovered)
    });
}

//! Two proxies, restarted in turn while applications go on: no wrong reply, no transaction lost
//! or doubled; what the applications see of it is counted.

use crate::applications::{Application, Bank};
use crate::knocks::{Knocker, Knocks};
use crate::support::{Cluster, Options, Proxy, long};
use std::time::Duration;

const STOP_LIMIT: Duration = Duration::from_secs(15);
/// Between two restarts.
const PAUSE: Duration = Duration::from_millis(400);

/// How one process follows another.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Stop, then start at the same port.
    SamePort,
    /// The same, with a listener that stays open meanwhile.
    HandedOver,
    /// Start beside the former one, then stop that.
    Beside,
}

#[test]
fn restarts_at_the_same_port() {
    let knocks = roll(Way::SamePort);
    assert!(
        knocks.iter().any(|knocks| knocks.refused > 0),
        "the test sees no restart"
    );
}

#[test]
fn restarts_with_a_listener_handed_over() {
    for knocks in roll(Way::HandedOver) {
        assert_eq!(knocks.refused, 0, "connections were refused: {knocks:?}");
    }
}

#[test]
fn restarts_side_by_side() {
    for knocks in roll(Way::Beside) {
        assert_eq!(knocks.refused, 0, "connections were refused: {knocks:?}");
    }
}

/// How connections fared meanwhile, by proxy.
fn roll(way: Way) -> Vec<Knocks> {
    if std::env::var("LOCKSTEP_OFFLINE").is_ok_and(|value| value == "1") {
        println!("LOCKSTEP_OFFLINE=1: client libraries are left out");
    }
    let mut cluster = start(way);
    let bank = Bank::open(&cluster);
    let ports = [cluster.port(0), cluster.port(1)];
    let applications = Application::start_all(&bank, &ports);
    let knockers = ports.map(Knocker::start);
    let rounds = if long() { 20 } else { 2 };
    std::thread::sleep(2 * PAUSE);
    for _ in 0..rounds {
        for number in 0..2 {
            restart(cluster.proxy_mut(number), way);
            bank.check_sum(&mut cluster.client_at(1 - number));
            std::thread::sleep(PAUSE);
        }
    }
    let knocks: Vec<Knocks> = knockers.into_iter().map(Knocker::finish).collect();
    let mut client = cluster.client();
    for application in applications {
        let report = application.finish(&mut client);
        println!(
            "{way:?}: {}: {} acknowledged, errors {:?}",
            report.name, report.acknowledged, report.errors
        );
        assert!(report.acknowledged > 0, "{} was not served", report.name);
    }
    println!(
        "{way:?}: {} restarts, new connections {knocks:?}",
        2 * rounds
    );
    bank.check_sum(&mut client);
    cluster.wait_settled(Duration::from_secs(10));
    knocks
}

fn start(way: Way) -> Cluster {
    let mut proxy = vec![("drain-timeout-ms".to_owned(), "5000".to_owned())];
    if matches!(way, Way::Beside) {
        proxy.push(("reuse-port".to_owned(), "true".to_owned()));
    }
    let mut cluster = Cluster::start(&Options {
        proxies: 2,
        proxy,
        ..Options::default()
    });
    if matches!(way, Way::HandedOver) {
        for number in 0..2 {
            cluster.proxy_mut(number).keep_listener();
            cluster.proxy_mut(number).restart();
        }
    }
    cluster
}

fn restart(proxy: &mut Proxy, way: Way) {
    let status = if matches!(way, Way::Beside) {
        let mut former = proxy.start_follower();
        former.signal(rustix::process::Signal::TERM);
        former.wait(STOP_LIMIT)
    } else {
        proxy.terminate();
        let status = proxy.wait(STOP_LIMIT);
        proxy.restart();
        status
    };
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
}

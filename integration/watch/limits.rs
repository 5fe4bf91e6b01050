//! What clients that watch may hold.

use crate::support::eventually;
use crate::{LIMIT, cluster, exec, keys, ok};

/// Clients that watch and do nothing starve neither transactions nor, for long, each other.
#[test]
fn idle_watchers_are_bounded_and_in_nobodys_way() {
    let settings = [
        ("watch-connections-max", "2"),
        ("pinned-connections-max", "1"),
        ("pinned-wait-ms", "100"),
    ];
    let Some(cluster) = cluster(1, &settings) else {
        return;
    };
    let [a, b, c] = &keys();
    let in_use = || cluster.proxies()[0].metric("lockstep_watch_connections_in_use", "shard");
    let (mut first, mut second) = (cluster.client(), cluster.client());
    ok(&mut first, &format!("WATCH {a}"));
    ok(&mut second, &format!("WATCH {a}"));

    let mut third = cluster.client();
    let error = third.say(&format!("WATCH {a}")).error().expect("an error");
    assert!(error.contains("watch-connections-max is 2"), "{error}");
    assert!(!exec(&mut third, &[a]));
    // Replies that no script can carry: this needs pinned connections.
    ok(&mut third, "MULTI");
    for key in [b, c] {
        third.say(&format!("LPOP {key} 1"));
    }
    assert_eq!(third.say("EXEC").elements().len(), 2);

    drop(first);
    ok(&mut second, "UNWATCH");
    eventually("nobody watches", LIMIT, || in_use() == 0.0);
    ok(&mut third, &format!("WATCH {a} {b}"));
    assert!(exec(&mut third, &[a]));
    eventually("nobody watches", LIMIT, || in_use() == 0.0);
}

#[test]
fn the_number_of_watched_keys_is_bounded() {
    let Some(cluster) = cluster(1, &[("watched-keys-max", "3")]) else {
        return;
    };
    let [a, b, c] = &keys();
    let mut client = cluster.client();
    ok(&mut client, &format!("WATCH {a} {b} {a}"));
    ok(&mut client, &format!("WATCH {b} {c}"));
    let error = client.say("WATCH one:more").error().expect("an error");
    assert!(error.contains("watched-keys-max is 3"), "{error}");
    assert!(!exec(&mut client, &[a]));
    ok(&mut client, &format!("WATCH {a}"));
    ok(&mut client, "UNWATCH");
    ok(&mut client, &format!("WATCH {a} {b} {c}"));
    assert!(exec(&mut client, &[a, b]));
}

/// Nobody watches what is lockstep's own.
#[test]
fn reserved_keys_are_not_watched() {
    let Some(cluster) = cluster(1, &[]) else {
        return;
    };
    let mut client = cluster.client();
    let error = client.say("WATCH a __lockstep:epoch").error();
    assert!(error.is_some_and(|text| text.contains("reserved")));
}

/// Keys of several databases, in one session.
#[test]
fn keys_of_several_databases_are_watched() {
    let Some(cluster) = cluster(1, &[]) else {
        return;
    };
    let [a, b, _] = &keys();
    let mut other = cluster.client();
    ok(&mut other, "SELECT 5");
    for (watched, changed, expected) in [(b, a, false), (b, b, false), (a, b, true)] {
        let mut client = cluster.client();
        ok(&mut client, &format!("WATCH {a}"));
        ok(&mut client, "SELECT 5");
        ok(&mut client, &format!("WATCH {watched}"));
        ok(&mut client, "SELECT 0");
        let by = if changed == a {
            &mut cluster.client()
        } else {
            &mut other
        };
        ok(by, &format!("SET {changed} theirs"));
        assert_eq!(exec(&mut client, &[a]), expected, "{watched} {changed}");
    }
}

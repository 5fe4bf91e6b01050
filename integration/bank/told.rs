//! What a client is told when something went wrong behind its EXEC, made to go wrong on purpose.

use crate::support::{Client, Cluster, Options, encode, eventually_with, key_on};
use crate::{LOCK_TTL, ONE_AT_A_TIME, options};
use std::time::{Duration, Instant};

/// Sends a whole MULTI … EXEC.
fn send(client: &mut Client, commands: &[&[&str]]) {
    let mut raw = encode(&["MULTI"]);
    commands.iter().for_each(|words| raw.extend(encode(words)));
    raw.extend(encode(&["EXEC"]));
    client.send(&raw).expect("it is sent");
}

/// The reply to its EXEC, as text.
fn told(client: &mut Client, commands: usize) -> String {
    for _ in 0..=commands {
        client.read().expect("a reply to MULTI or a queued command");
    }
    client.read().expect("a reply to EXEC").text()
}

/// P4: a coordinator that was only slow finds its transaction finished by another; its client
/// gets the replies all the same, in both protocols.
#[test]
fn the_replies_of_a_recovered_transaction_are_not_lost() {
    let _turn = ONE_AT_A_TIME.lock();
    let cluster = Cluster::start(&options(false));
    if !cluster.is_lockstep() {
        return;
    }
    for pattern in ["recover", "settled", "late", "in doubt"] {
        cluster.expect_log(pattern);
    }
    let [a, b] = [0, 1].map(|shard| key_on("k", shard, 3));
    for hello in ["2", "3"] {
        let mut client = cluster.client();
        client.call(&["HELLO", hello]);
        client.call(&["MSET", &a, "1", &b, "1"]);
        cluster.wait_settled(LOCK_TTL);
        // One shard does not answer, so that the vote is open when the coordinator stops.
        cluster.shards()[1].pause();
        let commands: [&[&str]; 3] = [&["INCR", &a], &["INCRBY", &b, "5"], &["GET", "none"]];
        send(&mut client, &commands);
        eventually_with("the first shard is prepared", LOCK_TTL, || {
            let index = cluster.shards()[0]
                .client()
                .value(&["HLEN", "__lockstep:index"]);
            (index.integer() == Some(1)).then_some(()).ok_or(index)
        });
        cluster.proxies()[0].pause();
        cluster.shards()[1].resume();
        let mut other = cluster.client_at(1);
        eventually_with("another lockstep has finished it", LOCK_TTL * 3, || {
            let value = other.value(&["GET", &b]);
            match value.bytes() == Some(b"6") && cluster.leftovers().is_settled() {
                true => Ok(()),
                false => Err(value),
            }
        });
        cluster.proxies()[0].resume();
        let nil = if hello == "3" { "_\r\n" } else { "$-1\r\n" };
        let reply = told(&mut client, commands.len());
        let wanted = format!("*3\r\n:2\r\n:6\r\n{nil}");
        let wanted = wanted.escape_default().to_string();
        assert_eq!(reply, wanted, "protocol {hello}");
    }
}

/// P4: an EXEC on a single shard that is lost says what is certain, and names no id that nobody
/// could ever look up.
#[test]
fn an_exec_lost_with_its_only_shard_is_told_as_such() {
    let _turn = ONE_AT_A_TIME.lock();
    let mut cluster = Cluster::start(&Options {
        proxies: 1,
        ..options(false)
    });
    if !cluster.is_lockstep() {
        return;
    }
    cluster.expect_log("shard");
    let key = key_on("k", 1, 3);
    let mut client = cluster.client();
    client.call(&["SET", &key, "1"]);
    cluster.shards()[1].pause();
    send(&mut client, &[&["INCR", &key]]);
    // It must have been written to the shard; then it can only be lost, not withheld.
    let begin = Instant::now();
    eventually_with("it was sent", Duration::from_secs(5), || {
        let inflight = cluster.proxies()[0].metric("lockstep_shard_inflight_requests", "");
        (inflight > 0.0 || begin.elapsed() > Duration::from_secs(1))
            .then_some(())
            .ok_or(inflight)
    });
    cluster.shard_mut(1).kill();
    let reply = told(&mut client, 1);
    for words in [
        "the outcome of the transaction is not known",
        "all of it was applied or nothing",
        "no id to ask for",
    ] {
        assert!(reply.contains(words), "{reply}");
    }
    assert!(reply.starts_with("-ERR connection to shard"), "{reply}");
    assert!(!reply.contains("LOCKSTEP TXN STATUS"), "{reply}");
}

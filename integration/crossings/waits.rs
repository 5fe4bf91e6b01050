//! Waiting for an element to move, and what ends it.

use std::time::{Duration, Instant};

use crate::support::wait::eventually;
use crate::support::{Client, Cluster, Options, Value, spread};

const SOON: Duration = Duration::from_secs(10);

fn is_waiting(client: &mut Client, count: usize) {
    eventually("it waits", SOON, || {
        let list = client.say("CLIENT LIST");
        let text = String::from_utf8_lossy(list.bytes().unwrap_or_default()).into_owned();
        text.matches(" flags=b ").count() == count
    });
}

/// Somebody pushes, through another proxy, by a plain command or a transaction; the time is up;
/// CLIENT UNBLOCK; the client goes. What is pushed then stays.
#[test]
fn waiting_for_a_move() {
    let cluster = Cluster::start(&Options {
        proxies: 2,
        ..Options::default()
    });
    let keys = spread("wait", 3, 3);
    let [from, to, other] = [&keys[0], &keys[1], &keys[2]];
    let (mut me, mut him, mut they) = (cluster.client(), cluster.client_at(1), cluster.client());
    let wait = format!("BLMOVE {from} {to} LEFT RIGHT 0\r\n");

    me.send(wait.as_bytes()).expect("sent");
    is_waiting(&mut they, 1);
    him.say(&format!("RPUSH {from} a"));
    assert_eq!(me.read().expect("a reply").value.bytes(), Some(&b"a"[..]));

    me.send(wait.as_bytes()).expect("sent");
    is_waiting(&mut they, 1);
    for line in [
        "MULTI".to_owned(),
        format!("RPUSH {from} b c"),
        format!("SET {other} x"),
    ] {
        him.say(&line);
    }
    assert_eq!(him.say("EXEC").elements().len(), 2);
    assert_eq!(me.read().expect("a reply").value.bytes(), Some(&b"b"[..]));
    assert_eq!(him.say(&format!("LPOP {from}")).bytes(), Some(&b"c"[..]));

    let began = Instant::now();
    let reply = me.say(&format!("BRPOPLPUSH {from} {to} 0.2"));
    assert!(matches!(reply, Value::Nil), "{reply}");
    assert!(began.elapsed() >= Duration::from_millis(190));

    let id = me.say("CLIENT ID").integer().expect("an id");
    for how in ["TIMEOUT", "ERROR"] {
        me.send(wait.as_bytes()).expect("sent");
        eventually("it waits", SOON, || {
            they.say(&format!("CLIENT UNBLOCK {id} {how}")).integer() == Some(1)
        });
        let reply = me.read().expect("a reply").value;
        match how {
            "TIMEOUT" => assert!(matches!(reply, Value::Nil), "{reply}"),
            _ => assert!(
                reply.error().unwrap_or_default().starts_with("UNBLOCKED "),
                "{reply}"
            ),
        }
    }

    // A destination that becomes wrong is told when there is something to be pushed to it.
    me.send(format!("BLMOVE {from} {other} LEFT RIGHT 0\r\n").as_bytes())
        .expect("sent");
    is_waiting(&mut they, 1);
    him.say(&format!("RPUSH {from} d"));
    let reply = me.read().expect("a reply").value;
    assert!(
        reply.error().unwrap_or_default().starts_with("WRONGTYPE "),
        "{reply}"
    );
    assert_eq!(him.say(&format!("LPOP {from}")).bytes(), Some(&b"d"[..]));

    me.send(wait.as_bytes()).expect("sent");
    is_waiting(&mut they, 1);
    drop(me);
    is_waiting(&mut they, 0);
    him.say(&format!("RPUSH {from} e"));
    assert_eq!(they.say(&format!("LRANGE {to} 0 -1")).elements().len(), 2);
    assert_eq!(they.say(&format!("LLEN {from}")).integer(), Some(1));
    cluster.wait_settled(SOON);
}

/// Several wait for the same list: each element goes to one of them, and all are served.
#[test]
fn each_element_serves_one() {
    let cluster = Cluster::start(&Options {
        proxies: 2,
        ..Options::default()
    });
    let keys = spread("queue", 3, 2);
    let mut waiting: Vec<Client> = (0..12).map(|at| cluster.client_at(at % 2)).collect();
    for client in &mut waiting {
        let line = format!("BLMOVE {} {} LEFT RIGHT 0\r\n", keys[0], keys[1]);
        client.send(line.as_bytes()).expect("sent");
    }
    let mut pusher = cluster.client();
    for element in 0..12 {
        pusher.say(&format!("RPUSH {} {element}", keys[0]));
    }
    let mut got: Vec<Vec<u8>> = waiting
        .iter_mut()
        .map(|client| {
            client
                .read()
                .expect("a reply")
                .value
                .bytes()
                .expect("an element")
                .to_vec()
        })
        .collect();
    got.sort();
    got.dedup();
    assert_eq!(got.len(), 12);
    assert_eq!(pusher.say(&format!("LLEN {}", keys[1])).integer(), Some(12));
    cluster.wait_settled(SOON);
}

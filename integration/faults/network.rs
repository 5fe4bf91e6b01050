//! The network that fails on command, tested.

use crate::support::{Client, Redis, Relay, Way, eventually};
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(150);

#[test]
fn it_does_what_networks_do() {
    let redis = Redis::start(&[]);
    let relay = Relay::start(redis.port());
    let open = || Client::connect(relay.port()).expect("a connection");
    let mut client = open();
    assert_eq!(client.say("INCR n").integer(), Some(1));

    relay.delay(SHORT);
    let begin = Instant::now();
    assert_eq!(client.say("INCR n").integer(), Some(2));
    assert!(begin.elapsed() > SHORT * 2);
    relay.heal();

    relay.half_open(Way::Back);
    client.reply_limit(SHORT);
    assert!(client.try_call(&["INCR", "n"]).is_err());
    let mut other = open();
    eventually("it was done", Duration::from_secs(5), || {
        other.say("GET n").integer() == Some(3)
    });

    relay.half_open(Way::There);
    other.reply_limit(SHORT);
    assert!(other.try_call(&["INCR", "n"]).is_err());
    assert_eq!(open().say("GET n").integer(), Some(3));

    let mut third = open();
    assert_eq!(third.say("INCR n").integer(), Some(4));
    relay.take_down();
    assert!(third.try_call(&["INCR", "n"]).is_err());
    assert!(open().try_call(&["INCR", "n"]).is_err());
    relay.heal();
    assert_eq!(open().say("INCR n").integer(), Some(5));
}

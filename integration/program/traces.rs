//! Traces: what is asked for by LOCKSTEP TRACE, or is its turn, arrives at a collector; and nothing
//! depends on there being one.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use serde_json::Value as Json;

use crate::collector::{Collector, attribute, name, text, times};
use crate::running::until;
use crate::support::{Client, Cluster, Options, Value, encode, key_on, spread};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const ABOVE: &str = "00f067aa0ba902b7";

fn started(settings: &[(&str, &str)]) -> Cluster {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Cluster::start(&Options {
        proxy: settings.iter().map(own).collect(),
        ..Options::default()
    })
}

/// Says what this client does next, in a trace whose id ends in this.
fn trace(client: &mut Client, end: &str) {
    let words = format!(
        "LOCKSTEP TRACE 00-{}{end}-{ABOVE}-01 vendor=x",
        &TRACE[..30]
    );
    assert_eq!(client.say(&words), Value::Simple(b"OK".to_vec()));
}

/// The spans of such a trace.
fn of<'a>(spans: &'a [Json], end: &str) -> Vec<&'a Json> {
    let id = format!("{}{end}", &TRACE[..30]);
    spans
        .iter()
        .filter(|span| text(span, "traceId") == id)
        .collect()
}

fn root<'a>(spans: &[&'a Json]) -> &'a Json {
    let is_root = |span: &&&Json| text(span, "parentSpanId") == ABOVE;
    let mut roots = spans.iter().filter(is_root);
    let root = roots.next().expect("a span below what the client named");
    assert!(roots.next().is_none(), "two of them");
    assert_eq!(
        (&root["kind"], text(root, "traceState")),
        (&Json::from(2), "vendor=x")
    );
    root
}

/// All others are directly below the root.
fn steps<'a>(spans: &[&'a Json], wanted: &str) -> Vec<&'a Json> {
    let root = root(spans);
    let named = spans.iter().filter(|span| name(span) == wanted);
    let steps: Vec<&Json> = named.copied().collect();
    for step in &steps {
        assert_eq!(text(step, "parentSpanId"), text(root, "spanId"));
        assert_eq!(step["kind"], 3);
        assert!(times(root).0 <= times(step).0 && times(step).0 <= times(step).1);
    }
    steps
}

#[test]
fn what_a_client_asks_for_is_traced_step_by_step() {
    let collector = Collector::start();
    let cluster = started(&[("trace-collector", &collector.address())]);
    let mut client = cluster.client();
    let keys = spread("traced:", 3, 3);
    client.say("GET untraced");
    trace(&mut client, "01");
    client.say(&format!("GET {}", keys[0]));
    client.say("GET untraced");
    trace(&mut client, "02");
    let increments = keys.iter().map(|key| format!("INCR {key}"));
    let words: Vec<String> = [
        vec!["MULTI".into()],
        increments.collect(),
        vec!["EXEC".into()],
    ]
    .concat();
    let said: Vec<Value> = words.iter().map(|line| client.say(line)).collect();
    assert_eq!(said.last().expect("EXEC").elements().len(), 3);
    trace(&mut client, "03");
    for line in ["MULTI", &format!("INCR {}", keys[1]), "EXEC"] {
        client.say(line);
    }
    trace(&mut client, "04");
    assert!(
        client
            .say(&format!("LPUSH {} x", keys[2]))
            .error()
            .is_some()
    );
    trace(&mut client, "05");
    client.say(&format!("MSET {} a {} b", keys[0], keys[1]));
    trace(&mut client, "06");
    client.say(&format!("MGET {} {}", keys[0], keys[1]));
    trace(&mut client, "07");
    client.say("NONSENSE");
    client.say(&format!("LOCKSTEP TRACE 00-{}08-{ABOVE}-00", &TRACE[..30]));
    client.say("GET unsampled");
    trace(&mut client, "09");
    client.say("CLIENT ID");

    let spans = collector.spans_when(|spans| {
        let releases = spans.iter().filter(|span| name(span) == "release").count();
        releases >= 5 && !of(spans, "09").is_empty()
    });
    let get = of(&spans, "01");
    assert_eq!((name(root(&get)), get.len()), ("GET", 2));
    let [shard] = steps(&get, "shard")[..] else {
        panic!("{get:?}")
    };
    let address = cluster.shards()[0].address();
    assert!(address.ends_with(&format!(":{}", attribute(shard, "server.port"))));
    assert!(times(shard).1 <= times(root(&get)).1);
    assert!(attribute(root(&get), "client.address").starts_with("127.0.0.1:"));

    let exec = of(&spans, "02");
    let whole = root(&exec);
    assert_eq!((name(whole), exec.len()), ("EXEC", 1 + 3 * 3));
    let told = ["scope", "outcome", "attempts", "participants"];
    let told = told.map(|key| attribute(whole, &format!("lockstep.{key}")));
    assert_eq!(told, ["distributed", "committed", "1", "3"]);
    let id = attribute(whole, "lockstep.transaction.id");
    assert!(!id.is_empty());
    for (step, answer) in [
        ("prepare", "yes"),
        ("apply", "applied"),
        ("release", "done"),
    ] {
        let steps = steps(&exec, step);
        let mut shards: Vec<String> = steps
            .iter()
            .map(|s| attribute(s, "lockstep.shard"))
            .collect();
        shards.sort();
        assert_eq!(shards, ["0", "1", "2"], "{step}");
        let says = |s: &&Json| {
            attribute(s, "lockstep.answer") == answer
                && attribute(s, "lockstep.transaction.id") == id
        };
        assert!(steps.iter().all(says), "{step}: {steps:?}");
    }

    let alone = of(&spans, "03");
    assert_eq!(
        (
            name(root(&alone)),
            alone.len(),
            steps(&alone, "shard").len()
        ),
        ("EXEC", 2, 1)
    );
    assert_eq!(attribute(root(&alone), "lockstep.scope"), "single");
    let wrong = of(&spans, "04");
    let status = &root(&wrong)["status"];
    assert_eq!(
        (&status["code"], text(status, "message")),
        (&Json::from(2), "WRONGTYPE")
    );
    assert_eq!(name(root(&of(&spans, "05"))), "MSET");
    assert_eq!(steps(&of(&spans, "05"), "prepare").len(), 2);
    assert_eq!(name(root(&of(&spans, "06"))), "MGET");
    assert_eq!(
        text(&root(&of(&spans, "07"))["status"], "message"),
        "command"
    );
    assert!(of(&spans, "08").is_empty(), "not sampled by who is above");
    assert_eq!(name(root(&of(&spans, "09"))), "CLIENT ID");
    let strange = spans
        .iter()
        .filter(|span| !text(span, "traceId").starts_with(&TRACE[..30]));
    assert_eq!(strange.count(), 0);
    until("all are counted", || {
        let exported = cluster.proxies()[0].metric("lockstep_spans_total", "exported");
        exported == spans.len() as f64
    });
}

/// For clients whose connections come from a pool: the trace is named inside the transaction. And
/// many in one pipeline, each for what follows it.
#[test]
fn a_transaction_may_name_its_trace_itself() {
    let collector = Collector::start();
    let cluster = started(&[("trace-collector", &collector.address())]);
    let mut client = cluster.client();
    let keys = spread("inside:", 3, 2);
    let named = |end: &str| format!("00-{}{end}-{ABOVE}-01", &TRACE[..30]);
    for watched in [false, true] {
        let end = if watched { "12" } else { "11" };
        if watched {
            client.say(&format!("WATCH {}", keys[0]));
        }
        let commands = [
            vec!["LOCKSTEP".to_owned(), "TRACE".into(), named(end)],
            vec!["INCR".into(), keys[0].clone()],
            vec!["INCR".into(), keys[1].clone()],
        ];
        let replies = client.try_transaction(&commands).expect("replies");
        assert_eq!(replies.elements().len(), 3);
        assert_eq!(replies.elements()[0], Value::Simple(b"OK".to_vec()));
    }
    let pairs = (20..60).flat_map(|end| {
        let trace = vec![
            "LOCKSTEP".to_owned(),
            "TRACE".into(),
            named(&end.to_string()),
        ];
        [trace, vec!["SET".into(), format!("k{end}"), "v".into()]]
    });
    let pairs: Vec<_> = pairs.collect();
    let replies = client.try_pipeline(&pairs).expect("replies");
    assert!(replies.iter().all(|reply| reply.raw == b"+OK\r\n"));
    for bad in ["", " x", " 00-0-0-01", &format!(" {} y z", named("11"))] {
        let said = client.say(&format!("LOCKSTEP TRACE{bad}")).error();
        assert!(
            said.is_some_and(|said| said.contains("traceparent")),
            "{bad}"
        );
    }
    let spans = collector.spans_when(|spans| {
        let roots = spans
            .iter()
            .filter(|span| text(span, "parentSpanId") == ABOVE);
        roots.count() == 42
    });
    for end in ["11", "12"] {
        let mine = of(&spans, end);
        let is_root = |span: &&&Json| text(span, "parentSpanId") == ABOVE;
        let root = mine.iter().find(is_root).expect("a root");
        assert_eq!(
            (name(root), &*attribute(root, "lockstep.outcome")),
            ("EXEC", "committed")
        );
        let prepares = mine.iter().filter(|span| name(span) == "prepare");
        assert_eq!(prepares.count(), 2, "{mine:?}");
    }
    for end in 20..60 {
        let mine = of(&spans, &end.to_string());
        assert_eq!(mine.len(), 2, "{mine:?}");
        assert!(mine.iter().any(|span| name(span) == "SET"));
    }
}

#[test]
fn one_in_so_many_is_traced_without_being_asked_for() {
    let collector = Collector::start();
    let address = collector.address();
    let cluster = started(&[("trace-collector", &address), ("trace-sample", "10")]);
    let mut client = cluster.client();
    // The tests' own PING was the first of all.
    for number in 0..100 {
        client.say(&format!("SET key:{number} v"));
    }
    let spans =
        collector.spans_when(|spans| spans.iter().filter(|span| name(span) == "SET").count() >= 10);
    let roots = spans
        .iter()
        .filter(|span| text(span, "parentSpanId").is_empty());
    let roots: Vec<&Json> = roots.collect();
    assert!(
        (10..=12).contains(&roots.len()),
        "{} of about 100",
        roots.len()
    );
    let mut ids: Vec<&str> = roots.iter().map(|span| text(span, "traceId")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), roots.len(), "each has a trace of its own");
}

/// A collector that is not there costs a counter and one line, whatever is traced.
#[test]
fn a_collector_that_is_away_is_missed_by_nobody() {
    let collector = Collector::prepared();
    let address = collector.address();
    let cluster = started(&[("trace-collector", &address), ("trace-sample", "1")]);
    let missed = "the collector of traces does not take spans";
    cluster.expect_log(missed);
    let proxy = &cluster.proxies()[0];
    let mut client = cluster.client();
    let failed = || proxy.metric("lockstep_spans_total", "export_failed");
    for round in 0..3 {
        let before = failed();
        assert!(client.say(&format!("SET key:{round} v")).error().is_none());
        until("spans are dropped", || failed() > before);
    }
    assert_eq!(proxy.log().matches(missed).count(), 1);
    collector.listen();
    until("it is told of again", || {
        client.say("PING");
        proxy
            .log()
            .contains("the collector of traces takes spans again")
    });
    assert!(proxy.metric("lockstep_spans_total", "exported") >= 1.0);
}

/// One that takes connections and says nothing makes nobody wait, and no queue grow.
#[test]
fn a_collector_that_hangs_makes_nobody_wait() {
    let port = crate::support::ports::Port::lease();
    let hanging = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).expect("a port");
    let address = format!("127.0.0.1:{}", port.number());
    let cluster = started(&[("trace-collector", &address), ("trace-sample", "1")]);
    cluster.expect_log("the collector of traces does not take spans");
    let mut client = cluster.client();
    let key = key_on("hangs", 0, 3);
    let gets = vec![vec!["GET", &key]; 1_000];
    for _ in 0..4 {
        client.try_pipeline(&gets).expect("replies");
    }
    let dropped = cluster.proxies()[0].metric("lockstep_spans_total", "queue_full");
    // Two spans each; 4096 wait, and 512 are on their way.
    assert!(
        (3_000.0..8_000.0).contains(&dropped),
        "{dropped} were dropped"
    );
    client.send(&encode(&["PING"])).expect("sent");
    client.reply_limit(Duration::from_secs(1));
    assert_eq!(client.read().expect("a reply").raw, b"+PONG\r\n");
    drop(hanging);
}

//! A collector of traces, as small as can be: OTLP over HTTP, in JSON.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::spawn;
use std::time::Duration;

use serde_json::Value as Json;

use crate::support::eventually_with;
use crate::support::ports::Port;

/// Gathers spans until the test ends.
pub struct Collector {
    pub port: Port,
    spans: Arc<Mutex<Vec<Json>>>,
}

impl Collector {
    /// Not listening yet.
    pub fn prepared() -> Collector {
        Collector {
            port: Port::lease(),
            spans: Arc::default(),
        }
    }

    pub fn start() -> Collector {
        let collector = Collector::prepared();
        collector.listen();
        collector
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    pub fn listen(&self) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port.number()));
        let (listener, spans) = (listener.expect("a port"), Arc::clone(&self.spans));
        spawn(move || {
            for stream in listener.incoming() {
                let (stream, spans) = (stream.expect("a connection"), Arc::clone(&spans));
                spawn(move || {
                    while let Some(request) = serve(&stream) {
                        spans.lock().expect("not poisoned").extend(request);
                    }
                });
            }
        });
    }

    /// All spans, as soon as this holds of them.
    pub fn spans_when(&self, wanted: impl Fn(&[Json]) -> bool) -> Vec<Json> {
        let mut spans = Vec::new();
        eventually_with("the spans are there", Duration::from_secs(10), || {
            spans = self.spans.lock().expect("not poisoned").clone();
            let names: Vec<&str> = spans.iter().map(name).collect();
            if wanted(&spans) {
                Ok(())
            } else {
                Err(format!("{names:?}"))
            }
        });
        spans
    }
}

/// Answers one request: its spans; None at the end of the connection.
fn serve(stream: &TcpStream) -> Option<Vec<Json>> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length, mut is_json) = (String::new(), 0, false);
    assert!(reader.read_line(&mut line).ok()? == 0 || line == "POST /v1/traces HTTP/1.1\r\n");
    while !line.trim().is_empty() {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let header = line.to_ascii_lowercase();
        is_json |= header.trim() == "content-type: application/json";
        if let Some(text) = header.strip_prefix("content-length:") {
            length = text.trim().parse().expect("a length");
        }
    }
    if length == 0 {
        return None;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    assert!(is_json, "the body is not announced as JSON");
    let mut stream = stream;
    stream
        .write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
        )
        .ok()?;
    let body: Json = serde_json::from_slice(&body).expect("JSON");
    let resource = &body["resourceSpans"][0];
    assert_eq!(attribute(&resource["resource"], "service.name"), "lockstep");
    let spans = resource["scopeSpans"][0]["spans"].as_array();
    Some(spans.expect("spans").clone())
}

/// A field of a span that is a text.
pub fn text<'a>(span: &'a Json, field: &str) -> &'a str {
    span[field].as_str().unwrap_or_default()
}

pub fn name(span: &Json) -> &str {
    text(span, "name")
}

/// An attribute, whatever its type; empty if there is none.
pub fn attribute(of: &Json, key: &str) -> String {
    let attributes = of["attributes"].as_array().expect("attributes");
    let found = attributes.iter().find(|attribute| attribute["key"] == key);
    let value = found.map(|attribute| &attribute["value"]);
    let value =
        value.and_then(|value| value["stringValue"].as_str().or(value["intValue"].as_str()));
    value.unwrap_or_default().to_owned()
}

/// From and to, in nanoseconds.
pub fn times(span: &Json) -> (u128, u128) {
    let of = |field| text(span, field).parse().expect("nanoseconds");
    (of("startTimeUnixNano"), of("endTimeUnixNano"))
}

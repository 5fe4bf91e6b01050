//! Spans as OTLP wants them in JSON: ids in hexadecimal digits, 64-bit numbers as texts.

use serde_json::{Value as Json, json};

use super::parent::hex;
use super::trace::{Attributes, Span, Value};

/// `STATUS_CODE_ERROR`.
const ERROR: u8 = 2;
/// The flag `sampled` of W3C.
const SAMPLED: u8 = 1;

/// A request to export these spans; `instance` tells this process from others.
pub fn request(spans: &[Span], instance: &str) -> Json {
    let version = crate::build::VERSION;
    let resource = vec![
        ("service.name", Value::from("lockstep")),
        ("service.version", Value::from(version)),
        ("service.instance.id", Value::from(instance)),
    ];
    let spans: Vec<Json> = spans.iter().map(span).collect();
    json!({"resourceSpans": [{
        "resource": {"attributes": attributes(&resource)},
        "scopeSpans": [{"scope": {"name": "lockstep", "version": version}, "spans": spans}],
    }]})
}

fn span(span: &Span) -> Json {
    let mut json = json!({
        "traceId": hex(&span.parent.trace_id),
        "spanId": hex(&span.id),
        "flags": SAMPLED,
        "name": span.name,
        "kind": span.kind as u8,
        "startTimeUnixNano": span.start.as_nanos().to_string(),
        "endTimeUnixNano": span.end.as_nanos().to_string(),
        "attributes": attributes(&span.attributes),
    });
    if let Some(parent) = span.parent.span_id {
        json["parentSpanId"] = hex(&parent).into();
    }
    if !span.parent.state.is_empty() {
        json["traceState"] = span.parent.state.as_str().into();
    }
    if let Some(error) = &span.error {
        json["status"] = json!({"code": ERROR, "message": error});
    }
    json
}

fn attributes(attributes: &Attributes) -> Json {
    let one = |(name, value): &(&str, Value)| match value {
        Value::Text(text) => json!({"key": name, "value": {"stringValue": text}}),
        Value::Int(number) => json!({"key": name, "value": {"intValue": number.to_string()}}),
    };
    attributes.iter().map(one).collect()
}

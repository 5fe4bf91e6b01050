//! W3C Trace Context: `<version>-<trace id>-<parent id>-<flags>`, in hexadecimal digits.

/// 16 bytes, not all of them 0.
pub type TraceId = [u8; 16];
/// 8 bytes, not all of them 0.
pub type SpanId = [u8; 8];

/// Longest `tracestate` that is passed on.
const STATE_BYTES_MAX: usize = 512;
/// Length of a `traceparent` of version 00.
const BYTES: usize = 55;

/// What a span is part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The trace.
    pub trace_id: TraceId,
    /// The span above; None at the root of a trace.
    pub span_id: Option<SpanId>,
    /// Whether the one above is recorded.
    pub is_sampled: bool,
    /// `tracestate`, passed on as it is.
    pub state: String,
}

impl Parent {
    /// Reads `traceparent` and `tracestate` (which may be empty); None if they are none. Of versions
    /// that are not known yet, what comes behind the flags is passed over.
    pub fn read(traceparent: &[u8], tracestate: &[u8]) -> Option<Self> {
        let (head, rest) = traceparent.split_at_checked(BYTES)?;
        let mut parts = head.split(|&byte| byte == b'-');
        let version: [u8; 1] = bytes(parts.next()?)?;
        let trace_id: TraceId = bytes(parts.next()?)?;
        let span_id: SpanId = bytes(parts.next()?)?;
        let [flags] = bytes(parts.next()?)?;
        let may_have_more = version != [0] && rest.starts_with(b"-");
        let is_valid = version != [0xff]
            && (rest.is_empty() || may_have_more)
            && trace_id != TraceId::default()
            && span_id != SpanId::default();
        let is_text = |byte: &u8| (b' '..=b'~').contains(byte);
        let may_be_state = tracestate.len() <= STATE_BYTES_MAX && tracestate.iter().all(is_text);
        (is_valid && may_be_state).then(|| Self {
            trace_id,
            span_id: Some(span_id),
            is_sampled: flags & 1 == 1,
            state: String::from_utf8_lossy(tracestate).into_owned(),
        })
    }

    /// The root of a trace of our own.
    pub fn none() -> Self {
        Self {
            trace_id: random(),
            span_id: None,
            is_sampled: true,
            state: String::new(),
        }
    }
}

/// Random bytes, not all of them 0.
pub fn random<const N: usize>() -> [u8; N] {
    let mut id = [0; N];
    // Without randomness all is in vain, but an id of zeros would be no id at all.
    if getrandom::fill(&mut id).is_err() || id == [0; N] {
        id[N - 1] = 1;
    }
    id
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != 2 * N || !digits.iter().all(is_digit) {
        return None;
    }
    let mut id = [0; N];
    for (byte, pair) in id.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(text: &str) -> Option<Parent> {
        Parent::read(text.as_bytes(), b"")
    }

    #[test]
    fn a_traceparent_is_read() {
        let parent = Parent::read(GOOD.as_bytes(), b"a=1,b=2").unwrap();
        assert_eq!(hex(&parent.trace_id), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(
            parent.span_id.map(|id| hex(&id)).unwrap(),
            "00f067aa0ba902b7"
        );
        assert!(parent.is_sampled && parent.state == "a=1,b=2");
        assert!(!read(&GOOD.replace("-01", "-00")).unwrap().is_sampled);
        assert!(read(&GOOD.replace("-01", "-ff")).unwrap().is_sampled);
        assert!(read(&(GOOD.replacen("00-", "cc-", 1) + "-more")).is_some());
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "",
            "00",
            &GOOD[1..],
            &format!("{GOOD}-more"),
            &GOOD.to_uppercase(),
            &GOOD.replacen("00-", "ff-", 1),
            &(GOOD.replacen("00-", "cc-", 1) + "more"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b-101",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(Parent::read(GOOD.as_bytes(), "a=\u{e9}".as_bytes()), None);
        assert_eq!(Parent::read(GOOD.as_bytes(), &[b'a'; 513]), None);
    }
}

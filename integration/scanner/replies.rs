//! Replies: the scanner against the reader of `reference`, and pieces against the whole.

use lockstep::resp::{
    DecodeError, Kind, Limits, ReplyError, ReplyScanner, Value, as_bulk, as_int, as_status,
    elements, error_text, frame, is_error, kind,
};

use crate::generate::{self, Rng};
use crate::reference::{self, Node, Reader};
use crate::{Plan, resident_kib};

/// Where the replies of a stream end, and how the stream does.
type Frames = (Vec<usize>, Option<ReplyError>);

fn scan(bytes: &[u8], cuts: &[usize]) -> Frames {
    let mut scanner = ReplyScanner::new(Limits::default());
    let (mut ends, mut start) = (Vec::new(), 0);
    // Bytes after which the reply under way may be complete at the earliest.
    let mut earliest = 0;
    for &cut in cuts {
        loop {
            match scanner.scan(&bytes[start..cut]) {
                Ok(Some(len)) => {
                    assert!(start + len >= earliest, "need() promised more");
                    start += len;
                    ends.push(start);
                }
                Ok(None) => {
                    earliest = cut + scanner.need();
                    break;
                }
                Err(error) => return (ends, Some(error)),
            }
        }
    }
    (ends, None)
}

fn reference(bytes: &[u8]) -> (Vec<Node>, Option<ReplyError>) {
    let mut reader = Reader::new(bytes, Limits::default().reply_bytes_max);
    let mut nodes = Vec::new();
    let mut start = 0;
    loop {
        match Reader::new(&bytes[start..], reader.bytes_max).reply() {
            Ok(Some(node)) => {
                start += node.end;
                nodes.push(node);
            }
            Ok(None) => return (nodes, None),
            Err(error) => return (nodes, Some(error)),
        }
        reader.bytes = &bytes[start..];
    }
}

/// The helpers and the decoder say what the node says.
fn check(node: &Node, bytes: &[u8]) {
    let slice = &bytes[node.start..node.end];
    let text = Some(&node.text[..]);
    let of = |kinds: &[u8]| kinds.contains(&node.kind) && !kind(slice).is_null();
    assert_eq!(as_status(slice), text.filter(|_| of(b"+")));
    assert_eq!(as_bulk(slice), text.filter(|_| of(b"$=")));
    assert_eq!(
        error_text(slice),
        text.filter(|_| of(b"-!")).unwrap_or_default()
    );
    assert_eq!(is_error(slice), of(b"-!"));
    if let Some(int) = as_int(slice) {
        assert_eq!(node.text, int.to_string().as_bytes());
    }
    assert_ne!(kind(slice), Kind::Malformed);
    let inner = |nodes: &[Node]| -> Vec<Vec<u8>> {
        nodes
            .iter()
            .map(|item| bytes[item.start..item.end].to_vec())
            .collect()
    };
    assert!(elements(slice).eq(inner(&node.items)));
    assert!(frame::embedded_pushes(slice).eq(inner(&node.messages)));
    assert_eq!(frame::element_count(slice), node.items.len());
    node.items.iter().for_each(|item| check(item, bytes));
}

fn check_decoded(node: &Node, bytes: &[u8]) {
    match Value::decode(bytes, &Limits::default()) {
        Ok(value) => assert!(reference::same(node, &value), "{value:?}"),
        Err(DecodeError::TooDeep) => assert!(depth(node) > 32),
        Err(DecodeError::InvalidNumber) => assert!(any_bad_number(node)),
        Err(error) => panic!("{error} in a whole reply"),
    }
}

fn depth(node: &Node) -> usize {
    let own = usize::from(b"*~%>".contains(&node.kind) && node.text != b"-1");
    own + node.items.iter().map(depth).max().unwrap_or(0)
}

fn any_bad_number(node: &Node) -> bool {
    let text = String::from_utf8_lossy(&node.text);
    let bad = match node.kind {
        b':' => text.parse::<i64>().map(|int| int.to_string()) != Ok(text.to_string()),
        b',' => text.parse::<f64>().is_err(),
        _ => false,
    };
    bad || node.items.iter().any(any_bad_number)
}

#[test]
fn replies_are_framed_as_the_obvious_reader_frames_them() {
    let plan = Plan::from_env();
    println!("replies: {} inputs, seed {}", plan.inputs, plan.seed);
    let (mut replies, mut errors, mut bytes_in, mut resident) = (0, 0, 0, 0);
    for index in 0..plan.inputs {
        let mut rng = Rng::of(plan.seed.wrapping_add(1), index);
        let bytes = generate::replies(&mut rng);
        let whole = scan(&bytes, &[bytes.len()]);
        let cuts = generate::cuts(&mut rng, bytes.len());
        assert_eq!(
            scan(&bytes, &cuts),
            whole,
            "input {index} of seed {}, {cuts:?}",
            plan.seed
        );
        let (nodes, error) = reference(&bytes);
        let mut start = 0;
        let ends: Vec<usize> = nodes
            .iter()
            .map(|node| {
                start += node.end;
                start
            })
            .collect();
        let text = bytes.escape_ascii();
        assert_eq!(
            (ends, error),
            whole,
            "input {index} of seed {}: {text}",
            plan.seed
        );
        let mut start = 0;
        for node in &nodes {
            check(node, &bytes[start..]);
            check_decoded(node, &bytes[start..start + node.end]);
            start += node.end;
        }
        replies += nodes.len();
        errors += usize::from(error.is_some());
        bytes_in += bytes.len();
        if index == plan.inputs / 10 {
            resident = resident_kib();
        }
    }
    let grown = resident_kib().saturating_sub(resident);
    println!("replies: {replies} in {bytes_in} bytes, {errors} errors, grown {grown} KiB");
    assert!(replies > 0 && errors > 0);
    assert!(grown < 128 * 1024, "memory grew by {grown} KiB");
}

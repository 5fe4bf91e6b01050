//! The main promises again, as properties: slower, but a failure shrinks to its core.

use bytes::{Bytes, BytesMut};
use lockstep::resp::{Limits, Value, build};
use proptest::collection::vec;
use proptest::prelude::*;
use redis_protocol::resp2::decode::decode_bytes;
use redis_protocol::resp2::types::BytesFrame;

use crate::commands::read;
use crate::generate::{Rng, quote};

fn args() -> impl Strategy<Value = Vec<Vec<u8>>> {
    vec(vec(any::<u8>(), 0..150), 1..12)
}

/// Trees of what RESP2 has, but for what the crate gets wrong (nulls, errors that are not UTF-8).
fn tree() -> impl Strategy<Value = BytesFrame> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(BytesFrame::Integer),
        "[ -~]{0,20}".prop_map(|text| BytesFrame::SimpleString(text.into())),
        "[A-Z]{3} [ -~]{0,20}".prop_map(|text| BytesFrame::Error(text.into())),
        vec(any::<u8>(), 0..200).prop_map(|text| BytesFrame::BulkString(text.into())),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        vec(inner, 0..6).prop_map(BytesFrame::Array)
    })
}

fn write(frame: &BytesFrame, out: &mut BytesMut) {
    match frame {
        BytesFrame::Integer(value) => build::int(out, *value),
        BytesFrame::SimpleString(text) => build::status(out, text),
        BytesFrame::Error(text) => build::error(out, text.as_bytes()),
        BytesFrame::BulkString(text) => build::bulk(out, text),
        BytesFrame::Null => build::null_bulk(out, build::Protocol::Resp2),
        BytesFrame::Array(items) => {
            build::array_header(out, items.len());
            items.iter().for_each(|item| write(item, out));
        }
    }
}

fn value(frame: &BytesFrame) -> Value {
    match frame {
        BytesFrame::Integer(value) => Value::Int(*value),
        BytesFrame::SimpleString(text) => Value::Status(text.clone()),
        BytesFrame::Error(text) => Value::Error(Bytes::copy_from_slice(text.as_bytes())),
        BytesFrame::BulkString(text) => Value::Bulk(text.clone()),
        BytesFrame::Null => Value::Null,
        BytesFrame::Array(items) => Value::Array(items.iter().map(value).collect()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn commands_come_back_from_any_pieces(args in args(), cuts in vec(any::<prop::sample::Index>(), 0..6)) {
        let mut bytes = BytesMut::new();
        build::command(&mut bytes, &args);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.sort_unstable();
        cuts.push(bytes.len());
        let verdict = read(&bytes, &cuts, false);
        prop_assert_eq!(&verdict.canonical, &bytes);
        prop_assert_eq!((verdict.commands, verdict.raw, verdict.error), (1, 1, None));
    }

    #[test]
    fn quoted_words_come_back(args in args(), seed in any::<u64>()) {
        let mut rng = Rng::of(seed, 0);
        let mut line = Vec::new();
        for (index, arg) in args.iter().enumerate() {
            line.extend_from_slice(if index == 0 { b"" } else { b" " });
            quote(&mut rng, arg, &mut line);
        }
        line.extend_from_slice(b"\r\n");
        let verdict = read(&line, &[line.len()], false);
        let mut canonical = BytesMut::new();
        build::command(&mut canonical, &args);
        prop_assert_eq!(verdict.canonical, canonical);
    }

    #[test]
    fn any_bytes_at_all_do_no_harm(bytes in vec(any::<u8>(), 0..300)) {
        let cuts: Vec<usize> = (0..=bytes.len()).collect();
        prop_assert_eq!(read(&bytes, &cuts, false), read(&bytes, &[bytes.len()], false));
        let _ = Value::decode(&bytes, &Limits::default());
    }

    #[test]
    fn trees_decode_as_the_crate_decodes_them(tree in tree()) {
        let mut bytes = BytesMut::new();
        write(&tree, &mut bytes);
        let bytes = bytes.freeze();
        let (theirs, len) = decode_bytes(&bytes).unwrap().unwrap();
        prop_assert_eq!(len, bytes.len());
        prop_assert_eq!(&theirs, &tree);
        prop_assert_eq!(Value::decode(&bytes, &Limits::default()), Ok(value(&theirs)));
    }
}

use super::*;
use crate::resp::frame::{Kind, elements, embedded_pushes, kind};

fn whole(bytes: &[u8]) -> Result<Option<usize>, ReplyError> {
    ReplyScanner::new(Limits::default()).scan(bytes)
}

#[test]
fn every_type_is_framed_whole_and_in_pieces() {
    let replies: [&[u8]; 26] = [
        b"+OK\r\n",
        b"+a\rb\nc\r\n",
        b"+\r\n",
        b"-ERR no\r\n",
        b":-12\r\n",
        b"$0\r\n\r\n",
        b"$5\r\na\r\nbc\r\n",
        b"$100\r\n0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"*2\r\n*2\r\n:1\r\n*0\r\n$1\r\nx\r\n",
        b"_\r\n",
        b"#t\r\n",
        b",1.5\r\n",
        b"(123456789012345678901234567890\r\n",
        b"!5\r\nERR x\r\n",
        b"=5\r\ntxt:x\r\n",
        b"%1\r\n+k\r\n%1\r\n+a\r\n+b\r\n",
        b"~2\r\n:1\r\n:2\r\n",
        b">2\r\n+a\r\n+b\r\n",
        b"|1\r\n+k\r\n+v\r\n:1\r\n",
        b"*2\r\n|1\r\n+k\r\n*1\r\n+v\r\n:1\r\n:2\r\n",
        b"|0\r\n>1\r\n+x\r\n",
        b"*2\r\n+OK\r\n>3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n:1\r\n",
        b"*2\r\n>3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n:1\r\n",
    ];
    for reply in replies {
        let mut bytes = reply.to_vec();
        bytes.extend_from_slice(b"+next\r\n");
        assert_eq!(
            whole(&bytes),
            Ok(Some(reply.len())),
            "{}",
            reply.escape_ascii()
        );
        let mut scanner = ReplyScanner::new(Limits::default());
        for len in 0..reply.len() {
            assert_eq!(
                scanner.scan(&reply[..len]),
                Ok(None),
                "{}",
                reply.escape_ascii()
            );
            assert!(
                scanner.need() <= reply.len() - len,
                "{} {len}",
                reply.escape_ascii()
            );
        }
        assert_eq!(scanner.scan(&bytes), Ok(Some(reply.len())));
        assert_eq!(scanner.scan(b":7\r\n"), Ok(Some(4)));
    }
}

#[test]
fn what_is_no_reply_is_refused_for_ever() {
    let cases: [(&[u8], ReplyError); 19] = [
        (b"x", ReplyError::UnknownType(b'x')),
        (b"\r\n", ReplyError::UnknownType(b'\r')),
        (b"*2\r\nx", ReplyError::UnknownType(b'x')),
        (
            b"$111111111111111111111111111111",
            ReplyError::InvalidLength,
        ),
        (b"_111111111111111111111111111111", ReplyError::Malformed),
        (b"$x\r\n", ReplyError::InvalidLength),
        (b"$-2\r\n", ReplyError::InvalidLength),
        (b"*-2\r\n", ReplyError::InvalidLength),
        (b"%-1\r\n", ReplyError::InvalidLength),
        (b"*?\r\n", ReplyError::InvalidLength),
        (b"$?\r\n", ReplyError::InvalidLength),
        (b"$01\r\n", ReplyError::InvalidLength),
        (b"$1\r\nxyz", ReplyError::Malformed),
        (b"_x\r\n", ReplyError::Malformed),
        (b"#x\r\n", ReplyError::Malformed),
        (b"$9223372036854775807\r\n", ReplyError::TooBig),
        (b"*9223372036854775807\r\n", ReplyError::TooBig),
        (b"%9223372036854775807\r\n", ReplyError::TooBig),
        (b"*2\r\n:1\r\n*1000000000\r\n", ReplyError::TooBig),
    ];
    for (bytes, error) in cases {
        let mut scanner = ReplyScanner::new(Limits::default());
        let found = scanner.scan(bytes);
        assert_eq!(found, Err(error), "{}", bytes.escape_ascii());
        assert_eq!(scanner.scan(b"+OK\r\n"), found);
    }
}

#[test]
fn depth_is_no_danger() {
    // As deep as a 64 KiB script can make it, and far deeper.
    let mut bytes = b"*1\r\n".repeat(1_000_000);
    assert_eq!(whole(&bytes), Ok(None));
    bytes.extend_from_slice(b":1\r\n");
    assert_eq!(whole(&bytes), Ok(Some(bytes.len())));
    assert_eq!(elements(&bytes).count(), 1);
    let mut attributes = b"|1\r\n".repeat(100_000);
    attributes.extend_from_slice(&b"+x\r\n".repeat(200_001));
    assert_eq!(whole(&attributes), Ok(Some(attributes.len())));
    assert_eq!(kind(&attributes), Kind::Status);
}

#[test]
fn a_message_inside_exec_is_no_element() {
    let exec = b"*3\r\n+OK\r\n>3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$4\r\nself\r\n:1\r\n$1\r\n1\r\n";
    assert_eq!(whole(exec), Ok(Some(exec.len())));
    assert!(elements(exec).eq([&b"+OK\r\n"[..], b":1\r\n", b"$1\r\n1\r\n"]));
    let pushes: Vec<_> = embedded_pushes(exec).collect();
    assert_eq!(pushes, [&exec[9..44]]);
    // SUBSCRIBE inside MULTI is answered by a push.
    let exec = b"*2\r\n>3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n:1\r\n";
    assert_eq!(
        elements(exec).map(kind).collect::<Vec<_>>(),
        [Kind::Push, Kind::Int]
    );
    assert_eq!(embedded_pushes(exec).count(), 0);
}

#[test]
fn the_limit_on_replies_holds() {
    let limits = Limits {
        reply_bytes_max: 20,
        ..Limits::default()
    };
    let scan = |bytes: &[u8]| ReplyScanner::new(limits).scan(bytes);
    assert_eq!(scan(b"$15\r\n"), Err(ReplyError::TooBig));
    assert_eq!(scan(b"$13\r\n0123456789012\r\n"), Ok(Some(20)));
    assert_eq!(scan(b"+0123456789012345678"), Ok(None));
    assert_eq!(scan(b"+01234567890123456789"), Err(ReplyError::TooBig));
    assert_eq!(scan(b"*7\r\n"), Err(ReplyError::TooBig));
    assert_eq!(scan(b"*5\r\n_\r\n_\r\n_\r\n_\r\n_\r\n"), Ok(Some(19)));
}

/// A reply of which parts are taken away as they come ends where it ended as a whole, and the next
/// one is found behind it.
#[test]
fn what_is_handed_on_need_not_be_shown_again() {
    let replies: [&[u8]; 6] = [
        b"$12\r\nhello\r\nworld\r\n",
        b"*3\r\n$5\r\nhello\r\n*2\r\n:1\r\n$-1\r\n+OK\r\n",
        b"*2\r\n+OK\r\n>3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n:1\r\n",
        b"%1\r\n$3\r\nkey\r\n|1\r\n+k\r\n+v\r\n,1.5\r\n",
        b"*1\r\n$0\r\n\r\n",
        b"-ERR this is one line\r\n",
    ];
    for reply in replies {
        for step in 1..=reply.len() {
            let mut scanner = ReplyScanner::new(Limits::default());
            let (mut shown, mut taken) = (Vec::new(), 0);
            let mut end = None;
            for piece in [reply, b"+next\r\n"].concat().chunks(step) {
                shown.extend_from_slice(piece);
                end = scanner.scan(&shown).expect("a reply");
                if end.is_some() {
                    break;
                }
                let len = scanner.hand_on();
                shown.drain(..len);
                taken += len;
            }
            let end = end.expect("an end");
            assert_eq!(taken + end, reply.len(), "{} {step}", reply.escape_ascii());
            let mut rest = shown.split_off(end);
            rest.extend_from_slice(b"+next\r\n");
            assert_eq!(scanner.scan(&rest[rest.len() - 7..]), Ok(Some(7)));
        }
    }
}

/// The limit is that of the whole reply, whatever has left.
#[test]
fn the_limit_holds_for_what_has_left() {
    let limits = Limits {
        reply_bytes_max: 64,
        ..Limits::default()
    };
    let mut scanner = ReplyScanner::new(limits);
    let mut shown = b"*20\r\n".to_vec();
    for _ in 0..20 {
        shown.extend_from_slice(b"$1\r\na\r\n");
        match scanner.scan(&shown) {
            Ok(None) => drop(shown.drain(..scanner.hand_on())),
            Ok(Some(_)) => panic!("beyond the limit"),
            Err(error) => return assert_eq!(error, ReplyError::TooBig),
        }
    }
    panic!("never refused");
}

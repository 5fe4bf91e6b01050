use super::*;

fn scanner() -> CommandScanner {
    CommandScanner::new(Limits::default())
}

/// The commands in `bytes`, and how it ends: bytes left over, or the error.
fn commands(bytes: &[u8]) -> (Vec<Vec<Vec<u8>>>, Result<usize, ProtocolError>) {
    let (mut scanner, mut rest, mut found) = (scanner(), bytes, Vec::new());
    loop {
        match scanner.scan(rest) {
            Ok(Scan::Incomplete) => return (found, Ok(rest.len())),
            Ok(Scan::Empty { len }) => rest = &rest[len..],
            Ok(Scan::Command { len }) => {
                let command = scanner.command(rest);
                assert_eq!(command.raw(), &rest[..len]);
                found.push(command.args().map(<[u8]>::to_vec).collect());
                rest = &rest[len..];
            }
            Err(error) => return (found, Err(error)),
        }
    }
}

fn error_of(bytes: &[u8]) -> Option<String> {
    let mut out = BytesMut::new();
    commands(bytes).1.err()?.encode(&mut out);
    Some(String::from_utf8_lossy(&out).into_owned())
}

#[test]
fn commands_are_framed_in_both_forms() {
    let (found, end) = commands(
        b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n\r\n*0\r\n*-7\r\nSET 'a b' \"\\x41\"\r\n \nping\n*1",
    );
    let expected: [&[&[u8]]; 3] = [&[b"GET", b"k"], &[b"SET", b"a b", b"A"], &[b"ping"]];
    assert_eq!(found, expected);
    assert_eq!(end, Ok(2));
}

#[test]
fn errors_are_those_of_redis() {
    let cases: [(&[u8], &str); 16] = [
        (b"*\r\n", "invalid multibulk length"),
        (b"*-0\r\n", "invalid multibulk length"),
        (b"*01\r\n", "invalid multibulk length"),
        (b"*+1\r\n", "invalid multibulk length"),
        (b"*2147483648\r\n", "invalid multibulk length"),
        (b"*9223372036854775808\r\n", "invalid multibulk length"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$a\r\n", "invalid bulk length"),
        (b"*1\r\n$\r\n", "invalid bulk length"),
        (b"*1\r\n$9223372036854775807\r\n", "invalid bulk length"),
        (b"*1\r\n$536870913\r\n", "invalid bulk length"),
        (b"*1\r\n*1\r\n$4\r\nPING\r\n", "expected '$', got '*'"),
        (b"*1\r\n\r\n", "expected '$', got ' '"),
        (b"*1\r\nPING\r\n", "expected '$', got 'P'"),
        (b"\"\r\n", "unbalanced quotes in request"),
        (b"PING 'a'b\n", "unbalanced quotes in request"),
    ];
    for (bytes, text) in cases {
        let expected = format!("-ERR Protocol error: {text}\r\n");
        assert_eq!(error_of(bytes), Some(expected), "{}", bytes.escape_ascii());
    }
}

#[test]
fn a_line_without_an_end_is_an_error_beyond_64_kib() {
    let cases: [(&[u8], &str); 4] = [
        (b"", "too big inline request"),
        (b"P\0\r\n", "too big inline request"),
        (b"*", "too big mbulk count string"),
        (b"*1\r\n", "too big bulk count string"),
    ];
    for (start, text) in cases {
        let line_start = if start.starts_with(b"*1") {
            start.len()
        } else {
            0
        };
        let mut bytes = start.to_vec();
        bytes.resize(line_start + 65_536, b'1');
        assert_eq!(error_of(&bytes), None);
        bytes.push(b'1');
        assert_eq!(
            error_of(&bytes),
            Some(format!("-ERR Protocol error: {text}\r\n"))
        );
    }
    let mut longest = vec![b'x'; 65_536];
    longest.push(b'\n');
    assert_eq!(commands(&longest).0, [[vec![b'x'; 65_536]]]);
}

#[test]
fn sloppy_line_ends_are_accepted_but_not_forwarded() {
    for bytes in [
        &b"*1\rX$4\r\nPING\r\n"[..],
        b"*1\r\n$4\rXPING\r\n",
        b"*1\r\n$4\r\nPINGab",
    ] {
        let mut scanner = scanner();
        assert_eq!(scanner.scan(bytes), Ok(Scan::Command { len: bytes.len() }));
        let command = scanner.command(bytes);
        assert!(!command.is_canonical());
        let mut out = BytesMut::new();
        command.encode(&mut out);
        assert_eq!(&out[..], b"*1\r\n$4\r\nPING\r\n");
    }
    let mut scanner = scanner();
    assert!(scanner.scan(b"*1\r\n$4\r\nPING\r\n").is_ok());
    assert!(scanner.command(b"*1\r\n$4\r\nPING\r\n").is_canonical());
}

#[test]
fn an_error_is_for_ever() {
    let mut scanner = scanner();
    assert_eq!(scanner.scan(b"*x\r\n"), Err(ProtocolError::InvalidCount));
    assert_eq!(scanner.scan(b"PING\r\n"), Err(ProtocolError::InvalidCount));
    assert_eq!(scanner.command(b"PING\r\n").argc(), 0);
}

#[test]
fn announced_lengths_cost_no_memory() {
    let mut scanner = scanner();
    assert_eq!(
        scanner.scan(b"*2147483647\r\n$536870912\r\n"),
        Ok(Scan::Incomplete)
    );
    assert_eq!(scanner.args.capacity(), 0);
    assert_eq!(scanner.need(25), 536_870_914);
}

#[test]
fn unauthenticated_clients_have_narrow_limits() {
    let mut scanner = scanner();
    scanner.set_auth_required(true);
    assert_eq!(scanner.scan(b"*10\r\n$16384\r\n"), Ok(Scan::Incomplete));
    for (bytes, error) in [
        (&b"*11\r\n"[..], ProtocolError::UnauthenticatedCount),
        (
            b"*1\r\n$16385\r\n",
            ProtocolError::UnauthenticatedBulkLength,
        ),
        (b"*1\r\n$536870913\r\n", ProtocolError::BulkTooBig),
    ] {
        let mut scanner = CommandScanner::new(Limits::default());
        scanner.set_auth_required(true);
        assert_eq!(scanner.scan(bytes), Err(error));
    }
}

#[test]
fn a_command_is_bounded_as_a_whole() {
    let limits = Limits {
        command_bytes_max: 30,
        ..Limits::default()
    };
    let fits = b"*2\r\n$4\r\nECHO\r\n$10\r\n0123456\r\n";
    assert_eq!(fits.len(), 28);
    let cases: [(&[u8], Result<Scan, ProtocolError>); 4] = [
        (
            b"*2\r\n$4\r\nECHO\r\n$9\r\n012345678\r\n",
            Ok(Scan::Command { len: 29 }),
        ),
        (
            b"*2\r\n$4\r\nECHO\r\n$11\r\n",
            Err(ProtocolError::CommandTooBig),
        ),
        (
            b"*2\r\n$4\r\nECHO\r\n$111\r\n",
            Err(ProtocolError::CommandTooBig),
        ),
        (
            b"ECHO 0123456789012345678901234567\r\n",
            Err(ProtocolError::CommandTooBig),
        ),
    ];
    for (bytes, verdict) in cases {
        assert_eq!(CommandScanner::new(limits).scan(bytes), verdict);
    }
}

#[test]
fn bytes_in_pieces_are_framed_as_in_one() {
    let bytes = b"*3\r\n$3\r\nSET\r\n$10\r\n0123456789\r\n$0\r\n\r\n";
    let mut scanner = scanner();
    for len in 0..bytes.len() {
        assert_eq!(scanner.scan(&bytes[..len]), Ok(Scan::Incomplete));
    }
    assert_eq!(scanner.scan(bytes), Ok(Scan::Command { len: bytes.len() }));
    let command = scanner.command(bytes);
    assert!(command.args().eq([&b"SET"[..], b"0123456789", b""]));
    assert_eq!(command.arg_range(1), Some(18..28));
}

#[test]
fn input_taken_back_is_refused() {
    let mut scanner = scanner();
    assert_eq!(scanner.scan(b"PING PING"), Ok(Scan::Incomplete));
    assert_eq!(scanner.scan(b"PING"), Err(ProtocolError::InputTakenBack));
}

/// Shows the bytes in steps of this size and hands on what is understood, from the first complete
/// argument on; the bytes that the caller took, or the error.
fn handed_on(bytes: &[u8], step: usize, limits: Limits) -> Result<Vec<u8>, ProtocolError> {
    let mut scanner = CommandScanner::new(limits);
    let (mut taken, mut shown, mut dropped) = (Vec::new(), 0, 0);
    loop {
        shown = (shown + step).min(bytes.len());
        let window = &bytes[dropped..shown];
        match scanner.scan(window)? {
            Scan::Incomplete if scanner.begun(window).is_some() || dropped > 0 => {
                let count = scanner.hand_on(window.len());
                taken.extend_from_slice(&window[..count]);
                dropped += count;
                assert!(scanner.need(window.len() - count) <= bytes.len() - dropped);
            }
            Scan::Incomplete => {}
            Scan::Command { len } | Scan::Empty { len } => {
                taken.extend_from_slice(&window[..len]);
                return Ok(taken);
            }
        }
        assert!(shown < bytes.len() || step == 0, "no end was found");
    }
}

#[test]
fn what_is_handed_on_in_parts_is_the_command() {
    let mut command = BytesMut::new();
    build::command(
        &mut command,
        [
            &b"SET"[..],
            b"k",
            &[b'v'; 300],
            b"",
            b"EX",
            b"10",
            &[b'\r'; 20],
        ],
    );
    for step in 1..=command.len() {
        let mut bytes = command.to_vec();
        bytes.extend_from_slice(b"*1\r\n$4\r\nPING\r\n");
        let taken = handed_on(&bytes, step, Limits::default());
        assert_eq!(taken.as_deref(), Ok(&command[..]), "in steps of {step}");
    }
}

#[test]
fn limits_count_what_was_handed_on() {
    let mut command = BytesMut::new();
    build::command(&mut command, [&b"SET"[..], b"k", &[b'v'; 300], &[b'w'; 50]]);
    let limits = |command_bytes_max| Limits {
        command_bytes_max,
        ..Limits::default()
    };
    for step in 1..=command.len() {
        let whole = handed_on(&command, step, limits(command.len()));
        assert_eq!(whole.as_deref(), Ok(&command[..]), "in steps of {step}");
        let less = handed_on(&command, step, limits(command.len() - 1));
        assert_eq!(
            less,
            Err(ProtocolError::CommandTooBig),
            "in steps of {step}"
        );
    }
    // The limit of the next command is its own.
    let mut scanner = CommandScanner::new(limits(400));
    let bytes = &command[..];
    assert_eq!(scanner.scan(&bytes[..100]), Ok(Scan::Incomplete));
    let count = scanner.hand_on(100);
    assert_eq!(
        scanner.scan(&bytes[count..]),
        Ok(Scan::Command {
            len: bytes.len() - count
        })
    );
    assert_eq!(scanner.scan(bytes), Ok(Scan::Command { len: bytes.len() }));
}

#[test]
fn only_what_may_be_forwarded_as_it_is_has_begun() {
    let cases: [(&[u8], Option<usize>); 5] = [
        (b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$9\r\nva", Some(3)),
        (b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$9", Some(3)),
        (b"*3\r\n$3\r\nSE", None),
        (b"*3\r\n$3\r\nSETxx$1\r\nk\r\n$9\r\nva", None),
        (b"SET k v", None),
    ];
    for (bytes, argc) in cases {
        let mut scanner = scanner();
        assert_eq!(scanner.scan(bytes), Ok(Scan::Incomplete));
        let begun = scanner.begun(bytes);
        assert_eq!(
            begun.map(|(_, argc)| argc),
            argc,
            "{}",
            bytes.escape_ascii()
        );
        if let Some((command, _)) = begun {
            assert_eq!(command.args().collect::<Vec<_>>(), [&b"SET"[..], b"k"]);
        }
    }
    let mut scanner = scanner();
    assert_eq!(
        scanner.scan(b"*2\r\n$1\r\na\r\n$9\r\nx"),
        Ok(Scan::Incomplete)
    );
    scanner.hand_on(16);
    assert!(scanner.is_canonical());
    assert_eq!(scanner.scan(b"12345678ab"), Ok(Scan::Command { len: 10 }));
    assert!(!scanner.is_canonical());
}

//! Commands: pieces against the whole, and what was read against what it re-encodes to.

use bytes::BytesMut;
use lockstep::resp::{CommandScanner, Limits, ProtocolError, Scan};

use crate::generate::{self, Rng};
use crate::{Plan, resident_kib};

/// What a scanner made of a stream.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Verdict {
    /// Its commands, in canonical form.
    pub(crate) canonical: BytesMut,
    /// How many.
    pub(crate) commands: usize,
    /// How many were forwarded as they were.
    pub(crate) raw: usize,
    /// Bytes of complete frames.
    pub(crate) consumed: usize,
    /// How it ended, if the client broke the protocol.
    pub(crate) error: Option<ProtocolError>,
}

/// Shows `bytes` to a scanner, cut at `cuts`, as a connection does.
pub(crate) fn read(bytes: &[u8], cuts: &[usize], auth_required: bool) -> Verdict {
    let mut scanner = CommandScanner::new(Limits::default());
    scanner.set_auth_required(auth_required);
    let mut verdict = Verdict::default();
    for &cut in cuts {
        while verdict.error.is_none() {
            let buf = &bytes[verdict.consumed..cut];
            match scanner.scan(buf) {
                Ok(Scan::Incomplete) => break,
                Ok(Scan::Empty { len }) => verdict.consumed += len,
                Ok(Scan::Command { len }) => {
                    take(&scanner, buf, len, &mut verdict);
                    verdict.consumed += len;
                }
                Err(error) => verdict.error = Some(error),
            }
        }
        let bound = 12 * 1024 + 4 * (cut - verdict.consumed.min(cut)) + 4 * bytes.len();
        assert!(
            scanner.heap_bytes() <= bound,
            "{} bytes of heap",
            scanner.heap_bytes()
        );
    }
    verdict
}

fn take(scanner: &CommandScanner, buf: &[u8], len: usize, verdict: &mut Verdict) {
    let command = scanner.command(buf);
    assert!(command.argc() > 0);
    assert_eq!(command.raw(), &buf[..len]);
    let start = verdict.canonical.len();
    lockstep::resp::build::command(&mut verdict.canonical, command.args());
    assert!(!command.is_canonical() || &verdict.canonical[start..] == command.raw());
    for index in 0..command.argc() {
        let range = command.arg_range(index);
        assert!(range.is_none_or(|range| command.arg(index) == Some(&buf[range])));
    }
    verdict.commands += 1;
    verdict.raw += usize::from(command.is_canonical());
}

#[test]
fn pieces_frame_like_the_whole_and_commands_reencode_to_themselves() {
    let plan = Plan::from_env();
    println!("commands: {} inputs, seed {}", plan.inputs, plan.seed);
    let (mut commands, mut errors, mut bytes_in, mut resident) = (0, 0, 0, 0);
    for index in 0..plan.inputs {
        let mut rng = Rng::of(plan.seed, index);
        let bytes = generate::commands(&mut rng);
        let auth_required = rng.one_in(8);
        let whole = read(&bytes, &[bytes.len()], auth_required);
        let cuts = generate::cuts(&mut rng, bytes.len());
        let pieces = read(&bytes, &cuts, auth_required);
        assert_eq!(
            whole, pieces,
            "input {index} of seed {}, cuts {cuts:?}",
            plan.seed
        );
        let again = read(&whole.canonical, &[whole.canonical.len()], false);
        assert_eq!(
            again.canonical, whole.canonical,
            "input {index} of seed {}",
            plan.seed
        );
        assert_eq!(
            (again.commands, again.raw),
            (whole.commands, whole.commands)
        );
        commands += whole.commands;
        errors += usize::from(whole.error.is_some());
        bytes_in += bytes.len();
        if index == plan.inputs / 10 {
            resident = resident_kib();
        }
    }
    let grown = resident_kib().saturating_sub(resident);
    println!("commands: {commands} in {bytes_in} bytes, {errors} errors, grown {grown} KiB");
    assert!(commands > 0 && errors > 0);
    // Other tests run beside this one, and a backtrace takes 80 MiB; at length a leak of a few
    // bytes per input would show.
    assert!(grown < 128 * 1024, "memory grew by {grown} KiB");
}

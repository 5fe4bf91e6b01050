//! How long a command says that it will wait.

use std::time::Duration;

use crate::resp::Command;

/// None: for ever. What the server will refuse does not matter: it is told so before it waits.
pub(super) fn limit(name: &str, command: &Command<'_>) -> Option<Duration> {
    let (text, unit_ms) = match name {
        "blmpop" | "bzmpop" => (command.arg(1), 1_000.0),
        "xread" | "xreadgroup" => (behind_block(command), 1.0),
        _ => (command.arg(command.argc().saturating_sub(1)), 1_000.0),
    };
    let number: f64 = std::str::from_utf8(text?).ok()?.parse().ok()?;
    let seconds = number * unit_ms / 1_000.0;
    (seconds > 0.0).then(|| Duration::try_from_secs_f64(seconds).ok())?
}

/// Whether XREAD or XREADGROUP is told to wait: BLOCK among the options, in front of STREAMS.
pub(super) fn waits(command: &Command<'_>) -> bool {
    let mut options = command
        .args()
        .skip(1)
        .take_while(|arg| !arg.eq_ignore_ascii_case(b"streams"));
    options.any(|arg| arg.eq_ignore_ascii_case(b"block"))
}

fn behind_block<'a>(command: &Command<'a>) -> Option<&'a [u8]> {
    let at = command
        .args()
        .position(|arg| arg.eq_ignore_ascii_case(b"block"))?;
    command.arg(at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::{CommandScanner, Limits, Scan};

    fn of(name: &str, words: &str) -> Option<Duration> {
        let bytes = format!("{words}\r\n");
        let mut scanner = CommandScanner::new(Limits::default());
        assert!(matches!(
            scanner.scan(bytes.as_bytes()),
            Ok(Scan::Command { .. })
        ));
        limit(name, &scanner.command(bytes.as_bytes()))
    }

    #[test]
    fn each_command_says_it_in_its_place() {
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(of("blpop", "BLPOP a b 1.5"), ms(1_500));
        assert_eq!(of("blmove", "BLMOVE a b LEFT LEFT 0"), None);
        assert_eq!(of("blmpop", "BLMPOP 2 2 a b LEFT"), ms(2_000));
        assert_eq!(
            of("xreadgroup", "XREADGROUP GROUP g c BLOCK 7 STREAMS a b > >"),
            ms(7)
        );
        assert_eq!(of("blpop", "BLPOP a b never"), None);
    }
}

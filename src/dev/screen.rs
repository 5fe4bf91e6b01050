//! Where `dev` writes what it has to tell.

use std::fmt::Arguments;
use std::io::{self, Write};

/// One of the two streams. A reader that has gone away is no reason to stop.
#[derive(Clone, Copy, Debug)]
pub(super) enum Screen {
    Output,
    Error,
}

impl Screen {
    pub(super) fn line(self, text: Arguments<'_>) {
        let _ = match self {
            Self::Output => writeln!(io::stdout().lock(), "{text}"),
            Self::Error => writeln!(io::stderr().lock(), "{text}"),
        };
    }
}

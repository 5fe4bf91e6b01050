//! What an audit found, and how bad it is.

use serde_json::{Value, json};

/// How bad.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Severity {
    /// Promises are broken, or will be.
    Error,
    /// Promises are broken if something else goes wrong.
    Warning,
    /// To be known.
    Note,
}

impl Severity {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// One thing that was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Finding {
    pub severity: Severity,
    /// None: it is about all of them.
    pub shard: Option<u16>,
    /// A word for programs; does not change.
    pub code: &'static str,
    /// What it is and what to do.
    pub text: String,
}

impl Finding {
    pub(super) fn error(shard: u16, code: &'static str, text: impl Into<String>) -> Self {
        Self::new(Severity::Error, Some(shard), code, text)
    }

    pub(super) fn warning(shard: u16, code: &'static str, text: impl Into<String>) -> Self {
        Self::new(Severity::Warning, Some(shard), code, text)
    }

    pub(super) fn note(shard: u16, code: &'static str, text: impl Into<String>) -> Self {
        Self::new(Severity::Note, Some(shard), code, text)
    }

    pub(super) fn new(
        severity: Severity,
        shard: Option<u16>,
        code: &'static str,
        text: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            shard,
            code,
            text: text.into(),
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "severity": self.severity.text(),
            "shard": self.shard,
            "code": self.code,
            "text": self.text,
        })
    }
}

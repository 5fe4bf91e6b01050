//! Mistakes in settings, and where each one was made.

use std::fmt;
use std::path::PathBuf;

use super::setting::Setting;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Origin {
    /// Nobody set it.
    #[default]
    Default,
    /// The file, and the line the value starts on (from 1).
    File(PathBuf, Option<usize>),
    /// The environment.
    Environment,
    /// The command line.
    Flag,
}

/// One mistake: where, which setting if it is about one, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where the value came from.
    pub origin: Origin,
    /// The setting's name as it is in the table, or the unknown key.
    pub key: Option<String>,
    /// What is wrong and, where possible, what to do.
    pub message: String,
}

impl Problem {
    pub(super) fn of(setting: &Setting, origin: Origin, message: impl Into<String>) -> Self {
        Self {
            origin,
            key: Some(setting.name.to_owned()),
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::File(path, Some(line)) => write!(f, "{}:{line}: ", path.display())?,
            Origin::File(path, None) => write!(f, "{}: ", path.display())?,
            Origin::Default | Origin::Environment | Origin::Flag => {}
        }
        if let Some(key) = &self.key {
            match &self.origin {
                Origin::Flag => write!(f, "--{key}: ")?,
                Origin::Environment => write!(f, "{}: ", environment_name(key))?,
                Origin::File(..) | Origin::Default => write!(f, "{key}: ")?,
            }
        }
        f.write_str(&self.message)
    }
}

/// `lock-ttl-ms` → `LOCKSTEP_LOCK_TTL_MS`.
pub(super) fn environment_name(setting: &str) -> String {
    let upper = setting.to_ascii_uppercase().replace('-', "_");
    format!("{ENVIRONMENT_PREFIX}{upper}")
}

/// What all environment variables of ours start with.
pub(super) const ENVIRONMENT_PREFIX: &str = "LOCKSTEP_";

/// All mistakes that were found, never empty when returned as an error. Shown one per line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

//! The log: one line per event, to standard error, as text or JSON.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing::subscriber::SetGlobalDefaultError;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Registry, fmt, reload};

use crate::config::{LogFormat, LogLevel};

/// Sets anew what is logged.
pub struct Levels(reload::Handle<Targets, Registry>);

impl Levels {
    /// From now on this is the least severe level.
    pub fn set(&self, level: LogLevel) {
        // Fails only when nothing logs any more.
        let _ = self.0.reload(targets(level));
    }
}

/// Starts logging, for the whole process.
///
/// # Errors
///
/// If it was started before.
pub fn init(level: LogLevel, format: LogFormat) -> Result<Levels, SetGlobalDefaultError> {
    let (targets, handle) = reload::Layer::new(targets(level));
    let registry = tracing_subscriber::registry().with(targets);
    let lines = fmt::layer().with_writer(io::stderr);
    match format {
        LogFormat::Text => {
            let lines = lines.with_ansi(io::stderr().is_terminal());
            tracing::subscriber::set_global_default(registry.with(lines))
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true);
            tracing::subscriber::set_global_default(registry.with(lines))
        }
    }?;
    Ok(Levels(handle))
}

/// Libraries are heard from level `warn` on, however talkative lockstep itself is.
fn targets(level: LogLevel) -> Targets {
    let level = filter(level);
    Targets::new()
        .with_target("lockstep", level)
        .with_default(level.min(LevelFilter::WARN))
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

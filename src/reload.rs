//! New settings without a restart: on SIGHUP, and when the file of settings, or a file that holds a
//! password, has changed.
//!
//! The settings are loaded again from where they came from, under the rules of `lockstep check`:
//! one mistake, and nothing changes. Nor does anything if a setting has changed that only a restart
//! changes: the file would say what is not so, and nobody would see it. Why is in the log, and
//! counted.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{self, Changes, Loaded, Sources, read_bounded};
use crate::logging::Levels;
use crate::metrics::{Metrics, Reload};
use crate::server::Adjuster;

/// How often the files are looked at. What was found changed is loaded when it has not changed for
/// as long, so that nothing is read that is half written.
const LOOK: Duration = Duration::from_secs(1);

/// The settings whose files are looked at, beside the file of settings itself.
const SECRET_FILES: &[&str] = &["password-file", "shard-password-file"];

/// SIGHUP, from now on. To be called early: until then the signal ends the process.
///
/// # Errors
/// The signal cannot be listened to.
pub fn hangups() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// What the files hold, as far as it is compared.
type Seen = Vec<Option<[u8; 32]>>;

/// See the module.
pub struct Reloader {
    /// Where the settings come from.
    pub sources: Sources,
    /// What counts now.
    pub loaded: Loaded,
    /// Sets them.
    pub adjuster: Adjuster,
    /// The same for the log.
    pub levels: Levels,
    /// Counts it.
    pub metrics: Arc<Metrics>,
}

impl Reloader {
    /// Runs until dropped.
    pub async fn run(mut self, mut hangups: Signal) {
        self.succeeded();
        let mut used = self.look();
        let mut last = used.clone();
        loop {
            let is_asked = tokio::select! {
                _ = hangups.recv() => true,
                () = tokio::time::sleep(LOOK) => false,
            };
            let now = self.look();
            if is_asked {
                self.reload("SIGHUP");
            } else if now != used && now == last {
                self.reload("a changed file");
            } else {
                last = now;
                continue;
            }
            // What cannot be used is told of once, not with every look. There may be other files now.
            let fresh = self.look();
            used = if fresh.len() == now.len() { now } else { fresh };
            last = used.clone();
        }
    }

    /// What the files hold now.
    fn look(&self) -> Seen {
        let named = self.loaded.given();
        let secrets = named.filter(|(name, _)| SECRET_FILES.contains(name));
        let secrets = secrets.map(|(_, path)| PathBuf::from(path));
        let files = self.sources.file.iter().cloned().chain(secrets);
        let digest = |path: PathBuf| {
            let text = read_bounded(&path).ok()?;
            Some(Sha256::digest(text.as_bytes()).into())
        };
        files.map(digest).collect()
    }

    fn reload(&mut self, why: &str) {
        let result = match self.attempt() {
            Ok(changed) if changed.is_empty() => {
                tracing::info!(why, "settings were read again: nothing has changed");
                Reload::Unchanged
            }
            Ok(changed) => {
                let changed = changed.join(", ");
                tracing::info!(
                    why,
                    changed,
                    "settings were read again, and count from now on"
                );
                Reload::Applied
            }
            Err((result, mistakes)) => {
                for mistake in mistakes {
                    tracing::error!(why, mistake, "settings stay as they were");
                }
                result
            }
        };
        self.metrics.config_reloads[result].increment(1);
        match result {
            Reload::Applied | Reload::Unchanged => self.succeeded(),
            Reload::Invalid | Reload::Refused => self.metrics.config_reload_succeeded.set(0.0),
        }
    }

    fn succeeded(&self) {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = since_epoch.map_or(0.0, |time| time.as_secs_f64());
        self.metrics.config_reload_succeeded.set(1.0);
        self.metrics.config_loaded_at.set(now);
    }

    /// The names of the settings that have changed, or why none has.
    fn attempt(&mut self) -> Result<Vec<&'static str>, (Reload, Vec<String>)> {
        let loaded = config::load(&self.sources).map_err(|problems| {
            let told = problems.0.iter().map(ToString::to_string);
            (Reload::Invalid, told.collect())
        })?;
        let changes = Changes::between(&self.loaded, &loaded);
        if !changes.refused.is_empty() {
            let told = changes.refused.iter();
            let told = told.map(|(name, why)| format!("{name} needs a restart: {why}"));
            return Err((Reload::Refused, told.collect()));
        }
        let set = self.adjuster.set(loaded.config.clone());
        set.map_err(|mistakes| {
            let told = mistakes.lines().map(str::to_owned);
            (Reload::Invalid, told.collect())
        })?;
        self.levels.set(loaded.config.log_level);
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        self.loaded = loaded;
        Ok(changes.names)
    }
}

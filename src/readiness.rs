//! Whether clients should be sent here, and if not, why.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What keeps the process from being ready; ready when nothing does. Cheap to clone, shared.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<String, String>>>);

impl Readiness {
    /// Ready until somebody objects.
    pub fn new() -> Self {
        Self::default()
    }

    /// Objects, or changes the reason of an objection of the same name (`shard 10.0.0.1:6379`).
    pub fn block(&self, name: impl Into<String>, reason: impl Into<String>) {
        self.reasons_locked().insert(name.into(), reason.into());
    }

    /// Takes an objection back; nothing happens if there is none of this name.
    pub fn clear(&self, name: &str) {
        self.reasons_locked().remove(name);
    }

    /// Whether nobody objects.
    pub fn is_ready(&self) -> bool {
        self.reasons_locked().is_empty()
    }

    /// All objections, `name: reason`, by name.
    pub fn reasons(&self) -> Vec<String> {
        let reasons = self.reasons_locked();
        reasons
            .iter()
            .map(|(name, why)| format!("{name}: {why}"))
            .collect()
    }

    fn reasons_locked(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_exactly_while_nobody_objects() {
        let readiness = Readiness::new();
        let other = readiness.clone();
        assert!(readiness.is_ready());
        other.block("shard b", "no connection");
        other.block("server", "starting");
        other.block("server", "loading the command table");
        let expected = [
            "server: loading the command table",
            "shard b: no connection",
        ];
        assert_eq!(readiness.reasons(), expected);
        readiness.clear("server");
        readiness.clear("server");
        assert!(!other.is_ready());
        readiness.clear("shard b");
        assert!(other.is_ready());
    }
}

//! Whether clients should be sent here, and if not, why; and what else is worth knowing.
//!
//! A proxy that cannot reach a shard is ready all the same: it serves the others, and every other
//! proxy is most likely no better off. It says so in a note.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What keeps the process from being ready; ready when nothing does. Cheap to clone, shared.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    objections: BTreeMap<String, String>,
    notes: BTreeMap<String, String>,
}

impl Readiness {
    /// Ready until somebody objects.
    pub fn new() -> Self {
        Self::default()
    }

    /// Objects, or changes the reason of an objection of the same name (`shard 10.0.0.1:6379`).
    pub fn block(&self, name: impl Into<String>, reason: impl Into<String>) {
        let mut known = self.locked();
        known.objections.insert(name.into(), reason.into());
    }

    /// Takes an objection back; nothing happens if there is none of this name.
    pub fn clear(&self, name: &str) {
        self.locked().objections.remove(name);
    }

    /// Tells of a trouble that keeps no client from coming, or changes what is told of it.
    pub fn note(&self, name: impl Into<String>, what: impl Into<String>) {
        self.locked().notes.insert(name.into(), what.into());
    }

    /// The trouble of this name is over.
    pub fn clear_note(&self, name: &str) {
        self.locked().notes.remove(name);
    }

    /// Whether nobody objects.
    pub fn is_ready(&self) -> bool {
        self.locked().objections.is_empty()
    }

    /// All objections, `name: reason`, by name.
    pub fn reasons(&self) -> Vec<String> {
        lines(&self.locked().objections)
    }

    /// All notes, `name: what`, by name.
    pub fn notes(&self) -> Vec<String> {
        lines(&self.locked().notes)
    }

    fn locked(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lines(of: &BTreeMap<String, String>) -> Vec<String> {
    of.iter()
        .map(|(name, text)| format!("{name}: {text}"))
        .collect()
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

    #[test]
    fn a_note_is_no_objection() {
        let readiness = Readiness::new();
        readiness.note("shard b", "no connection");
        assert!(readiness.is_ready() && readiness.reasons().is_empty());
        assert_eq!(readiness.notes(), ["shard b: no connection"]);
        readiness.clear_note("shard b");
        assert!(readiness.notes().is_empty());
    }
}

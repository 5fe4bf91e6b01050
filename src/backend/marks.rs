//! What was sent once on a connection and need not be sent again: scripts by their names.

use std::cell::RefCell;
use std::collections::HashSet;

/// Names that are remembered at most; when there are more, all are forgotten.
const NAMES_MAX: usize = 10_000;

/// The names of one connection; with the connection they are forgotten.
#[derive(Debug, Default)]
pub struct Marks(RefCell<HashSet<[u8; 40]>>);

impl Marks {
    /// Notes that what bears this name is being sent; false if it was noted before.
    pub fn add(&self, name: [u8; 40]) -> bool {
        let mut names = self.0.borrow_mut();
        if names.len() >= NAMES_MAX {
            names.clear();
        }
        names.insert(name)
    }

    /// Takes it back.
    pub fn remove(&self, name: &[u8; 40]) {
        self.0.borrow_mut().remove(name);
    }

    /// Takes all of it back.
    pub fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}

//! Who is to be woken when a key is changed: see [`crate::engine::waiting`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use tokio::sync::Notify;

use crate::resp;

/// Waiting tasks by key. The database does not matter: to be woken in vain costs a look.
#[derive(Default)]
pub struct Wakeups {
    by_key: RefCell<HashMap<Vec<u8>, Vec<Rc<Notify>>>>,
}

impl Wakeups {
    /// From now on this task is woken when one of these keys is changed.
    pub fn add(&self, keys: &[Vec<u8>], task: &Rc<Notify>) {
        let mut by_key = self.by_key.borrow_mut();
        for key in keys {
            by_key.entry(key.clone()).or_default().push(Rc::clone(task));
        }
    }

    /// And no more.
    pub fn remove(&self, keys: &[Vec<u8>], task: &Rc<Notify>) {
        let mut by_key = self.by_key.borrow_mut();
        for key in keys {
            if let Some(tasks) = by_key.get_mut(key) {
                tasks.retain(|other| !Rc::ptr_eq(other, task));
                if tasks.is_empty() {
                    by_key.remove(key);
                }
            }
        }
    }

    /// Wakes everybody.
    pub(super) fn wake_all(&self) {
        let by_key = self.by_key.borrow();
        by_key.values().flatten().for_each(|task| task.notify_one());
    }

    /// The second element of an invalidation: an array of keys, or null for all of them.
    pub(super) fn wake(&self, keys: &[u8]) {
        if resp::kind(keys) != resp::Kind::Array {
            return self.wake_all();
        }
        let by_key = self.by_key.borrow();
        let keys = resp::elements(keys).filter_map(resp::as_bulk);
        let tasks = keys.filter_map(|key| by_key.get(key)).flatten();
        tasks.for_each(|task| task.notify_one());
    }
}

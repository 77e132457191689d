//! Which session is with which token.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the module remembers of slots and sessions while it is initialised.
#[derive(Default)]
pub(crate) struct Slots {
    labels: Mutex<BTreeMap<u64, String>>,
    sessions: Mutex<BTreeMap<u64, u64>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slots {
    pub(crate) fn opened(&self, session: u64, slot: u64) {
        lock(&self.sessions).insert(session, slot);
    }

    pub(crate) fn closed(&self, session: u64) {
        lock(&self.sessions).remove(&session);
    }

    pub(crate) fn slot_of(&self, session: u64) -> Option<u64> {
        lock(&self.sessions).get(&session).copied()
    }

    /// The label of the token in a slot, asked for once.
    pub(crate) fn label(&self, slot: u64, ask: impl FnOnce() -> Option<String>) -> Option<String> {
        if let Some(label) = lock(&self.labels).get(&slot) {
            return Some(label.clone());
        }
        let label = ask()?;
        lock(&self.labels).insert(slot, label.clone());
        Some(label)
    }

    /// After C_Finalize.
    pub(crate) fn forget(&self) {
        lock(&self.labels).clear();
        lock(&self.sessions).clear();
    }
}

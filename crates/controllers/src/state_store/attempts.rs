//! What the process last tried in the stores, by object.

use std::collections::HashMap;

use kratix_core::object::ObjectKey;
use kratix_core::state_store::Attempt;
use parking_lot::Mutex;

/// The last attempt for each object of one kind. Lost with the process: the next one tries everything once more, which
/// writes nothing where nothing has changed.
///
/// # Limits
/// One entry for each object; an entry goes with its object.
#[derive(Default)]
pub(crate) struct Attempts(Mutex<HashMap<ObjectKey, Attempt>>);

impl Attempts {
    pub(crate) fn get(&self, key: &ObjectKey) -> Option<Attempt> {
        self.0.lock().get(key).cloned()
    }

    pub(crate) fn put(&self, key: &ObjectKey, attempt: Attempt) {
        self.0.lock().insert(key.clone(), attempt);
    }

    /// Notes what came of another object's change that served this one too. Returns whether that was news.
    pub(crate) fn put_served(&self, key: &ObjectKey, attempt: Attempt) -> bool {
        let mut attempts = self.0.lock();
        let is_known = attempts.get(key).is_some_and(|present| {
            present.stamp == attempt.stamp && (present.outcome.is_ok() || present.outcome == attempt.outcome)
        });
        // The same failure once more: when it was tried last counts, not that it was.
        if is_known && let Some(present) = attempts.get_mut(key).filter(|present| present.outcome.is_err()) {
            present.at = attempt.at;
            return false;
        }
        if !is_known {
            attempts.insert(key.clone(), attempt);
        }
        !is_known
    }

    pub(crate) fn forget(&self, key: &ObjectKey) {
        self.0.lock().remove(key);
    }
}

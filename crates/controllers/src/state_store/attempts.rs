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
        if !is_known {
            attempts.insert(key.clone(), attempt);
            return true;
        }
        // The same once more: when it was last tried counts, not that it was. A failure says nothing of what was written
        // before it.
        if let Some(present) =
            attempts.get_mut(key).filter(|present| present.outcome.is_ok() == attempt.outcome.is_ok())
        {
            present.at = attempt.at;
        }
        false
    }

    pub(crate) fn forget(&self, key: &ObjectKey) {
        self.0.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use kratix_core::state_store::{Failure, Written};

    use super::*;

    fn attempt(at: i64, stamp: &str, outcome: Result<Written, Failure>) -> Attempt {
        Attempt { at: Timestamp::from_second(at).unwrap(), stamp: stamp.into(), outcome }
    }

    #[test]
    fn a_write_that_served_again_is_fresh_again_and_no_news() {
        let (attempts, key) = (Attempts::default(), ObjectKey::namespaced("default", "a"));
        let written = || Ok(Written { version: None, changed: true });
        let at = || attempts.get(&key).unwrap().at.as_second();
        assert!(attempts.put_served(&key, attempt(1, "s", written())));
        assert!(!attempts.put_served(&key, attempt(2, "s", written())));
        assert_eq!(at(), 2, "its own interval starts anew");
        assert!(!attempts.put_served(&key, attempt(3, "s", Err(Failure::content("no")))));
        assert_eq!(at(), 2, "what was written is as old as it was");
        assert!(attempts.put_served(&key, attempt(4, "t", Err(Failure::content("no")))));
        assert!(!attempts.put_served(&key, attempt(5, "t", Err(Failure::content("no")))));
        assert_eq!(at(), 5);
    }
}

//! What the process last tried in the stores, by object.

use std::collections::HashMap;
use std::time::Instant;

use jiff::Timestamp;
use kratix_core::object::ObjectKey;
use kratix_core::state_store::Attempt;
use kratix_state_store::Imprint;
use parking_lot::Mutex;

/// The last attempt for each object of one kind, and what it left in the store. Lost with the process: the next one tries
/// everything once more, which writes nothing where nothing has changed.
///
/// # Limits
/// One entry for each object; an entry goes with its object.
#[derive(Default)]
pub(crate) struct Attempts(Mutex<HashMap<ObjectKey, Entry>>);

enum Entry {
    Tried {
        attempt: Attempt,
        /// Only of successful ones.
        imprint: Option<Imprint>,
        noted: Instant,
    },
    /// What was written is not in the store any more.
    Doubted,
}

impl Attempts {
    pub(crate) fn get(&self, key: &ObjectKey) -> Option<Attempt> {
        match self.0.lock().get(key)? {
            Entry::Tried { attempt, .. } => Some(attempt.clone()),
            Entry::Doubted => None,
        }
    }

    pub(crate) fn has_written(&self, key: &ObjectKey) -> bool {
        match self.0.lock().get(key) {
            Some(Entry::Tried { attempt, .. }) => attempt.outcome.is_ok(),
            Some(Entry::Doubted) => true,
            None => false,
        }
    }

    pub(crate) fn is_doubted(&self, key: &ObjectKey) -> bool {
        matches!(self.0.lock().get(key), Some(Entry::Doubted))
    }

    pub(crate) fn put(&self, key: &ObjectKey, attempt: Attempt, imprint: Option<Imprint>) {
        self.0.lock().insert(key.clone(), Entry::Tried { attempt, imprint, noted: Instant::now() });
    }

    /// Tells whether an attempt has succeeded and was noted since then.
    pub(crate) fn is_noted_since(&self, key: &ObjectKey, then: Instant) -> bool {
        match self.0.lock().get(key) {
            Some(Entry::Tried { attempt, noted, .. }) => attempt.outcome.is_ok() && *noted >= then,
            Some(Entry::Doubted) | None => false,
        }
    }

    /// Notes what came of another object's change that served this one too. Returns whether that was news.
    pub(crate) fn put_served(&self, key: &ObjectKey, attempt: Attempt, imprint: Option<Imprint>) -> bool {
        let mut attempts = self.0.lock();
        let Some(Entry::Tried { attempt: present, imprint: left, .. }) =
            attempts.get_mut(key).filter(|entry| match entry {
                Entry::Tried { attempt: present, .. } => {
                    present.stamp == attempt.stamp && (present.outcome.is_ok() || present.outcome == attempt.outcome)
                }
                Entry::Doubted => false,
            })
        else {
            attempts.insert(key.clone(), Entry::Tried { attempt, imprint, noted: Instant::now() });
            return true;
        };
        // The same once more: when it was last tried counts, not that it was. A failure says nothing of what was written
        // before it.
        if present.outcome.is_ok() == attempt.outcome.is_ok() {
            present.at = attempt.at;
            *left = imprint;
        }
        false
    }

    /// Returns what the last attempt left in the store, with its stamp.
    pub(crate) fn imprint(&self, key: &ObjectKey) -> Option<(String, Imprint)> {
        match self.0.lock().get(key)? {
            Entry::Tried { attempt, imprint, .. } => Some((attempt.stamp.clone(), imprint.clone()?)),
            Entry::Doubted => None,
        }
    }

    /// Notes whether what the attempt of this stamp left in the store is still there. Returns false if it is not. Nothing is
    /// noted if something else was left there meanwhile: a shared file changes with others.
    pub(crate) fn compared(
        &self,
        key: &ObjectKey,
        stamp: &str,
        looked_for: Option<&Imprint>,
        holds: bool,
        at: Timestamp,
    ) -> bool {
        let mut attempts = self.0.lock();
        let Some(entry) = attempts.get_mut(key) else { return true };
        match entry {
            Entry::Tried { attempt, imprint, .. }
                if attempt.stamp == stamp && attempt.outcome.is_ok() && imprint.as_ref() == looked_for =>
            {
                if holds {
                    attempt.at = at;
                } else {
                    *entry = Entry::Doubted;
                }
                holds
            }
            // Another attempt was made meanwhile.
            _ => true,
        }
    }

    pub(crate) fn forget(&self, key: &ObjectKey) {
        self.0.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use kratix_core::state_store::{Failure, Written};
    use kratix_state_store::{Change, File, GitConfig, open};

    use super::*;

    fn attempt(at: i64, stamp: &str, outcome: Result<Written, Failure>) -> Attempt {
        Attempt { at: Timestamp::from_second(at).unwrap(), stamp: stamp.into(), outcome }
    }

    #[test]
    fn a_write_that_served_again_is_fresh_again_and_no_news() {
        let (attempts, key) = (Attempts::default(), ObjectKey::namespaced("default", "a"));
        let written = || Ok(Written { version: None, changed: true });
        let at = || attempts.get(&key).unwrap().at.as_second();
        assert!(attempts.put_served(&key, attempt(1, "s", written()), None));
        assert!(!attempts.put_served(&key, attempt(2, "s", written()), None));
        assert_eq!(at(), 2, "its own interval starts anew");
        assert!(!attempts.put_served(&key, attempt(3, "s", Err(Failure::content("no"))), None));
        assert_eq!(at(), 2, "what was written is as old as it was");
        assert!(attempts.put_served(&key, attempt(4, "t", Err(Failure::content("no"))), None));
        assert!(!attempts.put_served(&key, attempt(5, "t", Err(Failure::content("no"))), None));
        assert_eq!(at(), 5);
    }

    // Weakness 24
    #[test]
    fn names_that_join_to_the_same_text_are_kept_apart() {
        let attempts = Attempts::default();
        let (one, other) = (ObjectKey::namespaced("a", "b-c"), ObjectKey::namespaced("a-b", "c"));
        attempts.put(&one, attempt(1, "s", Ok(Written { version: Some("1".into()), changed: true })), None);
        assert!(attempts.get(&other).is_none() && !attempts.has_written(&other));
        attempts.put(&other, attempt(2, "s", Ok(Written { version: Some("2".into()), changed: true })), None);
        let version = |key| attempts.get(key).unwrap().outcome.unwrap().version.unwrap();
        assert_eq!((version(&one), version(&other)), ("1".into(), "2".into()));
    }

    #[test]
    fn what_does_not_hold_any_more_counts_as_written_and_not_as_tried() {
        let (attempts, key) = (Attempts::default(), ObjectKey::namespaced("default", "a"));
        let at = |second| Timestamp::from_second(second).unwrap();
        attempts.put(&key, attempt(1, "s", Ok(Written { version: None, changed: true })), None);
        assert!(attempts.compared(&key, "s", None, true, at(5)));
        assert_eq!(attempts.get(&key).unwrap().at, at(5));
        assert!(attempts.compared(&key, "older", None, false, at(6)), "it says nothing of what was written since");
        assert!(!attempts.compared(&key, "s", None, false, at(7)));
        assert!(attempts.get(&key).is_none() && attempts.is_doubted(&key) && attempts.has_written(&key));
        attempts.put(&key, attempt(8, "s", Ok(Written { version: None, changed: true })), None);
        assert!(!attempts.is_doubted(&key));
    }

    #[tokio::test]
    async fn a_shared_file_that_was_written_during_the_comparison_is_not_doubted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.git");
        kratix_state_store::init_bare(&path, "main").unwrap();
        let config = GitConfig::new("store", path.display().to_string());
        let handle = open(config, directory.path().join("cache")).unwrap();
        let mut imprints = Vec::new();
        for content in ["1", "2"] {
            let change = Change::replace("p", "d", vec![File::new("f", content)]);
            imprints.push(handle.write(change).await.unwrap().imprint);
        }
        let (attempts, key) = (Attempts::default(), ObjectKey::namespaced("default", "a"));
        let written = || Ok(Written { version: None, changed: true });
        let at = Timestamp::from_second(9).unwrap();
        attempts.put(&key, attempt(1, "s", written()), Some(imprints[0].clone()));
        let (stamp, looked_for) = attempts.imprint(&key).unwrap();
        // Another placement brings its documents into the file: the stamp of this one stays.
        attempts.put_served(&key, attempt(2, "s", written()), Some(imprints[1].clone()));
        assert!(attempts.compared(&key, &stamp, Some(&looked_for), false, at));
        assert!(!attempts.is_doubted(&key));
        assert!(!attempts.compared(&key, &stamp, Some(&imprints[1]), false, at));
        assert!(attempts.is_doubted(&key));
    }
}

//! Versions of objects that this process has replaced and its caches may still show: a pass over one of them would find
//! true what its own last write has made untrue, write nothing, and leave the object as it is for good.

use std::collections::HashMap;
use std::time::Duration;

use kratix_core::object::{Kind, ObjectKey, Target};
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a replaced version is refused. A cache is milliseconds late; one that shows it after this time does so because
/// the API server has been set back.
const LATE: Duration = Duration::from_secs(30);

/// So many entries, and those are dropped that are too old to matter.
const ENTRIES_MAX: usize = 4096;

/// The replaced versions of each object that was written a moment ago.
pub(crate) struct Superseded {
    replaced: Mutex<HashMap<(Kind, ObjectKey), Replaced>>,
    late: Duration,
}

struct Replaced {
    versions: Vec<String>,
    at: Instant,
}

impl Default for Superseded {
    fn default() -> Self {
        Self { replaced: Mutex::default(), late: LATE }
    }
}

impl Superseded {
    /// Remembers the versions that writes have replaced.
    pub(crate) fn note(&self, versions: Vec<((Kind, ObjectKey), String)>) {
        if versions.is_empty() {
            return;
        }
        let (now, mut all) = (Instant::now(), self.replaced.lock());
        if all.len() >= ENTRIES_MAX {
            all.retain(|_, replaced| now - replaced.at < self.late);
        }
        for (object, version) in versions {
            let replaced = all.entry(object).or_insert_with(|| Replaced { versions: Vec::new(), at: now });
            replaced.versions.push(version);
            replaced.at = now;
        }
    }

    /// Tells whether a cache shows a version of the object that was replaced since.
    pub(crate) fn shows(&self, object: &Target) -> bool {
        let Some(version) = &object.resource_version else { return false };
        let address = (object.kind.clone(), object.key.clone());
        let mut all = self.replaced.lock();
        let Some(replaced) = all.get(&address) else { return false };
        let is_old = replaced.at.elapsed() < self.late && replaced.versions.contains(version);
        if !is_old {
            all.remove(&address);
        }
        is_old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(version: &str) -> Target {
        let kind = Kind::new("", "v1", "ConfigMap", "configmaps");
        let (key, uid) = (ObjectKey::namespaced("default", "a"), None);
        Target { kind, key, uid, resource_version: Some(version.into()) }
    }

    fn replaced(versions: &[&str]) -> Vec<((Kind, ObjectKey), String)> {
        let address = |version: &&str| ((shown("").kind, shown("").key), (*version).to_owned());
        versions.iter().map(address).collect()
    }

    #[test]
    fn a_version_that_was_replaced_is_refused_until_the_cache_has_moved_on() {
        let superseded = Superseded::default();
        assert!(!superseded.shows(&shown("1")));
        superseded.note(replaced(&["1", "2"]));
        superseded.note(replaced(&["3"]));
        for old in ["1", "2", "3", "1"] {
            assert!(superseded.shows(&shown(old)), "{old}");
        }
        assert!(!superseded.shows(&shown("4")));
        assert!(superseded.replaced.lock().is_empty(), "a cache does not go back");
    }

    #[test]
    fn a_server_that_was_set_back_is_believed_after_a_while_and_the_rest_is_forgotten() {
        let superseded = Superseded { late: Duration::ZERO, ..Superseded::default() };
        superseded.note(replaced(&["1"]));
        assert!(!superseded.shows(&shown("1")));
        for at in 0..2 * ENTRIES_MAX {
            let key = ObjectKey::cluster(at.to_string());
            superseded.note(vec![((shown("").kind, key), "1".into())]);
        }
        assert!(superseded.replaced.lock().len() <= ENTRIES_MAX);
    }
}

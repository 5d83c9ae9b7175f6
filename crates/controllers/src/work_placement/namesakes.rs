//! Which placements could have one directory: those of one Promise and one request name, in whatever namespace.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use kratix_api::WorkPlacement;
use kratix_core::object::ObjectKey;
use kratix_core::work_placement::collision_key;
use parking_lot::RwLock;

use crate::cache::Cache;

/// An index of placements by [`collision_key`]: no pass visits all placements of a Promise to find the few that matter.
#[derive(Default)]
pub(crate) struct Namesakes(RwLock<HashMap<(String, String), BTreeSet<ObjectKey>>>);

impl Namesakes {
    /// Returns an index that follows the cache.
    pub(crate) fn follow(placements: &Cache<WorkPlacement>) -> Arc<Self> {
        let index = Arc::new(Self::default());
        let followed = Arc::clone(&index);
        placements.on_change(move |old, new| followed.change(old.map(|old| &**old), new.map(|new| &**new)));
        index
    }

    /// Returns the placements that share the key of `placement`, itself included, sorted.
    pub(crate) fn of(&self, placement: &WorkPlacement) -> Vec<ObjectKey> {
        self.with(&collision_key(placement))
    }

    /// Returns the placements of requests of one name of one Promise, sorted.
    pub(crate) fn of_request(&self, promise: &str, request: &str) -> Vec<ObjectKey> {
        self.with(&(promise.to_owned(), request.to_owned()))
    }

    fn with(&self, key: &(String, String)) -> Vec<ObjectKey> {
        self.0.read().get(key).into_iter().flatten().cloned().collect()
    }

    fn change(&self, old: Option<&WorkPlacement>, new: Option<&WorkPlacement>) {
        let mut index = self.0.write();
        if let Some(old) = old {
            let key = collision_key(old);
            if let Some(keys) = index.get_mut(&key) {
                keys.remove(&ObjectKey::of(old));
                if keys.is_empty() {
                    index.remove(&key);
                }
            }
        }
        if let Some(new) = new {
            index.entry(collision_key(new)).or_default().insert(ObjectKey::of(new));
        }
    }
}

#[cfg(test)]
mod tests {
    use kratix_api::WorkPlacementSpec;

    use super::*;

    fn placement(namespace: &str, resource: &str) -> WorkPlacement {
        let spec = WorkPlacementSpec {
            promise_name: "redis".into(),
            resource_name: resource.into(),
            ..WorkPlacementSpec::default()
        };
        let mut placement = WorkPlacement::new("p", spec);
        placement.metadata.namespace = Some(namespace.into());
        placement
    }

    #[test]
    fn the_index_follows_every_change() {
        let index = Namesakes::default();
        index.change(None, Some(&placement("a", "x")));
        index.change(None, Some(&placement("b", "x")));
        assert_eq!(index.of(&placement("c", "x")).len(), 2);
        index.change(Some(&placement("a", "x")), Some(&placement("a", "y")));
        assert_eq!(index.of(&placement("c", "x")), [ObjectKey::namespaced("b", "p")]);
        index.change(Some(&placement("b", "x")), None);
        index.change(Some(&placement("a", "y")), None);
        assert!(index.0.read().is_empty());
    }
}

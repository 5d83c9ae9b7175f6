//! Which placements could have one directory or one state file.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use kratix_api::WorkPlacement;
use kratix_core::object::ObjectKey;
use kratix_core::work_placement::{Collision, collisions};
use parking_lot::RwLock;

use crate::cache::Cache;

/// An index of placements by their [`collisions`]: no pass visits all placements of a Promise to find the few that matter.
#[derive(Default)]
pub(crate) struct Namesakes(RwLock<HashMap<Collision, BTreeSet<ObjectKey>>>);

impl Namesakes {
    /// Returns an index that follows the cache.
    pub(crate) fn follow(placements: &Cache<WorkPlacement>) -> Arc<Self> {
        let index = Arc::new(Self::default());
        let followed = Arc::clone(&index);
        placements.on_change(move |old, new| followed.change(old.map(|old| &**old), new.map(|new| &**new)));
        index
    }

    /// Returns the placements that have something in common with `placement`, itself included, sorted.
    pub(crate) fn of(&self, placement: &WorkPlacement) -> BTreeSet<ObjectKey> {
        let index = self.0.read();
        collisions(placement).iter().filter_map(|collision| index.get(collision)).flatten().cloned().collect()
    }

    /// Returns the placements of requests of one name of one Promise, sorted.
    pub(crate) fn of_request(&self, promise: &str, request: &str) -> Vec<ObjectKey> {
        let key = Collision::Namesake { promise: promise.to_owned(), request: request.to_owned() };
        self.0.read().get(&key).into_iter().flatten().cloned().collect()
    }

    fn change(&self, old: Option<&WorkPlacement>, new: Option<&WorkPlacement>) {
        let mut index = self.0.write();
        for (old, collision) in old.iter().flat_map(|old| collisions(old).map(|collision| (old, collision))) {
            if let Some(keys) = index.get_mut(&collision) {
                keys.remove(&ObjectKey::of(*old));
                if keys.is_empty() {
                    index.remove(&collision);
                }
            }
        }
        for (new, collision) in new.iter().flat_map(|new| collisions(new).map(|collision| (new, collision))) {
            index.entry(collision).or_default().insert(ObjectKey::of(*new));
        }
    }
}

#[cfg(test)]
mod tests {
    use kratix_api::WorkPlacementSpec;

    use super::*;

    fn named(namespace: &str, name: &str) -> WorkPlacement {
        let mut placement = placement(namespace, name);
        placement.metadata.name = Some(name.into());
        placement
    }

    #[test]
    fn those_whose_state_files_have_one_name_are_found_by_it() {
        let index = Namesakes::default();
        let (one, other) = (named("a-b", "c"), named("a", "b-c"));
        index.change(None, Some(&one));
        index.change(None, Some(&named("a", "b-d")));
        assert_eq!(index.of(&other), BTreeSet::from([ObjectKey::namespaced("a-b", "c")]));
        index.change(Some(&one), None);
        index.change(Some(&named("a", "b-d")), None);
        assert!(index.0.read().is_empty());
    }

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
        assert_eq!(index.of(&placement("c", "x")), BTreeSet::from([ObjectKey::namespaced("b", "p")]));
        index.change(Some(&placement("b", "x")), None);
        index.change(Some(&placement("a", "y")), None);
        assert!(index.0.read().is_empty());
    }
}

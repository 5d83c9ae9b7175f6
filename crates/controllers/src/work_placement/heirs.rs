//! Who waits for whose paths of shared directories: whoever was refused a path is brought back as soon as its owner gives it up, and
//! whoever is leaving as soon as those have written who take over.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use kratix_api::WorkPlacement;
use kratix_core::object::ObjectKey;
use kratix_core::state_store::Attempt;
use kratix_core::work_placement::{self, Handover, ledger_name};
use parking_lot::Mutex;

use super::WorkPlacements;
use crate::cache::Cache;
use crate::caches::ledger_entry;
use crate::queue::Queue;

/// What is known of refused paths. Lost with the process: the next one tries everything once more.
///
/// # Limits
/// One entry for each placement that was refused a path, and for each whose removal waits.
#[derive(Default)]
pub(super) struct Heirs(Mutex<State>);

#[derive(Default)]
struct State {
    refused: HashMap<ObjectKey, Refusal>,
    /// Who was refused, by the owner's ledger.
    by_ledger: HashMap<String, BTreeSet<ObjectKey>>,
    /// Whose removal may wait, by Destination.
    yielding: HashMap<String, BTreeSet<ObjectKey>>,
}

/// The last attempt of a placement was refused because a path is somebody else's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal {
    /// The owner's.
    ledger: String,
    stamp: String,
    /// Not for the first time.
    again: bool,
    /// The owner may have given the path up since.
    is_over: bool,
}

impl Heirs {
    /// Returns what follows the cache, and brings to `queue` whoever has waited.
    pub(super) fn follow(placements: &Cache<WorkPlacement>, queue: &Queue<ObjectKey>) -> Arc<Self> {
        let heirs = Arc::new(Self::default());
        let (followed, queue) = (Arc::clone(&heirs), queue.clone());
        placements.on_later_change(move |old, new| {
            if let Some(owner) = old.filter(|old| work_placement::keeps_paths(old))
                && !new.is_some_and(|new| work_placement::keeps_paths(new))
            {
                followed.release(owner).into_iter().for_each(|heir| queue.add(heir));
            }
            for placement in old.into_iter().chain(new) {
                followed.take_yielding(placement).into_iter().for_each(|leaving| queue.add(leaving));
            }
        });
        heirs
    }

    /// Notes what has come of an attempt: by whose ledger it was refused.
    fn note(&self, key: &ObjectKey, stamp: &str, ledger: Option<&str>) {
        let mut state = self.0.lock();
        let last = state.forget(key);
        let Some(ledger) = ledger else { return };
        let again = last.is_some_and(|last| last.ledger == ledger && last.stamp == stamp);
        state.by_ledger.entry(ledger.to_owned()).or_default().insert(key.clone());
        let refusal = Refusal { ledger: ledger.to_owned(), stamp: stamp.to_owned(), again, is_over: false };
        state.refused.insert(key.clone(), refusal);
    }

    /// Notes that a placement may have given up paths. Returns who was refused one of its paths.
    fn release(&self, owner: &WorkPlacement) -> BTreeSet<ObjectKey> {
        let mut state = self.0.lock();
        if state.refused.is_empty() {
            return BTreeSet::new();
        }
        let heirs = state.by_ledger.get(&ledger_name(owner)).cloned().unwrap_or_default();
        for heir in &heirs {
            state.refused.entry(heir.clone()).and_modify(|refusal| refusal.is_over = true);
        }
        heirs
    }

    /// Notes that a refusal says nothing any more.
    fn end(&self, key: &ObjectKey) {
        self.0.lock().refused.entry(key.clone()).and_modify(|refusal| refusal.is_over = true);
    }

    /// Tells whether a refusal says nothing any more.
    pub(super) fn is_over(&self, key: &ObjectKey) -> bool {
        self.0.lock().refused.get(key).is_some_and(|refusal| refusal.is_over)
    }

    /// Notes that the removal of a placement waits; what happens from now on brings it back.
    pub(super) fn begin(&self, leaving: &WorkPlacement) {
        let destination = leaving.spec.target_destination_name.clone();
        self.0.lock().yielding.entry(destination).or_default().insert(ObjectKey::of(leaving));
    }

    /// Notes that the removal of a placement waits no longer.
    pub(super) fn proceed(&self, leaving: &WorkPlacement) {
        let mut state = self.0.lock();
        let destination = &leaving.spec.target_destination_name;
        if let Some(yielding) = state.yielding.get_mut(destination) {
            yielding.remove(&ObjectKey::of(leaving));
            if yielding.is_empty() {
                state.yielding.remove(destination);
            }
        }
    }

    fn take_yielding(&self, heir: &WorkPlacement) -> BTreeSet<ObjectKey> {
        let mut state = self.0.lock();
        if state.yielding.is_empty() {
            return BTreeSet::new();
        }
        state.yielding.remove(&heir.spec.target_destination_name).unwrap_or_default()
    }

    /// Forgets a placement that does not exist any more.
    pub(super) fn forget(&self, key: &ObjectKey) {
        let mut state = self.0.lock();
        state.forget(key);
        state.yielding.retain(|_, yielding| {
            yielding.remove(key);
            !yielding.is_empty()
        });
    }
}

impl State {
    fn forget(&mut self, key: &ObjectKey) -> Option<Refusal> {
        let refusal = self.refused.remove(key)?;
        if let Some(heirs) = self.by_ledger.get_mut(&refusal.ledger) {
            heirs.remove(key);
            if heirs.is_empty() {
                self.by_ledger.remove(&refusal.ledger);
            }
        }
        Some(refusal)
    }
}

impl WorkPlacements {
    /// Returns what is known of paths that pass from or to a placement.
    pub(super) fn handover(&self, key: &ObjectKey, placement: &WorkPlacement) -> Handover {
        let is_leaving = !work_placement::keeps_paths(placement);
        let (refusal, heirs) = {
            let state = self.heirs.0.lock();
            let heirs = is_leaving.then(|| state.by_ledger.get(&ledger_name(placement)).cloned());
            (state.refused.get(key).cloned(), heirs.flatten().unwrap_or_default())
        };
        let is_alive = |heir: &ObjectKey| {
            self.cx.caches.placements.get(heir).is_some_and(|heir| work_placement::keeps_paths(&heir))
        };
        Handover {
            owner: refusal.as_ref().and_then(|refusal| self.owner(&refusal.ledger)),
            was_refused_before: refusal.is_some_and(|refusal| refusal.again),
            is_awaited: heirs.iter().any(is_alive),
        }
    }

    /// Notes by whose ledger an attempt that began at `began` was refused, and brings back who has waited for it.
    pub(super) fn note_owner(
        &self,
        placement: &WorkPlacement,
        attempt: &Attempt,
        ledger: Option<&str>,
        began: Instant,
    ) {
        let key = ObjectKey::of(placement);
        self.heirs.note(&key, &attempt.stamp, ledger);
        self.heirs.take_yielding(placement).into_iter().for_each(|leaving| self.served.add(leaving));
        if attempt.outcome.is_ok() {
            self.heirs.release(placement).into_iter().for_each(|heir| self.served.add(heir));
        }
        if ledger.is_none() {
            return;
        }
        let handover = self.handover(&key, placement);
        let owner_has_written =
            handover.owner.as_deref().is_some_and(|owner| self.attempts.is_noted_since(&ObjectKey::of(owner), began));
        if handover.is_refusal_over(owner_has_written) {
            self.heirs.end(&key);
        }
    }

    fn owner(&self, ledger: &str) -> Option<Arc<WorkPlacement>> {
        self.cx.caches.placements.indexed(&ledger_entry(ledger)).into_iter().next()
    }
}

#[cfg(test)]
mod tests {
    use kratix_api::WorkPlacementSpec;

    use super::*;

    fn placement(name: &str) -> WorkPlacement {
        let spec = WorkPlacementSpec { target_destination_name: "d".into(), ..WorkPlacementSpec::default() };
        let mut placement = WorkPlacement::new(name, spec);
        placement.metadata.namespace = Some("default".into());
        placement
    }

    #[test]
    fn whoever_waits_is_found_by_the_owner_and_nothing_is_left_of_what_is_over() {
        let heirs = Heirs::default();
        let (owner, key) = (placement("owner"), ObjectKey::namespaced("default", "heir"));
        let again = |heirs: &Heirs| heirs.0.lock().refused[&key].again;
        heirs.note(&key, "s", Some("default-owner"));
        assert!(!again(&heirs) && !heirs.is_over(&key));
        assert_eq!(heirs.release(&owner), BTreeSet::from([key.clone()]));
        assert!(heirs.is_over(&key), "it is tried again at once");
        heirs.note(&key, "s", Some("default-owner"));
        assert!(again(&heirs) && !heirs.is_over(&key));
        heirs.note(&key, "t", Some("default-owner"));
        assert!(!again(&heirs), "another content may be had");
        heirs.note(&key, "t", Some("default-other"));
        assert!(!again(&heirs) && heirs.release(&owner).is_empty());
        heirs.note(&key, "t", None);
        heirs.begin(&owner);
        heirs.begin(&placement("other"));
        heirs.proceed(&placement("other"));
        assert_eq!(heirs.take_yielding(&placement("heir")), BTreeSet::from([ObjectKey::of(&owner)]));
        heirs.begin(&owner);
        heirs.forget(&ObjectKey::of(&owner));
        let State { refused, by_ledger, yielding } = &*heirs.0.lock();
        assert!(refused.is_empty() && by_ledger.is_empty() && yielding.is_empty());
    }
}

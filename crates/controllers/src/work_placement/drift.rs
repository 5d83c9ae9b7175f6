//! Whether the stores still hold what was written to them: one question for all placements of a Destination.

use kratix_api::destination::StateStoreRef;
use kratix_core::object::ObjectKey;
use kratix_core::work_placement::{self, Snapshot};
use kratix_state_store::Handle;

use super::WorkPlacements;

impl WorkPlacements {
    /// Compares what the placements of a Destination have left in its store with what is there, and brings those back of which
    /// something is missing. Returns false if the store could not be asked.
    pub(super) async fn compare(
        &self,
        key: &ObjectKey,
        snapshot: &Snapshot,
        store: &StateStoreRef,
        handle: &Handle,
    ) -> bool {
        let destination = &snapshot.placement.spec.target_destination_name;
        let _turn = self.comparisons.take(destination).await;
        let Some(attempt) = self.attempts.get(key) else { return true };
        let stamp = attempt.stamp.clone();
        let present = Snapshot { attempt: Some(attempt), ..snapshot.clone() };
        if !work_placement::decide(&present).compares {
            return true; // another one has asked meanwhile
        }
        let at = self.cx.now();
        let keys = self.members(destination).into_iter().map(|member| ObjectKey::of(&*member));
        let left: Vec<_> = keys.filter_map(|key| self.attempts.imprint(&key).map(|found| (key, found))).collect();
        if !left.iter().any(|(found, _)| found == key) {
            self.attempts.compared(key, &stamp, None, false, at); // nobody knows
        }
        let imprints = left.iter().map(|(_, (_, imprint))| imprint.clone()).collect();
        let Some(holds) = self.stores.verify(store, handle, imprints).await else { return false };
        for ((member, (stamp, imprint)), holds) in left.into_iter().zip(holds) {
            if !self.attempts.compared(&member, &stamp, Some(&imprint), holds, at) && member != *key {
                self.served.add(member);
            }
        }
        true
    }
}

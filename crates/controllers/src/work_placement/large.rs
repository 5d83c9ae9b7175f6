//! How much large content waits for one store: as much as a commit takes, and one that is being made.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use kratix_api::destination::StateStoreRef;
use kratix_core::object::ObjectKey;
use kratix_core::state_store::{SILENCE, display};
use kratix_core::work_placement::{self, CONTENT_BYTES_MAX, Decision, Parts, Snapshot};
use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::WorkPlacements;
use super::turns::Turns;
use crate::error::Error;
use crate::gates;
use crate::parts;
use crate::telemetry::Pass;

/// What is counted as one.
const UNIT_BYTES: usize = 1 << 10;
/// Most that waits for one store.
const STORE_UNITS_MAX: usize = CONTENT_BYTES_MAX / UNIT_BYTES;

/// A turn in which content is made, and the room in which it waits then, for each store. Whoever has found room gives up its turn,
/// so that the next one is in the same commit if it fits.
///
/// # Limits
/// Holds the stores for which something large waits.
#[derive(Default)]
pub(super) struct Large {
    turns: Turns,
    rooms: Mutex<HashMap<StateStoreRef, Weak<Semaphore>>>,
}

impl Large {
    /// Waits for the turn to make content for a store.
    ///
    /// # Cancel safety
    /// A dropped future has taken nothing.
    pub(super) async fn turn(&self, store: &StateStoreRef) -> OwnedMutexGuard<()> {
        self.turns.take(&display(Some(store))).await
    }

    /// Waits until there is room for so much. There is, for whatever is made, once nothing else waits.
    ///
    /// # Cancel safety
    /// As [`Large::turn`].
    pub(super) async fn room(&self, store: &StateStoreRef, bytes: usize) -> OwnedSemaphorePermit {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES).min(STORE_UNITS_MAX)).expect("the limit is small");
        self.room_of(store).acquire_many_owned(units).await.expect("nobody closes it")
    }

    fn room_of(&self, store: &StateStoreRef) -> Arc<Semaphore> {
        let mut rooms = self.rooms.lock();
        if let Some(room) = rooms.get(store).and_then(Weak::upgrade) {
            return room;
        }
        rooms.retain(|_, room| room.strong_count() > 0);
        let room = Arc::new(Semaphore::new(STORE_UNITS_MAX));
        rooms.insert(store.clone(), Arc::downgrade(&room));
        room
    }
}

impl WorkPlacements {
    /// Decides about what is large, in its turn, and waits until there is room for what is to be written. Returns nothing if the
    /// placement has become another one while it waited.
    pub(super) async fn in_turn(
        &self,
        key: &ObjectKey,
        snapshot: &mut Snapshot,
        large: &Decision,
        store: &StateStoreRef,
        (pass, deadline): (&Pass, Instant),
    ) -> Result<Option<(Decision, Option<OwnedSemaphorePermit>)>, Error> {
        let turn = gates::telling(self.large.turn(store), deadline, self.tell(snapshot, store)).await;
        let Some(mut decision) = self.complete(key, snapshot, large).await? else { return Ok(None) };
        self.act(pass, &mut decision, &mut snapshot.placement).await?;
        let Some(effect) = &decision.effect else { return Ok(Some((decision, None))) };
        let room = self.large.room(store, effect.change.held_bytes());
        let deadline = deadline.max(Instant::now() + SILENCE);
        let room = gates::telling(room, deadline, self.tell(snapshot, store)).await;
        drop(turn);
        Ok(Some((decision, Some(room))))
    }

    /// Decides about what is large, with the parts that the placement refers to, which nothing holds after that but
    /// the decision. Returns nothing if the placement has become another one while it waited: its parts may be gone.
    async fn complete(
        &self,
        key: &ObjectKey,
        snapshot: &mut Snapshot,
        large: &Decision,
    ) -> Result<Option<Decision>, Error> {
        let present = self.cx.caches.placements.get(key);
        if present.is_none_or(|present| present.metadata.generation != snapshot.placement.metadata.generation) {
            return Ok(None);
        }
        snapshot.parts = parts::read(&self.cx, work_placement::lacks_parts(snapshot, large)).await?;
        (snapshot.now, snapshot.has_turn) = (self.cx.now(), true);
        let decision = work_placement::decide(snapshot);
        (snapshot.parts, snapshot.has_turn) = (Parts::new(), false);
        Ok(Some(decision))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use kratix_api::destination::StateStoreKind;

    use super::*;

    fn store(name: &str) -> StateStoreRef {
        StateStoreRef { kind: StateStoreKind::GitStateStore, name: name.into() }
    }

    #[tokio::test]
    async fn as_much_waits_for_a_store_as_a_commit_takes_and_whatever_is_alone_fits() {
        let (large, one, other) = (Large::default(), store("one"), store("other"));
        let halves = [large.room(&one, CONTENT_BYTES_MAX / 2).await, large.room(&one, CONTENT_BYTES_MAX / 2).await];
        assert!(large.room(&one, 1).now_or_never().is_none());
        assert!(large.room(&other, 10 * CONTENT_BYTES_MAX).now_or_never().is_some(), "of another store");
        drop(halves);
        assert!(large.room(&one, 10 * CONTENT_BYTES_MAX).now_or_never().is_some(), "nothing else waits");
        drop(large.room(&store("third"), 1).await);
        drop(large.room(&store("fourth"), 1).await);
        assert_eq!(large.rooms.lock().len(), 1, "nothing waits for the others");
    }

    #[tokio::test]
    async fn content_is_made_for_one_at_a_time_of_each_store() {
        let (large, one) = (Large::default(), store("one"));
        let turn = large.turn(&one).await;
        assert!(large.turn(&one).now_or_never().is_none());
        assert!(large.turn(&store("other")).now_or_never().is_some());
        drop(turn);
        assert!(large.turn(&one).now_or_never().is_some());
    }
}

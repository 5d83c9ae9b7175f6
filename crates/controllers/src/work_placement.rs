//! WorkPlacement: brings documents into the state stores and says so.

use std::sync::Arc;
use std::time::Duration;

use kratix_api::destination::StateStoreRef;
use kratix_api::{Destination, WorkPlacement};
use kratix_core::object::{ObjectKey, Target};
use kratix_core::plan::{Next, Reporter};
use kratix_core::state_store::Attempt;
use kratix_core::work_placement::{self, Effect, Snapshot};
use kratix_state_store::Handle;

use crate::caches::destination_entry;
use crate::context::Context;
use crate::controller::Reconcile;
use crate::error::Error;
use crate::queue::Queue;
use crate::state_store::{self, Attempts, Registry};

mod namesakes;
mod turns;

pub(crate) use self::namesakes::Namesakes;
use self::turns::Turns;

/// After this time in a store's queue the placement says that it waits. Most writes are over earlier and cost one status.
const SILENCE: Duration = Duration::from_secs(1);

/// The controller of placements.
pub(crate) struct WorkPlacements {
    cx: Arc<Context>,
    stores: Arc<Registry>,
    namesakes: Arc<Namesakes>,
    attempts: Attempts,
    turns: Turns,
    /// Where placements go whose content another placement's change has brought into the store.
    served: Queue<ObjectKey>,
}

impl WorkPlacements {
    /// Returns the controller; `queue` is the one that it is run with.
    pub(crate) fn new(
        cx: &Arc<Context>,
        stores: &Arc<Registry>,
        namesakes: &Arc<Namesakes>,
        queue: &Queue<ObjectKey>,
    ) -> Self {
        Self {
            cx: Arc::clone(cx),
            stores: Arc::clone(stores),
            namesakes: Arc::clone(namesakes),
            attempts: Attempts::default(),
            turns: Turns::default(),
            served: queue.clone(),
        }
    }

    fn destination(&self, placement: &WorkPlacement) -> Option<Arc<Destination>> {
        self.cx.caches.destinations.get(&ObjectKey::cluster(placement.spec.target_destination_name.clone()))
    }

    fn observe(&self, key: &ObjectKey, placement: Arc<WorkPlacement>) -> (Snapshot, Option<Handle>) {
        let destination = self.destination(&placement);
        let reference = destination.as_ref().and_then(|destination| destination.spec.state_store_ref.as_ref());
        let (store, handle) = self.stores.availability(&self.cx.caches, reference);
        let rivals = self.namesakes.of(&placement).into_iter().filter(|rival| rival != key);
        let rivals = rivals.filter_map(|rival| self.cx.caches.placements.get(&rival));
        let rivals = rivals.map(|rival| (Arc::clone(&rival), self.destination(&rival))).collect();
        let members = match &destination {
            Some(shared) if work_placement::aggregates(shared) => {
                self.cx.caches.placements.indexed(&destination_entry(&placement.spec.target_destination_name))
            }
            _ => Vec::new(),
        };
        let interval = self.cx.config().state_store_reconciliation_interval;
        let attempt = self.attempts.get(key);
        let now = self.cx.now();
        (Snapshot { now, placement, destination, store, rivals, members, attempt, interval }, handle)
    }

    /// Makes the change durable. A wait that takes long is said on the placement.
    async fn write(&self, snapshot: &Snapshot, store: &StateStoreRef, handle: &Handle, effect: Effect) -> Attempt {
        let write = self.stores.write(store, handle, effect.change, effect.stamp, || self.cx.now());
        tokio::pin!(write);
        // Both branches may be dropped: the write is resumed below, and the timer has no effect.
        tokio::select! {
            attempt = &mut write => return attempt,
            () = tokio::time::sleep(SILENCE) => {}
        }
        if let Err(error) = self.cx.act(&work_placement::queued(snapshot)).await {
            // The outcome of the write will be said in any case.
            tracing::debug!(placement = %ObjectKey::of(&*snapshot.placement), %error, "waiting could not be told");
        }
        write.await
    }

    fn note(&self, key: &ObjectKey, covers: Vec<(ObjectKey, String)>, attempt: &Attempt) {
        self.attempts.put(key, attempt.clone());
        if attempt.outcome.is_err() {
            return;
        }
        for (served, stamp) in covers {
            if self.attempts.put_served(&served, Attempt { stamp, ..attempt.clone() }) {
                self.served.add(served);
            }
        }
    }
}

impl Reconcile for WorkPlacements {
    const NAME: &'static str = "WorkPlacement";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let shared = self.cx.caches.placements.get(key).and_then(|placement| self.destination(&placement));
        let shared = shared.filter(|destination| work_placement::aggregates(destination));
        // The placements of one file take turns, so that each is computed from the ones before it. What comes meanwhile is
        // served by the first of them.
        let _turn = match &shared {
            Some(destination) => Some(self.turns.take(&ObjectKey::of(&**destination)).await),
            None => None,
        };
        let Some(placement) = self.cx.caches.placements.get(key) else {
            self.attempts.forget(key);
            return Ok(Next::OnChange);
        };
        let (mut snapshot, handle) = self.observe(key, placement);
        let store = snapshot.destination.as_ref().and_then(|destination| destination.spec.state_store_ref.clone());
        let decision = work_placement::decide(&snapshot);
        self.cx.act(&decision.plan).await?;
        let (Some(mut effect), Some(store), Some(handle)) = (decision.effect, store, handle) else {
            return Ok(decision.plan.next);
        };
        let covers = std::mem::take(&mut effect.covers);
        let attempt = self.write(&snapshot, &store, &handle, effect).await;
        self.note(key, covers, &attempt);
        snapshot.now = self.cx.now();
        let plan = work_placement::record(&snapshot, attempt);
        self.cx.act(&plan).await?;
        Ok(plan.next)
    }

    fn subject(&self, key: &ObjectKey) -> Option<(Reporter, Target)> {
        Some((Reporter::WorkPlacement, Target::of(&*self.cx.caches.placements.get(key)?)))
    }
}

/// Brings placements to the queue when they, their Destinations, their stores, or who had their directory change.
pub(crate) fn watch(cx: &Arc<Context>, stores: &Registry, namesakes: &Arc<Namesakes>, queue: &Queue<ObjectKey>) {
    let (namesakes, placements) = (Arc::clone(namesakes), queue.clone());
    cx.caches.placements.on_change(move |old, new| {
        let Some(placement) = new.or(old) else { return };
        if work_placement::concerns_itself(old.map(|old| &**old), new.map(|new| &**new)) {
            placements.add(ObjectKey::of(&**placement));
        }
        if new.is_none() {
            namesakes.of(placement).into_iter().for_each(|heir| placements.add(heir));
        }
    });
    let (caches, placements) = (cx.caches.clone(), queue.clone());
    cx.caches.destinations.on_change(move |old, new| {
        if work_placement::concerns_placements(old.map(|old| &**old), new.map(|new| &**new))
            && let Some(destination) = new.or(old)
        {
            let entry = destination_entry(&ObjectKey::of(&**destination).name);
            caches.placements.indexed(&entry).iter().for_each(|found| placements.add(ObjectKey::of(&**found)));
        }
    });
    let (cx, placements) = (Arc::clone(cx), queue.clone());
    stores.on_change(move |store| {
        for destination in state_store::destinations(&cx, store) {
            let entry = destination_entry(&ObjectKey::of(&*destination).name);
            cx.caches.placements.indexed(&entry).iter().for_each(|found| placements.add(ObjectKey::of(&**found)));
        }
    });
}

//! Destination: test documents, readiness, clean-up.

use std::sync::Arc;

use kratix_api::Destination;
use kratix_core::destination::{self, Snapshot};
use kratix_core::object::{ObjectKey, Target};
use kratix_core::plan::{Next, Reporter};
use kratix_state_store::Handle;

use crate::caches::destination_entry;
use crate::context::Context;
use crate::controller::Reconcile;
use crate::error::Error;
use crate::queue::Queue;
use crate::state_store::{self, Attempts, Registry};

/// The controller of Destinations.
pub(crate) struct Destinations {
    cx: Arc<Context>,
    stores: Arc<Registry>,
    attempts: Attempts,
}

impl Destinations {
    /// Returns the controller.
    pub(crate) fn new(cx: &Arc<Context>, stores: &Arc<Registry>) -> Self {
        Self { cx: Arc::clone(cx), stores: Arc::clone(stores), attempts: Attempts::default() }
    }

    fn observe(&self, key: &ObjectKey, destination: Arc<Destination>) -> (Snapshot, Option<Handle>) {
        let reference = destination.spec.state_store_ref.as_ref();
        let (store, handle) = self.stores.availability(&self.cx.caches, reference);
        let placements = match destination.metadata.deletion_timestamp {
            Some(_) => self.cx.caches.placements.indexed(&destination_entry(&key.name)),
            None => Vec::new(),
        };
        let attempt = self.attempts.get(key);
        let interval = self.cx.config().state_store_reconciliation_interval;
        (Snapshot { now: self.cx.now(), destination, store, placements, attempt, interval }, handle)
    }
}

impl Reconcile for Destinations {
    const NAME: &'static str = "Destination";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(destination) = self.cx.caches.destinations.get(key) else {
            self.attempts.forget(key);
            return Ok(Next::OnChange);
        };
        let reference = destination.spec.state_store_ref.clone();
        let (mut snapshot, handle) = self.observe(key, destination);
        let decision = destination::decide(&snapshot);
        self.cx.act(&decision.plan).await?;
        let (Some(effect), Some(reference), Some(handle)) = (decision.effect, reference, handle) else {
            return Ok(decision.plan.next);
        };
        let attempt = self.stores.write(&reference, &handle, effect.change, effect.stamp, || self.cx.now()).await;
        self.attempts.put(key, attempt.clone());
        snapshot.now = self.cx.now();
        let plan = destination::record(&snapshot, attempt);
        self.cx.act(&plan).await?;
        Ok(plan.next)
    }

    fn subject(&self, key: &ObjectKey) -> Option<(Reporter, Target)> {
        Some((Reporter::Destination, Target::of(&*self.cx.caches.destinations.get(key)?)))
    }
}

/// Brings Destinations to the queue when they, their stores, or the placements that they wait for change.
pub(crate) fn watch(cx: &Arc<Context>, stores: &Registry, queue: &Queue<ObjectKey>) {
    let destinations = queue.clone();
    cx.caches.destinations.on_change(move |old, new| {
        if destination::concerns_itself(old.map(|old| &**old), new.map(|new| &**new))
            && let Some(destination) = new.or(old)
        {
            destinations.add(ObjectKey::of(&**destination));
        }
    });
    let (caches, destinations) = (cx.caches.clone(), queue.clone());
    cx.caches.placements.on_change(move |old, new| {
        let (Some(placement), None) = (old, new) else { return };
        let key = ObjectKey::cluster(placement.spec.target_destination_name.clone());
        let is_waiting =
            caches.destinations.get(&key).is_some_and(|waiting| waiting.metadata.deletion_timestamp.is_some());
        if is_waiting {
            destinations.add(key);
        }
    });
    // Timers run with the interval that was in force when they were started.
    let (caches, destinations) = (cx.caches.clone(), queue.clone());
    cx.on_interval_change(move || {
        caches.destinations.all().iter().for_each(|found| destinations.add(ObjectKey::of(&**found)));
    });
    let (cx, destinations) = (Arc::clone(cx), queue.clone());
    stores.on_change(move |store| {
        state_store::destinations(&cx, store).iter().for_each(|found| destinations.add(ObjectKey::of(&**found)));
    });
}

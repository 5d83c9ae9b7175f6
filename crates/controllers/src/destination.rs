//! Destination: test documents, readiness, clean-up.

use std::sync::Arc;
use std::time::Duration;

use kratix_api::Destination;
use kratix_api::destination::StateStoreRef;
use kratix_core::destination::{self, Former, Snapshot};
use kratix_core::object::{ObjectKey, Target};
use kratix_core::plan::{Next, Reporter};
use kratix_core::state_store::{SILENCE, concerns_destinations};
use kratix_core::work_placement::{self, Cleaned, Site};
use kratix_state_store::Handle;
use tokio::time::Instant;

use crate::caches::{destination_entry, former_entry};
use crate::context::Context;
use crate::controller::Reconcile;
use crate::error::Error;
use crate::gates::{self, Gates};
use crate::queue::Queue;
use crate::state_store::{self, Attempts, Registry, Replaced};

/// Passes over Destinations of one store at once.
pub(crate) const STORE_PASSES_MAX: usize = 64;

/// The controller of Destinations.
pub(crate) struct Destinations {
    cx: Arc<Context>,
    stores: Arc<Registry>,
    attempts: Attempts,
    gates: Gates,
    /// Of the stores in which Destinations have been before.
    leaving: Gates,
}

impl Destinations {
    /// Returns the controller; the gates are those of the queue that it is run with.
    pub(crate) fn new(cx: &Arc<Context>, stores: &Arc<Registry>, gates: &Gates) -> Self {
        let (cx, stores) = (Arc::clone(cx), Arc::clone(stores));
        Self { cx, stores, attempts: Attempts::default(), gates: gates.clone(), leaving: gates.apart() }
    }

    fn observe(
        &self,
        key: &ObjectKey,
        destination: Arc<Destination>,
    ) -> (Snapshot, Option<Handle>, Vec<(Site, Handle)>) {
        let reference = destination.spec.state_store_ref.as_ref();
        let (store, handle) = self.stores.availability(&self.cx.caches, reference);
        let placements = match destination.metadata.deletion_timestamp {
            Some(_) => self.cx.caches.placements.indexed(&destination_entry(&key.name)),
            None => Vec::new(),
        };
        let refusal = reference.and_then(|store| state_store::complaint(&self.cx.caches, store));
        let sites = destination::former_sites(&destination, store.place().unwrap_or_default());
        let others = if sites.is_empty() { Vec::new() } else { self.others(key) };
        let (mut former, mut writers) = (Vec::new(), Vec::new());
        for site in sites {
            let (store, writer) = self.stores.availability_of_site(&self.cx.caches, &site);
            former.push(Former { site: site.clone(), store, is_reachable: writer.is_some(), others: others.clone() });
            writers.extend(writer.map(|writer| (site, writer)));
        }
        let attempt = self.attempts.get(key);
        let interval = self.cx.config().state_store_reconciliation_interval;
        let now = self.cx.now();
        let cleaned = None;
        let snapshot = Snapshot { now, destination, store, refusal, placements, attempt, interval, former, cleaned };
        (snapshot, handle, writers)
    }

    /// Returns the other Destinations, each with the place of its store.
    fn others(&self, key: &ObjectKey) -> Vec<(Arc<Destination>, String)> {
        let caches = &self.cx.caches;
        let others = caches.destinations.all().into_iter().filter(|other| ObjectKey::of(&**other) != *key);
        others
            .filter_map(|other| {
                let place = state_store::place_of(caches, other.spec.state_store_ref.as_ref()?)?;
                Some((other, place))
            })
            .collect()
    }

    /// Says on the Destination that it waits for its store.
    async fn tell(&self, snapshot: &mut Snapshot, store: &StateStoreRef) {
        let queued = destination::queued(snapshot, self.stores.silence(store).as_deref());
        gates::tell(&self.cx, &queued, &mut snapshot.destination).await;
    }

    /// As [`Destinations::tell`], of one that has not been observed yet.
    async fn tell_unseen(&self, key: &ObjectKey, store: Option<&StateStoreRef>) {
        if let (Some(store), Some(destination)) = (store, self.cx.caches.destinations.get(key)) {
            self.tell(&mut self.observe(key, destination).0, store).await;
        }
    }

    /// Removes the test documents at former sites, where that is possible. A wait that takes long is said on a Destination that can
    /// do nothing else.
    async fn clean(
        &self,
        key: &ObjectKey,
        snapshot: &mut Snapshot,
        present: Option<&Handle>,
        former: &[(Site, Handle)],
    ) -> Result<Vec<(Site, Cleaned)>, Replaced> {
        let place = snapshot.store.place().map(str::to_owned);
        let mut outcomes = Vec::new();
        for leftover in destination::leftovers(snapshot) {
            let Some((_, writer)) = former.iter().find(|(site, _)| site.is(&leftover.site)) else { continue };
            let deadline = Instant::now() + SILENCE;
            // Who is turned away is called back. A store that does not answer holds up those alone who have left it.
            let Ok(_pass) = self.leaving.enter(&leftover.site.store, key) else { continue };
            let present = place.as_deref().zip(present).filter(|_| leftover.needs_proof);
            let removal = self.stores.clean((&leftover.site, writer), present, leftover.change, leftover.patience);
            let outcome = match leftover.patience {
                Some(_) => removal.await,
                None => gates::telling(removal, deadline, self.tell_clearing(snapshot, &leftover.site, writer)).await,
            };
            outcomes.push((leftover.site, outcome?));
        }
        Ok(outcomes)
    }

    async fn tell_clearing(&self, snapshot: &mut Snapshot, site: &Site, writer: &Handle) {
        let waiting = destination::clearing(snapshot, site, state_store::silence(writer).as_deref());
        gates::tell(&self.cx, &waiting, &mut snapshot.destination).await;
    }
}

impl Reconcile for Destinations {
    const NAME: &'static str = "Destination";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(destination) = self.cx.caches.destinations.get(key) else {
            self.attempts.forget(key);
            self.gates.leave(key, None);
            self.leaving.leave(key, None);
            return Ok(Next::OnChange);
        };
        let reference = destination.spec.state_store_ref.clone();
        let gate = self.gates.admit(reference.as_ref(), key, self.tell_unseen(key, reference.as_ref())).await;
        let gate = match gate {
            Ok(gate) => gate,
            Err(next) => return Ok(next),
        };
        let (mut snapshot, handle, former) = self.observe(key, destination);
        let mut decision = destination::decide(&snapshot);
        self.cx.act_on(&decision.plan, &mut snapshot.destination).await?;
        if let (Some(effect), Some(reference), Some(handle)) = (decision.effect.take(), &reference, &handle) {
            let write = self.stores.write(reference, handle, effect.change, effect.stamp, || self.cx.now());
            let deadline = Instant::now() + SILENCE;
            let written = gates::telling(write, deadline, self.tell(&mut snapshot, reference)).await;
            let Ok((attempt, _)) = written else { return Ok(Next::After(Duration::ZERO)) };
            self.attempts.put(key, attempt.clone(), None);
            if self.cx.caches.destinations.get(key).is_none()
                && let Some((store, directory)) = work_placement::left(Some(&snapshot.destination), None)
            {
                self.stores.withdraw_below(store, &directory); // it went while this was refused
            }
            snapshot.now = self.cx.now();
            decision = destination::record(&snapshot, attempt.clone());
            self.cx.act_on(&decision.plan, &mut snapshot.destination).await?;
            snapshot.attempt = Some(attempt);
        }
        // Where it has been before is no matter of the present store.
        drop(gate);
        if decision.cleans {
            let cleaned = self.clean(key, &mut snapshot, handle.as_ref(), &former).await;
            let Ok(cleaned) = cleaned else { return Ok(Next::After(Duration::ZERO)) };
            snapshot.cleaned = Some(cleaned);
            decision = destination::decide(&snapshot);
            self.cx.act_on(&decision.plan, &mut snapshot.destination).await?;
        } else {
            self.leaving.leave(key, None);
        }
        Ok(decision.plan.next)
    }

    fn subject(&self, key: &ObjectKey) -> Option<(Reporter, Target)> {
        Some((Reporter::Destination, Target::of(&*self.cx.caches.destinations.get(key)?)))
    }
}

/// Brings Destinations to the queue when they, their stores, what these say, or the placements that they wait for change.
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
    let (context, destinations) = (Arc::clone(cx), queue.clone());
    state_store::on_change(&cx.caches, move |old, new| {
        if concerns_destinations(old, new)
            && let Some(store) = new.or(old)
        {
            let concerned = state_store::destinations(&context, &store.reference());
            concerned.iter().for_each(|found| destinations.add(ObjectKey::of(&**found)));
        }
    });
    // Timers run with the interval that was in force when they were started.
    let (caches, destinations) = (cx.caches.clone(), queue.clone());
    cx.on_interval_change(move || {
        caches.destinations.all().iter().for_each(|found| destinations.add(ObjectKey::of(&**found)));
    });
    let (cx, destinations) = (Arc::clone(cx), queue.clone());
    stores.on_change(move |store| {
        let left = cx.caches.destinations.indexed(&former_entry(store));
        let concerned = state_store::destinations(&cx, store).into_iter().chain(left);
        concerned.for_each(|found| destinations.add(ObjectKey::of(&*found)));
    });
}

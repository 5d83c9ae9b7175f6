//! Destination: test documents, readiness, clean-up.

use std::sync::Arc;
use std::time::Duration;

use kratix_api::Destination;
use kratix_api::destination::StateStoreRef;
use kratix_core::destination::{self, Finding, Former, Snapshot};
use kratix_core::object::{ObjectKey, Target};
use kratix_core::plan::{Next, Plan, Reporter};
use kratix_core::state_store::{SILENCE, concerns_destinations};
use kratix_core::work_placement::{self, Leftover, Site};
use tokio::time::Instant;

use crate::caches::{destination_entry, former_entry};
use crate::context::Context;
use crate::controller::Reconcile;
use crate::error::Error;
use crate::gates::{self, Gates};
use crate::leaving::{Leaver, Leaving, Writers};
use crate::queue::Queue;
use crate::state_store::{self, Attempts, Registry, Tried};

/// Passes over Destinations of one store at once.
pub(crate) const STORE_PASSES_MAX: usize = 64;

/// The controller of Destinations.
pub(crate) struct Destinations {
    cx: Arc<Context>,
    stores: Arc<Registry>,
    attempts: Attempts,
    gates: Gates,
    /// Test documents where Destinations have been before.
    leaving: Leaving,
}

impl Destinations {
    /// Returns the controller; the gates are those of the queue that it is run with.
    pub(crate) fn new(cx: &Arc<Context>, stores: &Arc<Registry>, gates: &Gates) -> Self {
        let leaving = Leaving::new(cx, stores, gates);
        let (cx, stores) = (Arc::clone(cx), Arc::clone(stores));
        Self { cx, stores, attempts: Attempts::default(), gates: gates.clone(), leaving }
    }

    fn observe(&self, key: &ObjectKey, destination: Arc<Destination>) -> (Snapshot, Writers) {
        let reference = destination.spec.state_store_ref.as_ref();
        let (store, handle) = self.stores.availability(&self.cx.caches, reference);
        let placements = match destination.metadata.deletion_timestamp {
            Some(_) => self.cx.caches.placements.indexed(&destination_entry(&key.name)),
            None => Vec::new(),
        };
        let refusal = reference.and_then(|store| state_store::complaint(&self.cx.caches, store));
        let beside = match store.place() {
            Some(place) if destination::forgoes_documents(&destination) => {
                state_store::destinations_beside(&self.cx, place, |other, _| {
                    other.metadata.name != destination.metadata.name
                })
            }
            _ => Vec::new(),
        };
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
        let snapshot =
            Snapshot { now, destination, store, refusal, placements, beside, attempt, interval, former, cleaned };
        (snapshot, Writers { present: handle, former: writers })
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
}

impl Leaver for Snapshot {
    type Object = Destination;
    type Finding = Finding;

    fn leftovers(&self) -> Vec<Leftover> {
        destination::leftovers(self)
    }

    fn clearing(&self, site: &Site, silence: Option<&str>) -> Plan<Finding> {
        destination::clearing(self, site, silence)
    }

    fn place(&self) -> Option<&str> {
        self.store.place()
    }

    fn object(&mut self) -> &mut Arc<Destination> {
        &mut self.destination
    }
}

impl Reconcile for Destinations {
    const NAME: &'static str = "Destination";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(destination) = self.cx.caches.destinations.get(key) else {
            self.attempts.forget(key);
            self.gates.leave(key, &[]);
            self.leaving.forget(key);
            return Ok(Next::OnChange);
        };
        let reference = destination.spec.state_store_ref.clone();
        let gate = self.gates.admit(reference.as_ref(), key, self.tell_unseen(key, reference.as_ref())).await;
        let gate = match gate {
            Ok(gate) => gate,
            Err(next) => return Ok(next),
        };
        let (mut snapshot, writers) = self.observe(key, destination);
        let mut decision = destination::decide(&snapshot);
        self.cx.act_on(&decision.plan, &mut snapshot.destination).await?;
        if let (Some(effect), Some(reference), Some(handle)) = (decision.effect.take(), &reference, &writers.present) {
            let write = self.stores.write(reference, handle, effect.change, effect.stamp, || self.cx.now());
            let deadline = Instant::now() + SILENCE;
            let written = gates::telling(write, deadline, self.tell(&mut snapshot, reference)).await;
            let Ok(Tried { attempt, .. }) = written else { return Ok(Next::After(Duration::ZERO)) };
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
        let mut turn = Next::OnChange;
        if decision.cleans {
            let cleaned = self.leaving.clean(key, &mut snapshot, &writers).await;
            let Ok((cleaned, next)) = cleaned else { return Ok(Next::After(Duration::ZERO)) };
            (snapshot.cleaned, turn) = (Some(cleaned), next);
            decision = destination::decide(&snapshot);
            self.cx.act_on(&decision.plan, &mut snapshot.destination).await?;
        } else {
            self.leaving.forget(key);
        }
        Ok(decision.plan.next.sooner(turn))
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

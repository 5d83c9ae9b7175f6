//! Work: makes and aligns its placements.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use kratix_api::{Work, WorkPlacement, keys};
use kratix_core::object::{ObjectKey, Target};
use kratix_core::plan::{Next, Plan, Reporter, Write};
use kratix_core::work::{self, Course, Finding, Snapshot};
use kube::{Api, ResourceExt};
use parking_lot::Mutex;

use crate::caches::{owner_entry, promise_entry, work_entry};
use crate::context::Context;
use crate::controller::Reconcile;
use crate::error::{Error, Retry};
use crate::queue::Queue;
use crate::state_store;

/// The controller of Works.
pub(crate) struct Works {
    cx: Arc<Context>,
    /// Placements that were made and have not been seen in the cache yet. A request must not be placed a second time
    /// because the cache is late, whatever Destinations have appeared meanwhile.
    unseen: Mutex<HashMap<ObjectKey, BTreeSet<ObjectKey>>>,
}

impl Works {
    /// Returns the controller.
    pub(crate) fn new(cx: &Arc<Context>) -> Self {
        Self { cx: Arc::clone(cx), unseen: Mutex::default() }
    }

    async fn observe(&self, key: &ObjectKey, work: Arc<Work>) -> Result<Snapshot, Error> {
        let caches = &self.cx.caches;
        let namespace = key.namespace.as_deref().unwrap_or_default();
        let mut placements = caches.placements.indexed(&work_entry(namespace, &key.name));
        // One whose labels were taken away is still the Work's own.
        placements.extend(caches.placements.indexed(&owner_entry(&work.uid().unwrap_or_default())));
        placements.extend(self.catch_up(key).await?);
        placements.sort_by_key(|placement| ObjectKey::of(&**placement));
        placements.dedup_by_key(|placement| ObjectKey::of(&**placement));
        let neighbours = match work::shares_namespace(&work) {
            true => caches.placements.indexed(&promise_entry(&work.spec.promise_name)),
            false => Vec::new(),
        };
        let destinations = caches.destinations.all();
        let places = state_store::places(caches);
        Ok(Snapshot { now: self.cx.now(), work, destinations, places, placements, neighbours })
    }

    /// Reads the placements that the cache has not shown yet. Rare: the cache is late by milliseconds only.
    async fn catch_up(&self, work: &ObjectKey) -> Result<Vec<Arc<WorkPlacement>>, Error> {
        let unseen = self.unseen.lock().get(work).cloned().unwrap_or_default();
        let mut found = Vec::new();
        for key in unseen {
            if self.cx.caches.placements.get(&key).is_none() {
                let namespace = key.namespace.as_deref().unwrap_or_default();
                let api: Api<WorkPlacement> = Api::namespaced(self.cx.platform.clone(), namespace);
                let read = api.get_opt(&key.name).await;
                match read.map_err(|error| Error::read(format!("WorkPlacement {key}"), error))? {
                    Some(placement) => {
                        found.push(Arc::new(placement));
                        continue;
                    }
                    None => tracing::debug!(placement = %key, "placement has gone before it was seen"),
                }
            }
            self.forget(work, &key);
        }
        Ok(found)
    }

    /// Executes the writes one by one, as far as those that fail allow. Returns what brings the pass back.
    async fn write(&self, writes: Vec<Write>, course: &mut Course<'_>) -> Result<(), Error> {
        let mut failed = None;
        for write in writes {
            if !course.allows(&write) {
                continue;
            }
            let Err(error) = self.cx.act(&Plan::<Finding>::from(write.clone())).await else { continue };
            course.fail(&write, error.is_refusal().then(|| error.to_string()));
            // The one that is tried again first.
            if failed.as_ref().is_none_or(|failed: &Error| failed.retry() == Retry::OnChange) {
                failed = Some(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn forget(&self, work: &ObjectKey, placement: &ObjectKey) {
        let mut unseen = self.unseen.lock();
        if let Some(keys) = unseen.get_mut(work) {
            keys.remove(placement);
            if keys.is_empty() {
                unseen.remove(work);
            }
        }
    }

    fn expect<F>(&self, work: &ObjectKey, plan: &Plan<F>) {
        let created = plan.writes.iter().filter(|write| matches!(write, Write::Create { .. }));
        let keys: Vec<ObjectKey> = created.map(|write| write.address().1.clone()).collect();
        if !keys.is_empty() {
            self.unseen.lock().entry(work.clone()).or_default().extend(keys);
        }
    }
}

impl Reconcile for Works {
    const NAME: &'static str = "Work";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(work) = self.cx.caches.works.get(key) else {
            self.unseen.lock().remove(key);
            return Ok(Next::OnChange);
        };
        let snapshot = self.observe(key, work).await?;
        let plan = work::decide(&snapshot);
        // Noted before: a creation whose reply is lost may still have happened.
        self.expect(key, &plan);
        let Plan { writes, status, events, next, findings } = plan;
        let mut course = Course::of(&snapshot);
        if let Err(error) = self.write(writes, &mut course).await {
            if course.is_refused() {
                let told = self.cx.act(&work::refused(&snapshot, &course)).await;
                tracing::debug!(work = %key, told = told.is_ok(), "the Work says what could not be scheduled");
            }
            return Err(error);
        }
        self.cx.act(&Plan { writes: Vec::new(), status, events, next, findings }).await?;
        Ok(next)
    }

    fn subject(&self, key: &ObjectKey) -> Option<(Reporter, Target)> {
        Some((Reporter::Work, Target::of(&*self.cx.caches.works.get(key)?)))
    }
}

/// Brings Works to the queue when they, their placements, or where they may go change.
pub(crate) fn watch(cx: &Context, queue: &Queue<ObjectKey>) {
    let works = queue.clone();
    cx.caches.works.on_change(move |old, new| {
        if work::concerns_itself(old.map(|old| &**old), new.map(|new| &**new))
            && let Some(work) = new.or(old)
        {
            works.add(ObjectKey::of(&**work));
        }
    });
    let works = queue.clone();
    cx.caches.placements.on_change(move |old, new| {
        if work::concerns_work(old.map(|old| &**old), new.map(|new| &**new)) {
            // A label that was taken away leads to the Work it named.
            for placement in old.into_iter().chain(new) {
                let owners = placement.owner_references().iter().filter(|owner| owner.kind == Work::KIND);
                let owners = owners.map(|owner| &owner.name);
                for work in placement.labels().get(keys::WORK).into_iter().chain(owners) {
                    works.add(ObjectKey { namespace: placement.namespace(), name: work.clone() });
                }
            }
        }
    });
    let (caches, works) = (cx.caches.clone(), queue.clone());
    cx.caches.destinations.on_change(move |old, new| {
        if work::concerns_scheduling(old.map(|old| &**old), new.map(|new| &**new)) {
            caches.works.all().iter().for_each(|work| works.add(ObjectKey::of(&**work)));
        }
    });
}

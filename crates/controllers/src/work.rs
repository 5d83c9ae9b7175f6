//! Work: makes and aligns its placements.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use kratix_api::{Destination, Work, WorkPlacement, keys};
use kratix_core::metrics;
use kratix_core::object::{ObjectKey, Target};
use kratix_core::plan::{Event, Next, Plan, Reporter, Write};
use kratix_core::trace::Subject;
use kratix_core::work::{self, Course, Finding, Snapshot};
use kube::ResourceExt;

use crate::caches::{Caches, destination_entry, owner_entry, work_entry};
use crate::context::Context;
use crate::controller::Reconcile;
use crate::error::{Error, Retry};
use crate::expected::Expected;
use crate::parts;
use crate::queue::Queue;
use crate::state_store;
use crate::telemetry::Pass;
use crate::work_placement::Namesakes;

/// The controller of Works.
pub(crate) struct Works {
    cx: Arc<Context>,
    namesakes: Arc<Namesakes>,
    expected: Expected,
}

impl Works {
    /// Returns the controller.
    pub(crate) fn new(cx: &Arc<Context>, namesakes: &Arc<Namesakes>) -> Self {
        Self { cx: Arc::clone(cx), namesakes: Arc::clone(namesakes), expected: Expected::default() }
    }

    fn observe(&self, work: Arc<Work>) -> Snapshot {
        let caches = &self.cx.caches;
        let placements = placements(caches, &work);
        let neighbours = match work::is_request(&work) {
            true => self.namesakes.of_request(&work.spec.promise_name, &work.spec.resource_name),
            false => Vec::new(),
        };
        let neighbours = neighbours.iter().filter_map(|key| caches.placements.get(key)).collect();
        let destinations = caches.destinations.all();
        let places = state_store::places(caches);
        Snapshot { now: self.cx.now(), work, destinations, places, placements, neighbours }
    }

    /// Executes the writes one by one, as far as those that fail allow, and tells of each that was made. Returns what brings
    /// the pass back.
    async fn write(
        &self,
        work: &ObjectKey,
        writes: Vec<Write>,
        events: &[Event],
        course: &mut Course<'_>,
    ) -> Result<(), Error> {
        let mut failed = None;
        let mut made = Vec::new();
        for write in writes {
            if !course.allows(&write) {
                continue;
            }
            let events = events.iter().filter(|event| event.tells_of(&write)).cloned().collect();
            let acted = self.cx.execute(&Plan::<Finding> { events, ..Plan::from(write.clone()) }).await;
            made.extend(acted.made);
            let Err(error) = acted.outcome else { continue };
            course.fail(&write, error.is_refusal().then(|| error.to_string()));
            // The one that is tried again first.
            if failed.as_ref().is_none_or(|failed: &Error| failed.retry() == Retry::OnChange) {
                failed = Some(error);
            }
        }
        self.expected.note(work, made);
        failed.map_or(Ok(()), Err)
    }
}

impl Reconcile for Works {
    const NAME: &'static str = "Work";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(work) = self.cx.caches.works.get(key) else {
            self.expected.forget(key);
            let upkeep = parts::upkeep(&self.cx, key, None);
            parts::execute(&self.cx, &upkeep.after).await?;
            return Ok(upkeep.after.plan.next);
        };
        let pass = self.cx.begin(&work.metadata, || Subject::work(&work));
        pass.run(self.pass(key, work, &pass)).await
    }

    fn subject(&self, key: &ObjectKey) -> Option<(Reporter, Target)> {
        Some((Reporter::Work, Target::of(&*self.cx.caches.works.get(key)?)))
    }
}

impl Works {
    async fn pass(&self, key: &ObjectKey, work: Arc<Work>, pass: &Pass) -> Result<Next, Error> {
        // A request must not be placed a second time because the cache is late, whatever Destinations have appeared.
        self.expected.arrived(key, &self.cx).await?;
        let snapshot = self.observe(pass.hand_on(work));
        let upkeep = parts::upkeep(&self.cx, key, Some(&snapshot));
        parts::execute(&self.cx, &upkeep.before).await?;
        for write in work::last_words(&snapshot) {
            let told = self.cx.act(&Plan::<Finding>::from(write)).await;
            tracing::debug!(work = %key, told = told.is_ok(), "a placement that goes has the trace of its Work");
        }
        let mut plan = work::decide(&snapshot);
        let is_busy = !plan.is_silent();
        pass.fold(&mut plan);
        let Plan { writes, status, events, next, findings } = plan;
        let samples = metrics::outcomes(&snapshot.work, &findings);
        let mut course = Course::of(&snapshot);
        let (of_writes, events): (Vec<_>, Vec<_>) = events.into_iter().partition(|event| event.of.is_some());
        if let Err(error) = self.write(key, writes, &of_writes, &mut course).await {
            if course.is_refused() {
                let told = self.cx.act(&work::refused(&snapshot, &course)).await;
                tracing::debug!(work = %key, told = told.is_ok(), "the Work says what could not be scheduled");
            }
            return Err(error);
        }
        let mut rest = Plan { writes: Vec::new(), status, events, next, findings };
        if is_busy {
            pass.note(&mut rest);
        }
        self.cx.act(&rest).await?;
        self.cx.telemetry.metrics().count(samples);
        parts::execute(&self.cx, &upkeep.after).await?;
        Ok(next.sooner(upkeep.after.plan.next))
    }
}

/// Returns a Work's placements, sorted by name.
fn placements(caches: &Caches, work: &Work) -> Vec<Arc<WorkPlacement>> {
    let mut placements =
        caches.placements.indexed(&work_entry(&work.namespace().unwrap_or_default(), &work.name_any()));
    // One whose labels were taken away is still the Work's own.
    placements.extend(caches.placements.indexed(&owner_entry(&work.uid().unwrap_or_default())));
    placements.sort_by(|one, other| one.metadata.name.cmp(&other.metadata.name));
    placements.dedup_by(|one, other| one.metadata.name == other.metadata.name);
    placements
}

/// Returns the Works that a placement names, by label or as owner.
fn works_of(placement: &WorkPlacement) -> impl Iterator<Item = ObjectKey> {
    let owners = placement.owner_references().iter().filter(|owner| owner.kind == Work::KIND).map(|owner| &owner.name);
    let names = placement.labels().get(keys::WORK).into_iter().chain(owners);
    names.map(|name| ObjectKey { namespace: placement.namespace(), name: name.clone() })
}

/// Returns the Works to which the change of a Destination gives something to do.
fn concerned(caches: &Caches, old: Option<&Destination>, new: Option<&Destination>) -> BTreeSet<ObjectKey> {
    let name = new.or(old).map(|destination| destination.name_any()).unwrap_or_default();
    let mut there: HashMap<ObjectKey, Vec<Arc<WorkPlacement>>> = HashMap::new();
    for placement in caches.placements.indexed(&destination_entry(&name)) {
        works_of(&placement).for_each(|work| there.entry(work).or_default().push(Arc::clone(&placement)));
    }
    let with_placement = there.keys().filter_map(|key| caches.works.get(key));
    let selecting = work::selection_entries_of_change(old, new);
    let selecting = selecting.iter().flat_map(|entry| caches.works.indexed(entry));
    let is_concerned = |work: &Arc<Work>| {
        let there = there.get(&ObjectKey::of(&**work)).map_or(&[][..], Vec::as_slice);
        work::is_concerned(work, there, |group| is_placed(caches, work, group), old, new)
    };
    with_placement.chain(selecting).filter(is_concerned).map(|work| ObjectKey::of(&*work)).collect()
}

/// Tells whether a group of a Work is among its [`placements`].
fn is_placed(caches: &Caches, work: &Work, group: &str) -> bool {
    let is_of_group = |placement: &WorkPlacement| work::group_of(placement) == group;
    let (namespace, name) = (work.metadata.namespace.as_deref(), work.metadata.name.as_deref());
    caches.placements.any(&work_entry(namespace.unwrap_or_default(), name.unwrap_or_default()), is_of_group)
        || caches.placements.any(&owner_entry(work.metadata.uid.as_deref().unwrap_or_default()), is_of_group)
}

/// Brings Works to the queue when they, their placements, or where they may go change.
pub(crate) fn watch(cx: &Context, queue: &Queue<ObjectKey>) {
    // Before the Works: each of them is looked at after that anyway, with the Destinations there are by then.
    let (caches, works) = (cx.caches.clone(), queue.clone());
    cx.caches.destinations.on_later_change(move |old, new| {
        let (old, new) = (old.map(|old| &**old), new.map(|new| &**new));
        if work::concerns_scheduling(old, new) {
            let span = tracing::debug_span!("concerned", works = tracing::field::Empty).entered();
            let concerned = concerned(&caches, old, new);
            span.record("works", concerned.len());
            concerned.into_iter().for_each(|work| works.add(work));
        }
    });
    let works = queue.clone();
    cx.caches.works.on_change(move |old, new| {
        if work::concerns_itself(old.map(|old| &**old), new.map(|new| &**new))
            && let Some(work) = new.or(old)
        {
            works.add(ObjectKey::of(&**work));
        }
    });
    let works = queue.clone();
    cx.caches.parts.on_change(move |old, new| {
        if let Some(part) = new.or(old)
            && let Some(work) = parts::work_of(&**part)
        {
            works.add(work);
        }
    });
    let works = queue.clone();
    cx.caches.placements.on_change(move |old, new| {
        if work::concerns_work(old.map(|old| &**old), new.map(|new| &**new)) {
            // A label that was taken away leads to the Work it named.
            old.into_iter().chain(new).flat_map(|placement| works_of(placement)).for_each(|work| works.add(work));
        }
    });
}

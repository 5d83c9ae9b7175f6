//! Work: which Destinations hold its groups.
//!
//! Order of writes: finalizer; placements, group by group; deletion of placements whose group is gone; then status; then events.
//! A crash between any two is harmless: the finalizer exists before what it protects; placement names derive from Work,
//! Destination and group, and the first choice of a Destination is a hash, so a repeated pass meets its own placements
//! instead of making twins; status comes last, so it never claims a placement that does not exist.
//!
//! The scheduler owns the spec and the labels of a placement and nothing of its status: `kratix.io/misplaced` carries its
//! verdict, from which [`crate::work_placement`] derives the conditions.
//!
//! # Source
//! `05-scheduling-and-writing.md` §3–§5, §11; decisions 1, 2, 14; weaknesses 1–14

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kratix_api::destination::StateStoreRef;
use kratix_api::{Destination, Work, WorkPlacement, WorkloadGroup, condition, keys};
use kube_core::ResourceExt;
use serde_json::json;

use crate::object::{ObjectKey, Target};
use crate::plan::{Event, Next, Plan, Reporter, Write};
use crate::trace;

mod choice;
mod concern;
mod course;
mod deletion;
mod group;
pub mod parts;
mod placement;
mod selector;
mod status;

pub use self::concern::{
    concerns_itself, concerns_scheduling, concerns_work, is_concerned, selection_entries, selection_entries_of_change,
};
pub use self::course::Course;
pub(crate) use self::selector::{
    LABEL_BYTES_MAX, PREFIX_BYTES_MAX, has_qualified_form, has_subdomain_form, is_subdomain,
};
pub use self::selector::{NearMiss, Obstacle, Selector};
pub(crate) use self::status::set_condition;

/// How long a Work without status waits for its placements to be written before it says that they are not: nearly all
/// are written by then, and one status write tells the end of the story instead of two.
const FIRST_STATUS_GRACE: Duration = Duration::from_secs(2);

/// How often an unscheduled request is looked at although Destinations are watched.
const UNSCHEDULED_SAFETY_NET: Duration = Duration::from_secs(60);

/// Everything that the scheduling of one Work may look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The only clock.
    pub now: Timestamp,
    /// The Work.
    pub work: Arc<Work>,
    /// All Destinations, sorted by name.
    pub destinations: Vec<Arc<Destination>>,
    /// Where each state store's files are ([`crate::state_store::place`]).
    pub places: BTreeMap<StateStoreRef, String>,
    /// The placements in the Work's namespace that carry its name as label or have it as owner, sorted by name, those being
    /// deleted included.
    pub placements: Vec<Arc<WorkPlacement>>,
    /// Placements of requests of the same Promise and name; none for dependencies.
    pub neighbours: Vec<Arc<WorkPlacement>>,
}

impl Snapshot {
    /// Returns the Destination of this name.
    fn destination(&self, name: &str) -> Option<&Arc<Destination>> {
        let found = self.destinations.binary_search_by(|found| found.metadata.name.as_deref().cmp(&Some(name)));
        self.destinations.get(found.ok()?)
    }

    /// Returns the placement of this name.
    fn placement(&self, name: &str) -> Option<&Arc<WorkPlacement>> {
        let found = self.placements.binary_search_by(|found| found.metadata.name.as_deref().cmp(&Some(name)));
        self.placements.get(found.ok()?)
    }
}

/// What was found out about a Work. Conditions, events and explanations are renderings of these values.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    /// The group has placements where it should.
    Placed {
        /// Group id.
        group: String,
        /// Names of the Destinations; those where it is misplaced are not among them.
        on: Vec<String>,
    },
    /// No Destination takes the group.
    NoDestination {
        /// Group id.
        group: String,
        /// What the Destination must be like.
        selector: Selector,
        /// Those that come closest, the closest first.
        near: Vec<NearMiss>,
    },
    /// The group lies on a Destination that it would not be given to today.
    Misplaced {
        /// Group id.
        group: String,
        /// Name of the Destination.
        on: String,
        /// Why it does not match; empty when the Destination does not exist any more.
        because: Vec<Obstacle>,
    },
    /// The group cannot be scheduled as it is.
    Refused {
        /// Group id.
        group: String,
        /// Why.
        cause: String,
    },
    /// The placement's present content is not in its state store yet.
    NotWritten {
        /// The placement.
        placement: ObjectKey,
    },
    /// Writing the placement failed.
    Failing {
        /// The placement.
        placement: ObjectKey,
        /// The error, as its condition has it.
        message: String,
    },
    /// The Work is being deleted and these placements still remove their files.
    Terminating {
        /// The placements.
        placements: Vec<ObjectKey>,
    },
}

/// What others may conclude from a Work's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Everything is placed and the present content is in the stores.
    Ready,
    /// Not yet, or its status speaks of an earlier content.
    Pending,
    /// A placement lies on a Destination that does not match any more.
    Misplaced,
    /// A placement could not be written.
    Failing,
}

/// Classifies a Work by the message of its `Ready` condition, which is API, provided it speaks of the present content.
pub fn readiness(work: &Work) -> Readiness {
    let conditions = work.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let Some(ready) = condition::find(conditions, condition::READY) else { return Readiness::Pending };
    match ready.message.as_str() {
        "Failing" => Readiness::Failing,
        "Misplaced" => Readiness::Misplaced,
        "Ready" if speaks_of_present(ready.observed_generation, work.metadata.generation) => Readiness::Ready,
        _ => Readiness::Pending,
    }
}

/// Tells whether a condition speaks of an object's present generation. Conditions of the original carry no generation
/// and are believed.
pub(crate) fn speaks_of_present(observed: Option<i64>, generation: Option<i64>) -> bool {
    observed.is_none() || generation.is_none() || observed == generation
}

/// Decides where the groups of a Work go, and what its status says.
///
/// # Guarantees
/// A converged snapshot gives a silent plan. A group that cannot be scheduled does not hold up the others.
pub fn decide(snapshot: &Snapshot) -> Plan<Finding> {
    let work = &snapshot.work;
    if work.metadata.deletion_timestamp.is_some() {
        return deletion::decide(snapshot);
    }
    let mut writes: Vec<Write> = finalizer(work).into_iter().collect();
    let is_protected = writes.is_empty();

    let groups = place_groups(snapshot);
    writes.extend(groups.iter().flat_map(|group| group.writes.iter().cloned()));
    writes.extend(dangling(snapshot).map(|placement| Write::Delete { target: Target::of(&**placement).unpinned() }));

    let mut events: Vec<Event> = groups.iter().flat_map(|group| group.events.iter().cloned()).collect();
    let verdict = status::Verdict::of(&groups);
    let findings = groups.iter().flat_map(|group| group.findings.iter().cloned()).collect();
    let next = match verdict.kind {
        status::Kind::Unscheduled if is_request(work) => Next::After(UNSCHEDULED_SAFETY_NET),
        _ => Next::OnChange,
    };
    if let Some(grace) = verdict.grace(snapshot, &groups) {
        return Plan { writes, status: None, events, next: Next::After(grace), findings };
    }
    // Metadata and status of one object are not written in one pass; the watch event of the finalizer starts the next.
    if !is_protected {
        return Plan { writes, status: None, events, next, findings };
    }
    let (status, transitions) = verdict.status(snapshot, &groups);
    events.extend(transitions);
    Plan { writes, status, events, next, findings }
}

/// Returns the plan that says on the Work what the API server refused, and what was done all the same.
///
/// # Guarantees
/// Nothing is told of a group that was not written, whatever held it up, and nothing again of one that was.
pub fn refused(snapshot: &Snapshot, course: &Course<'_>) -> Plan<Finding> {
    if snapshot.work.metadata.deletion_timestamp.is_some() {
        return deletion::refused(snapshot, course);
    }
    let mut groups = place_groups(snapshot);
    let mut is_known = true;
    for (placed, group) in groups.iter_mut().zip(&snapshot.work.spec.workload_groups) {
        let own = placed.writes.iter().find_map(|write| course.causes().get(write.address().1));
        if let Some(cause) = course.own_cause().or(own) {
            *placed = group::Placed::refused(group, cause.clone());
        } else if course.has_failed(&group.id) {
            placed.events.clear();
            is_known = false;
        }
        // What was written has been told with the write.
        placed.events.retain(|event| event.of.is_none());
    }
    let mut events: Vec<Event> = groups.iter().flat_map(|group| group.events.iter().cloned()).collect();
    let removals = dangling(snapshot).filter_map(|placement| course.causes().get(&ObjectKey::of(&**placement)));
    events.extend(removals.map(|cause| deletion::failed(&snapshot.work, cause)));
    let verdict = status::Verdict::of(&groups);
    let mut status = None;
    // A group on its way is no verdict yet.
    if is_known || verdict.kind == status::Kind::Refused {
        let (write, transitions) = verdict.status(snapshot, &groups);
        status = write;
        events.extend(transitions);
    }
    let findings = groups.into_iter().flat_map(|group| group.findings).collect();
    Plan { writes: Vec::new(), status, events, next: Next::OnChange, findings }
}

/// Returns the writes that give the trace of a Work that is being deleted to placements without one, before they go.
/// Nothing depends on them.
pub fn last_words(snapshot: &Snapshot) -> Vec<Write> {
    let work = &snapshot.work.metadata;
    if work.deletion_timestamp.is_none() {
        return Vec::new();
    }
    trace::last_words_to(work, &snapshot.placements, usize::MAX)
}

/// A Work is of a request when it names one; otherwise it is of a Promise's own documents.
pub fn is_request(work: &Work) -> bool {
    !work.spec.resource_name.is_empty()
}

fn finalizer(work: &Work) -> Option<Write> {
    if work.finalizers().iter().any(|finalizer| finalizer == keys::FINALIZER_WORK_CLEANUP) {
        return None;
    }
    let finalizers: Vec<&str> =
        work.finalizers().iter().map(String::as_str).chain([keys::FINALIZER_WORK_CLEANUP]).collect();
    Write::metadata(Target::of(work), &json!({ "finalizers": finalizers }))
}

fn place_groups(snapshot: &Snapshot) -> Vec<group::Placed> {
    let mut prefixes = BTreeSet::new();
    snapshot
        .work
        .spec
        .workload_groups
        .iter()
        .map(|workload_group| {
            // Placement names and directories hold five characters of the id: two groups that share them would be one.
            if !prefixes.insert(workload_group.id.get(..placement::ID_PREFIX)) {
                let cause = format!("group id {:?} is not unique in its first five characters", workload_group.id);
                return group::Placed::refused(workload_group, cause);
            }
            group::place(snapshot, workload_group)
        })
        .collect()
}

fn dangling(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<WorkPlacement>> {
    let groups: BTreeSet<&str> = snapshot.work.spec.workload_groups.iter().map(|group| group.id.as_str()).collect();
    snapshot.placements.iter().filter(move |placement| {
        placement.metadata.deletion_timestamp.is_none() && !groups.contains(group_of(placement))
    })
}

/// Returns the placements of one group, those being deleted included.
fn placements_of<'a>(snapshot: &'a Snapshot, group: &WorkloadGroup) -> Vec<&'a Arc<WorkPlacement>> {
    snapshot.placements.iter().filter(|placement| group_of(placement) == group.id).collect()
}

/// Returns the id of a placement's group: its label, or its spec where the label was taken away.
pub fn group_of(placement: &WorkPlacement) -> &str {
    placement.labels().get(keys::WORKLOAD_GROUP_ID).unwrap_or(&placement.spec.id)
}

fn scheduler_event(work: &Work, reason: &'static str, note: String) -> Event {
    Event::normal(Reporter::Scheduler, Target::of(work), reason, note)
}

fn is_terminating(placement: &WorkPlacement) -> bool {
    placement.metadata.deletion_timestamp.is_some()
}

#[cfg(test)]
pub(crate) mod tests;

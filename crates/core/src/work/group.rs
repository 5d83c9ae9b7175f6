//! One group of a Work: which Destinations it goes to.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use kratix_api::{Destination, WorkPlacement, WorkloadGroup, condition, keys};
use kube_core::ResourceExt;

use super::placement::{self, Placement};
use super::selector::Selector;
use super::{Finding, Snapshot, choice, is_request, is_terminating, placements_of, scheduler_event};
use crate::object::ObjectKey;
use crate::plan::{Event, Write};
use crate::work_placement;

/// How the scheduling of one group ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Placed,
    Misplaced,
    Unscheduled,
    Refused(String),
}

/// One group after scheduling.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) group: String,
    pub(super) outcome: Outcome,
    pub(super) writes: Vec<Write>,
    pub(super) events: Vec<Event>,
    /// Names of placements whose write failed.
    pub(super) failing: Vec<String>,
    /// Placements whose present content is not in the store: when they were made, `None` if only in this pass.
    pub(super) unwritten: Vec<Option<Timestamp>>,
    pub(super) findings: Vec<Finding>,
}

impl Placed {
    fn new(group: &WorkloadGroup) -> Self {
        Self {
            group: group.id.clone(),
            outcome: Outcome::Placed,
            writes: Vec::new(),
            events: Vec::new(),
            failing: Vec::new(),
            unwritten: Vec::new(),
            findings: Vec::new(),
        }
    }

    pub(super) fn refused(group: &WorkloadGroup, cause: String) -> Self {
        let mut placed = Self::new(group);
        placed.refuse(cause);
        placed
    }

    fn refuse(&mut self, cause: String) {
        self.findings.push(Finding::Refused { group: self.group.clone(), cause: cause.clone() });
        if !matches!(self.outcome, Outcome::Refused(_)) {
            self.outcome = Outcome::Refused(cause);
        }
    }
}

/// Where a placement should be, and whether it still may be there.
struct Site<'a> {
    destination: &'a str,
    object: Option<&'a Arc<Destination>>,
    existing: Option<&'a Arc<WorkPlacement>>,
    is_misplaced: bool,
}

pub(super) fn place(snapshot: &Snapshot, group: &WorkloadGroup) -> Placed {
    let mut placed = Placed::new(group);
    let selector = Selector::of(&snapshot.work, group);
    if let Err(cause) = placement::check_group(&snapshot.work, group).and_then(|()| selector.check()) {
        placed.refuse(cause);
        return placed;
    }
    let existing = placements_of(snapshot, group);
    let sites = if is_request(&snapshot.work) {
        request_sites(snapshot, group, &selector, &existing)
    } else {
        dependency_sites(snapshot, &selector, &existing)
    };
    if sites.is_empty() && existing.is_empty() {
        let near = selector.near(snapshot.destinations.iter().map(|destination| &**destination));
        placed.outcome = Outcome::Unscheduled;
        placed.findings.push(Finding::NoDestination { group: group.id.clone(), selector, near });
        return placed;
    }
    let mut on = Vec::new();
    for site in &sites {
        let is_placed = apply(snapshot, group, &selector, site, &mut placed);
        on.extend((is_placed && !site.is_misplaced).then(|| site.destination.to_owned()));
    }
    // Those on their way out hold their place: their files are removed before anything new is chosen. So they count where they
    // should not be any more, but nothing is written to them.
    for leaving in existing.iter().filter(|p| is_terminating(p)) {
        mark(group, &selector, &occupied(snapshot, &selector, leaving), &mut placed);
        placed.unwritten.push(Some(created(leaving)));
    }
    if !on.is_empty() {
        placed.findings.insert(0, Finding::Placed { group: group.id.clone(), on });
    }
    placed
}

/// A request sticks to where it is. Only without any placement is one candidate chosen, the same in every pass.
fn request_sites<'a>(
    snapshot: &'a Snapshot,
    group: &WorkloadGroup,
    selector: &Selector,
    existing: &[&'a Arc<WorkPlacement>],
) -> Vec<Site<'a>> {
    if existing.is_empty() {
        let chosen = choice::choose(&snapshot.work, group, candidates(snapshot, selector));
        return chosen.into_iter().map(|destination| fresh(destination)).collect();
    }
    existing.iter().filter(|p| !is_terminating(p)).map(|p| occupied(snapshot, selector, p)).collect()
}

/// Dependencies go everywhere they match; where they no longer match they stay, marked.
fn dependency_sites<'a>(
    snapshot: &'a Snapshot,
    selector: &Selector,
    existing: &[&'a Arc<WorkPlacement>],
) -> Vec<Site<'a>> {
    let taken: BTreeSet<&str> = existing.iter().map(|p| p.spec.target_destination_name.as_str()).collect();
    let open = candidates(snapshot, selector).map(|destination| fresh(destination));
    let mut sites: Vec<Site<'a>> = open.filter(|site| !taken.contains(site.destination)).collect();
    sites.extend(existing.iter().filter(|p| !is_terminating(p)).map(|p| occupied(snapshot, selector, p)));
    sites.sort_by(|a, b| a.destination.cmp(b.destination));
    sites
}

fn candidates<'a>(snapshot: &'a Snapshot, selector: &Selector) -> impl Iterator<Item = &'a Arc<Destination>> {
    snapshot.destinations.iter().filter(|destination| selector.takes(destination))
}

fn fresh<'a>(destination: &'a Arc<Destination>) -> Site<'a> {
    let name = destination.metadata.name.as_deref().unwrap_or_default();
    Site { destination: name, object: Some(destination), existing: None, is_misplaced: false }
}

fn occupied<'a>(snapshot: &'a Snapshot, selector: &Selector, placement: &'a Arc<WorkPlacement>) -> Site<'a> {
    let name = placement.spec.target_destination_name.as_str();
    let object = snapshot.destination(name);
    let is_misplaced = object.is_none_or(|destination| !selector.takes(destination) && !clears(destination));
    Site { destination: name, object, existing: Some(placement), is_misplaced }
}

/// A Destination that is being deleted with its files deletes its placements itself: marking them would only make noise.
pub(super) fn clears(destination: &Destination) -> bool {
    destination.metadata.deletion_timestamp.is_some()
        && destination.finalizers().iter().any(|f| f == keys::FINALIZER_DESTINATION_CLEANUP)
}

/// Notes that a placement is where it should not be, if so.
fn mark(group: &WorkloadGroup, selector: &Selector, site: &Site<'_>, placed: &mut Placed) {
    if !site.is_misplaced {
        return;
    }
    let because = site.object.map(|destination| selector.obstacles(destination)).unwrap_or_default();
    let on = site.destination.to_owned();
    placed.findings.push(Finding::Misplaced { group: group.id.clone(), on, because });
    if placed.outcome == Outcome::Placed {
        placed.outcome = Outcome::Misplaced;
    }
}

/// Returns false if the placement is refused.
fn apply(
    snapshot: &Snapshot,
    group: &WorkloadGroup,
    selector: &Selector,
    site: &Site<'_>,
    placed: &mut Placed,
) -> bool {
    let wanted = Placement {
        work: &snapshot.work,
        group,
        destination: site.destination,
        object: site.object.map(|destination| &**destination),
        is_misplaced: site.is_misplaced,
    };
    mark(group, selector, site, placed);
    let changed = match site.existing {
        None => wanted.create(snapshot).map(|write| {
            placed.events.push(reconciled(snapshot, &wanted.name(), "created").of(&write));
            placed.writes.push(write);
            true
        }),
        Some(existing) => wanted.align(snapshot, existing).map(|aligned| {
            let changes_content = aligned.changes_content;
            let updated = changes_content && !is_request(&snapshot.work);
            let updated = updated.then(|| reconciled(snapshot, &existing.name_any(), "updated"));
            let told = aligned.mismatch.into_iter().chain(updated);
            placed.events.extend(told.map(|event| event.of(&aligned.write)));
            placed.writes.extend(aligned.write);
            changes_content
        }),
    };
    let is_refused = changed.is_err();
    match changed {
        Ok(changed) => report(site.existing, &wanted.key(), changed, placed),
        Err(cause) => placed.refuse(cause),
    }
    !is_refused
}

/// Notes whether the placement's content is in the store.
fn report(existing: Option<&Arc<WorkPlacement>>, key: &ObjectKey, changed: bool, placed: &mut Placed) {
    let Some(existing) = existing else {
        placed.unwritten.push(None);
        placed.findings.push(Finding::NotWritten { placement: key.clone() });
        return;
    };
    let key = ObjectKey::of(&**existing);
    let conditions = existing.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let write = condition::find(conditions, condition::WRITE_SUCCEEDED);
    if let Some(write) = write.filter(|write| write.status == condition::Status::False) {
        placed.failing.push(existing.name_any());
        placed.findings.push(Finding::Failing { placement: key, message: write.message.clone() });
    } else if changed || !work_placement::is_written(existing) {
        placed.unwritten.push(Some(created(existing)));
        placed.findings.push(Finding::NotWritten { placement: key });
    }
}

fn created(placement: &WorkPlacement) -> Timestamp {
    placement.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

fn reconciled(snapshot: &Snapshot, placement: &str, operation: &str) -> Event {
    let note = format!("workplacement reconciled: {placement}, operation: {operation}");
    scheduler_event(&snapshot.work, "WorkplacementReconciled", note)
}

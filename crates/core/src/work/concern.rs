//! Which Works a change concerns, so that a pass runs where it can do something and nowhere else.

use std::collections::BTreeSet;
use std::sync::Arc;

use kratix_api::{Destination, Work, WorkPlacement, condition, keys};

use super::selector::Selector;
use super::{group, group_of, is_request};
use crate::trace;
use crate::work_placement::OWN_ANNOTATIONS;

/// Tells whether a change of a Destination can alter where anything is scheduled.
pub fn concerns_scheduling(old: Option<&Destination>, new: Option<&Destination>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return true };
    old.metadata.labels != new.metadata.labels
        || old.metadata.deletion_timestamp.is_some() != new.metadata.deletion_timestamp.is_some()
        || group::clears(old) != group::clears(new)
        || old.spec.strict_match_labels != new.spec.strict_match_labels
}

/// Names what a Work asks of Destinations: an entry for each label that one of its groups selects, and one for the groups
/// that select nothing.
pub fn selection_entries(work: &Work) -> BTreeSet<String> {
    let mut entries = BTreeSet::new();
    for group in &work.spec.workload_groups {
        let selector = Selector::of(work, group);
        if selector.is_empty() {
            entries.insert(anything());
        }
        entries.extend(selector.labels().iter().map(|(key, value)| entry(key, value)));
    }
    entries
}

/// Names the [`selection_entries`] of the Works for which a Destination may have become, or ceased to be, one that takes a
/// group: a Work without any of them is concerned only if it has a placement there.
pub fn selection_entries_of_change(old: Option<&Destination>, new: Option<&Destination>) -> BTreeSet<String> {
    let pairs = |side: Option<&Destination>| -> BTreeSet<(String, String)> {
        let labels = side.and_then(|destination| destination.metadata.labels.clone());
        labels.unwrap_or_default().into_iter().collect()
    };
    let is_open = |side: Option<&Destination>| side.is_some_and(|found| found.metadata.deletion_timestamp.is_none());
    let is_strict = |side: Option<&Destination>| side.is_some_and(|found| found.spec.strict_match_labels);
    let (before, after) = (pairs(old), pairs(new));
    let preview = (keys::DRY_RUN.to_owned(), keys::TRUE.to_owned());
    // It takes other things altogether, whichever labels it keeps.
    let is_another = is_open(old) != is_open(new) || before.contains(&preview) != after.contains(&preview);
    let touched: BTreeSet<_> = match is_another {
        true => before.union(&after).collect(),
        false => before.symmetric_difference(&after).collect(),
    };
    let mut entries: BTreeSet<String> = touched.into_iter().map(|(key, value)| entry(key, value)).collect();
    if is_another || is_strict(old) != is_strict(new) || before.is_empty() != after.is_empty() {
        entries.insert(anything());
    }
    entries
}

/// Tells whether the change of a Destination gives a Work something to do. `there` are the Work's placements on that
/// Destination; `is_placed` tells of a group whether it has a placement anywhere.
///
/// # Guarantees
/// A converged Work that is not concerned is converged after the change. A request that has its place is not concerned by
/// a Destination that takes it too.
pub fn is_concerned(
    work: &Work,
    there: &[Arc<WorkPlacement>],
    is_placed: impl Fn(&str) -> bool,
    old: Option<&Destination>,
    new: Option<&Destination>,
) -> bool {
    if work.metadata.deletion_timestamp.is_some() {
        return false;
    }
    // A placement of which nothing could be known has something to be noted.
    let appears = old.is_some() != new.is_some();
    let turns = |keeps: &dyn Fn(&Destination) -> bool| old.is_some_and(keeps) != new.is_some_and(keeps);
    work.spec.workload_groups.iter().any(|group| {
        if there.iter().any(|placement| group_of(placement) == group.id) {
            let selector = Selector::of(work, group);
            return appears || turns(&|found| selector.takes(found) || group::clears(found));
        }
        // Nearly all requests are placed, which is found out sooner than what they select.
        if is_request(work) && is_placed(&group.id) {
            return false;
        }
        let selector = Selector::of(work, group);
        turns(&|found| selector.takes(found))
    })
}

/// Tells whether a change of a Work concerns itself: its own status writes do not.
pub fn concerns_itself(old: Option<&Work>, new: Option<&Work>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return true };
    let (before, after) = (&old.metadata, &new.metadata);
    before.uid != after.uid
        || before.generation != after.generation
        || before.labels != after.labels
        || before.annotations != after.annotations
        || before.finalizers != after.finalizers
        || before.deletion_timestamp.is_some() != after.deletion_timestamp.is_some()
}

/// Tells whether a change of a placement concerns its Work: what the Work's status sums up, and what its passes keep in line.
pub fn concerns_work(old: Option<&WorkPlacement>, new: Option<&WorkPlacement>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return true };
    let (before, after) = (&old.metadata, &new.metadata);
    let write = |placement: &WorkPlacement| {
        let status = placement.status.as_ref()?;
        let write = condition::find(&status.conditions, condition::WRITE_SUCCEEDED)?;
        Some((write.status.clone(), write.observed_generation))
    };
    // Those that are a copy of the Work's.
    let copied = |placement: &WorkPlacement| -> Vec<(String, String)> {
        let is_own = |key: &str| OWN_ANNOTATIONS.contains(&key) || trace::KEYS.contains(&key);
        let all = placement.metadata.annotations.iter().flatten();
        all.filter(|(key, _)| !is_own(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    before.uid != after.uid
        || before.generation != after.generation
        || before.labels != after.labels
        || (before.annotations != after.annotations && copied(old) != copied(new))
        || before.owner_references != after.owner_references
        || before.deletion_timestamp.is_some() != after.deletion_timestamp.is_some()
        || write(old) != write(new)
}

fn entry(key: &str, value: &str) -> String {
    format!("selects={key}={value}")
}

fn anything() -> String {
    "selects=".to_owned()
}

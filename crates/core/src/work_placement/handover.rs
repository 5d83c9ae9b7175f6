//! Paths of shared directories that pass from one placement to another, without a moment in which they are missing.
//!
//! Whoever is leaving keeps its paths from nobody, so that they are taken over, and not removed and written again. Its removal
//! waits for those who take over, and they are looked at again when it begins to leave.

use std::sync::Arc;
use std::time::Duration;

use kratix_api::WorkPlacement;
use kratix_api::condition::Status;
use kratix_api::destination::FilepathMode;

use super::{RETRY_AFTER, Snapshot, is_written, namesake, says_of_write, since};
use crate::object::ObjectKey;
use crate::state_store::Failure;

/// What the process knows of paths that pass from or to a placement.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Handover {
    /// Who has a path that the last attempt was refused, if that is a placement.
    pub owner: Option<Arc<WorkPlacement>>,
    /// The same content was refused a path of that owner before.
    pub was_refused_before: bool,
    /// Somebody was refused a path that this placement has.
    pub is_awaited: bool,
}

impl Handover {
    /// Tells whether the last refusal says nothing any more, so that the path is to be asked for again at once: its owner has gone,
    /// is leaving, or has written something else during the attempt. Once is enough to find out: the store says it again of an
    /// owner that has kept the path.
    pub fn is_refusal_over(&self, owner_has_written: bool) -> bool {
        let is_kept = self.owner.as_deref().is_some_and(|owner| keeps_paths(owner) && !owner_has_written);
        !is_kept && !self.was_refused_before
    }
}

/// Tells whether a placement keeps its paths of a shared directory from others. Whoever is being deleted does not.
pub fn keeps_paths(placement: &WorkPlacement) -> bool {
    placement.metadata.deletion_timestamp.is_none()
}

/// Tells whether the removal of what a placement has lets others write first: those who were refused its paths, and those of its
/// request that are about to be written, which may be its heirs. They do not hold it up for long.
pub fn yields(snapshot: &Snapshot) -> bool {
    let placement = &*snapshot.placement;
    let is_shared = snapshot.destination.as_ref().is_some_and(|found| found.spec.filepath.mode == FilepathMode::None);
    let is_to_be_written = |other: &WorkPlacement| !is_written(other) && !says_of_write(other, Status::False);
    let is_heir = |other: &WorkPlacement| keeps_paths(other) && is_sibling(placement, other) && is_to_be_written(other);
    is_shared
        && remaining(snapshot) > Duration::ZERO
        && (snapshot.handover.is_awaited || snapshot.rivals.iter().any(|rival| is_heir(&rival.placement)))
}

/// Returns for how long the removal may still be held up.
pub(super) fn remaining(snapshot: &Snapshot) -> Duration {
    let since = snapshot.placement.metadata.deletion_timestamp.as_ref().map(|time| since(time.0, snapshot.now));
    since.map_or(Duration::ZERO, |since| RETRY_AFTER.saturating_sub(since))
}

/// Returns for what a placement waits whose write was refused because a path is somebody else's, if that is expected to pass: the
/// owner is leaving, or is of the same request and was not asked twice. A pipeline of another name writes before what the former
/// one has left is removed, and of two groups of a Work the one that takes a file over may come first.
pub(super) fn passing(snapshot: &Snapshot, failure: &Failure) -> Option<String> {
    let owner = snapshot.handover.owner.as_deref()?;
    let has_failed = says_of_write(&snapshot.placement, Status::False);
    let is_first = is_sibling(&snapshot.placement, owner) && !snapshot.handover.was_refused_before && !has_failed;
    let what = failure.message.split("; hint: ").next().unwrap_or_default();
    let wait = || format!("{what}: waiting for workplacement {} to give it up", ObjectKey::of(owner));
    (!keeps_paths(owner) || is_first).then(wait)
}

/// Tells whether two placements are of one request, or both of a Promise's own documents, on one Destination.
fn is_sibling(one: &WorkPlacement, other: &WorkPlacement) -> bool {
    one.spec.target_destination_name == other.spec.target_destination_name
        && one.metadata.namespace == other.metadata.namespace
        && one.spec.promise_name == other.spec.promise_name
        && one.spec.resource_name == other.spec.resource_name
        && namesake::request_namespace(one) == namesake::request_namespace(other)
}

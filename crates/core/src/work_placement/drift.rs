//! Files of a placement that others have changed: they are written again, and an event says so.

use kube_core::ResourceExt;

use super::{Location, Snapshot, is_claimed, warn};
use crate::plan::Event;
use crate::state_store::Attempt;

/// Returns the event that tells of files which were not any more as they were written, if the attempt has shown that.
///
/// What the status claimed to be in the store was there once, so a write that altered something had to repair it. Of a file that
/// many placements share, only a comparison tells that: it changes with any of them.
pub(super) fn repaired(snapshot: &Snapshot, attempt: &Attempt) -> Option<Event> {
    let written = attempt.outcome.as_ref().ok().filter(|written| written.changed)?;
    let destination = snapshot.destination.as_deref()?;
    let placement = &*snapshot.placement;
    if placement.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let (path, is_shared_file) = match Location::of(placement, destination).ok()? {
        Location::Directory(directory) => (directory, false),
        Location::Shared { directory, .. } => (directory, false),
        Location::Aggregate { directory, file } => (super::join(&[&directory, &file]), true),
    };
    // A comparison that was made while it moved has found nothing at the new place, which was never written.
    if !is_claimed(snapshot) || (!snapshot.is_doubted && (is_shared_file || !has_generation(snapshot))) {
        return None;
    }
    let version = written.version.as_ref().map(|version| format!(" with versionID: {version}")).unwrap_or_default();
    let note = format!(
        "files in {path} were changed by others and have been written again to Destination: {}{version}",
        destination.name_any()
    );
    Some(warn(placement, "DriftRepaired", note))
}

/// Placements of the original carry no generation: what differs may be how a file is rendered.
fn has_generation(snapshot: &Snapshot) -> bool {
    let status = snapshot.placement.status.as_ref();
    let write = status
        .and_then(|status| kratix_api::condition::find(&status.conditions, kratix_api::condition::WRITE_SUCCEEDED));
    write.is_some_and(|write| write.observed_generation.is_some())
}

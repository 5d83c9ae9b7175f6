//! One path, one owner: who of several placements with one directory may use it.

use jiff::Timestamp;
use kratix_api::{Destination, WorkPlacement, condition};

use super::{Location, Snapshot};
use crate::object::ObjectKey;

/// A placement that has the directory already.
pub(super) struct Rival {
    pub(super) key: ObjectKey,
    pub(super) directory: String,
    /// It is being deleted, so the directory will be free.
    pub(super) is_leaving: bool,
}

/// Returns the placement that comes before this one, if their directories meet.
///
/// Who has written comes first, then who is older. Two placements never both come before the other.
pub(super) fn before(snapshot: &Snapshot, destination: &Destination, location: &Location) -> Option<Rival> {
    let own = rank(&snapshot.placement);
    let mut rivals: Vec<(&WorkPlacement, String)> = snapshot
        .rivals
        .iter()
        .filter_map(|(rival, at)| {
            let at = at.as_deref()?;
            if at.spec.state_store_ref != destination.spec.state_store_ref || rank(rival) >= own {
                return None;
            }
            let other = Location::of(rival, at).ok()?;
            match (&other, location.overlaps(&other)) {
                (Location::Directory(directory), true) => Some((&**rival, directory.clone())),
                _ => None,
            }
        })
        .collect();
    rivals.sort_by_key(|(rival, _)| rank(rival));
    let (rival, directory) = rivals.into_iter().next()?;
    let is_leaving = rival.metadata.deletion_timestamp.is_some();
    Some(Rival { key: ObjectKey::of(rival), directory, is_leaving })
}

fn rank(placement: &WorkPlacement) -> (bool, Timestamp, ObjectKey) {
    let conditions = placement.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let has_written = condition::is_true(conditions, condition::WRITE_SUCCEEDED);
    let created = placement.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    (!has_written, created, ObjectKey::of(placement))
}

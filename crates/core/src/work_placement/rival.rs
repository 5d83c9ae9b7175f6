//! One path, one owner: who of several placements with one directory, or Destinations with one file, may use it.

use jiff::Timestamp;
use kratix_api::{Destination, WorkPlacement, condition};
use kube_core::ResourceExt;

use super::location::STORE_LOCATION;
use super::{Location, Rival, Snapshot, site};
use crate::object::ObjectKey;

/// Who has the path already.
pub(super) struct Owner {
    /// Kind and name, for people.
    pub(super) owner: String,
    pub(super) path: String,
    /// It is being deleted, so the path will be free.
    pub(super) is_leaving: bool,
}

/// Returns who comes before this placement, if their paths meet.
///
/// Who has written there comes first, then who is older. Two placements never both come before the other.
pub(super) fn before(snapshot: &Snapshot, destination: &Destination, location: &Location) -> Option<Owner> {
    match location {
        Location::Directory(_) => before_in_directory(snapshot, destination, location),
        // Its state files tell whose is what, path by path.
        Location::Shared { .. } => None,
        Location::Aggregate { directory, file } => before_in_file(snapshot, destination, location, directory, file),
    }
}

fn before_in_directory(snapshot: &Snapshot, destination: &Destination, location: &Location) -> Option<Owner> {
    let place = snapshot.store.place().unwrap_or_default();
    let has_written = snapshot.attempt.as_ref().is_some_and(|attempt| attempt.outcome.is_ok());
    let own = rank(&snapshot.placement, destination, place, has_written);
    let mut rivals: Vec<_> = snapshot
        .rivals
        .iter()
        .filter_map(|Rival { placement, destination: at, has_written }| {
            let at = at.as_deref()?;
            let rank = rank(placement, at, place, *has_written);
            if at.spec.state_store_ref != destination.spec.state_store_ref || rank >= own {
                return None;
            }
            let other = Location::of(placement, at).ok()?;
            match (&other, location.overlaps(&other)) {
                (Location::Directory(directory), true) => Some((rank, &**placement, directory.clone())),
                _ => None,
            }
        })
        .collect();
    rivals.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    let (_, rival, path) = rivals.into_iter().next()?;
    let is_leaving = rival.metadata.deletion_timestamp.is_some();
    Some(Owner { owner: format!("workplacement {}", ObjectKey::of(rival)), path, is_leaving })
}

/// The placements of one Destination share its file; of two Destinations with one file, the older has it.
fn before_in_file(
    snapshot: &Snapshot,
    destination: &Destination,
    location: &Location,
    directory: &str,
    file: &str,
) -> Option<Owner> {
    let rank = |destination: &Destination| {
        let created = destination.metadata.creation_timestamp.as_ref();
        (created.map_or(Timestamp::UNIX_EPOCH, |time| time.0), destination.name_any())
    };
    let has_file = |other: &Destination| {
        other.spec.state_store_ref == destination.spec.state_store_ref
            && Location::of(&snapshot.placement, other).as_ref() == Ok(location)
    };
    let before = snapshot.neighbours.iter().filter(|other| rank(other) < rank(destination) && has_file(other));
    let owner = before.min_by_key(|other| rank(other))?;
    Some(Owner {
        owner: format!("destination {}", owner.name_any()),
        path: super::join(&[directory, file]),
        is_leaving: owner.metadata.deletion_timestamp.is_some(),
    })
}

/// A placement that has moved has not written where it is now. One whose last write failed still has what it wrote before.
fn rank(
    placement: &WorkPlacement,
    destination: &Destination,
    place: &str,
    has_written: bool,
) -> (bool, Timestamp, ObjectKey) {
    let status = placement.status.clone().unwrap_or_default();
    let wrote = condition::is_true(&status.conditions, condition::WRITE_SUCCEEDED) || !status.version_id.is_empty();
    let noted = placement.annotations().get(STORE_LOCATION);
    let is_here = || noted.is_none_or(|noted| Some(noted) == site(placement, destination, place).as_ref());
    let has_written = (has_written || wrote) && is_here();
    let created = placement.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    (!has_written, created, ObjectKey::of(placement))
}

//! One path, one owner: who of several placements with one directory, or Destinations with one file, may use it.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kratix_api::{Destination, WorkPlacement, condition};
use kube_core::ResourceExt;

use super::site::{self, Site};
use super::{Location, Rival, Snapshot, namesake};
use crate::object::ObjectKey;

/// Who has the path already.
pub(super) struct Owner {
    /// Kind and name, for people.
    pub(super) owner: String,
    pub(super) path: String,
    /// What a person can do about it.
    pub(super) remedy: &'static str,
    /// It is being deleted, so the path will be free.
    pub(super) is_leaving: bool,
    /// The namespace of its request, if it has one.
    pub(super) namespace: Option<String>,
}

/// Returns who comes before this placement, if their paths meet.
///
/// Who has written there comes first, then who is older. Two placements never both come before the other. While nobody
/// knows where the store is, nobody knows who has written there, and nothing is written.
pub(super) fn before(snapshot: &Snapshot, destination: &Destination, location: &Location) -> Option<Owner> {
    let place = snapshot.store.place()?;
    match location {
        Location::Directory(_) => before_in_directory(snapshot, destination, location, place),
        // Its state files tell whose is what, path by path.
        Location::Shared { .. } => None,
        Location::Aggregate { .. } => before_in_file(snapshot, destination, place),
    }
}

fn before_in_directory(
    snapshot: &Snapshot,
    destination: &Destination,
    location: &Location,
    place: &str,
) -> Option<Owner> {
    let has_written = snapshot.attempt.as_ref().is_some_and(|attempt| attempt.outcome.is_ok());
    let own = rank(&snapshot.placement, destination, place, has_written);
    let mut rivals: Vec<_> = snapshot
        .rivals
        .iter()
        .filter_map(|Rival { placement, destination: at, has_written }| {
            let at = at.as_deref().filter(|at| super::may_meet(at, destination))?;
            let other = Location::of(placement, at).ok()?;
            let Location::Directory(directory) = &other else { return None };
            if !location.overlaps(&other) {
                return None;
            }
            let rank = rank(placement, at, place, *has_written);
            (rank < own).then(|| (rank, &**placement, directory.clone()))
        })
        .collect();
    rivals.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    let (_, rival, path) = rivals.into_iter().next()?;
    let is_leaving = rival.metadata.deletion_timestamp.is_some();
    let namespace = namesake::request_namespace(rival).map(str::to_owned);
    let owner = format!("workplacement {}", ObjectKey::of(rival));
    Some(Owner { owner, path, remedy: "delete one of the two", is_leaving, namespace })
}

/// The placements of one Destination share its file; of two Destinations with one file, the one has it of which something is
/// in there, then the older.
fn before_in_file(snapshot: &Snapshot, destination: &Destination, place: &str) -> Option<Owner> {
    let rank = |destination: &Destination, members: &[Arc<WorkPlacement>]| {
        let is_there = |member: &Arc<WorkPlacement>| {
            has_written(member, destination, place, snapshot.written.contains(&ObjectKey::of(&**member)))
        };
        (!members.iter().any(is_there), created(&destination.metadata), destination.name_any())
    };
    let own = rank(destination, &snapshot.members);
    let neighbours = snapshot.neighbours.iter().filter(|other| super::shares_file(&other.destination, destination));
    let ranked = neighbours.map(|other| (rank(&other.destination, &other.members), &*other.destination));
    let (_, owner) = ranked.filter(|(rank, _)| *rank < own).min_by(|(one, _), (other, _)| one.cmp(other))?;
    Some(Owner {
        owner: format!("destination {}", owner.name_any()),
        path: super::location::aggregate(owner)?,
        remedy: "give one of the two Destinations another path or spec.filepath.filename",
        is_leaving: owner.metadata.deletion_timestamp.is_some(),
        namespace: None,
    })
}

/// What decides between placements, the smaller first.
fn rank(
    placement: &WorkPlacement,
    destination: &Destination,
    place: &str,
    is_known_to_have: bool,
) -> (bool, Timestamp, ObjectKey) {
    let has_written = has_written(placement, destination, place, is_known_to_have);
    (!has_written, created(&placement.metadata), ObjectKey::of(placement))
}

/// A placement that has moved has not written where it is now. One whose last write failed still has what it wrote before.
fn has_written(placement: &WorkPlacement, destination: &Destination, place: &str, is_known_to_have: bool) -> bool {
    let status = placement.status.as_ref();
    let wrote = status.is_some_and(|status| {
        condition::is_true(&status.conditions, condition::WRITE_SUCCEEDED) || !status.version_id.is_empty()
    });
    let is_here = |noted: &Site| Site::of(placement, destination, place).is_some_and(|present| present.is(noted));
    (is_known_to_have || wrote) && site::noted(placement).as_ref().is_none_or(is_here)
}

fn created(metadata: &ObjectMeta) -> Timestamp {
    metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

//! One path, one owner: who of several placements with one directory, or Destinations with one file, may use it.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kratix_api::{Destination, WorkPlacement, condition};
use kube_core::ResourceExt;

use super::site::{self, Site};
use super::{Location, Placed, Rival, Snapshot, join, namesake};
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
        // State files tell whose is what, path by path, but each is one placement's.
        Location::Directory(_) | Location::Shared { .. } => before_at_path(snapshot, destination, location, place),
        Location::Aggregate { .. } => before_in_file(snapshot, destination, place),
    }
}

/// Of two placements with one directory or state file, the one has it that has written there, then the older.
fn before_at_path(snapshot: &Snapshot, destination: &Destination, location: &Location, place: &str) -> Option<Owner> {
    let has_written = snapshot.attempt.as_ref().is_some_and(|attempt| attempt.outcome.is_ok());
    let own = rank(&snapshot.placement, (destination, place), has_written);
    let own_location = rooted(location, place);
    let mut rivals: Vec<_> = snapshot
        .rivals
        .iter()
        .filter(|rival| super::may_meet(rival.placed(), (destination, place)))
        .filter_map(|rival| {
            let other = rooted(&Location::of(&rival.placement, &rival.destination).ok()?, &rival.place);
            if !own_location.overlaps(&other) {
                return None;
            }
            let path = match &other {
                Location::Directory(directory) => directory.clone(),
                Location::Shared { directory, ledger } => join(&[directory, ledger]),
                Location::Aggregate { .. } => return None,
            };
            let rank = rank(&rival.placement, rival.placed(), rival.has_written);
            (rank < own).then(|| (rank, rival, seen_from(place, &path)))
        })
        .collect();
    rivals.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    let (_, Rival { placement: rival, destination: at, .. }, path) = rivals.into_iter().next()?;
    let is_leaving = rival.metadata.deletion_timestamp.is_some();
    let namespace = namesake::request_namespace(rival).map(str::to_owned);
    let owner = format!("workplacement {}", ObjectKey::of(&**rival));
    let remedy = match at.name_any() == destination.name_any() {
        true => "delete one of the two",
        false => "give one of the two Destinations another path",
    };
    Some(Owner { owner, path, remedy, is_leaving, namespace })
}

/// Returns a location relative to the repository or bucket, so that those of several stores can be compared.
fn rooted(location: &Location, place: &str) -> Location {
    match location {
        Location::Directory(directory) => Location::Directory(site::rooted(place, directory)),
        Location::Shared { directory, ledger } => {
            Location::Shared { directory: site::rooted(place, directory), ledger: ledger.clone() }
        }
        other => other.clone(),
    }
}

/// Returns a path of the repository or bucket as whoever has a store there knows it.
fn seen_from(place: &str, path: &str) -> String {
    let root = site::rooted(place, "");
    let below = path.strip_prefix(&root).and_then(|path| path.strip_prefix('/'));
    below.filter(|_| !root.is_empty()).unwrap_or(path).to_owned()
}

/// The placements of one Destination share its file; of two Destinations with one file, the one has it of which something is
/// in there, then the older.
fn before_in_file(snapshot: &Snapshot, destination: &Destination, place: &str) -> Option<Owner> {
    let rank = |(destination, place): Placed<'_>, members: &[Arc<WorkPlacement>]| {
        let is_there = |member: &Arc<WorkPlacement>| {
            has_written(member, (destination, place), snapshot.written.contains(&ObjectKey::of(&**member)))
        };
        (!members.iter().any(is_there), created(&destination.metadata), destination.name_any())
    };
    let own = rank((destination, place), &snapshot.members);
    let neighbours = snapshot.neighbours.iter().map(|other| ((&*other.destination, &*other.place), &other.members));
    let neighbours = neighbours.filter(|(other, _)| super::shares_file(*other, (destination, place)));
    let ranked = neighbours.map(|(other, members)| (rank(other, members), other.0));
    let (_, owner) = ranked.filter(|(rank, _)| *rank < own).min_by(|(one, _), (other, _)| one.cmp(other))?;
    Some(Owner {
        owner: format!("destination {}", owner.name_any()),
        path: super::location::aggregate(destination)?,
        remedy: "give one of the two Destinations another path or spec.filepath.filename",
        is_leaving: owner.metadata.deletion_timestamp.is_some(),
        namespace: None,
    })
}

impl Rival {
    fn placed(&self) -> Placed<'_> {
        (&self.destination, &self.place)
    }
}

/// What decides between placements, the smaller first.
fn rank(placement: &WorkPlacement, at: Placed<'_>, is_known_to_have: bool) -> (bool, Timestamp, ObjectKey) {
    let has_written = has_written(placement, at, is_known_to_have);
    (!has_written, created(&placement.metadata), ObjectKey::of(placement))
}

/// A placement that has moved has not written where it is now. One whose last write failed still has what it wrote before.
fn has_written(placement: &WorkPlacement, (destination, place): Placed<'_>, is_known_to_have: bool) -> bool {
    let status = placement.status.as_ref();
    let wrote = status.is_some_and(|status| {
        condition::is_true(&status.conditions, condition::WRITE_SUCCEEDED) || !status.version_id.is_empty()
    });
    let is_here = |noted: &Site| Site::of(placement, destination, place).is_some_and(|present| present.is_where(noted));
    (is_known_to_have || wrote) && site::noted(placement).as_ref().is_none_or(is_here)
}

fn created(metadata: &ObjectMeta) -> Timestamp {
    metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

//! One path, one owner: who of several placements with one directory, or Destinations with one file, may use it.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kratix_api::{Destination, Promise, PromiseRevision, WorkPlacement, condition, keys};
use kube_core::ResourceExt;

use super::site::{self, Site};
use super::{DIRECTORY_NAMESPACE, Location, Placed, Rival, Snapshot, join, namesake};
use crate::object::ObjectKey;
use crate::workflow;

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

/// Tells whether a placement is in the namespace from which documents for its directory come: that of the request which is named there,
/// or one where pipelines of the Promise run. Whoever may make Works elsewhere can give them the names of a Promise and of a request.
pub fn is_at_home(placement: &WorkPlacement, promise: Option<&Promise>, revisions: &[Arc<PromiseRevision>]) -> bool {
    let own = placement.metadata.namespace.as_deref().unwrap_or_default();
    let is_own = match placement.spec.resource_name.is_empty() {
        true => own == keys::SYSTEM_NAMESPACE,
        false => !placement.annotations().contains_key(DIRECTORY_NAMESPACE),
    };
    is_own || workflow::pipeline_namespaces(promise, revisions).contains(own)
}

/// Returns the placements whose content was where that of this one is now, although they come after it: nothing else would tell them,
/// and what was tried for them says nothing any more.
pub fn displaced(snapshot: &Snapshot) -> Vec<ObjectKey> {
    let (Some(destination), Some(place)) = (&snapshot.destination, snapshot.store.place()) else { return Vec::new() };
    let Ok(location) = Location::of(&snapshot.placement, destination) else { return Vec::new() };
    let own = own_rank(snapshot, (destination, place));
    let after = overlapping(snapshot, (destination, place), &location).filter(|(rank, _, _)| *rank > own);
    let displaced = after.filter(|(_, rival, _)| rival.has_written || super::is_written(&rival.placement));
    displaced.map(|(_, rival, _)| ObjectKey::of(&*rival.placement)).collect()
}

/// Returns who comes before this placement, if their paths meet.
///
/// Who is [at home](is_at_home) comes first, then who has written there, then who is older. Two placements never both come before the
/// other. While nobody knows where the store is, nobody knows who has written there, and nothing is written.
pub(super) fn before(snapshot: &Snapshot, destination: &Destination, location: &Location) -> Option<Owner> {
    let place = snapshot.store.place()?;
    match location {
        // State files tell whose is what, path by path, but each is one placement's.
        Location::Directory(_) | Location::Shared { .. } => before_at_path(snapshot, destination, location, place),
        Location::Aggregate { .. } => before_in_file(snapshot, destination, place),
    }
}

fn before_at_path(snapshot: &Snapshot, destination: &Destination, location: &Location, place: &str) -> Option<Owner> {
    let own = own_rank(snapshot, (destination, place));
    let before = overlapping(snapshot, (destination, place), location).filter(|(rank, _, _)| *rank < own);
    let (_, Rival { placement: rival, destination: at, .. }, there) =
        before.min_by(|(one, ..), (other, ..)| one.cmp(other))?;
    let path = match there {
        Location::Directory(directory) => directory,
        Location::Shared { directory, ledger } => join(&[&directory, &ledger]),
        Location::Aggregate { .. } => return None,
    };
    let path = seen_from(place, &path);
    let is_leaving = rival.metadata.deletion_timestamp.is_some();
    let namespace = namesake::request_namespace(rival).map(str::to_owned);
    let owner = format!("workplacement {}", ObjectKey::of(&**rival));
    let remedy = match at.name_any() == destination.name_any() {
        true => "delete one of the two",
        false => "give one of the two Destinations another path",
    };
    Some(Owner { owner, path, remedy, is_leaving, namespace })
}

/// Returns the rivals with the placement's directory or state file, each with its rank and where in the repository or bucket it is.
fn overlapping<'a>(
    snapshot: &'a Snapshot,
    at: Placed<'a>,
    location: &Location,
) -> impl Iterator<Item = (Rank, &'a Rival, Location)> {
    let own = rooted(location, at.1);
    let meets = move |rival: &&Rival| super::may_meet(rival.placed(), at);
    snapshot.rivals.iter().filter(meets).filter_map(move |rival| {
        let other = rooted(&Location::of(&rival.placement, &rival.destination).ok()?, &rival.place);
        let rank = || rank(&rival.placement, rival.placed(), rival.is_at_home, rival.has_written);
        own.overlaps(&other).then(|| (rank(), rival, other))
    })
}

fn own_rank(snapshot: &Snapshot, at: Placed<'_>) -> Rank {
    let has_written = snapshot.attempt.as_ref().is_some_and(|attempt| attempt.outcome.is_ok());
    rank(&snapshot.placement, at, snapshot.is_at_home, has_written)
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
type Rank = (bool, bool, Timestamp, ObjectKey);

fn rank(placement: &WorkPlacement, at: Placed<'_>, is_at_home: bool, is_known_to_have: bool) -> Rank {
    let has_written = has_written(placement, at, is_known_to_have);
    (!is_at_home, !has_written, created(&placement.metadata), ObjectKey::of(placement))
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

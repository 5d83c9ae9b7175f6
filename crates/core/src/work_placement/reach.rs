//! Whom a placement may meet, and which changes concern it.

use std::collections::BTreeSet;
use std::sync::Arc;

use kratix_api::destination::StateStoreRef;
use kratix_api::{Destination, WorkPlacement, keys};
use kube_core::ResourceExt;

use super::location::{self, join, pipeline};
use super::site::{self, FILES_AT, OWN_ANNOTATIONS, Site};
use super::snapshot::Snapshot;
use crate::state_store::Address;

/// Tells whether all placements of a Destination share one file.
pub fn aggregates(destination: &Destination) -> bool {
    destination.spec.filepath.mode == kratix_api::destination::FilepathMode::AggregatedYaml
}

/// A Destination, with the place of its store: two stores may have one address.
pub type Placed<'a> = (&'a Destination, &'a str);

/// Tells whether all placements of two Destinations share one file.
pub fn shares_file(one: Placed<'_>, other: Placed<'_>) -> bool {
    in_common(one, other, location::aggregate).is_some_and(|(one, other)| one == other)
}

/// Returns a path of each, relative to what their stores have in common, if both have such a path and that is anything.
fn in_common(
    one: Placed<'_>,
    other: Placed<'_>,
    path: impl Fn(&Destination) -> Option<String>,
) -> Option<(String, String)> {
    if one.1 == other.1 {
        return Some((path(one.0)?, path(other.0)?));
    }
    if Address::of(one.1) != Address::of(other.1) {
        return None;
    }
    let rooted = |(destination, place)| Some(site::rooted(place, &path(destination)?));
    Some((rooted(one)?, rooted(other)?))
}

/// Names what placements that take turns have in common: those of one aggregate, so that each is computed from the ones
/// before it, those of one directory, so that the first is known to have written when the second looks, and those of which
/// one has left what another one may be about to write. Sorted. `place` is that of the Destination's store: two stores may
/// have one address.
pub fn turns(placement: &WorkPlacement, destination: &Destination, place: Option<&str>) -> Vec<String> {
    let present = Site::of(placement, destination, place.unwrap_or_default());
    let sites = present.into_iter().chain(site::noted_sites(placement));
    let turns: BTreeSet<String> = sites.map(|site| site.turn()).collect();
    turns.into_iter().collect()
}

/// Returns the [`turns`] of the placement of a snapshot.
pub fn turns_of(snapshot: &Snapshot) -> Vec<String> {
    let of = |destination: &Arc<Destination>| turns(&snapshot.placement, destination, snapshot.store.place());
    snapshot.destination.as_ref().map(of).unwrap_or_default()
}

/// What two placements have in common if their paths could be the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Collision {
    /// They are of one Promise and one request name, in whatever namespaces, and could have the same directory.
    Namesake {
        /// The Promise.
        promise: String,
        /// The name of the request; empty for what a Promise itself asks for.
        request: String,
    },
    /// Their state files have one name: `a-b` and `c` join to the same text as `a` and `b-c`.
    StateFile(String),
}

/// Returns all that a placement may have in common with another one.
pub fn collisions(placement: &WorkPlacement) -> [Collision; 2] {
    let (promise, request) = (placement.spec.promise_name.clone(), placement.spec.resource_name.clone());
    [Collision::Namesake { promise, request }, Collision::StateFile(location::ledger_name(placement))]
}

/// Tells whether placements of two Destinations could have directories of which one is, or contains, the other.
pub fn may_meet(one: Placed<'_>, other: Placed<'_>) -> bool {
    let directory = |destination: &Destination| Some(join(&[&destination.spec.path]));
    in_common(one, other, directory).is_some_and(|(one, other)| site::touches(&one, &other))
}

/// Tells whether a change of a Destination concerns its placements.
pub fn concerns_placements(old: Option<&Destination>, new: Option<&Destination>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return true };
    old.spec.path != new.spec.path
        || old.spec.state_store_ref != new.spec.state_store_ref
        || old.spec.filepath != new.spec.filepath
        || old.spec.init_workloads != new.spec.init_workloads
        || old.metadata.uid != new.metadata.uid
}

/// Returns the store and the directory in which nothing is asked for any more after a change of a Destination.
pub fn left<'d>(old: Option<&'d Destination>, new: Option<&Destination>) -> Option<(&'d StateStoreRef, String)> {
    let old = &old?.spec;
    let stays = |new: &Destination| new.spec.path == old.path && new.spec.state_store_ref == old.state_store_ref;
    let store = old.state_store_ref.as_ref()?;
    (!new.is_some_and(stays)).then(|| (store, location::join(&[&old.path])))
}

/// Tells whether a change of a placement concerns itself: its own status writes do not.
pub fn concerns_itself(old: Option<&WorkPlacement>, new: Option<&WorkPlacement>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return true };
    let metadata = |placement: &WorkPlacement| {
        let metadata = &placement.metadata;
        let noted = OWN_ANNOTATIONS.map(|key| placement.annotations().get(key).cloned());
        // The sites that were left come after the status.
        let is_moving = placement.annotations().contains_key(FILES_AT).then(|| placement.status.clone());
        let misplaced = placement.labels().get(keys::MISPLACED).cloned();
        let is_terminating = metadata.deletion_timestamp.is_some();
        let identity = (metadata.uid.clone(), metadata.generation, metadata.finalizers.clone());
        (identity, is_terminating, noted, is_moving, misplaced)
    };
    metadata(old) != metadata(new) || pipeline(old) != pipeline(new) || old.spec != new.spec
}

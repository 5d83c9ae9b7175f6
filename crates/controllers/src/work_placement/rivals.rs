//! Who else may have what a placement writes: namesakes with its directory, and Destinations with its file.

use std::cell::LazyCell;
use std::sync::Arc;

use kratix_api::{Destination, WorkPlacement};
use kratix_core::object::ObjectKey;
use kratix_core::state_store::Availability;
use kratix_core::work_placement::{self, Neighbour, Placed, Rival};

use super::WorkPlacements;
use crate::caches::promise_entry;
use crate::context::Context;
use crate::state_store;

/// Returns the namesakes of a placement that could have its directory.
///
/// A Promise with many Destinations has a namesake on each of them. Other stores are looked at only for those who are there.
pub(super) fn namesakes(
    controller: &WorkPlacements,
    key: &ObjectKey,
    placement: &WorkPlacement,
    destination: Option<&Destination>,
    store: &Availability,
) -> Vec<Rival> {
    let (Some(own), Some(place)) = (destination, store.place()) else { return Vec::new() };
    let caches = &controller.cx.caches;
    let beside = LazyCell::new(|| state_store::beside(caches, place));
    let namesakes = controller.namesakes.of(placement).into_iter().filter(|namesake| namesake != key);
    let rivals = namesakes.filter_map(|namesake| {
        let placement = caches.placements.get(&namesake)?;
        let destination = controller.destination(&placement)?;
        let is_same = destination.spec.state_store_ref == own.spec.state_store_ref;
        let at = if is_same { place } else { beside.get(destination.spec.state_store_ref.as_ref()?)? };
        work_placement::may_meet((own, place), (&destination, at)).then(|| {
            let (place, has_written) = (at.to_owned(), controller.attempts.has_written(&namesake));
            let is_at_home = is_at_home(&controller.cx, &placement);
            Rival { placement, destination: Arc::clone(&destination), place, has_written, is_at_home }
        })
    });
    rivals.collect()
}

/// Tells whether a placement is where its documents come from.
pub(super) fn is_at_home(cx: &Context, placement: &WorkPlacement) -> bool {
    let promise = &placement.spec.promise_name;
    let revisions = cx.caches.revisions.indexed(&promise_entry(promise));
    let promise = cx.caches.promises.get(&ObjectKey::cluster(promise.clone()));
    work_placement::is_at_home(placement, promise.as_deref(), &revisions)
}

/// Returns the other Destinations with the file of one whose placements share it, each with its placements.
pub(super) fn neighbours(
    controller: &WorkPlacements,
    destination: Option<&Destination>,
    store: &Availability,
) -> Vec<Neighbour> {
    let (Some(own), Some(place)) = (destination, store.place()) else { return Vec::new() };
    if !work_placement::aggregates(own) {
        return Vec::new();
    }
    let sharing = sharing(&controller.cx, (own, place)).into_iter();
    let others = sharing.filter(|(other, _)| other.metadata.name != own.metadata.name);
    let neighbours = others.map(|(destination, place)| {
        let members = controller.members(&ObjectKey::of(&*destination).name);
        Neighbour { destination, place, members }
    });
    neighbours.collect()
}

/// Returns the Destinations with the file of one, itself included, each with the place of its store.
pub(super) fn sharing(cx: &Context, (own, place): Placed<'_>) -> Vec<(Arc<Destination>, String)> {
    state_store::destinations_beside(cx, place, |other, at| work_placement::shares_file((own, place), (other, at)))
}

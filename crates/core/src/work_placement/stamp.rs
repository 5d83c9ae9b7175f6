//! What identifies a change: what is written for whom, and where.

use kratix_api::{Destination, WorkPlacement, hash};
use kube_core::ResourceExt;

use super::location::Location;
use super::snapshot::Snapshot;
use crate::object::ObjectKey;
use crate::state_store::display;

/// Whether an update or a removal is stamped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Update,
    Removal,
}

/// Identifies what is written and where. The generation stands for the content: a workflow that runs again raises it, so
/// that its files are put back even if they are the same. Another Destination of the same name is handed everything once more:
/// nobody has looked after its files while there was none.
pub(super) fn stamp(
    placement: &WorkPlacement,
    destination: &Destination,
    location: &Location,
    place: &str,
    purpose: Purpose,
) -> String {
    let identity = (placement.uid(), ObjectKey::of(placement), placement.metadata.generation, destination.uid());
    let store = display(destination.spec.state_store_ref.as_ref());
    hash::text(&format!("{identity:?}\n{location:?}\n{store}\n{place}\n{purpose:?}"))
}

/// The other placements that a write of the aggregate brings into the store, or those that it takes out.
pub(super) fn covered(
    snapshot: &Snapshot,
    destination: &Destination,
    place: &str,
    purpose: Purpose,
) -> Vec<(ObjectKey, String)> {
    let own = ObjectKey::of(&*snapshot.placement);
    snapshot
        .members
        .iter()
        .filter(|member| member.metadata.deletion_timestamp.is_some() == (purpose == Purpose::Removal))
        .filter_map(|member| {
            let location = Location::of(member, destination).ok()?;
            Some((ObjectKey::of(&**member), stamp(member, destination, &location, place, purpose)))
        })
        .filter(|(key, _)| *key != own)
        .collect()
}

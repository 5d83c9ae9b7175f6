//! Files at sites that placements have left.

use std::sync::Arc;

use kratix_api::{Destination, WorkPlacement};
use kratix_core::object::ObjectKey;
use kratix_core::state_store::{Availability, SILENCE};
use kratix_core::work_placement::{self, Claim, Cleaned, Former, Site, Snapshot};
use kratix_state_store::Handle;
use tokio::time::Instant;

use super::WorkPlacements;
use crate::caches::site_entry;
use crate::context::Context;
use crate::gates;
use crate::state_store::{self, Registry, Replaced, place_of};

/// The writers that a pass may need.
pub(super) struct Writers {
    /// Of the store in which the files are to be.
    pub(super) present: Option<Handle>,
    /// Of sites that were left, as far as they can be reached.
    pub(super) former: Vec<(Site, Handle)>,
}

/// Returns what is known of the sites that a placement has left.
pub(super) fn observe(
    controller: &WorkPlacements,
    placement: &WorkPlacement,
    destination: Option<&Destination>,
    store: &Availability,
) -> (Vec<Former>, Vec<(Site, Handle)>) {
    let Some(destination) = destination else { return (Vec::new(), Vec::new()) };
    let sites = work_placement::former_sites(placement, destination, store.place().unwrap_or_default());
    let (mut former, mut writers) = (Vec::new(), Vec::new());
    for site in sites {
        let (store, writer) = controller.stores.availability_of_site(&controller.cx.caches, &site);
        let claims = claims(controller, placement, &site);
        former.push(Former { site: site.clone(), store, is_reachable: writer.is_some(), claims });
        writers.extend(writer.map(|writer| (site, writer)));
    }
    (former, writers)
}

fn claims(controller: &WorkPlacements, placement: &WorkPlacement, site: &Site) -> Vec<Claim> {
    if !site.can_be_taken() {
        return Vec::new();
    }
    let caches = &controller.cx.caches;
    let place = |destination: &Destination| place_of(caches, destination.spec.state_store_ref.as_ref()?);
    let namesakes = controller.namesakes.of(placement).into_iter().filter(|found| *found != ObjectKey::of(placement));
    let namesakes = namesakes.filter_map(|found| caches.placements.get(&found));
    let namesakes = namesakes.filter_map(|found| Some((Arc::clone(&found), controller.destination(&found)?)));
    let sharing = caches
        .destinations
        .all()
        .into_iter()
        .filter(|destination| work_placement::may_claim(site, destination, || place(destination)));
    let members = sharing.flat_map(|destination| {
        let mut members = controller.members(&ObjectKey::of(&*destination).name);
        if work_placement::aggregates(&destination) {
            members.truncate(1); // they have one file
        }
        members.into_iter().map(move |member| (member, Arc::clone(&destination)))
    });
    let claims = namesakes.chain(members).filter_map(|(placement, destination)| {
        let place = place(&destination)?;
        Some(Claim { placement, destination, place })
    });
    claims.collect()
}

impl WorkPlacements {
    /// Removes what is left at former sites, where that is possible. A wait that takes long is said on a placement that can do
    /// nothing else.
    pub(super) async fn clean(
        &self,
        key: &ObjectKey,
        snapshot: &mut Snapshot,
        writers: &Writers,
    ) -> Result<Vec<(Site, Cleaned)>, Replaced> {
        let place = snapshot.store.place().map(str::to_owned);
        let mut outcomes = Vec::new();
        for leftover in work_placement::leftovers(snapshot) {
            let Some((_, former)) = writers.former.iter().find(|(site, _)| site.is(&leftover.site)) else { continue };
            let deadline = Instant::now() + SILENCE;
            // Who is turned away is called back. A store that does not answer holds up those alone who have left it.
            let _pass = match self.leaving.enter(&leftover.site.store, key) {
                Ok(pass) => pass,
                Err(waits) if waits < SILENCE || leftover.patience.is_some() => continue,
                Err(_) => {
                    self.tell_clearing(snapshot, &leftover.site, former).await;
                    continue;
                }
            };
            let present = writers.present.as_ref().zip(place.as_deref());
            let proof = present.filter(|_| leftover.needs_proof).map(|(handle, place)| (place, handle));
            let removal = self.stores.clean((&leftover.site, former), proof, leftover.change, leftover.patience);
            let outcome = match leftover.patience {
                Some(_) => removal.await,
                None => gates::telling(removal, deadline, self.tell_clearing(snapshot, &leftover.site, former)).await,
            };
            outcomes.push((leftover.site, outcome?));
        }
        Ok(outcomes)
    }

    async fn tell_clearing(&self, snapshot: &mut Snapshot, site: &Site, writer: &Handle) {
        let waiting = work_placement::clearing(snapshot, site, state_store::silence(writer).as_deref());
        gates::tell(&self.cx, &waiting, &mut snapshot.placement).await;
    }
}

/// Lets go of writers of previous addresses once nothing is noted to be there any more.
pub(super) fn watch(cx: &Arc<Context>, stores: &Arc<Registry>) {
    let release = |cx: &Context, stores: &Registry| {
        stores.release(|store, place| {
            let entry = site_entry(store, place);
            cx.caches.placements.has(&entry) || cx.caches.destinations.has(&entry)
        });
    };
    let (context, registry) = (Arc::downgrade(cx), Arc::downgrade(stores));
    cx.caches.placements.on_later_change(move |_, _| {
        if let (Some(cx), Some(stores)) = (context.upgrade(), registry.upgrade()) {
            release(&cx, &stores);
        }
    });
    let (context, registry) = (Arc::downgrade(cx), Arc::downgrade(stores));
    cx.caches.destinations.on_later_change(move |_, _| {
        if let (Some(cx), Some(stores)) = (context.upgrade(), registry.upgrade()) {
            release(&cx, &stores);
        }
    });
}

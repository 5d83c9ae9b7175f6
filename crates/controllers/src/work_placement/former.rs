//! Files at sites that placements have left.

use std::sync::Arc;

use kratix_api::{Destination, WorkPlacement};
use kratix_core::object::ObjectKey;
use kratix_core::plan::Plan;
use kratix_core::state_store::Availability;
use kratix_core::work_placement::{self, Claim, Finding, Former, Leftover, Site, Snapshot};
use kratix_state_store::Handle;

use super::WorkPlacements;
use crate::caches::site_entry;
use crate::context::Context;
use crate::leaving::Leaver;
use crate::state_store::{Registry, place_of};

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

impl Leaver for Snapshot {
    type Object = WorkPlacement;
    type Finding = Finding;

    fn leftovers(&self) -> Vec<Leftover> {
        work_placement::leftovers(self)
    }

    fn clearing(&self, site: &Site, silence: Option<&str>) -> Plan<Finding> {
        work_placement::clearing(self, site, silence)
    }

    fn place(&self) -> Option<&str> {
        self.store.place()
    }

    fn object(&mut self) -> &mut Arc<WorkPlacement> {
        &mut self.placement
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

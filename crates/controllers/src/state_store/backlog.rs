//! How much waits for each state store.

use kratix_api::destination::StateStoreRef;
use kratix_core::object::ObjectKey;
use kratix_core::work_placement;

use super::Registry;
use crate::caches::destination_entry;
use crate::context::Context;
use crate::gates::Gates;

/// Returns how many changes wait for each state store object, with those that are being written: of a store that can be written,
/// whoever has a pass for it or waits for one; of another, the placements that are not written or not removed.
pub(crate) fn backlog(cx: &Context, stores: &Registry, gates: &[Gates]) -> Vec<(StateStoreRef, usize)> {
    let length = |store: &StateStoreRef| match stores.writer(store) {
        Some(_) => gates.iter().map(|gates| gates.load(store)).sum(),
        None => {
            let names = super::destinations(cx, store).into_iter().map(|found| ObjectKey::of(&*found).name);
            let placements = names.flat_map(|name| cx.caches.placements.indexed(&destination_entry(&name)));
            placements.filter(|placement| work_placement::awaits_store(placement)).count()
        }
    };
    super::places(&cx.caches).into_keys().map(|store| (store.clone(), length(&store))).collect()
}

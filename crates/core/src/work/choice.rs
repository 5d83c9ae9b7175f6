//! Where a group of a request goes first: one of the Destinations that take it, the same in every pass.

use std::sync::Arc;

use kratix_api::{Destination, Work, WorkloadGroup, hash, keys};
use kube_core::ResourceExt;

/// Chooses by rendezvous hashing over the request and the Destination.
///
/// # Guarantees
/// The choice depends on what manifests say, not on uids, times or the order of Destinations: a platform that is built
/// again from its manifests chooses the same. Every Destination gets an even share of the requests. One that is added
/// takes its share of each of the others, and nothing else changes; one that is removed leaves only its own to choose again.
pub(super) fn choose<'a>(
    work: &Work,
    group: &WorkloadGroup,
    candidates: impl Iterator<Item = &'a Arc<Destination>>,
) -> Option<&'a Arc<Destination>> {
    let request = request(work, group);
    candidates.max_by_key(|destination| {
        let name = destination.metadata.name.as_deref().unwrap_or_default();
        (weight(request, name), name)
    })
}

/// Stands for the request, its pipeline and the group: each of them is spread by itself.
fn request(work: &Work, group: &WorkloadGroup) -> u64 {
    let label = |key: &str| work.labels().get(key).map(String::as_str);
    let namespace = label(keys::RESOURCE_NAMESPACE).or(work.metadata.namespace.as_deref()).unwrap_or_default();
    let pipeline = label(keys::PIPELINE_NAME).unwrap_or_default();
    let parts = [&work.spec.promise_name, namespace, &work.spec.resource_name, pipeline, &group.id];
    // Lengths keep "a", "bc" and "ab", "c" apart.
    let text: String = parts.iter().map(|part| format!("{}:{part}\n", part.len())).collect();
    mixed(fnv(&hash::text(&text)))
}

fn weight(request: u64, destination: &str) -> u64 {
    mixed(request ^ mixed(fnv(destination)))
}

/// FNV-1a: names are short, and there are many of them.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The finalizer of MurmurHash3: names that differ in one letter differ in half of the bits.
fn mixed(mut hash: u64) -> u64 {
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^ (hash >> 33)
}

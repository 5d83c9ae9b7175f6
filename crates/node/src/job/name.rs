//! Names of a Job's Pods: they look generated and are derived.

use k8s_openapi::api::batch::v1::Job;
use sha2::Digest;

/// Letters and digits that Kubernetes uses for generated suffixes: no vowels, so no words, and nothing easily confused.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX: usize = 5;
/// Length that leaves room for the suffix in a label value.
const BASE_MAX: usize = 58;

/// Returns the name of the Pod for one attempt; the same attempt always has the same name.
pub(super) fn of_pod(job: &Job, attempt: u32) -> String {
    let mut name = format!("{}-", job.metadata.name.as_deref().unwrap_or_default());
    name.truncate(BASE_MAX);
    let uid = job.metadata.uid.as_deref().unwrap_or_default();
    let hash = sha2::Sha256::digest(format!("{uid}/{attempt}"));
    name.extend(hash.iter().take(SUFFIX).map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])));
    name
}

//! Which changes around a request concern it: anything else brings no pass.

use k8s_openapi::api::batch::v1::Job;
use kratix_api::{Promise, PromiseRevision, ResourceBinding, Work, keys};
use kube_core::{DynamicObject, Resource, ResourceExt};

use super::is_serving;
use crate::promise::{self, RERUN};
use crate::workflow::history;

/// Which of its requests a change of a Promise concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Concerned {
    /// None.
    Nobody,
    /// Those that this round, which is over, has not reached: they may have waited for it.
    Untold {
        /// Its token.
        round: String,
    },
    /// All.
    Everybody,
}

impl Concerned {
    /// Returns whether this request is one of them.
    pub fn includes(&self, request: &DynamicObject) -> bool {
        match self {
            Self::Nobody => false,
            Self::Untold { round } => request.annotations().get(RERUN) != Some(round),
            Self::Everybody => true,
        }
    }
}

/// Returns which of its requests a change of the Promise concerns: it was paused, released, has become available or
/// unavailable, has another version, goes, or nobody is to wait for its word any more.
pub fn concerned_by_promise(old: Option<&Promise>, new: Option<&Promise>) -> Concerned {
    let (Some(old), Some(new)) = (old, new) else { return Concerned::Everybody };
    let paused = |promise: &Promise| keys::is_set(promise.labels(), keys::PAUSED);
    let deleting = |promise: &Promise| promise.meta().deletion_timestamp.is_some();
    let differ = |view: fn(&Promise) -> bool| view(old) != view(new);
    if differ(paused) || differ(is_serving) || differ(deleting) || old.version() != new.version() {
        return Concerned::Everybody;
    }
    match promise::round(old) {
        Some(round) if promise::round(new).as_ref() != Some(&round) => Concerned::Untold { round },
        _ => Concerned::Nobody,
    }
}

/// Returns whether a change of a revision concerns the requests that may use it.
pub fn revision_concerns_requests(old: Option<&PromiseRevision>, new: Option<&PromiseRevision>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return true };
    let view = |revision: &PromiseRevision| {
        let deleting = revision.metadata.deletion_timestamp.is_some();
        (revision.is_latest(), deleting, revision.metadata.annotations.clone(), revision.metadata.labels.clone())
    };
    old.spec != new.spec || view(old) != view(new)
}

/// Returns whether a change of a Job concerns the request it is for.
pub fn job_concerns_request(old: Option<&Job>, new: Option<&Job>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return true };
    let view = |job: &Job| {
        let deleting = job.metadata.deletion_timestamp.is_some();
        let pods = (history::is_live(job), history::is_leaving(job));
        (history::state(job), pods, deleting, job.metadata.labels.clone())
    };
    view(old) != view(new)
}

/// Returns whether a change of a Work concerns the request it is of.
pub fn work_concerns_request(old: Option<&Work>, new: Option<&Work>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return true };
    let view = |work: &Work| {
        let deleting = work.metadata.deletion_timestamp.is_some();
        let written_by = work.annotations().get(keys::SEQUENCE).cloned();
        (crate::work::readiness(work), deleting, work.metadata.generation, work.metadata.labels.clone(), written_by)
    };
    view(old) != view(new)
}

/// Returns whether a change of a request is to be looked at as soon as possible. Of a status that somebody has written the pass
/// for what comes next will do, which usually follows at once.
pub fn is_urgent(old: Option<&DynamicObject>, new: Option<&DynamicObject>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return true };
    let view = |request: &DynamicObject| {
        let mut metadata = request.metadata.clone();
        (metadata.resource_version, metadata.managed_fields) = (None, None);
        metadata
    };
    old.data.get("spec") != new.data.get("spec") || view(old) != view(new)
}

/// Returns whether a change of a binding concerns its request.
pub fn binding_concerns_request(old: Option<&ResourceBinding>, new: Option<&ResourceBinding>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return true };
    let deleting = |binding: &ResourceBinding| binding.metadata.deletion_timestamp.is_some();
    old.spec != new.spec || old.metadata.labels != new.metadata.labels || deleting(old) != deleting(new)
}

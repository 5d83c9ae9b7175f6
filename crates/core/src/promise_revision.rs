//! PromiseRevision: which one is the latest, and what goes when one is deleted.
//!
//! Order of writes: finalizer or label alone; then status. The Promise is asked which version it is at, so each revision
//! settles its own label and status, and nothing depends on the order in which revisions are looked at: between two
//! versions both may call themselves the latest for a moment, never none. [`latest`] picks the right one of them.
//!
//! # Source
//! `03-promises.md` §19, §25 (19, 29, 35, 38)

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kratix_api::condition::{self, Condition, Status};
use kratix_api::{Promise, PromiseRevision, ResourceBinding, keys};
use kube_core::ResourceExt;
use serde_json::{Value, json};

use crate::object::{Kind, ObjectKey, Target};
use crate::patch::to_value;
use crate::plan::{Next, Plan, Write};
use crate::promise::Request;
use crate::resource_binding::request_of;
use crate::text::listed;

/// How long a deletion waits at most before it looks again although everything it waits for is watched.
const SAFETY_NET: Duration = Duration::from_secs(15);

/// Everything that the decision about one revision may look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The only clock.
    pub now: Timestamp,
    /// The revision.
    pub revision: Arc<PromiseRevision>,
    /// Its Promise.
    pub promise: Option<Arc<Promise>>,
    /// How requests are addressed, if the Promise's API, or else the revision's own, is served.
    pub requests: Option<Kind>,
    /// While it is being deleted: the bindings of the Promise to its version, each with its request if that exists.
    pub bound: Vec<Bound>,
}

/// A binding and its request.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// The binding.
    pub binding: Arc<ResourceBinding>,
    /// The request it binds.
    pub request: Option<Request>,
}

/// What was found out about a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Requests that follow the latest revision get this one.
    Latest,
    /// It is being deleted and waits for requests and bindings.
    Deleting {
        /// For which.
        waits_for: String,
    },
}

/// What a request needs a revision for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be brought about: a revision that is being deleted is not to be used any more.
    Configure,
    /// To be removed: a revision that is being deleted waits for just that.
    Delete,
}

/// Returns the revision that requests on `latest` get: the one of the Promise's version.
///
/// # Guarantees
/// Between two versions, when several call themselves the latest or none does yet, the Promise decides. Without it, or
/// before its revision is there, the one that calls itself the latest counts; of several, the one that is labelled as
/// well, then the youngest.
pub fn latest<'a>(
    revisions: &'a [Arc<PromiseRevision>],
    promise: Option<&Promise>,
    purpose: Purpose,
) -> Option<&'a Arc<PromiseRevision>> {
    let is_present =
        |revision: &PromiseRevision| promise.is_some_and(|promise| promise.version() == revision.spec.version);
    let candidates = usable(revisions, purpose, |revision| revision.is_latest() || is_present(revision));
    candidates.into_iter().max_by_key(|revision| {
        let created = revision.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (is_present(revision), revision.is_latest(), is_labelled(revision), created, revision.name_any())
    })
}

/// Returns the revisions at exactly this version; more than one is an error to show.
pub fn at_version<'a>(
    revisions: &'a [Arc<PromiseRevision>],
    version: &str,
    purpose: Purpose,
) -> Vec<&'a Arc<PromiseRevision>> {
    usable(revisions, purpose, |revision| revision.spec.version == version)
}

/// Returns the revisions that requests have or are to have, the latest first, the others by name. `is_bound` tells whether a binding
/// has a version ([`bound_versions`]).
pub fn in_use<'a>(
    revisions: &'a [Arc<PromiseRevision>],
    promise: Option<&Promise>,
    is_bound: impl Fn(&str) -> bool,
) -> Vec<&'a Arc<PromiseRevision>> {
    let latest = latest(revisions, promise, Purpose::Configure);
    let is_latest = |revision: &PromiseRevision| latest.is_some_and(|latest| latest.name_any() == revision.name_any());
    let others = revisions.iter().filter(|revision| !is_latest(revision) && is_bound(&revision.spec.version));
    let mut others: Vec<_> = others.collect();
    others.sort_by_key(|revision| revision.name_any());
    latest.into_iter().chain(others).collect()
}

/// Returns the versions that a request is to have and has by its binding. A binding that can bind no request keeps none in use.
pub fn bound_versions(binding: &ResourceBinding) -> BTreeSet<&str> {
    let asked_for = Some(binding.spec.version.as_str());
    let applied = binding.status.as_ref().map(|status| status.last_applied_version.as_str());
    let versions = asked_for.into_iter().chain(applied);
    versions.filter(|_| request_of(binding).is_some()).collect()
}

/// Selects revisions: those being deleted count only for a removal, and only when there is no other.
fn usable(
    revisions: &[Arc<PromiseRevision>],
    purpose: Purpose,
    is_wanted: impl Fn(&PromiseRevision) -> bool,
) -> Vec<&Arc<PromiseRevision>> {
    let wanted = revisions.iter().filter(|revision| is_wanted(revision));
    let (going, staying): (Vec<_>, Vec<_>) = wanted.partition(|revision| is_deleting(revision));
    if staying.is_empty() && purpose == Purpose::Delete { going } else { staying }
}

/// Returns the request that a binding pins to this revision's version: with the revision both of them go.
pub fn pinned(binding: &ResourceBinding, revision: &PromiseRevision) -> Option<ObjectKey> {
    let is_of = binding.spec.promise_ref == revision.spec.promise_ref && binding.spec.version == revision.spec.version;
    request_of(binding).filter(|_| is_of)
}

fn is_deleting(revision: &PromiseRevision) -> bool {
    revision.metadata.deletion_timestamp.is_some()
}

fn is_labelled(revision: &PromiseRevision) -> bool {
    keys::is_set(revision.labels(), keys::LATEST_REVISION)
}

fn is_to_be_skipped(revision: &PromiseRevision) -> bool {
    keys::is_set(revision.annotations(), keys::SKIP_RESOURCE_REQUEST_CLEANUP_ON_DELETE)
}

/// Returns the whole answer to the state of one revision.
pub fn decide(snapshot: &Snapshot) -> Plan<Finding> {
    let revision = &*snapshot.revision;
    let target = Target::of(revision);
    if is_deleting(revision) {
        return decide_deletion(snapshot);
    }
    let mut metadata = json!({});
    if !is_to_be_skipped(revision) && !has_finalizer(revision) {
        let mut finalizers = revision.finalizers().to_vec();
        finalizers.push(keys::FINALIZER_RESOURCE_REQUEST_CLEANUP.to_owned());
        metadata["finalizers"] = json!(finalizers);
    }
    let promise = &revision.spec.promise_ref.name;
    if !revision.labels().contains_key(keys::PROMISE_NAME) && !promise.is_empty() {
        metadata["labels"][keys::PROMISE_NAME] = json!(promise);
    }
    let is_wanted = is_wanted(snapshot);
    if !is_wanted && revision.labels().contains_key(keys::LATEST_REVISION) {
        metadata["labels"][keys::LATEST_REVISION] = Value::Null;
    }
    if let Some(write) = Write::metadata(target.clone(), &metadata) {
        return Plan::from(write);
    }
    let mut status = revision.status.clone().unwrap_or_default();
    status.latest = is_wanted && is_labelled(revision);
    let findings = if status.latest { vec![Finding::Latest] } else { Vec::new() };
    let old = revision.status.as_ref().map_or(Value::Null, to_value);
    Plan { status: Write::status(target, &old, &to_value(&status)), findings, ..Plan::silent() }
}

/// Returns whether the revision should be the latest: its version is the one the Promise is at. Without the Promise
/// nobody can say, and its label stays what it is.
fn is_wanted(snapshot: &Snapshot) -> bool {
    match &snapshot.promise {
        Some(promise) => promise.version() == snapshot.revision.spec.version,
        None => is_labelled(&snapshot.revision),
    }
}

fn has_finalizer(revision: &PromiseRevision) -> bool {
    revision.finalizers().iter().any(|finalizer| finalizer == keys::FINALIZER_RESOURCE_REQUEST_CLEANUP)
}

fn decide_deletion(snapshot: &Snapshot) -> Plan<Finding> {
    let revision = &*snapshot.revision;
    if !has_finalizer(revision) {
        return Plan::silent();
    }
    let bound = snapshot.bound.iter().filter_map(|bound| Some((pinned(&bound.binding, revision)?, bound)));
    let bound: Vec<(ObjectKey, &Bound)> = bound.collect();
    if is_to_be_skipped(revision) || bound.is_empty() {
        return release(revision);
    }
    let mut writes = Vec::new();
    for (_, Bound { binding, request }) in &bound {
        match (request, &snapshot.requests) {
            // The request's own deletion needs this revision and takes the binding with it.
            (Some(request), Some(kind)) => {
                if !request.is_deleting {
                    writes.push(Write::Delete { target: request.target(kind).unpinned() });
                }
            }
            // Nothing that it could bind: neither the request nor its kind exists.
            _ => {
                if binding.metadata.deletion_timestamp.is_none() {
                    writes.push(Write::Delete { target: Target::of(&**binding).unpinned() });
                }
            }
        }
    }
    let names: Vec<String> = bound.iter().map(|(request, _)| request.to_string()).collect();
    let waits_for = format!("resource requests pinned to this version: {}", listed(&names));
    let mut status = revision.status.clone().unwrap_or_default();
    let condition =
        Condition::new("RequestsRemoved", Status::False, "Deleting", format!("Deleting: waiting for {waits_for}"));
    condition::set(&mut status.conditions, condition, snapshot.now);
    let old = revision.status.as_ref().map_or(Value::Null, to_value);
    Plan {
        writes,
        status: Write::status(Target::of(revision), &old, &to_value(&status)),
        events: Vec::new(),
        next: Next::After(SAFETY_NET),
        findings: vec![Finding::Deleting { waits_for }],
    }
}

fn release(revision: &PromiseRevision) -> Plan<Finding> {
    let kept = revision.finalizers().iter().filter(|finalizer| *finalizer != keys::FINALIZER_RESOURCE_REQUEST_CLEANUP);
    let kept: Vec<&String> = kept.collect();
    let write = Write::metadata(Target::of(revision), &json!({ "finalizers": kept }));
    Plan { writes: write.into_iter().collect(), ..Plan::silent() }
}

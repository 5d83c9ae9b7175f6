//! Telling all requests of an API to run their workflow again, each exactly once per round, a bounded number per pass.
//!
//! A round is named by a token that every request keeps once it was told. So a pass that was interrupted goes on where it
//! stopped, and a request that has consumed its label meanwhile is not told twice. A round begins with a new generation of
//! the Promise, with the label `kratix.io/reconcile-resources`, or with the end of a pause.
//!
//! # Source
//! `03-promises.md` §13, §25 (8, 12, 13, 24, 29)

use kratix_api::keys;
use kube_core::ResourceExt;
use serde_json::{Map, Value, json};

use super::{Finding, Seen, Snapshot, Walk, Workflows, api, pause, requirement, revision};
use crate::object::{Kind, ObjectKey, Target};
use crate::plan::Write;
use crate::trace;

/// Annotation: on a Promise the round that is going on, on a request the last round it was told of.
pub const RERUN: &str = "internal.workflows.kratix.io/rerun";

/// Requests told per pass: one pass stays short beside the passes of other Promises.
const REQUESTS_MAX: usize = 100;

/// One request of the Promise's API, as far as the Promise looks at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Namespace and name.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Identity.
    pub uid: Option<String>,
    /// Version of the object that was read.
    pub resource_version: Option<String>,
    /// Value of its [`RERUN`] annotation.
    pub round: Option<String>,
    /// Whether it is being deleted.
    pub is_deleting: bool,
    /// Its generation.
    pub generation: Option<i64>,
    /// Whether it is part of a trace.
    pub has_trace: bool,
}

impl Request {
    /// Returns what the Promise looks at of a request.
    pub fn of<K: kube_core::Resource>(request: &K) -> Self {
        Self {
            namespace: request.namespace().unwrap_or_default(),
            name: request.name_any(),
            uid: request.uid(),
            resource_version: request.resource_version(),
            round: request.annotations().get(RERUN).cloned(),
            is_deleting: request.meta().deletion_timestamp.is_some(),
            generation: request.meta().generation,
            has_trace: trace::has_any(request.meta()),
        }
    }

    pub(crate) fn target(&self, kind: &Kind) -> Target {
        let key = match self.namespace.is_empty() {
            true => ObjectKey::cluster(&self.name),
            false => ObjectKey::namespaced(&self.namespace, &self.name),
        };
        Target { kind: kind.clone(), key, uid: self.uid.clone(), resource_version: self.resource_version.clone() }
    }
}

/// Returns the round that the Promise's annotation names.
fn round_by_annotation(snapshot: &Snapshot) -> Option<&str> {
    snapshot.promise.annotations().get(RERUN).map(String::as_str)
}

/// Returns whether a round includes the present generation, so that this does not need a round of its own.
fn covers_generation(round: &str, snapshot: &Snapshot) -> bool {
    round.split_once('.').is_some_and(|(generation, _)| generation == snapshot.generation().to_string())
}

fn observed_generation(snapshot: &Snapshot) -> i64 {
    snapshot.promise.status.as_ref().map_or(0, |status| status.observed_generation)
}

fn left<'a>(requests: &'a [Request], round: &'a str) -> impl Iterator<Item = &'a Request> {
    requests.iter().filter(move |request| !request.is_deleting && request.round.as_deref() != Some(round))
}

/// Returns the write that begins a round asked for by label or by the end of a pause, or ends the one that is over.
///
/// The end of a pause is acted upon by this one write, whatever it starts; only then does the status forget the pause.
pub(super) fn own_metadata(snapshot: &Snapshot) -> Option<Write> {
    let round = round_by_annotation(snapshot);
    let was_paused = pause::is_recorded(snapshot);
    let by_label = snapshot.has_label(keys::RECONCILE_RESOURCES);
    let mut labels = Map::new();
    if by_label {
        labels.insert(keys::RECONCILE_RESOURCES.into(), Value::Null);
    }
    if was_paused && snapshot.configure_pipelines() > 0 && !snapshot.has_label(keys::RUN_FROM_START) {
        labels.insert(keys::RUN_FROM_START.into(), keys::TRUE.into());
        if snapshot.promise.labels().contains_key(keys::WORKFLOW_SUSPENDED) {
            labels.insert(keys::WORKFLOW_SUSPENDED.into(), Value::Null);
        }
    }
    let mut patch = Map::new();
    if by_label || (was_paused && snapshot.promise.spec.has_api() && round.is_none()) {
        let version = snapshot.promise.resource_version().unwrap_or_default();
        let round = format!("{}.{version}", snapshot.generation());
        patch.insert("annotations".into(), json!({ RERUN: round }));
    }
    if !labels.is_empty() {
        patch.insert("labels".into(), labels.into());
    }
    if !patch.is_empty() {
        return Write::metadata(snapshot.target(), &patch.into());
    }
    let round = round?;
    let is_told = snapshot.requests.as_ref().is_some_and(|requests| left(requests, round).next().is_none());
    let is_recorded = observed_generation(snapshot) == snapshot.generation() || !covers_generation(round, snapshot);
    if snapshot.promise.spec.has_api() && !(is_told && is_recorded && !was_paused) {
        return None;
    }
    Write::metadata(snapshot.target(), &json!({ "annotations": { RERUN: Value::Null } }))
}

/// Tells the next requests, and records the generation once all are told.
pub(super) fn keep(walk: &mut Walk<'_>, seen: &Seen) {
    let snapshot = walk.snapshot;
    if seen.workflow != Workflows::Finished || seen.requirements != requirement::State::Fulfilled {
        return;
    }
    let generation = snapshot.generation();
    let Some(kind) = api::established_kind(snapshot) else {
        if seen.api == api::State::Absent {
            walk.status.now.observed_generation = generation;
        }
        return;
    };
    let is_new = observed_generation(snapshot) != generation;
    let by_generation = format!("generation-{generation}");
    let round = match round_by_annotation(snapshot) {
        Some(round) => round,
        // The first generation has nothing to repeat: every request starts with it.
        None if is_new && generation == 1 => {
            walk.status.now.observed_generation = generation;
            return;
        }
        None if is_new => by_generation.as_str(),
        None => return,
    };
    // Requests that follow the latest revision must find the one of this spec.
    if seen.revision != revision::State::Latest {
        return;
    }
    let Some(requests) = &snapshot.requests else { return };
    let untold: Vec<&Request> = left(requests, round).collect();
    for request in untold.iter().take(REQUESTS_MAX) {
        let patch = json!({
            "metadata": { "labels": { keys::RUN_FROM_START: keys::TRUE }, "annotations": { RERUN: round } }
        });
        walk.writes.push(Write::Patch { target: request.target(&kind), patch });
    }
    let left = untold.len().saturating_sub(REQUESTS_MAX);
    if !untold.is_empty() {
        walk.findings.push(Finding::Rerunning { left });
    }
    let by_annotation = round_by_annotation(snapshot).is_some();
    if left == 0 && is_new && (!by_annotation || covers_generation(round, snapshot)) {
        walk.status.now.observed_generation = generation;
        if !by_annotation {
            walk.events.push(snapshot.normal("ReconcilingResources", "Reconciling all resource requests"));
        }
    }
    if by_annotation && left == 0 && !untold.is_empty() {
        walk.events.push(snapshot.normal("ReconcilingResources", "Reconciling all resource requests"));
    }
}

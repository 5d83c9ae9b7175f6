//! A request, as far as its Promise looks at it.

use jiff::Timestamp;
use kratix_api::condition::{CONFIGURE_WORKFLOW_COMPLETED, PIPELINE_FAILING, RECONCILED};
use kratix_api::keys;
use kube_core::{DynamicObject, ResourceExt};
use serde_json::Value;

use super::RERUN;
use crate::object::{Kind, ObjectKey, Target};
use crate::refusal::{self, INVALID_PIPELINE};
use crate::trace;
use crate::workflow::history::Subject;
use crate::workflow::{self, RUN, failure};

/// Reasons of `Reconciled` with which a request waits for somebody to change something.
const BLOCKED: [&str; 5] =
    ["PromiseRevisionNotFound", "MultipleResourceBindings", INVALID_PIPELINE, "PromiseNotFound", refusal::REASON];

/// How the workflow of a request stands. The order is that in which requests are told to run again: what has failed or is
/// busy would keep others waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Nothing runs, and what ran last has not failed.
    #[default]
    Settled,
    /// What ran last has failed.
    Failed,
    /// A run is going on.
    Running,
    /// A run is going on, and its pod does not get on.
    Hanging,
    /// Nothing runs before somebody changes something: it is paused, suspended or blocked.
    Held,
}

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
    /// Whether it carries the label that tells it to run again.
    pub is_told: bool,
    /// How often its workflow was told to start over.
    pub run: i64,
    /// How its workflow stands.
    pub standing: Standing,
    /// When it was last told that the pod of its run cannot begin for want of something: an image, a Secret, a quota.
    pub hangs_since: Option<Timestamp>,
    /// When its workflow succeeded last, as stored.
    pub last_success: Option<String>,
    /// Whether it is being deleted.
    pub is_deleting: bool,
    /// Its generation.
    pub generation: Option<i64>,
    /// Whether it is part of a trace.
    pub has_trace: bool,
    /// What the API server answered when this very version of it was told last, if it said no.
    pub refusal: Option<Refusal>,
}

/// What the API server answered to a [`Call`](super::Call) that it refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// When.
    pub at: Timestamp,
    /// Its words, with the name of the request.
    pub cause: String,
}

impl Request {
    /// Returns what the Promise looks at of a request.
    pub fn of(request: &DynamicObject) -> Self {
        let annotation = |key: &str| request.annotations().get(key);
        let success = request.data.pointer("/status/lastSuccessfulConfigureWorkflowTime").and_then(Value::as_str);
        Self {
            namespace: request.namespace().unwrap_or_default(),
            name: request.name_any(),
            uid: request.uid(),
            resource_version: request.resource_version(),
            round: annotation(RERUN).cloned(),
            is_told: keys::is_set(request.labels(), keys::RUN_FROM_START),
            run: workflow::number(request.annotations(), RUN).unwrap_or_default(),
            standing: standing(request),
            hangs_since: hangs_since(request),
            last_success: success.map(str::to_owned),
            is_deleting: request.metadata.deletion_timestamp.is_some(),
            generation: request.metadata.generation,
            has_trace: trace::has_any(&request.metadata),
            refusal: None,
        }
    }

    pub(super) fn subject<'a>(&'a self, kind: &'a Kind) -> Subject<'a> {
        let namespace = Some(self.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        Subject { kind, namespace, name: &self.name, uid: self.uid.as_deref() }
    }

    pub(crate) fn target(&self, kind: &Kind) -> Target {
        let key = match self.namespace.is_empty() {
            true => ObjectKey::cluster(&self.name),
            false => ObjectKey::namespaced(&self.namespace, &self.name),
        };
        Target { kind: kind.clone(), key, uid: self.uid.clone(), resource_version: self.resource_version.clone() }
    }
}

fn condition<'a>(request: &'a DynamicObject, r#type: &str) -> Option<&'a Value> {
    let conditions = request.data.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().find(|condition| condition["type"] == r#type)
}

/// Returns when a condition has last said that a pod cannot begin, which may last for ever. A container that fails is run again
/// and ends by itself, and a cluster that is full is not to be given still more pods.
fn hangs_since(request: &DynamicObject) -> Option<Timestamp> {
    let hangs = |failing: &&Value| {
        failing["status"] == "True" && failing["reason"].as_str().is_some_and(failure::may_wait_for_ever)
    };
    let failing = condition(request, PIPELINE_FAILING).filter(hangs)?;
    failing["lastTransitionTime"].as_str()?.parse().ok()
}

fn standing(request: &DynamicObject) -> Standing {
    let blocked = condition(request, RECONCILED).is_some_and(is_blocked);
    let suspended = keys::is_set(request.labels(), keys::WORKFLOW_SUSPENDED) && !is_done_without_pipelines(request);
    if blocked || suspended || keys::is_set(request.labels(), keys::PAUSED) {
        return Standing::Held;
    }
    let completed = condition(request, CONFIGURE_WORKFLOW_COMPLETED);
    match completed.map(|told| (text(told, "status"), text(told, "reason"))) {
        Some(("False", "PipelinesInProgress")) if hangs_since(request).is_some() => Standing::Hanging,
        Some(("False", "PipelinesInProgress")) => Standing::Running,
        Some(("False", _)) => Standing::Failed,
        _ => Standing::Settled,
    }
}

/// Returns whether `Reconciled` says that nothing runs before somebody changes something.
fn is_blocked(reconciled: &Value) -> bool {
    match text(reconciled, "reason") {
        refusal::PAUSED => refusal::is_blocked_since_pause(text(reconciled, "message")),
        reason => BLOCKED.contains(&reason),
    }
}

fn text<'a>(condition: &'a Value, field: &str) -> &'a str {
    condition.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Returns whether the request is reconciled and has no pipeline that a label could hold.
fn is_done_without_pipelines(request: &DynamicObject) -> bool {
    let pipelines = request.data.pointer("/status/kratix/workflows/pipelines").and_then(Value::as_array);
    let reconciled = condition(request, RECONCILED).is_some_and(|told| told["status"] == "True");
    reconciled && pipelines.is_some_and(Vec::is_empty)
}

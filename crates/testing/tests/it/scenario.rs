//! Scenarios as data.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::script::Act;

/// What users do, one after the other.
#[derive(Clone)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) steps: Vec<Step>,
}

impl Scenario {
    /// Returns the scenario with some of its steps only.
    pub(crate) fn with_steps(&self, chosen: &[usize]) -> Self {
        Self { name: self.name, steps: chosen.iter().map(|at| self.steps[*at].clone()).collect() }
    }
}

/// The address of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) api_version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) namespace: &'static str,
    pub(crate) name: &'static str,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Applies an object as `kubectl apply --server-side` does.
    Apply(Value),
    /// Changes an object by a merge patch.
    Patch(Address, Value),
    /// Replaces the status of an object, as nobody should.
    WipeStatus(Address),
    /// Deletes an object.
    Delete(Address),
    /// Deletes every object of a kind that carries the labels.
    DeleteAll(Address, &'static str),
    /// Says what the containers of a pipeline do from now on.
    Script(&'static str, Act),
    /// Waits until a container of a pipeline is held.
    Held(&'static str),
    /// Waits until nothing happens any more.
    Rest,
    /// Waits until what is on its way has arrived.
    Calm,
    /// Waits until the API of a CRD is served.
    Served(&'static str),
    /// Lets so much time pass, for what is to happen after it.
    Pass(Duration),
    /// Takes the repository away.
    BreakStore,
    /// Brings it back.
    HealStore,
    /// Has a GitOps agent apply a directory of the repository to the platform from now on.
    GitOps(&'static str),
    /// Ends the manager and starts it again.
    Restart,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Apply(object) => write!(f, "apply {object}"),
            Self::Patch(Address { kind, namespace, name, .. }, patch) => {
                write!(f, "patch {kind} {namespace}/{name} {patch}")
            }
            Self::Delete(Address { kind, namespace, name, .. }) => write!(f, "delete {kind} {namespace}/{name}"),
            other => write!(f, "{other:?}"),
        }
    }
}

pub(crate) const PLATFORM: &str = "platform.kratix.io/v1alpha1";
pub(crate) const EXAMPLE: &str = "example.org/v1";

pub(crate) fn at(
    api_version: &'static str,
    kind: &'static str,
    namespace: &'static str,
    name: &'static str,
) -> Address {
    Address { api_version, kind, namespace, name }
}

/// The Promise `env`.
pub(crate) fn the_promise() -> Address {
    at(PLATFORM, "Promise", "", "env")
}

/// A request of the Promise `env` in `default`.
pub(crate) fn the_request(name: &'static str) -> Address {
    at(EXAMPLE, "Env", "default", name)
}

/// Labels of an object as a patch.
pub(crate) fn labels(labels: Value) -> Value {
    json!({ "metadata": { "labels": labels } })
}

/// A pipeline with one container.
pub(crate) fn pipeline(name: &str) -> Value {
    json!({
        "apiVersion": PLATFORM, "kind": "Pipeline", "metadata": { "name": name },
        "spec": { "containers": [{ "name": "step", "image": "image" }] },
    })
}

/// A pipeline whose service account may do more.
pub(crate) fn pipeline_with(name: &str, permissions: Value) -> Value {
    let mut pipeline = pipeline(name);
    pipeline["spec"]["rbac"] = json!({ "permissions": permissions });
    pipeline
}

/// A Promise, and then a request of it.
pub(crate) fn requested(promise: Value) -> Vec<Step> {
    vec![Step::Apply(promise), Step::Rest, Step::Apply(request("a", "small")), Step::Rest]
}

/// A Promise, and then a request of it whose pipeline acts like this.
pub(crate) fn requested_with(promise: Value, pipeline: &'static str, act: Act) -> Vec<Step> {
    vec![Step::Apply(promise), Step::Rest, Step::Script(pipeline, act), Step::Apply(request("a", "small")), Step::Rest]
}

/// A Promise, a request of it whose pipeline is held, and a change meanwhile.
pub(crate) fn changed_during_a_run(promise: Value, pipeline: &'static str, change: Step) -> Vec<Step> {
    let held = [Step::Script(pipeline, Act::Hold), Step::Apply(request("a", "small")), Step::Held(pipeline)];
    let released = [Step::Calm, Step::Script(pipeline, Act::Write), Step::Rest];
    [Step::Apply(promise), Step::Rest].into_iter().chain(held).chain([change]).chain(released).collect()
}

/// Steps, and what comes after them.
pub(crate) fn then(steps: Vec<Step>, more: Vec<Step>) -> Vec<Step> {
    steps.into_iter().chain(more).collect()
}

/// An API `plural.example.org`.
pub(crate) fn api(kind: &str, plural: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.example.org") },
        "spec": {
            "group": "example.org", "scope": "Namespaced",
            "names": { "plural": plural, "singular": kind.to_lowercase(), "kind": kind },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": {
                "type": "object",
                "properties": { "spec": { "type": "object", "properties": {
                    "size": { "type": "string" }, "count": { "type": "integer" },
                }}},
            }}}],
        },
    })
}

/// A Promise with these workflows.
pub(crate) fn promise_of(name: &str, api: Value, workflows: Value) -> Value {
    json!({
        "apiVersion": PLATFORM, "kind": "Promise", "metadata": { "name": name },
        "spec": {
            "api": api, "workflows": workflows,
            "destinationSelectors": [{ "matchLabels": { "environment": "dev" } }],
        },
    })
}

/// The Promise `env`, whose requests run these pipelines.
pub(crate) fn promise(configure: &[&str]) -> Value {
    let pipelines: Vec<Value> = configure.iter().map(|name| pipeline(name)).collect();
    promise_of("env", api("Env", "envs"), json!({ "resource": { "configure": pipelines } }))
}

/// The Promise `env` with all four kinds of workflows.
pub(crate) fn full_promise() -> Value {
    let one = |name: &str| json!([pipeline(name)]);
    let workflows = json!({
        "promise": { "configure": one("p-build"), "delete": one("p-clean") },
        "resource": { "configure": one("build"), "delete": one("clean") },
    });
    promise_of("env", api("Env", "envs"), workflows)
}

/// A request of the Promise `env`.
pub(crate) fn request_in(namespace: &str, name: &str, size: &str) -> Value {
    json!({
        "apiVersion": EXAMPLE, "kind": "Env", "metadata": { "name": name, "namespace": namespace },
        "spec": { "size": size },
    })
}

/// A request of the Promise `env` in `default`.
pub(crate) fn request(name: &str, size: &str) -> Value {
    request_in("default", name, size)
}

pub(crate) fn namespace(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } })
}

/// A Destination in the repository.
pub(crate) fn destination(name: &str, environment: &str) -> Value {
    destination_of(name, environment, "nestedByMetadata")
}

/// A Destination whose files have such places.
pub(crate) fn destination_of(name: &str, environment: &str, mode: &str) -> Value {
    json!({
        "apiVersion": PLATFORM, "kind": "Destination",
        "metadata": { "name": name, "labels": { "environment": environment } },
        "spec": {
            "path": name, "stateStoreRef": { "kind": "GitStateStore", "name": "default" },
            "filepath": { "mode": mode },
        },
    })
}

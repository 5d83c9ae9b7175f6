//! Promise: an API, dependencies and workflows, published under one name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::keyword::keyword;
use crate::object::{null_as_default, resource};
use crate::pipeline::{Action, WorkflowType};
use crate::{Condition, Time, keys};

resource! {
    /// A platform offering.
    Promise, "promises", ClusterResourceScope,
    {
        /// What the author wrote.
        spec: PromiseSpec
    }
    {
        /// What Kratix found.
        status: PromiseStatus
    }
}

/// What the author of a Promise wrote.
///
/// # Guarantees
/// Writing a value yields the normalised form of the spec: `workflows` and its three children are always present,
/// empty lists and maps are absent. `api`, dependencies and pipelines are kept exactly as stored, so a broken one
/// never makes the Promise (or a list of Promises) undecodable.
/// # Source
/// `01-api.md` §1.6, §2.1, §9.2.1
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PromiseSpec {
    /// The CRD of the resource requests; see [`crate::promise_api`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<Value>,
    /// Manifests that every matching Destination gets, whether or not anything is requested.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub dependencies: Vec<Value>,
    /// Labels a Destination must carry; earlier entries win.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub destination_selectors: Vec<DestinationSelector>,
    /// Promises that must be installed before this one is available.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub required_promises: Vec<RequiredPromise>,
    /// The pipelines.
    #[serde(deserialize_with = "null_as_default")]
    pub workflows: Workflows,
}

impl PromiseSpec {
    /// Returns the pipelines of one workflow as stored.
    pub fn pipelines(&self, workflow: WorkflowType, action: Action) -> &[Value] {
        let workflow = match workflow {
            WorkflowType::Promise => &self.workflows.promise,
            WorkflowType::Resource => &self.workflows.resource,
        };
        match action {
            Action::Configure => &workflow.configure,
            Action::Delete => &workflow.delete,
        }
    }

    /// Returns whether the Promise brings an API: `api` is neither absent nor `null` nor `{}`.
    pub fn has_api(&self) -> bool {
        match &self.api {
            None | Some(Value::Null) => false,
            Some(Value::Object(map)) => !map.is_empty(),
            Some(_) => true,
        }
    }
}

/// The workflows of a Promise and their settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Workflows {
    /// Settings of all workflows.
    #[serde(deserialize_with = "null_as_default")]
    pub config: WorkflowsConfig,
    /// Pipelines of the Promise itself.
    #[serde(deserialize_with = "null_as_default")]
    pub promise: WorkflowPipelines,
    /// Pipelines of each resource request.
    #[serde(deserialize_with = "null_as_default")]
    pub resource: WorkflowPipelines,
}

/// Settings of all workflows of a Promise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkflowsConfig {
    /// Namespace in which all jobs run; empty: the request's, or the system namespace.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub pipeline_namespace: String,
    /// How often everything is run again, as written; parse it with [`crate::Duration`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconciliation_interval: Option<String>,
}

/// Pipelines per action, each element as stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkflowPipelines {
    /// Run in order when something changes.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub configure: Vec<Value>,
    /// The first is run on deletion.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub delete: Vec<Value>,
}

/// Labels a Destination must carry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DestinationSelector {
    /// Every pair must be among the Destination's labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub match_labels: BTreeMap<String, String>,
}

/// A Promise that must be installed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequiredPromise {
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub name: String,
    /// Its version; empty: any.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub version: String,
}

/// What Kratix found about a Promise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PromiseStatus {
    /// See `01-api.md` §8.2.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Version label when last seen.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Generation for which the requests were last told to run again.
    #[serde(skip_serializing_if = "is_zero")]
    pub observed_generation: i64,
    /// Kind of the API.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Lower-cased group and storage version of the API.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// `Available` or `Unavailable`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// Written by the promise workflow.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Number of promise-configure pipelines.
    pub workflows: i64,
    /// How many of them completed in the current run.
    pub workflows_succeeded: i64,
    /// 0 or 1.
    pub workflows_failed: i64,
    /// State of each requirement.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub required_promises: Vec<RequiredPromiseStatus>,
    /// Promises that require this one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub required_by: Vec<RequiredBy>,
    /// When it last turned Available.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "crate::object::time_or_none")]
    pub last_available_time: Option<Time>,
    /// Controller-owned mirror.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kratix: Option<KratixStatus>,
}

/// The word in `status.status` of an available Promise.
pub const AVAILABLE: &str = "Available";
/// The word in `status.status` of a Promise that cannot be used.
pub const UNAVAILABLE: &str = "Unavailable";

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// State of one requirement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequiredPromiseStatus {
    /// Name of the required Promise.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Version asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// How it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<RequirementState>,
}

keyword! {
    /// How a requirement stands.
    RequirementState {
        /// Fulfilled.
        Installed = "Requirement installed",
        /// No such Promise.
        NotInstalled = "Requirement not installed",
        /// Another version is installed.
        NotInstalledAtVersion = "Requirement not installed at the specified version",
        /// Installed, but not available.
        NotAvailable = "Requirement not available",
        /// It cannot be told: it could not be read, or several revisions have the version that is asked for.
        #[default]
        Unknown = "Requirement state unknown",
    }
}

/// A Promise that requires this one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequiredBy {
    /// Who requires it.
    pub promise: PromiseSummary,
    /// Version asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub required_version: String,
}

/// Name and version of a Promise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PromiseSummary {
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its `status.version`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
}

/// The controller-owned part of a Promise's status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KratixStatus {
    /// Kind of the API.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Version label.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Lower-cased group and storage version of the API.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// `Available` or `Unavailable`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// When it last turned Available.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "crate::object::time_or_none")]
    pub last_available_time: Option<Time>,
    /// Where the pipelines stand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflows: Option<WorkflowsStatus>,
}

/// Where the pipelines of a Promise or of a request stand.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkflowsStatus {
    /// One entry per configure pipeline, in order.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub pipelines: Vec<PipelineStatus>,
    /// Generation at which the workflow was suspended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspended_generation: Option<i64>,
    /// Resource requests only, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_successful_configure_workflow_time: Option<String>,
}

/// Where one pipeline stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PipelineStatus {
    /// Name of the pipeline.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// How far it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Why it is suspended, in the words of the workflow.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When it is run again, RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub next_retry_at: String,
    /// How often it asked to be run again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<i64>,
    /// When the phase last changed.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "crate::object::time_or_none")]
    pub last_transition_time: Option<Time>,
}

keyword! {
    /// How far a pipeline is.
    Phase {
        /// Not started.
        #[default]
        Pending = "Pending",
        /// Its Job runs.
        Running = "Running",
        /// Its Job completed.
        Succeeded = "Succeeded",
        /// Its Job failed.
        Failed = "Failed",
        /// It asked to be suspended or to be run again later.
        Suspended = "Suspended",
    }
}

impl Promise {
    /// Returns the version label, or `not-set` when it is missing or empty.
    pub fn version(&self) -> &str {
        let labels = self.metadata.labels.as_ref();
        let version = labels.and_then(|labels| labels.get(keys::PROMISE_VERSION)).map_or("", String::as_str);
        if version.is_empty() { keys::VERSION_NOT_SET } else { version }
    }
}

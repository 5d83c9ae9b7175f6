//! The status of a resource request: the keys that Kratix owns, beside those a workflow writes.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Condition;
use crate::object::null_as_default;
use crate::promise::WorkflowsStatus;

/// The status of a resource request.
///
/// # Guarantees
/// Keys that Kratix does not own are kept in `rest` exactly as they were read, and written back.
/// # Source
/// `01-api.md` §6.5
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestStatus {
    /// Written by the workflow, `Pending` before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Generation the workflow last completed for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Number of configure pipelines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflows: Option<i64>,
    /// How many completed in the current run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflows_succeeded: Option<i64>,
    /// 0 or 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflows_failed: Option<i64>,
    /// See `01-api.md` §8.2.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub conditions: Vec<Condition>,
    /// Where the pipelines stand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kratix: Option<RequestKratixStatus>,
    /// Deprecated copy of the value under `kratix.workflows`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_successful_configure_workflow_time: Option<String>,
    /// Version of the Promise the request was configured with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promise_version: Option<String>,
    /// Version of its binding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_binding_version: Option<String>,
    /// What the HealthRecords say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_status: Option<Value>,
    /// What the workflow wrote.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// The controller-owned part of a request's status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestKratixStatus {
    /// Where the pipelines stand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflows: Option<WorkflowsStatus>,
}

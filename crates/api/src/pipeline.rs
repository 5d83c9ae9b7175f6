//! The Pipeline document inside a Promise.
//!
//! Elements of a Promise's workflows are stored as free objects and decoded here, one workflow at a time: a broken
//! delete pipeline does not stop configuring.
//!
//! # Source
//! `01-api.md` §3, §9.2.2

mod strict;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::{
    EnvFromSource, EnvVar, LocalObjectReference, ResourceRequirements, SecurityContext, Toleration, Volume, VolumeMount,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ObjectMeta, keys};

/// The kind every element must have.
pub const KIND: &str = "Pipeline";

/// Whose workflow it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WorkflowType {
    /// The Promise's own.
    Promise,
    /// That of each resource request.
    Resource,
}

impl WorkflowType {
    /// Both, in the order in which they are checked.
    pub const ALL: [Self; 2] = [Self::Promise, Self::Resource];

    /// Returns the word used in labels and names.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Promise => "promise",
            Self::Resource => "resource",
        }
    }
}

impl fmt::Display for WorkflowType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// When a workflow runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// When something is made or changed.
    Configure,
    /// When it is deleted.
    Delete,
}

impl Action {
    /// Both, in the order in which they are checked.
    pub const ALL: [Self; 2] = [Self::Configure, Self::Delete];

    /// Returns the word used in labels and names.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configure => "configure",
            Self::Delete => "delete",
        }
    }

    /// Returns the one of the two that it is not.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Configure => Self::Delete,
            Self::Delete => Self::Configure,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Containers that run one after the other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Pipeline {
    /// Always [`keys::API_VERSION`].
    pub api_version: String,
    /// Always [`KIND`].
    pub kind: String,
    /// Name, labels and annotations count.
    pub metadata: ObjectMeta,
    /// What runs, and how.
    pub spec: PipelineSpec,
}

impl Pipeline {
    /// Returns the name; a pipeline without one is refused by the API server when its Job is made.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }
}

/// What a pipeline runs, and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PipelineSpec {
    /// Run in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<Container>,
    /// Appended after the platform's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Settings of the Job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_options: Option<JobOptions>,
    /// Nodes it may run on.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints it tolerates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Appended after those of Kratix.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// `OnFailure` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<String>,
    /// What it may do in the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rbac: Option<Rbac>,
}

/// One container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Image.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Entry point.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Appended after the variables of Kratix.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Sources of variables.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env_from: Vec<EnvFromSource>,
    /// Appended after the mounts of Kratix.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volume_mounts: Vec<VolumeMount>,
    /// When to pull; the platform's default when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<String>,
    /// Replaces the platform's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_context: Option<SecurityContext>,
    /// Replaces the platform's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
}

/// Settings of a pipeline's Job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JobOptions {
    /// How often a failing pod is replaced; the platform's default when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff_limit: Option<i32>,
}

/// What a pipeline may do in the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Rbac {
    /// Use this ServiceAccount instead of one of its own.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_account: String,
    /// Permissions beyond those every pipeline has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<Permission>,
}

/// One permission.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Permission {
    /// Empty: the pipeline's namespace; `*`: everywhere.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_namespace: String,
    /// API groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    /// Resources.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Verbs.
    pub verbs: Vec<String>,
    /// Objects by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    /// Paths that are no resources.
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
}

/// Why an element is not a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another kind or version.
    #[error("unsupported pipeline {name:?} with APIVersion \"{kind}/{api_version}\"")]
    Unsupported {
        /// Name of the element.
        name: String,
        /// Its kind.
        kind: String,
        /// Its apiVersion.
        api_version: String,
    },
    /// A field that does not exist.
    #[error("failed unmarshalling pipeline {name}: json: unknown field {field:?}")]
    UnknownField {
        /// Name of the element.
        name: String,
        /// The last part of the field's path.
        field: String,
    },
    /// A field of the wrong type.
    #[error("failed unmarshalling pipeline {name}: {cause}")]
    Malformed {
        /// Name of the element.
        name: String,
        /// What the decoder says.
        cause: String,
    },
}

/// Why a workflow cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed parsing {workflow}.{action} pipeline: {source}")]
pub struct WorkflowError {
    /// Whose workflow.
    pub workflow: WorkflowType,
    /// Which action.
    pub action: Action,
    /// Position of the element.
    pub index: usize,
    /// What is wrong with it.
    pub source: Error,
}

/// Decodes the pipelines of one workflow of a Promise, in order.
///
/// # Errors
/// The first element that is not a pipeline. Names, images and uniqueness are checked by admission, not here.
pub fn decode_workflow(
    spec: &crate::PromiseSpec,
    workflow: WorkflowType,
    action: Action,
) -> Result<Vec<Pipeline>, WorkflowError> {
    let elements = spec.pipelines(workflow, action).iter().enumerate();
    let located =
        |(index, element)| decode(element).map_err(|source| WorkflowError { workflow, action, index, source });
    elements.map(located).collect()
}

/// Decodes one element strictly: a field that does not exist, at any depth, is an error. Names of fields match in any
/// letter case, as the reference reads them; `kind` and `apiVersion` tell what the element is and have one spelling.
pub fn decode(element: &Value) -> Result<Pipeline, Error> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = text(&element["metadata"]["name"]);
    let (kind, api_version) = (text(&element["kind"]), text(&element["apiVersion"]));
    if kind != KIND || api_version != keys::API_VERSION {
        return Err(Error::Unsupported { name, kind, api_version });
    }
    match strict::canonical(element) {
        // Its texts begin with the path of the field.
        Ok(canonical) => serde_path_to_error::deserialize(&canonical)
            .map_err(|error| Error::Malformed { name, cause: error.to_string() }),
        Err(strict::Fault::UnknownField(field)) => Err(Error::UnknownField { name, field }),
        Err(strict::Fault::Quantity { path, text }) => {
            let cause =
                format!("{path}: quantity {text:?} must match a number with an optional suffix such as m, k, Mi or e3");
            Err(Error::Malformed { name, cause })
        }
    }
}

//! DryRun: what a changed request would write.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Condition;
use crate::keyword::keyword;
use crate::object::resource;
use crate::promise_revision::PromiseRef;

resource! {
    /// A preview of a changed request.
    DryRun, "dryruns", NamespaceResourceScope,
    {
        /// The change.
        spec: DryRunSpec
    }
    {
        /// How the preview went.
        status: DryRunStatus
    }
}

/// A change to be previewed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DryRunSpec {
    /// The Promise.
    pub promise_ref: PromiseRef,
    /// The request.
    pub resource_request_ref: ResourceRequestRef,
    /// The proposed `spec` of the request.
    pub resource: Value,
}

/// A request, in the DryRun's own namespace unless told otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceRequestRef {
    /// Its name.
    pub name: String,
    /// Its namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

/// How a preview went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DryRunStatus {
    /// See `01-api.md` §8.2.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The previews of a compound request's components.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<Component>,
}

/// The preview of one component.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Component {
    /// Promise of the component.
    pub promise: String,
    /// Its request.
    pub request: String,
    /// Name of its DryRun.
    pub dry_run: String,
    /// How far it is.
    pub phase: ComponentPhase,
    /// Namespace of its request.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Why it failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

keyword! {
    /// How far the preview of a component is.
    ComponentPhase {
        /// Not finished.
        #[default]
        Pending = "Pending",
        /// Done.
        Succeeded = "Succeeded",
        /// Failed.
        Failed = "Failed",
    }
}

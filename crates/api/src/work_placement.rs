//! WorkPlacement: one group of a Work on one Destination.

use serde::{Deserialize, Serialize};

use crate::object::{null_as_default, resource};
use crate::{Condition, Workload};

resource! {
    /// Documents that belong on one Destination.
    WorkPlacement, "workplacements", NamespaceResourceScope,
    {
        /// The documents and the Destination.
        spec: WorkPlacementSpec
    }
    {
        /// Whether they were written.
        status: WorkPlacementStatus
    }
}

/// Documents and the Destination they belong on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkPlacementSpec {
    /// The Destination.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub target_destination_name: String,
    /// The files.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub workloads: Vec<Workload>,
    /// The Promise.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub promise_name: String,
    /// The request; empty for the Promise's own documents.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_name: String,
    /// Id of the group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Generation of the Work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
}

/// Whether the documents were written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkPlacementStatus {
    /// See `01-api.md` §8.2.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Commit of the last write; empty for buckets.
    #[serde(rename = "versionID", skip_serializing_if = "String::is_empty")]
    pub version_id: String,
}

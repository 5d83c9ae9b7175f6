//! Work: documents that wait for Destinations.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::keyword::keyword;
use crate::object::{null_as_default, resource};
use crate::{Condition, Time, hash};

resource! {
    /// What a pipeline or a Promise's dependencies want to have somewhere.
    Work, "works", NamespaceResourceScope,
    {
        /// The documents.
        spec: WorkSpec
    }
    {
        /// Where they went.
        status: WorkStatus
    }
}

/// Documents in groups that are scheduled separately.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkSpec {
    /// When the pipeline that wrote it ran.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "crate::object::time_or_none")]
    pub last_execution_timestamp: Option<Time>,
    /// The Promise.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub promise_name: String,
    /// The request; empty for the Promise's own documents.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_name: String,
    /// The groups.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub workload_groups: Vec<WorkloadGroup>,
}

/// Documents that go to the same Destinations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadGroup {
    /// Hash of the directory.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Directory of the pipeline output; `.` for everything not in another group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub directory: String,
    /// The files.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub workloads: Vec<Workload>,
    /// What the Destinations must be like.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub destination_selectors: Vec<WorkloadGroupSelector>,
}

/// The directory of the group that holds everything not in another group.
pub const DEFAULT_DIRECTORY: &str = ".";

impl WorkloadGroup {
    /// Returns an empty group for `directory`, with its id.
    pub fn for_directory(directory: &str) -> Self {
        Self { id: hash::text(directory), directory: directory.to_owned(), ..Self::default() }
    }
}

/// One file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Workload {
    /// Path relative to the group's place in the Destination.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub filepath: String,
    /// Compressed content, see [`crate::compression`].
    #[serde(skip_serializing_if = "String::is_empty")]
    pub content: String,
}

/// Labels a Destination must carry, and who asks for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadGroupSelector {
    /// Every pair must be among the Destination's labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub match_labels: BTreeMap<String, String>,
    /// Who asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SelectorSource>,
}

keyword! {
    /// Who asks for a label of a Destination.
    SelectorSource {
        /// `spec.destinationSelectors` of the Promise.
        #[default]
        Promise = "promise",
        /// The promise workflow.
        PromiseWorkflow = "promise-workflow",
        /// The resource workflow.
        ResourceWorkflow = "resource-workflow",
    }
}

/// Where the documents of a Work went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkStatus {
    /// See `01-api.md` §8.2.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Number of groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub work_placements: Option<i64>,
    /// Number of groups that have a Destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub work_placements_created: Option<i64>,
}

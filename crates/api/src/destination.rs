//! Destination: a place in a state store whose documents some cluster applies.

use serde::{Deserialize, Serialize};

use crate::Condition;
use crate::keyword::keyword;
use crate::object::resource;

resource! {
    /// A place that receives documents.
    Destination, "destinations", ClusterResourceScope,
    {
        /// Where it is and how files are laid out.
        spec: DestinationSpec
    }
    {
        /// Whether it can be written.
        status: DestinationStatus
    }
}

/// Where a Destination is and how files are laid out in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DestinationSpec {
    /// Path inside the state store; `.` and `/` mean its root.
    pub path: String,
    /// The state store. Absent only on objects that admission never saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_store_ref: Option<StateStoreRef>,
    /// Do not take documents that select nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub strict_match_labels: bool,
    /// Layout of files.
    #[serde(deserialize_with = "crate::object::null_as_default")]
    pub filepath: Filepath,
    /// What happens to the files when the Destination is deleted.
    #[serde(deserialize_with = "crate::object::null_as_default")]
    pub cleanup: Cleanup,
    /// Whether test documents are written.
    #[serde(deserialize_with = "crate::object::null_as_default")]
    pub init_workloads: InitWorkloads,
}

/// A state store by kind and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct StateStoreRef {
    /// Which kind.
    pub kind: StateStoreKind,
    /// Its name.
    pub name: String,
}

keyword! {
    /// The kinds of state store.
    StateStoreKind {
        /// Objects in a bucket.
        BucketStateStore = "BucketStateStore",
        /// Files in a Git repository.
        #[default]
        GitStateStore = "GitStateStore",
    }
}

/// Layout of the files of a Destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filepath {
    /// Which layout.
    pub mode: FilepathMode,
    /// Name of the single file in mode `aggregatedYAML`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub filename: String,
}

keyword! {
    /// The layouts.
    FilepathMode {
        /// A directory per placement.
        #[default]
        NestedByMetadata = "nestedByMetadata",
        /// One file for all placements.
        AggregatedYaml = "aggregatedYAML",
        /// Paths as the pipeline wrote them.
        None = "none",
    }
}

/// The file name used in mode `aggregatedYAML` when none is given.
pub const AGGREGATED_FILENAME: &str = "aggregated.yaml";

keyword! {
    /// What happens to files when a Destination is deleted.
    Cleanup {
        /// They stay.
        #[default]
        None = "none",
        /// They are removed.
        All = "all",
    }
}

/// Whether test documents are written to a Destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InitWorkloads {
    /// True unless switched off.
    pub enabled: bool,
}

impl Default for InitWorkloads {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// Whether a Destination can be written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DestinationStatus {
    /// See `01-api.md` §8.2.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

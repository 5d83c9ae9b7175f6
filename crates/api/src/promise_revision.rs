//! PromiseRevision: one version of a Promise, kept so that requests can stay on it.

use serde::{Deserialize, Serialize};

use crate::object::resource;
use crate::{Condition, PromiseSpec};

resource! {
    /// A snapshot of a Promise's spec at one version.
    PromiseRevision, "promiserevisions", ClusterResourceScope,
    {
        /// The snapshot.
        spec: PromiseRevisionSpec
    }
    {
        /// Whether it is the latest.
        status: PromiseRevisionStatus
    }
}

impl PromiseRevision {
    /// Returns whether the status marks this revision as the latest of its Promise.
    pub fn is_latest(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.latest)
    }
}

/// A snapshot of a Promise's spec.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PromiseRevisionSpec {
    /// The Promise.
    pub promise_ref: PromiseRef,
    /// Its spec.
    pub promise_spec: PromiseSpec,
    /// Its version, or `not-set`.
    pub version: String,
}

/// A Promise by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct PromiseRef {
    /// Its name.
    pub name: String,
}

/// Whether a revision is the latest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PromiseRevisionStatus {
    /// True for at most one revision of a Promise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub latest: bool,
    /// Never written by Kratix.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

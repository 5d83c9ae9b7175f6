//! ResourceBinding: which version of a Promise a request follows.

use serde::{Deserialize, Serialize};

use crate::Condition;
use crate::condition;
use crate::object::resource;
use crate::promise_revision::PromiseRef;

resource! {
    /// The version a request follows.
    ResourceBinding, "resourcebindings", NamespaceResourceScope,
    {
        /// The request and the version.
        spec: ResourceBindingSpec
    }
    {
        /// The version it has.
        status: ResourceBindingStatus
    }
}

/// The request and the version it follows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceBindingSpec {
    /// A version, or `latest`.
    pub version: String,
    /// The Promise.
    pub promise_ref: PromiseRef,
    /// The request.
    pub resource_ref: ResourceRef,
}

/// A resource request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceRef {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Never written by Kratix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
}

/// The version a request has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceBindingStatus {
    /// Version the request was last configured with.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_applied_version: String,
    /// Version whose roll-out failed last.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub failed_version: String,
    /// See `01-api.md` §8.2.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

impl ResourceBinding {
    /// Returns whether this version is being rolled out, as told by the `UpgradeSucceeded` condition.
    ///
    /// The texts are contract: another implementation reads the version from them.
    /// # Source
    /// `01-api.md` §2.9
    pub fn is_in_flight(&self, version: &str) -> bool {
        let conditions = self.status.as_ref().map_or(&[][..], |status| &status.conditions);
        let Some(upgrade) = condition::find(conditions, condition::UPGRADE_SUCCEEDED) else { return false };
        upgrade.status == condition::Status::Unknown
            && upgrade.reason == condition::UPGRADE_IN_PROGRESS
            && [upgrading(version), requested(version)].contains(&upgrade.message)
    }
}

/// Returns the message of `UpgradeSucceeded` while a version is rolled out.
pub fn upgrading(version: &str) -> String {
    format!("Upgrade to version {version} is in progress")
}

/// Returns the message of `UpgradeSucceeded` after a run was asked for on the binding.
pub fn requested(version: &str) -> String {
    format!("Reconciliation requested for version {version}")
}

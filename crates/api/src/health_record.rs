//! HealthRecord: what a health check says about a request.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::keyword::keyword;
use crate::object::resource;
use crate::promise_revision::PromiseRef;
use crate::resource_binding::ResourceRef;

resource! {
    /// What a health check says.
    HealthRecord, "healthrecords", NamespaceResourceScope,
    {}
    {
        /// The record.
        data: HealthRecordData
    }
}

/// The record of a health check.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HealthRecordData {
    /// The Promise.
    pub promise_ref: PromiseRef,
    /// The request; a record without it belongs to none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_ref: Option<ResourceRef>,
    /// The verdict.
    pub state: HealthState,
    /// When the check ran, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_run: Option<i64>,
    /// Whatever the check adds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
}

keyword! {
    /// The verdict of a health check.
    HealthState {
        /// Not known.
        #[default]
        Unknown = "unknown",
        /// Ready to be used.
        Ready = "ready",
        /// Out of order.
        Unhealthy = "unhealthy",
        /// In order.
        Healthy = "healthy",
        /// Usable with limits.
        Degraded = "degraded",
    }
}

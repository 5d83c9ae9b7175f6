//! What the server says it serves: `/api`, `/apis` and below, plain and aggregated.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::resource::Resource;

/// Returns `/api` (`APIVersions`); `address` is host and port as clients reach it.
pub fn api_versions(address: &str) -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]})
}

/// Returns `/apis` (`APIGroupList`).
pub fn groups(resources: &[Arc<Resource>]) -> Value {
    let _ = resources;
    Value::Null
}

/// Returns `/apis/GROUP` (`APIGroup`), or `None`.
pub fn group(group: &str, resources: &[Arc<Resource>]) -> Option<Value> {
    let _ = (group, resources);
    None
}

/// Returns `/api/v1` or `/apis/GROUP/VERSION` (`APIResourceList`), or `None`.
pub fn resource_list(group: &str, version: &str, resources: &[Arc<Resource>]) -> Option<Value> {
    let _ = (group, version, resources);
    None
}

/// Which of the two roots is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// `/api`: the core group.
    Core,
    /// `/apis`: named groups.
    Named,
}

/// Content type of [`aggregated`], for both `v2` and `v2beta1`.
pub fn aggregated_content_type(version: &str) -> String {
    format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList")
}

/// Returns the aggregated document of `/api` or `/apis`; `version` is `v2` or `v2beta1`.
pub fn aggregated(root: Root, version: &str, resources: &[Arc<Resource>]) -> Value {
    let _ = (root, version, resources);
    Value::Null
}

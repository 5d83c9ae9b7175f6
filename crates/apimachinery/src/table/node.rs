//! Rows of nodes.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::{age, labels};
use crate::meta;
use crate::object::{items, text};

/// Returns the cells of a node.
pub(super) fn node(node: &Value, now: Timestamp) -> Vec<Value> {
    let info = &node["status"]["nodeInfo"];
    let known = |name: &str| match text(info, name) {
        "" => Value::from(age::UNKNOWN),
        found => found.into(),
    };
    vec![
        meta::name(node).into(),
        state(node).into(),
        labels::or_none(&roles(&node["metadata"]["labels"])).into(),
        age::of(node, now).into(),
        text(info, "kubeletVersion").into(),
        address(node, "InternalIP").into(),
        address(node, "ExternalIP").into(),
        known("osImage"),
        known("kernelVersion"),
        known("containerRuntimeVersion"),
    ]
}

fn state(node: &Value) -> String {
    let ready = items(&node["status"], "conditions").iter().rfind(|one| one["type"] == "Ready");
    let state = match ready {
        None => "Unknown",
        Some(one) if one["status"] == "True" => "Ready",
        Some(_) => "NotReady",
    };
    let suffix = if node["spec"]["unschedulable"] == true { ",SchedulingDisabled" } else { "" };
    format!("{state}{suffix}")
}

/// Roles are labels: `node-role.kubernetes.io/ROLE`, or the older `kubernetes.io/role=ROLE`.
fn roles(labels: &Value) -> String {
    let role = |(key, value): (&'_ String, &'_ Value)| match key.strip_prefix("node-role.kubernetes.io/") {
        Some(role) => Some(role.to_owned()),
        None if key == "kubernetes.io/role" => value.as_str().map(str::to_owned),
        None => None,
    };
    let found: BTreeSet<String> =
        labels.as_object().into_iter().flatten().filter_map(role).filter(|role| !role.is_empty()).collect();
    found.into_iter().collect::<Vec<_>>().join(",")
}

fn address<'a>(node: &'a Value, kind: &str) -> &'a str {
    let found = items(&node["status"], "addresses").iter().find(|one| one["type"] == kind);
    found.map_or(labels::NONE, |one| text(one, "address"))
}

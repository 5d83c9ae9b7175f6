//! What the server says it serves: `/api`, `/apis` and below, plain and aggregated.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::resource::{Resource, Subresource};

/// Returns `/api` (`APIVersions`); `address` is host and port as clients reach it.
pub fn api_versions(address: &str) -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]})
}

/// Returns the named groups in the order of the resources, each with its versions, most preferred first.
fn by_group(resources: &[Arc<Resource>]) -> Vec<(&str, Vec<&str>)> {
    let mut out: Vec<(&str, Vec<&str>)> = Vec::new();
    for resource in resources {
        let at = out.iter().position(|(group, _)| *group == resource.group).unwrap_or_else(|| {
            out.push((&resource.group, Vec::new()));
            out.len() - 1
        });
        if !out[at].1.contains(&resource.version.as_str()) {
            out[at].1.push(&resource.version);
        }
    }
    for (_, versions) in &mut out {
        versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
    }
    out
}

/// Orders versions as discovery does: stable, then beta, then alpha; higher numbers first; other names last.
pub(crate) fn priority(version: &str) -> (u8, u64, u64, std::cmp::Reverse<String>) {
    let other = (0, 0, 0, std::cmp::Reverse(version.to_owned()));
    let Some(rest) = version.strip_prefix('v') else { return other };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let Ok(major) = rest[..digits].parse() else { return other };
    let (stage, minor) = match &rest[digits..] {
        "" => (3, ""),
        rest => match (rest.strip_prefix("beta"), rest.strip_prefix("alpha")) {
            (Some(minor), _) => (2, minor),
            (_, Some(minor)) => (1, minor),
            _ => return other,
        },
    };
    match (stage, minor.parse()) {
        (3, _) => (3, major, 0, std::cmp::Reverse(String::new())),
        (stage, Ok(minor)) => (stage, major, minor, std::cmp::Reverse(String::new())),
        _ => other,
    }
}

fn group_value(group: &str, versions: &[&str]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    json!({"name": group, "preferredVersion": versions[0], "versions": versions})
}

/// Returns `/apis` (`APIGroupList`).
pub fn groups(resources: &[Arc<Resource>]) -> Value {
    let groups: Vec<Value> = by_group(resources)
        .iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, versions)| group_value(group, versions))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// Returns `/apis/GROUP` (`APIGroup`), or `None`.
pub fn group(group: &str, resources: &[Arc<Resource>]) -> Option<Value> {
    let all = by_group(resources);
    let (_, versions) = all.iter().find(|(name, _)| *name == group && !name.is_empty())?;
    let mut out = group_value(group, versions);
    out["kind"] = json!("APIGroup");
    out["apiVersion"] = json!("v1");
    Some(out)
}

/// Returns `/api/v1` or `/apis/GROUP/VERSION` (`APIResourceList`), or `None`.
pub fn resource_list(group: &str, version: &str, resources: &[Arc<Resource>]) -> Option<Value> {
    let mut list = Vec::new();
    let mut group_version = None;
    for resource in resources.iter().filter(|one| one.group == group && one.version == version) {
        group_version = Some(resource.api_version());
        list.push(main_entry(resource));
        list.extend(resource.subresources.iter().map(|sub| sub_entry(resource, sub)));
    }
    let group_version = group_version?;
    list.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list}))
}

fn main_entry(resource: &Resource) -> Value {
    let mut out = json!({"name": resource.plural, "singularName": resource.singular,
        "namespaced": resource.namespaced, "kind": resource.kind, "verbs": resource.verbs});
    add_names(&mut out, resource);
    if resource.is_stored() {
        out["storageVersionHash"] = json!(storage_version_hash(resource));
    }
    out
}

fn add_names(entry: &mut Value, resource: &Resource) {
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
}

fn sub_entry(resource: &Resource, sub: &Subresource) -> Value {
    let mut out = json!({"name": format!("{}/{}", resource.plural, sub.name), "singularName": "",
        "namespaced": resource.namespaced, "kind": sub.kind, "verbs": sub.verbs});
    if sub.group != resource.group || sub.version != resource.version {
        out["group"] = json!(sub.group);
        out["version"] = json!(sub.version);
    }
    out
}

/// Identifies the version objects are stored in: the first bytes of a hash of group, version and kind.
fn storage_version_hash(resource: &Resource) -> String {
    let version = resource.custom().map_or(resource.version.as_str(), |version| version.storage_version());
    // Events live in the core group, whatever group they are read in.
    let group = resource.storage_key().0;
    let hash = Sha256::digest(format!("{group}/{version}/{}", resource.kind));
    STANDARD.encode(&hash[..8])
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
    let items: Vec<Value> = by_group(resources)
        .iter()
        .filter(|(group, _)| group.is_empty() == (root == Root::Core))
        .map(|(group, versions)| {
            let versions: Vec<Value> =
                versions.iter().map(|version| aggregated_version(group, version, resources)).collect();
            let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {},
        "items": items})
}

fn aggregated_version(group: &str, version: &str, resources: &[Arc<Resource>]) -> Value {
    let mut list: Vec<&Arc<Resource>> =
        resources.iter().filter(|one| one.group == group && one.version == version).collect();
    list.sort_by(|a, b| a.plural.cmp(&b.plural));
    let list: Vec<Value> = list
        .into_iter()
        .map(|resource| {
            let kind = |group: &str, version: &str, kind: &str| {
                let mut out = Map::new();
                out.insert("group".to_owned(), group.into());
                out.insert("version".to_owned(), version.into());
                out.insert("kind".to_owned(), kind.into());
                Value::Object(out)
            };
            let mut entry = json!({"resource": resource.plural,
                "responseKind": kind(&resource.group, &resource.version, &resource.kind),
                "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
                "singularResource": resource.singular, "verbs": resource.verbs});
            add_names(&mut entry, resource);
            let subs: Vec<Value> = resource
                .subresources
                .iter()
                .map(|sub| {
                    json!({"subresource": sub.name, "verbs": sub.verbs,
                        "responseKind": kind(&sub.group, &sub.version, &sub.kind)})
                })
                .collect();
            if !subs.is_empty() {
                entry["subresources"] = Value::Array(subs);
            }
            entry
        })
        .collect();
    json!({"version": version, "freshness": "Current", "resources": list})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin;

    #[test]
    fn a_group_lists_what_the_real_server_lists() {
        let list = resource_list("batch", "v1", builtin::resources()).expect("batch is served");
        let all = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
        assert_eq!(
            list,
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "batch/v1", "resources": [
                {"name": "cronjobs", "singularName": "cronjob", "namespaced": true, "kind": "CronJob", "verbs": all,
                 "shortNames": ["cj"], "categories": ["all"], "storageVersionHash": "sd5LIXh4Fjs="},
                {"name": "cronjobs/status", "singularName": "", "namespaced": true, "kind": "CronJob",
                 "verbs": ["get", "patch", "update"]},
                {"name": "jobs", "singularName": "job", "namespaced": true, "kind": "Job", "verbs": all,
                 "categories": ["all"], "storageVersionHash": "mudhfqk/qZY="},
                {"name": "jobs/status", "singularName": "", "namespaced": true, "kind": "Job",
                 "verbs": ["get", "patch", "update"]}]})
        );
        let core = resource_list("", "v1", builtin::resources()).expect("core is served");
        let pods = core["resources"].as_array().expect("a list").iter().find(|one| one["name"] == "pods");
        assert_eq!(pods.expect("pods are served")["storageVersionHash"], "xPOwRZ+Yhw8=");
    }

    #[test]
    fn versions_are_ordered_by_maturity() {
        let mut versions = vec!["v1alpha1", "foo", "v2", "v1beta2", "v10", "v1", "v1beta10"];
        versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta10", "v1beta2", "v1alpha1", "foo"]);
    }

    #[test]
    fn aggregated_documents_hold_every_group_once() {
        let named = aggregated(Root::Named, "v2", builtin::resources());
        let names: Vec<&str> = named["items"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|one| one["metadata"]["name"].as_str())
            .collect();
        assert!(names.contains(&"batch") && names.contains(&"rbac.authorization.k8s.io"));
        let core = aggregated(Root::Core, "v2", builtin::resources());
        assert_eq!(core["items"].as_array().map(Vec::len), Some(1));
    }
}

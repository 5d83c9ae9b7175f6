//! The API of a Promise on the platform: its CRD, and the manager's access to requests.
//!
//! # Source
//! `03-promises.md` §8, §9, §25 (10, 17, 21); `01-api.md` §5.7, §6.4, §9.1

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, RoleRef, Subject};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kratix_api::promise_api::{self, Api, Ownership};
use kratix_api::{ObjectMeta, keys};
use kube_core::{Resource, ResourceExt};
use serde_json::json;

use super::{Fault, Finding, Requests, SAFETY_NET, Snapshot, Walk};
use crate::object::{Kind, Target};
use crate::patch::{between, to_value};
use crate::plan::Write;

/// Where the API of a Promise stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The Promise brings none.
    Absent,
    /// It cannot be installed, see the faults.
    Refused,
    /// It is not served yet.
    Pending,
    /// A change of it is being written in this pass.
    Changing,
    /// It is served as the Promise says.
    Established,
}

/// Installs the CRD, keeps it up to date, and gives the manager access to the requests.
pub(super) fn keep(walk: &mut Walk<'_>) -> State {
    let snapshot = walk.snapshot;
    let api = match promise_api::read(&snapshot.promise.spec) {
        Ok(api) => api,
        Err(promise_api::Error::Absent) => {
            walk.status.set_api("", "");
            return State::Absent;
        }
        Err(error) => {
            walk.fault(Fault::api(error.to_string()));
            return State::Refused;
        }
    };
    let prepared = api.prepared(snapshot.name());
    let state = match &snapshot.crd {
        None => {
            let mut object = to_value(&prepared);
            object["apiVersion"] = json!(promise_api::CRD_API_VERSION);
            object["kind"] = json!(promise_api::CRD_KIND);
            walk.writes.push(Write::create(Kind::of::<CustomResourceDefinition>(), object));
            State::Pending
        }
        Some(existing) => keep_crd(walk, existing, &prepared),
    };
    if state == State::Refused {
        return state;
    }
    walk.status.set_api(api.kind(), &api.status_api_version());
    if state == State::Pending {
        walk.findings.push(Finding::ApiPending { crd: api.crd_name().to_owned() });
        walk.look_again(SAFETY_NET);
    }
    keep_access(walk, &api);
    state
}

fn keep_crd(walk: &mut Walk<'_>, existing: &CustomResourceDefinition, prepared: &CustomResourceDefinition) -> State {
    let snapshot = walk.snapshot;
    let name = existing.name_any();
    if let Ownership::Foreign { promise } = promise_api::ownership(existing, &snapshot.promise.metadata) {
        walk.fault(Fault::foreign_crd(&name, promise.as_deref()));
        return State::Refused;
    }
    // One that is on its way out is made again once it is gone; its requests go with it, whatever we do.
    if existing.metadata.deletion_timestamp.is_some() {
        return State::Pending;
    }
    let state = match condition(existing, "Established") {
        Some(established) if established.0 == "True" => State::Established,
        _ => match condition(existing, "NamesAccepted") {
            Some(("False", message)) => {
                walk.fault(Fault::names_taken(&name, message));
                State::Refused
            }
            _ => State::Pending,
        },
    };
    let Some(merged) = promise_api::merge(existing, prepared) else { return state };
    if let Some(patch) = between(&to_value(existing), &to_value(&merged)) {
        walk.writes.push(Write::Patch { target: Target::of(existing), patch });
    }
    if state == State::Established { State::Changing } else { state }
}

/// Returns status and message of a condition of a CRD.
fn condition<'a>(crd: &'a CustomResourceDefinition, r#type: &str) -> Option<(&'a str, &'a str)> {
    let conditions = crd.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| condition.type_ == r#type)?;
    Some((&found.status, found.message.as_deref().unwrap_or_default()))
}

/// Returns whether the CRD in the snapshot is this Promise's and served.
fn is_established(snapshot: &Snapshot, crd: &CustomResourceDefinition) -> bool {
    let is_ours = promise_api::ownership(crd, &snapshot.promise.metadata) == Ownership::Ours;
    is_ours && condition(crd, "Established").is_some_and(|(status, _)| status == "True")
}

/// Returns how requests are addressed, if the CRD in the snapshot is this Promise's and served.
///
/// Read from the CRD, not from the Promise: it says what is served now, and what there is to clean up after the Promise's
/// own API became unreadable.
pub(super) fn established_kind(snapshot: &Snapshot) -> Option<Kind> {
    let crd = snapshot.crd.as_deref().filter(|crd| is_established(snapshot, crd))?;
    crate::request::kind_of(crd)
}

/// Returns the name of the CRD in the snapshot if it is this Promise's and no version of it is served: its requests are there, and
/// nobody can read them.
pub(super) fn unserved(snapshot: &Snapshot) -> Option<String> {
    let crd = snapshot.crd.as_deref().filter(|crd| is_established(snapshot, crd))?;
    crate::request::kind_of(crd).is_none().then(|| crd.name_any())
}

/// Returns whether the requests' controller is to run: always while there is an API, so that requests learn what they
/// wait for and can be deleted.
pub(super) fn requests(snapshot: &Snapshot) -> Requests {
    match established_kind(snapshot) {
        Some(api) => Requests::Running { api },
        None => Requests::Unchanged,
    }
}

/// Returns the name of the role that gives the manager access to the requests of a Promise, and of its binding.
pub fn access_name(promise: &str) -> String {
    format!("{promise}-promise-controller")
}

fn rules(api: &Api) -> Vec<PolicyRule> {
    let rule = |resource: String, verbs: &[&str]| PolicyRule {
        api_groups: Some(vec![api.group().to_owned()]),
        resources: Some(vec![resource]),
        verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        ..PolicyRule::default()
    };
    let plural = api.plural();
    vec![
        rule(plural.to_owned(), &["*"]),
        rule(format!("{plural}/finalizers"), &["update"]),
        rule(format!("{plural}/status"), &["get", "update", "patch"]),
    ]
}

/// Keeps the role that lets the manager work on requests, and its binding.
fn keep_access(walk: &mut Walk<'_>, api: &Api) {
    let snapshot = walk.snapshot;
    let name = access_name(snapshot.name());
    let rules = rules(api);
    let labels = json!({ keys::PROMISE_NAME: snapshot.name() });
    let metadata = json!({ "name": name, "labels": labels });
    match snapshot.cluster_role.as_deref() {
        None => {
            let object = json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "metadata": metadata, "rules": to_value(&rules),
            });
            walk.writes.push(Write::create(Kind::of::<ClusterRole>(), object));
        }
        Some(existing) => {
            let has_rules = existing.rules.as_deref() == Some(rules.as_slice());
            let patch =
                access_patch(&labels, has_label(existing, snapshot), (!has_rules).then(|| json!({ "rules": rules })));
            walk.writes.extend(patch.map(|patch| Write::Patch { target: Target::of(existing), patch }));
        }
    }
    let role_ref =
        RoleRef { api_group: "rbac.authorization.k8s.io".into(), kind: "ClusterRole".into(), name: name.clone() };
    let subjects = vec![Subject {
        kind: "ServiceAccount".into(),
        name: keys::MANAGER_SERVICE_ACCOUNT.into(),
        namespace: Some(keys::SYSTEM_NAMESPACE.into()),
        ..Subject::default()
    }];
    match snapshot.cluster_role_binding.as_deref() {
        None => {
            let object = json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
                "metadata": metadata, "roleRef": to_value(&role_ref), "subjects": to_value(&subjects),
            });
            walk.writes.push(Write::create(Kind::of::<ClusterRoleBinding>(), object));
        }
        // A binding cannot be pointed at another role; it is made again.
        Some(existing) if existing.role_ref != role_ref => {
            walk.writes.push(Write::Delete { target: Target::of(existing) });
        }
        Some(existing) => {
            let has_subjects = existing.subjects.as_deref().is_some_and(|existing| same_subjects(existing, &subjects));
            let change = (!has_subjects).then(|| json!({ "subjects": subjects }));
            let patch = access_patch(&labels, has_label(existing, snapshot), change);
            walk.writes.extend(patch.map(|patch| Write::Patch { target: Target::of(existing), patch }));
        }
    }
}

fn access_patch(
    labels: &serde_json::Value,
    has_label: bool,
    change: Option<serde_json::Value>,
) -> Option<serde_json::Value> {
    let mut patch = change.unwrap_or_else(|| json!({}));
    if !has_label {
        patch["metadata"] = json!({ "labels": labels });
    }
    patch.as_object().is_some_and(|members| !members.is_empty()).then_some(patch)
}

fn has_label<K: Resource>(existing: &K, snapshot: &Snapshot) -> bool {
    let metadata: &ObjectMeta = existing.meta();
    let label = metadata.labels.as_ref().and_then(|labels| labels.get(keys::PROMISE_NAME));
    label.is_some_and(|label| label == snapshot.name())
}

/// Compares what names a subject; an absent API group is the core group.
fn same_subjects(existing: &[Subject], wanted: &[Subject]) -> bool {
    let identity = |subject: &Subject| (subject.kind.clone(), subject.name.clone(), subject.namespace.clone());
    existing.iter().map(identity).eq(wanted.iter().map(identity))
}

/// Returns the CRD if deleting it is this Promise's business.
pub(super) fn own_crd(snapshot: &Snapshot) -> Option<&CustomResourceDefinition> {
    let ours = |crd: &&CustomResourceDefinition| {
        let label = crd.metadata.labels.as_ref().and_then(|labels| labels.get(keys::PROMISE_NAME));
        label.is_some_and(|label| label == snapshot.name())
    };
    snapshot.crd.as_deref().filter(ours)
}

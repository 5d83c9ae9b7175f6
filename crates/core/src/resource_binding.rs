//! ResourceBindings: a manual run asked for on the binding, and a version chosen for a request that is suspended.
//!
//! A changed version needs no help: the request watches its binding and the revisions, and another spec is another hash.
//! The binding's own upkeep and the outcome of a roll-out are the request's ([`crate::request`]).
//!
//! Order of writes: the label on the request; then the binding's status; then the binding's label goes. A crash between two
//! of them repeats the label, at worst one more run of an idempotent workflow; it never loses the wish.
//!
//! # Source
//! `03-promises.md` §20, §20.6; decisions 10, 15

use std::sync::Arc;

use kratix_api::condition::{self, Condition, Status};
use kratix_api::resource_binding::{requested, upgrading};
use kratix_api::{Promise, PromiseRevision, ResourceBinding, Timestamp, keys};
use kube_core::{DynamicObject, Resource, ResourceExt};
use serde_json::json;

use crate::object::{Kind, ObjectKey, Target};
use crate::plan::{Plan, Write};
use crate::promise_revision::{self, Purpose};
use crate::work::is_subdomain;

/// Everything the decision about one binding may look at.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The only clock.
    pub now: Timestamp,
    /// The binding.
    pub binding: Arc<ResourceBinding>,
    /// Its request ([`request_of`]) with its resource; `None` when there is none, or its API is not served.
    pub request: Option<(Kind, Arc<DynamicObject>)>,
    /// The Promise; `None` when it is gone.
    pub promise: Option<Arc<Promise>>,
    /// The revisions of the Promise, sorted by name.
    pub revisions: Vec<Arc<PromiseRevision>>,
}

/// What was found out about a binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// There is nothing it could steer.
    NoRequest,
    /// The request has never completed, or its Promise has no versions.
    Unversioned,
    /// It follows the latest revision and there is none.
    NoLatest,
    /// The request is to run.
    Requested {
        /// With this version.
        version: String,
    },
}

/// Returns the request that a binding binds: one of its own namespace. What a binding says of any other request binds nothing,
/// since whoever may make bindings in one namespace has no say in another; nor does a name that no request can have.
pub fn request_of(binding: &ResourceBinding) -> Option<ObjectKey> {
    let reference = &binding.spec.resource_ref;
    let is_own = binding.metadata.namespace.as_ref() == Some(&reference.namespace);
    (is_own && is_subdomain(&reference.name)).then(|| ObjectKey::namespaced(&reference.namespace, &reference.name))
}

/// Returns whether a change of a request concerns its binding: it has appeared, or what the binding looks at differs. What
/// is gone is not steered.
pub fn request_concerns(old: Option<&DynamicObject>, new: Option<&DynamicObject>) -> bool {
    let Some(new) = new else { return false };
    let view = |request: &DynamicObject| {
        let labels = [keys::WORKFLOW_SUSPENDED, keys::MANUAL_RECONCILIATION].map(|label| has(request, label));
        (labels, applied(request).to_owned())
    };
    old.is_none_or(|old| view(old) != view(new))
}

/// Decides about one binding.
pub fn decide(snapshot: &Snapshot) -> Plan<Finding> {
    let binding = snapshot.binding.as_ref();
    let silent = |finding| Plan { findings: vec![finding], ..Plan::silent() };
    let bound = request_of(binding);
    let own = |(_, request): &&(Kind, Arc<DynamicObject>)| bound == Some(ObjectKey::of(request.as_ref()));
    let Some((kind, request)) = snapshot.request.as_ref().filter(own) else { return silent(Finding::NoRequest) };
    let applied = applied(request);
    let manual = has(binding, keys::MANUAL_RECONCILIATION);
    let run = || {
        let target = Target::with_kind(kind.clone(), request.as_ref()).unpinned();
        let patch = json!({ "metadata": { "labels": { keys::MANUAL_RECONCILIATION: keys::TRUE } } });
        Some(Write::Patch { target, patch }).filter(|_| !has(request.as_ref(), keys::MANUAL_RECONCILIATION))
    };
    let consume = || {
        let labels = json!({ "labels": { keys::MANUAL_RECONCILIATION: null } });
        Write::metadata(Target::of(binding), &labels)
    };
    if applied.is_empty() || applied == keys::VERSION_NOT_SET {
        // There is no roll-out to tell of, but a run that is asked for is one.
        let writes = if manual { run().into_iter().chain(consume()).collect() } else { Vec::new() };
        return Plan { writes, ..silent(Finding::Unversioned) };
    }
    let Some(desired) = desired(snapshot) else { return silent(Finding::NoLatest) };
    let held = has(request.as_ref(), keys::WORKFLOW_SUSPENDED) && is_behind(binding, applied, &desired);
    if !manual && !held {
        return Plan::silent();
    }

    let mut plan = silent(Finding::Requested { version: desired.clone() });
    plan.writes.extend(run());
    let status = status(snapshot, &desired, manual);
    if manual {
        plan.writes.extend(status);
        plan.writes.extend(consume());
    } else {
        plan.status = status;
    }
    plan
}

/// Returns the version that the request's last complete run had.
fn applied(request: &DynamicObject) -> &str {
    request.data.pointer("/status/promiseVersion").and_then(|version| version.as_str()).unwrap_or_default()
}

fn has<K: Resource>(object: &K, label: &str) -> bool {
    keys::is_set(object.labels(), label)
}

/// Returns the version the request should have.
fn desired(snapshot: &Snapshot) -> Option<String> {
    let version = &snapshot.binding.spec.version;
    if !version.is_empty() && version != keys::VERSION_LATEST {
        return Some(version.clone());
    }
    let latest = promise_revision::latest(&snapshot.revisions, snapshot.promise.as_deref(), Purpose::Configure);
    latest.map(|revision| revision.spec.version.clone())
}

/// Returns whether the request should move to another version that has not just failed.
fn is_behind(binding: &ResourceBinding, applied: &str, desired: &str) -> bool {
    let status = binding.status.clone().unwrap_or_default();
    let upgrade = condition::find(&status.conditions, condition::UPGRADE_SUCCEEDED);
    let failed = upgrade.is_some_and(|upgrade| upgrade.status == Status::False) && status.failed_version == desired;
    applied != desired && !failed && !binding.is_in_flight(desired)
}

fn status(snapshot: &Snapshot, desired: &str, manual: bool) -> Option<Write> {
    let old = snapshot.binding.status.clone().unwrap_or_default();
    let mut new = old.clone();
    let message = match manual {
        true => requested(desired),
        false => upgrading(desired),
    };
    let reason = condition::UPGRADE_IN_PROGRESS;
    let upgrade = Condition::new(condition::UPGRADE_SUCCEEDED, Status::Unknown, reason, message);
    condition::set(&mut new.conditions, upgrade, snapshot.now);
    new.failed_version.clear();
    let values = (crate::patch::to_value(&old), crate::patch::to_value(&new));
    Write::status(Target::of(snapshot.binding.as_ref()), &values.0, &values.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(version: &str, applied: &str, request_labels: &[&str], binding_labels: &[&str]) -> Snapshot {
        let mut binding = ResourceBinding::new("b", Default::default());
        binding.metadata.namespace = Some("a".into());
        binding.spec.version = version.into();
        (binding.spec.resource_ref.name, binding.spec.resource_ref.namespace) = ("r".into(), "a".into());
        let labels = |keys: &[&str]| keys.iter().map(|key| ((*key).to_owned(), "true".to_owned())).collect();
        binding.metadata.labels = Some(labels(binding_labels));
        let mut request: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "x.io/v1", "kind": "X", "metadata": {"name": "r", "namespace": "a"},
            "status": {"promiseVersion": applied},
        }))
        .unwrap();
        request.metadata.labels = Some(labels(request_labels));
        let mut revision = PromiseRevision::new("p-1", Default::default());
        revision.spec.version = "v2".into();
        revision.status = Some(serde_json::from_value(json!({"latest": true})).unwrap());
        Snapshot {
            now: Timestamp::UNIX_EPOCH,
            binding: Arc::new(binding),
            request: Some((Kind::new("x.io", "v1", "X", "xs"), Arc::new(request))),
            promise: None,
            revisions: vec![Arc::new(revision)],
        }
    }

    #[test]
    fn a_changed_version_starts_no_second_run_of_its_own() {
        assert!(decide(&snapshot("latest", "v1", &[], &[])).is_silent());
        assert!(decide(&snapshot("v9", "v1", &[], &[])).is_silent());
    }

    #[test]
    fn a_manual_run_asked_for_on_the_binding_moves_to_the_request_before_the_label_goes() {
        let plan = decide(&snapshot("latest", "v2", &[], &[keys::MANUAL_RECONCILIATION]));
        let kinds: Vec<_> = plan.writes.iter().map(|write| write.address().0.kind.clone()).collect();
        assert_eq!(kinds, ["X", "ResourceBinding", "ResourceBinding"]);
        assert!(matches!(plan.writes[1], Write::PatchStatus { .. }));
        let text = format!("{:?}", plan.writes[1]);
        assert!(text.contains("Reconciliation requested for version v2"), "{text}");
    }

    #[test]
    fn a_request_without_a_version_is_told_of_no_upgrade_but_runs_when_it_is_asked_to() {
        for applied in ["", "not-set"] {
            assert!(decide(&snapshot("latest", applied, &[keys::WORKFLOW_SUSPENDED], &[])).is_silent());
            let plan = decide(&snapshot("latest", applied, &[], &[keys::MANUAL_RECONCILIATION]));
            let kinds: Vec<_> = plan.writes.iter().map(|write| write.address().0.kind.clone()).collect();
            assert_eq!(kinds, ["X", "ResourceBinding"]);
            assert_eq!(plan.status, None);
            // The label is on the request already: its next run is the one that was asked for.
            let labels = [keys::MANUAL_RECONCILIATION];
            assert_eq!(decide(&snapshot("latest", applied, &labels, &labels)).writes.len(), 1);
        }
    }

    #[test]
    fn a_run_that_is_asked_for_while_its_version_is_rolled_out_is_not_lost() {
        let mut snapshot = snapshot("latest", "v1", &[], &[keys::MANUAL_RECONCILIATION]);
        let told = json!({ "type": "UpgradeSucceeded", "status": "Unknown", "reason": "UpgradeInProgress",
            "message": "Upgrade to version v2 is in progress" });
        let binding = Arc::make_mut(&mut snapshot.binding);
        binding.status = Some(serde_json::from_value(json!({ "conditions": [told] })).unwrap());
        assert!(binding.is_in_flight("v2") && !binding.is_in_flight("v"));
        let plan = decide(&snapshot);
        assert_eq!(plan.writes[0].address().0.kind, "X");
    }

    #[test]
    fn a_binding_of_another_namespace_restarts_nothing() {
        for (version, request_labels, binding_labels) in [
            ("latest", &[][..], &[keys::MANUAL_RECONCILIATION][..]),
            ("latest", &[keys::WORKFLOW_SUSPENDED], &[]),
            ("v9", &[keys::WORKFLOW_SUSPENDED], &[keys::MANUAL_RECONCILIATION]),
        ] {
            for applied in ["v1", "not-set"] {
                let mut snapshot = snapshot(version, applied, request_labels, binding_labels);
                Arc::make_mut(&mut snapshot.binding).metadata.namespace = Some("elsewhere".into());
                let plan = decide(&snapshot);
                assert!(plan.is_silent(), "{plan:?}");
                assert_eq!(plan.findings, [Finding::NoRequest]);
            }
        }
    }

    #[test]
    fn a_binding_binds_a_request_that_can_exist_in_its_own_namespace() {
        for (namespace, of_request, name, expected) in [
            ("a", "a", "r", true),
            ("a", "a", "r.x-1", true),
            ("a", "b", "r", false),
            ("a", "", "r", false),
            ("a", "a", "", false),
            ("a", "a", "../b", false),
            ("a", "a", "r x", false),
        ] {
            let mut binding = ResourceBinding::new("b", Default::default());
            binding.metadata.namespace = Some(namespace.into());
            (binding.spec.resource_ref.name, binding.spec.resource_ref.namespace) = (name.into(), of_request.into());
            let expected = expected.then(|| ObjectKey::namespaced(namespace, name));
            assert_eq!(request_of(&binding), expected, "{of_request}/{name}");
        }
    }

    #[test]
    fn the_promise_says_which_revision_is_the_latest() {
        let mut snapshot = snapshot("latest", "v2", &[keys::WORKFLOW_SUSPENDED], &[]);
        assert!(decide(&snapshot).is_silent());
        let mut older = snapshot.revisions[0].as_ref().clone();
        older.metadata.name = Some("p-0".into());
        older.spec.version = "v1".into();
        snapshot.revisions.insert(0, Arc::new(older));
        let mut promise = Promise::new("p", Default::default());
        promise.metadata.labels = Some([(keys::PROMISE_VERSION.to_owned(), "v2".to_owned())].into());
        snapshot.promise = Some(Arc::new(promise));
        assert!(decide(&snapshot).is_silent());
    }

    #[test]
    fn a_request_that_appears_is_suspended_or_completes_brings_its_binding_back() {
        let request = |applied: &str, labels: &[&str]| snapshot("latest", applied, labels, &[]).request.unwrap().1;
        let plain = request("v1", &[]);
        assert!(request_concerns(None, Some(&plain)));
        assert!(request_concerns(Some(&plain), Some(&request("v1", &[keys::WORKFLOW_SUSPENDED]))));
        assert!(request_concerns(Some(&plain), Some(&request("v2", &[]))));
        assert!(!request_concerns(Some(&plain), Some(&request("v1", &["other"]))));
        assert!(!request_concerns(Some(&plain), None));
    }

    #[test]
    fn a_suspended_request_is_restarted_for_another_version() {
        let plan = decide(&snapshot("latest", "v1", &[keys::WORKFLOW_SUSPENDED], &[]));
        assert_eq!(plan.writes.len(), 1);
        assert!(plan.status.is_some());
        assert!(decide(&snapshot("latest", "v2", &[keys::WORKFLOW_SUSPENDED], &[])).is_silent());
    }
}

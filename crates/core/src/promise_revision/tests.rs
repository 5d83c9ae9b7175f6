use serde_json::json;

use super::*;
use crate::promise::testing::{merge, redis};

/// Returns a revision `name` of Promise `redis` at `version`, with `patch` merged in.
fn revision(name: &str, version: &str, patch: Value) -> Arc<PromiseRevision> {
    let mut object = json!({
        "apiVersion": keys::API_VERSION, "kind": "PromiseRevision",
        "metadata": {
            "name": name, "uid": "u", "resourceVersion": "7",
            "finalizers": [keys::FINALIZER_RESOURCE_REQUEST_CLEANUP],
            "labels": { keys::PROMISE_NAME: "redis", keys::LATEST_REVISION: "true" },
        },
        "spec": { "promiseRef": { "name": "redis" }, "promiseSpec": {}, "version": version },
        "status": { "latest": true },
    });
    merge(&mut object, &patch);
    Arc::new(serde_json::from_value(object).unwrap())
}

fn snapshot(revision: Arc<PromiseRevision>, at: Option<&str>) -> Snapshot {
    let promise = at.map(|version| {
        let labels = json!({ keys::PROMISE_VERSION: version });
        Arc::new(serde_json::from_value(json!({ "metadata": { "name": "redis", "labels": labels } })).unwrap())
    });
    let now = "2025-01-02T03:04:05Z".parse().unwrap();
    Snapshot { now, revision, promise, requests: Some(redis()), bound: Vec::new() }
}

fn deleting(patch: Value) -> Arc<PromiseRevision> {
    let mut all = json!({ "metadata": { "deletionTimestamp": "2025-01-02T03:04:05Z" } });
    merge(&mut all, &patch);
    revision("a", "v1", all)
}

fn bound(name: &str, version: &str, exists: bool) -> Bound {
    let binding = json!({
        "metadata": { "name": format!("{name}-binding"), "namespace": "default" },
        "spec": {
            "version": version, "promiseRef": { "name": "redis" }, "resourceRef": { "name": name, "namespace": "default" },
        },
    });
    let uid = Some(format!("uid of {name}"));
    let request = Request { namespace: "default".into(), name: name.into(), uid, ..Request::default() };
    Bound { binding: Arc::new(serde_json::from_value(binding).unwrap()), request: exists.then_some(request) }
}

/// Returns the patch of the only write.
fn only_patch(plan: &Plan<Finding>) -> Value {
    match (plan.writes.as_slice(), &plan.status) {
        ([Write::Patch { patch, .. }], None) | ([], Some(Write::PatchStatus { patch, .. })) => patch.clone(),
        other => panic!("one write expected: {other:?}"),
    }
}

#[test]
fn label_and_status_follow_the_version_of_the_promise() {
    let no_label = json!({ "metadata": { "labels": { keys::LATEST_REVISION: null } } });
    let not_latest = json!({ "status": null });
    let neither = json!({ "metadata": { "labels": { keys::LATEST_REVISION: null } }, "status": null });
    let silent = Value::Null;
    let remove_label = json!({ "metadata": { "labels": { keys::LATEST_REVISION: null } } });
    let unset = json!({ "status": { "latest": null } });
    let set = json!({ "status": { "latest": true } });
    let table = [
        (json!({}), Some("v1"), &silent),
        (not_latest, Some("v1"), &set),
        (json!({}), Some("v2"), &remove_label),
        (no_label.clone(), Some("v2"), &unset),
        (neither, Some("v2"), &silent),
        // The Promise sets the label; the status waits for it.
        (no_label.clone(), Some("v1"), &unset),
        // Without the Promise the label decides.
        (json!({}), None, &silent),
        (no_label, None, &unset),
    ];
    for (patch, version, expected) in table {
        let plan = decide(&snapshot(revision("a", "v1", patch.clone()), version));
        let found = if plan.is_silent() { Value::Null } else { only_patch(&plan) };
        assert_eq!(&found, expected, "{patch} at {version:?}");
    }
}

#[test]
fn finalizer_and_label_are_put_right_in_one_write() {
    let bare = json!({ "metadata": { "finalizers": ["a/b"], "labels": null } });
    let plan = decide(&snapshot(revision("a", "v1", bare), Some("v1")));
    let expected = json!({ "metadata": {
        "finalizers": ["a/b", keys::FINALIZER_RESOURCE_REQUEST_CLEANUP], "labels": { keys::PROMISE_NAME: "redis" },
    } });
    assert_eq!(only_patch(&plan), expected);
}

#[test]
fn one_that_is_skipped_gets_no_finalizer_and_loses_the_one_it_has() {
    let skip = json!({ "metadata": {
        "finalizers": null, "annotations": { keys::SKIP_RESOURCE_REQUEST_CLEANUP_ON_DELETE: "true" },
    } });
    assert!(decide(&snapshot(revision("a", "v1", skip), Some("v1"))).is_silent());
    let skip = json!({ "metadata": { "annotations": { keys::SKIP_RESOURCE_REQUEST_CLEANUP_ON_DELETE: "true" } } });
    let mut snapshot = snapshot(deleting(skip), Some("v1"));
    snapshot.bound = vec![bound("x", "v1", true)];
    assert_eq!(only_patch(&decide(&snapshot)), json!({ "metadata": { "finalizers": [] } }));
}

#[test]
fn deleting_takes_pinned_requests_along_and_waits_for_them() {
    let mut snapshot = snapshot(deleting(json!({})), Some("v2"));
    snapshot.bound = vec![bound("gone", "v1", false), bound("pinned", "v1", true), bound("floating", "latest", true)];
    let plan = decide(&snapshot);
    let deleted: Vec<_> =
        plan.writes.iter().map(|write| (write.address().0.kind.as_str(), write.address().1.name.as_str())).collect();
    assert_eq!(deleted, [("ResourceBinding", "gone-binding"), ("Redis", "pinned")]);
    let Write::Delete { target } = &plan.writes[1] else { panic!("{:?}", plan.writes) };
    assert_eq!(target.uid.as_deref(), Some("uid of pinned"), "never a newer request of that name");
    let waits_for = "resource requests pinned to this version: default/gone, default/pinned";
    assert_eq!(plan.findings, [Finding::Deleting { waits_for: waits_for.into() }]);
    let Some(Write::PatchStatus { patch, .. }) = &plan.status else { panic!("{:?}", plan.status) };
    let told = &patch["status"]["conditions"][0];
    let says = ["type", "status", "reason", "message"].map(|field| told[field].as_str().unwrap());
    assert_eq!(says, ["RequestsRemoved", "False", "Deleting", &format!("Deleting: waiting for {waits_for}")]);
    snapshot.bound.truncate(0);
    assert_eq!(only_patch(&decide(&snapshot)), json!({ "metadata": { "finalizers": [] } }));
}

/// Returns bindings to version `v1` that bind nothing: of another namespace, or with names that no request has.
fn forged() -> Vec<Bound> {
    let patches = [
        json!({ "metadata": { "namespace": "elsewhere" } }),
        json!({ "spec": { "resourceRef": { "namespace": "" } } }),
        json!({ "spec": { "resourceRef": { "name": "" } } }),
        json!({ "spec": { "resourceRef": { "name": "../x" } } }),
    ];
    let forge = |patch: &Value| {
        let mut bound = bound("x", "v1", true);
        let mut binding = serde_json::to_value(&*bound.binding).unwrap();
        merge(&mut binding, patch);
        bound.binding = Arc::new(serde_json::from_value(binding).unwrap());
        bound
    };
    patches.iter().map(forge).collect()
}

#[test]
fn a_binding_of_another_namespace_takes_no_request_along_and_holds_up_nothing() {
    let mut snapshot = snapshot(deleting(json!({})), Some("v2"));
    snapshot.bound = forged();
    assert_eq!(only_patch(&decide(&snapshot)), json!({ "metadata": { "finalizers": [] } }));
    snapshot.bound.push(bound("pinned", "v1", true));
    let plan = decide(&snapshot);
    let deleted: Vec<_> = plan.writes.iter().map(|write| write.address().1.to_string()).collect();
    assert_eq!(deleted, ["default/pinned"]);
    let waits_for = "resource requests pinned to this version: default/pinned";
    assert_eq!(plan.findings, [Finding::Deleting { waits_for: waits_for.into() }]);
}

#[test]
fn a_binding_of_another_namespace_keeps_no_revision_in_use() {
    let revisions = [
        revision("a", "v1", json!({ "metadata": { "labels": { keys::LATEST_REVISION: null } }, "status": null })),
        revision("b", "v2", json!({})),
    ];
    let used = |bindings: &[Bound], applied: &str| {
        let is_bound = |version: &str| {
            bindings.iter().any(|bound| {
                let mut binding = bound.binding.as_ref().clone();
                binding.status = Some(serde_json::from_value(json!({ "lastAppliedVersion": applied })).unwrap());
                bound_versions(&binding).contains(version)
            })
        };
        let used = in_use(&revisions, None, is_bound);
        used.into_iter().map(|revision| revision.name_any()).collect::<Vec<_>>()
    };
    assert_eq!(used(&forged(), "v1"), ["b"]);
    assert_eq!(used(&[bound("x", "v1", true)], "v2"), ["b", "a"]);
    assert_eq!(used(&[bound("x", "latest", true)], "v1"), ["b", "a"]);
}

#[test]
fn without_an_api_nothing_is_left_to_clean_up() {
    let mut snapshot = snapshot(deleting(json!({})), None);
    snapshot.requests = None;
    snapshot.bound = vec![bound("x", "v1", true)];
    assert_eq!(decide(&snapshot).writes[0].address().0.kind, "ResourceBinding");
    snapshot.bound.clear();
    assert_eq!(only_patch(&decide(&snapshot)), json!({ "metadata": { "finalizers": [] } }));
}

#[test]
fn of_several_latest_revisions_the_one_of_the_promise_is_taken_then_the_labelled_one_and_none_being_deleted() {
    let no_label = json!({ "metadata": { "labels": { keys::LATEST_REVISION: null } } });
    let old = revision("z", "v1", no_label);
    let new = revision("a", "v2", json!({}));
    let gone = deleting(json!({ "metadata": { "name": "b" } }));
    let all = [old.clone(), new.clone(), gone.clone()];
    let promise = snapshot(Arc::clone(&old), Some("v1")).promise;
    let unmarked = revision("u", "v1", json!({ "status": null }));
    for (revisions, promise, purpose, expected) in [
        (&all[..], None, Purpose::Configure, Some("a")),
        (&all[..], promise.as_deref(), Purpose::Configure, Some("z")),
        (&[new.clone(), unmarked][..], promise.as_deref(), Purpose::Configure, Some("u")),
        (std::slice::from_ref(&gone), promise.as_deref(), Purpose::Configure, None),
        (std::slice::from_ref(&gone), promise.as_deref(), Purpose::Delete, Some("b")),
        (&all[..], promise.as_deref(), Purpose::Delete, Some("z")),
        (&[old][..], None, Purpose::Configure, Some("z")),
    ] {
        let found = latest(revisions, promise, purpose).map(|revision| revision.name_any());
        assert_eq!(found.as_deref(), expected);
    }
    assert_eq!(at_version(&all, "v1", Purpose::Configure).len(), 1);
    assert_eq!(at_version(std::slice::from_ref(&gone), "v1", Purpose::Configure).len(), 0);
    assert_eq!(at_version(&[gone], "v1", Purpose::Delete).len(), 1);
}

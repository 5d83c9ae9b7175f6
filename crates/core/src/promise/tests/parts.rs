//! Revision, API, access, dependencies: what is written, and only when it differs.

use kratix_api::{compression, hash, name};
use serde_json::{Value, json};

use crate::object::ObjectKey;
use crate::plan::Write;
use crate::promise::testing::{NAME, World, api, dependency, pipeline, promise};
use crate::promise::{Fault, Finding, Requests, refused};

fn revision(world: &World, name: &str) -> Value {
    world.get("PromiseRevision", &ObjectKey::cluster(name)).unwrap_or_else(|| panic!("{name} exists")).clone()
}

fn crd_key() -> ObjectKey {
    ObjectKey::cluster("redises.example.com")
}

#[test]
fn a_new_version_brings_a_revision_of_its_own_and_the_old_one_keeps_its_spec() {
    let mut world = World::with(json!({ "dependencies": [dependency("a")] }));
    world.label("kratix.io/promise-version", json!("v1.0.0"));
    world.settle();
    assert_eq!(world.promise()["status"]["version"], "v1.0.0");
    assert_eq!(world.promise()["status"]["kratix"]["version"], "v1.0.0");
    let first = revision(&world, "redis-2888c");
    assert_eq!(first["spec"]["promiseSpec"]["dependencies"], json!([dependency("a")]));
    assert_eq!(first["status"]["latest"], true);
    world.patch_promise(
        json!({ "spec": { "dependencies": [] }, "metadata": { "labels": { "kratix.io/promise-version": "V2" } } }),
    );
    world.settle();
    let second = revision(&world, &name::promise_revision(NAME, "V2"));
    assert_eq!(second["status"]["latest"], true);
    let first = revision(&world, "redis-2888c");
    assert_eq!(first["spec"]["promiseSpec"]["dependencies"], json!([dependency("a")]));
    assert_ne!(first["status"]["latest"], true);
    assert!(first["metadata"]["labels"].get("kratix.io/latest-revision").is_none());
    // Back again: the old revision is the latest once more.
    world.label("kratix.io/promise-version", json!("v1.0.0"));
    world.settle();
    assert_eq!(revision(&world, "redis-2888c")["status"]["latest"], true);
    assert_eq!(world.kinds("PromiseRevision").len(), 2);
}

#[test]
fn removing_the_version_label_clears_the_version() {
    let mut world = World::with(json!({}));
    world.label("kratix.io/promise-version", json!("v1"));
    world.settle();
    world.label("kratix.io/promise-version", json!(null));
    world.settle();
    assert!(world.promise()["status"].get("version").is_none());
    assert!(world.promise()["status"]["kratix"].get("version").is_none());
    assert_eq!(revision(&world, "redis-5a7f3")["spec"]["version"], "not-set");
}

#[test]
fn a_change_at_the_same_version_updates_the_revision_and_foreign_labels_stay() {
    let mut world = World::with(json!({}));
    world.settle();
    let key = ObjectKey::cluster("redis-5a7f3");
    let edit = json!({
        "metadata": { "labels": { "mine": "1", "kratix.io/latest-revision": null }, "annotations": { "mine": "2" } },
        "spec": { "promiseSpec": { "destinationSelectors": [{ "matchLabels": { "x": "y" } }] } },
    });
    world.patch("PromiseRevision", &key, &edit);
    world.settle();
    let found = revision(&world, "redis-5a7f3");
    assert_eq!(
        found["metadata"]["labels"],
        json!({ "mine": "1", "kratix.io/latest-revision": "true", "kratix.io/promise-name": NAME })
    );
    assert_eq!(found["metadata"]["annotations"], json!({ "mine": "2" }));
    assert!(found["spec"]["promiseSpec"].get("destinationSelectors").is_none());
}

#[test]
fn nulls_in_a_spec_do_not_keep_the_revision_from_settling() {
    let mut api = api();
    api["metadata"]["creationTimestamp"] = Value::Null;
    let mut odd = dependency("a");
    odd["metadata"]["creationTimestamp"] = Value::Null;
    let mut world = World::with(json!({ "api": api, "dependencies": [odd] }));
    world.settle();
    world.patch_promise(
        json!({ "spec": { "dependencies": [{ "kind": "A", "metadata": { "creationTimestamp": null } }] } }),
    );
    world.settle();
    assert!(world.is_silent());
}

#[test]
fn the_interval_annotation_is_mirrored_if_it_is_valid_and_the_promise_is_not_released() {
    let key = "kratix.io/reconciliation-interval";
    let table = [
        (Some("90s"), None, Some("90s")),
        (Some("1m"), None, Some("1m")),
        (Some("59s"), None, None),
        (Some("soon"), None, None),
        (None, None, None),
        (Some("2h"), Some("release"), Some("old")),
        (None, Some("release"), Some("old")),
    ];
    for (annotation, release, expected) in table {
        let mut world = World::with(json!({}));
        world.settle();
        world.patch(
            "PromiseRevision",
            &ObjectKey::cluster("redis-5a7f3"),
            &json!({ "metadata": { "annotations": { key: "old" } } }),
        );
        world.patch_promise(json!({ "metadata": {
            "annotations": { key: annotation }, "labels": { "kratix.io/promise-release-name": release },
        } }));
        world.settle();
        let found = revision(&world, "redis-5a7f3");
        assert_eq!(
            found.pointer("/metadata/annotations").and_then(|all| all[key].as_str()),
            expected,
            "{annotation:?}"
        );
    }
}

#[test]
fn a_revision_name_that_is_taken_is_avoided() {
    let others = |name: &str| {
        json!({
            "apiVersion": "platform.kratix.io/v1alpha1", "kind": "PromiseRevision", "metadata": { "name": name },
            "spec": { "promiseRef": { "name": "other" }, "promiseSpec": {}, "version": "v9" },
        })
    };
    let mut world = World::with(json!({}));
    world.create(others("redis-5a7f3"));
    world.settle();
    let own: Vec<_> = world.kinds("PromiseRevision").into_iter().filter(|key| key.name != "redis-5a7f3").collect();
    assert_eq!(own.len(), 1);
    let long = format!("redis-{}", &hash::text("redis\nnot-set")[..16]);
    assert_eq!(own[0].name, long);
    assert_eq!(revision(&world, "redis-5a7f3")["spec"]["version"], "v9");
    assert!(world.says("Available").starts_with("True"));

    let mut world = World::with(json!({}));
    world.create(others("redis-5a7f3"));
    world.create(others(&long));
    world.settle();
    let text = format!("PromiseRevision {long:?} belongs to something else; delete it");
    assert_eq!(world.says("Reconciled"), format!("False/RevisionConflict/{text}"));
}

#[test]
fn a_revision_named_by_the_old_scheme_is_replaced_and_its_requests_survive() {
    let mut world = World::with(json!({}));
    world.label("kratix.io/promise-version", json!("v1"));
    for (name, promise) in [("redis-v1", NAME), ("redis-v2", NAME)] {
        world.create(json!({
            "apiVersion": "platform.kratix.io/v1alpha1", "kind": "PromiseRevision",
            "metadata": {
                "name": name, "finalizers": ["kratix.io/resource-request-cleanup"],
                "labels": { "kratix.io/promise-name": promise, "kratix.io/latest-revision": "true" },
            },
            "spec": { "promiseRef": { "name": promise }, "promiseSpec": {}, "version": name.strip_prefix("redis-").unwrap() },
        }));
    }
    world.settle();
    let names: Vec<_> = world.kinds("PromiseRevision").into_iter().map(|key| key.name.clone()).collect();
    assert_eq!(names, [name::promise_revision(NAME, "v1"), "redis-v2".to_owned()]);
    let skip = world.writes.iter().any(|write| {
        matches!(write, Write::Patch { target, patch } if target.key.name == "redis-v1"
            && patch.pointer("/metadata/annotations/kratix.io~1skip-resource-request-cleanup-on-delete") == Some(&json!("true")))
    });
    assert!(skip);
}

#[test]
fn a_deleted_revision_of_the_present_version_is_made_again() {
    let mut world = World::with(json!({}));
    world.settle();
    world.delete("PromiseRevision", &ObjectKey::cluster("redis-5a7f3"));
    world.settle();
    assert_eq!(revision(&world, "redis-5a7f3")["status"]["latest"], true);
    assert!(world.says("Available").starts_with("True"));
}

#[test]
fn the_crd_is_updated_only_when_it_differs_and_keeps_what_others_put_there() {
    let mut world = World::with(json!({ "api": api() }));
    world.settle();
    world.patch(
        "CustomResourceDefinition",
        &crd_key(),
        &json!({ "metadata": { "labels": { "mine": "1" }, "annotations": { "a": "b" } } }),
    );
    assert!(world.is_silent());
    let mut changed = api();
    changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"] =
        json!({ "type": "object", "properties": { "size": { "type": "string" } } });
    world.patch_promise(json!({ "spec": { "api": changed } }));
    world.settle();
    let crd = world.get("CustomResourceDefinition", &crd_key()).unwrap();
    assert_eq!(crd["metadata"]["labels"], json!({ "mine": "1", "kratix.io/promise-name": NAME }));
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    assert_eq!(schema["spec"]["properties"]["size"]["type"], "string");
    assert_eq!(schema["metadata"]["properties"]["name"]["maxLength"], 63);
    assert!(world.says("Available").starts_with("True"));
}

#[test]
fn a_crd_that_is_not_served_yet_holds_availability_back() {
    let mut world = World::with(json!({ "api": api() }));
    world.pass();
    world.pass();
    world.patch("CustomResourceDefinition", &crd_key(), &json!({ "status": { "conditions": null } }));
    world.others();
    let decision = world.pass();
    assert!(!world.says("Available").starts_with("True"));
    assert_eq!(world.requests, Requests::Unchanged);
    assert!(decision.plan.findings.contains(&Finding::ApiPending { crd: "redises.example.com".into() }));
}

#[test]
fn the_crd_of_somebody_else_is_left_alone_and_named() {
    for owner in [None, Some("other")] {
        let mut world = World::with(json!({ "api": api(), "dependencies": [dependency("a")] }));
        let mut crd = api();
        crd["metadata"]["labels"] = json!({ "kratix.io/promise-name": owner });
        if owner.is_none() {
            crd["metadata"]["labels"] = json!({});
        }
        world.create(crd.clone());
        world.settle();
        let (status, reason, message) = world.condition("Reconciled").unwrap();
        assert_eq!((status.as_str(), reason.as_str()), ("False", "APIConflict"));
        assert!(
            message.contains("redises.example.com") && message.contains(owner.unwrap_or("adopt-api-crd")),
            "{message}"
        );
        assert_eq!(world.events.iter().filter(|event| event.contains("APIConflict")).count(), 1);
        assert!(world.says("Available").starts_with("False"));
        assert!(world.kinds("Work").is_empty(), "nothing goes out for a Promise that cannot have its API");
        assert_eq!(world.requests, Requests::Unchanged);
        world.delete_promise();
        world.settle();
        let found = world.get("CustomResourceDefinition", &crd_key()).expect("the other's CRD survives");
        assert_eq!(found["spec"], crd["spec"]);
    }
}

#[test]
fn a_crd_may_be_taken_over_by_annotation() {
    let mut world = World::with(json!({ "api": api() }));
    world.create(api());
    world.patch_promise(json!({ "metadata": { "annotations": { "kratix.io/adopt-api-crd": "true" } } }));
    world.settle();
    let crd = world.get("CustomResourceDefinition", &crd_key()).unwrap();
    assert_eq!(crd["metadata"]["labels"]["kratix.io/promise-name"], NAME);
    assert!(world.says("Available").starts_with("True"));
}

#[test]
fn an_api_that_is_no_crd_is_shown() {
    let mut world =
        World::with(json!({ "api": { "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" } } }));
    world.settle();
    let (status, reason, message) = world.condition("Reconciled").unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("False", "InvalidAPI"));
    assert!(message.starts_with("api is not a valid CRD: "), "{message}");
    assert!(world.says("Available").starts_with("False"));
    world.delete_promise();
    world.settle();
    assert!(world.objects.is_empty(), "{:?}", world.objects.keys());
}

#[test]
fn a_broken_pipeline_is_named_and_holds_up_its_own_workflow_alone() {
    let broken = json!({ "apiVersion": "platform.kratix.io/v1alpha1", "kind": "Pipeline", "metadata": { "name": "bad" }, "spec": { "oops": 1 } });
    for (kind, action) in
        [("promise", "configure"), ("promise", "delete"), ("resource", "configure"), ("resource", "delete")]
    {
        let mut workflows = json!({ "promise": { "configure": [pipeline("good")] } });
        workflows[kind][action] = json!([broken]);
        let mut world = World::with(json!({ "api": api(), "dependencies": [dependency("a")], "workflows": workflows }));
        world.settle();
        let message = format!(
            "failed parsing {kind}.{action} pipeline: failed unmarshalling pipeline bad: json: unknown field \"oops\""
        );
        assert_eq!(world.says("Reconciled"), format!("False/InvalidPipeline/{message}"));
        assert_eq!(world.events.iter().filter(|event| event.contains("InvalidPipeline")).count(), 1);
        let is_own = (kind, action) == ("promise", "configure");
        assert_eq!(world.says("Available").starts_with("True"), !is_own, "{kind} {action}");
        assert_eq!(world.kinds("Job").len(), usize::from(!is_own), "{kind} {action}");
        assert!(world.kinds("Work").iter().any(|key| key.name.contains("static-deps")));
    }
}

#[test]
fn access_to_the_api_is_mended_and_foreign_labels_stay() {
    let mut world = World::with(json!({ "api": api() }));
    world.settle();
    let key = ObjectKey::cluster("redis-promise-controller");
    world.patch("ClusterRole", &key, &json!({ "rules": [], "metadata": { "labels": { "mine": "1" } } }));
    world.patch("ClusterRoleBinding", &key, &json!({ "subjects": [], "metadata": { "labels": { "mine": "1" } } }));
    world.settle();
    let role = world.get("ClusterRole", &key).unwrap();
    assert_eq!(role["rules"].as_array().unwrap().len(), 3);
    assert_eq!(role["metadata"]["labels"], json!({ "mine": "1", "kratix.io/promise-name": NAME }));
    let binding = world.get("ClusterRoleBinding", &key).unwrap();
    assert_eq!(binding["subjects"][0]["name"], "kratix-platform-controller-manager");
    world.patch("ClusterRoleBinding", &key, &json!({ "roleRef": { "name": "another" } }));
    world.settle();
    assert_eq!(world.get("ClusterRoleBinding", &key).unwrap()["roleRef"]["name"], "redis-promise-controller");
}

#[test]
fn dependencies_are_one_work_that_is_written_only_when_it_differs() {
    let mut world = World::with(
        json!({ "dependencies": [dependency("a")], "destinationSelectors": [{ "matchLabels": { "env": "dev" } }] }),
    );
    world.settle();
    let key = world.kinds("Work")[0].clone();
    assert_eq!(key.namespace.as_deref(), Some("kratix-platform-system"));
    let work = world.get("Work", &key).unwrap().clone();
    assert_eq!(work["metadata"]["annotations"]["kratix.io/last-updated-at"], "2025-01-02 03:04:05 +0000 UTC");
    let group = &work["spec"]["workloadGroups"][0];
    assert_eq!(group["id"], "5058f1af8388633f609cadb75a75dc9d");
    assert_eq!(group["destinationSelectors"], json!([{ "matchLabels": { "env": "dev" }, "source": "promise" }]));
    assert_eq!(group["workloads"][0]["filepath"], "static/redis-dependencies.yaml");
    world.now = "2025-01-03T00:00:00Z".parse().unwrap();
    assert!(world.is_silent(), "time alone changes nothing");
    world.patch_promise(json!({ "spec": { "destinationSelectors": [] } }));
    world.settle();
    let work = world.get("Work", &key).unwrap();
    assert!(work["spec"]["workloadGroups"][0].get("destinationSelectors").is_none());
    assert_eq!(work["metadata"]["annotations"]["kratix.io/last-updated-at"], "2025-01-03 00:00:00 +0000 UTC");
    world.patch_promise(json!({ "spec": { "dependencies": [] } }));
    world.settle();
    assert!(world.kinds("Work").is_empty());
    world.patch_promise(json!({ "spec": { "dependencies": [dependency("b")] } }));
    world.settle();
    assert_eq!(world.kinds("Work"), [&key]);
}

#[test]
fn content_that_another_writer_spelled_differently_is_kept() {
    let mut world = World::with(json!({ "dependencies": [dependency("a"), dependency("b")] }));
    world.settle();
    let key = world.kinds("Work")[0].clone();
    let text = "{\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \"metadata\": {\"name\": \"a\"}}\n---\nkind: Namespace\napiVersion: v1\nmetadata:\n    name: b\n";
    let mut spec = world.get("Work", &key).unwrap()["spec"].clone();
    spec["workloadGroups"][0]["workloads"][0]["content"] = json!(compression::compress(text.as_bytes()));
    world.patch("Work", &key, &json!({ "spec": spec }));
    world.settle();
    assert_eq!(world.get("Work", &key).unwrap()["spec"], spec);
    spec["workloadGroups"][0]["workloads"][0]["content"] = json!(compression::compress(b"kind: Other\n"));
    world.patch("Work", &key, &json!({ "spec": spec }));
    world.settle();
    assert_ne!(world.get("Work", &key).unwrap()["spec"], spec, "other content is put right");
}

#[test]
fn a_work_with_a_random_name_is_kept_and_two_of_them_are_shown() {
    let work = |name: &str| {
        json!({
            "apiVersion": "platform.kratix.io/v1alpha1", "kind": "Work",
            "metadata": {
                "name": name, "namespace": "kratix-platform-system",
                "labels": { "kratix.io/promise-name": NAME, "kratix.io/work-type": "static-dependency" },
            },
            "spec": {},
        })
    };
    let mut world = World::with(json!({ "dependencies": [dependency("a")] }));
    world.create(work("redis-static-deps-4f1c2"));
    world.settle();
    assert_eq!(world.kinds("Work").len(), 1);
    assert!(world.says("Reconciled").starts_with("True"));
    world.create(work("redis-static-deps-00000"));
    world.settle();
    let (_, reason, message) = world.condition("Reconciled").unwrap();
    assert_eq!(reason, "DuplicateWorks");
    let expected = "more than 1 work exist with the matching labels: map[\"kratix.io/promise-name\":\"redis\" \
                    \"kratix.io/work-type\":\"static-dependency\"]. Unable to update";
    assert!(message.starts_with(expected), "{message}");
    world.delete("Work", &ObjectKey::namespaced("kratix-platform-system", "redis-static-deps-00000"));
    world.settle();
    assert!(world.says("Reconciled").starts_with("True"));
}

#[test]
fn a_refused_write_is_shown_once_and_the_cause_is_cut() {
    let mut world = World::with(json!({ "api": api() }));
    world.pass();
    let cause = format!("create of CustomResourceDefinition redises.example.com failed: {}", "é".repeat(2000));
    let plan = refused(&world.snapshot(), &cause).unwrap();
    assert_eq!(plan.events.len(), 1);
    assert!(matches!(&plan.findings[..], [Finding::Faulty(Fault { reason: "WriteRefused", .. })]));
    world.act(&plan, usize::MAX);
    let (status, reason, message) = world.condition("Reconciled").unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("False", "WriteRefused"));
    assert!(
        message.starts_with("create of CustomResourceDefinition redises.example.com failed: é") && message.len() < 1100
    );
    assert!(refused(&world.snapshot(), &cause).unwrap().is_silent());
    world.settle();
    assert!(world.says("Reconciled").starts_with("True"), "it heals");
}

#[test]
fn odd_status_values_do_not_stop_a_pass() {
    let mut world = World::new();
    let mut object = promise(json!({ "workflows": { "promise": { "configure": [pipeline("one")] } } }));
    object["status"] = json!({ "conditions": [{ "type": "Reconciled" }], "workflows": 7, "kratix": { "workflows": { "pipelines": [{}] } } });
    world.create(object);
    world.settle();
    assert!(world.says("Reconciled").starts_with("True"));
}

/// 02 §5.1
#[test]
fn the_account_of_the_promise_workflow_goes_from_a_pipeline_namespace_that_was_left() {
    let spec = |namespace: &str| {
        json!({ "workflows": {
            "config": { "pipelineNamespace": namespace }, "promise": { "configure": [pipeline("one")] },
        }})
    };
    let mut world = World::with(spec("pipes"));
    world.settle();
    let namespaces = |world: &World| {
        let accounts = world.kinds("ServiceAccount").into_iter();
        accounts.map(|key| key.namespace.clone().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(namespaces(&world), ["pipes"]);
    let jobs = |world: &World| world.kinds("Job").into_iter().cloned().collect::<Vec<_>>();
    let former = jobs(&world);
    world.patch_promise(json!({ "spec": spec("") }));
    world.settle();
    assert_eq!(namespaces(&world), ["kratix-platform-system"]);
    assert_eq!(former.len(), 1);
    assert_eq!(jobs(&world).len(), 1, "what has run there goes as well");
    assert_ne!(jobs(&world), former);
}

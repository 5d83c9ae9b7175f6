//! Taking a Promise apart.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use serde_json::json;

use crate::object::ObjectKey;
use crate::plan::Write;
use crate::promise::deletion::is_of_pipeline;
use crate::promise::testing::{World, api, dependency, pipeline};
use crate::promise::{Requests, decide};
use crate::workflow::failure::{Sight, attempt};
use crate::workflow::{Parent, Surroundings, access};

fn full() -> World {
    let mut world = World::with(json!({
        "api": api(), "dependencies": [dependency("a")],
        "workflows": { "promise": { "configure": [pipeline("one")], "delete": [pipeline("bye")] } },
    }));
    world.request("a");
    world.settle();
    world
}

/// Returns kinds and finalizers in the order in which they went.
fn order(world: &World) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    for write in &world.writes {
        let step = match write {
            Write::Delete { target } => target.kind.kind.clone(),
            Write::Create { kind, .. } if kind.kind == "Job" => "run".to_owned(),
            _ => continue,
        };
        if order.last() != Some(&step) {
            order.push(step);
        }
    }
    order
}

#[test]
fn everything_goes_in_order_and_nothing_is_left() {
    let mut world = full();
    world.writes.clear();
    world.delete_promise();
    world.settle();
    assert!(world.objects.is_empty(), "{:?}", world.objects.keys());
    let expected = [
        "run",
        "Job",
        "Redis",
        "PromiseRevision",
        "ClusterRoleBinding",
        "ClusterRole",
        "ServiceAccount",
        "ConfigMap",
        "Work",
        "CustomResourceDefinition",
    ];
    let found: Vec<_> = order(&world).into_iter().filter(|step| expected.contains(&step.as_str())).collect();
    assert_eq!(found, expected);
    assert_eq!(world.requests, Requests::Stopped);
}

#[test]
fn a_promise_without_api_is_cleaned_up_as_completely() {
    let mut world = World::with(
        json!({ "dependencies": [dependency("a")], "workflows": { "promise": { "configure": [pipeline("one")] } } }),
    );
    world.settle();
    assert!(!world.kinds("ServiceAccount").is_empty() && !world.kinds("ClusterRole").is_empty());
    world.delete_promise();
    world.settle();
    assert!(world.objects.is_empty(), "{:?}", world.objects.keys());
}

#[test]
fn each_step_names_what_it_waits_for() {
    let mut world = full();
    world.delete_promise();
    let mut messages = Vec::new();
    for _ in 0..60 {
        if world.kinds("Promise").is_empty() {
            break;
        }
        world.pass();
        if world.kinds("Promise").is_empty() {
            break;
        }
        let (_, reason, message) = world.condition("Reconciled").unwrap();
        if reason == "Deleting" && messages.last() != Some(&message) {
            messages.push(message);
        }
        // Everybody else needs a while.
        if messages.len() % 2 == 1 {
            world.finish_jobs();
        }
        world.others();
    }
    let has = |text: &str| messages.iter().any(|message| message.contains(text));
    for text in [
        "delete pipeline bye",
        "jobs of the promise workflow",
        "resource requests: default/a",
        "works, whose files are being removed",
    ] {
        assert!(has(text), "{text}: {messages:#?}");
    }
    assert!(messages.iter().all(|message| message.starts_with("Deleting: waiting for ")));
}

#[test]
fn it_rests_while_files_cannot_be_removed_and_ends_once_they_are() {
    let mut world = full();
    let works: Vec<ObjectKey> = world.kinds("Work").into_iter().cloned().collect();
    assert_eq!(works.len(), 2);
    for work in &works {
        world.patch("Work", work, &json!({ "hold": true }));
    }
    world.delete_promise();
    world.settle();
    assert!(world.says("Reconciled").starts_with("Unknown/Deleting/Deleting: waiting for works"));
    // Nobody lists the requests any more, so nothing may wait for their list.
    assert_eq!((&world.requests, world.snapshot().requests.is_none()), (&Requests::Stopped, true));
    assert_eq!(world.pass().requests, Requests::Stopped);
    assert!(world.is_silent());
    for work in &works {
        world.patch("Work", work, &json!({ "hold": null }));
    }
    world.settle();
    assert!(world.objects.is_empty(), "{:?}", world.objects.keys());
}

#[test]
fn a_running_job_of_a_request_is_waited_for_before_the_delete_workflow() {
    let mut world = full();
    world.create(json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "name": "busy", "namespace": "default",
            "labels": {
                "kratix.io/promise-name": "redis", "kratix.io/workflow-type": "resource", "kratix.io/workflow-action": "configure",
            },
        },
        "status": { "active": 1 },
    }));
    world.delete_promise();
    world.settle();
    assert_eq!(
        world.says("Reconciled"),
        "Unknown/Deleting/Deleting: waiting for running jobs of requests: default/busy; kubectl delete job -n NAMESPACE NAME \
         ends one that does not get on"
    );
    // As it says.
    let mut mended = world.clone();
    mended.delete("Job", &ObjectKey::namespaced("default", "busy"));
    mended.settle();
    assert!(mended.kinds("Promise").is_empty());
    assert!(!order(&world).contains(&"Redis".to_owned()));
    let done = json!({ "status": { "active": 0, "conditions": [{ "type": "Complete", "status": "True" }] } });
    world.patch("Job", &ObjectKey::namespaced("default", "busy"), &done);
    world.settle();
    assert!(world.kinds("Promise").is_empty());
}

/// A platform that cannot have the image of any container.
struct WithoutImages;

impl Surroundings for WithoutImages {
    fn existing(&self, _promise: &str, _namespace: &str) -> access::Existing {
        access::Existing::default()
    }

    fn is_taken(&self, _key: &ObjectKey, _parent: &Parent) -> bool {
        false
    }

    fn sight(&self, job: &Job) -> Sight {
        let waits = json!({
            "name": "a", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "waiting": { "reason": "ErrImagePull" } },
        });
        let pod = json!({ "status": { "phase": "Pending", "initContainerStatuses": [waits] } });
        Sight::of(job, &[attempt(&serde_json::from_value(pod).unwrap())], None)
    }
}

/// Its request is held up by the deletion, and would never do it.
#[test]
fn a_job_of_a_request_that_cannot_begin_does_not_hold_up_the_deletion() {
    let mut world = full();
    let labels = json!({
        "kratix.io/promise-name": "redis", "kratix.io/workflow-type": "resource", "kratix.io/workflow-action": "configure",
    });
    let annotations = json!({
        "kratix.io/job-resource-name": "a", "kratix.io/job-resource-namespace": "default",
        "kratix.io/job-resource-kind": "Redis",
    });
    let mut metadata = json!({ "name": "stuck", "namespace": "default", "labels": labels, "annotations": annotations });
    metadata["labels"]["kratix.io/pipeline-name"] = "build".into();
    world.create(json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "status": { "active": 1 } }));
    world.delete_promise();
    for _ in 0..3 {
        let mut snapshot = world.snapshot();
        snapshot.surroundings = Arc::new(WithoutImages);
        world.act(&decide(&snapshot).plan, usize::MAX);
    }
    let job = ObjectKey::namespaced("default", "stuck");
    assert_eq!(world.get("Job", &job).unwrap()["spec"]["suspend"], true);
    let patches = world.writes.iter().filter(|write| *write.address().1 == job).count();
    assert_eq!(patches, 1, "told once");
    let note = "Normal PipelineSuspended: Configure Pipeline suspended: build; Promise redis is being deleted, and its pod \
                cannot begin";
    assert_eq!(world.events.iter().filter(|event| *event == note).count(), 1, "{:#?}", world.events);
    let stopped = json!({ "status": { "active": 0, "conditions": [{ "type": "Suspended", "status": "True" }] } });
    world.patch("Job", &job, &stopped);
    world.settle();
    assert!(world.kinds("Promise").is_empty());
}

#[test]
fn a_failed_delete_pipeline_is_shown_once_and_holds_everything() {
    let mut world = full();
    world.delete_promise();
    world.pass();
    world.events.clear();
    world.fail_jobs();
    for _ in 0..5 {
        world.pass();
    }
    assert_eq!(world.says("DeleteWorkflowCompleted"), "False/DeleteWorkflowFailed/The Delete Pipeline has failed");
    assert_eq!(world.events, ["Warning Failed Pipeline: The Delete Pipeline has failed"]);
    assert!(world.is_silent());
    assert_eq!(world.kinds("Redis").len(), 1);
    world.label("kratix.io/manual-reconciliation", json!("true"));
    world.settle();
    assert!(world.objects.is_empty(), "{:?}", world.objects.keys());
}

#[test]
fn it_can_be_deleted_while_its_pipeline_runs() {
    let mut world =
        World::with(json!({ "api": api(), "workflows": { "promise": { "configure": [pipeline("one")] } } }));
    for _ in 0..3 {
        world.pass();
        world.others();
    }
    assert_eq!(world.kinds("Job").len(), 1);
    world.delete_promise();
    world.settle();
    assert!(world.objects.is_empty(), "{:?}", world.objects.keys());
}

/// §16.1 (2), §11.3 (5)
#[test]
fn a_delete_pipeline_that_asks_to_be_held_holds_everything_and_says_so_as_any_other() {
    let mut world = full();
    world.delete_promise();
    while world.kinds("Job").iter().all(|job| !job.name.contains("bye")) {
        world.pass();
        world.others();
    }
    world.finish_jobs();
    world.label("kratix.io/workflow-suspended", json!("true"));
    let held = json!([{
        "name": "bye", "phase": "Suspended", "lastTransitionTime": "2025-01-01T00:00:00Z", "message": "backup runs",
        "nextRetryAt": "2100-01-01T00:00:00Z", "attempts": 1,
    }]);
    let held = json!({ "workflows": { "pipelines": held, "suspendedGeneration": 2 } });
    world.patch_promise(json!({ "status": { "kratix": held } }));
    world.settle();
    assert_eq!(world.says("DeleteWorkflowCompleted"), "False/DeleteWorkflowSuspended/The delete workflow is suspended");
    let waits_for = "label kratix.io/workflow-suspended to be removed, or for 2100-01-01T00:00:00Z, when its pipeline runs again: \
                     backup runs";
    let told = format!("Unknown/WorkflowSuspended/Suspended: the deletion waits for {waits_for}");
    assert_eq!(world.says("Reconciled"), told);
    assert_eq!(world.says("Available"), "False/WorkflowSuspended/Suspended");
    assert_eq!(world.events.iter().filter(|event| event.contains("skipping reconciliation")).count(), 1);
    let status = &world.promise()["status"];
    assert_eq!((&status["status"], &status["kratix"]["status"]), (&json!("Unavailable"), &json!("Unavailable")));
    assert_eq!((world.kinds("Redis").len(), world.kinds("Work").len()), (1, 2));
    world.label("kratix.io/workflow-suspended", json!(null));
    world.settle();
    assert!(world.objects.is_empty(), "{:?}", world.objects.keys());
    assert_eq!(world.events.iter().filter(|event| event.contains("Delete Pipeline started: bye")).count(), 2);
}

#[test]
fn a_suspended_workflow_does_not_hold_the_deletion() {
    let mut world = full();
    world.label("kratix.io/workflow-suspended", json!("true"));
    world.pass();
    world.delete_promise();
    world.settle();
    assert!(world.objects.is_empty(), "{:?}", world.objects.keys());
}

#[test]
fn a_crd_that_was_removed_by_hand_does_not_hold_the_deletion() {
    let mut world = full();
    world.delete("CustomResourceDefinition", &ObjectKey::cluster("redises.example.com"));
    world.delete("Redis", &ObjectKey::namespaced("default", "a"));
    world.others();
    world.delete_promise();
    world.settle();
    assert!(world.objects.is_empty(), "{:?}", world.objects.keys());
}

#[test]
fn bindings_nobody_follows_any_more_go_too() {
    let mut world = full();
    world.create(json!({
        "apiVersion": "platform.kratix.io/v1alpha1", "kind": "ResourceBinding",
        "metadata": { "name": "early", "namespace": "default", "labels": { "kratix.io/promise-name": "redis" } },
        "spec": { "version": "v1", "promiseRef": { "name": "redis" }, "resourceRef": { "name": "x", "namespace": "default" } },
    }));
    world.delete_promise();
    world.settle();
    assert!(world.objects.is_empty(), "{:?}", world.objects.keys());
}

#[test]
fn objects_that_users_labelled_themselves_survive() {
    let mut world = full();
    let own = [
        ("v1", "ConfigMap", "notes"),
        ("v1", "ConfigMap", "redis-notes"),
        ("v1", "ConfigMap", "redis-resource-configure-notes"),
        ("v1", "ServiceAccount", "mine"),
        ("v1", "ServiceAccount", "redis"),
        ("rbac.authorization.k8s.io/v1", "ClusterRole", "redistribution"),
        ("rbac.authorization.k8s.io/v1", "ClusterRole", "redis-readers"),
        ("rbac.authorization.k8s.io/v1", "Role", "redis-promise-controller"),
    ];
    for (version, kind, name) in own {
        let namespace = (kind != "ClusterRole").then_some("default");
        let labels = json!({ "kratix.io/promise-name": "redis" });
        let metadata = json!({ "name": name, "namespace": namespace, "labels": labels });
        world.create(json!({ "apiVersion": version, "kind": kind, "metadata": metadata }));
    }
    world.delete_promise();
    world.settle();
    assert_eq!(world.objects.len(), own.len(), "{:?}", world.objects.keys());
}

#[test]
fn accounts_that_only_an_earlier_revision_names_go() {
    let mut named = pipeline("one");
    named["spec"]["rbac"] = json!({ "serviceAccount": "worker" });
    let mut world = World::with(json!({ "workflows": { "promise": { "configure": [named] } } }));
    world.label("kratix.io/promise-version", json!("v1"));
    world.settle();
    assert_eq!(world.kinds("ServiceAccount").len(), 1);
    world.patch_promise(json!({
        "metadata": { "labels": { "kratix.io/promise-version": "v2" } },
        "spec": { "workflows": { "promise": { "configure": [pipeline("one")] } } },
    }));
    world.settle();
    let account = ObjectKey::namespaced("kratix-platform-system", "worker");
    assert!(world.get("ServiceAccount", &account).is_some());
    world.delete_promise();
    world.settle();
    assert!(world.objects.is_empty(), "{:?}", world.objects.keys());
}

#[test]
fn what_kratix_made_for_a_promise_with_a_long_name_goes() {
    use kratix_api::name::{deterministic, pipeline_id};
    use kratix_api::pipeline::{Action, WorkflowType};
    for bytes in [1, 30, 36, 37, 38, 39, 45, 56, 57, 58, 63] {
        let promise = "p".repeat(bytes);
        for pipeline in ["a", "quite-a-long-one"] {
            let id = pipeline_id(&promise, WorkflowType::Resource, Action::Configure, pipeline);
            let names =
                [id.clone(), format!("{id}-default"), deterministic(&id, &[]), deterministic(&format!("{id}-x"), &[])];
            for name in names {
                assert!(is_of_pipeline(&promise, &name), "{name}");
            }
        }
        for own in [format!("{promise}-readers"), format!("{promise}-resource"), promise.clone()] {
            assert!(!is_of_pipeline(&promise, &own), "{own}");
        }
    }
}

#[test]
fn requests_that_are_not_known_yet_are_waited_for() {
    let mut world = full();
    world.patch_promise(json!({ "metadata": { "finalizers": ["kratix.io/resource-request-cleanup"] } }));
    for key in world.kinds("Job").into_iter().cloned().collect::<Vec<_>>() {
        world.delete("Job", &key);
    }
    world.delete_promise();
    let mut snapshot = world.snapshot();
    snapshot.requests = None;
    let decision = super::super::decide(&snapshot);
    assert!(decision.plan.writes.is_empty());
    assert!(matches!(decision.requests, Requests::Running { .. }));
}

#[test]
fn requests_of_an_api_that_serves_no_version_are_waited_for_until_one_is_served() {
    let mut world = full();
    let crd = world.kinds("CustomResourceDefinition")[0].clone();
    let served = |is: bool| {
        let mut versions = api()["spec"]["versions"].clone();
        versions.as_array_mut().unwrap().iter_mut().for_each(|version| version["served"] = is.into());
        json!({ "spec": { "versions": versions } })
    };
    world.patch_promise(json!({ "spec": { "api": served(false) } }));
    world.settle();
    world.delete_promise();
    world.settle();
    assert_eq!(world.kinds("Redis").len(), 1);
    let told = world.says("Reconciled");
    assert!(told.contains("a version of CRD redises.example.com to be served, without which"), "{told}");
    assert_ne!(world.requests, Requests::Stopped);
    world.patch("CustomResourceDefinition", &crd, &served(true));
    world.settle();
    assert!(world.objects.is_empty(), "{:?}", world.objects.keys());
}

#[test]
fn with_finalizers_of_others_alone_nothing_is_done_but_they_are_named() {
    let mut never_taken_in = World::with(json!({}));
    never_taken_in.patch_promise(json!({ "metadata": { "finalizers": ["example.com/mine"] } }));
    let mut full = full();
    let ours = full.promise()["metadata"]["finalizers"].as_array().unwrap().clone();
    let all: Vec<_> = ours.into_iter().chain([json!("example.com/mine")]).collect();
    full.patch_promise(json!({ "metadata": { "finalizers": all } }));
    for mut world in [never_taken_in, full] {
        world.delete_promise();
        world.settle();
        assert_eq!(world.promise()["metadata"]["finalizers"], json!(["example.com/mine"]));
        let says = "Unknown/Deleting/Deleting: waiting for finalizers of others: example.com/mine";
        assert_eq!(world.says("Reconciled"), says);
        assert_eq!(world.objects.len(), 1, "{:?}", world.objects.keys());
        assert!(world.is_silent());
    }
}

#[test]
fn it_can_be_deleted_after_its_requirement_is_gone() {
    let mut world = World::with(
        json!({ "api": api(), "requiredPromises": [{ "name": "missing" }], "dependencies": [dependency("a")] }),
    );
    world.settle();
    world.delete_promise();
    world.settle();
    assert!(world.objects.is_empty(), "{:?}", world.objects.keys());
}

/// Returns the name of the delete pipeline of requests in the only revision.
fn delete_pipeline(world: &World) -> serde_json::Value {
    let revision = world.get("PromiseRevision", world.kinds("PromiseRevision")[0]).unwrap();
    revision["spec"]["promiseSpec"]["workflows"]["resource"]["delete"][0]["metadata"]["name"].clone()
}

fn with_delete_pipeline_of_requests(name: &str) -> serde_json::Value {
    json!({ "spec": { "workflows": { "resource": { "delete": [pipeline(name)] } } } })
}

// 03 §16.1: what is wrong can be mended on the way
#[test]
fn a_delete_pipeline_of_requests_can_be_mended_while_they_go_with_their_promise() {
    let mut world = full();
    world.patch_promise(with_delete_pipeline_of_requests("broken"));
    world.settle();
    // Somebody else's finalizer stands for a delete workflow that fails.
    let held = json!({ "metadata": { "finalizers": ["example.com/held"] } });
    world.change_request("a", held);
    world.delete_promise();
    for _ in 0..20 {
        world.pass();
        world.finish_jobs();
    }
    assert!(world.condition("Reconciled").unwrap().2.contains("resource requests: default/a"));
    assert_eq!(delete_pipeline(&world), "broken");
    world.patch_promise(with_delete_pipeline_of_requests("mended"));
    world.pass();
    assert_eq!(delete_pipeline(&world), "mended");
    world.pass();
    assert!(world.is_silent());
}

#[test]
fn a_revision_that_goes_takes_what_was_mended_along_and_is_named() {
    let mut world = full();
    world.patch_promise(with_delete_pipeline_of_requests("broken"));
    world.settle();
    let key = world.kinds("PromiseRevision")[0].clone();
    world.delete("PromiseRevision", &key);
    world.patch_promise(with_delete_pipeline_of_requests("mended"));
    for _ in 0..5 {
        world.pass();
        world.finish_jobs();
    }
    assert_eq!(delete_pipeline(&world), "mended");
    let says = "Unknown/RevisionDeleting/Pending: waiting for the revision of version \"not-set\", which is being deleted with its \
                requests";
    assert_eq!(world.says("Reconciled"), says);
    let gone = json!({ "metadata": { "finalizers": null } });
    world.patch("PromiseRevision", &key, &gone);
    world.settle();
    assert_eq!(world.says("Reconciled"), "True/Reconciled/Reconciled");
}

//! From a new Promise to an available one, and what keeps it from there.

use k8s_openapi::api::batch::v1::Job;
use serde_json::json;

use crate::object::{Kind, ObjectKey};
use crate::plan::Write;
use crate::promise::testing::{World, api, dependency, pipeline, promise, redis};
use crate::promise::{Finding, Requests, decide, refused};
use crate::workflow::SEQUENCE;

#[test]
fn a_promise_with_everything_becomes_available_and_reconciled() {
    let mut world = World::with(json!({
        "api": api(), "dependencies": [dependency("a")], "workflows": { "promise": { "configure": [pipeline("one"), pipeline("two")] } },
    }));
    world.settle();
    assert_eq!(world.says("Available"), "True/PromiseAvailable/Ready to fulfil resource requests");
    assert_eq!(world.says("ConfigureWorkflowCompleted"), "True/PipelinesExecutedSuccessfully/Pipelines completed");
    assert_eq!(world.says("WorksSucceeded"), "True/WorksSucceeded/All works associated with this promise are ready");
    assert_eq!(world.says("Reconciled"), "True/Reconciled/Reconciled");
    let status = &world.promise()["status"];
    assert_eq!(status["status"], "Available");
    assert_eq!(status["kratix"]["status"], "Available");
    assert_eq!((&status["kind"], &status["apiVersion"]), (&json!("Redis"), &json!("example.com/v1")));
    assert_eq!((&status["workflows"], &status["workflowsSucceeded"]), (&json!(2), &json!(2)));
    assert_eq!(status["observedGeneration"], 1);
    assert_eq!(world.requests, Requests::Running { api: redis() });
    let pipelines = status["kratix"]["workflows"]["pipelines"].as_array().unwrap();
    assert!(pipelines.iter().all(|pipeline| pipeline["phase"] == "Succeeded"), "{pipelines:?}");
}

#[test]
fn each_transition_is_told_once() {
    let mut world = World::with(json!({
        "api": api(), "dependencies": [dependency("a")], "workflows": { "promise": { "configure": [pipeline("one")] } },
    }));
    world.settle();
    assert_eq!(
        world.events,
        [
            "Normal RevisionCreated: Revision redis-5a7f3 created",
            "Normal PipelineStarted: Configure Pipeline started: one",
            "Normal Available: Promise is available",
            "Normal ConfigureWorkflowCompleted: All workflows completed",
            "Normal WorksSucceeded: All works associated with this promise are ready",
            "Normal ReconcileSucceeded: Successfully reconciled",
        ]
    );
}

#[test]
fn finalizers_come_first_alone_and_in_order_by_need() {
    let table = [
        (json!({}), "dependencies-cleanup workflows-cleanup revision-cleanup"),
        (
            json!({ "api": api() }),
            "resource-request-cleanup dynamic-controller-dependant-resources-cleanup api-crd-cleanup \
             dependencies-cleanup workflows-cleanup revision-cleanup",
        ),
        (
            json!({ "workflows": { "promise": { "delete": [pipeline("bye")] } } }),
            "dependencies-cleanup workflows-cleanup delete-workflows revision-cleanup",
        ),
    ];
    for (spec, expected) in table {
        let mut world = World::with(spec);
        let plan = world.pass().plan;
        assert_eq!((plan.writes.len(), &plan.status), (1, &None));
        let finalizers = world.promise()["metadata"]["finalizers"].as_array().unwrap();
        let short: Vec<_> =
            finalizers.iter().map(|text| text.as_str().unwrap().strip_prefix("kratix.io/").unwrap()).collect();
        assert_eq!(short.join(" "), expected);
    }
}

#[test]
fn a_delete_pipeline_that_is_gone_takes_its_finalizer_along_and_foreign_ones_stay() {
    let mut world = World::new();
    let mut object = promise(json!({}));
    object["metadata"]["finalizers"] =
        json!(["example.com/mine", "kratix.io/delete-workflows", "kratix.io/api-crd-cleanup"]);
    world.create(object);
    world.pass();
    assert_eq!(
        world.promise()["metadata"]["finalizers"],
        json!([
            "example.com/mine",
            "kratix.io/api-crd-cleanup",
            "kratix.io/dependencies-cleanup",
            "kratix.io/workflows-cleanup",
            "kratix.io/revision-cleanup"
        ])
    );
}

#[test]
fn it_is_not_available_before_its_workflow_has_run() {
    let mut world =
        World::with(json!({ "api": api(), "workflows": { "promise": { "configure": [pipeline("one")] } } }));
    for _ in 0..8 {
        world.pass();
        world.others();
        assert!(!world.says("Available").starts_with("True"));
    }
    assert_eq!(world.says("Reconciled"), "Unknown/WorkflowPending/Pending");
    assert_eq!(world.requests, Requests::Running { api: redis() }, "requests learn what they wait for");
    world.settle();
    assert!(world.says("Available").starts_with("True"));
    assert_eq!(world.events.iter().filter(|event| event.contains("Available:")).count(), 1);
}

#[test]
fn a_change_of_the_spec_without_a_workflow_never_takes_it_down() {
    let mut world = World::with(json!({ "api": api(), "dependencies": [dependency("a")] }));
    world.settle();
    let since = world.promise()["status"]["lastAvailableTime"].clone();
    world.now = "2025-01-02T04:00:00Z".parse().unwrap();
    world.patch_promise(json!({ "spec": { "dependencies": [dependency("a"), dependency("b")] } }));
    world.events.clear();
    for _ in 0..10 {
        world.pass();
        assert_eq!(world.promise()["status"]["status"], "Available");
        assert!(world.says("Available").starts_with("True"));
        world.others();
    }
    assert!(world.is_silent());
    assert_eq!(world.promise()["status"]["lastAvailableTime"], since);
    assert!(!world.events.iter().any(|event| event.contains(" Available:")), "{:?}", world.events);
    assert_eq!(world.promise()["status"]["observedGeneration"], 2);
}

#[test]
fn a_change_of_the_spec_with_a_workflow_takes_it_down_and_a_repeated_run_does_not() {
    let spec = json!({ "api": api(), "workflows": { "promise": { "configure": [pipeline("one")] } } });
    let mut world = World::with(spec);
    world.settle();
    world.label("kratix.io/manual-reconciliation", json!("true"));
    for _ in 0..5 {
        world.pass();
        assert!(world.says("Available").starts_with("True"));
    }
    assert_eq!(world.kinds("Job").len(), 2);
    world.settle();
    world.patch_promise(json!({ "spec": { "destinationSelectors": [{ "matchLabels": { "a": "b" } }] } }));
    for _ in 0..5 {
        world.pass();
    }
    assert_eq!(world.says("Available"), "False/PromiseUnavailable/Cannot fulfil resource requests");
    assert_eq!(world.promise()["status"]["kratix"]["status"], "Unavailable");
    world.settle();
    assert!(world.says("Available").starts_with("True"));
}

#[test]
fn a_failed_workflow_makes_it_unavailable_and_says_so_once() {
    let mut world = World::with(json!({ "workflows": { "promise": { "configure": [pipeline("one")] } } }));
    for _ in 0..4 {
        world.pass();
        world.others();
    }
    world.fail_jobs();
    world.events.clear();
    for _ in 0..6 {
        world.pass();
    }
    assert_eq!(world.says("Available"), "False/PromiseUnavailable/Cannot fulfil resource requests");
    assert_eq!(world.says("Reconciled"), "False/ConfigureWorkflowFailed/Failing");
    assert_eq!(world.events, ["Warning ConfigureWorkflowFailed: A promise/configure Pipeline has failed: one"]);
    assert!(world.is_silent());
}

#[test]
fn reconciled_waits_for_works_of_dependencies_and_of_the_workflow() {
    let mut world = World::with(json!({ "dependencies": [dependency("a")] }));
    for _ in 0..4 {
        world.pass();
        let work = world.kinds("Work").first().map(|key| (*key).clone());
        if let Some(key) = work {
            world.patch("Work", &key, &json!({ "hold": true }));
        }
        world.others();
    }
    let name = world.kinds("Work")[0].clone();
    let pending =
        format!("Unknown/WorksPending/Some works associated with this promise are not ready: [{}]", name.name);
    assert_eq!(world.says("WorksSucceeded"), pending);
    assert_eq!(world.says("Reconciled"), "Unknown/WorksPending/Pending");
    assert!(world.says("Available").starts_with("True"));
    let table = [
        (
            "Failing",
            "False/WorksFailing/Some works associated with this promise are not ready: [",
            "False/WorksFailing/Failing",
        ),
        (
            "Misplaced",
            "False/WorksMisplaced/Some works associated with this promise are misplaced: [",
            "False/WorksFailing/Failing",
        ),
        (
            "Pending",
            "Unknown/WorksPending/Some works associated with this promise are not ready: [",
            "Unknown/WorksPending/Pending",
        ),
        ("Ready", "True/WorksSucceeded/All works", "True/Reconciled/Reconciled"),
    ];
    for (message, works, reconciled) in table {
        let condition = json!([{ "type": "Ready", "status": "False", "reason": "R", "message": message }]);
        world.patch("Work", &name, &json!({ "status": { "conditions": condition } }));
        world.pass();
        assert!(world.says("WorksSucceeded").starts_with(works), "{message}: {}", world.says("WorksSucceeded"));
        assert_eq!(world.says("Reconciled"), reconciled, "{message}");
        assert!(world.is_silent(), "{message}");
    }
}

#[test]
fn a_change_of_the_dependencies_is_pending_in_the_same_pass() {
    let mut world = World::with(json!({ "dependencies": [dependency("a")] }));
    world.settle();
    assert_eq!(world.says("Reconciled"), "True/Reconciled/Reconciled");
    world.patch_promise(json!({ "spec": { "dependencies": [dependency("b")] } }));
    world.pass();
    assert_eq!(world.says("Reconciled"), "Unknown/WorksPending/Pending");
    world.pass();
    assert_eq!(world.says("Reconciled"), "Unknown/WorksPending/Pending", "the Work's status speaks of its old content");
    world.settle();
    assert_eq!(world.says("Reconciled"), "True/Reconciled/Reconciled");
}

#[test]
fn a_promise_created_paused_only_says_so() {
    let mut world = World::with(json!({ "api": api() }));
    world.label("kratix.io/paused", json!("true"));
    let decision = world.pass();
    assert!(decision.plan.writes.is_empty());
    assert_eq!(decision.plan.findings, [Finding::Paused]);
    assert_eq!(world.says("Available"), "False/PausedReconciliation/Paused");
    assert_eq!(world.says("Reconciled"), "Unknown/PausedReconciliation/Paused");
    assert!(world.promise()["metadata"]["finalizers"].is_null());
    let note = "'kratix.io/paused' label set to 'true' for promise; pausing reconciliation";
    assert_eq!(world.events, [format!("Warning PausedReconciliation: {note}")]);
    assert!(world.is_silent());
    world.label("kratix.io/paused", json!("yes"));
    world.settle();
    assert!(world.says("Available").starts_with("True"), "only the exact value pauses");
}

#[test]
fn a_paused_promise_is_not_deleted_and_its_requests_are_told() {
    let mut world = World::with(json!({ "api": api() }));
    world.settle();
    world.label("kratix.io/paused", json!("true"));
    world.delete_promise();
    world.pass();
    assert!(world.is_silent());
    assert_eq!(world.requests, Requests::Running { api: redis() });
    world.label("kratix.io/paused", json!(null));
    world.settle();
    assert!(world.objects.is_empty(), "{:?}", world.objects.keys());
}

#[test]
fn the_end_of_a_pause_runs_workflow_and_requests_again() {
    for workflows in [json!({}), json!({ "promise": { "configure": [pipeline("one")] } })] {
        let mut world = World::with(json!({ "api": api(), "workflows": workflows }));
        world.request("a");
        world.settle();
        let jobs = world.kinds("Job").len();
        world.label("kratix.io/paused", json!("true"));
        world.settle();
        world.label("kratix.io/paused", json!(null));
        world.settle();
        assert_eq!(world.says("Reconciled"), "True/Reconciled/Reconciled");
        assert!(world.says("Available").starts_with("True"));
        assert_eq!(world.kinds("Job").len(), jobs * 2);
        let request = world.get("Redis", &ObjectKey::namespaced("default", "a")).unwrap();
        assert_eq!(request["metadata"]["labels"]["internal.workflows.kratix.io/run-from-start"], "true");
        assert!(world.promise()["metadata"]["labels"].as_object().is_none_or(|labels| labels.is_empty()));
    }
}

#[test]
fn a_suspended_workflow_makes_it_unavailable() {
    let mut world = World::with(json!({ "workflows": { "promise": { "configure": [pipeline("one")] } } }));
    world.settle();
    world.label("kratix.io/workflow-suspended", json!("true"));
    world.pass();
    assert_eq!(world.says("Available"), "False/WorkflowSuspended/Suspended");
    assert_eq!(world.says("Reconciled"), "Unknown/WorkflowSuspended/Suspended");
    assert!(world.is_silent());
    world.label("kratix.io/workflow-suspended", json!(null));
    world.settle();
    assert!(world.says("Available").starts_with("True"));
}

#[test]
fn requests_are_looked_after_in_every_state_of_the_promise() {
    type Bring = fn(&mut World);
    let states: [(&str, Bring); 5] = [
        ("its workflow runs", |world| drop(world.pass())),
        ("its workflow has failed", |world| world.fail_jobs()),
        ("suspended", |world| world.label("kratix.io/workflow-suspended", json!("true"))),
        ("paused", |world| world.label("kratix.io/paused", json!("true"))),
        ("unavailable", |world| {
            world.patch_promise(json!({ "spec": { "requiredPromises": [{ "name": "missing" }] } }))
        }),
    ];
    for (state, bring) in states {
        let workflows = json!({ "promise": { "configure": [pipeline("one")] } });
        let mut world = World::with(json!({ "api": api(), "workflows": workflows }));
        while world.kinds("Job").is_empty() {
            world.pass();
            world.others();
        }
        bring(&mut world);
        // As a process that has just started.
        world.requests = Requests::Unchanged;
        world.pass();
        assert_eq!(world.requests, Requests::Running { api: redis() }, "{state}");
        assert!(!world.says("Available").starts_with("True"), "{state}");
    }
}

#[test]
fn labels_that_nothing_else_consumes_are_removed() {
    let mut world = World::with(json!({}));
    world.settle();
    for label in [
        "kratix.io/manual-reconciliation",
        "kratix.io/reconcile-resources",
        "internal.workflows.kratix.io/run-from-start",
    ] {
        world.label(label, json!("true"));
        world.settle();
        assert!(world.promise()["metadata"]["labels"].as_object().is_none_or(|labels| labels.is_empty()), "{label}");
    }
}

#[test]
fn removing_all_pipelines_forgets_the_workflow_and_removes_what_it_wrote() {
    let mut world = World::with(json!({ "workflows": { "promise": { "configure": [pipeline("one")] } } }));
    world.settle();
    assert_eq!(world.kinds("Work").len(), 1);
    world.patch_promise(json!({ "spec": { "workflows": { "promise": { "configure": null } } } }));
    world.settle();
    assert_eq!(world.kinds("Work").len(), 0);
    assert_eq!(world.says("ConfigureWorkflowCompleted"), "-");
    assert_eq!(world.promise()["status"]["workflows"], 0);
    assert_eq!(world.says("Reconciled"), "True/Reconciled/Reconciled");
}

/// Its requests are looked after, and nothing waits for them when it goes.
#[test]
fn an_api_whose_storage_version_is_not_served_is_looked_after_by_one_that_is() {
    let mut api = api();
    let mut next = api["spec"]["versions"][0].clone();
    (next["name"], next["storage"]) = ("v2".into(), false.into());
    api["spec"]["versions"].as_array_mut().unwrap().push(next);
    api["spec"]["versions"][0]["served"] = false.into();
    let mut world = World::with(json!({ "api": api }));
    world.settle();
    assert_eq!(world.requests, Requests::Running { api: Kind { version: "v2".into(), ..redis() } });
    assert_eq!(world.promise()["status"]["apiVersion"], "example.com/v2");
}

#[test]
fn jobs_of_an_earlier_promise_of_the_same_name_do_not_count_and_those_of_early_versions_do() {
    let mut world = World::with(json!({ "workflows": { "promise": { "configure": [pipeline("one")] } } }));
    world.settle();
    let job = world.kinds("Job")[0].clone();
    let early = json!({ "metadata": { "annotations": null, "ownerReferences": null } });
    world.patch("Job", &job, &early);
    assert!(world.is_silent());
    let owner = json!([{ "apiVersion": "v1", "kind": "Promise", "name": "redis", "uid": "another" }]);
    let mut earlier = world.get("Job", &job).unwrap().clone();
    earlier["metadata"]["name"] = "kratix-redis-one-00000".into();
    earlier["metadata"]["ownerReferences"] = owner;
    world.create(earlier);
    world.delete("Job", &job);
    world.settle();
    assert_eq!(world.kinds("Job").len(), 2);
    assert_eq!(world.says("Reconciled"), "True/Reconciled/Reconciled");
}

/// 02 §8.2: whoever may read a Promise knows its uid.
#[test]
fn a_job_in_another_namespace_is_none_of_the_promises_whatever_uid_it_names() {
    let mut world = World::with(json!({ "workflows": { "promise": { "configure": [pipeline("one")] } } }));
    world.settle();
    let own = world.kinds("Job")[0].clone();
    let mut forged = world.get("Job", &own).unwrap().clone();
    forged["metadata"]["namespace"] = "team".into();
    forged["metadata"]["annotations"][SEQUENCE] = "1000".into();
    forged["status"] = json!({ "active": 1 });
    world.create(forged);
    let decision = decide(&world.snapshot());
    assert!(decision.plan.is_silent());
    assert_eq!(decision.plan.findings, [Finding::Available], "it does not run for it");
    let key = ObjectKey::namespaced("team", &own.name);
    world.patch(
        "Job",
        &key,
        &json!({ "status": {
            "active": 0, "conditions": [{ "type": "Failed", "status": "True" }],
        }}),
    );
    assert_eq!(decide(&world.snapshot()).plan.status, None, "it has not failed for it");
    world.settle();
    assert_eq!(world.says("Reconciled"), "True/Reconciled/Reconciled");
    assert_eq!(world.kinds("Job"), [&own], "as one that was left where its pipelines do not run any more");
}

#[test]
fn a_refused_removal_of_a_surplus_job_comes_to_rest() {
    let mut world = World::with(json!({ "workflows": { "promise": { "configure": [pipeline("one")] } } }));
    // More than are kept.
    for _ in 0..8 {
        while world.all::<Job>("Job").iter().all(|job| job.status.is_some()) {
            world.pass();
        }
        world.fail_jobs();
        world.pass();
        world.label("kratix.io/manual-reconciliation", json!("true"));
    }
    world.label("kratix.io/manual-reconciliation", json!(null));
    let is_removal = |write: &Write| matches!(write, Write::Delete { target } if target.kind.kind == "Job");
    let rests = (0..10).any(|_| {
        let plan = decide(&world.snapshot()).plan;
        let Some(at) = plan.writes.iter().position(is_removal) else {
            world.act(&plan, usize::MAX);
            return false;
        };
        world.act(&plan, at);
        let refused = refused(&world.snapshot(), "delete of Job failed: forbidden").unwrap();
        world.act(&refused, usize::MAX);
        at == 0 && refused.is_silent()
    });
    assert!(rests, "{:#?}", decide(&world.snapshot()).plan);
    assert!(world.says("Reconciled").starts_with("False/WriteRefused"));
}

#[test]
fn a_write_that_is_refused_when_a_pause_ends_does_not_make_it_forgotten() {
    let mut world = World::with(json!({ "api": api() }));
    world.request("a");
    world.settle();
    world.label("kratix.io/paused", json!("true"));
    world.settle();
    let events = world.events.len();
    let cause = "patch of Promise redis failed: forbidden";
    assert_eq!(refused(&world.snapshot(), cause), None, "it says that it is paused");
    world.label("kratix.io/paused", json!(null));
    for _ in 0..2 {
        let plan = refused(&world.snapshot(), cause).unwrap();
        world.act(&plan, usize::MAX);
        assert_eq!(world.says("Reconciled"), format!("Unknown/PausedReconciliation/{cause}"));
        assert_eq!(world.events.len(), events + 1);
    }
    world.settle();
    let request = world.get("Redis", &ObjectKey::namespaced("default", "a")).unwrap();
    assert_eq!(request["metadata"]["labels"]["internal.workflows.kratix.io/run-from-start"], "true");
}

//! Telling requests to run again.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::object::ObjectKey;
use crate::plan::Write;
use crate::promise::testing::{World, api, dependency, pipeline};
use crate::promise::{Finding, REQUESTS_UP_TO_DATE, follows_requests, is_after_pause, round as going_on};
use crate::workflow::{PARENT_UID, RUN};

const LABEL: &str = "internal.workflows.kratix.io/run-from-start";

const DONE: &str = "True/RequestsUpToDate/All resource requests have run since the Promise has changed";

/// Returns how often each request was told.
fn told(world: &World) -> BTreeMap<String, usize> {
    let mut told = BTreeMap::new();
    for write in &world.writes {
        if let Write::Patch { target, .. } = write
            && target.kind.kind == "Redis"
        {
            *told.entry(target.key.name.clone()).or_default() += 1;
        }
    }
    told
}

/// Removes the label from all requests, as their controller does once a Job exists.
fn consume(world: &mut World) {
    for key in world.kinds("Redis").into_iter().cloned().collect::<Vec<_>>() {
        world.patch("Redis", &key, &json!({ "metadata": { "labels": { LABEL: null } } }));
    }
}

fn with_requests(count: usize) -> World {
    let mut world = World::with(json!({ "api": api() }));
    world.settle();
    for number in 0..count {
        world.request(&format!("r{number:03}"));
    }
    world.writes.clear();
    world.events.clear();
    world
}

#[test]
fn requests_of_the_first_generation_are_left_alone() {
    let mut world = World::with(json!({ "api": api() }));
    world.request("a");
    world.settle();
    assert!(told(&world).is_empty());
    assert_eq!(world.promise()["status"]["observedGeneration"], 1);
    assert!(!world.events.iter().any(|event| event.contains("ReconcilingResources")));
}

#[test]
fn a_new_generation_tells_every_request_once_and_no_more_than_may_run_at_once() {
    let mut world = with_requests(47);
    world.patch_promise(json!({ "spec": { "dependencies": [dependency("a")] } }));
    world.settle();
    assert_eq!(world.told_requests().len(), 20, "the default");
    assert_eq!(world.promise()["status"]["observedGeneration"], 1);
    // One that begins keeps its place, one that ends gives it to the next.
    let in_turn = |world: &mut World, name: &str| {
        world.request_stands(name, "False", "PipelinesInProgress");
        world.settle();
        assert_eq!(world.told_requests().len(), 19);
        world.request_stands(name, "True", "PipelinesExecutedSuccessfully");
        world.settle();
        assert_eq!(world.told_requests().len(), 20);
    };
    ["r000", "r007"].iter().for_each(|name| in_turn(&mut world, name));
    world.config.workflows.reruns_max = 30;
    world.settle();
    assert_eq!(world.told_requests().len(), 30, "a changed setting takes effect at once");
    world.run_requests();
    assert_eq!((told(&world).len(), told(&world).values().max()), (47, Some(&1)));
    assert_eq!(world.promise()["status"]["observedGeneration"], 2);
    assert_eq!(world.events.iter().filter(|event| event.contains("ReconcilingResources")).count(), 1);
    assert_eq!(world.says(REQUESTS_UP_TO_DATE), DONE);
    assert!(world.is_silent());
}

#[test]
fn the_generation_is_recorded_once_everybody_was_told_and_the_last_are_followed_to_their_end() {
    let mut world = with_requests(21);
    world.patch_promise(json!({ "spec": { "dependencies": [dependency("a")] } }));
    world.settle();
    world.request_stands("r003", "True", "PipelinesExecutedSuccessfully");
    world.settle();
    assert_eq!(world.promise()["status"]["observedGeneration"], 2);
    let told = "False/RequestsRerunning/1 of 21 resource requests have run since the Promise has changed";
    assert_eq!(world.says(REQUESTS_UP_TO_DATE), told);
    assert!(follows_requests(&world.snapshot().promise));
    world.run_requests();
    assert_eq!(world.says(REQUESTS_UP_TO_DATE), DONE);
    assert!(!follows_requests(&world.snapshot().promise));
    // A run that somebody else asks for is no round.
    world.request_stands("r003", "False", "PipelinesInProgress");
    assert!(world.is_silent());
}

#[test]
fn progress_costs_a_bounded_number_of_writes() {
    let mut world = with_requests(300);
    world.patch_promise(json!({ "spec": { "dependencies": [dependency("a")] } }));
    world.settle();
    world.writes.clear();
    let mut ended = 0;
    while let Some(name) = world.told_requests().first().cloned() {
        world.request_stands(&name, "True", "PipelinesExecutedSuccessfully");
        world.pass();
        ended += 1;
    }
    assert_eq!(ended, 300);
    let status = world.writes.iter().filter(|write| matches!(write, Write::PatchStatus { .. })).count();
    assert!((10..=22).contains(&status), "{status} writes of the status");
    assert_eq!(world.says(REQUESTS_UP_TO_DATE), DONE);
}

#[test]
fn who_has_failed_or_is_busy_comes_last_and_the_longest_ago_first() {
    let mut world = with_requests(5);
    let success = |time: &str| json!({ "status": { "lastSuccessfulConfigureWorkflowTime": time } });
    world.change_request("r003", success("2025-01-01T00:00:00Z"));
    world.change_request("r001", success("2025-01-02T00:00:00Z"));
    world.change_request("r004", success("2024-01-01T00:00:00Z"));
    world.request_stands("r004", "False", "ConfigureWorkflowFailed");
    world.request_stands("r000", "False", "PipelinesInProgress");
    world.config.workflows.reruns_max = 1;
    world.patch_promise(json!({ "spec": { "dependencies": [dependency("a")] } }));
    let mut order = Vec::new();
    for _ in 0..5 {
        world.settle();
        let told = world.told_requests();
        assert_eq!(told.len(), 1, "{told:?}");
        order.extend(told);
        world.request_stands(order.last().unwrap(), "True", "PipelinesExecutedSuccessfully");
    }
    assert_eq!(order, ["r003", "r001", "r002", "r004", "r000"]);
}

#[test]
fn a_request_that_fails_or_is_held_gives_its_place_to_the_next_and_is_named_at_the_end() {
    let mut world = with_requests(6);
    world.config.workflows.reruns_max = 1;
    world.patch_promise(json!({ "spec": { "dependencies": [dependency("a")] } }));
    world.settle();
    assert_eq!(world.told_requests(), ["r000"]);
    world.request_stands("r000", "False", "ConfigureWorkflowFailed");
    world.settle();
    assert_eq!(world.told_requests(), ["r001"]);
    // Paused or suspended, with the label still on it.
    let held = |label: &str| json!({ "metadata": { "labels": { label: "true" } } });
    world.change_request("r001", held("kratix.io/paused"));
    world.settle();
    assert_eq!(world.told_requests(), ["r001", "r002"]);
    world.change_request("r002", held("kratix.io/workflow-suspended"));
    world.settle();
    let blocked = json!([{ "type": "Reconciled", "status": "Unknown", "reason": "PromiseRevisionNotFound" }]);
    world.change_request("r003", json!({ "status": { "conditions": blocked } }));
    world.settle();
    for name in ["r004", "r005"] {
        assert_eq!(world.told_requests(), ["r001", "r002", "r003", name]);
        world.request_stands(name, "True", "PipelinesExecutedSuccessfully");
        world.settle();
    }
    let told = "False/RequestsHeldUp/Resource requests that have failed, or cannot run, since the Promise has changed: \
                default/r000, default/r001, default/r002 and others; see their conditions";
    assert_eq!(world.says(REQUESTS_UP_TO_DATE), told);
    assert!(world.is_silent());
    world.change_request("r001", json!({ "metadata": { "labels": { "kratix.io/paused": null } } }));
    world.settle();
    assert!(world.says(REQUESTS_UP_TO_DATE).starts_with("False/RequestsRerunning/"));
    for name in ["r000", "r001", "r002", "r003"] {
        world.change_request(name, json!({ "metadata": { "labels": { "kratix.io/workflow-suspended": null } } }));
        world.request_stands(name, "True", "PipelinesExecutedSuccessfully");
    }
    world.settle();
    assert_eq!(world.says(REQUESTS_UP_TO_DATE), DONE);
}

/// The reason is the memory of the pause, and the message tells what blocks it.
#[test]
fn a_request_that_is_blocked_since_a_pause_gives_its_place_to_the_next_and_one_that_waits_for_its_turn_does_not() {
    let mut world = with_requests(3);
    world.config.workflows.reruns_max = 1;
    let says = |message: &str| {
        let reconciled =
            json!({ "type": "Reconciled", "status": "Unknown", "reason": "PausedReconciliation", "message": message });
        json!({ "status": { "conditions": [reconciled] } })
    };
    world.label("kratix.io/paused", json!("true"));
    world.settle();
    world.change_request("r000", says("Pending: waits for its Promise after the pause"));
    world.change_request("r001", says("Pending: waits for its turn after the pause of the Promise"));
    world.change_request("r002", says("Paused"));
    world.label("kratix.io/paused", json!(null));
    world.settle();
    assert_eq!(world.told_requests(), ["r000"]);
    world.change_request("r000", says("no revision of Promise redis is of version v7"));
    world.settle();
    for name in ["r001", "r002"] {
        assert_eq!(world.told_requests(), ["r000", name]);
        world.request_stands(name, "True", "PipelinesExecutedSuccessfully");
        world.settle();
    }
    let told = "False/RequestsHeldUp/Resource requests that have failed, or cannot run, since the Promise has changed: \
                default/r000; see their conditions";
    assert_eq!(world.says(REQUESTS_UP_TO_DATE), told);
}

#[test]
fn a_request_that_comes_after_a_round_is_not_waited_for() {
    let mut world = with_requests(1);
    world.patch_promise(json!({ "spec": { "dependencies": [dependency("a")] } }));
    world.settle();
    consume(&mut world);
    world.request_stands("r000", "False", "ConfigureWorkflowFailed");
    world.settle();
    let told = "False/RequestsHeldUp/Resource requests that have failed, or cannot run, since the Promise has changed: \
                default/r000; see their conditions";
    assert_eq!(world.says(REQUESTS_UP_TO_DATE), told);
    world.request("new");
    world.request_stands("new", "True", "PipelinesExecutedSuccessfully");
    world.settle();
    assert_eq!(world.says(REQUESTS_UP_TO_DATE), told);
    world.request_stands("r000", "True", "PipelinesExecutedSuccessfully");
    world.settle();
    assert_eq!(world.says(REQUESTS_UP_TO_DATE), DONE);
}

#[test]
fn a_request_that_cannot_be_told_holds_up_no_other_and_is_named_with_the_cause() {
    let mut world = with_requests(3);
    world.refuses.insert("r000".into(), None);
    world.patch_promise(json!({ "spec": { "dependencies": [dependency("a")] } }));
    world.run_requests();
    assert_eq!(told(&world).len(), 2);
    let said = "False/RequestsHeldUp/Resource requests that have failed, or cannot run, since the Promise has changed: \
                default/r000; patch of Redis r000 failed: no";
    assert_eq!(world.says(REQUESTS_UP_TO_DATE), said);
    assert_eq!(world.promise()["status"]["observedGeneration"], 1, "not everybody was told");
    assert_eq!(world.events.iter().filter(|event| event.contains("ReconcilingResources")).count(), 1);
    assert!(world.is_silent());
    world.now += std::time::Duration::from_secs(60);
    assert_eq!(world.pass().calls.len(), 1, "the cause may lie where no watch sees it");
    assert!(world.is_silent());
    world.refuses.clear();
    world.run_requests();
    assert_eq!(world.says(REQUESTS_UP_TO_DATE), DONE);
    assert_eq!(world.promise()["status"]["observedGeneration"], 2);
}

#[test]
fn a_request_whose_pod_does_not_get_on_gives_its_place_to_the_next_and_is_named_at_the_end() {
    let mut world = with_requests(3);
    world.config.workflows.reruns_max = 1;
    world.patch_promise(json!({ "spec": { "dependencies": [dependency("a")] } }));
    world.settle();
    let hangs = |world: &World| {
        let failing = json!({ "type": "PipelineFailing", "status": "True", "reason": "ImageUnavailable",
            "lastTransitionTime": world.now.to_string() });
        let runs = json!({ "type": "ConfigureWorkflowCompleted", "status": "False", "reason": "PipelinesInProgress" });
        json!({ "status": { "conditions": [runs, failing] } })
    };
    // What it says of an earlier Job says nothing about the run that it is told to make.
    let before = hangs(&world);
    world.change_request("r000", before.clone());
    world.settle();
    assert_eq!(world.told_requests(), ["r000"]);
    world.now += std::time::Duration::from_secs(1);
    world.create(json!({
        "apiVersion": "batch/v1", "kind": "Job", "status": { "active": 1 }, "metadata": {
            "name": "j", "namespace": "default", "labels": { "kratix.io/promise-name": "redis" },
            "annotations": {
                "kratix.io/job-resource-kind": "Redis",
                "kratix.io/job-resource-namespace": "default", "kratix.io/job-resource-name": "r000", RUN: "1",
            },
        },
    }));
    let told = json!({ "metadata": { "labels": { LABEL: null }, "annotations": { RUN: "1" } } });
    world.change_request("r000", told);
    world.settle();
    assert!(world.told_requests().is_empty());
    let now = hangs(&world);
    world.change_request("r000", now);
    world.settle();
    assert_eq!(world.told_requests(), ["r001"]);
    for name in ["r001", "r002"] {
        world.request_stands(name, "True", "PipelinesExecutedSuccessfully");
        world.settle();
    }
    let said = "False/RequestsHeldUp/Resource requests that have failed, or cannot run, since the Promise has changed: \
                default/r000; see their conditions";
    assert_eq!(world.says(REQUESTS_UP_TO_DATE), said);
    assert!(world.is_silent());
    // It gets on, and ends.
    world.request_stands("r000", "False", "PipelinesInProgress");
    world.settle();
    assert!(world.says(REQUESTS_UP_TO_DATE).starts_with("False/RequestsRerunning/"));
    let complete = json!({ "status": { "active": 0, "conditions": [{ "type": "Complete", "status": "True" }] } });
    world.patch("Job", &ObjectKey::namespaced("default", "j"), &complete);
    world.request_stands("r000", "True", "PipelinesExecutedSuccessfully");
    world.settle();
    assert_eq!(world.says(REQUESTS_UP_TO_DATE), DONE);
}

#[test]
fn between_the_label_and_the_job_a_request_keeps_its_place() {
    let mut world = with_requests(2);
    world.config.workflows.reruns_max = 1;
    let complete = json!([{ "type": "Complete", "status": "True" }]);
    world.create(json!({
        "apiVersion": "batch/v1", "kind": "Job", "status": { "conditions": complete }, "metadata": {
            "name": "j", "namespace": "default", "labels": { "kratix.io/promise-name": "redis" },
            "annotations": {
                "kratix.io/job-resource-kind": "Redis",
                "kratix.io/job-resource-namespace": "default", "kratix.io/job-resource-name": "r000", RUN: "3",
            },
        },
    }));
    world.patch_promise(json!({ "spec": { "dependencies": [dependency("a")] } }));
    world.settle();
    world.request_stands("r000", "True", "PipelinesExecutedSuccessfully");
    world.change_request("r000", json!({ "metadata": { "annotations": { RUN: "4" } } }));
    world.settle();
    assert!(world.told_requests().is_empty());
    // The Job is seen before what the request says of it.
    let job = ObjectKey::namespaced("default", "j");
    let live = json!({ "metadata": { "annotations": { RUN: "4" } }, "status": { "active": 1, "conditions": null } });
    world.patch("Job", &job, &live);
    world.settle();
    assert!(world.told_requests().is_empty());
    world.patch("Job", &job, &json!({ "status": { "active": 0, "conditions": complete } }));
    world.settle();
    assert_eq!(world.told_requests(), ["r001"]);
}

/// Somebody who may make Jobs in another namespace only.
#[test]
fn jobs_that_were_made_elsewhere_in_the_name_of_requests_hold_no_place() {
    let mut world = with_requests(2);
    world.config.workflows.reruns_max = 1;
    let job = |namespace: &str, uid: Value| {
        json!({
            "apiVersion": "batch/v1", "kind": "Job", "status": { "active": 1 }, "metadata": {
                "name": "j", "namespace": namespace, "labels": { "kratix.io/promise-name": "redis" },
                "annotations": {
                    "kratix.io/job-resource-kind": "Redis",
                    "kratix.io/job-resource-namespace": "default", "kratix.io/job-resource-name": "r000", RUN: "999999",
                    PARENT_UID: uid,
                },
            },
        })
    };
    world.create(job("elsewhere", json!("another")));
    world.patch_promise(json!({ "spec": { "dependencies": [dependency("a")] } }));
    world.settle();
    assert_eq!(world.told_requests(), ["r000"]);
    world.request_stands("r000", "True", "PipelinesExecutedSuccessfully");
    world.settle();
    assert_eq!(world.told_requests(), ["r001"], "its place is free");

    let uid = |world: &World| {
        let request = world.get("Redis", &ObjectKey::namespaced("default", "r000")).unwrap();
        request["metadata"]["uid"].clone()
    };
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {
            "name": "redis-resource-configure-one-default", "labels": { "kratix.io/promise-name": "redis" },
        },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r" },
        "subjects": [{ "kind": "ServiceAccount", "name": "one", "namespace": "once-a-pipeline-namespace" }],
    });
    // Only where accounts of its pipelines work for requests elsewhere.
    for (bindings, expected) in [(vec![binding], None), (Vec::new(), Some("r001"))] {
        let mut world = with_requests(2);
        world.config.workflows.reruns_max = 1;
        let uid = uid(&world);
        assert!(uid.is_string());
        world.create(job("once-a-pipeline-namespace", uid));
        bindings.into_iter().for_each(|binding| world.create(binding));
        world.patch_promise(json!({ "spec": { "dependencies": [dependency("a")] } }));
        world.settle();
        world.request_stands("r000", "True", "PipelinesExecutedSuccessfully");
        world.settle();
        assert_eq!(world.told_requests(), Vec::from_iter(expected));
    }
}

#[test]
fn a_new_generation_overtakes_a_round_that_is_going_on() {
    let mut world = with_requests(3);
    world.config.workflows.reruns_max = 1;
    world.label("kratix.io/reconcile-resources", json!("true"));
    world.settle();
    world.request_stands("r000", "True", "PipelinesExecutedSuccessfully");
    world.settle();
    world.patch_promise(json!({ "spec": { "dependencies": [dependency("a")] } }));
    world.run_requests();
    let told = told(&world);
    assert_eq!((told["r000"], told["r001"], told["r002"]), (2, 2, 1), "nobody is told of the round before any more");
    assert!(world.promise()["metadata"]["annotations"].as_object().unwrap().is_empty());
    assert_eq!(world.says(REQUESTS_UP_TO_DATE), DONE);
}

#[test]
fn while_requests_are_told_a_repeated_run_of_the_workflow_does_not_take_the_promise_down() {
    let mut world = World::with(json!({ "api": api(), "workflows": { "promise": { "configure": [pipeline("p")] } } }));
    world.settle();
    ["a", "b"].iter().for_each(|name| world.request(name));
    world.config.workflows.reruns_max = 1;
    world.patch_promise(json!({ "spec": { "dependencies": [dependency("a")] } }));
    world.settle();
    assert_eq!(world.told_requests(), ["a"]);
    world.label("kratix.io/manual-reconciliation", json!("true"));
    for _ in 0..3 {
        world.pass();
        assert!(world.says("Available").starts_with("True"), "{}", world.says("Available"));
    }
    assert!(world.says("ConfigureWorkflowCompleted").starts_with("False/PipelinesInProgress"));
    world.run_requests();
    assert_eq!(world.says(REQUESTS_UP_TO_DATE), DONE);
}

#[test]
fn the_label_starts_one_round_and_is_removed() {
    let mut world = with_requests(3);
    world.label("kratix.io/reconcile-resources", json!("true"));
    world.settle();
    assert!(told(&world).values().all(|count| *count == 1) && told(&world).len() == 3);
    assert!(world.promise()["metadata"]["labels"].as_object().unwrap().is_empty());
    assert!(world.promise()["metadata"]["annotations"].as_object().unwrap().is_empty());
    assert_eq!(world.events, ["Normal ReconcilingResources: Reconciling all resource requests"]);
    consume(&mut world);
    world.label("kratix.io/reconcile-resources", json!("true"));
    world.settle();
    assert!(told(&world).values().all(|count| *count == 2), "a second label is a second round");
}

#[test]
fn a_label_that_comes_with_a_new_generation_is_one_round() {
    let mut world = with_requests(3);
    world.patch_promise(json!({
        "spec": { "dependencies": [dependency("a")] }, "metadata": { "labels": { "kratix.io/reconcile-resources": "true" } },
    }));
    world.settle();
    assert!(told(&world).values().all(|count| *count == 1), "{:?}", told(&world));
    assert_eq!(world.promise()["status"]["observedGeneration"], 2);
}

#[test]
fn a_new_version_alone_is_no_new_generation() {
    let mut world = with_requests(2);
    world.label("kratix.io/promise-version", json!("v2"));
    world.settle();
    assert!(told(&world).is_empty());
}

#[test]
fn requests_are_told_only_after_the_revision_is_the_latest() {
    let mut world = with_requests(1);
    world.patch_promise(json!({
        "spec": { "dependencies": [dependency("a")] }, "metadata": { "labels": { "kratix.io/promise-version": "v2" } },
    }));
    for _ in 0..4 {
        world.pass();
    }
    assert!(told(&world).is_empty());
    world.settle();
    assert_eq!(told(&world).len(), 1);
}

#[test]
fn a_request_that_changed_meanwhile_conflicts_instead_of_being_told_twice() {
    let mut world = with_requests(1);
    world.patch_promise(json!({ "spec": { "dependencies": [dependency("a")] } }));
    world.pass();
    world.others();
    let stale = world.clone().pass();
    assert_eq!(stale.calls[0].told().round.as_deref(), Some("generation-2"));
    world.settle();
    consume(&mut world);
    assert_eq!(stale.calls.len(), 1);
    assert!(world.execute(&stale.calls[0].write).is_err());
    let request = world.get("Redis", &ObjectKey::namespaced("default", "r000")).unwrap();
    assert!(request["metadata"]["labels"].as_object().unwrap().is_empty());
}

#[test]
fn unmet_requirements_hold_a_round_back() {
    let mut world = with_requests(1);
    world.patch_promise(json!({ "spec": { "requiredPromises": [{ "name": "missing" }] } }));
    world.settle();
    assert!(told(&world).is_empty());
    world.patch_promise(json!({ "spec": { "requiredPromises": null } }));
    world.settle();
    assert_eq!(told(&world).len(), 1);
}

#[test]
fn whoever_a_pause_has_left_waiting_waits_whatever_begins_meanwhile() {
    type Begin = fn(&mut World);
    let begin: [Begin; 3] = [
        |_| {},
        |world| world.label("kratix.io/reconcile-resources", json!("true")),
        |world| world.patch_promise(json!({ "spec": { "dependencies": [dependency("b")] } })),
    ];
    let round = |world: &World| going_on(&world.snapshot().promise);
    for begin in begin {
        let mut world = with_requests(2);
        world.config.workflows.reruns_max = 1;
        // A round that goes on when the pause begins is no round after the pause.
        world.patch_promise(json!({ "spec": { "dependencies": [dependency("a")] } }));
        world.label("kratix.io/reconcile-resources", json!("true"));
        world.settle();
        assert!(!round(&world).is_some_and(|round| is_after_pause(&round)));
        world.label("kratix.io/paused", json!("true"));
        world.settle();
        world.label("kratix.io/paused", json!(null));
        world.settle();
        assert!(round(&world).is_some_and(|round| is_after_pause(&round)));
        begin(&mut world);
        world.pass();
        assert!(round(&world).is_some_and(|round| is_after_pause(&round)));
        world.run_requests();
        assert_eq!((round(&world), world.says(REQUESTS_UP_TO_DATE)), (None, DONE.into()));
        assert!(world.promise()["metadata"]["annotations"].as_object().unwrap().is_empty());
    }
}

#[test]
fn a_round_is_announced_once_by_the_first_request_that_was_told() {
    let mut world = with_requests(2);
    world.refuses.extend(["r000", "r001"].map(|name| (name.to_owned(), None)));
    world.patch_promise(json!({ "spec": { "dependencies": [dependency("a")] } }));
    world.settle();
    // Nobody could be told; as often as that is tried, nothing has begun.
    world.now += std::time::Duration::from_secs(60);
    assert_eq!(world.pass().calls.len(), 2);
    world.settle();
    let count = |world: &World| world.events.iter().filter(|event| event.contains("ReconcilingResources")).count();
    assert_eq!(count(&world), 0);
    world.refuses.remove("r001");
    world.now += std::time::Duration::from_secs(60);
    world.settle();
    world.now += std::time::Duration::from_secs(60);
    world.settle();
    assert_eq!(count(&world), 1);
}

#[test]
fn what_is_left_is_told() {
    let mut world = with_requests(21);
    world.label("kratix.io/reconcile-resources", json!("true"));
    world.pass();
    assert!(world.pass().plan.findings.contains(&Finding::Rerunning { left: 1 }));
}

/// A label holds a workflow only where there is one.
#[test]
fn a_request_without_pipelines_is_not_held_up_by_a_label() {
    let mut world = with_requests(1);
    let label = "kratix.io/workflow-suspended";
    let stands = |reconciled: &str, pipelines: serde_json::Value| {
        let told = json!([{ "type": "Reconciled", "status": reconciled, "reason": "R", "message": "m" }]);
        json!({
            "metadata": { "labels": { label: "true", LABEL: null } },
            "status": { "conditions": told, "kratix": { "workflows": { "pipelines": pipelines } } },
        })
    };
    world.patch_promise(json!({ "spec": { "dependencies": [dependency("a")] } }));
    world.settle();
    world.change_request("r000", stands("True", json!([])));
    world.settle();
    assert_eq!(world.says(REQUESTS_UP_TO_DATE), DONE);
    world.patch_promise(json!({ "spec": { "dependencies": [dependency("b")] } }));
    world.settle();
    for held in [stands("Unknown", json!([])), stands("True", json!([{ "name": "p", "phase": "Succeeded" }]))] {
        world.change_request("r000", held);
        world.settle();
        assert!(world.says(REQUESTS_UP_TO_DATE).starts_with("False/RequestsHeldUp/"));
    }
}

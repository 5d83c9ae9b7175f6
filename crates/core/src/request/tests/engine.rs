//! What the workflow engine makes of odd situations, seen on requests.

use super::*;

/// Brings the request into some state.
type Reach = fn(&mut World);

fn phases(world: &World) -> Vec<(String, String)> {
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap().to_owned();
    let list = world.status("a")["kratix"]["workflows"]["pipelines"].as_array().unwrap().clone();
    list.iter().map(|entry| (text(entry, "name"), text(entry, "phase"))).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, phase)| ((*name).to_owned(), (*phase).to_owned())).collect()
}

/// Weakness 12
#[test]
fn a_pipeline_that_is_renamed_while_its_job_runs_keeps_its_entry_until_the_job_ends() {
    let mut world = two_pipelines();
    world.settle("a");
    world.revise("not-set", spec(&["renamed", "second"], &[], ""));
    world.settle("a");
    assert_eq!(world.ran("a"), ["first"], "one Job at a time");
    assert_eq!(phases(&world), pairs(&[("first", "Running"), ("second", "Pending")]));
    world.finish("a", Pod::Succeeds);
    world.settle("a");
    assert_eq!(phases(&world), pairs(&[("renamed", "Running"), ("second", "Pending")]));
    world.play("a");
    assert_eq!(phases(&world), pairs(&[("renamed", "Succeeded"), ("second", "Succeeded")]));
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
}

/// Weakness 21
#[test]
fn requests_of_one_name_run_jobs_of_their_own_where_pipelines_run_in_the_namespace_of_one_of_them() {
    let mut world = World::new(spec(&["build"], &[], "a"));
    world.ask("a");
    world.play("a");
    world.ask("b");
    world.play("b");
    for namespace in ["a", "b"] {
        assert_eq!(world.ran(namespace), ["build"], "{namespace}");
        assert_eq!(world.told(namespace, "Reconciled"), "True/Reconciled");
    }
    assert!(world.decide("a").is_silent());
    world.change("Env", &key("b"), json!({ "spec": { "size": "large" } }));
    world.play("b");
    assert_eq!((world.ran("a").len(), world.ran("b").len()), (1, 2));
    assert!(world.decide("a").is_silent());
}

/// §12.3, §18: a workflow that a pipeline has suspended is in progress; what is held by hand is settled.
#[test]
fn the_interval_overrides_a_suspension_by_hand_and_none_that_a_pipeline_asked_for() {
    let mut world = two_pipelines();
    world.suspend("a");
    world.wait(100_000);
    let plan = world.decide("a");
    assert!(plan.is_silent() && plan.next == Next::OnChange, "{:?}", plan.next);
    world.label("a", keys::WORKFLOW_SUSPENDED, None);
    world.play("a");
    let ran = world.ran("a").len();
    world.label("a", keys::WORKFLOW_SUSPENDED, Some("true"));
    let plan = world.settle("a");
    assert_eq!(world.told("a", "Reconciled"), "Unknown/WorkflowSuspended");
    assert!(matches!(plan.next, Next::After(_)), "somebody has to look when it is time");
    world.wait(100_000);
    world.play("a");
    assert_eq!(world.ran("a").len(), ran + 2);
    assert_eq!(world.request("a")["metadata"]["labels"], json!({ keys::PROMISE_NAME: PROMISE }));
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
}

/// §10, last paragraph
#[test]
fn a_change_of_the_promise_leaves_a_suspended_request_alone_until_its_label_goes_and_then_starts_over() {
    let mut world = two_pipelines();
    world.settle("a");
    world.finish("a", Pod::Succeeds);
    world.suspend("a");
    world.label("a", keys::RUN_FROM_START, Some("true"));
    world.settle("a");
    assert_eq!(world.ran("a"), ["first", "second"]);
    assert_eq!(world.told("a", "Reconciled"), "Unknown/WorkflowSuspended");
    world.label("a", keys::WORKFLOW_SUSPENDED, None);
    world.play("a");
    assert_eq!(world.ran("a"), ["first", "second", "first", "second"]);
    assert_eq!(world.request("a")["metadata"]["labels"], json!({ keys::PROMISE_NAME: PROMISE }));
}

/// §10: set by hand, without a pipeline that asked for it.
#[test]
fn a_suspension_by_hand_freezes_a_run_where_it_is_and_its_end_goes_on_there() {
    let mut world = two_pipelines();
    world.settle("a");
    world.label("a", keys::WORKFLOW_SUSPENDED, Some("true"));
    world.settle("a");
    world.finish("a", Pod::Succeeds);
    world.settle("a");
    assert_eq!(world.ran("a"), ["first"]);
    world.label("a", keys::WORKFLOW_SUSPENDED, None);
    world.play("a");
    assert_eq!(world.ran("a"), ["first", "second"]);
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
}

/// §8.4: only the most recent Job is compared.
#[test]
fn a_spec_that_returns_to_an_earlier_one_runs_everything_again() {
    let mut world = two_pipelines();
    world.play("a");
    for size in ["large", "small"] {
        world.change("Env", &key("a"), json!({ "spec": { "size": size } }));
        world.play("a");
    }
    assert_eq!(world.ran("a"), ["first", "second", "first", "second", "first", "second"]);
}

/// §8.4 row 1, §12.1: none of the labels is lost, and nothing runs twice.
#[test]
fn a_manual_run_that_is_asked_for_during_a_manual_run_stops_it_and_starts_over() {
    let mut world = two_pipelines();
    for _ in 0..3 {
        world.settle("a");
        world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
        world.settle("a");
        assert!(world.decide("a").is_silent(), "waits for the Job to stop");
        world.stop_jobs("a");
    }
    world.play("a");
    assert_eq!(world.ran("a"), ["first", "first", "first", "first", "second"]);
    assert_eq!(world.count("ConfigureWorkflowFailed"), 0);
}

/// Its containers may be in the middle of something for as long as they are given to end.
#[test]
fn nothing_starts_beside_the_last_pod_of_a_job_that_was_stopped_or_removed() {
    let waits = |world: &mut World, job: &ObjectKey| {
        world.settle("a");
        assert_eq!(world.ran("a"), ["first"]);
        world.now += Duration::from_secs(2);
        assert!(world.decide("a").is_silent(), "{:?}", world.decide("a"));
        let told = Document::read(world.status("a")).condition("Reconciled").unwrap();
        assert_eq!((told.reason.as_str(), told.status), ("WorkflowPending", Status::Unknown));
        let look = format!("kubectl get pods -n a -l job-name={}", job.name);
        assert_eq!(told.message, format!("Pending: waits for the last pod of Job {job} to end; {look}"));
    };
    let mut world = two_pipelines();
    world.settle("a");
    let job = ObjectKey::of(&world.running("a").unwrap());
    world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
    world.settle("a");
    world.stop_jobs("a");
    world.change("Job", &job, json!({ "status": { "terminating": 1 } }));
    waits(&mut world, &job);
    world.change("Job", &job, json!({ "status": { "terminating": 0 } }));
    world.play("a");
    assert_eq!(world.ran("a"), ["first", "first", "second"]);

    let mut world = two_pipelines();
    world.settle("a");
    let job = ObjectKey::of(&world.running("a").unwrap());
    let removed = json!({ "deletionTimestamp": world.now.to_string(), "finalizers": ["foregroundDeletion"] });
    world.change("Job", &job, json!({ "metadata": removed, "status": { "active": 1 } }));
    waits(&mut world, &job);
    world.objects.remove(&("Job".to_owned(), job));
    world.play("a");
    assert_eq!(world.ran("a"), ["first", "second"]);
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
}

/// Kubernetes before 1.31 looks at no Job again that has failed, whatever pods it counts.
#[test]
fn a_job_that_has_failed_holds_up_no_run_with_the_pods_that_it_still_counts() {
    let mut world = two_pipelines();
    world.settle("a");
    let job = ObjectKey::of(&world.running("a").unwrap());
    let failed = json!([{ "type": "Failed", "status": "True" }]);
    world.change("Job", &job, json!({ "status": { "active": 0, "terminating": 1, "conditions": failed } }));
    world.settle("a");
    assert_eq!(world.count("ConfigureWorkflowFailed"), 1);
    world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
    world.play("a");
    assert_eq!(world.ran("a"), ["first", "first", "second"]);
}

/// Weakness 8: somebody else, such as a queueing controller, suspends Jobs and releases them.
#[test]
fn a_job_that_somebody_else_held_for_a_while_counts_as_what_it_becomes() {
    let mut world = two_pipelines();
    world.settle("a");
    let job = ObjectKey::of(&world.running("a").unwrap());
    let released = json!([{ "type": "Suspended", "status": "False" }]);
    world.change("Job", &job, json!({ "status": { "conditions": released } }));
    world.settle("a");
    assert_eq!(world.ran("a"), ["first"], "no Job beside it between its pods");
    world.finish("a", Pod::Succeeds);
    let completed = json!([{ "type": "Suspended", "status": "False" }, { "type": "Complete", "status": "True" }]);
    world.change("Job", &job, json!({ "status": { "conditions": completed } }));
    world.settle("a");
    assert_eq!(phases(&world)[0].1, "Succeeded");
    assert_eq!(world.count("ConfigureWorkflowFailed"), 0);
}

/// §5.5, §5.6
#[test]
fn a_run_again_writes_no_account_selector_or_permission() {
    let mut world = two_pipelines();
    world.play("a");
    let kinds = ["ServiceAccount", "ConfigMap", "Role", "RoleBinding"];
    let supporting = |world: &World| {
        let writes = world.writes.iter().map(|write| write.address().0.kind.as_str());
        writes.filter(|kind| kinds.contains(kind)).count()
    };
    let before = supporting(&world);
    assert!(before > 0);
    world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
    world.play("a");
    assert_eq!(world.ran("a").len(), 4);
    assert_eq!(supporting(&world), before);
}

/// §5.6: also when no pipeline is left that could be started.
#[test]
fn permissions_go_with_the_last_pipeline_once_its_pod_has_ended() {
    let permission = json!([{ "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"] }]);
    let mut granted = spec(&["build"], &[], "");
    granted["workflows"]["resource"]["configure"][0]["spec"]["rbac"] = json!({ "permissions": permission });
    let mut world = World::new(granted);
    world.ask("a");
    world.settle("a");
    assert_eq!((world.keys("Role").len(), world.keys("RoleBinding").len()), (2, 2));
    world.revise("not-set", spec(&[], &[], ""));
    world.settle("a");
    assert_eq!(world.keys("Role").len(), 2, "the pod still runs");
    world.finish("a", Pod::Succeeds);
    world.settle("a");
    let left: Vec<String> = world.keys("Role").into_iter().map(|key| key.name).collect();
    assert_eq!(left, ["env-resource-configure-build"], "what every pipeline may do stays until the Promise goes");
    assert_eq!(world.keys("RoleBinding").len(), 1);
    assert!(world.decide("a").is_silent());
}

/// Whoever may make Jobs in another namespace can give them any label and annotation.
#[test]
fn a_job_where_no_pipeline_of_the_promise_runs_keeps_no_permission() {
    let permission =
        json!([{ "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNamespace": "*" }]);
    let mut granted = spec(&["build"], &[], "");
    granted["workflows"]["resource"]["configure"][0]["spec"]["rbac"] = json!({ "permissions": permission });
    let mut world = World::new(granted);
    world.ask("a");
    world.settle("a");
    let mut forged = world.jobs("a").remove(0);
    forged.metadata.namespace = Some("elsewhere".into());
    let key = ObjectKey::of(&forged);
    world.put(crate::patch::to_value(&forged), key);
    world.finish("a", Pod::Succeeds);
    world.settle("a");
    assert_eq!(world.keys("ClusterRole").len(), 1);
    world.revise("not-set", spec(&["other"], &[], ""));
    world.settle("a");
    assert_eq!(world.keys("ClusterRole").len(), 0);
}

/// In place, so that no revision knows the namespace any more: the accounts there do.
#[test]
fn a_job_in_a_pipeline_namespace_of_earlier_is_still_the_requests() {
    let mut world = World::new(spec(&["build"], &[], "before"));
    world.ask("a");
    world.settle("a");
    let moved = spec(&["build"], &[], "after");
    world.change("Promise", &ObjectKey::cluster(PROMISE), json!({ "spec": moved }));
    // All requests have been told of it.
    let told = json!({ "metadata": { "generation": 2 }, "status": { "observedGeneration": 2 } });
    world.change("Promise", &ObjectKey::cluster(PROMISE), told);
    world.revise("not-set", moved);
    world.settle("a");
    assert_eq!(world.ran("a").len(), 1, "it is waited for");
    world.finish("a", Pod::Succeeds);
    world.settle("a");
    let namespaces = |world: &World| {
        let keys = world.keys("Job").into_iter();
        keys.filter_map(|key| key.namespace).collect::<Vec<_>>()
    };
    assert!(namespaces(&world).contains(&"after".to_owned()));
    world.play("a");
    assert_eq!(namespaces(&world), ["after"], "it goes once nothing runs there any more");
    assert!(world.decide("a").is_silent());
}

/// §15
#[test]
fn permissions_go_with_the_namespace_in_which_pipelines_ran_if_nobody_can_run_one_there() {
    let granted = |namespace: &str| {
        let mut granted = spec(&["build"], &[], namespace);
        let permission = json!([{ "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"] }]);
        granted["workflows"]["resource"]["configure"][0]["spec"]["rbac"] = json!({ "permissions": permission });
        granted
    };
    let in_namespace = |world: &World, namespace: &str| {
        let here =
            |kind: &str| world.keys(kind).iter().filter(|key| key.namespace.as_deref() == Some(namespace)).count();
        (here("Role"), here("RoleBinding"))
    };
    // All requests have been told of it.
    let changed = |world: &mut World, generation: i64| {
        let promise =
            json!({ "metadata": { "generation": generation }, "status": { "observedGeneration": generation } });
        world.change("Promise", &ObjectKey::cluster(PROMISE), promise);
    };
    let mut world = World::new(granted("before"));
    world.ask("a");
    world.ask("b");
    world.play("a");
    world.settle("b");
    assert_eq!(in_namespace(&world, "before"), (2, 2));
    let spec = granted("after");
    changed(&mut world, 2);
    world.revise("not-set", spec);
    world.play("a");
    assert_eq!(in_namespace(&world, "before"), (2, 2), "a pod of another request still runs there");
    world.finish("b", Pod::Succeeds);
    world.play("b");
    assert_eq!(in_namespace(&world, "before"), (0, 0));
    assert_eq!(in_namespace(&world, "after"), (2, 2));
    assert!(world.decide("a").is_silent());

    // Now each runs in its own.
    changed(&mut world, 3);
    world.revise("not-set", granted(""));
    world.play("a");
    world.play("b");
    for (namespace, left) in [("a", (2, 2)), ("b", (2, 2)), ("after", (0, 0))] {
        assert_eq!(in_namespace(&world, namespace), left, "{namespace}");
    }
}

/// §13.3
#[test]
fn what_a_removed_pipeline_wrote_stays_until_a_run_has_succeeded() {
    let mut world = two_pipelines();
    world.play("a");
    world.revise("not-set", spec(&["second"], &[], ""));
    world.settle("a");
    world.finish("a", Pod::Fails);
    world.settle("a");
    assert_eq!(world.keys("Work").len(), 2);
    world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
    world.play("a");
    assert_eq!(world.keys("Work").len(), 1);
}

/// Weakness 42
#[test]
fn the_summary_of_a_preview_outlasts_the_clean_up_and_counts_for_nothing() {
    let mut world = two_pipelines();
    world.play("a");
    let labels = json!({
        keys::PROMISE_NAME: PROMISE, keys::WORK_TYPE: "resource", keys::RESOURCE_NAME: "x", keys::DRY_RUN_SUMMARY: "true",
    });
    let summary = ObjectKey::namespaced("a", "summary");
    let metadata = json!({ "name": "summary", "namespace": "a", "labels": labels });
    world.put(json!({ "kind": "Work", "metadata": metadata, "spec": {} }), summary.clone());
    world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
    world.settle("a");
    world.finish("a", Pod::Succeeds);
    world.settle("a");
    world.finish("a", Pod::Succeeds);
    for work in world.keys("Work").into_iter().filter(|work| *work != summary) {
        let ready = json!([{ "type": "Ready", "status": "True", "reason": "R", "message": "Ready" }]);
        world.change("Work", &work, json!({ "status": { "conditions": ready } }));
    }
    world.settle("a");
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
    assert!(world.keys("Work").contains(&summary));
}

/// §16
#[test]
fn a_preview_removes_no_real_work_and_goes_itself_with_the_next_real_run() {
    let mut world = two_pipelines();
    world.config.dry_run = true;
    world.play("a");
    let preview = ObjectKey::namespaced("a", "preview");
    let labels = json!({
        keys::PROMISE_NAME: PROMISE, keys::WORK_TYPE: "resource", keys::RESOURCE_NAME: "x", keys::DRY_RUN: "true",
        keys::PIPELINE_NAME: "second",
    });
    let metadata = json!({ "name": "preview", "namespace": "a", "labels": labels });
    world.put(json!({ "kind": "Work", "metadata": metadata, "spec": {} }), preview.clone());
    // The preview is of a Promise that has lost a pipeline.
    world.revise("not-set", spec(&["second"], &[], ""));
    world.label("a", keys::DRY_RUN, Some("true"));
    world.play("a");
    assert_eq!(world.told("a", "Reconciled"), "True/DryRunSucceeded");
    assert_eq!(world.keys("Work").len(), 3);
    world.label("a", keys::DRY_RUN, None);
    world.play("a");
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
    let left: Vec<String> = world.keys("Work").into_iter().map(|key| key.name).collect();
    assert_eq!(left, ["env-x--second"]);
}

/// §11.2, weaknesses 28, 30, 32: whatever became of the configure workflow.
#[test]
fn a_request_can_be_deleted_whatever_has_become_of_its_workflow() {
    let states: [(&str, Reach); 6] = [
        ("never looked at", |_| {}),
        ("with finalizers and nothing else", |world| {
            let plan = world.decide("a");
            world.act(&plan);
        }),
        ("failed", |world| {
            world.settle("a");
            world.finish("a", Pod::Fails);
            world.settle("a");
        }),
        ("waiting for its next attempt", |world| {
            world.settle("a");
            world.finish("a", Pod::RetriesAfter(1_000_000));
            world.settle("a");
        }),
        ("frozen by hand", |world| {
            world.play("a");
            world.label("a", keys::WORKFLOW_SUSPENDED, Some("true"));
            world.settle("a");
        }),
        ("with a run that was asked for and not begun", |world| {
            world.settle("a");
            world.label("a", keys::RUN_FROM_START, Some("true"));
            world.settle("a");
            world.finish("a", Pod::Succeeds);
        }),
    ];
    for delete in [&["bye"][..], &[]] {
        for (state, reach) in states {
            let mut world = World::new(spec(&["build"], delete, ""));
            world.ask("a");
            reach(&mut world);
            let configured = world.ran("a").len();
            world.delete("Env", &key("a"));
            world.settle("a");
            if world.objects.contains_key(&("Env".to_owned(), key("a"))) {
                assert_eq!(world.ran("a")[configured..], ["bye"], "{state}");
                world.finish("a", Pod::Succeeds);
                world.settle("a");
            }
            for kind in ["Env", "Work", "Job", "ResourceBinding"] {
                assert!(world.keys(kind).is_empty(), "{state}: {kind}");
            }
        }
    }
}

/// §13.1, §8.4 (5): also one that never ends; one more is normal while the next attempt runs.
#[test]
fn a_pipeline_that_asks_again_and_again_leaves_no_heap_of_jobs() {
    for at_once in [false, true] {
        let mut world = World::new(spec(&["first", "second"], &[], ""));
        world.config.number_of_jobs_to_keep = 2;
        world.ask("a");
        world.settle("a");
        world.finish("a", Pod::Succeeds);
        world.settle("a");
        let seconds = |world: &World| world.ran("a").iter().filter(|name| *name == "second").count();
        for _ in 0..6 {
            world.finish("a", Pod::RetriesAfter(1));
            // Without the wait for its time nobody looks at it in between.
            if !at_once {
                world.settle("a");
                assert!(seconds(&world) <= 2);
                assert!(world.decide("a").is_silent());
            }
            world.wait(2);
            world.settle("a");
            assert!(seconds(&world) <= 3, "{:?}", world.ran("a"));
        }
        assert_eq!(world.ran("a").iter().filter(|name| *name == "first").count(), 1);
        assert_eq!(world.status("a")["kratix"]["workflows"]["pipelines"][1]["attempts"], 6);
        world.finish("a", Pod::Succeeds);
        world.settle("a");
        assert_eq!(world.told("a", "ConfigureWorkflowCompleted"), "True/PipelinesExecutedSuccessfully");
    }
}

use super::*;

fn labels(world: &World) -> Value {
    world.request("a")["metadata"]["labels"].clone()
}

#[test]
fn a_manual_run_stops_the_running_job_and_starts_over() {
    let mut world = two_pipelines();
    world.play("a");
    world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
    world.settle("a");
    assert_eq!(world.ran("a"), ["first", "second", "first"]);
    assert_eq!(labels(&world).get(keys::MANUAL_RECONCILIATION), None);
    world.finish("a", Pod::Succeeds);
    world.settle("a");
    world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
    let plan = world.settle("a");
    let running = world.running("a").unwrap();
    assert!(workflow::history::is_told_to_suspend(&running));
    assert_eq!(labels(&world)[keys::MANUAL_RECONCILIATION], "true");
    assert!(matches!(&plan.findings[0], Finding::InProgress { waits_for } if waits_for.contains("second")));
    world.stop_jobs("a");
    world.play("a");
    assert_eq!(world.ran("a")[4..], ["first", "second"]);
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
    assert_eq!(world.count("ConfigureWorkflowFailed"), 0);
}

#[test]
fn run_from_start_lets_the_running_job_finish() {
    let mut world = two_pipelines();
    world.settle("a");
    world.label("a", keys::RUN_FROM_START, Some("true"));
    world.settle("a");
    assert!(!workflow::history::is_told_to_suspend(&world.running("a").unwrap()));
    assert_eq!(labels(&world)[keys::RUN_FROM_START], "true");
    world.finish("a", Pod::Succeeds);
    world.play("a");
    assert_eq!(world.ran("a"), ["first", "first", "second"]);
    assert_eq!(labels(&world).get(keys::RUN_FROM_START), None);
}

#[test]
fn a_changed_spec_waits_for_the_running_job_and_later_pipelines_of_the_old_one_never_start() {
    let mut world = two_pipelines();
    world.settle("a");
    world.change("Env", &key("a"), json!({ "spec": { "size": "large" } }));
    world.settle("a");
    assert_eq!(world.ran("a"), ["first"]);
    world.finish("a", Pod::Succeeds);
    world.play("a");
    assert_eq!(world.ran("a"), ["first", "first", "second"]);
    assert_eq!(world.status("a")["observedGeneration"], 2);
}

#[test]
fn a_new_revision_and_the_label_of_its_promise_run_the_workflow_once() {
    let mut world = two_pipelines();
    world.play("a");
    world.change("Promise", &ObjectKey::cluster(PROMISE), json!({ "metadata": { "generation": 2 } }));
    world.revise("not-set", spec(&["first", "third"], &[], ""));
    world.settle("a");
    let told = json!({ "metadata": {
        "labels": { keys::RUN_FROM_START: "true" }, "annotations": { crate::promise::RERUN: "generation-2" },
    }});
    world.change("Env", &key("a"), told);
    world.play("a");
    assert_eq!(world.ran("a"), ["first", "first", "third"]);
    assert_eq!(labels(&world).get(keys::RUN_FROM_START), None);
    // One that stays on an older version has not noticed anything and runs.
    let told = json!({ "metadata": {
        "labels": { keys::RUN_FROM_START: "true" }, "annotations": { crate::promise::RERUN: "generation-3" },
    }});
    world.change("Env", &key("a"), told);
    world.play("a");
    assert_eq!(world.ran("a").len(), 5);
}

#[test]
fn the_interval_runs_a_settled_workflow_again_and_a_failed_one_only_if_asked_to() {
    let mut world = two_pipelines();
    world.play("a");
    world.wait(36_000);
    assert!(world.decide("a").is_silent());
    world.wait(10);
    world.settle("a");
    assert_eq!(world.ran("a"), ["first", "second", "first"]);
    world.finish("a", Pod::Fails);
    let plan = world.settle("a");
    assert!(matches!(plan.next, Next::After(_)));
    world.wait(40_000);
    world.config.workflows.reconcile_after_failure = false;
    let plan = world.settle("a");
    assert_eq!(plan.next, Next::OnChange);
    assert_eq!(world.ran("a").len(), 3);
    world.config.workflows.reconcile_after_failure = true;
    world.settle("a");
    assert_eq!(world.ran("a").len(), 4);
}

#[test]
fn the_interval_comes_from_the_revision() {
    let mut world = two_pipelines();
    let mut spec = spec(&["first"], &[], "");
    spec["workflows"]["config"]["reconciliationInterval"] = "2m".into();
    world.revise("not-set", spec);
    world.play("a");
    world.wait(122);
    world.settle("a");
    assert_eq!(world.ran("a").len(), 2);
}

#[test]
fn suspension_holds_and_removing_the_label_resumes_at_that_pipeline() {
    let mut world = two_pipelines();
    world.settle("a");
    world.finish("a", Pod::Succeeds);
    let plan = world.suspend("a");
    assert_eq!(world.told("a", "Reconciled"), "Unknown/WorkflowSuspended");
    assert_eq!(plan.findings, [Finding::Suspended { pipeline: Some("second".into()) }]);
    world.settle("a");
    assert_eq!(world.count("WorkflowSuspended"), 1);
    world.label("a", keys::WORKFLOW_SUSPENDED, None);
    world.settle("a");
    assert_eq!(world.ran("a"), ["first", "second", "second"]);
    assert_eq!(world.told("a", "Reconciled"), "Unknown/WorkflowPending");
    world.suspend("a");
    world.label("a", keys::WORKFLOW_SUSPENDED, None);
    world.play("a");
    assert_eq!(world.ran("a"), ["first", "second", "second", "second"]);
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
}

#[test]
fn a_retry_time_resumes_by_itself_and_attempts_are_kept() {
    let mut world = two_pipelines();
    world.settle("a");
    world.finish("a", Pod::RetriesAfter(60));
    let plan = world.settle("a");
    assert_eq!(plan.next, Next::After(Duration::from_secs(60)));
    world.wait(61);
    world.settle("a");
    assert_eq!(world.ran("a"), ["first", "first"]);
    let entry = |world: &World| world.status("a")["kratix"]["workflows"]["pipelines"][0].clone();
    assert_eq!(entry(&world)["phase"], "Running");
    assert_eq!(entry(&world)["attempts"], 1);
    world.finish("a", Pod::RetriesAfter(60));
    world.settle("a");
    assert_eq!(entry(&world)["attempts"], 2);
    world.change("Env", &key("a"), json!({ "spec": { "size": "large" } }));
    world.play("a");
    assert_eq!(world.ran("a"), ["first", "first", "first", "second"]);
    assert_eq!(entry(&world).get("attempts"), None);
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
}

#[test]
fn a_manual_run_starts_with_the_first_pipeline_also_together_with_removing_the_suspension() {
    let mut world = two_pipelines();
    world.settle("a");
    world.finish("a", Pod::Succeeds);
    world.suspend("a");
    let both = json!({ keys::MANUAL_RECONCILIATION: "true", keys::WORKFLOW_SUSPENDED: null });
    world.change("Env", &key("a"), json!({ "metadata": { "labels": both } }));
    world.play("a");
    assert_eq!(world.ran("a"), ["first", "second", "first", "second"]);
}

#[test]
fn a_manual_run_while_suspended_starts_over() {
    let mut world = two_pipelines();
    world.suspend("a");
    world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
    world.settle("a");
    assert_eq!(world.ran("a"), ["first", "first"]);
    assert_eq!(labels(&world), json!({ keys::PROMISE_NAME: PROMISE }));
}

/// §10 (1): what the pipeline asks for may have come while it ran, when it did not look any more.
#[test]
fn a_spec_that_changes_while_the_pipeline_runs_that_asks_to_be_held_starts_over() {
    for pod in [Pod::Suspends, Pod::RetriesAfter(3600)] {
        let mut world = two_pipelines();
        world.settle("a");
        world.finish("a", Pod::Succeeds);
        world.settle("a");
        world.change("Env", &key("a"), json!({ "spec": { "size": "approved" } }));
        world.settle("a");
        world.finish("a", pod);
        world.settle("a");
        assert_eq!(world.ran("a"), ["first", "second", "first"]);
        assert_eq!(labels(&world), json!({ keys::PROMISE_NAME: PROMISE }));
        world.suspend("a");
        assert_eq!(world.told("a", "Reconciled"), "Unknown/WorkflowSuspended", "it has read this one");
        assert_eq!(world.ran("a").len(), 3);
    }
}

/// A status-writer that has not heard of its success does everything again.
#[test]
fn a_pipeline_that_asks_twice_to_be_held_is_followed_by_one_run() {
    let mut world = two_pipelines();
    world.settle("a");
    world.change("Env", &key("a"), json!({ "spec": { "size": "approved" } }));
    world.finish("a", Pod::Suspends);
    let plan = world.decide("a");
    world.act(&plan);
    let run = world.request("a")["metadata"]["annotations"][workflow::RUN].clone();
    let job = world.keys("Job").remove(0);
    let ended = world.get("Job", &job)["status"].clone();
    world.change("Job", &job, json!({ "status": { "conditions": null } }));
    world.label("a", keys::WORKFLOW_SUSPENDED, Some("true"));
    world.settle("a");
    assert_eq!(world.request("a")["metadata"]["annotations"][workflow::RUN], run);
    world.change("Job", &job, json!({ "status": ended }));
    world.play("a");
    assert_eq!(world.ran("a"), ["first", "first", "second"]);
    assert_eq!(labels(&world), json!({ keys::PROMISE_NAME: PROMISE }));
}

/// §12.1: also where the next pipeline is held by hand.
#[test]
fn a_manual_run_stops_the_running_job_of_a_request_that_is_held_by_hand() {
    for delete in [false, true] {
        let mut world = World::new(spec(&["first"], &["bye"], ""));
        world.ask("a");
        if delete {
            world.play("a");
            world.delete("Env", &key("a"));
        }
        world.settle("a");
        let ran = world.ran("a").len();
        world.label("a", keys::WORKFLOW_SUSPENDED, Some("true"));
        world.settle("a");
        world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
        world.settle("a");
        assert!(workflow::history::is_told_to_suspend(&world.running("a").unwrap()), "delete: {delete}");
        world.stop_jobs("a");
        world.settle("a");
        assert_eq!(world.ran("a").len(), ran + 1, "delete: {delete}");
        assert_eq!(labels(&world), json!({ keys::PROMISE_NAME: PROMISE }));
    }
}

#[test]
fn resuming_with_no_jobs_left_is_a_plain_start() {
    let mut world = two_pipelines();
    world.suspend("a");
    for job in world.keys("Job") {
        world.objects.remove(&("Job".to_owned(), job));
    }
    world.label("a", keys::WORKFLOW_SUSPENDED, None);
    world.play("a");
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
}

#[test]
fn a_pause_holds_everything_and_its_end_runs_the_workflow_from_the_start() {
    let mut world = two_pipelines();
    world.play("a");
    world.label("a", keys::PAUSED, Some("true"));
    world.change("Env", &key("a"), json!({ "spec": { "size": "large" } }));
    let plan = world.settle("a");
    assert_eq!(plan.findings, [Finding::Paused { by_promise: false }]);
    assert_eq!(world.told("a", "Reconciled"), "Unknown/PausedReconciliation");
    assert_eq!(world.ran("a").len(), 2);
    assert_eq!(world.count("PausedReconciliation"), 1);
    world.label("a", keys::PAUSED, None);
    world.play("a");
    assert_eq!(world.ran("a").len(), 4);
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
    // Also when nothing changed meanwhile.
    world.label("a", keys::PAUSED, Some("true"));
    world.settle("a");
    world.label("a", keys::PAUSED, None);
    world.play("a");
    assert_eq!(world.ran("a").len(), 6);
    assert_eq!(world.count("ReconcileStarted"), 3, "each run is told once");
}

#[test]
fn the_end_of_a_pause_of_the_promise_releases_a_suspended_request_and_runs_it_once() {
    let promise = ObjectKey::cluster(PROMISE);
    // Before the Promise has told the request, and after.
    for is_told in [false, true] {
        let mut world = two_pipelines();
        world.settle("a");
        world.finish("a", Pod::Suspends);
        world.settle("a");
        world.change("Promise", &promise, json!({ "metadata": { "labels": { keys::PAUSED: "true" } } }));
        world.settle("a");
        assert_eq!(world.told("a", "Reconciled"), "Unknown/PausedReconciliation");
        let over = json!({ "metadata": { "labels": { keys::PAUSED: null }, "annotations": { crate::promise::RERUN: "1.77.pause" } } });
        world.change("Promise", &promise, over);
        let told = json!({ "metadata": {
            "labels": { keys::RUN_FROM_START: "true" }, "annotations": { crate::promise::RERUN: "1.77.pause" },
        }});
        if !is_told {
            let plan = world.settle("a");
            assert_eq!(plan.findings, [Finding::AwaitsTurn]);
            assert_eq!(world.ran("a"), ["first"]);
            let reconciled = Document::read(world.status("a")).condition("Reconciled").unwrap();
            assert_eq!(reconciled.message, "Pending: waits for its turn after the pause of the Promise");
        }
        world.change("Env", &key("a"), told);
        world.play("a");
        assert_eq!(world.ran("a"), ["first", "first", "second"], "told: {is_told}");
        assert_eq!(labels(&world), json!({ keys::PROMISE_NAME: PROMISE }));
        assert_eq!(world.request("a")["metadata"]["annotations"][crate::promise::RERUN], "1.77.pause");
        assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
    }
}

#[test]
fn a_paused_promise_holds_new_requests_without_a_mark_on_them() {
    let mut world = two_pipelines();
    let promise = ObjectKey::cluster(PROMISE);
    world.change("Promise", &promise, json!({ "metadata": { "labels": { keys::PAUSED: "true" } } }));
    world.settle("a");
    assert_eq!(world.request("a")["metadata"].get("finalizers"), None);
    assert_eq!(labels(&world), Value::Null);
    let note = "'kratix.io/paused' label set to 'true' for promise; pausing reconciliation for this resource request";
    assert_eq!(world.events, [format!("PausedReconciliation {note}")]);
    world.change("Promise", &promise, json!({ "metadata": { "labels": { keys::PAUSED: null } } }));
    world.play("a");
    assert_eq!(world.ran("a"), ["first", "second"]);
}

#[test]
fn an_unavailable_promise_holds_new_requests_without_finalizers() {
    let mut world = two_pipelines();
    let promise = ObjectKey::cluster(PROMISE);
    let available = |status: &str| json!({ "status": { "conditions": [{ "type": "Available", "status": status }] } });
    world.change("Promise", &promise, available("False"));
    let plan = world.settle("a");
    assert_eq!(plan.findings, [Finding::Unavailable]);
    assert_eq!(world.told("a", "PromiseAvailable"), "False/PromiseRequirementsNotInstalled");
    assert_eq!(world.status("a")["message"], "Pending");
    assert_eq!(labels(&world), json!({ keys::PROMISE_NAME: PROMISE }));
    assert_eq!(world.request("a")["metadata"].get("finalizers"), None);
    assert!(world.keys("ResourceBinding").is_empty());
    world.change("Promise", &promise, available("True"));
    world.play("a");
    assert_eq!(world.told("a", "PromiseAvailable"), "True/PromiseAvailable");
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
    let missing = json!({ "status": { "requiredPromises": [{ "name": "r", "state": "Requirement not installed" }] } });
    world.change("Promise", &promise, missing);
    world.settle("a");
    assert_eq!(world.told("a", "PromiseAvailable"), "False/PromiseRequirementsNotInstalled");
    assert_eq!(world.status("a")["message"], "Pending");
}

/// §15: nothing that a pipeline has said gets lost, whoever is away for a while.
#[test]
fn what_a_pipeline_has_said_outlasts_an_unavailable_promise() {
    let mut world = two_pipelines();
    world.play("a");
    world.change("Env", &key("a"), json!({ "status": { "message": "bucket logs is ready" } }));
    let promise = ObjectKey::cluster(PROMISE);
    let available = |status: &str| json!({ "status": { "conditions": [{ "type": "Available", "status": status }] } });
    for (status, told) in [("False", "False/PromiseRequirementsNotInstalled"), ("True", "True/PromiseAvailable")] {
        world.change("Promise", &promise, available(status));
        world.settle("a");
        assert_eq!(world.told("a", "PromiseAvailable"), told);
        assert_eq!(world.status("a")["message"], "bucket logs is ready");
    }
}

/// §15: what Kratix itself has said of the last run is said again, as no run follows that would say it.
#[test]
fn what_the_last_run_has_left_is_told_again_once_the_promise_is_available() {
    let promise = ObjectKey::cluster(PROMISE);
    let available = |status: &str| json!({ "status": { "conditions": [{ "type": "Available", "status": status }] } });
    let fails: fn(&mut World) = |world| {
        super::failure::pod(world, "p1", super::failure::ended("a", 1, ""));
        world.settle("a");
        world.objects.retain(|(kind, _), _| kind != "Pod");
        world.finish("a", Pod::Fails);
        world.settle("a");
    };
    let succeeds: fn(&mut World) = |world| world.play("a");
    for (message, end) in [("pipeline first: container a exited with code 1", fails), ("Resource requested", succeeds)]
    {
        let mut world = two_pipelines();
        world.settle("a");
        end(&mut world);
        for (status, told) in [("True", message), ("False", "Pending"), ("True", message)] {
            world.change("Promise", &promise, available(status));
            world.settle("a");
            assert_eq!(world.status("a")["message"], told, "{status}");
        }
    }
}

/// §14: its end starts a run, whatever else is in the way by then.
#[test]
fn a_pause_that_ends_while_something_must_be_mended_is_followed_by_a_run_once_it_is() {
    let mut world = two_pipelines();
    world.play("a");
    world.label("a", keys::PAUSED, Some("true"));
    world.settle("a");
    let gone = world.objects.remove(&("Promise".to_owned(), ObjectKey::cluster(PROMISE))).unwrap();
    world.label("a", keys::PAUSED, None);
    world.settle("a");
    let told = Document::read(world.status("a")).condition("Reconciled").unwrap();
    assert_eq!(told.message, "Promise env not found");
    assert_eq!(world.count("PromiseNotFound Promise env not found"), 1);
    assert!(world.decide("a").is_silent());
    world.objects.insert(("Promise".to_owned(), ObjectKey::cluster(PROMISE)), gone);
    world.play("a");
    assert_eq!(world.ran("a").len(), 4);
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
}

#[test]
fn a_broken_pipeline_is_shown_on_the_request() {
    let mut world = two_pipelines();
    let mut broken = spec(&["first"], &[], "");
    broken["workflows"]["resource"]["configure"][0]["kind"] = "ConfigMap".into();
    world.revise("not-set", broken);
    world.settle("a");
    assert_eq!(world.told("a", "Reconciled"), "Unknown/InvalidPipeline");
    assert_eq!(world.count("InvalidPipeline "), 1);
    world.revise("not-set", spec(&["first"], &[], ""));
    world.play("a");
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
}

#[test]
fn the_running_status_is_put_right_when_its_write_was_lost() {
    let mut world = two_pipelines();
    world.play("a");
    world.wait(10);
    world.change("Env", &key("a"), json!({ "spec": { "size": "large" } }));
    let plan = world.decide("a");
    world.act(&Plan { status: None, events: Vec::new(), ..plan });
    assert_eq!(world.told("a", "ConfigureWorkflowCompleted"), "True/PipelinesExecutedSuccessfully");
    world.settle("a");
    assert_eq!(world.told("a", "ConfigureWorkflowCompleted"), "False/PipelinesInProgress");
    let phases = |world: &World| {
        let list = world.status("a")["kratix"]["workflows"]["pipelines"].as_array().unwrap().clone();
        list.iter().map(|entry| entry["phase"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(phases(&world), ["Running", "Pending"]);
}

/// A pod that ends while no manager runs finds no `Pending` to replace; and one that is slow to be seen is overwritten with it.
#[test]
fn a_workflow_that_has_succeeded_does_not_say_pending() {
    let mut world = two_pipelines();
    world.play("a");
    for message in [json!(null), json!("Pending")] {
        world.change("Env", &key("a"), json!({ "status": { "message": message } }));
        world.settle("a");
        assert_eq!(world.status("a")["message"], "Resource requested");
    }
    world.change("Env", &key("a"), json!({ "status": { "message": "" } }));
    world.settle("a");
    assert_eq!(world.status("a")["message"], "");
}

#[test]
fn a_message_of_one_pipeline_survives_the_start_of_the_next() {
    let mut world = two_pipelines();
    world.settle("a");
    world.change("Env", &key("a"), json!({ "status": { "message": "half way" } }));
    world.finish("a", Pod::Succeeds);
    world.settle("a");
    assert_eq!(world.status("a")["message"], "half way");
    world.finish("a", Pod::Succeeds);
    world.settle("a");
    assert_eq!(world.status("a")["message"], "half way");
    world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
    world.settle("a");
    assert_eq!(world.status("a")["message"], "Pending");
}

#[test]
fn a_request_that_lost_its_run_number_goes_on_and_its_triggers_work() {
    for old in [Value::Null, json!("1")] {
        let mut world = two_pipelines();
        world.play("a");
        for _ in 0..2 {
            world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
            world.play("a");
        }
        assert_eq!(world.ran("a").len(), 6);
        // As `kubectl replace` of an exported document does.
        let lost = json!({ "metadata": { "annotations": { workflow::RUN: old } } });
        world.change("Env", &key("a"), lost.clone());
        world.settle("a");
        assert_eq!(world.ran("a").len(), 6, "nothing has changed");
        assert_eq!(world.request("a")["metadata"]["annotations"][workflow::RUN], "2");
        world.change("Env", &key("a"), lost);
        world.change("Env", &key("a"), json!({ "spec": { "size": "large" } }));
        world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
        world.play("a");
        assert_eq!(world.ran("a").len(), 8);
        assert_eq!(labels(&world).get(keys::MANUAL_RECONCILIATION), None);
        assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
    }
}

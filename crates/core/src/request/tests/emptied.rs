//! A Promise that loses its configure pipelines while one of them runs or holds a request, and gets others.

use super::failure::{pod, running};
use super::stuck::container;
use super::*;

fn nothing() -> Value {
    spec(&[], &[], "")
}

fn is_stopped(world: &World) -> bool {
    world.jobs("a").iter().any(workflow::history::is_told_to_suspend)
}

/// Returns the names and phases of the pipelines on record.
fn pipelines(world: &World) -> Value {
    let list = world.status("a")["kratix"]["workflows"]["pipelines"].as_array().unwrap();
    list.iter().map(|entry| json!([entry["name"], entry["phase"]])).collect()
}

/// Returns a world in which a container of the first pipeline runs, of a Promise that has none any more.
fn running_on() -> World {
    let mut world = running(&[]);
    let runs = container("a", json!({ "running": {} }));
    pod(&mut world, "p1", json!({ "phase": "Pending", "initContainerStatuses": [runs] }));
    world.settle("a");
    world.revise("not-set", nothing());
    world.settle("a");
    world
}

/// 02 §10, 04 §28.14
#[test]
fn a_suspension_ends_with_the_last_pipeline_and_holds_no_later_one() {
    for held in [Pod::Suspends, Pod::RetriesAfter(20)] {
        for mark in [None, Some(keys::MANUAL_RECONCILIATION), Some(keys::RUN_FROM_START)] {
            let mut world = two_pipelines();
            world.settle("a");
            world.finish("a", held);
            world.settle("a");
            assert_eq!(world.told("a", "Reconciled"), "Unknown/WorkflowSuspended");
            world.revise("not-set", nothing());
            mark.into_iter().for_each(|label| world.label("a", label, Some("true")));
            world.settle("a");
            assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
            assert_eq!(world.request("a")["metadata"]["labels"], json!({ keys::PROMISE_NAME: PROMISE }));
            assert_eq!(pipelines(&world), json!([]));
            assert!(world.decide("a").is_silent());
            world.revise("not-set", spec(&["third", "fourth"], &[], ""));
            world.play("a");
            assert_eq!(world.ran("a"), ["third", "fourth"]);
            assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
        }
    }
}

#[test]
fn a_hold_by_hand_outlasts_the_last_pipeline() {
    let mut world = two_pipelines();
    world.play("a");
    world.label("a", keys::WORKFLOW_SUSPENDED, Some("true"));
    world.settle("a");
    world.revise("not-set", nothing());
    world.settle("a");
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
    assert_eq!(world.request("a")["metadata"]["labels"][keys::WORKFLOW_SUSPENDED], "true");
    world.revise("not-set", spec(&["third"], &[], ""));
    world.settle("a");
    assert_eq!(world.told("a", "Reconciled"), "Unknown/WorkflowSuspended");
    assert!(world.ran("a").is_empty());
}

/// 02 §19.12: also where none is left. Its pod looks for its pipeline in the list when it asks to be held.
#[test]
fn a_pipeline_that_has_begun_is_waited_for_where_none_is_left() {
    for end in [Pod::Succeeds, Pod::Fails, Pod::Suspends, Pod::RetriesAfter(20)] {
        let mut world = running_on();
        let job = ObjectKey::of(&world.running("a").unwrap());
        let waits_for = format!("configure pipeline first to end (Job {job})");
        let told = Document::read(world.status("a")).condition(condition::RECONCILED).unwrap();
        assert_eq!((told.status, told.reason.as_str()), (Status::Unknown, "WorkflowPending"));
        assert_eq!(told.message, format!("Pending: waits for {waits_for}"));
        assert_eq!(world.decide("a").findings, [Finding::InProgress { waits_for }]);
        assert_eq!(pipelines(&world), json!([["first", "Running"], ["second", "Pending"]]));
        assert_eq!(world.status("a")["workflows"], 2);
        assert!(!is_stopped(&world));
        assert!(world.decide("a").is_silent());
        world.objects.retain(|(kind, _), _| kind != "Pod");
        world.finish("a", end);
        world.settle("a");
        assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
        assert_eq!(world.told("a", "ConfigureWorkflowCompleted"), "");
        assert_eq!(pipelines(&world), json!([]));
        assert_eq!(world.request("a")["metadata"]["labels"], json!({ keys::PROMISE_NAME: PROMISE }));
        for kind in ["Job", "Work"] {
            assert!(world.keys(kind).is_empty(), "{kind}");
        }
        assert!(world.decide("a").is_silent());
    }
}

/// A manager that ends between the Job and the status leaves a request without a list.
#[test]
fn a_pipeline_whose_start_was_never_written_down_gets_its_place_in_the_list() {
    let mut world = running_on();
    world.change("Env", &key("a"), json!({ "status": { "kratix": null } }));
    world.settle("a");
    assert_eq!(pipelines(&world), json!([["first", "Running"]]));
    assert!(world.decide("a").is_silent());
    world.objects.retain(|(kind, _), _| kind != "Pod");
    world.finish("a", Pod::Suspends);
    world.settle("a");
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
    assert_eq!(pipelines(&world), json!([]));
}

/// A request that an earlier version has called done already.
#[test]
fn what_was_said_before_the_end_of_the_last_pipeline_is_taken_back() {
    let mut world = running_on();
    let reconciled =
        json!([{ "type": "Reconciled", "status": "True", "reason": "Reconciled", "message": "Reconciled" }]);
    world.change("Env", &key("a"), json!({ "status": { "conditions": reconciled } }));
    world.settle("a");
    assert_eq!(world.told("a", "Reconciled"), "Unknown/WorkflowPending");
}

#[test]
fn a_pipeline_that_never_ends_is_stopped_by_the_label_also_where_none_is_left() {
    let mut world = running_on();
    world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
    world.settle("a");
    assert!(is_stopped(&world));
    assert_eq!(world.told("a", "Reconciled"), "Unknown/WorkflowPending");
    assert!(world.decide("a").is_silent());
    world.stop_jobs("a");
    world.settle("a");
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
    assert_eq!(world.request("a")["metadata"]["labels"], json!({ keys::PROMISE_NAME: PROMISE }));
    assert_eq!(world.count("PipelineStarted"), 1);
}

#[test]
fn the_word_of_the_promise_is_not_kept_where_nothing_can_run() {
    let mut world = running_on();
    world.label("a", keys::RUN_FROM_START, Some("true"));
    world.settle("a");
    assert_eq!(world.request("a")["metadata"]["labels"], json!({ keys::PROMISE_NAME: PROMISE }));
    assert_eq!(world.told("a", "Reconciled"), "Unknown/WorkflowPending");
    world.finish("a", Pod::Succeeds);
    world.settle("a");
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
}

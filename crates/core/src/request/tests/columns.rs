//! What `kubectl get` shows of a request that does not get on: its columns are `status.message` and the message of `Reconciled`.

use super::deletion::{deleted, says};
use super::failure::{ended, pod, running, told, waiting};
use super::*;

/// `kubectl get` shows this text.
#[test]
fn the_message_names_the_cause_unless_a_pipeline_has_left_one_and_is_pending_again_when_it_is_over() {
    let mut world = running(&[]);
    let message = |world: &World| world.status("a")["message"].as_str().unwrap_or_default().to_owned();
    assert_eq!(message(&world), "Pending");
    pod(&mut world, "p1", waiting("ErrImagePull", "not found"));
    world.settle("a");
    assert_eq!(message(&world), "pipeline first: image i of container a cannot be had");
    pod(&mut world, "p1", ended("a", 1, "no such table"));
    world.settle("a");
    assert_eq!(message(&world), "pipeline first: container a exited with code 1");
    pod(&mut world, "p1", json!({ "phase": "Pending" }));
    world.settle("a");
    assert_eq!(message(&world), "Pending");
    pod(&mut world, "p1", ended("a", 1, "no such table"));
    world.settle("a");
    world.objects.retain(|(kind, _), _| kind != "Pod");
    world.finish("a", Pod::Succeeds);
    world.settle("a");
    assert_eq!(message(&world), "Pending", "of the next pipeline");

    // A pipeline's own words stay.
    world.change("Env", &key("a"), json!({ "status": { "message": "half of it is there" } }));
    pod(&mut world, "p2", ended("a", 1, ""));
    world.settle("a");
    assert_ne!(told(&world), "");
    world.objects.retain(|(kind, _), _| kind != "Pod");
    world.finish("a", Pod::Fails);
    world.settle("a");
    assert_eq!(message(&world), "half of it is there");
    world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
    world.settle("a");
    pod(&mut world, "p3", ended("a", 2, ""));
    world.settle("a");
    world.finish("a", Pod::Fails);
    world.settle("a");
    assert_eq!(
        (message(&world).as_str(), world.told("a", "Reconciled").as_str()),
        ("pipeline first: container a exited with code 2", "False/ConfigureWorkflowFailed",)
    );
    world.objects.retain(|(kind, _), _| kind != "Pod");
    world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
    world.play("a");
    assert_eq!(message(&world), "Resource requested");
}

/// Returns what `kubectl get` shows in its column `status`, after status and reason of the condition.
fn column(world: &World) -> String {
    let told = Document::read(world.status("a")).condition(condition::RECONCILED);
    told.map(|told| format!("{}/{}/{}", told.status, told.reason, told.message)).unwrap_or_default()
}

/// A delete workflow that gets on leaves `Reconciled` as it is in the original; one that does not says so there.
#[test]
fn a_deletion_that_does_not_get_on_is_not_reconciled() {
    let mut world = deleted(&["bye"]);
    for work in world.keys("Work") {
        world.change("Work", &work, json!({ "metadata": { "finalizers": ["a/b"] } }));
    }
    world.settle("a");
    assert_eq!(column(&world), "True/Reconciled/Reconciled");
    let job = ObjectKey::of(&world.running("a").unwrap());
    pod(&mut world, "p", ended("a", 1, "in use since 10:04"));
    world.settle("a");
    let cause = "which does not get on: pipeline bye: container a exited with code 1";
    let stops = "label kratix.io/manual-reconciliation=true stops it and runs it again";
    let waits_for = format!("delete pipeline bye to end (Job {job}), {cause}; {stops}");
    assert_eq!(says(&world), format!("waits for {waits_for}"));
    assert_eq!(column(&world), format!("Unknown/Deleting/Deleting: waiting for {waits_for}"));
    world.objects.retain(|(kind, _), _| kind != "Pod");
    world.finish("a", Pod::Fails);
    world.settle("a");
    let label = "label kratix.io/manual-reconciliation=true or a change of the spec; delete pipeline bye has failed";
    assert_eq!(column(&world), format!("False/DeleteWorkflowFailed/Deleting: waiting for {label}"));
    world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
    world.settle("a");
    let job = ObjectKey::of(&world.running("a").unwrap());
    assert_eq!(
        column(&world),
        format!("Unknown/Deleting/Deleting: waiting for delete pipeline bye to end (Job {job})")
    );
    world.suspend("a");
    assert_eq!(column(&world), "Unknown/WorkflowSuspended/Suspended");
    world.label("a", keys::WORKFLOW_SUSPENDED, None);
    world.settle("a");
    assert_eq!(world.told("a", "Reconciled"), "Unknown/Deleting", "it is not suspended any more");
    world.label("a", keys::PAUSED, Some("true"));
    world.settle("a");
    assert_eq!(column(&world), "Unknown/PausedReconciliation/Paused");
    world.label("a", keys::PAUSED, None);
    world.settle("a");
    assert_eq!(world.told("a", "Reconciled"), "Unknown/Deleting", "nor paused");
    world.finish("a", Pod::Succeeds);
    world.settle("a");
    let left = format!("Works to be removed: {}", world.keys("Work")[0]);
    assert_eq!(column(&world), format!("Unknown/Deleting/Deleting: waiting for {left}"));
    assert!(world.decide("a").is_silent());
}

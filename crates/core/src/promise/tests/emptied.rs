//! A Promise that loses its own configure pipelines while one of them runs or holds it, and gets another.

use serde_json::{Value, json};

use crate::promise::Finding;
use crate::promise::testing::{World, api, pipeline};

const SUSPENDED: &str = "kratix.io/workflow-suspended";
const MANUAL: &str = "kratix.io/manual-reconciliation";

/// Returns a Promise whose pipeline `one` runs, for longer than passes and everybody else take.
fn running() -> World {
    let mut world =
        World::with(json!({ "api": api(), "workflows": { "promise": { "configure": [pipeline("one")] } } }));
    rest(&mut world);
    assert_eq!(world.kinds("Job").len(), 1);
    world
}

/// Runs passes and everybody else but the Jobs.
fn rest(world: &mut World) {
    for _ in 0..12 {
        world.pass();
        world.others();
    }
    assert!(world.is_silent());
}

fn with_pipelines(world: &mut World, pipelines: Value) {
    world.patch_promise(json!({ "spec": { "workflows": { "promise": { "configure": pipelines } } } }));
}

/// Lets the Job end as one does whose pipeline has asked to be held.
fn suspend(world: &mut World) {
    let mut list = listed(world);
    list[0]["phase"] = "Suspended".into();
    let held =
        json!({ "workflows": { "pipelines": list, "suspendedGeneration": world.promise()["metadata"]["generation"] } });
    world.label(SUSPENDED, json!("true"));
    world.patch_promise(json!({ "status": { "kratix": held } }));
    let key = world.kinds("Job")[0].clone();
    world.patch("Job", &key, &json!({ "status": { "conditions": [{ "type": "Complete", "status": "True" }] } }));
}

fn listed(world: &World) -> Value {
    world.promise()["status"]["kratix"]["workflows"]["pipelines"].clone()
}

fn labels(world: &World) -> Value {
    world.promise()["metadata"]["labels"].clone()
}

/// 02 §10
#[test]
fn the_suspension_of_a_promise_ends_with_its_last_pipeline_and_holds_no_later_one() {
    let mut world = running();
    suspend(&mut world);
    rest(&mut world);
    assert_eq!(world.says("Available"), "False/WorkflowSuspended/Suspended");
    with_pipelines(&mut world, json!([]));
    rest(&mut world);
    assert!(world.says("Available").starts_with("True"));
    assert_eq!(world.says("Reconciled"), "True/Reconciled/Reconciled");
    assert_eq!(labels(&world), json!({}));
    with_pipelines(&mut world, json!([pipeline("two")]));
    rest(&mut world);
    assert_eq!(listed(&world)[0]["phase"], "Running");
    world.settle();
    assert_eq!(world.promise()["status"]["workflowsSucceeded"], 1);
    assert!(world.says("Available").starts_with("True"));
}

#[test]
fn a_promise_that_is_held_by_hand_stays_so_without_pipelines() {
    let mut world = running();
    world.settle();
    world.label(SUSPENDED, json!("true"));
    rest(&mut world);
    with_pipelines(&mut world, json!([]));
    rest(&mut world);
    assert!(world.says("Available").starts_with("True"));
    assert_eq!(labels(&world)[SUSPENDED], "true");
}

/// 04 §28.6, for a Promise
#[test]
fn no_pending_message_stays_beside_a_promise_that_has_no_pipeline_any_more() {
    let mut world = running();
    assert_eq!(world.promise()["status"]["message"], "Pending");
    suspend(&mut world);
    with_pipelines(&mut world, json!([]));
    world.settle();
    assert!(world.says("Available").starts_with("True"));
    let message = &world.promise()["status"]["message"];
    assert!(message.is_null() || message == "", "{message}");
}

/// 02 §19.12: its pod looks for its pipeline in the list when it asks to be held.
#[test]
fn the_last_pipeline_of_a_promise_is_waited_for_and_keeps_nobody_from_using_it() {
    let mut world = running();
    with_pipelines(&mut world, json!([]));
    rest(&mut world);
    assert_eq!((&listed(&world)[0]["name"], &listed(&world)[0]["phase"]), (&json!("one"), &json!("Running")));
    assert_eq!(world.promise()["status"]["workflows"], 1);
    assert_eq!(world.says("Reconciled"), "Unknown/WorksPending/Pending");
    let works = "Unknown/WorksPending/Some works associated with this promise are not ready: [one]";
    assert_eq!(world.says("WorksSucceeded"), works);
    assert_eq!(world.says("Available"), "True/PromiseAvailable/Ready to fulfil resource requests");
    assert_eq!(world.promise()["status"]["observedGeneration"], 2);
    let job = world.kinds("Job")[0].clone();
    let waits_for = format!("configure pipeline one to end (Job {job})");
    assert!(world.pass().plan.findings.contains(&Finding::Workflow { waits_for }));
    suspend(&mut world);
    rest(&mut world);
    assert_eq!(world.says("Reconciled"), "True/Reconciled/Reconciled");
    assert_eq!(world.says("ConfigureWorkflowCompleted"), "-");
    assert_eq!((labels(&world), listed(&world)), (json!({}), Value::Null));
    assert!(world.kinds("Job").is_empty());
}

#[test]
fn the_last_pipeline_of_a_promise_is_stopped_by_the_label() {
    let mut world = running();
    with_pipelines(&mut world, json!([]));
    rest(&mut world);
    world.label(MANUAL, json!("true"));
    rest(&mut world);
    let job = world.kinds("Job")[0].clone();
    assert_eq!(world.get("Job", &job).unwrap()["spec"]["suspend"], true);
    let stopped = json!({ "status": { "conditions": [{ "type": "Suspended", "status": "True" }] } });
    world.patch("Job", &job, &stopped);
    rest(&mut world);
    assert_eq!(labels(&world), json!({}));
    assert_eq!(world.says("Reconciled"), "True/Reconciled/Reconciled");
    world.label(MANUAL, json!("true"));
    rest(&mut world);
    assert_eq!(labels(&world), json!({}), "there is nothing to stop");
}

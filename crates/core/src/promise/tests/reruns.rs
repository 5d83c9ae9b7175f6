//! Telling requests to run again.

use std::collections::BTreeMap;

use serde_json::json;

use crate::object::ObjectKey;
use crate::plan::Write;
use crate::promise::Finding;
use crate::promise::testing::{World, api, dependency};

const LABEL: &str = "internal.workflows.kratix.io/run-from-start";

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
fn a_new_generation_tells_every_request_once_a_bounded_number_per_pass() {
    let mut world = with_requests(250);
    world.patch_promise(json!({ "spec": { "dependencies": [dependency("a")] } }));
    let mut passes = Vec::new();
    for _ in 0..12 {
        let before = world.writes.len();
        let plan = world.pass().plan;
        let count = plan.writes.iter().filter(|write| write.address().0.kind == "Redis").count();
        assert!(world.writes.len() - before >= count);
        if count > 0 {
            passes.push(count);
        }
        world.others();
        consume(&mut world);
    }
    assert_eq!(passes, [100, 100, 50]);
    assert!(told(&world).values().all(|count| *count == 1));
    assert_eq!(world.promise()["status"]["observedGeneration"], 2);
    assert_eq!(world.events.iter().filter(|event| event.contains("ReconcilingResources")).count(), 1);
    assert!(world.is_silent());
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
    world.settle();
    consume(&mut world);
    for write in &stale.plan.writes {
        if write.address().0.kind == "Redis" {
            assert!(world.execute(write).is_err());
        }
    }
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
fn what_is_left_is_told() {
    let mut world = with_requests(101);
    world.label("kratix.io/reconcile-resources", json!("true"));
    world.pass();
    assert!(world.pass().plan.findings.contains(&Finding::Rerunning { left: 1 }));
}

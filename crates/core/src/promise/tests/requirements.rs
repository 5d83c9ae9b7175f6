//! Promises that need Promises.

use serde_json::{Value, json};

use crate::object::ObjectKey;
use crate::promise::testing::{World, api, delay};

fn other(world: &mut World, name: &str, status: &str) {
    world.create(json!({
        "apiVersion": "platform.kratix.io/v1alpha1", "kind": "Promise", "metadata": { "name": name }, "spec": {},
        "status": { "status": status, "workflows": 0, "workflowsSucceeded": 0, "workflowsFailed": 0 },
    }));
}

fn revision(world: &mut World, promise: &str, version: &str) {
    named_revision(world, promise, version, "x");
}

fn second_revision(world: &mut World, promise: &str, version: &str) {
    named_revision(world, promise, version, "y");
}

fn named_revision(world: &mut World, promise: &str, version: &str, suffix: &str) {
    world.create(json!({
        "apiVersion": "platform.kratix.io/v1alpha1", "kind": "PromiseRevision",
        "metadata": { "name": format!("{promise}-{version}-{suffix}"), "labels": { "kratix.io/promise-name": promise }, "finalizers": ["a/b"] },
        "spec": { "promiseRef": { "name": promise }, "promiseSpec": {}, "version": version },
    }));
}

fn states(world: &World) -> Vec<String> {
    let list =
        world.promise().pointer("/status/requiredPromises").and_then(Value::as_array).cloned().unwrap_or_default();
    list.iter().map(|entry| entry["state"].as_str().unwrap().to_owned()).collect()
}

fn requiring(required: Value) -> World {
    World::with(json!({ "requiredPromises": required }))
}

#[test]
fn each_state_has_its_words() {
    type Prepare = fn(&mut World);
    let table: [(Prepare, &str, &str, &str); 7] = [
        (
            |_| {},
            "Requirement not installed",
            "False/RequirementsNotInstalled/Requirements not fulfilled",
            "Warning RequirementsNotInstalled: Required Promise a not installed or unknown state",
        ),
        (
            |world| other(world, "a", "Available"),
            "Requirement not installed at the specified version",
            "False/RequirementsNotInstalled/Requirements not fulfilled",
            "Warning RequirementsNotInstalled: Waiting for required Promise a: Requirement not installed at the specified version",
        ),
        (
            |world| {
                other(world, "a", "Available");
                revision(world, "a", "v2");
            },
            "Requirement not installed at the specified version",
            "False/RequirementsNotInstalled/Requirements not fulfilled",
            "Warning RequirementsNotInstalled: Waiting for required Promise a: Requirement not installed at the specified version",
        ),
        (
            |world| {
                other(world, "a", "Available");
                revision(world, "a", "v1");
                second_revision(world, "a", "v1");
            },
            "Requirement state unknown",
            "False/RequirementsNotInstalled/Requirements not fulfilled",
            "Warning RequirementsNotInstalled: Waiting for required Promise a: Requirement state unknown",
        ),
        (
            |world| {
                other(world, "a", "Unavailable");
                revision(world, "a", "v1");
            },
            "Requirement not available",
            "False/RequirementsNotAvailable/Requirements not fulfilled",
            "Warning RequirementsNotAvailable: Waiting for required Promise a: Requirement not available",
        ),
        (
            |world| {
                other(world, "a", "Available");
                revision(world, "a", "v1");
                revision(world, "a", "v2");
            },
            "Requirement installed",
            "True/RequirementsInstalled/Requirements fulfilled",
            "Normal RequirementsFulfilled: All required promises are available",
        ),
        (
            |world| {
                other(world, "a", "Available");
                revision(world, "a", "v1");
                world.delete("PromiseRevision", &ObjectKey::cluster("a-v1-x"));
            },
            "Requirement not installed at the specified version",
            "False/RequirementsNotInstalled/Requirements not fulfilled",
            "Warning RequirementsNotInstalled: Waiting for required Promise a: Requirement not installed at the specified version",
        ),
    ];
    for (prepare, state, condition, event) in table {
        let mut world = requiring(json!([{ "name": "a", "version": "v1" }]));
        prepare(&mut world);
        world.settle();
        assert_eq!(states(&world), [state]);
        assert_eq!(world.says("RequirementsFulfilled"), condition);
        let told: Vec<_> = world.events.iter().filter(|event| event.contains("Require")).collect();
        assert_eq!(told, [event]);
        let is_met = condition.starts_with("True");
        assert_eq!(world.says("Available").starts_with("True"), is_met, "{state}: also without an API");
        let reconciled = if is_met { "True/Reconciled/Reconciled" } else { "Unknown/RequirementsNotFulfilled/Pending" };
        assert_eq!(world.says("Reconciled"), reconciled);
        assert_eq!(world.says("WorksSucceeded") == "-", !is_met);
    }
}

#[test]
fn the_last_requirement_that_is_not_met_decides() {
    let mut world = requiring(json!([{ "name": "missing" }, { "name": "down" }, { "name": "up" }]));
    other(&mut world, "down", "Unavailable");
    other(&mut world, "up", "Available");
    world.settle();
    assert_eq!(states(&world), ["Requirement not installed", "Requirement not available", "Requirement installed"]);
    assert_eq!(world.says("RequirementsFulfilled"), "False/RequirementsNotAvailable/Requirements not fulfilled");
}

#[test]
fn without_its_requirement_it_looks_again_and_its_api_is_there_already() {
    let mut world = World::with(json!({ "api": api(), "requiredPromises": [{ "name": "a" }] }));
    world.settle();
    assert_eq!(world.kinds("CustomResourceDefinition").len(), 1);
    assert_eq!(delay(world.pass().plan.next).map(|delay| delay.as_secs()), Some(60));
    other(&mut world, "a", "Available");
    world.settle();
    assert!(world.says("Available").starts_with("True"));
    assert_eq!(world.says("Reconciled"), "True/Reconciled/Reconciled");
}

#[test]
fn losing_a_requirement_takes_it_down_and_says_so_once() {
    let mut world = requiring(json!([{ "name": "a" }]));
    other(&mut world, "a", "Available");
    world.settle();
    world.events.clear();
    world.delete("Promise", &ObjectKey::cluster("a"));
    world.settle();
    assert_eq!(
        world.events,
        [
            "Warning RequirementsNotInstalled: Required Promise a not installed or unknown state",
            "Warning Unavailable: Promise no longer available: Requirements have changed",
        ]
    );
    assert_eq!(world.promise()["status"]["status"], "Unavailable");
    other(&mut world, "a", "Available");
    world.settle();
    assert_eq!(world.promise()["status"]["status"], "Available");
    assert_eq!(world.promise()["status"]["kratix"]["status"], "Available");
}

#[test]
fn clearing_the_list_fulfils_it() {
    let mut world = requiring(json!([{ "name": "a" }]));
    world.settle();
    world.patch_promise(json!({ "spec": { "requiredPromises": null } }));
    world.settle();
    assert!(states(&world).is_empty());
    assert_eq!(world.says("RequirementsFulfilled"), "True/RequirementsInstalled/Requirements fulfilled");
    assert!(world.says("Available").starts_with("True"));
}

#[test]
fn promises_that_require_each_other_are_told() {
    for (own, others, cycle) in
        [("redis", vec![], "redis -> redis"), ("a", vec![("a", "b"), ("b", "redis")], "redis -> a -> b -> redis")]
    {
        let mut world = requiring(json!([{ "name": own }]));
        for (name, required) in others {
            world.create(json!({
                "apiVersion": "platform.kratix.io/v1alpha1", "kind": "Promise", "metadata": { "name": name },
                "spec": { "requiredPromises": [{ "name": required }] },
            }));
        }
        world.settle();
        let (_, _, message) = world.condition("RequirementsFulfilled").unwrap();
        assert_eq!(message, format!("Requirements not fulfilled: these Promises require each other: {cycle}"));
    }
}

#[test]
fn who_requires_it_is_listed_and_forgotten() {
    let mut world = World::with(json!({}));
    for (name, version) in [("b", "v2"), ("a", "")] {
        world.create(json!({
            "apiVersion": "platform.kratix.io/v1alpha1", "kind": "Promise", "metadata": { "name": name },
            "spec": { "requiredPromises": [{ "name": "redis", "version": version }] },
            "status": { "version": "v9", "workflows": 0, "workflowsSucceeded": 0, "workflowsFailed": 0 },
        }));
    }
    world.settle();
    let expected = json!([
        { "promise": { "name": "a", "version": "v9" } },
        { "promise": { "name": "b", "version": "v9" }, "requiredVersion": "v2" },
    ]);
    assert_eq!(world.promise()["status"]["requiredBy"], expected);
    world.delete("Promise", &ObjectKey::cluster("a"));
    world.delete("Promise", &ObjectKey::cluster("b"));
    world.settle();
    assert!(world.promise()["status"].get("requiredBy").is_none());
}

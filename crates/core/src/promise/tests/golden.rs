//! The objects that a Promise brings, against the recordings of the reference.
//!
//! Accepted differences, all of them improvements that the specification asks for:
//! * `metadata.generation` and `status.observedGeneration`: our first write does not rewrite the spec, so generations do
//!   not move by themselves (01 §1.6), and the generation is recorded for every Promise (03 §25, 12);
//! * condition `Reconciled` is also set for a Promise without workflow, and is never left behind (03 §25, 7);
//! * `WorksSucceeded` waits for the dependencies (03 §25, 9): here every Work is written at once, so the end is the same;
//! * suffix of the name of the dependencies' Work: derived, not random (decision 6); its annotation `last-updated-at` is
//!   there from the start (01 §9.4.4).

use std::path::Path;

use kratix_api::{PromiseRevision, PromiseSpec, compression};
use serde_json::{Value, json};

use crate::golden::recordings;
use crate::object::ObjectKey;
use crate::patch::to_value;
use crate::promise::testing::{World, merge};

pub(super) fn documents(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn key_of(object: &Value) -> ObjectKey {
    let text = |field: &str| object["metadata"][field].as_str().map(str::to_owned);
    ObjectKey { namespace: text("namespace"), name: text("name").unwrap() }
}

/// Applies the Promises of an input and lets everything come to rest.
fn apply(world: &mut World, path: &Path, labels: Value) {
    put(world, documents(path), &labels);
    world.settle_all();
}

/// Creates the Promises among these objects, or replaces their specs and merges their metadata.
pub(super) fn put(world: &mut World, objects: Vec<Value>, labels: &Value) {
    for mut object in objects.into_iter().filter(|object| object["kind"] == "Promise") {
        merge(&mut object["metadata"], &json!({ "labels": labels }));
        let key = key_of(&object);
        match world.get("Promise", &key) {
            None => world.create(object),
            Some(existing) => {
                let mut patch = object.clone();
                for member in existing["spec"].as_object().unwrap().keys() {
                    if object["spec"].get(member).is_none() {
                        patch["spec"][member] = Value::Null;
                    }
                }
                world.patch("Promise", &key, &patch);
            }
        }
    }
}

/// Returns the conditions as `type=status/reason/message`, without those of a type that differs by intent.
fn conditions(status: &Value) -> Vec<String> {
    let list = status["conditions"].as_array().cloned().unwrap_or_default();
    let mut texts: Vec<String> = list
        .iter()
        .filter(|condition| condition["type"] != "Reconciled")
        .map(|condition| {
            format!("{}={}/{}/{}", condition["type"], condition["status"], condition["reason"], condition["message"])
        })
        .collect();
    texts.sort();
    texts
}

fn normal_status(status: &Value) -> Value {
    let mut status = status.clone();
    let members = status.as_object_mut().unwrap();
    members.remove("conditions");
    members.remove("observedGeneration");
    for pointer in ["/lastAvailableTime", "/kratix/lastAvailableTime"] {
        if let Some(time) = status.pointer_mut(pointer) {
            *time = json!("<time>");
        }
    }
    status
}

fn spec_of<T: serde::de::DeserializeOwned + serde::Serialize>(object: &Value) -> Value {
    to_value(&serde_json::from_value::<T>(object["spec"].clone()).unwrap())
}

fn compare_promise(ours: &Value, theirs: &Value) {
    assert_eq!(ours["metadata"]["finalizers"], theirs["metadata"]["finalizers"]);
    assert_eq!(spec_of::<PromiseSpec>(ours), spec_of::<PromiseSpec>(theirs));
    assert_eq!(conditions(&ours["status"]), conditions(&theirs["status"]));
    assert_eq!(normal_status(&ours["status"]), normal_status(&theirs["status"]));
}

fn compare_revision(ours: &Value, theirs: &Value) {
    for field in ["finalizers", "labels", "annotations"] {
        assert_eq!(ours["metadata"][field], theirs["metadata"][field], "{field}");
    }
    let owner = |object: &Value| {
        let mut owners = object["metadata"]["ownerReferences"].clone();
        owners[0]["uid"] = Value::Null;
        owners
    };
    assert_eq!(owner(ours), owner(theirs));
    let spec = |object: &Value| to_value(&serde_json::from_value::<PromiseRevision>(object.clone()).unwrap().spec);
    assert_eq!(spec(ours), spec(theirs));
    assert_eq!(ours.pointer("/status/latest"), theirs.pointer("/status/latest"));
}

fn compare_crd(ours: &Value, theirs: &Value) {
    assert_eq!(ours["metadata"]["labels"], theirs["metadata"]["labels"]);
    let normal = |object: &Value| {
        let mut spec = object["spec"].clone();
        // Filled in by the API server.
        spec.as_object_mut().unwrap().remove("conversion");
        spec["names"].as_object_mut().unwrap().remove("listKind");
        spec
    };
    assert_eq!(normal(ours), normal(theirs));
}

fn compare_access(ours: &Value, theirs: &Value) {
    assert_eq!(ours["metadata"]["labels"], theirs["metadata"]["labels"]);
    for field in ["rules", "roleRef", "subjects"] {
        assert_eq!(ours[field], theirs[field], "{field}");
    }
}

fn compare_work(ours: &Value, theirs: &Value) {
    for field in ["labels", "finalizers", "namespace"] {
        assert_eq!(ours["metadata"][field], theirs["metadata"][field], "{field}");
    }
    let normal = |object: &Value| {
        let mut spec = object["spec"].clone();
        spec["workloadGroups"][0]["workloads"][0]["content"] = Value::Null;
        spec
    };
    assert_eq!(normal(ours), normal(theirs));
}

/// Compares what the reference had at one stage with what we have. Files of Works are compared as YAML values.
fn compare(world: &World, scenario: &Path, stage: &str) {
    let directory = scenario.join("captured").join(stage);
    let mut compared = 0;
    for theirs in documents(&directory.join("objects.yaml")) {
        let (kind, key) = (theirs["kind"].as_str().unwrap_or_default(), key_of(&theirs));
        let is_ours = match kind {
            "Promise" | "PromiseRevision" | "CustomResourceDefinition" => true,
            "ClusterRole" | "ClusterRoleBinding" => key.name.ends_with("-promise-controller"),
            "Work" => theirs["metadata"]["labels"]["kratix.io/work-type"] == "static-dependency",
            _ => false,
        };
        if !is_ours {
            continue;
        }
        let ours = match kind {
            "Work" => static_work(world, &theirs["metadata"]["labels"]["kratix.io/promise-name"]),
            _ => world.get(kind, &key).unwrap_or_else(|| panic!("{stage}: {kind} {key} is missing")),
        };
        match kind {
            "Promise" => compare_promise(ours, &theirs),
            "PromiseRevision" => compare_revision(ours, &theirs),
            "CustomResourceDefinition" => compare_crd(ours, &theirs),
            "Work" => compare_work(ours, &theirs),
            _ => compare_access(ours, &theirs),
        }
        compared += 1;
    }
    assert!(compared > 0, "{stage}: nothing was compared");
    let files = directory.join("work-files.yaml");
    if files.exists() {
        compare_files(world, &files);
    }
}

fn static_work<'a>(world: &'a World, promise: &Value) -> &'a Value {
    let work = world.kinds("Work").into_iter().map(|key| world.get("Work", key).unwrap()).find(|work| {
        let labels = &work["metadata"]["labels"];
        labels["kratix.io/promise-name"] == *promise && labels["kratix.io/work-type"] == "static-dependency"
    });
    work.unwrap_or_else(|| panic!("the Work of the dependencies of {promise} is missing"))
}

fn compare_files(world: &World, path: &Path) {
    let files = documents(path).pop().unwrap();
    for file in files.as_array().unwrap() {
        let Some((promise, _)) = file["work"].as_str().unwrap().split_once("-static-deps-") else { continue };
        let content = &static_work(world, &json!(promise))["spec"]["workloadGroups"][0]["workloads"][0]["content"];
        let bytes = compression::decompress(content.as_str().unwrap(), 1 << 20).unwrap();
        let read = |text: &str| serde_saphyr::from_multiple::<Value>(text).unwrap();
        assert_eq!(read(std::str::from_utf8(&bytes).unwrap()), read(file["text"].as_str().unwrap()));
    }
}

#[test]
fn dependencies_that_come_change_narrow_and_go() {
    let Some(golden) = recordings() else { return };
    let scenario = golden.join("01-promise-dependencies-only");
    let mut world = World::new();
    for (input, stage) in [
        ("02-promise.yaml", "01-available"),
        ("03-promise-more.yaml", "02-dependency-added"),
        ("04-promise-narrowed.yaml", "03-selectors-narrowed"),
        ("05-promise-none.yaml", "04-dependencies-removed"),
        ("06-promise-again.yaml", "05-dependencies-back"),
    ] {
        apply(&mut world, &scenario.join("input").join(input), json!({}));
        compare(&world, &scenario, stage);
    }
    world.delete("Promise", &ObjectKey::cluster("g-01"));
    world.settle_all();
    assert!(world.objects.is_empty());
}

#[test]
fn an_api_with_a_pipeline() {
    let Some(golden) = recordings() else { return };
    let scenario = golden.join("02-resource-pipeline-two-files-status");
    let mut world = World::new();
    apply(&mut world, &scenario.join("input/02-promise.yaml"), json!({}));
    compare(&world, &scenario, "01-promise-available");
}

#[test]
fn a_second_version_with_another_schema() {
    let Some(golden) = recordings() else { return };
    let scenario = golden.join("11-promise-update-revisions-bindings");
    let mut world = World::new();
    apply(&mut world, &scenario.join("input/02-promise-v1.yaml"), json!({}));
    compare(&world, &scenario, "01-promise-v1");
    apply(&mut world, &scenario.join("input/06-promise-v2.yaml"), json!({}));
    compare(&world, &scenario, "03-promise-v2");
}

#[test]
fn requirements_that_are_met_later() {
    let Some(golden) = recordings() else { return };
    let scenario = golden.join("12-promise-release-and-requirements");
    let mut world = World::new();
    apply(&mut world, &scenario.join("input/02-promise-with-requirements.yaml"), json!({}));
    compare(&world, &scenario, "02-requirements-unmet");
    // What the release installs.
    apply(&mut world, &scenario.join("served/v1.yaml"), json!({ "kratix.io/promise-release-name": "g-12" }));
    apply(&mut world, &scenario.join("input/04-promise-never.yaml"), json!({}));
    compare(&world, &scenario, "04-requirements-met");
}

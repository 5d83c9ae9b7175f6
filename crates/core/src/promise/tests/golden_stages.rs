//! A Promise through recorded lives of the reference: at every captured stage there are the same objects of it, and Promise
//! and PromiseRevisions carry the same labels, finalizers, conditions and status, but for the differences listed here.
//!
//! The platform in memory plays requests and Jobs of one name only, so a recorded Promise lives under that name and gets
//! its own back before it is compared.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use kratix_api::keys;
use serde_json::{Map, Value, json};

use super::golden::{documents, put};
use crate::golden::recordings;
use crate::object::ObjectKey;
use crate::plan::Write;
use crate::promise::testing::{NAME, World};

/// Name and kind of the requests of the Promise whose requests and Jobs the platform in memory plays.
const NAMES: [&str; 2] = [NAME, "Redis"];

/// Stands for `observedGeneration`.
const OBSERVED: &str = "observes the present spec";

/// A difference from the reference that is meant, and why.
struct Accepted {
    scenario: &'static str,
    /// The only stages that have it, which must have it.
    stages: &'static [&'static str],
    reason: &'static str,
    /// Turns what they have into what we are to have.
    expect: fn(&mut View),
}

/// Every difference there is. Anything else is a defect.
const ACCEPTED: &[Accepted] = &[
    Accepted {
        scenario: "14-paused",
        stages: &["05-promise-paused"],
        reason: "03 §11.1, decision 11: a label is noticed when it comes; there, with the next change of the spec",
        expect: |view| {
            let promise = view.object("Promise g-14");
            promise["conditions"]["Available"] = json!("False/PausedReconciliation/Paused");
            promise["conditions"]["Reconciled"] = json!("Unknown/PausedReconciliation/Paused");
            promise["status"]["status"] = json!("Unavailable");
            promise["status"]["kratix"]["status"] = json!("Unavailable");
        },
    },
    Accepted {
        scenario: "14-paused",
        stages: &["07-promise-unpaused"],
        reason: "how far the requests are that run again is told in a condition",
        expect: |view| up_to_date(view, "Promise g-14"),
    },
    Accepted {
        scenario: "11-promise-update-revisions-bindings",
        stages: &[
            "03-promise-v2",
            "04-pin-moved-to-v2",
            "05-pin-moved-back-to-v1",
            "06-pin-to-unknown-version",
            "07-pin-to-latest",
            "08-old-revision-deleted",
        ],
        reason: "how far the requests are that run again is told in a condition",
        expect: |view| up_to_date(view, "Promise g-11"),
    },
    Accepted {
        scenario: "16-deletion-step-by-step",
        stages: &["06-promise-deletion-marked"],
        reason: "decision 7: the pass that makes the Job says so in the status; there, a later pass does",
        expect: |view| {
            let workflows = &mut view.object("Promise g-16")["status"]["kratix"]["workflows"];
            workflows["pipelines"] = json!([{ "lastTransitionTime": "<time>", "name": "pbye", "phase": "Running" }]);
        },
    },
    Accepted {
        scenario: "16-deletion-step-by-step",
        stages: &["06-promise-deletion-marked", "07-promise-delete-workflow-running"],
        reason: "design: a deleting object names what it waits for in a condition",
        expect: |view| {
            let text = "Unknown/Deleting/Deleting: waiting for delete pipeline pbye to end";
            view.object("Promise g-16")["conditions"]["Reconciled"] = json!(text);
        },
    },
    Accepted {
        scenario: "11-promise-update-revisions-bindings",
        stages: &[
            "01-promise-v1",
            "02-requests-at-v1",
            "03-promise-v2",
            "04-pin-moved-to-v2",
            "05-pin-moved-back-to-v1",
            "06-pin-to-unknown-version",
            "07-pin-to-latest",
            "08-old-revision-deleted",
        ],
        reason: "03 §25 (7): a Promise without workflow is reconciled as well",
        expect: |view| reconciled(view, "Promise g-11"),
    },
    Accepted {
        scenario: "12-promise-release-and-requirements",
        stages: &["03-released-v1"],
        reason: "decision 11, 03 §25 (25): a requirement that comes is noticed at once; there, by polling",
        expect: |view| {
            let required_by = json!([{ "promise": { "name": "g-12-top" }, "requiredVersion": "v1" }]);
            view.object("Promise g-12")["status"]["requiredBy"] = required_by;
            let required = &mut view.object("Promise g-12-top")["status"]["requiredPromises"][0];
            required["state"] = json!("Requirement installed");
        },
    },
    Accepted {
        scenario: "12-promise-release-and-requirements",
        stages: &[
            "03-released-v1",
            "04-requirements-met",
            "05-released-v2",
            "06-version-mismatch",
            "07-source-gone",
            "08-back-to-v1",
        ],
        reason: "03 §25 (7, 12): a Promise without workflow and API is reconciled as well, and tells the generation",
        expect: |view| bare_reconciled(view, "Promise g-12"),
    },
    Accepted {
        scenario: "12-promise-release-and-requirements",
        stages: &[
            "04-requirements-met",
            "05-released-v2",
            "06-version-mismatch",
            "07-source-gone",
            "08-back-to-v1",
            "09-release-deleted",
        ],
        reason: "03 §25 (7, 12): a Promise without workflow and API is reconciled as well, and tells the generation",
        expect: |view| bare_reconciled(view, "Promise g-12-never"),
    },
    Accepted {
        scenario: "12-promise-release-and-requirements",
        stages: &["04-requirements-met", "05-released-v2", "06-version-mismatch", "07-source-gone", "08-back-to-v1"],
        reason: "03 §25 (7): what kept it from being reconciled is not left behind",
        expect: |view| reconciled(view, "Promise g-12-top"),
    },
    Accepted {
        scenario: "12-promise-release-and-requirements",
        stages: &["09-release-deleted"],
        reason: "decision 17, 03 §25 (19): revisions of a Promise without API go with it; there, they stay in deletion for ever",
        expect: |view| {
            view.objects.retain(|name, revision| {
                !name.starts_with("PromiseRevision ") || revision["labels"][keys::PROMISE_NAME] != "g-12"
            });
        },
    },
];

fn reconciled(view: &mut View, promise: &str) {
    view.object(promise)["conditions"]["Reconciled"] = json!("True/Reconciled/Reconciled");
}

fn up_to_date(view: &mut View, promise: &str) {
    let text = "True/RequestsUpToDate/All resource requests have run since the Promise has changed";
    view.object(promise)["conditions"]["RequestsUpToDate"] = json!(text);
}

fn bare_reconciled(view: &mut View, promise: &str) {
    reconciled(view, promise);
    view.object(promise)["status"][OBSERVED] = json!(true);
}

/// What is compared of a stage.
#[derive(Clone, Debug, Default, PartialEq)]
struct View {
    /// Promises and PromiseRevisions by kind and name.
    objects: BTreeMap<String, Value>,
    /// Everything else that belongs to a Promise, sorted; without random suffixes, so several Jobs are that many times one.
    others: Vec<String>,
}

impl View {
    fn of<'a>(objects: impl Iterator<Item = &'a Value>) -> Self {
        let mut view = Self::default();
        for object in objects {
            let name = object["metadata"]["name"].as_str().unwrap();
            let stem = || name.rsplit_once('-').unwrap().0;
            match object["kind"].as_str().unwrap() {
                kind @ ("Promise" | "PromiseRevision") => {
                    view.objects.insert(format!("{kind} {name}"), comparable(object));
                }
                kind @ ("Job" | "Work") if is_of_the_platform(object) => {
                    view.others.push(format!("{kind} {}", stem()));
                }
                kind @ ("ServiceAccount" | "ConfigMap" | "ClusterRole" | "ClusterRoleBinding")
                    if is_of_the_platform(object) =>
                {
                    view.others.push(format!("{kind} {name}"));
                }
                _ => {}
            }
        }
        view.others.sort();
        view
    }

    fn object(&mut self, name: &str) -> &mut Value {
        self.objects.get_mut(name).unwrap_or_else(|| panic!("{name} is captured"))
    }
}

/// Returns whether an object belongs to a Promise, not to a request.
fn is_of_the_platform(object: &Value) -> bool {
    object["metadata"].get("namespace").is_none_or(|namespace| namespace == keys::SYSTEM_NAMESPACE)
}

/// Returns the part of an object that is compared; times differ and fields of the API server are its own.
fn comparable(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let mut status = object["status"].as_object().cloned().unwrap_or_default();
    let mut conditions = Map::new();
    for condition in status.remove("conditions").iter().flat_map(|list| list.as_array().unwrap()) {
        let text = |field: &str| condition[field].as_str().unwrap_or_default();
        // The name of a Job ends in a suffix that is derived here and random there (decision 6).
        let message = text("message").split(" (Job ").next().unwrap();
        let state = format!("{}/{}/{message}", text("status"), text("reason"));
        conditions.insert(text("type").to_owned(), state.into());
    }
    // Their first write after a change rewrites the spec and ours does not, so the numbers differ (01 §1.6). What is to be
    // the same is whether the present spec has been looked at; the platform in memory counts no deletion.
    if let Some(observed) = status.remove("observedGeneration")
        && metadata.get("deletionTimestamp").is_none()
    {
        status.insert(OBSERVED.to_owned(), json!(observed == metadata["generation"]));
    }
    let labels = &metadata["labels"];
    let mut view = json!({
        "labels": if *labels == json!({}) { &Value::Null } else { labels },
        "finalizers": metadata["finalizers"],
        "deleting": metadata.get("deletionTimestamp").is_some(),
        "conditions": conditions,
        "status": status,
    });
    without_times(&mut view);
    view
}

fn without_times(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                if key.ends_with("Time") {
                    *value = "<time>".into();
                }
                without_times(value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(without_times),
        _ => {}
    }
}

/// A recorded life, and how much of it was compared.
struct Scenario {
    folder: &'static str,
    root: PathBuf,
    /// Name and kind there of the Promise that is [`NAME`] here, and of its requests.
    names: [&'static str; 2],
    compared: BTreeSet<String>,
}

impl Scenario {
    fn open(folder: &'static str, names: [&'static str; 2]) -> Option<Self> {
        let root = recordings()?.join(folder);
        Some(Self { folder, root, names, compared: BTreeSet::new() })
    }

    fn stages(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.join("captured")).unwrap().map(|entry| entry.unwrap());
        let folders = entries.filter(|entry| entry.path().is_dir());
        let mut stages: Vec<String> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
        stages.sort();
        stages
    }

    /// Returns what there is at a stage: each folder holds only what changed since the one before.
    fn captured(&self, stage: &str) -> View {
        let mut objects: BTreeMap<String, Value> = BTreeMap::new();
        for earlier in self.stages().iter().filter(|earlier| earlier.as_str() <= stage) {
            let folder = self.root.join("captured").join(earlier);
            for object in documents(&folder.join("objects.yaml")).into_iter().filter(Value::is_object) {
                let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
                let parts = [text("/kind"), text("/metadata/namespace"), text("/metadata/name")];
                objects.insert(parts.into_iter().flatten().collect::<Vec<_>>().join("/"), object);
            }
            let notes = std::fs::read_to_string(folder.join("unchanged.txt")).unwrap_or_default();
            for gone in notes.lines().filter_map(|line| line.strip_prefix("gone: ")) {
                assert!(objects.remove(gone).is_some(), "{earlier}: {gone} went without having been there");
            }
        }
        View::of(objects.values())
    }

    /// Applies the Promises of a file.
    fn put(&self, world: &mut World, file: &str, labels: &Value) {
        let objects = documents(&self.root.join(file)).iter().map(|object| swap(object, self.names, NAMES)).collect();
        put(world, objects, labels);
    }

    #[track_caller]
    fn compare(&mut self, world: &World, stage: &str) {
        assert!(self.stages().iter().any(|captured| captured == stage), "{stage} is not captured");
        let mut expected = self.captured(stage);
        for accepted in ACCEPTED.iter().filter(|accepted| accepted.scenario == self.folder) {
            if accepted.stages.contains(&stage) {
                let before = expected.clone();
                (accepted.expect)(&mut expected);
                assert_ne!(before, expected, "{stage} has no such difference any more: {}", accepted.reason);
            }
        }
        let ours: Vec<Value> = world.objects.values().map(|object| swap(object, NAMES, self.names)).collect();
        let ours = View::of(ours.iter());
        let difference = crate::patch::between(&json!(expected.objects), &json!(ours.objects));
        assert_eq!(difference, None, "{stage} differs from {:#}", json!(expected.objects));
        assert_eq!(ours.others, expected.others, "{stage}");
        self.compared.insert(stage.to_owned());
    }

    /// Returns what the deletion of the Promise did there: which finalizers are left, and what kind of object goes.
    fn deletion(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.root.join("captured/history.jsonl")).unwrap();
        let promise = format!("Promise/{}", self.names[0]);
        let versions = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut versions = versions.skip_while(|version| version["object"] != promise || version["deleting"] != true);
        versions.next().expect("it is deleted there");
        let mut steps = Vec::new();
        for version in versions {
            let address = version["object"].as_str().unwrap();
            let parts: Vec<&str> = address.split('/').collect();
            let is_of_the_platform = parts.len() == 2 || parts[1] == keys::SYSTEM_NAMESPACE;
            let goes = version["deleting"] == true || version["event"] == "DELETED";
            let step = match parts[0] {
                "Promise" if version["event"] == "DELETED" => left(&json!([])),
                "Promise" if version.get("finalizers").is_some() => left(&version["finalizers"]),
                "PromiseRevision" | "Work" | "Job" if goes && is_of_the_platform => format!("{} goes", parts[0]),
                kind if goes && kind == self.names[1] => "request goes".to_owned(),
                _ => continue,
            };
            if steps.last() != Some(&step) {
                steps.push(step);
            }
        }
        steps
    }

    /// Every stage has been compared, and every accepted difference belongs to one.
    #[track_caller]
    fn close(self) {
        let stages: BTreeSet<String> = self.stages().into_iter().collect();
        assert_eq!(self.compared, stages);
        for accepted in ACCEPTED.iter().filter(|accepted| accepted.scenario == self.folder) {
            assert!(accepted.stages.iter().all(|stage| stages.contains(*stage)), "{}", accepted.reason);
        }
    }
}

fn left(finalizers: &Value) -> String {
    format!("left: {finalizers}")
}

/// Returns what our deletion of the Promise did, as [`Scenario::deletion`] does.
fn deletion(world: &World) -> Vec<String> {
    let mut steps = Vec::new();
    for write in &world.writes {
        let step = match write {
            Write::Patch { target, patch } if target.kind.kind == "Promise" => {
                match patch.pointer("/metadata/finalizers") {
                    Some(Value::Null) => left(&json!([])),
                    Some(finalizers) => left(finalizers),
                    None => continue,
                }
            }
            Write::Delete { target } => match target.kind.kind.as_str() {
                "Redis" => "request goes".to_owned(),
                kind @ ("PromiseRevision" | "Work" | "Job") => format!("{kind} goes"),
                _ => continue,
            },
            _ => continue,
        };
        if steps.last() != Some(&step) {
            steps.push(step);
        }
    }
    steps
}

/// Returns the object with the names of one Promise in place of another's, wherever they are.
fn swap(object: &Value, from: [&str; 2], to: [&str; 2]) -> Value {
    let text = object.to_string().replace(from[0], to[0]).replace(from[1], to[1]);
    serde_json::from_str(&text).unwrap()
}

fn pause(world: &mut World, value: Value) {
    world.label(keys::PAUSED, value);
    world.settle();
}

#[test]
fn a_pause_of_the_promise() {
    let Some(mut scenario) = Scenario::open("14-paused", ["g-14", "G14"]) else { return };
    let mut world = World::new();
    scenario.put(&mut world, "input/02-promise.yaml", &json!({}));
    world.request("redis-one");
    world.settle();
    for stage in ["01-before", "02-request-paused", "03-request-changed-while-paused", "04-request-unpaused"] {
        scenario.compare(&world, stage);
    }
    pause(&mut world, json!("true"));
    scenario.compare(&world, "05-promise-paused");
    scenario.put(&mut world, "input/08-promise-changed-while-paused.yaml", &json!({}));
    world.request("redis-two");
    world.settle();
    scenario.compare(&world, "06-promise-changed-and-new-request-while-paused");
    pause(&mut world, Value::Null);
    world.run_requests();
    scenario.compare(&world, "07-promise-unpaused");
    scenario.close();
}

#[test]
fn a_deletion_step_by_step() {
    let Some(mut scenario) = Scenario::open("16-deletion-step-by-step", ["g-16", "G16"]) else { return };
    let mut world = World::new();
    scenario.put(&mut world, "input/02-promise.yaml", &json!({}));
    world.settle();
    scenario.compare(&world, "01-promise-available");
    world.request("redis-one");
    world.request("redis-two");
    world.settle();
    scenario.compare(&world, "02-two-requests");
    world.delete("Redis", &ObjectKey::namespaced("default", "redis-one"));
    world.pass();
    scenario.compare(&world, "03-one-deletion-marked");
    scenario.compare(&world, "04-one-delete-workflow-running");
    world.settle();
    scenario.compare(&world, "05-one-deleted");
    world.writes.clear();
    world.delete_promise();
    world.pass();
    scenario.compare(&world, "06-promise-deletion-marked");
    world.pass();
    scenario.compare(&world, "07-promise-delete-workflow-running");
    world.settle();
    scenario.compare(&world, "08-promise-deleted");
    assert_eq!(deletion(&world), scenario.deletion());
    assert!(world.objects.is_empty(), "{:?}", world.objects.keys());
    scenario.close();
}

#[test]
fn revisions_of_two_versions() {
    let Some(mut scenario) = Scenario::open("11-promise-update-revisions-bindings", ["g-11", "G11"]) else { return };
    let mut world = World::new();
    scenario.put(&mut world, "input/02-promise-v1.yaml", &json!({}));
    world.settle();
    scenario.compare(&world, "01-promise-v1");
    world.request("redis-float");
    world.request("redis-pin");
    world.settle();
    scenario.compare(&world, "02-requests-at-v1");
    scenario.put(&mut world, "input/06-promise-v2.yaml", &json!({}));
    world.run_requests();
    scenario.compare(&world, "03-promise-v2");
    // Only a binding moves.
    for stage in ["04-pin-moved-to-v2", "05-pin-moved-back-to-v1", "06-pin-to-unknown-version", "07-pin-to-latest"] {
        scenario.compare(&world, stage);
    }
    world.delete("PromiseRevision", &ObjectKey::cluster("redis-6654c"));
    world.settle();
    scenario.compare(&world, "08-old-revision-deleted");
    scenario.close();
}

#[test]
fn a_released_promise_that_others_require() {
    let Some(mut scenario) = Scenario::open("12-promise-release-and-requirements", ["g-12", "G12"]) else { return };
    // What the release does to its Promise.
    let released = json!({ "kratix.io/promise-release-name": NAME });
    let mut world = World::new();
    scenario.put(&mut world, "input/02-promise-with-requirements.yaml", &json!({}));
    world.settle_all();
    scenario.compare(&world, "02-requirements-unmet");
    scenario.put(&mut world, "served/v1.yaml", &released);
    world.settle_all();
    scenario.compare(&world, "03-released-v1");
    scenario.put(&mut world, "input/04-promise-never.yaml", &json!({}));
    world.settle_all();
    scenario.compare(&world, "04-requirements-met");
    scenario.put(&mut world, "served/v2.yaml", &released);
    world.settle_all();
    scenario.compare(&world, "05-released-v2");
    // Only the release fails.
    scenario.compare(&world, "06-version-mismatch");
    scenario.compare(&world, "07-source-gone");
    scenario.put(&mut world, "served/v1.yaml", &released);
    world.settle_all();
    scenario.compare(&world, "08-back-to-v1");
    world.delete_promise();
    world.settle_all();
    scenario.compare(&world, "09-release-deleted");
    scenario.close();
}

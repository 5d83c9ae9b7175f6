//! Who writes what: of every field of a status there is one owner, and no program writes objects that are not its own.

use std::collections::{BTreeMap, BTreeSet};

use kratix_api::{condition, keys};
use kratix_testing::faults::Call;
use serde_json::{Map, Value, json};

use crate::world::World;

/// Fields of the status of requests and Promises that the manager alone writes.
const OF_MANAGER: [&str; 16] = [
    "observedGeneration",
    "workflows",
    "workflowsSucceeded",
    "workflowsFailed",
    "lastSuccessfulConfigureWorkflowTime",
    "lastAvailableTime",
    "status",
    "version",
    "apiVersion",
    "kind",
    "requiredPromises",
    "requiredBy",
    "promiseVersion",
    "resourceBindingVersion",
    "destinations",
    "available",
];
/// What the manager prepares and the program of a pod fills in.
const SHARED: [&str; 3] = ["message", "conditions", "kratix"];
/// What a program may change in the entry of its pipeline.
const OF_ENTRY: [&str; 4] = ["phase", "message", "attempts", "nextRetryAt"];
/// The counters that a Promise's first status has to have, whoever writes it.
const COUNTERS: [&str; 3] = ["workflows", "workflowsSucceeded", "workflowsFailed"];

/// Tells whether a field of a status is not a pipeline's own.
pub(crate) fn of_kratix(field: &str) -> bool {
    OF_MANAGER.contains(&field) || SHARED.contains(&field)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    Manager,
    Pod,
    User,
}

/// Returns writes of programs to what is not theirs.
pub(crate) fn strangers(world: &World) -> Vec<String> {
    let mut found: Vec<String> = world.manager.calls().iter().filter_map(stranger_of_the_manager).collect();
    found.extend(world.pods.calls().iter().filter_map(stranger_of_a_pod));
    let mut writes: Vec<(u64, Writer, Call)> = Vec::new();
    let all =
        [(Writer::Manager, world.manager.calls()), (Writer::Pod, world.pods.calls()), (Writer::User, world.wipes())];
    for (writer, calls) in all {
        writes.extend(calls.into_iter().filter_map(|call| Some((version(&call)?, writer, call))));
    }
    writes.sort_by_key(|(version, ..)| *version);
    let mut statuses: BTreeMap<String, Value> = BTreeMap::new();
    for (_, writer, call) in writes {
        let Some((_, object)) = &call.answer else { continue };
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let before = statuses.insert(uid, object["status"].clone()).unwrap_or_default();
        found.extend(trespasses(writer, &before, &object["status"]).into_iter().map(|field| match writer {
            Writer::Manager => format!("{call}: the manager writes status.{field}, which is the pipeline's"),
            _ => format!("{call}: a program of a pod writes status.{field}, which is the manager's"),
        }));
    }
    found
}

/// Returns the version that a write of a request or a Promise has led to.
fn version(call: &Call) -> Option<u64> {
    let is_parent = call.path.contains("/example.org/") || call.path.contains("/promises/");
    let (_, object) = call.answer.as_ref().filter(|_| is_parent && call.succeeded())?;
    object["metadata"]["resourceVersion"].as_str()?.parse().ok()
}

fn stranger_of_the_manager(call: &Call) -> Option<String> {
    let is_of = |part: &str| call.path.contains(part);
    let is_foreign_work =
        is_of("/works/") && !is_of("-static-deps-") && call.body.pointer("/spec/workloadGroups").is_some();
    let is_foreign = is_foreign_work || (is_of("/jobs/") && call.body["status"].is_object());
    is_foreign.then(|| format!("{call}: the manager writes what is not its own"))
}

/// A program of a pod writes Works, the status of its object, and of its metadata the label of a suspension.
fn stranger_of_a_pod(call: &Call) -> Option<String> {
    let is_parent = call.path.contains("/example.org/") || call.path.contains("/promises/");
    let labels = json!({ "metadata": { "labels": { keys::WORKFLOW_SUSPENDED: keys::TRUE } } });
    let is_own = call.path.contains("/works")
        || (is_parent && (call.path.ends_with("/status") || call.body == labels || call.body.is_null()));
    (!is_own).then(|| format!("{call}: a program of a pod writes what is not its own"))
}

/// Returns the fields that a write has changed and that belong to somebody else.
fn trespasses(writer: Writer, before: &Value, after: &Value) -> Vec<String> {
    let fields = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let (before, after) = (fields(before), fields(after));
    let changed = changed(&before, &after);
    match writer {
        Writer::User => Vec::new(),
        Writer::Manager => changed.into_iter().filter(|field| !of_kratix(field)).collect(),
        Writer::Pod => {
            let is_first_counter = |field: &String| {
                COUNTERS.contains(&field.as_str()) && !before.contains_key(field) && after[field] == json!(0)
            };
            let mut found: Vec<String> = changed
                .into_iter()
                .filter(|field| OF_MANAGER.contains(&field.as_str()) && !is_first_counter(field))
                .collect();
            found.extend(foreign_conditions(&before, &after));
            found.extend(foreign_progress(&before, &after));
            found
        }
    }
}

fn changed(before: &Map<String, Value>, after: &Map<String, Value>) -> BTreeSet<String> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names.into_iter().filter(|name| before.get(*name) != after.get(*name)).cloned().collect()
}

/// A list as a map by one of the fields of its items.
fn by(name: &str, list: &Value) -> Map<String, Value> {
    let items = list.as_array().into_iter().flatten();
    items.map(|item| (item[name].as_str().unwrap_or_default().to_owned(), item.clone())).collect()
}

fn foreign_conditions(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<String> {
    let of = |status: &Map<String, Value>| by("type", status.get("conditions").unwrap_or(&Value::Null));
    let changed = changed(&of(before), &of(after));
    let foreign = changed.into_iter().filter(|kind| kind != condition::CONFIGURE_WORKFLOW_COMPLETED);
    foreign.map(|kind| format!("conditions.{kind}")).collect()
}

/// Below `kratix` a program of a pod changes the entry of its pipeline, and since when the workflow is suspended.
fn foreign_progress(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<String> {
    let empty = Map::new();
    let kratix = |status: &Map<String, Value>| status.get("kratix").cloned().unwrap_or_default();
    let (before, after) = (kratix(before), kratix(after));
    let rest = |kratix: &Value| {
        let mut rest = kratix.clone();
        if let Some(workflows) = rest.get_mut("workflows").and_then(Value::as_object_mut) {
            ["pipelines", "suspendedGeneration"].iter().for_each(|field| drop(workflows.remove(*field)));
        }
        rest
    };
    let mut found = Vec::new();
    if rest(&before) != rest(&after) {
        found.push("kratix".to_owned());
    }
    let pipelines = |kratix: &Value| by("name", kratix.pointer("/workflows/pipelines").unwrap_or(&Value::Null));
    let (before, after) = (pipelines(&before), pipelines(&after));
    let entries = changed(&before, &after);
    if entries.len() > 1 {
        found.push(format!("kratix.workflows.pipelines of {entries:?}"));
    }
    for name in entries {
        let entry = |list: &Map<String, Value>| list.get(&name).and_then(Value::as_object).unwrap_or(&empty).clone();
        let fields = changed(&entry(&before), &entry(&after));
        let foreign = fields.into_iter().filter(|field| !OF_ENTRY.contains(&field.as_str()));
        found.extend(foreign.map(|field| format!("kratix.workflows.pipelines.{name}.{field}")));
    }
    found
}

#[test]
fn a_field_that_belongs_to_somebody_else_is_found() {
    let entry = |phase: &str, time: &str| json!({ "name": "build", "phase": phase, "lastTransitionTime": time });
    let status = |version: &str, size: &str, ready: &str, entry: Value| {
        json!({
            "promiseVersion": version, "size": size, "message": "m",
            "conditions": [{ "type": "Reconciled", "status": ready }],
            "kratix": { "workflows": { "pipelines": [entry] } },
        })
    };
    let before = status("v1", "small", "False", entry("Running", "1"));
    let found = |writer, after: &Value| trespasses(writer, &before, after);
    let of_manager = status("v2", "small", "True", entry("Succeeded", "2"));
    assert!(found(Writer::Manager, &of_manager).is_empty());
    assert_eq!(
        found(Writer::Pod, &of_manager),
        ["promiseVersion", "conditions.Reconciled", "kratix.workflows.pipelines.build.lastTransitionTime"]
    );
    let of_pod = status("v1", "large", "False", entry("Suspended", "1"));
    assert!(found(Writer::Pod, &of_pod).is_empty());
    assert_eq!(found(Writer::Manager, &of_pod), ["size"]);
    assert_eq!(found(Writer::Manager, &Value::Null), ["size"]);
    let first = json!({ "workflows": 0, "workflowsSucceeded": 0, "workflowsFailed": 0 });
    assert!(trespasses(Writer::Pod, &Value::Null, &first).is_empty());
}

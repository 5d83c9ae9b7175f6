//! Jobs and supporting objects against what the reference made of the same Promises.

use std::path::PathBuf;

use super::super::access::objects;
use super::*;

fn golden(scenario: &str) -> Option<PathBuf> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/reference/golden");
    let path = PathBuf::from(root).join(scenario);
    if !path.is_dir() {
        eprintln!("skipped: no reference data at {}", path.display());
        return None;
    }
    Some(path)
}

fn documents(path: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    serde_saphyr::from_multiple::<Value>(&text).unwrap()
}

/// Everything that was captured at any stage, and everything that was put in, by kind.
struct Scenario {
    captured: Vec<Value>,
    promise: Promise,
    requests: Vec<Value>,
}

impl Scenario {
    fn read(name: &str) -> Option<Self> {
        let root = golden(name)?;
        let sorted = |folder: &str| {
            let entries = std::fs::read_dir(root.join(folder)).unwrap();
            let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
            paths.sort();
            paths
        };
        let stages = sorted("captured").into_iter().map(|path| path.join("objects.yaml"));
        let captured = stages.filter(|path| path.is_file()).flat_map(|path| documents(&path)).collect();
        let inputs: Vec<Value> = sorted("input").iter().flat_map(|path| documents(path)).collect();
        let promise = inputs.iter().find(|object| object["kind"] == "Promise").unwrap().clone();
        let kind = promise["spec"]["api"]["spec"]["names"]["kind"].clone();
        let requests = inputs.into_iter().filter(|object| object["kind"] == kind).collect();
        Some(Self { captured, promise: serde_json::from_value(promise).unwrap(), requests })
    }

    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.captured.iter().filter(move |object| object["kind"] == kind)
    }

    /// Returns every workflow with its parent.
    fn workflows(&self) -> Vec<(Parent, Workflow)> {
        let definition = Definition::of(&self.promise.spec);
        let name = self.promise.metadata.name.clone().unwrap();
        let api = &self.promise.spec.api.as_ref().unwrap()["spec"];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let kind = Kind {
            group: text(&api["group"]),
            version: text(&api["versions"][0]["name"]),
            kind: text(&api["names"]["kind"]),
            plural: text(&api["names"]["plural"]),
        };
        let mut found = Vec::new();
        for action in Action::ALL {
            let workflow = definition.promise_workflow(&name, action).unwrap();
            found.push((Parent::of_promise(&self.promise), workflow));
            for request in &self.requests {
                let request: DynamicObject = serde_json::from_value(request.clone()).unwrap();
                let workflow = definition.request_workflow(&name, &request, action, false).unwrap();
                found.push((Parent::of_request(kind.clone(), &request), workflow));
            }
        }
        found
    }
}

/// Removes what the API server and the Job controller add, and what differs by intention.
fn normal(job: &Value) -> Value {
    let mut job = job.clone();
    let name = job["metadata"]["name"].as_str().unwrap().to_owned();
    job["metadata"]["name"] = name.rsplit_once('-').unwrap().0.into();
    job["metadata"].as_object_mut().unwrap().remove("generation");
    for owner in job["metadata"]["ownerReferences"].as_array_mut().into_iter().flatten() {
        owner["uid"] = "".into();
    }
    job["metadata"]["annotations"].as_object_mut().unwrap().retain(|key, _| !key.starts_with("internal."));
    job.as_object_mut().unwrap().remove("status");
    let spec = job["spec"].as_object_mut().unwrap();
    spec.retain(|key, _| key == "template" || key == "backoffLimit");
    if spec.get("backoffLimit") == Some(&json!(6)) {
        spec.remove("backoffLimit");
    }
    let pod = job["spec"]["template"]["spec"].as_object_mut().unwrap();
    pod.remove("serviceAccount");
    pod.remove("securityContext");
    without_defaults(&mut job);
    job
}

fn without_defaults(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("imagePullPolicy");
            map.remove("defaultMode");
            if map.contains_key("fieldPath") {
                map.remove("apiVersion");
            }
            map.values_mut().for_each(without_defaults);
        }
        Value::Array(list) => list.iter_mut().for_each(without_defaults),
        _ => {}
    }
}

#[track_caller]
fn same_jobs(scenario: &str, expected: usize) {
    let Some(scenario) = Scenario::read(scenario) else { return };
    let mut ours = Vec::new();
    for (parent, workflow) in scenario.workflows() {
        for index in 0..workflow.pipelines.len() {
            let attempt = job::Attempt { index, sequence: 1, run: 0, previous_version: "" };
            ours.push(normal(&crate::patch::to_value(&job::job(&parent, &workflow, &settings(), attempt))));
        }
    }
    let mut compared = 0;
    // The same spec at a later stage is captured as a reference to the first.
    for theirs in scenario.of_kind("Job").filter(|job| job["spec"].is_object()) {
        let theirs = normal(theirs);
        let hash = &theirs["metadata"]["labels"]["kratix.io/hash"];
        let name = &theirs["metadata"]["name"];
        let of_same_hash = |ours: &&Value| &ours["metadata"]["labels"]["kratix.io/hash"] == hash;
        let ours: Vec<&Value> =
            ours.iter().filter(of_same_hash).filter(|ours| &ours["metadata"]["name"] == name).collect();
        if ours.is_empty() {
            continue; // Made for a later version of the Promise.
        }
        let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap();
        assert_eq!(pretty(ours[0]), pretty(&theirs));
        compared += 1;
    }
    assert!(compared >= expected, "{compared} Jobs compared");
}

#[test]
fn one_pipeline_of_a_request() {
    same_jobs("02-resource-pipeline-two-files-status", 1);
}

#[test]
fn several_pipelines_with_every_option() {
    same_jobs("03-several-pipelines-all-options", 7);
}

#[test]
fn pipelines_with_accounts_of_their_own() {
    same_jobs("04-rbac-permissions-service-account", 4);
}

#[test]
fn pipelines_in_a_namespace_of_their_own() {
    same_jobs("15-pipeline-namespace", 2);
}

#[track_caller]
fn same_supporting_objects(scenario: &str) {
    let Some(scenario) = Scenario::read(scenario) else { return };
    let mut compared = 0;
    for (parent, workflow) in scenario.workflows() {
        for pipeline in workflow.pipelines.iter() {
            for wanted in objects(&parent, &workflow, pipeline) {
                let ours = wanted.object();
                let same = |theirs: &&Value| {
                    theirs["metadata"]["name"] == ours["metadata"]["name"]
                        && theirs["metadata"].get("namespace") == ours["metadata"].get("namespace")
                };
                let found: Vec<&Value> = scenario.of_kind(ours["kind"].as_str().unwrap()).filter(same).collect();
                // The account of a user is not ours to describe.
                let user_owned = |theirs: &&Value| theirs["metadata"]["labels"].get("kratix.io/promise-name").is_none();
                if found.iter().any(user_owned) {
                    continue;
                }
                assert!(!found.is_empty(), "not in the reference: {ours}");
                // A later version of the Promise may have changed the rules; one capture must be equal.
                assert!(found.iter().any(|theirs| **theirs == ours), "{ours}\n{}", found[0]);
                compared += 1;
            }
        }
    }
    assert!(compared > 0);
}

#[test]
fn accounts_selectors_and_permissions_are_those_of_the_reference() {
    for scenario in [
        "02-resource-pipeline-two-files-status",
        "03-several-pipelines-all-options",
        "04-rbac-permissions-service-account",
        "15-pipeline-namespace",
    ] {
        same_supporting_objects(scenario);
    }
}

#[test]
fn hashes_of_jobs_are_those_of_the_reference() {
    let Some(root) = golden("19-hash-vectors") else { return };
    let text = std::fs::read_to_string(root.join("hashes.jsonl")).unwrap();
    let mut definition = None;
    let mut compared = 0;
    for line in text.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let stored = case["stored"].as_str().map_or(Value::Null, |text| serde_json::from_str(text).unwrap());
        let hash = if case["kind"] == "Promise" {
            let this = Definition::of(&serde_json::from_value(stored).unwrap());
            let hash = this.promise_workflow("p", Action::Configure).unwrap().hash;
            definition.get_or_insert(this);
            hash
        } else {
            let (_, mut request) = request("a");
            request.data = if stored.is_null() { json!({}) } else { json!({ "spec": stored }) };
            definition.as_ref().unwrap().request_workflow("p", &request, Action::Configure, false).unwrap().hash
        };
        assert_eq!(hash, case["hash"], "{}", case["case"]);
        compared += 1;
    }
    assert!(compared >= 42);
}

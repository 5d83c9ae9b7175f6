//! Jobs and supporting objects against what the reference made of the same Promises.

use super::super::access::objects;
use super::*;

/// Returns a request as the recorder read it: an unquoted `y` is a text, which the reader of these tests takes for true.
fn as_recorded(request: &Value) -> Value {
    let mut request = request.clone();
    for value in request["spec"].as_object_mut().into_iter().flat_map(|spec| spec.values_mut()) {
        if *value == json!(true) {
            *value = "y".into();
        }
    }
    request
}

fn documents(path: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    serde_saphyr::from_multiple::<Value>(&text).unwrap()
}

/// Everything that was captured at any stage, and everything that was put in, by kind.
struct Scenario {
    captured: Vec<Value>,
    /// As first installed and as changed later.
    promises: Vec<Promise>,
    requests: Vec<Value>,
}

impl Scenario {
    fn read(name: &str) -> Option<Self> {
        let root = crate::golden::recordings()?.join(name);
        let sorted = |folder: &str| {
            let entries = std::fs::read_dir(root.join(folder)).unwrap();
            let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
            paths.sort();
            paths
        };
        let stages = sorted("captured").into_iter().map(|path| path.join("objects.yaml"));
        let captured: Vec<Value> = stages.filter(|path| path.is_file()).flat_map(|path| documents(&path)).collect();
        let inputs: Vec<Value> = sorted("input").iter().flat_map(|path| documents(path)).collect();
        // Merge patches have no kind of their own.
        let is_promise = |object: &&Value| object["kind"] == "Promise";
        let promises: Vec<Promise> =
            inputs.iter().filter(is_promise).map(|object| serde_json::from_value(object.clone()).unwrap()).collect();
        let kinds: Vec<Value> = promises
            .iter()
            .filter_map(|promise| Some(promise.spec.api.as_ref()?["spec"]["names"]["kind"].clone()))
            .collect();
        // As sent, and as stored: with the defaults of their API.
        let is_whole =
            |object: &&Value| object["spec"].is_object() && object["metadata"].get("deletionTimestamp").is_none();
        let stored = captured.iter().filter(is_whole).cloned();
        let requests = inputs.into_iter().chain(stored).filter(|object| kinds.contains(&object["kind"]));
        let requests = requests.flat_map(|request| [as_recorded(&request), request]).collect();
        Some(Self { captured, promises, requests })
    }

    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.captured.iter().filter(move |object| object["kind"] == kind)
    }

    /// Returns every workflow of a Promise with its parent.
    fn workflows(&self, promise: &Promise) -> Vec<(Parent, Workflow)> {
        let definition = Definition::of(&promise.spec);
        let name = promise.metadata.name.clone().unwrap();
        let mut found = Vec::new();
        for action in Action::ALL {
            let workflow = definition.promise_workflow(&name, action).unwrap();
            found.push((Parent::of_promise(promise), workflow));
            let Some(api) = &promise.spec.api else { continue };
            let text = |path: &str| api["spec"].pointer(path).unwrap().as_str().unwrap().to_owned();
            let kind = Kind {
                group: text("/group"),
                version: text("/versions/0/name"),
                kind: text("/names/kind"),
                plural: text("/names/plural"),
            };
            for request in self.requests.iter().filter(|request| request["kind"] == kind.kind.as_str()) {
                let request: DynamicObject = serde_json::from_value(request.clone()).unwrap();
                let workflow = definition.request_workflow(&name, &request, action, false).unwrap();
                found.push((Parent::of_request(kind.clone(), &request), workflow));
            }
        }
        found
    }
}

/// A difference from the reference that is meant, and why.
struct Accepted {
    reason: &'static str,
    /// Removes it from a Job of either side.
    remove: fn(&mut Value),
}

/// Every difference between our Jobs and those of the reference. Anything else is a defect.
const ACCEPTED: [Accepted; 3] = [
    Accepted {
        reason: "decision 6: the last five digits are derived instead of random",
        remove: |job| {
            let name = job["metadata"]["name"].as_str().unwrap().to_owned();
            job["metadata"]["name"] = name.rsplit_once('-').unwrap().0.into();
        },
    },
    Accepted {
        reason: "02 §19 weakness 2: Jobs are ordered by numbers of their own, and a trigger is consumed once",
        remove: |job| {
            let annotations = job["metadata"]["annotations"].as_object_mut().unwrap();
            annotations.retain(|key, _| !key.starts_with("internal.workflows.kratix.io/"));
        },
    },
    Accepted {
        reason: "decision 14: a Work tells which Job wrote it, so that `Reconciled` depends on no clock",
        remove: |job| {
            for container in job["spec"]["template"]["spec"]["initContainers"].as_array_mut().into_iter().flatten() {
                if let Some(env) = container["env"].as_array_mut() {
                    env.retain(|variable| variable["name"] != keys::env::SEQUENCE);
                }
            }
        },
    },
];

/// Removes what the API server and the Job controller add, and what differs by intention.
fn normal(job: &Value) -> Value {
    let mut job = job.clone();
    ACCEPTED.iter().for_each(|accepted| (accepted.remove)(&mut job));
    job["metadata"].as_object_mut().unwrap().remove("generation");
    for owner in job["metadata"]["ownerReferences"].as_array_mut().into_iter().flatten() {
        owner["uid"] = "".into();
    }
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

/// Compares all Jobs of a scenario; none may be without a partner that we would make of the same manifests.
#[track_caller]
fn same_jobs(scenario: &str, expected: usize) {
    let Some(scenario) = Scenario::read(scenario) else { return };
    let mut ours = Vec::new();
    for (parent, workflow) in scenario.promises.iter().flat_map(|promise| scenario.workflows(promise)) {
        for index in 0..workflow.pipelines.len() {
            let attempt = job::Attempt { index, sequence: 1, run: 0, previous_version: "" };
            ours.push(normal(&crate::patch::to_value(&job::job(&parent, &workflow, &settings(), attempt))));
        }
    }
    let mut compared = std::collections::BTreeSet::new();
    let mut alone = std::collections::BTreeSet::new();
    // The same spec at a later stage is captured as a reference to the first.
    for theirs in scenario.of_kind("Job").filter(|job| job["spec"].is_object()) {
        let theirs = normal(theirs);
        let hash = &theirs["metadata"]["labels"]["kratix.io/hash"];
        let name = &theirs["metadata"]["name"];
        let is_partner =
            |ours: &&Value| &ours["metadata"]["labels"]["kratix.io/hash"] == hash && &ours["metadata"]["name"] == name;
        let id = format!("{} {}", name.as_str().unwrap(), &hash.as_str().unwrap()[..5]);
        let Some(ours) = ours.iter().find(is_partner) else {
            alone.insert(id);
            continue;
        };
        let difference = crate::patch::between(&theirs, ours);
        let reasons: Vec<&str> = ACCEPTED.iter().map(|accepted| accepted.reason).collect();
        assert_eq!(difference, None, "{id} differs; accepted is only: {reasons:#?}");
        compared.insert(id);
    }
    assert!(alone.is_empty(), "we make no such Jobs: {alone:#?}");
    assert_eq!(compared.len(), expected, "{compared:#?}");
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

#[test]
fn pipelines_of_requests_that_fail_are_paused_updated_and_deleted() {
    same_jobs("08-suspend-resume-retry-after", 8);
    same_jobs("09-failing-pipeline-then-fixed", 2);
    same_jobs("10-request-update-manual-reconcile", 1);
    same_jobs("14-paused", 5);
    same_jobs("16-deletion-step-by-step", 5);
}

#[test]
fn pipelines_of_every_other_recorded_request() {
    same_jobs("05-destination-selector-groups", 2);
    same_jobs("06-filepath-modes-update-delete", 5);
    same_jobs("07-unscheduled-misplaced-strict", 1);
    same_jobs("11-promise-update-revisions-bindings", 6);
    same_jobs("13-health-record", 1);
    same_jobs("18-store-credentials-and-recovery", 1);
    same_jobs("20-odd-outputs", 5);
}

#[track_caller]
fn same_supporting_objects(scenario: &str) {
    let Some(scenario) = Scenario::read(scenario) else { return };
    let mut compared = 0;
    for (parent, workflow) in scenario.workflows(&scenario.promises[0]) {
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
    let text = include_str!("../../../../api/src/hash/recorded.jsonl");
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

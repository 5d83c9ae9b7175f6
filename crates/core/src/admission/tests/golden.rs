//! The 78 recorded writes: the same verdicts as the original's, with the differences that `differences.yaml` lists.
//!
//! What the API server decides by itself (schemas) is told apart by its message and compared in the tests of the binary,
//! which share the list of differences.

use std::path::{Path, PathBuf};

use kratix_api::name;

use super::*;

const DIFFERENCES: &str = include_str!("differences.yaml");
/// Cases in which the API server refuses before any webhook is asked.
const BY_SCHEMA: usize = 10;

fn golden() -> Option<PathBuf> {
    Some(crate::golden::recordings()?.join("17-admission"))
}

fn documents(path: &Path) -> Vec<Value> {
    serde_saphyr::from_multiple(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The cluster in which the cases were recorded.
fn recorded(path: &Path, case: &Value) -> World {
    let mut world = World::default();
    for file in ["01-setup.yaml", "02-promise.yaml", "03-required-promise.yaml"] {
        world.objects.extend(documents(&path.join("input").join(file)));
    }
    for promise in world.objects.clone().iter().filter(|object| object["kind"] == "Promise") {
        let name = promise["metadata"]["name"].as_str().unwrap();
        let version = promise["metadata"]["labels"]["kratix.io/promise-version"].as_str().unwrap_or("not-set");
        // Never stored as null: Kratix writes it with its workflows.
        let stored = if promise["spec"].is_null() { json!({}) } else { promise["spec"].clone() };
        let spec = json!({"promiseRef": {"name": name}, "promiseSpec": stored, "version": version});
        let mut revision = object("PromiseRevision", &name::promise_revision(name, version), spec);
        revision["metadata"]["labels"] = json!({"kratix.io/promise-name": name});
        revision["status"] = json!({"latest": true});
        world.objects.push(revision);
        let mut crd = promise["spec"]["api"].clone();
        if crd.is_object() {
            crd["metadata"]["labels"] = json!({"kratix.io/promise-name": name});
            world.objects.push(crd);
        }
    }
    for file in std::fs::read_dir(path.join("served")).unwrap() {
        let file = file.unwrap();
        let url = format!("http://127.0.0.1:18017/{}", file.file_name().to_string_lossy());
        world = world.serving(&url, Answer::Document { status: 200, body: std::fs::read(file.path()).unwrap() });
    }
    world = world.serving("http://127.0.0.1:18017/none.yaml", Answer::Document { status: 404, body: Vec::new() });
    let nobody = "http://127.0.0.1:1/x.yaml";
    let message = format!("Get {nobody:?}: Connection refused (os error 111)");
    with_refusal(world.serving(nobody, Answer::Unreachable { message, is_passing: true }), case)
}

/// What the API server had against the CRD or the Job of the case is in the recorded answer.
fn with_refusal(mut world: World, case: &Value) -> World {
    let message = case["message"].as_str().unwrap_or_default();
    let Some((_, message)) = message.split_once(" denied the request: ") else { return world };
    if let Some((_, message)) = message.split_once("failed to generate Job definition: \n") {
        world = world.refusing("Job", refusal(422, message));
    } else if case["code"] == 422 {
        let refusal = Refusal { details: case["details"].clone(), ..refusal(422, message) };
        // Only what is there can be immutable.
        let is_about_change = message.contains("field is immutable");
        let kind = "CustomResourceDefinition";
        world = if is_about_change { world.refusing_updates(kind, refusal) } else { world.refusing(kind, refusal) };
    }
    world
}

/// Returns what a client sees, in the form of the records.
fn shown(verdict: Verdict, operation: Operation) -> Value {
    match verdict {
        Verdict::Allowed(allowed) => {
            let code = if operation == Operation::Create { 201 } else { 200 };
            let mut shown = json!({"allowed": true, "code": code});
            if !allowed.warnings.is_empty() {
                shown["warnings"] = json!(allowed.warnings);
            }
            shown
        }
        Verdict::Denied(Denial { webhook, code, reason, message, details }) => {
            let message = format!("admission webhook {webhook:?} denied the request: {message}");
            let mut shown = json!({"code": code, "reason": reason, "message": message});
            if !details.is_null() {
                shown["details"] = details;
            }
            shown
        }
        Verdict::Open(questions) => panic!("still open: {questions:?}"),
    }
}

/// Returns what is expected: what was recorded, changed by what differs on purpose.
fn expected(case: &Value, difference: Option<&Value>) -> Value {
    let mut expected = case.clone();
    let members = expected.as_object_mut().unwrap();
    for key in ["case", "object", "operation"] {
        members.remove(key);
    }
    for (key, value) in difference.into_iter().flat_map(|difference| difference["now"].as_object().unwrap()) {
        members.insert(key.clone(), value.clone());
    }
    members.retain(|_, value| !value.is_null());
    expected
}

#[test]
fn every_recorded_write_gets_its_recorded_verdict() {
    let Some(path) = golden() else { return };
    let mut differences: Vec<Value> = serde_saphyr::from_str(DIFFERENCES).unwrap();
    differences.retain(|difference| difference["of"].is_null());
    let lines = std::fs::read_to_string(path.join("denials.jsonl")).unwrap();
    let cases: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(cases.len(), 78);

    let (mut by_schema, mut wrong) = (0, Vec::new());
    for case in &cases {
        let is_from_webhook = case["message"].as_str().is_none_or(|message| message.starts_with("admission webhook"));
        let difference = differences.iter().find(|difference| difference["case"] == case["case"]);
        if !is_from_webhook && difference.is_none() {
            by_schema += 1;
            continue;
        }
        let mut world = recorded(&path, case);
        let name = case["object"]["metadata"]["name"].clone();
        let stored = world
            .objects
            .iter()
            .find(|object| object["kind"] == case["object"]["kind"] && object["metadata"]["name"] == name);
        let stored = stored.cloned().unwrap_or(Value::Null);
        let (operation, object, old) = match case["operation"].as_str().unwrap() {
            "CREATE" => (Operation::Create, case["object"].clone(), Value::Null),
            "UPDATE" => (Operation::Update, case["object"].clone(), stored),
            _ => (Operation::Delete, Value::Null, stored),
        };
        let shown = shown(world.rule(review(operation, object, old)), operation);
        let expected = expected(case, difference);
        if shown != expected {
            wrong.push(format!("{}\n  shown    {shown}\n  expected {expected}", case["case"]));
        }
    }
    assert!(wrong.is_empty(), "{} of 78\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(by_schema, BY_SCHEMA);
    for difference in &differences {
        assert!(cases.iter().any(|case| case["case"] == difference["case"]), "{} is no case", difference["case"]);
        assert!(difference["because"].as_str().is_some_and(|reason| !reason.is_empty()), "{}", difference["case"]);
    }
}

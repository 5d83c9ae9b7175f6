//! Any sequence of valid changes ends where one ends that makes the last of them at once: files and statuses tell nothing of
//! the way. The specs come from the schemas of Promises of the marketplace.

use std::collections::BTreeMap;

use kratix_testing::faults::{Fault, Seed};
use serde_json::{Map, Value, json};

use crate::record::Record;
use crate::run::run;
use crate::scenario::{EXAMPLE, Scenario, Step, api, pipeline, promise_of};
use crate::script::Act;

/// Sequences of a run of the tests; `KRATIX_SEQUENCES` asks for more.
const SEQUENCES: u64 = 4;
const CHANGES_MAX: usize = 5;
/// Pipelines that a Promise may have.
const WORKFLOWS: [&[&str]; 4] = [&["build"], &["build", "test"], &["test", "build"], &["make"]];
const ENVIRONMENTS: [&str; 2] = ["dev", "prod"];

const SCHEMAS: [&str; 5] = [
    include_str!("../data/schemas/app-as-a-service.json"),
    include_str!("../data/schemas/mongodb-full.json"),
    include_str!("../data/schemas/namespace.json"),
    include_str!("../data/schemas/redis.json"),
    include_str!("../data/schemas/sql-aws.json"),
];

/// Returns a value that is valid by a schema.
fn value(schema: &Value, seed: &mut Seed) -> Value {
    if let Some(allowed) = schema["enum"].as_array() {
        return seed.choose(allowed).clone();
    }
    match schema["type"].as_str() {
        Some("object") => object(schema, seed),
        Some("array") => (0..seed.below(3)).map(|_| value(&schema["items"], seed)).collect(),
        Some("integer") => json!(seed.below(100)),
        Some("boolean") => json!(seed.below(2) == 1),
        _ => json!(text(schema["pattern"].as_str(), seed)),
    }
}

fn object(schema: &Value, seed: &mut Seed) -> Value {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut object = Map::new();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        if required.contains(&name.as_str()) || seed.below(2) == 1 {
            object.insert(name.clone(), value(property, seed));
        }
    }
    if schema["additionalProperties"].is_object() {
        let names = ["one", "two"].iter().take(seed.below(3));
        object.extend(names.map(|name| ((*name).to_owned(), value(&schema["additionalProperties"], seed))));
    }
    Value::Object(object)
}

/// Returns a text for the patterns that occur: alternatives, and words with or without a slash.
fn text(pattern: Option<&str>, seed: &mut Seed) -> String {
    let alternatives = pattern.and_then(|pattern| pattern.strip_prefix("^(")?.strip_suffix(")$"));
    let words = ["alpha", "beta", "gamma", "delta"];
    match alternatives {
        Some(alternatives) => {
            alternatives.split('|').nth(seed.below(alternatives.split('|').count())).unwrap_or_default().to_owned()
        }
        None if pattern.is_some_and(|pattern| pattern.contains("\\/")) => {
            format!("/{}", words[seed.below(words.len())])
        }
        None => words[seed.below(words.len())].to_owned(),
    }
}

fn promise(schema: &Value, pipelines: &[&str], environment: &str) -> Value {
    let mut api = api("Env", "envs");
    api["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"] = schema.clone();
    let pipelines: Vec<Value> = pipelines.iter().map(|name| pipeline(name)).collect();
    let mut promise = promise_of("env", api, json!({ "resource": { "configure": pipelines } }));
    promise["spec"]["destinationSelectors"] = json!([{ "matchLabels": { "environment": environment } }]);
    promise
}

fn request(spec: &Value) -> Value {
    json!({
        "apiVersion": EXAMPLE, "kind": "Env", "metadata": { "name": "a", "namespace": "default" }, "spec": spec,
    })
}

/// Returns a sequence of changes, and the one that makes the last state at once.
fn sequence(seed: &mut Seed) -> (Scenario, Scenario) {
    let schema: Value = serde_json::from_str(SCHEMAS[seed.below(SCHEMAS.len())]).unwrap();
    let mut state = (promise(&schema, WORKFLOWS[0], "dev"), request(&value(&schema, seed)));
    let mut steps = vec![Step::Apply(state.0.clone()), Step::Rest, Step::Apply(state.1.clone()), Step::Rest];
    for _ in 0..=seed.below(CHANGES_MAX) {
        match seed.below(4) {
            0 => {
                state.0 = promise(&schema, WORKFLOWS[seed.below(4)], ENVIRONMENTS[seed.below(2)]);
                steps.push(Step::Apply(state.0.clone()));
            }
            1 => {
                // A spec that no pipeline can do anything with, and then another one.
                steps.extend(["build", "test", "make"].map(|name| Step::Script(name, Act::Fail)));
                steps.extend([Step::Apply(request(&value(&schema, seed))), Step::Rest]);
                steps.extend(["build", "test", "make"].map(|name| Step::Script(name, Act::Write)));
                // What has failed is run again for another input only.
                let failed = steps.iter().rev().find_map(|step| match step {
                    Step::Apply(object) => Some(object.clone()),
                    _ => None,
                });
                loop {
                    state.1 = request(&value(&schema, seed));
                    if Some(&state.1) != failed.as_ref() {
                        break;
                    }
                }
                steps.push(Step::Apply(state.1.clone()));
            }
            _ => {
                state.1 = request(&value(&schema, seed));
                steps.push(Step::Apply(state.1.clone()));
            }
        }
        steps.push(if seed.below(2) == 1 { Step::Rest } else { Step::Calm });
    }
    let fresh = vec![Step::Apply(state.0), Step::Rest, Step::Apply(state.1), Step::Rest];
    (Scenario { name: "changed", steps }, Scenario { name: "fresh", steps: fresh })
}

/// What tells nothing of the way: specs, statuses and files.
fn outcome(record: Record) -> Record {
    let kinds = ["/promises ", "/envs ", "/works ", "/workplacements "];
    let mut objects = BTreeMap::new();
    for (key, value) in record.objects {
        if kinds.iter().any(|kind| key.contains(kind)) {
            let mut status = value["status"].clone();
            if let Some(status) = status.as_object_mut() {
                // A pipeline's own fields stay when it goes: Kratix does not know what they mean.
                status.retain(|name, _| !["build", "test", "make"].contains(&name.as_str()));
                if let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut) {
                    // Told by a Promise that has changed, and only by one.
                    conditions.retain(|found| found["type"] != "RequestsUpToDate" || found["status"] != "True");
                }
            }
            objects.insert(key, json!({ "spec": value["spec"], "status": status }));
        }
    }
    Record { objects, files: record.files, created: BTreeMap::new() }
}

#[test]
fn any_sequence_of_changes_ends_where_the_last_state_alone_does() {
    let sequences = std::env::var("KRATIX_SEQUENCES").ok().and_then(|text| text.parse().ok()).unwrap_or(SEQUENCES);
    let mut failures = Vec::new();
    for number in 0..sequences {
        let (changed, fresh) = sequence(&mut Seed::new(number).fork("sequence"));
        let end = |scenario: &Scenario| run(scenario, number, Fault::Nothing).map(|run| outcome(run.record));
        let differences = match (end(&fresh), end(&changed)) {
            (Ok(fresh), Ok(changed)) => fresh.differences(&changed),
            (Err(error), _) | (_, Err(error)) => vec![error],
        };
        if !differences.is_empty() {
            let steps: Vec<String> = changed.steps.iter().map(|step| format!("  {step:?}")).collect();
            failures.push(format!("sequence {number}:\n{}\n{}", differences.join("\n"), steps.join("\n")));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

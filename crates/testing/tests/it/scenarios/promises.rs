//! Changes of a Promise that has requests, and Promises that need each other.

use kratix_api::keys;
use serde_json::{Value, json};

use crate::scenario::*;
use crate::script::Act;

/// Requests of a Promise that changes.
const MANY: [&str; 20] = [
    "r01", "r02", "r03", "r04", "r05", "r06", "r07", "r08", "r09", "r10", "r11", "r12", "r13", "r14", "r15", "r16",
    "r17", "r18", "r19", "r20",
];

fn with_image(image: &str) -> Value {
    let mut promise = promise(&["build"]);
    promise["spec"]["workflows"]["resource"]["configure"][0]["spec"]["containers"][0]["image"] = json!(image);
    promise
}

fn version(mut promise: Value, version: &str) -> Value {
    promise["metadata"]["labels"] = json!({ keys::PROMISE_VERSION: version });
    promise
}

fn requiring(mut promise: Value, name: &str) -> Value {
    promise["spec"]["requiredPromises"] = json!([{ "name": name, "version": "v1.0.0" }]);
    promise
}

/// A Promise whose requests ask the Promise `base`, by way of the repository.
fn asking() -> Value {
    let mut promise = requiring(promise(&["ask"]), "base");
    promise["spec"]["destinationSelectors"] = json!([{ "matchLabels": { "environment": "platform" } }]);
    promise
}

/// The Promise `base` with a pipeline.
fn laying() -> Value {
    let workflows = json!({ "resource": { "configure": [pipeline("lay")] } });
    version(promise_of("base", api("Base", "bases"), workflows), "v1.0.0")
}

pub(super) fn all() -> Vec<Scenario> {
    use Step::*;
    let base = || version(promise_of("base", api("Base", "bases"), json!({})), "v1.0.0");
    let changed = |from: Value, to: Value| then(requested(from), vec![Apply(to), Rest, Apply(request("b", "s")), Rest]);
    let permissions = |verbs: Value| {
        let permissions = json!([{ "apiGroups": [""], "resources": ["configmaps"], "verbs": verbs }]);
        let workflows = json!({ "resource": { "configure": [pipeline_with("build", permissions)] } });
        promise_of("env", api("Env", "envs"), workflows)
    };
    let many = || {
        let mut steps = vec![Apply(with_image("one")), Rest];
        steps.extend(MANY.map(|name| Apply(request(name, "small"))));
        steps.extend([Rest, Apply(with_image("two")), Rest]);
        steps
    };
    vec![
        Scenario { name: "promise-update-with-20-requests", steps: many() },
        Scenario {
            name: "promise-version",
            steps: changed(version(promise(&["build"]), "v1.0.0"), version(with_image("two"), "v2.0.0")),
        },
        Scenario { name: "pipeline-removed", steps: changed(promise(&["build", "test"]), promise(&["build"])) },
        Scenario { name: "pipeline-added", steps: changed(promise(&["build"]), promise(&["build", "test"])) },
        Scenario { name: "pipeline-renamed", steps: changed(promise(&["build"]), promise(&["make"])) },
        Scenario { name: "workflow-removed", steps: changed(full_promise(), promise(&["build"])) },
        Scenario {
            name: "schema-changed",
            steps: changed(promise(&["build"]), {
                let mut promise = promise(&["build"]);
                let schema = &mut promise["spec"]["api"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
                schema["properties"]["spec"]["properties"]["colour"] = json!({ "type": "string", "default": "blue" });
                promise
            }),
        },
        Scenario {
            name: "api-version-added",
            steps: changed(promise(&["build"]), {
                let mut promise = promise(&["build"]);
                let versions = &mut promise["spec"]["api"]["spec"]["versions"];
                let mut second = versions[0].clone();
                second["name"] = json!("v2");
                second["storage"] = json!(false);
                versions.as_array_mut().unwrap().push(second);
                promise
            }),
        },
        Scenario {
            name: "dependencies",
            steps: vec![
                Apply({
                    let mut promise = promise(&["build"]);
                    promise["spec"]["dependencies"] = json!([namespace("from-the-promise")]);
                    promise
                }),
                Rest,
                Apply({
                    let mut promise = promise(&["build"]);
                    promise["spec"]["dependencies"] = json!([namespace("another-one"), namespace("and-one-more")]);
                    promise
                }),
                Rest,
                Apply(promise(&["build"])),
                Rest,
            ],
        },
        Scenario {
            name: "permissions-changed",
            steps: changed(permissions(json!(["get"])), permissions(json!(["get", "list"]))),
        },
        Scenario { name: "permissions-removed", steps: changed(permissions(json!(["get"])), promise(&["build"])) },
        Scenario {
            name: "promise-update-during-a-run",
            steps: changed_during_a_run(promise(&["build", "test"]), "build", Apply(promise(&["build", "ship"]))),
        },
        Scenario {
            name: "broken-update-then-a-good-one",
            steps: then(
                requested(promise(&["build"])),
                vec![
                    Script("test", Act::Fail),
                    Apply(promise(&["build", "test"])),
                    Rest,
                    Apply(promise(&["build"])),
                    Rest,
                ],
            ),
        },
        Scenario {
            name: "requirement-appears",
            steps: vec![
                Apply(requiring(promise(&["build"]), "base")),
                Rest,
                Apply(base()),
                Rest,
                Apply(request("a", "small")),
                Rest,
            ],
        },
        Scenario {
            name: "requirement-vanishes",
            steps: vec![
                Apply(base()),
                Apply(requiring(promise(&["build"]), "base")),
                Rest,
                Apply(request("a", "small")),
                Rest,
                Delete(at(PLATFORM, "Promise", "", "base")),
                Rest,
                Delete(the_request("a")),
                Rest,
            ],
        },
        Scenario {
            name: "compound",
            steps: vec![
                Apply(destination("platform", "platform")),
                GitOps("platform"),
                Script("ask", Act::Ask),
                Apply(asking()),
                Apply(laying()),
                Rest,
                Apply(request("a", "small")),
                Rest,
                Apply(request("a", "large")),
                Rest,
                Delete(the_request("a")),
                Rest,
                Apply(request("b", "small")),
                Rest,
                Delete(the_promise()),
                Rest,
            ],
        },
    ]
}

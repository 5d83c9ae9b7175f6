//! From a Promise to the files of its requests.

use kratix_api::keys;
use serde_json::json;

use crate::scenario::*;
use crate::script::Act;

pub(super) fn all() -> Vec<Scenario> {
    use Step::*;
    let shared = |mut promise: serde_json::Value| {
        promise["spec"]["workflows"]["config"] = json!({ "pipelineNamespace": "team" });
        promise
    };
    vec![
        Scenario { name: "install", steps: vec![Apply(full_promise()), Rest] },
        Scenario { name: "request", steps: vec![Apply(promise(&["build"])), Rest, Apply(request("a", "small")), Rest] },
        Scenario {
            name: "everything-at-once",
            steps: vec![Apply(full_promise()), Pass(SOON), Apply(request("a", "s")), Apply(request("b", "s")), Rest],
        },
        Scenario {
            name: "update",
            steps: vec![
                Apply(promise(&["build"])),
                Rest,
                Apply(request("a", "small")),
                Rest,
                Apply(request("a", "large")),
                Rest,
            ],
        },
        Scenario {
            name: "update-during-a-run",
            steps: vec![
                Apply(promise(&["build", "test"])),
                Rest,
                Script("build", Act::Hold),
                Apply(request("a", "small")),
                Held("build"),
                Apply(request("a", "large")),
                Pass(SOON),
                Script("build", Act::Write),
                Rest,
            ],
        },
        Scenario {
            name: "several-pipelines",
            steps: vec![
                Apply(promise(&["build", "test", "ship"])),
                Rest,
                Apply(request("a", "small")),
                Rest,
                Apply(request("a", "large")),
                Rest,
            ],
        },
        Scenario {
            name: "selectors-of-a-pipeline",
            steps: vec![
                Apply(promise(&["build"])),
                Rest,
                Script(
                    "build",
                    Act::Files(vec![
                        ("output/here.yaml", "a: 1\n"),
                        ("output/there/far.yaml", "b: 2\n"),
                        (
                            "metadata/destination-selectors.yaml",
                            "- directory: there\n  matchLabels:\n    environment: prod\n",
                        ),
                    ]),
                ),
                Apply(request("a", "small")),
                Rest,
                Script("build", Act::Files(vec![("output/here.yaml", "a: 2\n")])),
                Patch(the_request("a"), labels(json!({ keys::MANUAL_RECONCILIATION: "true" }))),
                Rest,
            ],
        },
        Scenario {
            name: "pipeline-namespace-create",
            steps: vec![
                Apply(shared(promise(&["build"]))),
                Rest,
                Apply(namespace("other")),
                Apply(request("a", "small")),
                Apply(request_in("other", "a", "big")),
                Rest,
            ],
        },
        Scenario {
            name: "pipeline-namespace-update",
            steps: vec![
                Apply(shared(promise(&["build"]))),
                Rest,
                Apply(namespace("other")),
                Apply(request("a", "small")),
                Apply(request_in("other", "a", "big")),
                Rest,
                Apply(request_in("other", "a", "huge")),
                Rest,
            ],
        },
        Scenario {
            name: "pipeline-namespace-suspend",
            steps: vec![
                Apply(shared(promise(&["build"]))),
                Rest,
                Apply(namespace("other")),
                Apply(request("a", "small")),
                Rest,
                Script("build", Act::Suspend),
                Apply(request_in("other", "a", "big")),
                Rest,
                Script("build", Act::Write),
                Patch(at(EXAMPLE, "Env", "other", "a"), labels(json!({ keys::WORKFLOW_SUSPENDED: null }))),
                Rest,
            ],
        },
        Scenario {
            name: "pipeline-namespace-delete",
            steps: vec![
                Apply(shared(full_promise())),
                Rest,
                Apply(namespace("other")),
                Apply(request("a", "small")),
                Apply(request_in("other", "a", "big")),
                Rest,
                Delete(at(EXAMPLE, "Env", "other", "a")),
                Rest,
            ],
        },
        Scenario {
            name: "same-name-in-two-namespaces",
            steps: vec![
                Apply(promise(&["build"])),
                Rest,
                Apply(request("a", "small")),
                Apply(request_in("team", "a", "big")),
                Rest,
                Delete(at(EXAMPLE, "Env", "team", "a")),
                Rest,
            ],
        },
    ]
}

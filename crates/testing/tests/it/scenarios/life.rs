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
    let namesakes = |promise: serde_json::Value| {
        // The first has the plain directory. Of two at once it would be whoever gets there first, whatever went wrong.
        let (first, second) = (request("a", "small"), request_in("other", "a", "big"));
        then(vec![Apply(promise), Rest], vec![Apply(namespace("other")), Apply(first), Rest, Apply(second), Rest])
    };
    vec![
        Scenario { name: "install", steps: vec![Apply(full_promise()), Rest] },
        Scenario { name: "request", steps: requested(promise(&["build"])) },
        Scenario {
            name: "everything-at-once",
            steps: vec![
                Apply(full_promise()),
                Served("envs.example.org"),
                Apply(request("a", "s")),
                Apply(request("b", "s")),
                Rest,
            ],
        },
        Scenario {
            name: "update",
            steps: then(requested(promise(&["build"])), vec![Apply(request("a", "large")), Rest]),
        },
        Scenario {
            name: "update-during-a-run",
            steps: changed_during_a_run(promise(&["build", "test"]), "build", Apply(request("a", "large"))),
        },
        Scenario {
            name: "several-pipelines",
            steps: then(requested(promise(&["build", "test", "ship"])), vec![Apply(request("a", "large")), Rest]),
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
        Scenario { name: "pipeline-namespace-create", steps: namesakes(shared(promise(&["build"]))) },
        Scenario {
            name: "pipeline-namespace-update",
            steps: then(namesakes(shared(promise(&["build"]))), vec![Apply(request_in("other", "a", "huge")), Rest]),
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
            steps: then(namesakes(shared(full_promise())), vec![Delete(at(EXAMPLE, "Env", "other", "a")), Rest]),
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

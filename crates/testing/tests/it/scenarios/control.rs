//! What a user or a pipeline says about a run: hold it, try again, begin anew.

use std::time::Duration;

use kratix_api::keys;
use serde_json::{Value, json};

use crate::scenario::*;
use crate::script::{ACT, Act};

/// A request for which pipelines cannot begin.
fn stuck() -> Value {
    let mut request = request("a", "small");
    request["metadata"]["annotations"] = json!({ ACT: "stuck" });
    request
}

/// The Promise `env` with another image.
fn imaged(image: &str) -> Value {
    let mut promise = promise(&["build"]);
    promise["spec"]["workflows"]["resource"]["configure"][0]["spec"]["containers"][0]["image"] = json!(image);
    promise
}

pub(super) fn all() -> Vec<Scenario> {
    use Step::*;
    let label = |key: &str| labels(json!({ key: "true" }));
    let no_label = |key: &str| labels(json!({ key: null }));
    vec![
        Scenario {
            name: "suspend-resume",
            steps: then(
                requested_with(promise(&["build", "test"]), "build", Act::Suspend),
                vec![Script("build", Act::Write), Patch(the_request("a"), no_label(keys::WORKFLOW_SUSPENDED)), Rest],
            ),
        },
        Scenario {
            name: "suspended-pipelines-removed-and-others-added",
            steps: then(
                requested_with(promise(&["build"]), "build", Act::Suspend),
                vec![Apply(promise(&[])), Rest, Apply(promise(&["test"])), Rest],
            ),
        },
        Scenario {
            name: "pipelines-removed-during-a-run-that-suspends",
            steps: vec![
                Apply(promise(&["build"])),
                Rest,
                Script("build", Act::Hold),
                Apply(request("a", "small")),
                Held("build"),
                Apply(promise(&[])),
                Calm,
                Script("build", Act::Suspend),
                Rest,
                Apply(promise(&["test"])),
                Rest,
            ],
        },
        Scenario {
            name: "suspend-then-update",
            steps: then(
                requested_with(promise(&["build", "test"]), "test", Act::Suspend),
                vec![Script("test", Act::Write), Apply(request("a", "large")), Rest],
            ),
        },
        Scenario {
            name: "update-during-a-run-that-suspends",
            steps: vec![
                Apply(promise(&["build", "test"])),
                Rest,
                Script("test", Act::Hold),
                Apply(request("a", "small")),
                Held("test"),
                Apply(request("a", "large")),
                Calm,
                Script("test", Act::Suspend),
                Rest,
                Script("test", Act::Write),
                Patch(the_request("a"), no_label(keys::WORKFLOW_SUSPENDED)),
                Rest,
            ],
        },
        Scenario { name: "retry-after", steps: requested_with(promise(&["build", "test"]), "test", Act::Retry(2)) },
        Scenario {
            name: "failing-then-fixed",
            steps: then(
                requested_with(promise(&["build", "test"]), "test", Act::Fail),
                vec![Script("test", Act::Write), Patch(the_request("a"), label(keys::MANUAL_RECONCILIATION)), Rest],
            ),
        },
        Scenario {
            name: "failing-then-another-spec",
            steps: then(
                requested_with(promise(&["build"]), "build", Act::Fail),
                vec![Script("build", Act::Write), Apply(request("a", "large")), Rest],
            ),
        },
        Scenario {
            name: "image-missing-until-later",
            steps: then(
                requested_with(promise(&["build", "test"]), "test", Act::Stuck),
                vec![Script("test", Act::Write), Rest],
            ),
        },
        Scenario {
            name: "image-missing-then-another-spec",
            steps: vec![Apply(promise(&["build"])), Rest, Apply(stuck()), Rest, Apply(request("a", "large")), Rest],
        },
        Scenario {
            name: "image-missing-then-another-promise",
            steps: then(requested(imaged("stuck")), vec![Apply(imaged("one")), Rest]),
        },
        Scenario {
            name: "manual-reconciliation",
            steps: then(
                requested(promise(&["build", "test"])),
                vec![Patch(the_request("a"), label(keys::MANUAL_RECONCILIATION)), Rest],
            ),
        },
        Scenario {
            name: "manual-reconciliation-during-a-run",
            steps: changed_during_a_run(
                promise(&["build", "test"]),
                "test",
                Patch(the_request("a"), label(keys::MANUAL_RECONCILIATION)),
            ),
        },
        Scenario {
            name: "run-from-start",
            steps: then(
                requested(promise(&["build", "test"])),
                vec![Patch(the_request("a"), label(keys::RUN_FROM_START)), Rest],
            ),
        },
        Scenario {
            name: "reconcile-resources",
            steps: vec![
                Apply(promise(&["build"])),
                Rest,
                Apply(request("a", "small")),
                Apply(request("b", "small")),
                Rest,
                Patch(the_promise(), label(keys::RECONCILE_RESOURCES)),
                Rest,
            ],
        },
        Scenario {
            name: "pause-a-request",
            steps: then(
                requested(promise(&["build"])),
                vec![
                    Patch(the_request("a"), label(keys::PAUSED)),
                    Rest,
                    Apply(request("a", "large")),
                    Rest,
                    Patch(the_request("a"), no_label(keys::PAUSED)),
                    Rest,
                ],
            ),
        },
        Scenario {
            name: "pause-a-promise",
            steps: then(
                requested(full_promise()),
                vec![
                    Patch(the_promise(), label(keys::PAUSED)),
                    Rest,
                    Apply(request("b", "small")),
                    Rest,
                    Patch(the_promise(), no_label(keys::PAUSED)),
                    Rest,
                ],
            ),
        },
        Scenario {
            name: "interval",
            steps: vec![
                Apply({
                    let mut promise = promise(&["build"]);
                    promise["spec"]["workflows"]["config"] = json!({ "reconciliationInterval": "2h" });
                    promise
                }),
                Rest,
                Apply(request("a", "small")),
                Rest,
                Pass(Duration::from_secs(7_500)),
                Rest,
            ],
        },
        Scenario {
            name: "promise-workflow-suspended",
            steps: vec![
                Script("p-build", Act::Suspend),
                Apply(full_promise()),
                Rest,
                Script("p-build", Act::Write),
                Patch(the_promise(), no_label(keys::WORKFLOW_SUSPENDED)),
                Rest,
                Apply(request("a", "small")),
                Rest,
            ],
        },
        Scenario {
            name: "promise-workflow-failing-then-fixed",
            steps: vec![
                Script("p-build", Act::Fail),
                Apply(full_promise()),
                Rest,
                Script("p-build", Act::Write),
                Patch(the_promise(), label(keys::MANUAL_RECONCILIATION)),
                Rest,
                Apply(request("a", "small")),
                Rest,
            ],
        },
    ]
}

//! What a user or a pipeline says about a run: hold it, try again, begin anew.

use std::time::Duration;

use kratix_api::keys;
use serde_json::json;

use crate::scenario::*;
use crate::script::Act;

pub(super) fn all() -> Vec<Scenario> {
    use Step::*;
    let label = |key: &str| labels(json!({ key: "true" }));
    let no_label = |key: &str| labels(json!({ key: null }));
    vec![
        Scenario {
            name: "suspend-resume",
            steps: vec![
                Apply(promise(&["build", "test"])),
                Rest,
                Script("build", Act::Suspend),
                Apply(request("a", "small")),
                Rest,
                Script("build", Act::Write),
                Patch(the_request("a"), no_label(keys::WORKFLOW_SUSPENDED)),
                Rest,
            ],
        },
        Scenario {
            name: "suspend-then-update",
            steps: vec![
                Apply(promise(&["build", "test"])),
                Rest,
                Script("test", Act::Suspend),
                Apply(request("a", "small")),
                Rest,
                Script("test", Act::Write),
                Apply(request("a", "large")),
                Rest,
            ],
        },
        Scenario {
            name: "retry-after",
            steps: vec![
                Apply(promise(&["build", "test"])),
                Rest,
                Script("test", Act::Retry(2)),
                Apply(request("a", "small")),
                Rest,
            ],
        },
        Scenario {
            name: "failing-then-fixed",
            steps: vec![
                Apply(promise(&["build", "test"])),
                Rest,
                Script("test", Act::Fail),
                Apply(request("a", "small")),
                Rest,
                Script("test", Act::Write),
                Patch(the_request("a"), label(keys::MANUAL_RECONCILIATION)),
                Rest,
            ],
        },
        Scenario {
            name: "failing-then-another-spec",
            steps: vec![
                Apply(promise(&["build"])),
                Rest,
                Script("build", Act::Fail),
                Apply(request("a", "small")),
                Rest,
                Script("build", Act::Write),
                Apply(request("a", "large")),
                Rest,
            ],
        },
        Scenario {
            name: "manual-reconciliation",
            steps: vec![
                Apply(promise(&["build", "test"])),
                Rest,
                Apply(request("a", "small")),
                Rest,
                Patch(the_request("a"), label(keys::MANUAL_RECONCILIATION)),
                Rest,
            ],
        },
        Scenario {
            name: "manual-reconciliation-during-a-run",
            steps: vec![
                Apply(promise(&["build", "test"])),
                Rest,
                Script("test", Act::Hold),
                Apply(request("a", "small")),
                Held("test"),
                Patch(the_request("a"), label(keys::MANUAL_RECONCILIATION)),
                Pass(SOON),
                Script("test", Act::Write),
                Rest,
            ],
        },
        Scenario {
            name: "run-from-start",
            steps: vec![
                Apply(promise(&["build", "test"])),
                Rest,
                Apply(request("a", "small")),
                Rest,
                Patch(the_request("a"), label(keys::RUN_FROM_START)),
                Rest,
            ],
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
            steps: vec![
                Apply(promise(&["build"])),
                Rest,
                Apply(request("a", "small")),
                Rest,
                Patch(the_request("a"), label(keys::PAUSED)),
                Rest,
                Apply(request("a", "large")),
                Rest,
                Patch(the_request("a"), no_label(keys::PAUSED)),
                Rest,
            ],
        },
        Scenario {
            name: "pause-a-promise",
            steps: vec![
                Apply(full_promise()),
                Rest,
                Apply(request("a", "small")),
                Rest,
                Patch(the_promise(), label(keys::PAUSED)),
                Rest,
                Apply(request("b", "small")),
                Rest,
                Patch(the_promise(), no_label(keys::PAUSED)),
                Rest,
            ],
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

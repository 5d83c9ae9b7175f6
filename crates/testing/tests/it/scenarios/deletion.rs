//! The end of requests and Promises, in every state.

use kratix_api::keys;
use serde_json::json;

use crate::scenario::*;
use crate::script::Act;

pub(super) fn all() -> Vec<Scenario> {
    use Step::*;
    let begun = |act: Act| requested_with(full_promise(), "build", act);
    let manual = || labels(json!({ keys::MANUAL_RECONCILIATION: "true" }));
    vec![
        Scenario { name: "delete", steps: then(begun(Act::Write), vec![Delete(the_request("a")), Rest]) },
        Scenario {
            name: "delete-a-running-one",
            steps: changed_during_a_run(full_promise(), "build", Delete(the_request("a"))),
        },
        Scenario { name: "delete-a-failed-one", steps: then(begun(Act::Fail), vec![Delete(the_request("a")), Rest]) },
        Scenario {
            name: "delete-one-without-image",
            steps: then(begun(Act::Stuck), vec![Delete(the_request("a")), Rest]),
        },
        Scenario {
            name: "delete-a-suspended-one",
            steps: then(begun(Act::Suspend), vec![Delete(the_request("a")), Rest]),
        },
        Scenario {
            name: "delete-one-that-never-started",
            steps: vec![
                Apply(full_promise()),
                Rest,
                Patch(the_promise(), labels(json!({ keys::PAUSED: "true" }))),
                Rest,
                Apply(request("a", "small")),
                Rest,
                Delete(the_request("a")),
                Patch(the_promise(), labels(json!({ keys::PAUSED: null }))),
                Rest,
            ],
        },
        Scenario {
            name: "delete-at-once",
            steps: vec![
                Apply(full_promise()),
                Rest,
                Apply(request("b", "small")),
                Rest,
                Delete(the_request("b")),
                Apply(request("c", "small")),
                Rest,
            ],
        },
        Scenario {
            name: "delete-pipeline-of-requests-mended-while-their-promise-goes",
            steps: then(
                begun(Act::Write),
                vec![
                    Script("clean", Act::Fail),
                    Delete(the_promise()),
                    Rest,
                    Apply({
                        let mut promise = full_promise();
                        promise["spec"]["workflows"]["resource"]["delete"] = json!([pipeline("tidy")]);
                        promise
                    }),
                    Rest,
                ],
            ),
        },
        Scenario {
            name: "delete-workflow-failing-then-fixed",
            steps: then(
                begun(Act::Write),
                vec![
                    Script("clean", Act::Fail),
                    Delete(the_request("a")),
                    Rest,
                    Script("clean", Act::Write),
                    Patch(the_request("a"), manual()),
                    Rest,
                ],
            ),
        },
        Scenario {
            name: "delete-workflow-suspended",
            steps: then(
                begun(Act::Write),
                vec![
                    Script("clean", Act::Suspend),
                    Delete(the_request("a")),
                    Rest,
                    Script("clean", Act::Write),
                    Patch(the_request("a"), labels(json!({ keys::WORKFLOW_SUSPENDED: null }))),
                    Rest,
                ],
            ),
        },
        Scenario {
            name: "delete-and-make-again",
            steps: then(begun(Act::Write), vec![Delete(the_request("a")), Rest, Apply(request("a", "large")), Rest]),
        },
        Scenario {
            name: "delete-the-promise",
            steps: then(begun(Act::Write), vec![Apply(request("b", "small")), Rest, Delete(the_promise()), Rest]),
        },
        Scenario {
            name: "delete-the-promise-during-a-run",
            steps: changed_during_a_run(full_promise(), "build", Delete(the_promise())),
        },
        Scenario {
            name: "delete-the-promise-with-a-failing-workflow",
            steps: then(
                begun(Act::Write),
                vec![
                    Script("p-clean", Act::Fail),
                    Delete(the_promise()),
                    Rest,
                    Script("p-clean", Act::Write),
                    Patch(the_promise(), manual()),
                    Rest,
                ],
            ),
        },
        Scenario {
            name: "delete-the-promise-and-make-it-again",
            steps: then(
                begun(Act::Write),
                vec![Delete(the_promise()), Rest, Apply(full_promise()), Rest, Apply(request("a", "s")), Rest],
            ),
        },
        Scenario {
            name: "namespace-terminating",
            steps: vec![
                Apply(promise(&["build"])),
                Rest,
                Apply(request_in("team", "a", "small")),
                Apply(request("a", "small")),
                Rest,
                Delete(at("v1", "Namespace", "", "team")),
                Rest,
            ],
        },
    ]
}

//! What is removed or overwritten by hand.

use kratix_api::keys;
use serde_json::json;

use crate::scenario::*;
use crate::script::Act;

pub(super) fn all() -> Vec<Scenario> {
    use Step::*;
    let then = |more: Vec<Step>| then(requested(full_promise()), more);
    const OF_REQUEST: &str = "kratix.io/resource-name=a";
    const OF_PROMISE: &str = "kratix.io/promise-name=env";
    let all = |api_version, kind| at(api_version, kind, "default", "");
    vec![
        Scenario { name: "work-removed", steps: then(vec![DeleteAll(all(PLATFORM, "Work"), OF_REQUEST), Rest]) },
        Scenario {
            name: "work-removed-and-made-again",
            steps: then(vec![
                DeleteAll(all(PLATFORM, "Work"), OF_REQUEST),
                Rest,
                Patch(the_request("a"), labels(json!({ keys::MANUAL_RECONCILIATION: "true" }))),
                Rest,
            ]),
        },
        Scenario {
            name: "placement-removed",
            steps: then(vec![DeleteAll(all(PLATFORM, "WorkPlacement"), OF_PROMISE), Rest]),
        },
        Scenario { name: "job-removed", steps: then(vec![DeleteAll(all("batch/v1", "Job"), OF_REQUEST), Rest]) },
        Scenario {
            name: "running-job-removed",
            steps: then(vec![
                Script("build", Act::Hold),
                Apply(request("a", "large")),
                Held("build"),
                DeleteAll(all("batch/v1", "Job"), OF_REQUEST),
                Script("build", Act::Write),
                Rest,
            ]),
        },
        Scenario { name: "status-wiped", steps: then(vec![WipeStatus(the_request("a")), Rest]) },
        Scenario { name: "promise-status-wiped", steps: then(vec![WipeStatus(the_promise()), Rest]) },
        Scenario {
            name: "permissions-removed-by-hand",
            steps: then(vec![
                DeleteAll(all("rbac.authorization.k8s.io/v1", "RoleBinding"), OF_PROMISE),
                DeleteAll(all("v1", "ServiceAccount"), OF_PROMISE),
                Rest,
                Apply(request("a", "large")),
                Rest,
            ]),
        },
        Scenario {
            name: "binding-removed",
            steps: then(vec![DeleteAll(all(PLATFORM, "ResourceBinding"), OF_PROMISE), Rest]),
        },
        Scenario {
            name: "manager-restarted-all-the-time",
            steps: then(vec![Restart, Apply(request("b", "s")), Restart, Rest]),
        },
    ]
}

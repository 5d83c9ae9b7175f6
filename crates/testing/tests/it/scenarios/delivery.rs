//! Destinations and stores that come, change, fail and go.

use serde_json::{Value, json};

use crate::scenario::*;

pub(super) fn all() -> Vec<Scenario> {
    use Step::*;
    let then = |more: Vec<Step>| then(requested(promise(&["build"])), more);
    let selecting = |environment: &str| {
        let mut promise = promise(&["build"]);
        promise["spec"]["destinationSelectors"] = json!([{ "matchLabels": { "environment": environment } }]);
        promise
    };
    let worker = |name: &'static str| at(PLATFORM, "Destination", "", name);
    let store = || at(PLATFORM, "GitStateStore", "", "default");
    let spec = |spec: Value| json!({ "spec": spec });
    vec![
        Scenario { name: "selector-changed", steps: then(vec![Apply(selecting("prod")), Rest]) },
        Scenario {
            name: "selector-that-matches-nothing-then-something",
            steps: crate::scenario::then(
                requested(selecting("test")),
                vec![Apply(destination("worker-3", "test")), Rest],
            ),
        },
        Scenario { name: "destination-added", steps: then(vec![Apply(destination("worker-3", "dev")), Rest]) },
        Scenario { name: "destination-removed", steps: then(vec![Delete(worker("worker-1")), Rest]) },
        Scenario {
            name: "destination-removed-and-added",
            steps: then(vec![Delete(worker("worker-1")), Rest, Apply(destination("worker-1", "dev")), Rest]),
        },
        Scenario {
            name: "destination-moved",
            steps: then(vec![Patch(worker("worker-1"), spec(json!({ "path": "moved" }))), Rest]),
        },
        Scenario {
            name: "destination-labelled-otherwise",
            steps: then(vec![Patch(worker("worker-1"), labels(json!({ "environment": "prod" }))), Rest]),
        },
        Scenario {
            name: "store-outage",
            steps: then(vec![
                BreakStore,
                Apply(request("b", "small")),
                Apply(request("a", "large")),
                Rest,
                HealStore,
                Rest,
            ]),
        },
        Scenario {
            name: "store-outage-during-a-deletion",
            steps: then(vec![BreakStore, Delete(the_request("a")), Rest, HealStore, Rest]),
        },
        Scenario {
            name: "store-with-a-secret-that-comes-later",
            steps: vec![
                Patch(
                    store(),
                    spec(json!({ "authMethod": "basicAuth", "secretRef": { "name": "login", "namespace": "team" } })),
                ),
                Rest,
                Apply(promise(&["build"])),
                Rest,
                Apply(request("a", "small")),
                Rest,
                Apply(json!({
                    "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "login", "namespace": "team" },
                    "stringData": { "username": "u", "password": "p" },
                })),
                Rest,
            ],
        },
        Scenario {
            name: "store-removed-and-added",
            steps: then(vec![
                Patch(store(), spec(json!({ "branch": "other" }))),
                Rest,
                Patch(store(), spec(json!({ "branch": "main" }))),
                Rest,
            ]),
        },
    ]
}

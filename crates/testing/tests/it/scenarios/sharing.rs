//! Destinations on which placements share a directory or a file.

use serde_json::json;

use crate::scenario::*;
use crate::script::Act;

pub(super) fn all() -> Vec<Scenario> {
    use Step::*;
    // What is asked for goes to a Destination of this mode.
    let on = |mode: &str, pipelines: &[&str], more: Vec<Step>| {
        let promise = sent_there(promise(pipelines));
        then(vec![Apply(destination_of("shared", "shared", mode)), Rest], then(requested(promise), more))
    };
    // Whatever the pipeline's name, and whatever the request's, the path is one.
    let one_path = |steps: Vec<Step>| {
        let act = || Act::Files(vec![("output/f.yaml", "a: 1\n")]);
        then(vec![Script("build", act()), Script("other", act())], steps)
    };
    let update = || vec![Apply(request("a", "large")), Rest];
    let another_goes = || vec![Apply(request("b", "small")), Rest, Delete(the_request("a")), Rest];
    vec![
        Scenario { name: "shared-directory", steps: on("none", &["build", "test"], update()) },
        Scenario { name: "shared-directory-one-of-two-goes", steps: on("none", &["build"], another_goes()) },
        Scenario {
            name: "shared-directory-pipeline-renamed",
            steps: one_path(on("none", &["build"], vec![Apply(sent_there(promise(&["other"]))), Rest])),
        },
        Scenario { name: "shared-directory-path-passed-on", steps: one_path(on("none", &["build"], another_goes())) },
        Scenario { name: "shared-file", steps: on("aggregatedYAML", &["build", "test"], update()) },
        Scenario { name: "shared-file-one-of-two-goes", steps: on("aggregatedYAML", &["build"], another_goes()) },
        Scenario {
            name: "shared-directory-destination-goes-with-its-files",
            steps: on(
                "none",
                &["build"],
                vec![
                    Patch(at(PLATFORM, "Destination", "", "shared"), json!({ "spec": { "cleanup": "all" } })),
                    Rest,
                    Delete(at(PLATFORM, "Destination", "", "shared")),
                    Rest,
                ],
            ),
        },
    ]
}

/// The Promise, with all that its requests bring sent to what is shared.
fn sent_there(mut promise: serde_json::Value) -> serde_json::Value {
    promise["spec"]["destinationSelectors"] = json!([{ "matchLabels": { "environment": "shared" } }]);
    promise
}

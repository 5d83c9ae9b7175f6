//! What a Promise says of containers that do not get on: the engine's words, beside everything else that it says.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use std::sync::Arc;

use crate::object::ObjectKey;
use crate::promise::decide;
use crate::promise::testing::{NAME, World, dependency, pipeline};
use crate::workflow::failure::{PIPELINE_FAILING, Sight, attempt};
use crate::workflow::{Parent, Surroundings, access};

/// A platform on which the container of each pipeline exits with 1.
struct Failing;

impl Surroundings for Failing {
    fn existing(&self, _promise: &str, _namespace: &str) -> access::Existing {
        access::Existing::default()
    }

    fn is_taken(&self, _key: &ObjectKey, _parent: &Parent) -> bool {
        false
    }

    fn sight(&self, job: &Job) -> Sight {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "kratix-platform-system" },
            "status": { "phase": "Failed", "initContainerStatuses": [{
                "name": "a", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                "state": { "terminated": { "exitCode": 1 } },
            }]},
        }))
        .unwrap();
        Sight::of(job, &[attempt(&pod)], None)
    }
}

#[test]
fn a_promise_tells_of_a_failing_container_once_and_forgets_it_when_its_workflow_is_done() {
    let mut world = World::with(json!({ "workflows": { "promise": { "configure": [pipeline("one")] } } }));
    for _ in 0..4 {
        world.pass();
        world.others();
    }
    world.events.clear();
    let text = "pipeline one: container a exited with code 1; kubectl logs -n kratix-platform-system p -c a";
    for _ in 0..2 {
        let mut snapshot = world.snapshot();
        snapshot.surroundings = Arc::new(Failing);
        world.act(&decide(&snapshot).plan, usize::MAX);
        assert_eq!(world.says(PIPELINE_FAILING), format!("True/ContainerFailed/{text}"));
        assert_eq!(world.events, [format!("Warning ContainerFailed: {text}")]);
    }
    world.settle();
    assert_eq!(world.says(PIPELINE_FAILING), "-");
    assert_eq!(world.says("Reconciled"), "True/Reconciled/Reconciled");
}

/// 03 §11.1: what runs already runs on, whatever holds up the Promise.
#[test]
fn a_promise_that_is_held_up_still_tells_what_becomes_of_the_pod_that_runs() {
    let started = || {
        let mut world = World::with(json!({ "workflows": { "promise": { "configure": [pipeline("one")] } } }));
        for _ in 0..4 {
            world.pass();
        }
        assert_eq!(world.kinds("Job").len(), 1);
        world
    };
    let promise = ObjectKey::cluster(NAME);
    let holds: [(&str, serde_json::Value); 2] = [
        ("PausedReconciliation", json!({ "metadata": { "labels": { "kratix.io/paused": "true" } } })),
        (
            "InvalidPipeline",
            json!({ "spec": { "workflows": { "promise": { "configure": [{ "kind": "ConfigMap" }] } } } }),
        ),
    ];
    for (reason, hold) in holds {
        let mut world = started();
        world.patch("Promise", &promise, &hold);
        (0..4).for_each(|_| drop(world.pass()));
        assert_eq!(world.says(PIPELINE_FAILING), "-");
        world.events.clear();
        for _ in 0..2 {
            let mut snapshot = world.snapshot();
            snapshot.surroundings = Arc::new(Failing);
            world.act(&decide(&snapshot).plan, usize::MAX);
            assert!(world.says(PIPELINE_FAILING).starts_with("True/ContainerFailed/"), "{reason}");
            assert!(world.says("Reconciled").contains(reason), "{}", world.says("Reconciled"));
            assert_eq!(world.events.len(), 1, "{:?}", world.events);
        }
        world.finish_jobs();
        (0..4).for_each(|_| drop(world.pass()));
        assert_eq!(world.says(PIPELINE_FAILING), "-", "{reason}");
    }
}

#[test]
fn a_promise_that_goes_says_what_holds_up_its_delete_pipeline_and_nothing_of_it_afterwards() {
    let delete = json!({ "promise": { "delete": [pipeline("bye")] } });
    let mut world = World::with(json!({ "dependencies": [dependency("a")], "workflows": delete }));
    world.settle();
    for work in world.kinds("Work").into_iter().cloned().collect::<Vec<_>>() {
        world.patch("Work", &work, &json!({ "hold": true }));
    }
    world.delete_promise();
    (0..4).for_each(|_| drop(world.pass()));
    let mut snapshot = world.snapshot();
    snapshot.surroundings = Arc::new(Failing);
    world.act(&decide(&snapshot).plan, usize::MAX);
    assert_eq!(world.promise()["status"]["message"], "pipeline bye: container a exited with code 1");
    let told = world.says("Reconciled");
    assert!(told.starts_with("Unknown/Deleting/Deleting: waiting for delete pipeline bye to end (Job "), "{told}");
    let cause = "pipeline bye: container a exited with code 1; label kratix.io/manual-reconciliation=true stops it and runs it \
                 again";
    assert!(told.ends_with(&format!("), which does not get on: {cause}")), "{told}");
    world.settle();
    assert!(world.says("Reconciled").contains("waiting for works"), "{}", world.says("Reconciled"));
    assert_eq!(world.says(PIPELINE_FAILING), "-");
    assert_eq!(world.promise()["status"]["message"], "Pending");
}

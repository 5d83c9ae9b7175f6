//! What a Promise says of containers that do not get on: the engine's words, beside everything else that it says.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use std::sync::Arc;

use crate::object::ObjectKey;
use crate::promise::decide;
use crate::promise::testing::{World, pipeline};
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

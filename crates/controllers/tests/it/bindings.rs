use kratix_api::{Promise, ResourceBinding, condition, keys};
use kratix_testing::wait;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::world::{NAME, World, typed, workflows};

#[tokio::test(flavor = "multi_thread")]
async fn a_run_asked_for_on_a_binding_is_passed_on_when_its_request_appears() {
    let world = World::start().await;
    world.promise(workflows("")).await;
    // Nobody else touches the binding meanwhile.
    let promises = Api::<Promise>::all(world.client.clone());
    let pause = json!({ "metadata": { "labels": { keys::PAUSED: "true" } } });
    promises.patch(NAME, &PatchParams::default(), &Patch::Merge(pause)).await.unwrap();
    let bindings = Api::<ResourceBinding>::namespaced(world.client.clone(), "default");
    let binding = json!({
        "apiVersion": keys::API_VERSION, "kind": "ResourceBinding",
        "metadata": { "name": "b", "namespace": "default", "labels": { keys::MANUAL_RECONCILIATION: "true" } },
        "spec": { "version": "latest", "promiseRef": { "name": NAME }, "resourceRef": { "name": "x", "namespace": "default" } },
    });
    bindings.create(&PostParams::default(), &typed(binding)).await.unwrap();
    world.request("x").await;
    wait::until(&bindings, "b", "the label to be consumed", |binding: &ResourceBinding| {
        !binding.labels().contains_key(keys::MANUAL_RECONCILIATION)
    })
    .await;
    let request = world.requests().get("x").await.unwrap();
    assert_eq!(request.labels()[keys::MANUAL_RECONCILIATION], "true");
    world.told("x", condition::RECONCILED, "PausedReconciliation").await;
}

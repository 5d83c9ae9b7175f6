use kratix_api::{Promise, PromiseRevision, ResourceBinding, condition, keys};
use kratix_testing::wait;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
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

/// Somebody who may make bindings in another namespace only, for a request that is not theirs or that no request can be.
#[tokio::test(flavor = "multi_thread")]
async fn a_binding_of_another_namespace_neither_ends_a_request_with_its_revision_nor_holds_up_the_revision() {
    let world = World::start().await;
    world.promise(workflows("")).await;
    world.add_namespace("elsewhere").await;
    let promises = Api::<Promise>::all(world.client.clone());
    let revisions = Api::<PromiseRevision>::all(world.client.clone());
    for version in ["v1", "v2"] {
        let label = json!({ "metadata": { "labels": { keys::PROMISE_VERSION: version } } });
        promises.patch(NAME, &PatchParams::default(), &Patch::Merge(label)).await.unwrap();
        let name = kratix_api::name::promise_revision(NAME, version);
        wait::until(&revisions, &name, "the revision to be the latest", PromiseRevision::is_latest).await;
    }
    world.request("x").await;
    world.finish(&world.job("default").await, "x").await;
    world.told("x", condition::CONFIGURE_WORKFLOW_COMPLETED, "PipelinesExecutedSuccessfully").await;

    let bindings = Api::<ResourceBinding>::namespaced(world.client.clone(), "elsewhere");
    for (binding, name, namespace) in [("foreign", "x", "default"), ("nameless", "", "elsewhere")] {
        let labels = json!({ keys::PROMISE_NAME: NAME, keys::RESOURCE_NAME: "x", keys::MANUAL_RECONCILIATION: "true" });
        let reference = json!({ "name": name, "namespace": namespace });
        let object = json!({
            "apiVersion": keys::API_VERSION, "kind": "ResourceBinding",
            "metadata": { "name": binding, "namespace": "elsewhere", "labels": labels },
            "spec": { "version": "v1", "promiseRef": { "name": NAME }, "resourceRef": reference },
        });
        bindings.create(&PostParams::default(), &typed(object)).await.unwrap();
    }
    let old = kratix_api::name::promise_revision(NAME, "v1");
    revisions.delete(&old, &DeleteParams::default()).await.unwrap();
    wait::gone(&revisions, &old).await;
    let rest = || async { if world.is_at_rest() { Ok(()) } else { Err("passes are running".to_owned()) } };
    wait::poll("all to be at rest", rest).await;
    let request = world.requests().get("x").await.unwrap();
    assert_eq!(request.metadata.deletion_timestamp, None);
    assert_eq!(request.data["status"]["promiseVersion"], "v2");
    assert!(!request.labels().contains_key(keys::MANUAL_RECONCILIATION), "{:?}", request.labels());
    for binding in bindings.list(&ListParams::default()).await.unwrap() {
        assert_eq!(binding.labels()[keys::MANUAL_RECONCILIATION], "true", "{}", binding.name_any());
    }
}

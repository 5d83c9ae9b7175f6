use kratix_api::{Promise, condition};
use kratix_testing::wait;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::world::{NAME, World, workflows};

/// Removes a Promise as somebody does who clears its finalizers by hand.
async fn force_away(world: &World) {
    let promises = Api::<Promise>::all(world.client.clone());
    let none = json!({ "metadata": { "finalizers": null } });
    promises.delete(NAME, &DeleteParams::background()).await.unwrap();
    promises.patch(NAME, &PatchParams::default(), &Patch::Merge(none)).await.unwrap();
    wait::gone(&promises, NAME).await;
}

async fn with_request(world: &World) {
    world.promise(workflows("")).await;
    world.request("x").await;
    let job = world.job("default").await;
    world.finish(&job, "x").await;
    world.told("x", condition::WORKS_SUCCEEDED, "WorksPending").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_although_their_promise_has_gone_before_the_controllers_started() {
    let mut world = World::start().await;
    with_request(&world).await;
    world.stop_controllers().await;
    force_away(&world).await;
    let requests = world.requests();
    // The garbage collector has begun to remove the CRD, and with it the requests.
    world.crds().delete("envs.example.org", &DeleteParams::background()).await.ok();
    wait::until(&requests, "x", "the request to be on its way out", |request| {
        request.metadata.deletion_timestamp.is_some()
    })
    .await;
    world.start_controllers().await;
    wait::gone(&requests, "x").await;
    wait::gone(&world.crds(), "envs.example.org").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_although_their_promise_has_gone_meanwhile() {
    let world = World::start().await;
    with_request(&world).await;
    force_away(&world).await;
    world.requests().delete("x", &DeleteParams::background()).await.ok();
    wait::gone(&world.requests(), "x").await;
}

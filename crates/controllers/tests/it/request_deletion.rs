//! The end of requests where the API server has a say in it.

use k8s_openapi::api::core::v1::Namespace;
use kratix_api::keys;
use kratix_testing::wait;
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use serde_json::json;

use crate::world::{World, typed, workflows};

/// A namespace that goes takes nothing in any more, so a delete workflow can never run there.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_with_its_namespace_although_no_delete_workflow_can_run_there() {
    let world = World::start().await;
    let mut both = workflows("");
    both["resource"]["delete"] = json!([{
        "apiVersion": keys::API_VERSION, "kind": "Pipeline", "metadata": { "name": "bye" },
        "spec": { "containers": [{ "name": "a", "image": "i" }] },
    }]);
    world.promise(both).await;
    world.add_namespace("team").await;
    let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("example.org", "v1", "Env"), "envs");
    let requests = Api::<DynamicObject>::namespaced_with(world.client.clone(), "team", &kind);
    let request = json!({
        "apiVersion": "example.org/v1", "kind": "Env", "metadata": { "name": "x", "namespace": "team" },
        "spec": { "size": "small" },
    });
    requests.create(&PostParams::default(), &typed(request)).await.unwrap();
    let job = world.job("team").await;
    world.finish(&job, "x").await;
    let namespaces = Api::<Namespace>::all(world.client.clone());
    namespaces.delete("team", &DeleteParams::default()).await.unwrap();
    wait::gone(&namespaces, "team").await;
}

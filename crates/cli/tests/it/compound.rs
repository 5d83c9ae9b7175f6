//! A Promise whose requests ask other Promises: a pipeline writes a request, and GitOps brings it back to the platform.

use embedded_gitops::Agent;
use k8s_openapi::api::core::v1::ConfigMap;
use kratix_api::Promise;
use kratix_api::promise::RequirementState;
use kratix_testing::wait;
use kube::Api;
use serde_json::Value;

use crate::life::nothing_is_left;
use crate::world::{World, is_reconciled, promise, request};

/// The directory of the state store from which the platform itself is synced.
const PLATFORM: &str = "platform-cluster";

/// What the parent writes: a request for the other Promise, of the same size.
const ASK: &str = "size=$(sed -n 's/^  size: //p' /kratix/input/object.yaml)
cat > /kratix/output/base.yaml <<YAML
apiVersion: test.kratix.io/v1
kind: Base
metadata: {name: $KRATIX_OBJECT_NAME-base, namespace: default}
spec: {size: $size}
YAML";

const LAY: &str = "size=$(sed -n 's/^  size: //p' /kratix/input/object.yaml)
cat > /kratix/output/config.yaml <<YAML
apiVersion: v1
kind: ConfigMap
metadata: {name: $KRATIX_OBJECT_NAME, namespace: default}
data: {size: $size}
YAML";

/// Makes a Destination of the platform itself in the store of the other one.
async fn platform_destination(world: &World) {
    let worker = world.kubectl().run("get destination worker-1 -o json").await.ok();
    let worker: Value = serde_json::from_str(&worker).unwrap();
    let mut spec = worker["spec"].clone();
    spec["path"] = PLATFORM.into();
    let destination = serde_json::json!({
        "apiVersion": worker["apiVersion"], "kind": "Destination",
        "metadata": { "name": PLATFORM, "labels": { "environment": "platform" } }, "spec": spec,
    });
    world.apply(&destination.to_string()).await;
}

/// The parent, which requires the other one and is scheduled to the platform.
fn stack() -> String {
    let required = "  requiredPromises: [{name: base, version: v1.0.0}]\n  destinationSelectors:\n    - matchLabels: {environment: platform}\n";
    let selectors = "  destinationSelectors:\n    - matchLabels: {environment: dev}\n";
    promise("stack", "Stack", ASK).replace(selectors, required)
}

fn base() -> String {
    let labelled = "  name: base\n  labels: {kratix.io/promise-version: v1.0.0}\nspec:\n";
    promise("base", "Base", LAY).replace("  name: base\nspec:\n", labelled)
}

/// 03 §7, §17: from the requirement that is not there to the last object of both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_of_a_compound_promise_asks_another_promise_by_way_of_the_repository_and_takes_its_request_along() {
    let world = World::start().await;
    platform_destination(&world).await;
    let repository = world.repository();
    let agent = Agent::builder(world.hub()).repository(repository.to_str().unwrap()).directory(PLATFORM);
    let _agent = agent.start().unwrap();

    world.apply(&stack()).await;
    let promises = Api::<Promise>::all(world.hub());
    wait::until(&promises, "stack", "the requirement to be missing", |promise: &Promise| {
        let status = promise.status.as_ref().and_then(|status| status.required_promises.first());
        status.is_some_and(|required| required.state == Some(RequirementState::NotInstalled))
    })
    .await;
    world.apply(&base()).await;
    world.promise_available("base").await;
    world.promise_available("stack").await;

    world.apply(&request("Stack", "default", "x")).await;
    let stacks = world.requests("test.kratix.io", "v1", "Stack", "stacks", "default");
    let bases = world.requests("test.kratix.io", "v1", "Base", "bases", "default");
    wait::until(&stacks, "x", "the parent to be reconciled", is_reconciled).await;
    wait::until(&bases, "x-base", "the child to be reconciled", is_reconciled).await;
    let files = world.files().await;
    for file in [
        "platform-cluster/resources/default/stack/x/configure/5058f/base.yaml",
        "worker-1/resources/default/base/x-base/configure/5058f/config.yaml",
    ] {
        assert!(files.contains(&file.to_owned()), "{files:#?}");
    }
    let configs = Api::<ConfigMap>::namespaced(world.worker(), "default");
    let has_size = |size: &'static str| {
        move |config: &ConfigMap| config.data.as_ref().is_some_and(|data| data.get("size").is_some_and(|is| is == size))
    };
    wait::until(&configs, "x-base", "the small one on the worker", has_size("small")).await;

    world.apply(&request("Stack", "default", "x").replace("small", "large")).await;
    wait::until(&configs, "x-base", "the large one on the worker", has_size("large")).await;

    world.kubectl().run("delete stack x --timeout=120s").await.ok();
    wait::gone(&bases, "x-base").await;
    world.files_gone("platform-cluster/resources/default/").await;
    world.files_gone("worker-1/resources/default/").await;
    wait::gone(&configs, "x-base").await;

    // With a request of each, one promise after the other.
    world.apply(&request("Stack", "default", "second")).await;
    wait::until(&configs, "second-base", "the small one on the worker", has_size("small")).await;
    world.kubectl().run("delete promise stack --timeout=120s").await.ok();
    wait::gone(&bases, "second-base").await;
    nothing_is_left(&world, "stack").await;
    world.kubectl().run("delete promise base --timeout=120s").await.ok();
    nothing_is_left(&world, "base").await;
    wait::gone(&configs, "second-base").await;
    world.files_gone("worker-1/resources/default/").await;
}

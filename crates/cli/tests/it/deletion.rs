//! Taking things apart while something is in the way: at rest meanwhile, and to the end once it is gone.

use kratix_api::Promise;
use kratix_testing::wait;
use kube::Api;

use crate::restart::at_rest;
use crate::world::{World, condition_of, promise};

const DEPENDENCIES: &str = "
  dependencies:
    - apiVersion: v1
      kind: Namespace
      metadata: {name: brought}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promise_whose_files_cannot_be_removed_rests_and_goes_once_they_can() {
    let world = World::start().await;
    world.apply(&(promise("thing", "Thing", "true") + DEPENDENCIES)).await;
    world.promise_available("thing").await;
    let file = "worker-1/dependencies/thing/5058f/static/thing-dependencies.yaml";
    wait::poll("the dependencies to be written", || async {
        let files = world.files().await;
        if files.contains(&file.to_owned()) { Ok(()) } else { Err(format!("{files:?}")) }
    })
    .await;

    let thaw = world.freeze_store();
    world.kubectl().run("delete promise thing --wait=false").await.ok();
    let promises = Api::<Promise>::all(world.hub());
    let waiting = wait::until(&promises, "thing", "the Promise to wait for its files", |promise: &Promise| {
        let conditions = promise.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        condition_of(conditions, "Reconciled").starts_with("Unknown/Deleting/Deleting: waiting for works")
    })
    .await;
    let rest = tokio::time::timeout(wait::DEADLINE, at_rest(&world)).await;
    rest.expect("nothing is written while nothing can be done");
    let present = promises.get("thing").await.unwrap();
    assert_eq!(present.metadata.resource_version, waiting.metadata.resource_version, "it has said all it has to say");
    assert!(world.files().await.contains(&file.to_owned()));

    thaw();
    world.kubectl().run("wait --for=delete promise/thing --timeout=60s").await.ok();
    assert!(!world.files().await.contains(&file.to_owned()));
    let left = world.kubectl().run("get works,workplacements,promiserevisions -A -o name").await.ok();
    assert_eq!(left, "");
    let crds = world.kubectl().run("get crd things.test.kratix.io --ignore-not-found -o name").await.ok();
    assert_eq!(crds, "");
}

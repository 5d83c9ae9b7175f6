//! Outputs that one object cannot hold, from real containers with the permissions that every pipeline has.

use kratix_api::{Work, keys};
use kratix_testing::wait;
use kube::Api;
use kube::api::ListParams;

use crate::world::{World, is_reconciled, promise, request};

/// Leaves three MiB that do not compress, and says what Git calls them.
const SCRIPT: &str = "head -c 3145728 /dev/urandom > /kratix/output/blob.bin
printf 'message: %s\\n' \"$(git hash-object /kratix/output/blob.bin)\" > /kratix/metadata/status.yaml";

/// A Promise whose two workflows leave much.
fn large() -> String {
    let both = promise("thing", "Thing", SCRIPT);
    let (head, resource) = both.split_once("  workflows:\n").unwrap();
    let configure = resource.split_once("    resource:\n").unwrap().1;
    format!("{head}  workflows:\n    promise:\n{}    resource:\n{configure}", configure.replace("render", "depend"))
}

async fn parts(world: &World) -> Vec<Work> {
    let works = Api::<Work>::all(world.hub());
    works.list(&ListParams::default().labels(keys::WORK_PART)).await.unwrap().items
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_output_of_a_promise_and_of_a_request_is_delivered_and_leaves_nothing_behind() {
    let world = World::start().await;
    world.apply(&large()).await;
    let thing = world.promise_available("thing").await;
    world.apply(&request("Thing", "default", "x")).await;
    let requests = world.requests("test.kratix.io", "v1", "Thing", "things", "default");
    let settled = wait::until(&requests, "x", "the request to be reconciled", is_reconciled).await;

    // Reconciled means written, and what was written is what the container has left.
    let resource = "worker-1/resources/default/thing/x/configure/5058f/blob.bin";
    let stored = world.git(&["rev-parse", &format!("main:{resource}")]);
    assert_eq!(settled.data.pointer("/status/message").unwrap(), stored.trim());
    let dependency = "worker-1/dependencies/thing/configure/5058f/blob.bin";
    wait::poll("the promise's own output to be written", || async {
        let files = world.files().await;
        if files.iter().any(|file| file == dependency) { Ok(()) } else { Err(format!("{files:?}")) }
    })
    .await;
    let stored = world.git(&["rev-parse", &format!("main:{dependency}")]);
    let told = world.kubectl().run("get promise thing -o jsonpath={.status.message}").await.ok();
    assert_eq!(told.trim(), stored.trim(), "{thing:?}");
    assert!(parts(&world).await.len() >= 8);

    world.kubectl().run("delete promise thing").await.ok();
    wait::gone(&Api::<kratix_api::Promise>::all(world.hub()), "thing").await;
    wait::poll("no part to be left", || async {
        let left = parts(&world).await;
        if left.is_empty() { Ok(()) } else { Err(format!("{} parts", left.len())) }
    })
    .await;
    world.files_gone("worker-1/resources/default/thing").await;
    world.files_gone("worker-1/dependencies/thing").await;
}

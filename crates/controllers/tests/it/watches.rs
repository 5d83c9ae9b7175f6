//! What the controllers watch, and for how long.

use std::collections::BTreeMap;
use std::sync::Arc;

use http_body_util::BodyExt;
use kratix_api::{Promise, Work, keys};
use kratix_testing::wait;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::json;
use tower::ServiceExt;

use crate::world::{NAME, World, typed, workflows};

const REQUESTS: &str = "/apis/example.org/v1/envs";
/// What all Promises share, and how often it is watched: of the parts of large Works only metadata.
const SHARED: [(&str, usize); 3] = [
    ("/apis/batch/v1/jobs", 1),
    ("/apis/platform.kratix.io/v1alpha1/works", 2),
    ("/apis/platform.kratix.io/v1alpha1/resourcebindings", 1),
];

/// The watches that are open, by path.
#[derive(Clone, Default)]
struct Watches {
    open: Arc<Mutex<BTreeMap<String, usize>>>,
}

/// One of them; it is open until this is dropped.
struct Open {
    watches: Watches,
    path: String,
}

impl Watches {
    fn open(&self, path: &str) -> Open {
        *self.open.lock().entry(path.to_owned()).or_default() += 1;
        Open { watches: self.clone(), path: path.to_owned() }
    }

    /// Waits until the requests have so many watches, and what all Promises share has as many as ever.
    async fn settle(&self, requests: usize) {
        wait::poll("the watches to be those that are needed", || async {
            let open = self.open.lock().clone();
            let count = |path: &str| open.get(path).copied().unwrap_or_default();
            let is_settled = count(REQUESTS) == requests && SHARED.iter().all(|(path, shared)| count(path) == *shared);
            if is_settled { Ok(()) } else { Err(format!("open are {open:?}")) }
        })
        .await;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        *self.watches.open.lock().get_mut(&self.path).expect("it was opened") -= 1;
    }
}

/// Returns a client for the controllers, and what it watches.
fn observed(world: &World) -> (Client, Watches) {
    let (service, watches) = (world.service_of("admin"), Watches::default());
    let observed = watches.clone();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (service, watches) = (service.clone(), observed.clone());
        async move {
            let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
            let open = is_watch.then(|| watches.open(request.uri().path()));
            let response = service.oneshot(request).await?;
            Ok::<_, kube::Error>(response.map(|body| {
                body.map_frame(move |frame| {
                    let _is_open = &open;
                    frame
                })
            }))
        }
    });
    (Client::new(service, "default"), watches)
}

/// 03 §25 (23)
#[tokio::test(flavor = "multi_thread")]
async fn a_promise_that_goes_takes_the_watch_on_its_requests_along_and_adds_no_other_when_it_comes() {
    let mut world = World::start().await;
    world.stop_controllers().await;
    let (client, watches) = observed(&world);
    let controllers = world.run_controllers(client).await;
    world.promise(workflows("")).await;
    watches.settle(1).await;

    // The API is there for as long as this Work is: nobody but the controller closes the watch.
    let work = json!({
        "apiVersion": keys::API_VERSION, "kind": "Work",
        "metadata": {
            "name": "held", "namespace": keys::SYSTEM_NAMESPACE, "finalizers": ["example.org/hold"],
            "labels": { keys::PROMISE_NAME: NAME, keys::WORK_TYPE: keys::WORK_TYPE_STATIC_DEPENDENCY },
        },
        "spec": { "promiseName": NAME, "workloadGroups": [] },
    });
    let works = Api::<Work>::namespaced(world.client.clone(), keys::SYSTEM_NAMESPACE);
    works.create(&PostParams::default(), &typed(work)).await.unwrap();
    let promises = Api::<Promise>::all(world.client.clone());
    promises.delete(NAME, &DeleteParams::default()).await.unwrap();
    watches.settle(0).await;
    world.crds().get("envs.example.org").await.unwrap();
    let released = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    works.patch("held", &PatchParams::default(), &released).await.unwrap();
    wait::gone(&promises, NAME).await;

    world.promise(workflows("")).await;
    watches.settle(1).await;
    controllers.stop().await;
}

//! What a stop waits for.

use std::sync::Arc;

use kube::api::{Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::sync::{Notify, watch};
use tower::ServiceExt;

use crate::world::{World, workflows};

/// Holds up whatever is written to requests until it is opened.
#[derive(Clone)]
struct Gate {
    is_reached: watch::Sender<bool>,
    opens: Arc<Notify>,
}

impl Gate {
    /// Returns the gate and a client that goes through it.
    fn before(world: &World) -> (Self, Client) {
        let gate = Self { is_reached: watch::Sender::new(false), opens: Arc::default() };
        let (held, service) = (gate.clone(), world.service_of("admin"));
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let (gate, service) = (held.clone(), service.clone());
            async move {
                if request.method() == http::Method::PATCH && request.uri().path().contains("/envs/") {
                    gate.is_reached.send_replace(true);
                    gate.opens.notified().await;
                    gate.opens.notify_one(); // for whoever comes next
                }
                service.oneshot(request).await
            }
        });
        (gate, Client::new(service, "default"))
    }
}

#[tokio::test]
async fn a_pass_over_a_request_is_finished_at_a_stop() {
    let mut world = World::start().await;
    world.promise(workflows("")).await;
    world.stop_controllers().await;
    let (gate, client) = Gate::before(&world);
    let controllers = world.run_controllers(client).await;
    world.request("x").await;
    gate.is_reached.subscribe().wait_for(|reached| *reached).await.unwrap();
    let request = world.requests().get("x").await.unwrap();

    let stopping = tokio::spawn(controllers.stop());
    // Everything else of the process comes to its end meanwhile.
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
    }
    assert!(!stopping.is_finished());
    gate.opens.notify_one();
    stopping.await.unwrap();
    let after = world.requests().get("x").await.unwrap();
    assert_ne!(request.resource_version(), after.resource_version(), "what the pass was about to write");

    // Nobody looks after it any more.
    let label = json!({ "metadata": { "labels": { "a": "b" } } });
    let changed = world.requests().patch("x", &PatchParams::default(), &Patch::Merge(label)).await.unwrap();
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.requests().get("x").await.unwrap().resource_version(), changed.resource_version());
}

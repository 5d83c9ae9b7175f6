//! How soon what happens is heard of, on a clock that stands still while anybody has something to do: what waits for a timer has
//! to wait for it in full, however fast or slow the machine is.

use std::time::Duration;

use kratix_api::condition;
use kratix_controllers::Clock;
use kratix_testing::kube_apiserver;
use serde_json::json;
use tokio::time::Instant;

use crate::placements::Scene;
use crate::world::delivery::{self, Conditioned};

/// Time between two looks of placements and Destinations at a store that is not ready.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// §14.3, weaknesses 16, 20
#[tokio::test(start_paused = true)]
async fn what_a_store_lacks_is_told_within_thirty_seconds_and_its_return_is_heard_by_all_before_they_look_again() {
    const WAITING: usize = 5;
    if kube_apiserver::assets().is_some() {
        return; // a server in another process does not stop the clock
    }
    let mut scene = Scene::start().await;
    scene.world.stop_controllers().await;
    let (beginning, began) = (jiff::Timestamp::now(), Instant::now());
    scene.world.clock = Clock::new(move || beginning + began.elapsed());
    scene.world.start_controllers().await;

    let lacking = Instant::now();
    scene.edit_store(json!({ "secretRef": { "name": "credentials" } })).await;
    scene.add_destination("nestedByMetadata", json!({})).await;
    let cause = "Secret credentials not found in namespace default";
    let cause = delivery::says(&scene.stores(), "default", "SecretNotFound", cause).await.message;
    let message = format!("GitStateStore/default: not ready: {cause}");
    delivery::says(&scene.destinations(), "worker-1", "StateStoreNotReady", &message).await;
    for n in 0..WAITING {
        scene.add_work("default", &format!("w{n}"), json!({})).await;
    }
    for n in 0..WAITING {
        let told = |placement: &kratix_api::WorkPlacement| {
            placement.condition(condition::WRITE_SUCCEEDED).is_some_and(|write| write.message == message)
        };
        scene.says(&format!("w{n}"), "why it waits", told).await;
    }
    let told = lacking.elapsed();
    assert!(told < Duration::from_secs(30), "told after {told:?}");

    // All of them have just looked, and would look again much later.
    let present = Instant::now();
    scene.world.add_secret("credentials", json!({ "username": "u", "password": "p" })).await;
    delivery::ready(&scene.destinations(), "worker-1", "ready", |ready| ready.status == condition::Status::True).await;
    for n in 0..WAITING {
        scene.written(&format!("w{n}")).await;
    }
    let heard = present.elapsed();
    assert!(heard < LOOK_AGAIN - told, "heard after {heard:?}");
}

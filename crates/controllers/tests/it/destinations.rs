//! Destinations on real repositories: readiness, clean-up, and what happens when their stores come and go.

use kratix_api::{Destination, condition, keys};
use kratix_testing::git_http::{Fault, Server};
use kratix_testing::wait;
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::json;

use crate::placements::{Scene, placement_of};
use crate::world::delivery::{self, Conditioned};

async fn says(scene: &Scene, message: &str) -> Destination {
    let what = format!("the Destination to say {message}");
    wait::until(&scene.destinations(), "worker-1", &what, |destination: &Destination| {
        destination.condition(condition::READY).is_some_and(|ready| ready.message == message)
    })
    .await
}

const WRITTEN: &str = "Test documents written to State Store";

/// §14.1, §14.5
#[tokio::test(flavor = "multi_thread")]
async fn a_destination_is_ready_with_its_test_documents_and_without_them() {
    let scene = Scene::start().await;
    scene.add_destination("nestedByMetadata", json!({})).await;
    says(&scene, WRITTEN).await;
    assert_eq!(scene.event("worker-1", "DestinationReady").await, "Destination is Ready");
    let documents =
        ["worker-1/dependencies/kratix-canary-namespace.yaml", "worker-1/resources/kratix-canary-configmap.yaml"];
    scene.holds("a", &documents).await;
    scene.edit_destination(json!({ "initWorkloads": { "enabled": false } })).await;
    says(&scene, "Destination is ready").await;
    scene.holds("a", &[]).await;
}

/// §14.2
#[tokio::test(flavor = "multi_thread")]
async fn a_destination_names_a_store_that_is_missing_and_heals_with_it() {
    let scene = Scene::start().await;
    scene.add_destination("none", json!({})).await;
    says(&scene, WRITTEN).await;
    scene.edit_destination(json!({ "stateStoreRef": { "name": "absent" } })).await;
    says(&scene, "GitStateStore/absent: not found").await;
    scene.told("worker-1", "DestinationNotReady", "GitStateStore/absent: not found").await;
    scene.edit_destination(json!({ "stateStoreRef": { "name": "default" } })).await;
    says(&scene, WRITTEN).await;
    // The store's object goes, and is made again.
    scene.stores().delete("default", &DeleteParams::default()).await.unwrap();
    says(&scene, "GitStateStore/default: not found").await;
    scene.add_store("default", "a", json!({})).await;
    says(&scene, WRITTEN).await;
}

/// §14.6, §7.5
#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_destination_cleans_up_as_it_says() {
    let scene = Scene::start().await;
    scene.add_destination("none", json!({ "cleanup": "all" })).await;
    let ready = says(&scene, WRITTEN).await;
    assert_eq!(ready.finalizers(), [keys::FINALIZER_DESTINATION_CLEANUP]);
    scene.add_work("default", "x", json!({})).await;
    scene.written("x").await;
    scene.edit("a", &[("worker-1/foreign", "x")], &[]).await;
    scene.destinations().delete("worker-1", &DeleteParams::default()).await.unwrap();
    wait::gone(&scene.destinations(), "worker-1").await;
    scene.holds("a", &["worker-1/foreign"]).await;
    wait::gone(&scene.placements(), &placement_of("x")).await;

    scene.works().delete("x", &DeleteParams::default()).await.unwrap();
    wait::gone(&scene.works(), "x").await;
    scene.add_destination("none", json!({})).await;
    let ready = says(&scene, WRITTEN).await;
    assert!(ready.finalizers().is_empty());
    scene.destinations().delete("worker-1", &DeleteParams::default()).await.unwrap();
    wait::gone(&scene.destinations(), "worker-1").await;
    assert_eq!(scene.files("a").await.len(), 3, "without clean-up everything stays");
}

/// Weakness 32
#[tokio::test(flavor = "multi_thread")]
async fn stores_whose_server_hangs_hold_up_no_other_store() {
    // More than there are passes over stores at once, and over Destinations of one store.
    const STORES: usize = 40;
    const DESTINATIONS: usize = 140;
    let scene = Scene::start().await;
    let silent = tempfile::tempdir().unwrap();
    let server = Server::plain(silent.path()).await;
    kratix_state_store::init_bare(silent.path().join("state.git"), "main").unwrap();
    scene.add_store("hangs", "unused", json!({ "url": server.url("state.git") })).await;
    delivery::ready(&scene.stores(), "hangs", "ready", |ready| ready.status == condition::Status::True).await;
    server.fail(Fault::Hang);
    for n in 0..STORES {
        scene.add_store(&format!("silent-{n}"), "unused", json!({ "url": server.url(&format!("{n}.git")) })).await;
    }
    let all_are_silent = async || {
        for n in 0..STORES {
            let unanswered = format!("no answer from {} yet", server.url(&format!("{n}.git")));
            delivery::says(&scene.stores(), &format!("silent-{n}"), "NoAnswerYet", &unanswered).await;
        }
    };
    all_are_silent().await;
    // Opened after those, while their servers still do not answer.
    scene.add_store("late", "b", json!({})).await;
    let late = json!({ "kind": "GitStateStore", "name": "late" });
    scene.add_destination("nestedByMetadata", json!({ "stateStoreRef": late })).await;
    scene.add_work("default", "x", json!({})).await;
    scene.written("x").await;
    all_are_silent().await;

    for n in 0..DESTINATIONS {
        scene.world.add_destination(&format!("stuck-{n}"), ("GitStateStore", "hangs"), "none", json!({})).await;
    }
    scene.world.add_destination("late-1", ("GitStateStore", "late"), "none", json!({})).await;
    delivery::ready(&scene.destinations(), "late-1", "ready", |ready| ready.status == condition::Status::True).await;
    // All others say what they wait for, those that have no pass too.
    let waits = format!("waiting for GitStateStore/hangs: no answer from {} yet", server.url("state.git"));
    for n in 0..DESTINATIONS {
        let name = format!("stuck-{n}");
        delivery::ready(&scene.destinations(), &name, "that it waits", |ready| ready.message == waits).await;
    }
}

/// Weakness 26
#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_cleans_up_waits_for_a_store_that_is_away_and_goes_without_one_that_is_gone() {
    let scene = Scene::start().await;
    scene.add_destination("none", json!({ "cleanup": "all" })).await;
    says(&scene, WRITTEN).await;
    scene.add_work("default", "x", json!({})).await;
    scene.written("x").await;
    scene.edit_store(json!({ "secretRef": { "name": "absent" } })).await;
    let not_ready = "GitStateStore/default: not ready: Secret absent not found in namespace default; hint: create it, \
                     or correct spec.secretRef of the store";
    says(&scene, not_ready).await;
    scene.destinations().delete("worker-1", &DeleteParams::default()).await.unwrap();
    says(&scene, "Destination is being deleted: waiting for its workplacements to remove their files").await;
    assert!(scene.files("a").await.contains("worker-1/x.yaml"));
    scene.stores().delete("default", &DeleteParams::default()).await.unwrap();
    wait::gone(&scene.placements(), &placement_of("x")).await;
    wait::gone(&scene.destinations(), "worker-1").await;
    let note = scene.event(&placement_of("x"), "StateStoreNotFound").await;
    assert!(note.ends_with("not found, files written there stay"), "{note}");
}

//! The platform's ConfigMap: what is wrong with it is said there, and what it says is in force.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event;
use kratix_api::{condition, keys};
use kratix_controllers::Clock;
use kratix_testing::wait;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher;
use serde_json::{Value, json};

use crate::world::delivery::is_about;
use crate::world::{World, workflows};

const REASON: &str = "InvalidConfiguration";

async fn change(world: &World, metadata: Value, document: &str) {
    let mut config_map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": { keys::CONFIG_KEY: document }, "metadata": metadata });
    config_map["metadata"]["name"] = keys::CONFIG_MAP.into();
    let config_maps = Api::<ConfigMap>::namespaced(world.user.clone(), keys::SYSTEM_NAMESPACE);
    config_maps.patch(keys::CONFIG_MAP, &PatchParams::apply("user").force(), &Patch::Apply(config_map)).await.unwrap();
}

/// Waits until a fault is told, and returns the event.
async fn told(world: &World, text: &str) -> Event {
    let says = |event: &Event| event.note.as_ref().is_some_and(|note| note.contains(text));
    world.event(text, |event| is_about(event, keys::CONFIG_MAP, REASON) && says(event)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_the_config_map_is_told_there_once_for_each_change_of_its_document() {
    let mut world = World::start().await;
    change(&world, json!({}), "numberOfJobsToKeep: many").await;
    let first = told(&world, "\"numberOfJobsToKeep\" has value \"many\"").await;
    assert_eq!(first.type_.as_deref(), Some("Warning"));
    assert_eq!(first.metadata.namespace.as_deref(), Some(keys::SYSTEM_NAMESPACE));
    // Nothing is said of another change, nor of a good document.
    change(&world, json!({ "labels": { "team": "a" } }), "numberOfJobsToKeep: many").await;
    change(&world, json!({}), "numberOfJobsToKeep: 3").await;
    change(&world, json!({}), "numberOfJobsToKeep: [").await;
    told(&world, "is not valid YAML").await;
    let mut all = world.events(REASON).await;
    assert!(all.len() == 2 && all.iter().all(|event| event.series.is_none()), "{all:?}");
    // Who did not run when it was changed says so at the start.
    world.stop_controllers().await;
    change(&world, json!({}), "jobs: 3").await;
    world.start_controllers().await;
    told(&world, "unknown configuration key \"jobs\"").await;
    all = world.events(REASON).await;
    assert_eq!(all.len(), 3, "{all:?}");
}

/// §12.3: a request that has settled a while ago does not sleep on until the old interval is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_interval_reaches_requests_that_have_settled() {
    let mut world = World::start().await;
    world.stop_controllers().await;
    let is_later = Arc::new(AtomicBool::new(false));
    let later = Arc::clone(&is_later);
    let hours = move || if later.load(Ordering::SeqCst) { 2 } else { 0 };
    world.clock = Clock::new(move || jiff::Timestamp::now() + jiff::SignedDuration::from_hours(hours()));
    world.start_controllers().await;
    world.promise(workflows("")).await;
    // Once the second one is done nothing of the first is left to be looked at.
    for name in ["a", "b"] {
        world.request(name).await;
        let job = world.job("default").await;
        world.finish(&job, name).await;
        world.told(name, condition::CONFIGURE_WORKFLOW_COMPLETED, "PipelinesExecutedSuccessfully").await;
    }
    let rest = || async { if world.is_at_rest() { Ok(()) } else { Err("passes are running".to_owned()) } };
    wait::poll("all to be at rest", rest).await;
    is_later.store(true, Ordering::SeqCst);
    change(&world, json!({}), "reconciliationInterval: 1h").await;
    let jobs = Api::<Job>::namespaced(world.client.clone(), "default");
    let of_first = watcher::Config::default().labels(&format!("{}=a", keys::RESOURCE_NAME));
    let is_new = |job: &Job| job.status.as_ref().is_none_or(|status| status.conditions.is_none());
    wait::any(&jobs, of_first, "another Job", is_new).await;
}

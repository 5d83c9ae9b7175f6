use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::rbac::v1::Role;
use kratix_api::condition;
use kratix_testing::wait;
use kube::Api;
use kube::api::PostParams;
use kube::runtime::watcher;
use serde_json::json;

use crate::world::{World, typed, workflows};

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_namespace_is_shown_on_the_request_and_the_workflow_runs_once_it_is_there() {
    let world = World::start().await;
    world.promise(workflows("absent")).await;
    world.request("x").await;
    let refused = world.told("x", condition::RECONCILED, "WriteRefused").await;
    assert_eq!(refused.status, condition::Status::False);
    assert!(refused.message.contains("absent"), "{}", refused.message);
    let events = Api::<Event>::namespaced(world.client.clone(), "default");
    wait::any(&events, watcher::Config::default(), "an event about it", |event: &Event| {
        event.reason.as_deref() == Some("ReconcileFailed")
            && event.note.as_ref().is_some_and(|note| note.contains("absent"))
    })
    .await;
    world.add_namespace("absent").await;
    world.job("absent").await;
    world.told("x", condition::RECONCILED, "WorkflowPending").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_role_of_a_derived_name_is_no_success() {
    let world = World::start().await;
    world.promise(workflows("")).await;
    let roles = Api::<Role>::namespaced(world.client.clone(), "default");
    let role = json!({ "metadata": { "name": "env-resource-configure-build" }, "rules": [] });
    roles.create(&PostParams::default(), &typed(role)).await.unwrap();
    world.request("x").await;
    let refused = world.told("x", condition::RECONCILED, "WriteRefused").await;
    let expected = "Role default/env-resource-configure-build exists and is not of this Promise; delete or rename it";
    assert_eq!(refused.message, expected);
}

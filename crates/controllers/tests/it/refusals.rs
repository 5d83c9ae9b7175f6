use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::rbac::v1::{ClusterRole, Role};
use kratix_api::{condition, keys};
use kratix_testing::wait;
use kube::api::{ListParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::world::{World, typed, workflows};

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_namespace_is_shown_on_the_request_and_the_workflow_runs_once_it_is_there() {
    let world = World::start().await;
    world.promise(workflows("absent")).await;
    world.request("x").await;
    let refused = world.told("x", condition::RECONCILED, "WriteRefused").await;
    assert_eq!(refused.status, condition::Status::False);
    assert_eq!(refused.message, MISSING_NAMESPACE);
    event(&world, MISSING_NAMESPACE).await;
    world.add_namespace("absent").await;
    world.job("absent").await;
    world.told("x", condition::RECONCILED, "WorkflowPending").await;
}

const MISSING_NAMESPACE: &str =
    "create of ServiceAccount absent/env-resource-configure-build failed: namespaces \"absent\" not found";

/// Waits for the event of a refusal; the text is all there is in it.
async fn event(world: &World, text: &str) {
    let events = Api::<Event>::namespaced(world.client.clone(), "default");
    wait::any(&events, watcher::Config::default(), &format!("an event about {text}"), |event: &Event| {
        event.reason.as_deref() == Some("WriteRefused") && event.note.as_deref() == Some(text)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_cause_is_one_event_whatever_was_refused_before() {
    let world = World::start().await;
    world.promise(workflows("absent")).await;
    let name = "env-resource-configure-build-default";
    let roles = Api::<ClusterRole>::all(world.client.clone());
    let role = json!({ "metadata": { "name": name }, "rules": [] });
    roles.create(&PostParams::default(), &typed(role)).await.unwrap();
    world.request("x").await;
    event(&world, MISSING_NAMESPACE).await;
    world.add_namespace("absent").await;
    event(&world, &format!("ClusterRole {name} exists and is not of this Promise; delete or rename it")).await;
    let events = Api::<Event>::namespaced(world.client.clone(), "default");
    let events = events.list(&ListParams::default()).await.unwrap();
    let count = |reason: &str| events.iter().filter(|event| event.reason.as_deref() == Some(reason)).count();
    assert_eq!((count("WriteRefused"), count("ReconcileFailed")), (2, 0));
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

#[tokio::test(flavor = "multi_thread")]
async fn an_account_of_somebody_else_serves_and_costs_no_write_with_any_run() {
    let world = World::start().await;
    let mut workflows = workflows("");
    workflows["resource"]["configure"][0]["spec"]["rbac"] = json!({ "serviceAccount": "mine" });
    let accounts = Api::<ServiceAccount>::namespaced(world.user.clone(), "default");
    let account = json!({ "metadata": { "name": "mine" } });
    accounts.create(&PostParams::default(), &typed(account)).await.unwrap();
    world.promise(workflows).await;
    for name in ["x", "y"] {
        world.request(name).await;
        world.told(name, condition::RECONCILED, "WorkflowPending").await;
    }
    let writes = world.writes();
    assert_eq!(writes.get("create jobs.batch"), Some(&2));
    assert_eq!(writes.get("create serviceaccounts"), None, "{writes:#?}");
    assert_eq!(accounts.get("mine").await.unwrap().labels().get(keys::PROMISE_NAME), None);
}

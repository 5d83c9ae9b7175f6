//! A Promise that changes under its requests: who runs again, and what becomes of another API.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kratix_api::{Promise, condition, keys};
use kratix_testing::wait;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::world::{NAME, World, told, typed, workflows};

const UP_TO_DATE: &str = "RequestsUpToDate";

async fn change_promise(world: &World, patch: Value) {
    let promises = Api::<Promise>::all(world.client.clone());
    promises.patch(NAME, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

/// Waits for a condition of the Promise; returns its message.
async fn promise_says(world: &World, r#type: &str, reason: &str) -> String {
    let promises = Api::<Promise>::all(world.client.clone());
    let find = |promise: &Promise| {
        let conditions = &promise.status.as_ref()?.conditions;
        condition::find(conditions, r#type).filter(|told| told.reason == reason).map(|told| told.message.clone())
    };
    let what = format!("{type} of the Promise to be {reason}");
    let promise = wait::until(&promises, NAME, &what, |promise| find(promise).is_some()).await;
    find(&promise).unwrap()
}

async fn live_jobs(world: &World) -> Vec<Job> {
    let jobs = Api::<Job>::namespaced(world.client.clone(), "default");
    let mut live = jobs.list(&ListParams::default()).await.unwrap().items;
    live.retain(|job| job.status.as_ref().is_none_or(|status| status.conditions.is_none()));
    live
}

/// Lets a Job end well; returns the name of its request.
async fn complete(world: &World, job: &Job) -> String {
    world.complete(job).await;
    job.annotations()[keys::JOB_RESOURCE_NAME].clone()
}

/// Plays the last words of a pod, which come before its Job has ended.
async fn report_success(world: &World, request: &str) {
    let requests = world.requests();
    let what = "the run to be on record";
    let found = wait::until(&requests, request, what, |request| {
        told(request, condition::CONFIGURE_WORKFLOW_COMPLETED).is_some_and(|told| told.reason == "PipelinesInProgress")
    });
    let mut conditions = found.await.data["status"]["conditions"].clone();
    for told in conditions.as_array_mut().unwrap() {
        if told["type"] == condition::CONFIGURE_WORKFLOW_COMPLETED {
            told["status"] = "True".into();
            told["reason"] = "PipelinesExecutedSuccessfully".into();
        }
    }
    let status = json!({ "status": { "conditions": conditions } });
    requests.patch_status(request, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    wait::poll("everybody to have noticed", || async {
        if world.is_at_rest() { Ok(()) } else { Err("somebody is busy".to_owned()) }
    })
    .await;
}

/// Waits for the next Job and completes it; returns the name of its request.
async fn complete_next(world: &World) -> String {
    let job = world.job("default").await;
    let request = complete(world, &job).await;
    world.told(&request, condition::CONFIGURE_WORKFLOW_COMPLETED, "PipelinesExecutedSuccessfully").await;
    request
}

fn selecting(value: &str) -> Value {
    json!({ "spec": { "destinationSelectors": [{ "matchLabels": { "environment": value } }] } })
}

fn version(name: &str, is_stored: bool, sizes: &[&str]) -> Value {
    json!({ "name": name, "served": true, "storage": is_stored, "schema": { "openAPIV3Schema": {
        "type": "object",
        "properties": { "spec": { "type": "object", "properties": { "size": { "type": "string", "enum": sizes } } } },
    }}})
}

async fn set_versions(world: &World, versions: Value) {
    change_promise(world, json!({ "spec": { "api": { "spec": { "versions": versions } } } })).await;
}

fn requests_in(world: &World, version: &str) -> Api<DynamicObject> {
    let gvk = GroupVersionKind::gvk("example.org", version, "Env");
    Api::namespaced_with(world.client.clone(), "default", &ApiResource::from_gvk_with_plural(&gvk, "envs"))
}

/// §13
#[tokio::test(flavor = "multi_thread")]
async fn requests_run_again_a_few_at_a_time_also_across_a_restart() {
    let mut world = World::start().await;
    world.stop_controllers().await;
    let config = json!({
        "metadata": { "name": keys::CONFIG_MAP, "namespace": keys::SYSTEM_NAMESPACE },
        "data": { keys::CONFIG_KEY: "workflows: {maxConcurrentReruns: 2}" },
    });
    let config_maps = Api::<ConfigMap>::namespaced(world.client.clone(), keys::SYSTEM_NAMESPACE);
    config_maps.create(&PostParams::default(), &typed(config)).await.unwrap();
    world.start_controllers().await;
    world.promise(workflows("")).await;
    let names = ["a", "b", "c", "d", "e"];
    for name in names {
        world.request(name).await;
        complete_next(&world).await;
    }

    change_promise(&world, selecting("b")).await;
    let mut ran = Vec::new();
    for left in (1..=names.len()).rev() {
        wait::poll("those that may run to run, and no more", || async {
            let (live, is_at_rest) = (live_jobs(&world).await.len(), world.is_at_rest());
            assert!(live <= 2, "{live} at once");
            if live == left.min(2) && is_at_rest { Ok(()) } else { Err(format!("{live} run")) }
        })
        .await;
        if left == 4 {
            world.stop_controllers().await;
            world.start_controllers().await;
        }
        let next = world.job("default").await;
        report_success(&world, &next.annotations()[keys::JOB_RESOURCE_NAME]).await;
        ran.push(complete(&world, &next).await);
    }
    ran.sort();
    assert_eq!(ran, names, "each once");
    let message = promise_says(&world, UP_TO_DATE, UP_TO_DATE).await;
    assert_eq!(message, "All resource requests have run since the Promise has changed");
}

/// §8.3
#[tokio::test(flavor = "multi_thread")]
async fn requests_of_an_old_version_live_on_beside_those_of_a_new_one() {
    let world = World::start().await;
    world.promise(workflows("")).await;
    world.request("x").await;
    complete_next(&world).await;
    set_versions(&world, json!([version("v1", false, &["small", "large"]), version("v2", true, &["small", "large"])]))
        .await;
    let promises = Api::<Promise>::all(world.client.clone());
    wait::until(&promises, NAME, "the Promise to speak of v2", |promise: &Promise| {
        promise.status.as_ref().is_some_and(|status| status.api_version == "example.org/v2")
    })
    .await;
    assert_eq!(complete_next(&world).await, "x", "the Promise has changed");
    promise_says(&world, UP_TO_DATE, UP_TO_DATE).await;
    let new = json!({ "apiVersion": "example.org/v2", "kind": "Env", "metadata": { "name": "y" }, "spec": { "size": "small" } });
    requests_in(&world, "v2").create(&PostParams::default(), &typed(new)).await.unwrap();
    assert_eq!(complete_next(&world).await, "y");
    let larger = json!({ "spec": { "size": "large" } });
    requests_in(&world, "v1").patch("x", &PatchParams::default(), &Patch::Merge(larger)).await.unwrap();
    assert_eq!(complete_next(&world).await, "x");
    let x = requests_in(&world, "v2").get("x").await.unwrap();
    assert_eq!(x.data["spec"]["size"], "large");

    // What is stored in a version cannot be read without it, so the API server refuses to forget it.
    set_versions(&world, json!([version("v2", true, &["small", "large"])])).await;
    let refused = promise_says(&world, condition::RECONCILED, "WriteRefused").await;
    assert!(refused.contains("v1 was previously a storage version"), "{refused}");
    requests_in(&world, "v1").get("x").await.unwrap();
    set_versions(&world, json!([version("v1", false, &["small", "large"]), version("v2", true, &["small", "large"])]))
        .await;
    wait::until(&promises, NAME, "the refusal to be over", |promise: &Promise| {
        let conditions = promise.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        condition::find(conditions, condition::RECONCILED).is_some_and(|told| told.reason != "WriteRefused")
    })
    .await;
}

/// Returns a client of the controllers whose patches of the request `a` are refused as long as this is true.
fn refusing(world: &World, refuses: &Arc<AtomicBool>) -> Client {
    let (refuses, service) = (Arc::clone(refuses), world.service_of("admin"));
    let service = tower::service_fn(move |mut request: http::Request<kube::client::Body>| {
        let is_about_a = request.method() == http::Method::PATCH && request.uri().path().ends_with("/envs/a");
        if is_about_a && refuses.load(Ordering::SeqCst) {
            request.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
        }
        service.clone().oneshot(request)
    });
    Client::new(service, "default")
}

/// §13, weakness 24
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_cannot_be_told_is_named_and_holds_up_no_other() {
    let mut world = World::start().await;
    world.promise(workflows("")).await;
    for name in ["a", "b", "c"] {
        world.request(name).await;
        complete_next(&world).await;
    }
    world.stop_controllers().await;
    let refuses = Arc::new(AtomicBool::new(true));
    let controllers = world.run_controllers(refusing(&world, &refuses)).await;
    change_promise(&world, selecting("b")).await;
    let mut ran = [complete_next(&world).await, complete_next(&world).await];
    ran.sort();
    assert_eq!(ran, ["b", "c"]);
    let message = promise_says(&world, UP_TO_DATE, "RequestsHeldUp").await;
    assert!(message.contains("default/a; patch of Env default/a failed"), "{message}");
    refuses.store(false, Ordering::SeqCst);
    let larger = json!({ "spec": { "size": "large" } });
    world.requests().patch("a", &PatchParams::default(), &Patch::Merge(larger)).await.unwrap();
    assert_eq!(complete_next(&world).await, "a");
    promise_says(&world, UP_TO_DATE, UP_TO_DATE).await;
    controllers.stop().await;
}

/// 02 §15
#[tokio::test(flavor = "multi_thread")]
async fn permissions_in_a_former_pipeline_namespace_go_with_the_next_run() {
    let world = World::start().await;
    for namespace in ["before", "after"] {
        world.add_namespace(namespace).await;
    }
    let mut granted = workflows("before");
    let permission = json!([{ "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"] }]);
    granted["resource"]["configure"][0]["spec"]["rbac"] = json!({ "permissions": permission });
    world.promise(granted).await;
    world.request("x").await;
    world.complete(&world.job("before").await).await;
    world.told("x", condition::CONFIGURE_WORKFLOW_COMPLETED, "PipelinesExecutedSuccessfully").await;
    let roles = Api::<Role>::namespaced(world.client.clone(), "before");
    assert_eq!(roles.list(&ListParams::default()).await.unwrap().items.len(), 2);
    change_promise(&world, json!({ "spec": { "workflows": { "config": { "pipelineNamespace": "after" } } } })).await;
    world.job("after").await;
    let left = roles.list(&ListParams::default()).await.unwrap().items;
    let left: Vec<String> = left.iter().map(ResourceExt::name_any).collect();
    assert_eq!(left, Vec::<String>::new());
}

/// Returns how many objects of a kind Kratix has made for pipelines of requests.
async fn made<K>(objects: Api<K>) -> usize
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let of_promise = ListParams::default().labels(&format!("{}={NAME}", keys::PROMISE_NAME));
    let found = objects.list(&of_promise).await.unwrap();
    let is_of_pipeline = |name: &str| name.starts_with("env-resource-") || name.starts_with("destination-selectors-");
    found.iter().filter(|object| is_of_pipeline(&object.name_any())).count()
}

/// 02 §5.1–§5.3
#[tokio::test(flavor = "multi_thread")]
async fn nothing_stays_in_a_pipeline_namespace_that_is_given_up() {
    let world = World::start().await;
    world.add_namespace("pipes").await;
    world.promise(workflows("pipes")).await;
    world.request("a").await;
    let job = world.job("pipes").await;
    let client = || world.client.clone();
    let access = async |namespace: &str| {
        [
            made(Api::<ServiceAccount>::namespaced(client(), namespace)).await,
            made(Api::<ConfigMap>::namespaced(client(), namespace)).await,
            made(Api::<Role>::namespaced(client(), namespace)).await,
            made(Api::<RoleBinding>::namespaced(client(), namespace)).await,
        ]
    };
    let in_cluster =
        async || [made(Api::<ClusterRole>::all(client())).await, made(Api::<ClusterRoleBinding>::all(client())).await];
    assert_eq!((access("pipes").await, in_cluster().await), ([1; 4], [1; 2]));
    complete(&world, &job).await;
    world.told("a", condition::CONFIGURE_WORKFLOW_COMPLETED, "PipelinesExecutedSuccessfully").await;
    change_promise(&world, json!({ "spec": { "workflows": { "config": { "pipelineNamespace": null } } } })).await;
    // What goes goes before the Job is made.
    world.job("default").await;
    assert_eq!((access("pipes").await, in_cluster().await), ([0; 4], [0; 2]));
    assert_eq!(access("default").await, [1; 4]);
}

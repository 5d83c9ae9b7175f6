//! What requests say of pods that do not get on. There is no node: the test plays Job controller and kubelet.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod};
use kratix_testing::wait;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::world::{World, told, typed, workflows};

const FAILING: &str = "PipelineFailing";

/// Makes the pod of a Job.
async fn pod(world: &World, job: &Job) -> Api<Pod> {
    let pods = Api::<Pod>::namespaced(world.client.clone(), "default");
    let owner = json!({
        "apiVersion": "batch/v1", "kind": "Job", "controller": true, "name": job.name_any(), "uid": job.uid().unwrap(),
    });
    let template = job.spec.as_ref().unwrap().template.clone();
    let metadata = json!({
        "name": "p", "labels": template.metadata.unwrap().labels, "ownerReferences": [owner],
    });
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template.spec });
    pods.create(&PostParams::default(), &typed(pod)).await.unwrap();
    pods
}

/// Says how a container of the pod stands.
async fn report(pods: &Api<Pod>, container: &str, state: Value) {
    let status =
        json!({ "name": container, "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state });
    let status = json!({ "status": { "phase": "Pending", "initContainerStatuses": [status] } });
    pods.patch_status("p", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

async fn gets_on(world: &World) {
    wait::until(&world.requests(), "x", "the request to say nothing of its pods", |request| {
        told(request, FAILING).is_none()
    })
    .await;
}

/// Quota exceeded, an admission webhook, a ServiceAccount that does not exist: the Job controller tells it by events alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_can_make_no_pod_says_why_on_its_request_until_it_can() {
    let world = World::start().await;
    world.promise(workflows("")).await;
    world.request("x").await;
    let job = world.job("default").await;
    let events = Api::<Event>::namespaced(world.client.clone(), "default");
    let of = json!({ "apiVersion": "batch/v1", "kind": "Job", "namespace": "default", "name": job.name_any(), "uid": job.uid() });
    for (name, message, second) in [("old", "the first of two", 1), ("new", "exceeded quota: small", 2)] {
        let event = json!({
            "metadata": { "name": name, "namespace": "default" }, "involvedObject": of, "type": "Warning", "reason": "FailedCreate",
            "message": format!("Error creating: pods is forbidden: {message}"),
            "lastTimestamp": format!("2026-01-01T00:00:0{second}Z"),
        });
        events.create(&PostParams::default(), &typed(event)).await.unwrap();
    }
    let is_told = |request: &kube::api::DynamicObject| {
        told(request, FAILING)
            .is_some_and(|found| found.reason == "PodRefused" && found.message.contains("exceeded quota: small"))
    };
    wait::until(&world.requests(), "x", "the request to name the quota", is_told).await;
    let pods = pod(&world, &job).await;
    gets_on(&world).await;
    report(&pods, "a", json!({ "terminated": { "exitCode": 1 } })).await;
    let failing = world.told("x", FAILING, "ContainerFailed").await;
    assert_eq!(failing.message, "pipeline build: container a exited with code 1; kubectl logs -n default p -c a");
}

/// The Job is ended by the means that every cluster has, and its shape is touched by nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_output_is_refused_makes_no_further_attempt() {
    let world = World::start().await;
    world.promise(workflows("")).await;
    world.request("x").await;
    let job = world.job("default").await;
    let pods = pod(&world, &job).await;
    report(&pods, "a", json!({ "waiting": { "reason": "ErrImagePull", "message": "no such image" } })).await;
    world.told("x", FAILING, "ImageUnavailable").await;
    report(&pods, "a", json!({ "running": {} })).await;
    gets_on(&world).await;
    report(
        &pods,
        "work-writer",
        json!({ "terminated": { "exitCode": 65, "message": "invalid destination-selectors.yaml" } }),
    )
    .await;
    let jobs = Api::<Job>::namespaced(world.client.clone(), "default");
    let ended = wait::until(&jobs, &job.name_any(), "the Job to be ended", |job: &Job| {
        job.spec.as_ref().and_then(|spec| spec.backoff_limit) == Some(0)
    })
    .await;
    let mut expected = job.spec.unwrap();
    expected.backoff_limit = Some(0);
    assert_eq!(ended.spec.unwrap(), expected);
    let failing = world.told("x", FAILING, "InvalidOutput").await;
    assert!(
        failing.message.contains("invalid destination-selectors.yaml; kubectl logs -n default p -c work-writer"),
        "{failing:?}"
    );
}

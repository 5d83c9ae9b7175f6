use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kratix_api::keys;
use kratix_testing::wait;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::world::{World, typed};

fn spec() -> Value {
    json!({ "containers": [{ "name": "a", "image": "i" }], "restartPolicy": "Never" })
}

/// Makes a Job of Kratix that has ended at a time, with one pod of its own.
async fn ended(world: &World, name: &str, at: &str) -> Job {
    let jobs = Api::<Job>::namespaced(world.client.clone(), "default");
    let labels = json!({ keys::MANAGED_BY: keys::MANAGED_BY_KRATIX });
    let job = json!({ "metadata": { "name": name, "labels": labels }, "spec": { "template": { "spec": spec() } } });
    let job = jobs.create(&PostParams::default(), &typed(job)).await.unwrap();
    pod(world, name, Some(&job)).await;
    let condition = |r#type: &str| json!({ "type": r#type, "status": "True", "lastTransitionTime": at });
    let status = json!({ "status": {
        "conditions": [condition("SuccessCriteriaMet"), condition("Complete")],
        "succeeded": 1, "startTime": at, "completionTime": at,
    }});
    jobs.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap()
}

/// Makes a pod that carries the name of a Job, owned by it or by nobody.
async fn pod(world: &World, of: &str, owner: Option<&Job>) {
    let owners: Vec<Value> = owner
        .map(|job| json!({ "apiVersion": "batch/v1", "kind": "Job", "name": job.name_any(), "uid": job.uid() }))
        .into_iter()
        .collect();
    let name = format!("{of}-{}", if owner.is_some() { "pod" } else { "bystander" });
    let labels = json!({ "batch.kubernetes.io/job-name": of });
    let pod = json!({ "metadata": { "name": name, "labels": labels, "ownerReferences": owners }, "spec": spec() });
    pods(world).create(&PostParams::default(), &typed(pod)).await.unwrap();
}

fn pods(world: &World) -> Api<Pod> {
    Api::namespaced(world.client.clone(), "default")
}

/// §13.2
#[tokio::test(flavor = "multi_thread")]
async fn pods_go_some_time_after_their_job_has_ended_once_that_is_configured_and_the_job_stays() {
    let world = World::start().await;
    let long_ago = "2020-01-01T00:00:00Z";
    ended(&world, "old", long_ago).await;
    ended(&world, "fresh", "2100-01-01T00:00:00Z").await;
    pod(&world, "old", None).await;
    let config = json!({
        "metadata": { "name": keys::CONFIG_MAP },
        "data": { keys::CONFIG_KEY: "workflows: {jobOptions: {podTTLSecondsAfterFinished: 3600}}" },
    });
    let configs = Api::<ConfigMap>::namespaced(world.client.clone(), keys::SYSTEM_NAMESPACE);
    configs.create(&PostParams::default(), &typed(config)).await.unwrap();
    wait::gone(&pods(&world), "old-pod").await;
    // Also those of Jobs that end from now on.
    ended(&world, "next", long_ago).await;
    wait::gone(&pods(&world), "next-pod").await;
    let left = pods(&world).list(&ListParams::default()).await.unwrap().items;
    assert_eq!(left.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["fresh-pod", "old-bystander"]);
    let jobs = Api::<Job>::namespaced(world.client.clone(), "default").list(&ListParams::default()).await.unwrap();
    assert_eq!(jobs.items.len(), 3);
    // A removal is counted when it is answered, which may be after it is seen.
    wait::poll("two removals, none of them again", || async {
        let removals = world.writes().get("delete pods").copied();
        if removals == Some(2) { Ok(()) } else { Err(format!("{removals:?}")) }
    })
    .await;
}

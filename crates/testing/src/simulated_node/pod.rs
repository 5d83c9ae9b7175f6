//! The Pod of a Job that cannot begin, as the Job controller makes it and a kubelet describes it.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

/// Labels of a Pod: the name and the uid of its Job.
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
const JOB_UID: &str = "batch.kubernetes.io/controller-uid";

/// Makes the Pod, in which everything before `container` has run; it runs nowhere. False when the server did not take it.
pub(super) async fn wait(client: &Client, job: &Job, container: &Container, reason: &str, message: &str) -> bool {
    let pods = of(client, job);
    let name = format!("{}-waits", job.name_any());
    let made = match serde_json::from_value::<Pod>(pod(job, &name)) {
        Ok(pod) => pods.create(&PostParams::default(), &pod).await,
        Err(_) => return false,
    };
    // It is there already: the node was away.
    if made.is_err_and(|error| !matches!(error, kube::Error::Api(status) if status.code == 409)) {
        return false;
    }
    let status = Patch::Merge(json!({ "status": status(job, container, reason, message) }));
    pods.patch_status(&name, &PatchParams::default(), &status).await.is_ok()
}

/// Removes the Pods of a Job. One that is still there is met by the next attempt, and goes with its Job.
pub(super) async fn remove(client: &Client, job: &Job) {
    let of_job = ListParams::default().labels(&format!("{JOB_UID}={}", job.uid().unwrap_or_default()));
    drop(of(client, job).delete_collection(&DeleteParams::default(), &of_job).await);
}

fn of(client: &Client, job: &Job) -> Api<Pod> {
    Api::namespaced(client.clone(), &job.namespace().unwrap_or_default())
}

fn pod(job: &Job, name: &str) -> Value {
    let template = job.spec.as_ref().map(|spec| &spec.template);
    let metadata = template.and_then(|template| template.metadata.as_ref());
    let mut labels = metadata.and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
    labels.insert(JOB_NAME.to_owned(), job.name_any());
    labels.insert(JOB_UID.to_owned(), job.uid().unwrap_or_default());
    let owner = json!({
        "apiVersion": "batch/v1", "kind": "Job", "name": job.name_any(), "uid": job.uid(),
        "controller": true, "blockOwnerDeletion": true,
    });
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "labels": labels, "ownerReferences": [owner] },
        "spec": template.map(|template| &template.spec),
    })
}

fn status(job: &Job, waiting: &Container, reason: &str, message: &str) -> Value {
    let pod = job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let init: Vec<&Container> = pod.and_then(|pod| pod.init_containers.as_ref()).into_iter().flatten().collect();
    let turn = init.iter().position(|container| container.name == waiting.name).unwrap_or(init.len());
    let of = |at: usize, container: &Container| {
        let state = match at.cmp(&turn) {
            std::cmp::Ordering::Less => json!({ "terminated": { "exitCode": 0, "reason": "Completed" } }),
            std::cmp::Ordering::Equal => json!({ "waiting": { "reason": reason, "message": message } }),
            std::cmp::Ordering::Greater => json!({ "waiting": { "reason": "PodInitializing" } }),
        };
        json!({
            "name": container.name, "image": container.image, "imageID": "", "ready": false, "restartCount": 0,
            "state": state,
        })
    };
    let statuses: Vec<Value> = init.iter().enumerate().map(|(at, container)| of(at, container)).collect();
    let containers = pod.map(|pod| pod.containers.as_slice()).unwrap_or_default();
    let rest: Vec<Value> = containers.iter().map(|container| of(init.len(), container)).collect();
    json!({ "phase": "Pending", "initContainerStatuses": statuses, "containerStatuses": rest })
}

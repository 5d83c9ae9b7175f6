//! The shell around one Job: observe, decide, act; again when something changes.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions, PropagationPolicy};

use super::{Plan, Snapshot, decide};
use crate::cache::Key;
use crate::event::Event;
use crate::node::{Actor, Context};

/// First pause after a failed write; it doubles.
const RETRY: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Works on a Job until there is nothing to do for it at the moment.
pub(crate) async fn run(cx: Arc<Context>, key: Key, uid: String, actor: Arc<Actor>) {
    let mut pause = RETRY;
    loop {
        let Some(job) = cx.jobs.get(&key).filter(|job| job.metadata.uid.as_deref() == Some(&uid)) else {
            return;
        };
        let mut pods = cx.pods.owned_by(&uid);
        pods.retain(|pod| controller_of(pod) == Some(uid.as_str()));
        let now = Timestamp::now();
        let snapshot = Snapshot { now, job: job.clone(), pods, backoff: cx.failure_backoff, node: cx.node.clone() };
        let plan = decide(&snapshot);
        let wait = match act(&cx, &job, &plan).await {
            Ok(true) => continue, // our own writes are in the cache: look at once whether more is to do
            Ok(false) => {
                pause = RETRY;
                let Some(next) = plan.next else { return };
                Duration::try_from(next.duration_since(now)).unwrap_or(Duration::ZERO)
            }
            Err(error) => {
                tracing::debug!(job = %key.name, error = %error, "a job could not be brought forward");
                let wait = pause;
                pause = (pause * 2).min(RETRY_MAX);
                wait
            }
        };
        tokio::select! {
            () = actor.notified() => {}
            () = tokio::time::sleep(wait) => {}
            () = cx.stopping.cancelled() => return,
        }
    }
}

/// Executes a plan; `true` if it wrote anything.
async fn act(cx: &Context, job: &Job, plan: &Plan) -> kube::Result<bool> {
    let key = Key::of(job);
    let pods: Api<Pod> = Api::namespaced(cx.client.clone(), &key.namespace);
    for pod in &plan.create {
        if let Err(error) = create(cx, &pods, pod).await {
            let text = format!("Error creating: {}", message(&error));
            cx.job_recorder.record(job, None, Event::warning("FailedCreate", text));
            return Err(error);
        }
    }
    for name in &plan.delete {
        let known = cx.pods.get(&Key { namespace: key.namespace.clone(), name: name.clone() });
        let uid = known.as_ref().and_then(|pod| pod.metadata.uid.clone());
        let parameters = DeleteParams {
            preconditions: Some(Preconditions { uid, resource_version: None }),
            ..DeleteParams::default()
        };
        match pods.delete(name, &parameters).await {
            Ok(answer) => match (answer.left(), known) {
                (Some(pod), _) if pod.metadata.deletion_timestamp.is_some() => cx.observe_pod(pod),
                (_, Some(pod)) => cx.forget_pod(&pod),
                (_, None) => {}
            },
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                if let Some(pod) = known {
                    cx.forget_pod(&pod);
                }
            }
            Err(error) => return Err(error),
        }
    }
    if let Some(status) = &plan.status {
        write_status(cx, job, status).await?;
    }
    for event in &plan.events {
        cx.job_recorder.record(job, None, event.clone());
    }
    if plan.expire {
        let jobs: Api<Job> = Api::namespaced(cx.client.clone(), &key.namespace);
        let parameters = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: Some(Preconditions { uid: job.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        match jobs.delete(&key.name, &parameters).await {
            Ok(_) => cx.forget_job(job),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => cx.forget_job(job),
            Err(error) => return Err(error),
        }
    }
    Ok(!plan.create.is_empty() || !plan.delete.is_empty() || plan.status.is_some() || plan.expire)
}

/// Creates a Pod, or adopts the one that an earlier attempt at this has created without learning of it.
async fn create(cx: &Context, pods: &Api<Pod>, pod: &Pod) -> kube::Result<()> {
    match pods.create(&PostParams::default(), pod).await {
        Ok(created) => cx.observe_pod(created),
        Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "AlreadyExists" => {
            let existing = pods.get(pod.metadata.name.as_deref().unwrap_or_default()).await?;
            if controller_of(&existing) != controller_of(pod) {
                // Somebody else's pod has that name, which takes a hash collision or intent. It may go away.
                return Err(kube::Error::Api(status));
            }
            cx.observe_pod(existing);
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

async fn write_status(cx: &Context, job: &Job, status: &JobStatus) -> kube::Result<()> {
    let key = Key::of(job);
    let jobs: Api<Job> = Api::namespaced(cx.client.clone(), &key.namespace);
    let mut body = job.clone();
    body.status = Some(status.clone());
    match jobs.replace_status(&key.name, &PostParams::default(), &body).await {
        Ok(written) => cx.observe_job(written),
        Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => {
            // The Job has changed or gone: the next pass decides on what it is now.
            match jobs.get_opt(&key.name).await? {
                Some(latest) if latest.metadata.uid == job.metadata.uid => cx.observe_job(latest),
                _ => cx.forget_job(job),
            }
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Deletes the Pods of a Job that is gone, where nobody else does. API servers come with and without garbage collection.
pub(crate) async fn sweep(cx: Arc<Context>, uid: String) {
    const GRACE: SignedDuration = SignedDuration::from_secs(3);
    tokio::select! {
        () = tokio::time::sleep(Duration::try_from(GRACE).unwrap_or_default()) => {}
        () = cx.stopping.cancelled() => return,
    }
    let mut orphans = cx.pods.owned_by(&uid);
    orphans.retain(|pod| controller_of(pod) == Some(uid.as_str()) && pod.metadata.deletion_timestamp.is_none());
    for pod in orphans {
        let key = Key::of(pod.as_ref());
        let api: Api<Pod> = Api::namespaced(cx.client.clone(), &key.namespace);
        let preconditions = Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
        let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
        match api.delete(&key.name, &parameters).await {
            Ok(answer) => match answer.left() {
                Some(left) if left.metadata.deletion_timestamp.is_some() => cx.observe_pod(left),
                _ => cx.forget_pod(&pod),
            },
            Err(kube::Error::Api(status)) if status.code == 404 => cx.forget_pod(&pod),
            Err(error) => tracing::debug!(pod = %key.name, error = %error, "an orphaned pod could not be removed"),
        }
    }
}

/// Returns the uid of the Job that controls a Pod.
pub(crate) fn controller_of(pod: &Pod) -> Option<&str> {
    let owners = pod.metadata.owner_references.iter().flatten();
    let mut jobs = owners.filter(|owner| owner.controller == Some(true) && owner.kind == "Job");
    jobs.find(|owner| owner.api_version.starts_with("batch/")).map(|owner| owner.uid.as_str())
}

fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

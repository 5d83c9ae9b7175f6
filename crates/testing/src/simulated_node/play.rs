//! One run of a Job's pod.

use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, PodSpec, ServiceAccount};
use kratix_pipeline::parameters::Program;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Context, Outcome, Stage, Volumes, job, pod};

/// Pause after a write that the API server did not take; like all pauses here of the runtime's clock, which jumps in the suite.
const PAUSE: Duration = Duration::from_millis(100);

/// Pause before one of Kratix's own programs runs again, of which a kubelet's is ten seconds: what a program lacks for the
/// moment is there by then, as on a real node.
const RESTART: Duration = Duration::from_secs(2);

/// Kratix's own containers.
const PROGRAMS: [&str; 3] = ["reader", "work-writer", "status-writer"];

/// Tells in the Job's status that its pod is to end, and then that nothing runs.
pub(super) async fn suspend(cx: Context, job: Job) {
    if let Some(status) = job::suspended(&job, (cx.clock)()) {
        tell(&cx, &job, status).await;
    }
    pod::remove(&cx.client, &job).await;
    tell(&cx, &job, job::gone()).await;
}

/// Runs the containers of the Job's pod one after the other, and tells in the Job's status how it went.
pub(super) async fn run(cx: Context, job: Job) {
    let _place = match &cx.places {
        Some(places) => Some(places.clone().acquire_owned().await),
        None => None,
    };
    let Some(pod) = job.spec.as_ref().and_then(|spec| spec.template.spec.clone()) else { return };
    let namespace = job.namespace().unwrap_or_default();
    let account = pod.service_account_name.clone().unwrap_or_else(|| "default".to_owned());
    // Without its account the pod is refused, without its ConfigMap it does not start.
    there::<ServiceAccount>(&cx.client, &namespace, &account).await;
    if !tell(&cx, &job, job::started(&job, (cx.clock)())).await {
        return;
    }
    let volumes = Volumes::new().expect("directories for the volumes");
    mount(&cx, &namespace, &pod, &volumes).await;

    let client = (cx.pods)(&namespace, &account);
    let failures_max = job::failures_max(&job);
    let mut failures = 0;
    let containers = pod.init_containers.iter().flatten().chain(&pod.containers);
    for container in containers {
        while !step(&cx, &client, &job, container, &volumes, failures).await {
            failures += 1;
            if failures >= failures_max {
                tell(&cx, &job, job::failed(&job, (cx.clock)())).await;
                return;
            }
            if PROGRAMS.contains(&container.name.as_str()) {
                tokio::time::sleep(RESTART).await;
            }
        }
    }
    tell(&cx, &job, job::completed(&job, (cx.clock)())).await;
}

/// Waits until an object exists.
async fn there<K>(client: &Client, namespace: &str, name: &str) -> K
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Send
        + 'static,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    if let Ok(object) = api.get(name).await {
        return object;
    }
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut objects = Box::pin(watcher(api, config).default_backoff().applied_objects());
    loop {
        // An error is a server that starts or stops: the watch tries again.
        if let Ok(Some(object)) = objects.try_next().await {
            return object;
        }
    }
}

/// Fills the volumes that come from ConfigMaps and belong to Kratix.
async fn mount(cx: &Context, namespace: &str, pod: &PodSpec, volumes: &Volumes) {
    for source in pod.volumes.iter().flatten().filter_map(|volume| volume.config_map.as_ref()) {
        let Some(items) = &source.items else { continue };
        let map: ConfigMap = there(&cx.client, namespace, &source.name).await;
        let data = map.data.unwrap_or_default();
        for item in items {
            let text = data.get(&item.key).map_or("", String::as_str);
            std::fs::write(volumes.scheduling().join(&item.path), text).expect("a file of the volume");
        }
    }
}

/// Runs a container and tells whether it ended well.
async fn step(
    cx: &Context,
    client: &Client,
    job: &Job,
    container: &Container,
    volumes: &Volumes,
    failures: i32,
) -> bool {
    if PROGRAMS.contains(&container.name.as_str()) {
        return match program(job, container, volumes) {
            Ok(program) => kratix_pipeline::execute(&program, client.clone(), || (cx.clock)()).await.is_ok(),
            Err(_) => false,
        };
    }
    loop {
        let (input, output, metadata) = (volumes.input(), volumes.output(), volumes.metadata());
        let stage = Stage { job, container, failures, input: &input, output: &output, metadata: &metadata };
        match (cx.play)(&stage) {
            Outcome::Succeeded => return true,
            Outcome::Failed => return false,
            Outcome::Later(ready) => ready.await,
            Outcome::Waiting { reason, message, until } => {
                while !pod::wait(&cx.client, job, container, reason, &message).await {
                    tokio::time::sleep(PAUSE).await;
                }
                until.await;
                pod::remove(&cx.client, job).await;
            }
        }
    }
}

/// Reads arguments and environment as the program would, with the volumes where they are on this machine.
fn program(job: &Job, container: &Container, volumes: &Volumes) -> Result<Program, kratix_pipeline::Error> {
    let args = container.args.clone().unwrap_or_default();
    let variables = container.env.clone().unwrap_or_default();
    let lookup = |name: &str| variables.iter().find(|variable| variable.name == name).map(|found| value(job, found));
    let mut program = Program::parse(&args, &lookup)?;
    match &mut program {
        Program::Reader(config) => config.input_dir = volumes.input(),
        Program::WorkWriter(config) => config.root = volumes.files(),
        Program::StatusWriter(config) => config.metadata_dir = volumes.metadata(),
    }
    Ok(program)
}

/// Returns the value of a variable; `metadata.annotations['…']` is the one field that Kratix's containers ask for.
fn value(job: &Job, variable: &EnvVar) -> String {
    let field = variable.value_from.as_ref().and_then(|from| from.field_ref.as_ref());
    let Some(field) = field else { return variable.value.clone().unwrap_or_default() };
    let key = field.field_path.trim_start_matches("metadata.annotations['").trim_end_matches("']");
    let template = job.spec.as_ref().and_then(|spec| spec.template.metadata.as_ref());
    let annotations = template.and_then(|metadata| metadata.annotations.as_ref());
    annotations.and_then(|annotations| annotations.get(key)).cloned().unwrap_or_default()
}

/// Writes the Job's status; false when the Job is gone.
async fn tell(cx: &Context, job: &Job, status: Value) -> bool {
    let jobs: Api<Job> = Api::namespaced(cx.client.clone(), &job.namespace().unwrap_or_default());
    let patch = Patch::Merge(json!({ "metadata": { "uid": job.uid() }, "status": status }));
    loop {
        match jobs.patch_status(&job.name_any(), &PatchParams::default(), &patch).await {
            Ok(_) => return true,
            // Gone, or another one by now; or a status that a Job in this state cannot have.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => return false,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

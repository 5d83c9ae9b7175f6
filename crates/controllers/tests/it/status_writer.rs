//! The status-writer beside others who write the same object.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kratix_api::{Action, Timestamp, WorkflowType, keys};
use kratix_pipeline::object::Address;
use kratix_pipeline::status::Run;
use kratix_pipeline::status_writer::{self, Config, Patience};
use kube::api::{Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use tower::ServiceExt;

use crate::world::{World, workflows};

/// Returns a client in front of which somebody else is faster, the first `times` that it patches the request.
fn overtaken(world: &World, times: usize) -> (Client, Arc<AtomicUsize>) {
    let (service, others, writes) = (world.service_of("pod"), world.requests(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&writes);
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (service, others, counted) = (service.clone(), others.clone(), Arc::clone(&counted));
        async move {
            let is_write = request.method() == http::Method::PATCH && request.uri().path().ends_with("/status");
            if is_write && counted.fetch_add(1, Ordering::Relaxed) < times {
                let patch = Patch::Merge(json!({ "status": { "endpoint": counted.load(Ordering::Relaxed) } }));
                others.patch_status("x", &PatchParams::default(), &patch).await.unwrap();
                let label = Patch::Merge(json!({ "metadata": { "labels": { "team": "t" } } }));
                others.patch("x", &PatchParams::default(), &label).await.unwrap();
            }
            service.oneshot(request).await
        }
    });
    (Client::new(service, "default"), writes)
}

/// Returns the configuration for the pipeline `build` of the request `x`.
fn config(metadata: &Path) -> Config {
    Config {
        address: Address {
            group: "example.org".into(),
            version: "v1".into(),
            plural: "envs".into(),
            namespace: Some("default".into()),
            name: "x".into(),
        },
        metadata_dir: metadata.into(),
        run: Run {
            workflow: WorkflowType::Resource,
            action: Action::Configure,
            pipeline: "build".into(),
            is_last: true,
            is_dry_run: false,
        },
        patience: Patience::default(),
    }
}

/// Weaknesses 33 and 34: the write of somebody else in between costs another look, and nothing of it is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_costs_the_status_writer_another_look_and_nobody_loses_a_field() {
    for control in ["", "suspend: true\nmessage: approval\n"] {
        let mut world = World::start().await;
        world.promise(workflows("")).await;
        world.request("x").await;
        world.job("default").await;
        world.told("x", "Reconciled", "WorkflowPending").await;
        world.stop_controllers().await;
        let metadata = tempfile::tempdir().unwrap();
        std::fs::write(metadata.path().join("status.yaml"), "url: u\n").unwrap();
        std::fs::write(metadata.path().join("workflow-control.yaml"), control).unwrap();
        let config = config(metadata.path());
        let (client, writes) = overtaken(&world, 3);
        status_writer::run(&config, &client, Timestamp::now).await.unwrap();
        assert_eq!(writes.load(Ordering::Relaxed), 4);
        let request = world.requests().get("x").await.unwrap();
        let status = &request.data["status"];
        assert_eq!((&status["endpoint"], &status["url"]), (&json!(3), &json!("u")));
        assert_eq!(request.labels()["team"], "t");
        let is_suspended = request.labels().contains_key(keys::WORKFLOW_SUSPENDED);
        assert_eq!(is_suspended, !control.is_empty());
        let phase = if is_suspended { "Suspended" } else { "Running" };
        assert_eq!(status["kratix"]["workflows"]["pipelines"][0]["phase"], phase);
        let types: Vec<_> = status["conditions"].as_array().unwrap().iter().map(|one| one["type"].clone()).collect();
        assert!(types.contains(&json!("Reconciled")), "{types:?}");
        // Once more, with nobody in between: one look, no write.
        let (client, writes) = overtaken(&world, 0);
        let run = Run { is_last: false, ..config.run.clone() };
        std::fs::write(metadata.path().join("workflow-control.yaml"), "").unwrap();
        status_writer::run(&Config { run, ..config }, &client, Timestamp::now).await.unwrap();
        assert_eq!(writes.load(Ordering::Relaxed), usize::from(is_suspended));
    }
}

/// Returns a client that calls `before` with the number of each look at the request, and how many there were.
fn looking<F: Future<Output = ()> + Send + 'static>(
    world: &World,
    before: impl Fn(usize) -> F + Clone + Send + Sync + 'static,
) -> (Client, Arc<AtomicUsize>) {
    let (service, looks) = (world.service_of("pod"), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&looks);
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (service, before, counted) = (service.clone(), before.clone(), Arc::clone(&counted));
        async move {
            if request.method() == http::Method::GET {
                before(counted.fetch_add(1, Ordering::Relaxed) + 1).await;
            }
            service.oneshot(request).await
        }
    });
    (Client::new(service, "default"), looks)
}

/// Between the Job and the list of pipelines the manager may be away for as long as a restart takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_is_to_be_held_waits_for_a_manager_that_is_away() {
    let mut world = World::start().await;
    world.promise(workflows("")).await;
    world.stop_controllers().await;
    world.request("x").await;
    let metadata = tempfile::tempdir().unwrap();
    std::fs::write(metadata.path().join("workflow-control.yaml"), "suspend: true\nmessage: approval\n").unwrap();
    let millisecond = Duration::from_millis(1);
    let patience = Patience { pause: millisecond, pause_max: millisecond, wait_max: Duration::from_secs(60) };
    let config = Config { patience, ..config(metadata.path()) };

    // There is none at first, then that of an earlier run, whose pipelines were others.
    let list = |name: &str| json!({ "status": { "kratix": { "workflows": { "pipelines": [{ "name": name, "phase": "Running" }] } } } });
    let (requests, lists) = (world.requests(), [(4, list("earlier")), (9, list("build"))]);
    let manager = requests.clone();
    let (client, looks) = looking(&world, move |look| {
        let (manager, lists) = (manager.clone(), lists.clone());
        async move {
            for (_, list) in lists.iter().filter(|(number, _)| *number == look) {
                manager.patch_status("x", &PatchParams::default(), &Patch::Merge(list)).await.unwrap();
            }
        }
    });
    status_writer::run(&config, &client, Timestamp::now).await.unwrap();
    assert_eq!(looks.load(Ordering::Relaxed), 9, "it looks on until the list is there, and no longer");
    let request = requests.get("x").await.unwrap();
    assert!(request.labels().contains_key(keys::WORKFLOW_SUSPENDED));
    let entry = &request.data["status"]["kratix"]["workflows"]["pipelines"][0];
    assert_eq!((&entry["phase"], &entry["message"]), (&json!("Suspended"), &json!("approval")));

    // What asks for nothing waits for nothing.
    std::fs::write(metadata.path().join("workflow-control.yaml"), "").unwrap();
    let none = Patch::Merge(json!({ "status": { "kratix": null } }));
    requests.patch_status("x", &PatchParams::default(), &none).await.unwrap();
    let (client, looks) = looking(&world, |_| async {});
    status_writer::run(&config, &client, Timestamp::now).await.unwrap();
    assert_eq!(looks.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_stays_away_fails_the_attempt_and_is_named() {
    let mut world = World::start().await;
    world.promise(workflows("")).await;
    world.stop_controllers().await;
    world.request("x").await;
    let metadata = tempfile::tempdir().unwrap();
    std::fs::write(metadata.path().join("workflow-control.yaml"), "retryAfter: 1m\n").unwrap();
    let millisecond = Duration::from_millis(1);
    let patience = Patience { pause: millisecond, pause_max: 4 * millisecond, wait_max: 16 * millisecond };
    let config = Config { patience, ..config(metadata.path()) };
    let (client, looks) = looking(&world, |_| async {});
    let error = status_writer::run(&config, &client, Timestamp::now).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "missing status.kratix while marking pipeline \"build\" as suspended; it was not written within 0 seconds: is the \
         manager running?"
    );
    assert!(!error.is_final(), "the next attempt may find it");
    assert_eq!(looks.load(Ordering::Relaxed), 7, "1 + 2 + 4 + 4 + 4 + 1 milliseconds lie between them");
    let request = world.requests().get("x").await.unwrap();
    assert!(!request.labels().contains_key(keys::WORKFLOW_SUSPENDED));
    assert_eq!(request.data.get("status"), None);
    // An earlier list, in which the pipeline has no place, is not that of the run either: the workflow must not go on unheld.
    let entry = json!({ "status": { "kratix": { "workflows": { "pipelines": [{ "name": "earlier" }] } } } });
    world.requests().patch_status("x", &PatchParams::default(), &Patch::Merge(entry)).await.unwrap();
    let (client, looks) = looking(&world, |_| async {});
    let error = status_writer::run(&config, &client, Timestamp::now).await.unwrap_err();
    assert!(error.to_string().ends_with("is the manager running?") && !error.is_final(), "{error}");
    assert_eq!(looks.load(Ordering::Relaxed), 7);
}

//! The status-writer beside others who write the same object.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kratix_api::{Action, Timestamp, WorkflowType, keys};
use kratix_pipeline::object::Address;
use kratix_pipeline::status::Run;
use kratix_pipeline::status_writer::{self, Config};
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
        let config = Config {
            address: Address {
                group: "example.org".into(),
                version: "v1".into(),
                plural: "envs".into(),
                namespace: Some("default".into()),
                name: "x".into(),
            },
            metadata_dir: metadata.path().into(),
            run: Run {
                workflow: WorkflowType::Resource,
                action: Action::Configure,
                pipeline: "build".into(),
                is_last: true,
                is_dry_run: false,
            },
        };
        let (client, writes) = overtaken(&world, 3);
        status_writer::run(&config, &client, Timestamp::now()).await.unwrap();
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
        status_writer::run(&Config { run, ..config }, &client, Timestamp::now()).await.unwrap();
        assert_eq!(writes.load(Ordering::Relaxed), usize::from(is_suspended));
    }
}

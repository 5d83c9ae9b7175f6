//! Metrics and traces of the running program. `docs/observability.md`.

use std::collections::BTreeMap;

use kratix_testing::wait;
use kube::ResourceExt;

use crate::world::{World, is_reconciled, promise, request};

const SCRIPT: &str = "echo '{}' > /kratix/output/file.yaml";
const TELEMETRY: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: kratix, namespace: kratix-platform-system}
data: {config: "telemetry: {}"}
"#;

fn trace(annotations: &BTreeMap<String, String>) -> Option<String> {
    Some(annotations.get("kratix.io/trace-parent")?.split('-').nth(1)?.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_counted_at_metrics_and_is_one_trace_down_to_its_placement() {
    let mut world = World::start().await;
    world.apply(TELEMETRY).await;
    // In force from the first moment.
    world.restart().await;
    world.apply(&promise("thing", "Thing", SCRIPT)).await;
    world.promise_available("thing").await;
    world.apply(&request("Thing", "default", "mine")).await;
    let requests = world.requests("test.kratix.io", "v1", "Thing", "things", "default");
    let request = wait::until(&requests, "mine", "the request to be reconciled", is_reconciled).await;

    let of_request = trace(request.annotations()).expect("the request has a trace");
    let all = kube::api::ListParams::default().labels("kratix.io/resource-name=mine");
    let works = world.works("default").list(&all).await.unwrap().items;
    let placements = world.placements("default").list(&all).await.unwrap().items;
    assert_eq!((works.len(), placements.len()), (1, 1));
    assert_eq!(trace(works[0].annotations()).as_ref(), Some(&of_request), "through the pod");
    assert_eq!(trace(placements[0].annotations()).as_ref(), Some(&of_request));

    if !world.is_embedded() {
        return;
    }
    let text = world.kubectl().run("get --raw /metrics").await.ok();
    let has = |line: &str| assert!(text.lines().any(|found| found.starts_with(line)), "{line} is not in {text}");
    let labels = r#"promise="thing",resource="mine""#;
    has(&format!(
        r#"kratix_workplacement_writes_total{{result="success",{labels},destination="worker-1",pipeline="configure"}} 1"#
    ));
    has(&format!(
        r#"kratix_workplacement_outcomes_total{{result="scheduled",{labels},namespace="default",destination="worker-1"}} "#
    ));
    has(r#"kratix_statestore_queue_length{kind="GitStateStore",name="default"} 0"#);
    has("embedded_apiserver_writes_total");
}

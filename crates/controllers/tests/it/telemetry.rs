//! Traces and metrics of running controllers, as a collector receives them. `06-operations.md` §10.

mod collector;

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use kratix_api::{Destination, GitStateStore, Work, WorkPlacement, compression, condition, keys};
use kratix_testing::wait;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value, json};
use tempfile::TempDir;

use self::collector::{Collector, attributes};
use crate::world::{NAME, World, typed, workflows};

const SCOPE: &str = "github.com/syntasso/kratix/internal/telemetry";
/// What a workflow pod hands on.
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

struct Scene {
    world: World,
    collector: Collector,
    _repository: TempDir,
}

impl Scene {
    /// Starts controllers with this `telemetry` in their ConfigMap, in which `COLLECTOR` stands for the collector's address.
    async fn start(telemetry: &str) -> Self {
        let mut world = World::start().await;
        world.stop_controllers().await;
        let collector = Collector::start().await;
        configure(&world, &telemetry.replace("COLLECTOR", &collector.address.to_string())).await;
        let repository = tempfile::tempdir().unwrap();
        let path = repository.path().join("state.git");
        kratix_state_store::init_bare(&path, "main").unwrap();
        let stores = Api::<GitStateStore>::all(world.client_of("user"));
        let store = json!({
            "apiVersion": keys::API_VERSION, "kind": "GitStateStore", "metadata": { "name": "store" },
            "spec": { "url": format!("file://{}", path.display()), "branch": "main" },
        });
        stores.create(&PostParams::default(), &typed(store)).await.unwrap();
        let destinations = Api::<Destination>::all(world.client_of("user"));
        let destination = json!({
            "apiVersion": keys::API_VERSION, "kind": "Destination", "metadata": { "name": "here" },
            "spec": {
                "path": "here", "stateStoreRef": { "kind": "GitStateStore", "name": "store" },
                "filepath": { "mode": "nestedByMetadata" },
            },
        });
        destinations.create(&PostParams::default(), &typed(destination)).await.unwrap();
        world.start_controllers().await;
        Self { world, collector, _repository: repository }
    }

    fn works(&self) -> Api<Work> {
        Api::namespaced(self.world.client_of("user"), "default")
    }

    fn placements(&self) -> Api<WorkPlacement> {
        Api::namespaced(self.world.client_of("user"), "default")
    }

    /// Creates a Work of a request, as the container of a workflow pod does, and waits until its files are written.
    async fn deliver(&self, name: &str, annotations: Value) -> (Work, WorkPlacement) {
        let work = json!({
            "apiVersion": keys::API_VERSION, "kind": "Work",
            "metadata": {
                "name": name, "namespace": "default", "annotations": annotations,
                "finalizers": [keys::FINALIZER_WORK_CLEANUP],
                "labels": { keys::PROMISE_NAME: "redis", keys::PIPELINE_NAME: "configure" },
            },
            "spec": { "promiseName": "redis", "resourceName": name, "workloadGroups": groups("a: 1") },
        });
        self.works().create(&PostParams::default(), &typed(work)).await.unwrap();
        self.written(name, 1).await
    }

    /// Waits until everything about a generation of the Work is said.
    async fn written(&self, name: &str, generation: i64) -> (Work, WorkPlacement) {
        let work = wait::until(&self.works(), name, "the Work to be ready", |work: &Work| {
            let conditions = work.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            condition::find(conditions, condition::READY).is_some_and(|ready| {
                ready.status == condition::Status::True && ready.observed_generation == Some(generation)
            })
        })
        .await;
        let of_work = watcher::Config::default().labels(&format!("{}={name}", keys::WORK));
        let placement = wait::any(&self.placements(), of_work, "its placement", |_: &WorkPlacement| true).await;
        (work, placement)
    }

    async fn at_rest(&self) {
        wait::poll("the controllers to be at rest", || async {
            if self.world.is_at_rest() { Ok(()) } else { Err("busy".to_owned()) }
        })
        .await;
    }

    /// Stops the controllers once no pass runs any more, which sends everything.
    async fn stop(&mut self) {
        self.at_rest().await;
        self.world.stop_controllers().await;
    }
}

async fn configure(world: &World, telemetry: &str) {
    let config_maps = Api::<ConfigMap>::namespaced(world.client_of("user"), keys::SYSTEM_NAMESPACE);
    let config_map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": keys::CONFIG_MAP },
        "data": { keys::CONFIG_KEY: telemetry },
    });
    let params = PatchParams::apply("user").force();
    config_maps.patch(keys::CONFIG_MAP, &params, &Patch::Apply(config_map)).await.unwrap();
}

fn groups(content: &str) -> Value {
    json!([{
        "id": "5058f1af8388633f609cadb75a75dc9d", "directory": ".",
        "workloads": [{ "filepath": "a.yaml", "content": compression::compress(content.as_bytes()) }],
    }])
}

fn trace_of(annotations: &BTreeMap<String, String>) -> [Option<&str>; 3] {
    [keys::TRACE_PARENT, keys::TRACE_TIMESTAMP, keys::TRACE_GENERATION]
        .map(|key| annotations.get(key).map(String::as_str))
}

/// Trace and span of a `traceparent`.
fn ids(annotations: &BTreeMap<String, String>) -> (String, String) {
    let parent = annotations[keys::TRACE_PARENT].split('-').collect::<Vec<_>>();
    (parent[1].to_owned(), parent[2].to_owned())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn by_id<'a>(spans: &'a [Span], id: &str) -> &'a Span {
    spans.iter().find(|span| hex(&span.span_id) == id).unwrap_or_else(|| panic!("no span {id} in {spans:#?}"))
}

/// What a delivered Work must have told the collector.
fn check_delivery(scene: &Scene, work: &Work, placement: &WorkPlacement) {
    let collector = &scene.collector;
    let (trace, span) = ids(work.annotations());
    let roots = collector.spans("x/redis/WorkReconcile");
    let root = by_id(&roots, &span);
    assert_eq!((hex(&root.trace_id), root.parent_span_id.len()), (trace.clone(), 0), "a trace begins with the Work");
    assert_eq!(root.kind, 2, "SERVER");
    let told = attributes(&root.attributes);
    let told: Vec<_> = told.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(
        told,
        [
            "kratix.action=create",
            "kratix.promise.name=redis",
            "kratix.work.name=x",
            "kratix.work.namespace=default",
            "kratix.work.resource_request=true",
            "kratix.work.resource_request.name=x",
        ]
    );
    let tracer = |name: &str| {
        collector.arrived(|arrived| arrived.spans.iter().find(|(_, span)| span.name == name).map(|(of, _)| of.clone()))
    };
    assert_eq!(tracer("x/redis/WorkReconcile").as_deref(), Some("work-controller"));
    assert_eq!(tracer("x/redis/WorkPlacementReconcile").as_deref(), Some("workplacement-controller"));

    // The placement is part of it, from its first pass on.
    assert_eq!(ids(placement.annotations()), (trace.clone(), span.clone()));
    assert_eq!(trace_of(placement.annotations())[2], Some("1"));
    let passes = collector.spans("x/redis/WorkPlacementReconcile");
    assert!(!passes.is_empty());
    for pass in &passes {
        assert_eq!((hex(&pass.trace_id), hex(&pass.parent_span_id)), (trace.clone(), span.clone()));
    }
    let created = collector.spans("k8s POST /apis/platform.kratix.io/v1alpha1/namespaces/default/workplacements");
    let [created] = &created[..] else { panic!("{created:#?}") };
    assert_eq!((created.kind, hex(&created.parent_span_id)), (3, span), "CLIENT");
    assert_eq!(attributes(&created.attributes)["http.response.status_code"], "201");

    let of = |name: &str| {
        collector.arrived(|arrived| {
            let of_metric = arrived.series.iter().filter(|(series, _)| series.starts_with(&format!("{SCOPE} {name} ")));
            of_metric
                .map(|(series, value)| (series[SCOPE.len() + name.len() + 2..].to_owned(), *value))
                .collect::<Vec<_>>()
        })
    };
    let written = "destination=here pipeline=configure promise=redis resource=x result=success";
    assert_eq!(of("kratix_workplacement_writes_total"), [(written.to_owned(), 1)]);
    let outcomes = of("kratix_workplacement_outcomes_total");
    let scheduled = "destination=here namespace=default promise=redis resource=x result=scheduled";
    assert!(matches!(&outcomes[..], [(series, passes)] if series == scheduled && *passes > 0), "{outcomes:?}");
    let resource = collector.arrived(|arrived| arrived.resource.clone());
    assert_eq!(resource["service.name"], "kratix-controller-manager");
    assert_eq!(resource["process.pid"], std::process::id().to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_receives_spans_and_counters_over_grpc() {
    let telemetry = "telemetry: {endpoint: COLLECTOR, insecure: true, headers: {x-token: ' secret '}}";
    let mut scene = Scene::start(telemetry).await;
    let (work, placement) = scene.deliver("x", json!({})).await;
    scene.stop().await;
    check_delivery(&scene, &work, &placement);
    scene.collector.arrived(|arrived| {
        for (path, headers) in &arrived.requests {
            assert_eq!(headers["x-token"], "secret", "{path}");
        }
        assert!(arrived.connections > 0);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_receives_spans_and_counters_over_http() {
    let telemetry = "telemetry: {endpoint: COLLECTOR, insecure: true, protocol: http, headers: {x-token: secret}}";
    let mut scene = Scene::start(telemetry).await;
    let (work, placement) = scene.deliver("x", json!({})).await;
    scene.stop().await;
    check_delivery(&scene, &work, &placement);
    scene.collector.arrived(|arrived| {
        let mut paths: Vec<&str> = arrived.requests.iter().map(|(path, _)| path.as_str()).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths, ["/v1/metrics", "/v1/traces"]);
        assert!(arrived.requests.iter().all(|(_, headers)| headers["x-token"] == "secret"));
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_switched_off_is_neither_noted_nor_sent() {
    let off = "telemetry: {endpoint: COLLECTOR, insecure: true, traces: {enabled: false}, metrics: {enabled: false}}";
    for telemetry in [off, "logging: {}"] {
        let mut scene = Scene::start(telemetry).await;
        let (work, placement) = scene.deliver("x", json!({})).await;
        scene.stop().await;
        for annotations in [work.annotations(), placement.annotations()] {
            assert_eq!(trace_of(annotations), [None; 3], "{telemetry}");
        }
        scene.collector.arrived(|arrived| assert_eq!(arrived.connections, 0, "{telemetry}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_signal_is_switched_by_itself() {
    let traces = "telemetry: {endpoint: COLLECTOR, insecure: true, metrics: {enabled: false}}";
    let mut scene = Scene::start(traces).await;
    scene.deliver("x", json!({})).await;
    scene.stop().await;
    scene.collector.arrived(|arrived| assert!(!arrived.spans.is_empty() && arrived.series.is_empty()));

    let metrics = "telemetry: {endpoint: COLLECTOR, insecure: true, traces: {enabled: false}}";
    let mut scene = Scene::start(metrics).await;
    let (work, _) = scene.deliver("x", json!({})).await;
    scene.stop().await;
    assert_eq!(trace_of(work.annotations()), [None; 3]);
    scene.collector.arrived(|arrived| assert!(arrived.spans.is_empty() && !arrived.series.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_endpoint_traces_are_noted_and_nothing_is_sent() {
    let mut scene = Scene::start("telemetry: {}").await;
    let (work, placement) = scene.deliver("x", json!({})).await;
    scene.stop().await;
    assert_eq!(ids(work.annotations()), ids(placement.annotations()));
    scene.collector.arrived(|arrived| assert_eq!(arrived.connections, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_cannot_be_reached_holds_nothing_up() {
    // Nobody listens on port 1.
    let mut scene = Scene::start("telemetry: {endpoint: '127.0.0.1:1', insecure: true}").await;
    scene.deliver("x", json!({})).await;
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn weakness_31_the_trace_of_a_workflow_pod_reaches_the_store_and_costs_no_write() {
    let mut writes = Vec::new();
    for telemetry in ["logging: {}", "telemetry: {endpoint: COLLECTOR, insecure: true}"] {
        let mut scene = Scene::start(telemetry).await;
        // A placement is written only at a Destination that is ready: what this costs has been paid then.
        scene.deliver("first", json!({})).await;
        scene.at_rest().await;
        let before = scene.world.writes();
        let began = jiff::Timestamp::now().to_string();
        let trace = json!({
            keys::TRACE_PARENT: PARENT, keys::TRACE_TIMESTAMP: began, keys::TRACE_GENERATION: "1",
        });
        let (work, placement) = scene.deliver("x", trace).await;
        scene.at_rest().await;
        let after = scene.world.writes();
        let made = after.into_iter().map(|(kind, count)| (kind.clone(), count - before.get(&kind).unwrap_or(&0)));
        writes.push(made.filter(|(kind, count)| *count > 0 && !kind.contains("events")).collect::<BTreeMap<_, _>>());
        assert_eq!(work.annotations()[keys::TRACE_PARENT], PARENT, "a trace that goes on is left alone");
        let (trace, _) = ids(placement.annotations());
        assert_eq!(trace, "0af7651916cd43dd8448eb211c80319c", "{telemetry}");
        assert_eq!(trace_of(placement.annotations())[1], Some(began.as_str()));
        scene.stop().await;
        let passes = scene.collector.spans("x/redis/WorkReconcile");
        assert!(passes.iter().all(|pass| hex(&pass.parent_span_id) == "b7ad6b7169203331"));
        let passes = scene.collector.spans("x/redis/WorkPlacementReconcile");
        assert!(passes.iter().all(|pass| hex(&pass.trace_id) == trace));
    }
    assert_eq!(writes[0], writes[1], "tracing on costs as many writes as off");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_content_hands_its_trace_over_to_the_placement_that_exists() {
    let mut scene = Scene::start("telemetry: {endpoint: COLLECTOR, insecure: true}").await;
    let (_, first) = scene.deliver("x", json!({})).await;
    let now = jiff::Timestamp::now().to_string();
    let trace = json!({ keys::TRACE_PARENT: PARENT, keys::TRACE_TIMESTAMP: now, keys::TRACE_GENERATION: "2" });
    let patch = json!({ "metadata": { "annotations": trace }, "spec": { "workloadGroups": groups("a: 2") } });
    scene.works().patch("x", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    let (_, second) = scene.written("x", 2).await;
    assert_ne!(ids(first.annotations()).0, ids(second.annotations()).0);
    assert_eq!(ids(second.annotations()).0, "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(trace_of(second.annotations())[2], Some("2"));
    assert_eq!(second.metadata.generation, Some(2));
    scene.stop().await;
    let of_first = ids(first.annotations()).0;
    let passes = scene.collector.spans("x/redis/WorkPlacementReconcile");
    let traces: std::collections::BTreeSet<String> = passes.iter().map(|pass| hex(&pass.trace_id)).collect();
    assert_eq!(traces, [of_first, ids(second.annotations()).0].into(), "no pass begins a trace of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_hands_its_trace_to_its_job_and_pod() {
    let mut scene = Scene::start("telemetry: {endpoint: COLLECTOR, insecure: true}").await;
    scene.world.promise(workflows("")).await;
    scene.world.request("x").await;
    let job: Job = scene.world.job("default").await;
    let request = wait::until(&scene.world.requests(), "x", "its trace", |request| {
        request.annotations().contains_key(keys::TRACE_PARENT)
    })
    .await;
    let pod = job.spec.clone().unwrap().template.metadata.unwrap();
    for annotations in [job.annotations(), &pod.annotations.unwrap()] {
        assert_eq!(trace_of(annotations), trace_of(request.annotations()));
    }
    scene.stop().await;
    let (_, span) = ids(request.annotations());
    let name = format!("{NAME}/DynamicResourceRequestReconcile");
    by_id(&scene.collector.spans(&name), &span);
    assert!(!scene.collector.spans(&format!("{NAME}/PromiseReconcile")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_pass_says_so_on_its_span() {
    let mut scene = Scene::start("telemetry: {endpoint: COLLECTOR, insecure: true}").await;
    scene.world.promise(workflows("absent")).await;
    scene.world.request("x").await;
    scene.world.told("x", condition::RECONCILED, "WriteRefused").await;
    scene.stop().await;
    let passes = scene.collector.spans(&format!("{NAME}/DynamicResourceRequestReconcile"));
    let failed = |pass: &&Span| pass.status.as_ref().is_some_and(|status| status.message.contains("absent"));
    let failed = passes.iter().find(failed).unwrap_or_else(|| panic!("{passes:#?}"));
    assert_eq!(failed.status.as_ref().unwrap().code, 2, "Error");
    assert_eq!(failed.events[0].name, "exception");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_configuration_switches_telemetry_without_a_restart() {
    let mut scene = Scene::start("logging: {}").await;
    let (work, _) = scene.deliver("before", json!({})).await;
    assert_eq!(trace_of(work.annotations()), [None; 3]);
    let telemetry = format!("telemetry: {{endpoint: '{}', insecure: true}}", scene.collector.address);
    configure(&scene.world, &telemetry).await;
    let mut number = 0;
    loop {
        number += 1;
        let (work, _) = scene.deliver(&format!("x{number}"), json!({})).await;
        if work.annotations().contains_key(keys::TRACE_PARENT) {
            break;
        }
        assert!(number < 100, "the configuration is not followed");
    }
    // Of the one before, the first pass may have begun when there was nobody to tell of it.
    let name = format!("x{}", number + 1);
    scene.deliver(&name, json!({})).await;
    configure(&scene.world, "logging: {}").await;
    let name = format!("{name}/redis/WorkReconcile");
    wait::poll("what is left to be sent", || async {
        let series = scene.collector.arrived(|arrived| arrived.series.clone());
        let length = series.get(&format!("{SCOPE} kratix_statestore_queue_length kind=GitStateStore name=store"));
        let has_spans = !scene.collector.spans(&name).is_empty();
        if length == Some(&0) && has_spans { Ok(()) } else { Err(format!("{series:?}, spans: {has_spans}")) }
    })
    .await;
    scene.stop().await;
}

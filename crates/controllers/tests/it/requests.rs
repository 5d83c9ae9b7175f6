//! What one request costs, and what is told of it, from asking to files.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::events::v1::Event;
use kratix_api::{ResourceBinding, condition, keys};
use kratix_testing::simulated_node::{Outcome, SimulatedNode};
use kratix_testing::wait;
use kube::api::{ListParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, Client};
use serde_json::json;
use tower::ServiceExt;

use crate::world::{World, typed, workflows};

/// §17: each is told once, in one Event of its own; all of them, however many there are to tell at a time.
const TOLD: [&str; 9] = [
    "AllWorkplacementsScheduled",
    "BindingCreated",
    "PipelineStarted",
    "ReconcileStarted",
    "ReconcileSucceeded",
    "ResourceBindingVersionUpdated",
    "WorkloadsWrittenToStateStore",
    "WorkplacementReconciled",
    "WorksSucceeded",
];
const REQUESTS: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_costs_few_writes_and_everything_is_told_once() {
    let world = World::start().await;
    let directory = tempfile::tempdir().unwrap();
    let repository = directory.path().join("state.git");
    kratix_state_store::init_bare(&repository, "main").unwrap();
    world.add_git_store("store", &format!("file://{}", repository.display()), json!({})).await;
    world.add_destination("worker", ("GitStateStore", "store"), "nestedByMetadata", json!({})).await;
    world.promise(workflows("")).await;
    let _node = SimulatedNode::builder(world.client_of("node")).start(|stage| {
        stage.output("a.yaml", "a: b\n");
        Outcome::Succeeded
    });
    let all_done = async |names: &[String]| {
        for name in names {
            world.told(name, condition::RECONCILED, "Reconciled").await;
        }
        let bindings = Api::<ResourceBinding>::namespaced(world.client.clone(), "default");
        for name in names {
            let of_request = watcher::Config::default().labels(&format!("{}={name}", keys::RESOURCE_NAME));
            wait::any(&bindings, of_request, "the binding to know its version", |binding: &ResourceBinding| {
                binding.status.as_ref().is_some_and(|status| !status.last_applied_version.is_empty())
            })
            .await;
        }
    };
    // Accounts and roles are made for the first one.
    world.request("first").await;
    all_done(&["first".to_owned()]).await;
    let before = world.writes();

    let names: Vec<String> = (0..REQUESTS).map(|at| format!("request-{at}")).collect();
    for name in &names {
        world.request(name).await;
    }
    all_done(&names).await;
    let is_of = |object: &str| names.iter().any(|name| object == name || object.starts_with(&format!("env-{name}-")));
    let expected: BTreeMap<&str, usize> = TOLD.iter().map(|reason| (*reason, REQUESTS)).collect();
    wait::poll("everything to be told", || async {
        let events = Api::<Event>::namespaced(world.user.clone(), "default");
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        for event in events.list(&ListParams::default()).await.unwrap() {
            let about = event.regarding.as_ref().and_then(|object| object.name.clone()).unwrap_or_default();
            if is_of(&about) {
                *found.entry(event.reason.unwrap_or_default()).or_default() += 1;
            }
        }
        let told = found.iter().map(|(reason, count)| (reason.as_str(), *count)).collect::<BTreeMap<_, _>>();
        if told == expected { Ok(()) } else { Err(format!("{found:#?}")) }
    })
    .await;

    let after = world.writes();
    let made = |kind: &str| after.get(kind).copied().unwrap_or(0) - before.get(kind).copied().unwrap_or(0);
    let each = u64::try_from(REQUESTS).unwrap();
    for kind in [
        "create jobs.batch",
        "create resourcebindings.platform.kratix.io",
        "create workplacements.platform.kratix.io",
        // Label and finalizers are one write.
        "patch envs.example.org",
        "patch resourcebindings.platform.kratix.io/status",
    ] {
        // A write that conflicts is made again.
        assert!((each..=each + each / 4).contains(&made(kind)), "{kind}: {} for {each} requests", made(kind));
    }
    // Running and reconciled; in between, what a slow machine gives time to say.
    let said = made("patch envs.example.org/status");
    assert!((2 * each..=4 * each).contains(&said), "{said} statuses of {each} requests");
}

/// 02 §5.1: no cache of the Promise shows an account that is not its own.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_of_somebody_else_is_looked_for_and_not_made_again_with_each_start() {
    let mut world = World::start().await;
    world.stop_controllers().await;
    let (service, asked) = (world.service_of("admin"), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&asked);
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        if request.method() == http::Method::POST && request.uri().path().ends_with("/serviceaccounts") {
            counted.fetch_add(1, Ordering::Relaxed);
        }
        service.clone().oneshot(request)
    });
    let controllers = world.run_controllers(Client::new(service, "default")).await;
    let accounts = Api::<ServiceAccount>::namespaced(world.user.clone(), "default");
    for (name, labels) in [("users", json!({})), ("others", json!({ keys::PROMISE_NAME: "another" }))] {
        let metadata = json!({ "name": name, "namespace": "default", "labels": labels });
        let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata });
        accounts.create(&PostParams::default(), &typed(account)).await.unwrap();
    }
    let mut workflows = workflows("");
    let mut second = workflows["resource"]["configure"][0].clone();
    workflows["resource"]["configure"][0]["spec"]["rbac"] = json!({ "serviceAccount": "users" });
    second["metadata"]["name"] = "second".into();
    second["spec"]["rbac"] = json!({ "serviceAccount": "others" });
    workflows["resource"]["configure"].as_array_mut().unwrap().push(second);
    world.promise(workflows).await;
    let _node = SimulatedNode::builder(world.client_of("node")).start(|_| Outcome::Succeeded);
    for name in ["a", "b"] {
        world.request(name).await;
        world.told(name, condition::CONFIGURE_WORKFLOW_COMPLETED, "PipelinesExecutedSuccessfully").await;
    }
    assert_eq!(world.writes().get("create jobs.batch"), Some(&4));
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    controllers.stop().await;
}

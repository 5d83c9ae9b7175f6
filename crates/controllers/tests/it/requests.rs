//! What one request costs, and what is told of it, from asking to files.

use std::collections::BTreeMap;

use k8s_openapi::api::events::v1::Event;
use kratix_api::{ResourceBinding, condition, keys};
use kratix_testing::simulated_node::{Outcome, SimulatedNode};
use kratix_testing::wait;
use kube::Api;
use kube::api::ListParams;
use kube::runtime::watcher;
use serde_json::json;

use crate::world::{World, workflows};

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

//! The life of requests on real input: from `kubectl apply` to a synced worker, and back to nothing.

use kratix_testing::archive::Entry;
use kratix_testing::wait;
use kube::Api;
use kube::api::{DynamicObject, ListParams};

use crate::world::{World, condition_of, custom, is_reconciled, promise, reference, request};

const REDIS_IMAGE: &str = "ghcr.io/syntasso/kratix-marketplace/redis-configure-pipeline:v0.1.0";

/// What the published image does, as far as its documents tell.
const REDIS_SCRIPT: &str = r#"
if [ "$KRATIX_WORKFLOW_TYPE" = promise ]; then
    cp /documents/dependencies/* /kratix/output/
    exit 0
fi
object=/kratix/input/object.yaml
name=$(awk '/^metadata:/ {m=1; next} /^[^ ]/ {m=0} m && $1 == "name:" {print $2; exit}' $object)
size=$(awk '/^spec:/ {s=1; next} /^[^ ]/ {s=0} s && $1 == "size:" {print $2; exit}' $object)
replicas=1
[ "$size" = large ] && replicas=3
sed -e "s/NAME_PLACEHOLDER/$name/" -e "s/replicas: .*/replicas: $replicas/" \
    /documents/redis-instance.yaml > /kratix/output/redis-instance.yaml
"#;

fn redis_failovers(world: &World) -> Api<DynamicObject> {
    custom(world.worker(), "databases.spotahome.com", "v1", "RedisFailover", "redisfailovers", "default")
}

fn replicas(object: &DynamicObject) -> Option<i64> {
    object.data.pointer("/spec/redis/replicas")?.as_i64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_lives_its_whole_life_as_published() {
    let (Some(redis), Some(asked), Some(instance), Some(operator), Some(crd)) = (
        reference("marketplace/redis/promise.yaml"),
        reference("marketplace/redis/resource-request.yaml"),
        reference("marketplace/redis/documents/redis-instance.yaml"),
        reference("marketplace/redis/documents/dependencies/all-redis-operator-resources.yaml"),
        reference("marketplace/redis/documents/dependencies/databases.spotahome.com_redisfailovers.yaml"),
    ) else {
        return;
    };
    let world = World::start().await;
    world
        .load_image(
            REDIS_IMAGE,
            REDIS_SCRIPT,
            &[
                Entry::file("documents/redis-instance.yaml", instance),
                Entry::file("documents/dependencies/all-redis-operator-resources.yaml", operator),
                Entry::file("documents/dependencies/databases.spotahome.com_redisfailovers.yaml", crd),
            ],
        )
        .await;

    world.apply(&redis).await;
    world.promise_available("redis").await;
    world.apply(&asked).await;
    let requests = world.requests("marketplace.kratix.io", "v1alpha1", "redis", "redis", "default");
    let settled = wait::until(&requests, "example", "the request to be reconciled", is_reconciled).await;
    assert_eq!(settled.data.pointer("/status/message").unwrap(), "Resource requested");
    assert_eq!(settled.data.pointer("/status/observedGeneration").unwrap(), 1);

    let file = "worker-1/resources/default/redis/example/instance-configure/5058f/redis-instance.yaml";
    let files = world.files().await;
    assert!(files.contains(&file.to_owned()), "{files:#?}");
    let dependencies =
        "worker-1/dependencies/redis/promise-configure/5058f/databases.spotahome.com_redisfailovers.yaml";
    assert!(files.contains(&dependencies.to_owned()), "{files:#?}");

    let works = world.works("default").list(&ListParams::default()).await.unwrap().items;
    assert_eq!(works.len(), 1);
    let conditions = &works[0].status.as_ref().unwrap().conditions;
    assert_eq!(
        condition_of(conditions, "ScheduleSucceeded"),
        "True/AllWorkplacementsScheduled/All workplacements scheduled successfully"
    );
    assert_eq!(condition_of(conditions, "Ready"), "True/AllWorkplacementsScheduled/Ready");
    let placements = world.placements("default").list(&ListParams::default()).await.unwrap().items;
    assert_eq!(placements.len(), 1);
    let status = placements[0].status.as_ref().unwrap();
    assert_eq!(
        condition_of(&status.conditions, "WriteSucceeded"),
        "True/WorkloadsWrittenToStateStore/Workloads written to State Store"
    );
    assert_eq!(condition_of(&status.conditions, "Ready"), "True/WorkloadsWrittenToTargetDestination/Ready");
    assert_eq!(status.version_id.len(), 40);

    let failovers = redis_failovers(&world);
    wait::until(&failovers, "example", "one replica on the worker", |object| replicas(object) == Some(1)).await;

    let kubectl = world.kubectl();
    kubectl
        .exec(&["patch", "redis", "example", "--type", "merge", "-p", r#"{"spec":{"size":"large"}}"#], None)
        .await
        .ok();
    wait::until(&failovers, "example", "three replicas on the worker", |object| replicas(object) == Some(3)).await;

    kubectl.run("delete redis example --timeout=60s").await.ok();
    world.files_gone("worker-1/resources/default/").await;
    wait::gone(&failovers, "example").await;

    kubectl.run("delete promise redis --timeout=60s").await.ok();
    world.files_gone("worker-1/dependencies/redis").await;
    nothing_is_left(&world, "redis").await;
    let crds = world.worker();
    let crds: Api<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition> =
        Api::all(crds);
    wait::gone(&crds, "redisfailovers.databases.spotahome.com").await;
}

/// Nothing that Kratix made for a Promise is there any more.
pub(crate) async fn nothing_is_left(world: &World, promise: &str) {
    let kinds = "promises,promiserevisions,works,workplacements,resourcebindings,jobs,pods,serviceaccounts,configmaps,\
                 roles,rolebindings,clusterroles,clusterrolebindings,customresourcedefinitions";
    wait::poll("everything of the Promise to go", || async {
        let selector = format!("kratix.io/promise-name={promise}");
        let left = world.kubectl().exec(&["get", kinds, "-A", "-o", "name", "-l", &selector], None).await.ok();
        if left.trim().is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_one_name_in_two_namespaces_do_not_touch_each_other() {
    let world = World::start().await;
    let script = "echo \"kind: ConfigMap\napiVersion: v1\nmetadata: {name: $KRATIX_OBJECT_NAMESPACE-x, namespace: default}\" \
                  > /kratix/output/file.yaml";
    world.apply(&promise("thing", "Thing", &script.replace('\n', "\\n").replace("echo", "printf"))).await;
    world.promise_available("thing").await;
    world.kubectl().run("create namespace other").await.ok();
    world.apply(&request("Thing", "default", "x")).await;
    world.apply(&request("Thing", "other", "x")).await;
    let (here, there) = (
        world.requests("test.kratix.io", "v1", "Thing", "things", "default"),
        world.requests("test.kratix.io", "v1", "Thing", "things", "other"),
    );
    wait::until(&here, "x", "default/x to be reconciled", is_reconciled).await;
    let before = wait::until(&there, "x", "other/x to be reconciled", is_reconciled).await;
    let jobs_before = world.jobs("other").list(&ListParams::default()).await.unwrap().items.len();
    assert_eq!(jobs_before, 1);

    world.kubectl().run("delete thing x -n default --timeout=60s").await.ok();
    world.files_gone("worker-1/resources/default/").await;
    let files = world.files().await;
    assert!(files.contains(&"worker-1/resources/other/thing/x/configure/5058f/file.yaml".to_owned()), "{files:#?}");
    let after = there.get("x").await.unwrap();
    assert_eq!(after.metadata.resource_version, before.metadata.resource_version, "other/x was not touched");
    assert_eq!(world.jobs("other").list(&ListParams::default()).await.unwrap().items.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_at_once_each_get_exactly_one_of_everything() {
    const REQUESTS: usize = 20;
    let world = World::start().await;
    world.apply(&promise("thing", "Thing", "echo '{}' > /kratix/output/file.yaml")).await;
    world.promise_available("thing").await;
    let all: String =
        (0..REQUESTS).map(|n| format!("{}---\n", request("Thing", "default", &format!("r{n}")))).collect();
    world.apply(&all).await;
    let requests = world.requests("test.kratix.io", "v1", "Thing", "things", "default");
    for n in 0..REQUESTS {
        wait::until(&requests, &format!("r{n}"), "the request to be reconciled", is_reconciled).await;
    }
    assert_eq!(world.jobs("default").list(&ListParams::default()).await.unwrap().items.len(), REQUESTS);
    assert_eq!(world.works("default").list(&ListParams::default()).await.unwrap().items.len(), REQUESTS);
    assert_eq!(world.placements("default").list(&ListParams::default()).await.unwrap().items.len(), REQUESTS);
    let files = world.files().await;
    let written = files.iter().filter(|file| file.starts_with("worker-1/resources/default/thing/")).count();
    assert_eq!(written, REQUESTS, "{files:#?}");
    world.git(&["fsck", "--strict"]);
}

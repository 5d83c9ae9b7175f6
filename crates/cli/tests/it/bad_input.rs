//! Bad input: refused at once where it can be, visible where it cannot, and never lost.

use kratix_testing::wait;
use kube::Api;
use kube::api::ListParams;

use crate::world::{World, condition_in, condition_of, custom, is_reconciled, promise, request};

/// Runs one request through a pipeline and returns the world when `condition` speaks of a failure.
async fn failing(script: &str) -> World {
    let world = World::start().await;
    world.apply(&promise("thing", "Thing", script)).await;
    world.promise_available("thing").await;
    world.apply(&request("Thing", "default", "x")).await;
    let requests = world.requests("test.kratix.io", "v1", "Thing", "things", "default");
    wait::until(&requests, "x", "the workflow to fail", |request| {
        condition_in(request, "Reconciled") == "False/ConfigureWorkflowFailed/Failing"
    })
    .await;
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_container_ends_in_a_condition_an_event_and_its_log() {
    let world = failing("echo something is wrong >&2\nexit 1").await;
    assert!(world.log("x", "render").await.contains("something is wrong"));
    let requests = world.requests("test.kratix.io", "v1", "Thing", "things", "default");
    let request = requests.get("x").await.unwrap();
    assert_eq!(
        condition_in(&request, "ConfigureWorkflowCompleted"),
        "False/ConfigureWorkflowFailed/A Configure Pipeline has failed: configure"
    );
    let describe = world.kubectl().run("describe thing x").await.ok();
    assert!(describe.contains("A resource/configure Pipeline has failed: configure"), "{describe}");
    assert!(world.works("default").list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_cannot_be_delivered_fail_visibly() {
    let cases = [
        ("head -c 68157440 /dev/zero > /kratix/output/big.bin", r#"largest: "big.bin" has 68157440"#),
        ("ln -s /etc/passwd /kratix/output/link", "link"),
        ("mkdir -p /kratix/output/.git && echo x > /kratix/output/.git/config", ".git"),
        ("echo 'not: [a list' > /kratix/metadata/destination-selectors.yaml", "destination-selectors.yaml"),
    ];
    for (script, named) in cases {
        let world = failing(script).await;
        let text = world.log("x", "work-writer").await;
        assert!(text.contains(named), "{script}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_status_file_fails_visibly() {
    let world = failing("echo 'kratix: {mine: true}' > /kratix/metadata/status.yaml").await;
    let text = world.log("x", "status-writer").await;
    assert!(text.contains("'kratix' is a kratix managed status field"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn binary_files_and_no_files_are_fine() {
    let world = World::start().await;
    world.apply(&promise("thing", "Thing", "head -c 1000 /dev/urandom > /kratix/output/blob.bin")).await;
    world.apply(&promise("nothing", "Nothing", "true")).await;
    world.promise_available("thing").await;
    world.promise_available("nothing").await;
    world.apply(&request("Thing", "default", "x")).await;
    world.apply(&request("Nothing", "default", "other")).await;
    for (kind, plural, name) in [("Thing", "things", "x"), ("Nothing", "nothings", "other")] {
        let requests = world.requests("test.kratix.io", "v1", kind, plural, "default");
        wait::until(&requests, name, "the request to be reconciled", is_reconciled).await;
    }
    let files = world.files().await;
    assert!(files.contains(&"worker-1/resources/default/thing/x/configure/5058f/blob.bin".to_owned()), "{files:#?}");
    assert!(!files.iter().any(|file| file.contains("nothing")), "{files:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_promises_are_refused_at_once_with_the_documented_text() {
    let world = World::start().await;
    if !world.is_embedded() {
        return;
    }
    let valid = promise("thing", "Thing", "true");
    let cases = [
        (valid.replace("scope: Namespaced", "scope: Cluster"), "promise api needs to be namespace scoped; spec.api.spec.scope cannot be: Cluster"),
        (valid.replace("kind: CustomResourceDefinition", "kind: ConfigMap"), "CustomResourceDefinition"),
        (
            valid.replace("          storage: true", "          storage: true\n        - name: v2\n          served: true\n          storage: true\n          schema: {openAPIV3Schema: {type: object}}"),
            "storage version",
        ),
        (valid.replace("restartPolicy: Never", "restartPolicies: Never"), "json: unknown field \"restartPolicies\""),
        (valid.replace("image: kratix.local/host", "ports: []"), "json: unknown field \"ports\""),
    ];
    for (document, expected) in cases {
        assert_ne!(document, valid);
        let text = world.kubectl().apply(&document).await.refused();
        assert!(text.contains(expected), "expected {expected:?} in: {text}");
    }
    assert!(Api::<kratix_api::Promise>::all(world.hub()).list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_promises_cannot_claim_one_api() {
    let world = World::start().await;
    world.apply(&promise("thing", "Thing", "true")).await;
    world.promise_available("thing").await;
    let output = world.kubectl().apply(&promise("other", "Thing", "true")).await;
    if output.success {
        let promises = Api::<kratix_api::Promise>::all(world.hub());
        wait::until(
            &promises,
            "other",
            "the second Promise to say why it is unavailable",
            |promise: &kratix_api::Promise| {
                promise
                    .status
                    .as_ref()
                    .is_some_and(|status| condition_of(&status.conditions, "Available").starts_with("False"))
            },
        )
        .await;
    } else {
        assert!(output.stderr.contains("thing"), "{}", output.stderr);
    }
    world.kubectl().run("delete promise other --ignore-not-found --timeout=60s").await.ok();
    world.apply(&request("Thing", "default", "x")).await;
    let things = custom(world.hub(), "test.kratix.io", "v1", "Thing", "things", "default");
    wait::until(&things, "x", "the first Promise to go on serving", is_reconciled).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_fails_its_schema_names_the_field() {
    let world = World::start().await;
    world.apply(&promise("thing", "Thing", "true")).await;
    world.promise_available("thing").await;
    let text =
        world.kubectl().apply(&request("Thing", "default", "x").replace("size: small", "size: 7")).await.refused();
    assert!(text.contains("spec.size: Invalid value: \"integer\": spec.size in body must be of type string"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promise_deleted_while_its_pipeline_runs_leaves_nothing() {
    let world = World::start().await;
    world.apply(&promise("thing", "Thing", "sleep 300")).await;
    world.promise_available("thing").await;
    world.apply(&request("Thing", "default", "x")).await;
    wait::any(
        &world.jobs("default"),
        kube::runtime::watcher::Config::default(),
        "the pipeline to run",
        |job: &k8s_openapi::api::batch::v1::Job| {
            job.status.as_ref().is_some_and(|status| status.active.unwrap_or_default() > 0)
        },
    )
    .await;
    world.kubectl().run("delete promise thing --timeout=60s").await.ok();
    let left = world.kubectl().run("get jobs,pods,works,workplacements,resourcebindings -A -o name").await.ok();
    assert_eq!(left, "");
}

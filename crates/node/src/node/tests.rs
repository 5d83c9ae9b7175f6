//! A node whose runtime misbehaves.

use std::sync::Arc;
use std::time::Duration;

use embedded_apiserver::{Server, User};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use serde_json::json;

use super::*;
use crate::runtime::{Container, Prepared, Running, StartError};

const DEADLINE: Duration = Duration::from_secs(60);

/// Never comes to an end with containers of pods that are called so.
struct Hanging(Arc<dyn Runtime>);

#[async_trait::async_trait]
impl Runtime for Hanging {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    async fn prepare(&self, image: &str) -> Result<Prepared, image::Error> {
        self.0.prepare(image).await
    }

    async fn start(&self, container: Container) -> Result<Running, StartError> {
        if container.hostname.starts_with("hanging") {
            return std::future::pending().await;
        }
        self.0.start(container).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_hangs_can_be_called_off_and_gives_its_place_back() {
    let server = Server::builder().build().await.unwrap();
    let client = Client::new(server.service(User::admin("test")), "default");
    let directory = tempfile::tempdir().unwrap();
    let mut builder = Node::builder(client.clone())
        .data_dir(directory.path())
        .host_image("kratix.local/host")
        .stop_deadline(Duration::from_secs(2));
    builder.disturb = Some(|runtime| Arc::new(Hanging(runtime)));
    let node = builder.start().await.unwrap();
    let api: Api<Pod> = Api::default_namespaced(client);
    let create = async |name: String| {
        let main = json!({"name": "main", "image": "kratix.local/host", "command": ["true"]});
        let spec = json!({"nodeName": "embedded", "restartPolicy": "Never", "containers": [main]});
        let pod = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
        api.create(&PostParams::default(), &pod).await.unwrap();
    };
    // As many as may be in the middle of being started at once.
    let places = node.context().starts.available_permits();
    let names: Vec<String> = (0..places.min(node.context().max_pods - 1)).map(|n| format!("hanging-{n}")).collect();
    for name in &names {
        create(name.clone()).await;
    }
    let begun = async {
        while node.context().starts.available_permits() + names.len() > places {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, begun).await.expect("all of them hang");
    create("healthy".into()).await;
    for name in &names {
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }
    for name in &names {
        let gone = await_condition(api.clone(), name, |pod: Option<&Pod>| pod.is_none());
        tokio::time::timeout(DEADLINE, gone).await.expect("a hanging pod can be deleted").unwrap();
    }
    let succeeded = |pod: Option<&Pod>| {
        pod.is_some_and(|pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Succeeded"))
    };
    let healthy = await_condition(api.clone(), "healthy", succeeded);
    tokio::time::timeout(DEADLINE, healthy).await.expect("the others get their turn").unwrap();
    assert_eq!(node.context().starts.available_permits(), places);

    // A node that stops does not wait for it either.
    create("hanging".into()).await;
    tokio::time::timeout(DEADLINE, async {
        while node.context().starts.available_permits() == places {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it hangs");
    let begun = std::time::Instant::now();
    node.shutdown().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

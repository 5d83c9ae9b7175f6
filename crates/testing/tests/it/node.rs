//! The simulated node does to Jobs what a controller and a kubelet do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use embedded_apiserver::{Server, User};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kratix_testing::simulated_node::{Outcome, SimulatedNode, Stage};
use kratix_testing::wait;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;

struct Scene {
    jobs: Api<Job>,
    client: Client,
    server: Server,
}

impl Scene {
    async fn start() -> Self {
        let server = Server::builder().build().await.unwrap();
        let client = Client::new(server.service(User::admin("test")), "default");
        Self { jobs: Api::default_namespaced(client.clone()), client, server }
    }

    fn node(&self, play: impl Fn(&Stage<'_>) -> Outcome + Send + Sync + 'static) -> SimulatedNode {
        SimulatedNode::builder(self.client.clone()).start(play)
    }

    async fn create(&self, name: &str, backoff_limit: i32) {
        let container = |name: &str| json!({ "name": name, "image": "i" });
        let pod = json!({
            "initContainers": [container("first")], "containers": [container("second")], "restartPolicy": "OnFailure",
        });
        let job = json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": name },
            "spec": { "backoffLimit": backoff_limit, "template": { "spec": pod } },
        });
        self.jobs.create(&PostParams::default(), &serde_json::from_value(job).unwrap()).await.unwrap();
    }

    async fn is(&self, name: &str, kind: &str, status: &str) -> Job {
        wait::until(&self.jobs, name, &format!("{kind} to be {status}"), |job| {
            let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.into_iter().flatten().any(|found| found.type_ == kind && found.status == status)
        })
        .await
    }

    async fn suspend(&self, name: &str, suspend: bool) {
        let patch = Patch::Merge(json!({ "spec": { "suspend": suspend } }));
        self.jobs.patch(name, &PatchParams::default(), &patch).await.unwrap();
    }
}

#[tokio::test]
async fn a_job_runs_its_containers_in_order_and_completes() {
    let scene = Scene::start().await;
    let (seen, mut order) = tokio::sync::mpsc::channel(2);
    let node = scene.node(move |stage| {
        seen.try_send(stage.container.name.clone()).unwrap();
        Outcome::Succeeded
    });
    scene.create("a", 1).await;
    let status = scene.is("a", "Complete", "True").await.status.unwrap();
    assert_eq!((order.recv().await.unwrap(), order.recv().await.unwrap()), ("first".to_owned(), "second".to_owned()));
    assert_eq!((status.succeeded, status.failed, status.active), (Some(1), None, None));
    assert!(status.start_time.is_some() && status.completion_time.is_some());
    drop(node);
    scene.server.shutdown().await;
}

#[tokio::test]
async fn a_container_that_fails_is_run_again_until_the_limit() {
    let scene = Scene::start().await;
    let count = Arc::new(AtomicUsize::new(0));
    let failures = count.clone();
    let node = scene.node(move |stage| match stage.failures {
        0 | 1 => {
            failures.fetch_add(1, Ordering::SeqCst);
            Outcome::Failed
        }
        _ => Outcome::Succeeded,
    });
    scene.create("patient", 3).await;
    scene.is("patient", "Complete", "True").await;
    scene.create("strict", 2).await;
    let status = scene.is("strict", "Failed", "True").await.status.unwrap();
    assert_eq!((count.load(Ordering::SeqCst), status.failed, status.succeeded), (4, Some(1), None));
    drop(node);
    scene.server.shutdown().await;
}

#[tokio::test]
async fn a_job_that_is_suspended_stands_still_and_begins_anew_and_one_that_is_deleted_ends() {
    let scene = Scene::start().await;
    let (begun, mut begins) = watch::channel(0);
    let (ended, mut ends) = watch::channel(false);
    let node = scene.node(move |_| {
        begun.send_modify(|count| *count += 1);
        struct End(watch::Sender<bool>);
        impl Drop for End {
            fn drop(&mut self) {
                self.0.send_replace(true);
            }
        }
        let end = End(ended.clone());
        Outcome::Later(Box::pin(async move {
            let _end = end;
            std::future::pending::<()>().await;
        }))
    });
    scene.create("a", 1).await;
    begins.wait_for(|count| *count == 1).await.unwrap();
    scene.suspend("a", true).await;
    scene.is("a", "Suspended", "True").await;
    ends.wait_for(|ended| *ended).await.unwrap();
    scene.suspend("a", false).await;
    begins.wait_for(|count| *count == 2).await.unwrap();
    let status = scene.is("a", "Suspended", "False").await.status.unwrap();
    assert_eq!(status.active, Some(1));
    ends.borrow_and_update();
    scene.jobs.delete("a", &DeleteParams::background()).await.unwrap();
    ends.changed().await.unwrap();
    drop(node);
    scene.server.shutdown().await;
}

#[tokio::test]
async fn a_container_that_cannot_begin_has_a_pod_that_says_why_until_it_can() {
    let scene = Scene::start().await;
    let (comes, image) = watch::channel(false);
    let node = scene.node(move |stage| {
        let mut image = image.clone();
        match stage.container.name.as_str() {
            "second" if !*image.borrow_and_update() => Outcome::Waiting {
                reason: "ErrImagePull",
                message: "not found".to_owned(),
                until: Box::pin(async move { drop(image.changed().await) }),
            },
            _ => Outcome::Succeeded,
        }
    });
    scene.create("a", 1).await;
    let pods: Api<Pod> = Api::default_namespaced(scene.client.clone());
    let waits = |pod: &Pod| pod.status.as_ref().is_some_and(|status| status.container_statuses.is_some());
    let pod = wait::until(&pods, "a-waits", "the pod to say why", waits).await;
    let status = pod.status.unwrap();
    let state = status.container_statuses.unwrap()[0].state.clone().unwrap();
    assert_eq!(state.waiting.unwrap().reason.as_deref(), Some("ErrImagePull"));
    let first = status.init_container_statuses.unwrap()[0].state.clone().unwrap();
    assert_eq!(first.terminated.unwrap().exit_code, 0);
    // A Job that stands still has no pods.
    scene.suspend("a", true).await;
    wait::gone(&pods, "a-waits").await;
    scene.suspend("a", false).await;
    wait::until(&pods, "a-waits", "the pod to be made again", waits).await;
    comes.send_replace(true);
    scene.is("a", "Complete", "True").await;
    wait::gone(&pods, "a-waits").await;
    drop(node);
    scene.server.shutdown().await;
}

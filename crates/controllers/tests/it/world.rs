//! An API server with the controllers on it, and what tests ask of them.

mod api_server;
pub(crate) mod delivery;

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kratix_api::{Condition, Promise, Work, condition, keys};
use kratix_controllers::{Clock, Controllers, Options};
use kratix_testing::wait;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

use self::api_server::{ApiServer, Service};

/// Name of the Promise and of the request.
pub(crate) const NAME: &str = "env";

pub(crate) struct World {
    pub(crate) client: Client,
    /// Of a user, whose writes are counted apart from those of the controllers.
    pub(crate) user: Client,
    /// Of the controllers that are started from now on.
    pub(crate) clock: Clock,
    controllers: Option<Controllers>,
    directory: TempDir,
    server: ApiServer,
}

impl World {
    pub(crate) async fn start() -> Self {
        let server = ApiServer::start().await;
        let (client, user) = (server.client("admin"), server.client("user"));
        let crds = Api::<CustomResourceDefinition>::all(client.clone());
        for crd in kratix_api::crds() {
            crds.create(&PostParams::default(), &crd).await.unwrap();
            wait::until(&crds, &crd.name_any(), "the CRD to be served", is_established).await;
        }
        let directory = tempfile::tempdir().unwrap();
        let mut world = Self { client, user, clock: Clock::default(), controllers: None, directory, server };
        world.add_namespace(keys::SYSTEM_NAMESPACE).await;
        world.start_controllers().await;
        world
    }

    pub(crate) async fn start_controllers(&mut self) {
        self.controllers = Some(self.run_controllers(self.client.clone()).await);
    }

    /// Starts controllers that reach the API server in another way; they are the caller's to stop.
    pub(crate) async fn run_controllers(&self, client: Client) -> Controllers {
        let options = Options {
            adapter_image: "adapter".into(),
            adapter_pull_secret: None,
            cache_dir: self.directory.path().into(),
            git: kratix_core::config::GitEnvironment::default(),
            host: "test".into(),
            clock: self.clock.clone(),
        };
        Controllers::start(client, options).await
    }

    pub(crate) async fn stop_controllers(&mut self) {
        self.controllers.take().expect("the controllers run").stop().await;
    }

    /// Returns what answers a user's requests.
    pub(crate) fn service_of(&self, user: &str) -> Service {
        self.server.service(user)
    }

    /// Returns a client whose writes are counted apart from those of the controllers.
    pub(crate) fn client_of(&self, user: &str) -> Client {
        self.server.client(user)
    }

    /// Returns how many writes the controllers have made, by verb and resource.
    pub(crate) fn writes(&self) -> BTreeMap<String, u64> {
        self.server.writes("admin")
    }

    /// Returns what the controllers count, in the text format of Prometheus.
    pub(crate) fn metrics(&self) -> String {
        self.controllers.as_ref().expect("the controllers run").metrics().exposition()
    }

    pub(crate) fn is_at_rest(&self) -> bool {
        self.controllers.as_ref().is_some_and(Controllers::is_at_rest)
    }

    pub(crate) async fn add_namespace(&self, name: &str) {
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        let namespaces = Api::<Namespace>::all(self.client.clone());
        namespaces.create(&PostParams::default(), &typed(namespace)).await.unwrap();
    }

    /// Installs a Promise with one resource pipeline and waits until it takes requests.
    pub(crate) async fn promise(&self, workflows: Value) {
        let promise = json!({
            "apiVersion": keys::API_VERSION, "kind": "Promise", "metadata": { "name": NAME },
            "spec": { "api": api(), "workflows": workflows },
        });
        let promises = Api::<Promise>::all(self.client.clone());
        promises.create(&PostParams::default(), &typed(promise)).await.unwrap();
        wait::until(&promises, NAME, "the Promise to be available", |promise: &Promise| {
            let status = promise.status.as_ref();
            status
                .and_then(|status| condition::find(&status.conditions, condition::AVAILABLE))
                .is_some_and(|available| available.status == condition::Status::True)
        })
        .await;
    }

    pub(crate) async fn request(&self, name: &str) {
        let request = json!({
            "apiVersion": "example.org/v1", "kind": "Env", "metadata": { "name": name, "namespace": "default" },
            "spec": { "size": "small" },
        });
        self.requests().create(&PostParams::default(), &typed(request)).await.unwrap();
    }

    pub(crate) fn requests(&self) -> Api<DynamicObject> {
        let gvk = GroupVersionKind::gvk("example.org", "v1", "Env");
        Api::namespaced_with(self.client.clone(), "default", &ApiResource::from_gvk_with_plural(&gvk, "envs"))
    }

    pub(crate) fn crds(&self) -> Api<CustomResourceDefinition> {
        Api::all(self.client.clone())
    }

    /// Waits for a condition of a request.
    pub(crate) async fn told(&self, name: &str, r#type: &str, reason: &str) -> Condition {
        let what = format!("{type} of {name} to be {reason}");
        let find = |request: &DynamicObject| told(request, r#type).filter(|found| found.reason == reason);
        let request = wait::until(&self.requests(), name, &what, |request| find(request).is_some()).await;
        find(&request).unwrap()
    }

    /// Waits for a Job that has not ended.
    pub(crate) async fn job(&self, namespace: &str) -> Job {
        let jobs = Api::<Job>::namespaced(self.client.clone(), namespace);
        wait::any(&jobs, watcher::Config::default(), "a Job", |job: &Job| {
            job.status.as_ref().is_none_or(|status| status.conditions.is_none())
        })
        .await
    }

    /// Plays the pod of a Job and the Job controller; the Work counts as written.
    pub(crate) async fn finish(&self, job: &Job, request: &str) {
        let label = |key: &str| job.labels()[key].clone();
        let (namespace, name) = (job.namespace().unwrap(), format!("{NAME}-{request}"));
        let works = Api::<Work>::namespaced(self.client.clone(), &namespace);
        let work = json!({
            "apiVersion": keys::API_VERSION, "kind": "Work",
            "metadata": { "name": name, "namespace": namespace, "labels": {
                keys::PROMISE_NAME: NAME, keys::WORK_TYPE: "resource", keys::RESOURCE_NAME: request,
                keys::PIPELINE_NAME: label(keys::PIPELINE_NAME),
            }},
            "spec": { "promiseName": NAME, "resourceName": request, "workloadGroups": [] },
        });
        works.create(&PostParams::default(), &typed(work)).await.unwrap();
        self.complete(job).await;
    }

    /// Plays the Job controller for one whose pod has done everything.
    pub(crate) async fn complete(&self, job: &Job) {
        let time = job.metadata.creation_timestamp.clone();
        let status = json!({ "status": {
            "conditions": [
                { "type": "SuccessCriteriaMet", "status": "True", "lastTransitionTime": time },
                { "type": "Complete", "status": "True", "lastTransitionTime": time },
            ],
            "succeeded": 1, "startTime": time, "completionTime": time,
        }});
        let jobs = Api::<Job>::namespaced(self.client.clone(), &job.namespace().unwrap());
        jobs.patch_status(&job.name_any(), &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }
}

pub(crate) fn told(request: &DynamicObject, r#type: &str) -> Option<Condition> {
    let conditions = request.data.pointer("/status/conditions")?;
    let conditions: Vec<Condition> = serde_json::from_value(conditions.clone()).ok()?;
    conditions.into_iter().find(|found| found.r#type == r#type)
}

pub(crate) fn typed<K: DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).unwrap()
}

/// Returns workflows with one resource pipeline.
pub(crate) fn workflows(pipeline_namespace: &str) -> Value {
    let pipeline = json!({
        "apiVersion": keys::API_VERSION, "kind": "Pipeline", "metadata": { "name": "build" },
        "spec": { "containers": [{ "name": "a", "image": "i" }] },
    });
    json!({ "config": { "pipelineNamespace": pipeline_namespace }, "resource": { "configure": [pipeline] } })
}

fn api() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "envs.example.org" },
        "spec": {
            "group": "example.org", "scope": "Namespaced",
            "names": { "plural": "envs", "singular": "env", "kind": "Env" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": {
                "type": "object",
                "properties": { "spec": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } },
            }}}],
        },
    })
}

fn is_established(crd: &CustomResourceDefinition) -> bool {
    let conditions = crd.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|found| found.type_ == "Established" && found.status == "True")
}

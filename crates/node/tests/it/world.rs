//! An API server in memory, a node, and ways to wait for what they do.

use std::fmt::Debug;
use std::time::Duration;

use embedded_apiserver::{Server, User};
use embedded_node::{ApiAddress, Builder, LogOptions, Node, NodeHandle, StartError};
use futures::StreamExt;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{ListParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub(crate) const HOST: &str = "kratix.local/host";
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) client: Client,
    pub(crate) node: NodeHandle,
    pub(crate) directory: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|builder| builder).await
    }

    /// Makes a world unless its node cannot start.
    pub(crate) async fn try_new() -> Result<Self, StartError> {
        let server = Server::builder().build().await.unwrap();
        let client = Client::new(server.service(User::admin("test")), "default");
        let directory = tempfile::tempdir().unwrap();
        let node = builder(client.clone(), directory.path()).start().await?;
        Ok(Self { server, client, node, directory })
    }

    pub(crate) async fn with(configure: impl FnOnce(Builder) -> Builder) -> Self {
        let own = |server: &Server| Client::new(server.service(User::admin("node")), "default");
        Self::with_client(own, configure).await
    }

    /// Makes a world whose node sees the server through a client of its own.
    pub(crate) async fn with_client(
        own: impl FnOnce(&Server) -> Client,
        configure: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let server = Server::builder().build().await.unwrap();
        let client = Client::new(server.service(User::admin("test")), "default");
        let directory = tempfile::tempdir().unwrap();
        let address = ApiAddress { host: "127.0.0.1".into(), port: 6443, ca_pem: server.ca_pem().to_owned() };
        let builder = builder(own(&server), directory.path()).api_server(address);
        let node = configure(builder).start().await.unwrap();
        Self { server, client, node, directory }
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    pub(crate) async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api().create(&PostParams::default(), &object).await.unwrap()
    }

    pub(crate) async fn until<K>(&self, name: &str, what: &str, fits: impl Fn(&K) -> bool) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned
            + Send
            + 'static,
    {
        self.until_some(name, what, |object: Option<K>| object.filter(|object| fits(object))).await
    }

    pub(crate) async fn until_gone<K>(&self, name: &str)
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned
            + Send
            + 'static,
    {
        self.until_some(name, "gone", |object: Option<K>| object.is_none().then_some(())).await
    }

    async fn until_some<K, T>(&self, name: &str, what: &str, fits: impl Fn(Option<K>) -> Option<T>) -> T
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned
            + Send
            + 'static,
    {
        let mut last = None;
        let wait = async {
            let mut stream = Box::pin(watcher::watch_object(self.api::<K>(), name));
            while let Some(object) = stream.next().await {
                let Ok(object) = object else { continue };
                last = object.clone();
                if let Some(found) = fits(object) {
                    return found;
                }
            }
            panic!("the watch ended");
        };
        match tokio::time::timeout(DEADLINE, wait).await {
            Ok(found) => found,
            Err(_) => {
                let events = self.api::<Event>().list(&ListParams::default()).await.unwrap();
                let events: Vec<_> = events.iter().map(|event| (&event.reason, &event.message)).collect();
                let last = serde_json::to_string_pretty(&last).unwrap();
                panic!("{name} never became {what}; last seen: {last}; events: {events:?}")
            }
        }
    }

    pub(crate) async fn job(&self, name: &str, spec: Value) -> Job {
        self.create(json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec})).await
    }

    pub(crate) async fn pod(&self, name: &str, spec: Value) -> Pod {
        let mut spec = spec;
        spec["nodeName"] = "embedded".into();
        self.create(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})).await
    }

    pub(crate) async fn until_job(&self, name: &str, condition: &str) -> Job {
        self.until(name, condition, |job: &Job| has_condition(job, condition)).await
    }

    pub(crate) async fn until_phase(&self, name: &str, phase: &str) -> Pod {
        let fits = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some(phase);
        self.until(name, phase, fits).await
    }

    pub(crate) async fn pods(&self) -> Vec<Pod> {
        self.api::<Pod>().list(&ListParams::default()).await.unwrap().items
    }

    /// Waits for an event of that reason about an object and returns its message.
    pub(crate) async fn event(&self, object: &str, reason: &str) -> String {
        let wait = async {
            let mut events = Box::pin(watcher::watcher(self.api::<Event>(), watcher::Config::default()));
            while let Some(event) = events.next().await {
                if let Ok(watcher::Event::Apply(event) | watcher::Event::InitApply(event)) = event
                    && event.involved_object.name.as_deref() == Some(object)
                    && event.reason.as_deref() == Some(reason)
                {
                    return event.message.unwrap_or_default();
                }
            }
            panic!("the watch ended");
        };
        tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("no event {reason} about {object}"))
    }

    pub(crate) async fn log(&self, pod: &str, options: LogOptions) -> String {
        let stream = self.node.logs("default", pod, &options).unwrap();
        let chunks: Vec<_> = stream.map(|chunk| chunk.unwrap().to_vec()).collect().await;
        String::from_utf8(chunks.concat()).unwrap()
    }
}

pub(crate) fn builder(client: Client, directory: &std::path::Path) -> Builder {
    Node::builder(client)
        .data_dir(directory)
        .host_image(HOST)
        .restart_backoff(Duration::from_millis(50))
        .failure_backoff(Duration::from_millis(50))
        .stop_deadline(Duration::from_secs(2))
}

pub(crate) fn has_condition(job: &Job, kind: &str) -> bool {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == kind && condition.status == "True")
}

pub(crate) fn container(name: &str, script: &str) -> Value {
    json!({"name": name, "image": HOST, "command": ["sh", "-c", script]})
}

pub(crate) fn log_of(container: &str) -> LogOptions {
    LogOptions { container: Some(container.into()), ..LogOptions::default() }
}

/// Copies this program to where it can be run at once.
///
/// Another process does it. A file that is open for writing cannot be run ("Text file busy"), and what this process has open,
/// every process inherits for a moment that another test starts meanwhile.
pub(crate) fn copy_of_this(to: &std::path::Path) {
    let this = std::env::current_exe().unwrap();
    let copied = std::process::Command::new("cp").arg("-p").arg(this).arg(to).status().unwrap();
    assert!(copied.success(), "{} cannot be written", to.display());
}

//! The server as clients see it: through `kube` in process, and through kubectl over TLS.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

mod access;
mod crud;
mod custom;
mod durable;
mod garbage;
mod kubectl;
mod lifecycle;
mod network;
mod protocol;
mod races;
mod roles;
mod subresources;
mod watching;

use std::time::Duration;

use bytes::Bytes;
use embedded_apiserver::{Admission, Server, Storage, User};
use http_body_util::{BodyExt, Full};
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

/// How long anything may take before a test gives up on it.
const DEADLINE: Duration = Duration::from_secs(20);

/// A server in memory, and its admin.
struct World {
    server: Server,
    client: Client,
}

impl World {
    async fn new() -> Self {
        Self::on(Storage::Memory).await
    }

    async fn on(storage: Storage) -> Self {
        let server = Server::builder().storage(storage).build().await.expect("the server starts");
        let client = Client::new(server.service(User::admin("admin")), "default");
        Self { server, client }
    }

    async fn with_admission(admission: std::sync::Arc<dyn Admission>) -> Self {
        let server = Server::builder().admission(admission).build().await.expect("the server starts");
        let client = Client::new(server.service(User::admin("admin")), "default");
        Self { server, client }
    }

    /// Sends one request as the admin.
    async fn send(&self, method: &str, path: &str, body: &Value) -> Sent {
        send(&self.server, User::admin("admin"), method, path, body).await
    }

    fn api(&self, api_version: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
        Api::default_namespaced_with(self.client.clone(), &resource(api_version, kind, plural))
    }

    fn all(&self, api_version: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), &resource(api_version, kind, plural))
    }

    fn maps(&self) -> Api<DynamicObject> {
        self.api("v1", "ConfigMap", "configmaps")
    }

    fn widgets(&self) -> Api<DynamicObject> {
        self.api("example.com/v1", "Widget", "widgets")
    }

    fn crds(&self) -> Api<DynamicObject> {
        self.all("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions")
    }

    /// Installs the CRD of [`widget`]s.
    async fn with_widgets(self) -> Self {
        create(&self.crds(), widget_crd()).await.expect("the CRD is valid");
        self
    }
}

/// A reply as it is on the wire.
#[derive(Debug)]
struct Sent {
    code: u16,
    warnings: Vec<String>,
    text: String,
}

impl Sent {
    fn value(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    fn message(&self) -> String {
        self.value()["message"].as_str().unwrap_or_default().to_owned()
    }
}

/// Sends one request as `user`; `Null` is no body.
async fn send(server: &Server, user: User, method: &str, path: &str, body: &Value) -> Sent {
    let bytes = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    send_raw(server, user, method, path, Full::new(bytes)).await
}

async fn send_raw<B>(server: &Server, user: User, method: &str, path: &str, body: B) -> Sent
where
    B: hyper::body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let content_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let request = http::Request::builder().method(method).uri(path).header("content-type", content_type);
    let request = request.body(body).expect("a valid request");
    let response = tower::Service::call(&mut server.service(user), request).await.expect("it never fails");
    let (parts, body) = response.into_parts();
    let warnings = parts.headers.get_all("warning").iter().map(|one| one.to_str().expect("text").to_owned());
    let warnings = warnings.collect();
    let bytes = body.collect().await.expect("the body is whole").to_bytes();
    Sent { code: parts.status.as_u16(), warnings, text: String::from_utf8(bytes.to_vec()).expect("text") }
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "one", "image": "x"}]},
    })
}

fn resource(api_version: &str, kind: &str, plural: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

async fn create(api: &Api<DynamicObject>, object: Value) -> kube::Result<DynamicObject> {
    api.create(&PostParams::default(), &serde_json::from_value(object).expect("an object")).await
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"key": "value"}})
}

fn widget(name: &str) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": {"size": 1}})
}

fn widget_crd() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wd"], "categories": ["all"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "properties": {
                        "spec": {
                            "type": "object", "required": ["size"],
                            "properties": {
                                "size": {"type": "integer", "minimum": 1, "description": "How large it is."},
                                "color": {"type": "string", "default": "red", "enum": ["red", "blue"]},
                            },
                        },
                        "status": {"type": "object", "properties": {"phase": {"type": "string"}}},
                    },
                }},
            }],
        },
    })
}

/// Waits until `check` gives something, and fails with `what` when it takes too long.
async fn until<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(found) = check().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

async fn gone(api: &Api<DynamicObject>, name: &str) {
    until(&format!("{name} is gone"), async || api.get_opt(name).await.expect("get works").is_none().then_some(()))
        .await;
}

/// Returns code and reason of a refusal.
fn refusal<T: std::fmt::Debug>(result: kube::Result<T>) -> (u16, String, String) {
    match result {
        Err(kube::Error::Api(status)) => (status.code, status.reason.clone(), status.message.clone()),
        other => panic!("expected a Status, got {other:?}"),
    }
}

fn revision(object: &DynamicObject) -> u64 {
    object.resource_version().expect("has a revision").parse().expect("revisions are numbers")
}

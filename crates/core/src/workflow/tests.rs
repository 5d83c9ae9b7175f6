//! The engine's own tests. How workflows run is tested with requests and Promises, whose controllers they are part of.

mod access;
mod failure;
mod golden;
mod history;
mod jobs;
mod pods;
mod suspension;

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use kratix_api::pipeline::{Action, Pipeline};
use kratix_api::{Promise, PromiseSpec};
use kube_core::DynamicObject;
use serde_json::{Value, json};

use super::access::Existing;
use super::*;
use crate::config::Config;

/// Returns settings with defaults and a recognisable image.
pub(super) fn settings() -> Settings {
    Settings {
        adapter_image: "kratix-adapter:1".into(),
        adapter_pull_secret: None,
        config: Arc::new(Config::default()),
    }
}

/// Returns a request named `a/x`.
pub(super) fn request(namespace: &str) -> (Kind, DynamicObject) {
    let object = json!({
        "apiVersion": "example.org/v1", "kind": "Env",
        "metadata": { "name": "x", "namespace": namespace, "uid": format!("uid-{namespace}"), "resourceVersion": "1" },
        "spec": { "size": "small" },
    });
    (Kind::new("example.org", "v1", "Env", "envs"), serde_json::from_value(object).unwrap())
}

/// Returns a Promise spec with these resource pipelines and pipeline namespace.
pub(super) fn spec(configure: &[Value], delete: &[Value], namespace: &str) -> PromiseSpec {
    serde_json::from_value(json!({
        "workflows": {
            "config": { "pipelineNamespace": namespace },
            "resource": { "configure": configure, "delete": delete },
        }
    }))
    .unwrap()
}

/// Returns a pipeline with these permissions.
pub(super) fn pipeline(name: &str, permissions: Value) -> Value {
    json!({
        "apiVersion": "platform.kratix.io/v1alpha1", "kind": "Pipeline", "metadata": { "name": name },
        "spec": { "containers": [{ "name": "a", "image": "i" }], "rbac": { "permissions": permissions } },
    })
}

/// Returns a workflow of a request in `namespace`, with its parent.
pub(super) fn of_request(spec: &PromiseSpec, namespace: &str, action: Action) -> (Parent, Workflow) {
    let (kind, request) = request(namespace);
    let workflow = Definition::of(spec).request_workflow("env", &request, action, false).unwrap();
    (Parent::of_request(kind, &request), workflow)
}

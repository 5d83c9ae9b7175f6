//! Paths that are no resources: versions, health, discovery, OpenAPI.

use std::sync::Arc;

use embedded_apimachinery::discovery::{self, Root};
use embedded_apimachinery::{Status, openapi};
use http::request::Parts;
use serde_json::{Value, json};

use super::{Body, Reply, header};
use crate::auth::Attributes;
use crate::core::Core;
use crate::failure::Failure;
use crate::request::Route;
use crate::user::User;

/// Path of the counts of writes, and of what the embedder adds.
const METRICS: &str = "/metrics";
/// The only form in which version 2 is served: the one that kubectl reads.
const OPENAPI_V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// A document of version 2 without paths and definitions: its first field is the version, `2.0`.
const EMPTY_OPENAPI_V2: &[u8] = b"\x0a\x032.0";
/// Version of Kubernetes whose behaviour is served.
const GIT_VERSION: &str = "v1.34.0";

pub(super) fn answer(core: &Arc<Core>, user: &User, route: Route, parts: &Parts) -> Result<Reply, Failure> {
    let path = parts.uri.path();
    if !is_public(path) {
        core.authorize(user, &Attributes::path("get", path))?;
    }
    if !matches!(parts.method.as_str(), "GET" | "HEAD") {
        return Err(Status::method_not_allowed().into());
    }
    let snapshot = core.catalog.snapshot();
    let resources = snapshot.resources();
    let found = |value: Option<Value>| value.ok_or_else(missing_path);
    let value = match route {
        Route::CoreVersions => match aggregated(parts) {
            Some(version) => {
                return Ok(discovery_reply(version, discovery::aggregated(Root::Core, version, resources)));
            }
            None => discovery::api_versions(&core.address.read()),
        },
        Route::Groups => match aggregated(parts) {
            Some(version) => {
                return Ok(discovery_reply(version, discovery::aggregated(Root::Named, version, resources)));
            }
            None => discovery::groups(resources),
        },
        Route::Group(group) => found(discovery::group(&group, resources))?,
        Route::Resources(group, version) => found(discovery::resource_list(&group, &version, resources))?,
        Route::Resource(_) => return Err(missing_path()),
        Route::Other(path) if path == METRICS => {
            let mut text = core.counters.exposition();
            core.expositions.iter().for_each(|more| text.push_str(&more.exposition()));
            let content_type = "text/plain; version=0.0.4; charset=utf-8".into();
            return Ok(Reply::Raw { code: 200, content_type, body: Body::whole(text) });
        }
        Route::Other(path) if is_health(&path) => return health(core),
        Route::Other(path) => return other(&path, resources),
    };
    Ok(Reply::Value { code: 200, value })
}

fn other(path: &str, resources: &[Arc<embedded_apimachinery::Resource>]) -> Result<Reply, Failure> {
    if let Some(rest) = path.strip_prefix("/openapi/v3/") {
        let segments: Vec<&str> = rest.split('/').collect();
        let document = match segments.as_slice() {
            ["api", version] => openapi::document("", version, resources),
            ["apis", group, version] => openapi::document(group, version, resources),
            _ => None,
        };
        return document.map(|value| Reply::Value { code: 200, value }).ok_or_else(missing_path);
    }
    match path {
        "/version" => Ok(Reply::Value { code: 200, value: version() }),
        // kubectl asks here about kinds that version 3 does not know. What is no error sends it on to discovery, which says so.
        "/openapi/v2" => {
            Ok(Reply::Raw { code: 200, content_type: OPENAPI_V2.into(), body: Body::whole(EMPTY_OPENAPI_V2) })
        }
        "/openapi/v3" => Ok(Reply::Value { code: 200, value: openapi::index(resources) }),
        "/" => Ok(Reply::Value {
            code: 200,
            value: json!({"paths": ["/api", "/api/v1", "/apis", "/healthz", "/livez", METRICS, "/openapi/v2", "/openapi/v3", "/readyz", "/version"]}),
        }),
        _ => Err(missing_path()),
    }
}

/// Nobody is to wait for a server that takes no writes any more, nor to be sent to it.
fn health(core: &Core) -> Result<Reply, Failure> {
    if !core.store.is_open() {
        return Err(Status::unavailable("the store takes no more writes; start the server again").into());
    }
    Ok(Reply::Raw { code: 200, content_type: "text/plain; charset=utf-8".into(), body: Body::whole("ok") })
}

fn version() -> Value {
    json!({
        "major": "1", "minor": "34", "gitVersion": GIT_VERSION, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
        "emulationMajor": "1", "emulationMinor": "34", "minCompatibilityMajor": "1", "minCompatibilityMinor": "33",
    })
}

fn is_health(path: &str) -> bool {
    ["/healthz", "/livez", "/readyz"]
        .iter()
        .any(|root| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

fn is_public(path: &str) -> bool {
    is_health(path) || path == "/version" || path == "/version/"
}

fn missing_path() -> Failure {
    Status::no_such_resource().into()
}

/// Returns the version of the aggregated form that the client prefers to the plain one.
fn aggregated(parts: &Parts) -> Option<&'static str> {
    let accept = header(&parts.headers, "accept")?;
    for clause in accept.split(',').map(str::trim) {
        let aggregated = clause.contains("g=apidiscovery.k8s.io") && clause.contains("as=APIGroupDiscoveryList");
        if aggregated && clause.contains("v=v2beta1") {
            return Some("v2beta1");
        }
        if aggregated && clause.contains("v=v2") {
            return Some("v2");
        }
        if clause == "application/json" || clause == "*/*" {
            return None;
        }
    }
    None
}

fn discovery_reply(version: &str, value: Value) -> Reply {
    let body = Body::whole(super::view::encode(&value));
    Reply::Raw { code: 200, content_type: discovery::aggregated_content_type(version), body }
}

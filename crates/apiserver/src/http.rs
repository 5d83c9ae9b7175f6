//! HTTP: from a request to the verb that answers it, and back.

mod body;
mod endpoints;
pub(crate) mod view;

use std::sync::Arc;

use bytes::Bytes;
use embedded_apimachinery::decode::{self, FieldValidation};
use embedded_apimachinery::table::IncludeObject;
use embedded_apimachinery::{Status, protobuf};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, USER_AGENT, WARNING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response};
use serde_json::Value;

use crate::auth::Attributes;
use crate::core::{Call, Core, Outcome};
use crate::failure::Failure;
use crate::request::{Query, Route, Target};
use crate::rest::patch::{ACCEPTED, Format};
use crate::rest::{DeleteOptions, Filter, WatchOptions};
use crate::subresource;
use crate::user::User;

pub use body::Body;
use view::Negotiated;
pub(crate) use view::View;

/// Largest request body, as the real server's.
pub(crate) const BODY_BYTES_MAX: usize = 3 << 20;

/// Prefix of headers that give an impersonated user further properties.
const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// A reply before it becomes HTTP.
pub(crate) enum Reply {
    /// A value as it is.
    Value { code: u16, value: Value },
    /// Encoded JSON.
    Encoded { code: u16, json: Bytes },
    /// Anything, with its content type.
    Raw { code: u16, content_type: String, body: Body },
}

/// Answers one request of an authenticated user.
pub(crate) async fn answer(core: &Arc<Core>, user: User, parts: &Parts, body: Bytes) -> Response<Body> {
    let include = Query::parse(parts.uri.query().unwrap_or_default());
    let include = IncludeObject::parse(include.get("includeObject")).unwrap_or_default();
    let negotiated = view::negotiate(header(&parts.headers, ACCEPT.as_str()), include);
    let content_type = negotiated.map_or("application/json", |found| found.content_type);
    let mut warnings = Vec::new();
    let reply = route(core, user, parts, body, negotiated, &mut warnings).await;
    let mut response = match reply {
        Ok(Reply::Value { code, value }) => respond(code, content_type, Body::whole(view::encode(&value))),
        Ok(Reply::Encoded { code, json }) => respond(code, content_type, Body::whole(json)),
        Ok(Reply::Raw { code, content_type, body }) => respond(code, &content_type, body),
        Err(failure) => refuse(&failure),
    };
    for warning in warnings {
        let quoted = format!("299 - {:?}", warning);
        if let Ok(value) = HeaderValue::from_str(&quoted) {
            response.headers_mut().append(WARNING, value);
        }
    }
    response
}

/// Renders a failure.
pub(crate) fn refuse(failure: &Failure) -> Response<Body> {
    let mut response = respond(failure.code, "application/json", Body::whole(view::encode(&failure.body)));
    if let Some(seconds) = failure.body["details"]["retryAfterSeconds"].as_u64() {
        response.headers_mut().insert("retry-after", seconds.into());
    }
    response
}

fn respond(code: u16, content_type: &str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let content_type = HeaderValue::from_str(content_type).unwrap_or(HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Returns whether the body of a request matters.
///
/// # Errors
/// 403 and what else the head of the request shows to be refused, so that no body is read for it.
pub(crate) fn wants_body(core: &Core, user: &User, parts: &Parts) -> Result<bool, Failure> {
    if matches!(parts.method, Method::GET | Method::HEAD) {
        return Ok(false);
    }
    let Route::Resource(target) = Route::parse(parts.uri.path()) else { return Ok(false) };
    let user = impersonated(core, user.clone(), &parts.headers)?;
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let verb = verb(&parts.method, &target, &query).ok_or_else(Status::method_not_allowed)?;
    core.authorize(&user, &attributes(verb, &target, &query))?;
    Ok(true)
}

fn attributes(verb: &str, target: &Target, query: &Query) -> Attributes {
    let mut attributes = Attributes::resource(verb, target);
    if matches!(verb, "list" | "watch" | "deletecollection") && attributes.name.is_empty() {
        // A rule with resourceNames allows the collections of one.
        attributes.name = only_name(query).unwrap_or_default().to_owned();
    }
    attributes
}

async fn route(
    core: &Arc<Core>,
    user: User,
    parts: &Parts,
    body: Bytes,
    negotiated: Option<Negotiated>,
    warnings: &mut Vec<String>,
) -> Result<Reply, Failure> {
    let user = impersonated(core, user, &parts.headers)?;
    let target = match Route::parse(parts.uri.path()) {
        Route::Resource(target) => target,
        other => return endpoints::answer(core, &user, other, parts),
    };
    let snapshot = core.catalog.snapshot();
    let served = snapshot.find(&target.group, &target.version, &target.resource).cloned();
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let verb = verb(&parts.method, &target, &query).ok_or_else(Status::method_not_allowed)?;
    core.authorize(&user, &attributes(verb, &target, &query))?;
    let served = served.ok_or_else(Status::no_such_resource)?;
    let Some(negotiated) = negotiated else {
        return Err(Status::not_acceptable(&["application/json", "application/yaml"]).into());
    };
    if target.subresource.is_empty() {
        if !served.has_verb(verb) {
            return Err(Status::method_not_supported(served.qualified(), verb).into());
        }
        if served.namespaced && target.namespace.is_empty() && !matches!(verb, "list" | "watch") {
            return Err(Status::method_not_allowed().into());
        }
    } else {
        let subresource = served.subresource(&target.subresource).ok_or_else(Status::no_such_resource)?;
        if target.name.is_empty() || !subresource.verbs.contains(&verb) {
            return Err(Status::method_not_allowed().into());
        }
    }
    if !served.namespaced && !target.namespace.is_empty() {
        return Err(Status::no_such_resource().into());
    }
    let mut call = Call {
        user,
        manager: manager(&query, &parts.headers),
        dry_run: dry_run(&query)?,
        validation: FieldValidation::parse(query.get("fieldValidation"))?,
        served,
        namespace: target.namespace,
        name: target.name,
        subresource: target.subresource,
        query,
        warnings: Vec::new(),
        now: core.now(),
    };
    let reply = dispatch(core, &mut call, verb, parts, &body, negotiated).await;
    warnings.append(&mut call.warnings);
    reply
}

async fn dispatch(
    core: &Arc<Core>,
    call: &mut Call,
    verb: &str,
    parts: &Parts,
    body: &Bytes,
    negotiated: Negotiated,
) -> Result<Reply, Failure> {
    let view = negotiated.view;
    match (call.subresource.as_str(), verb) {
        ("", "create") if !call.served.is_stored() => {
            let (value, _) = parse_body(parts, body)?;
            subresource::review(core, call, value)
        }
        ("log", "get") => subresource::log(core, call).await,
        ("token", "create") => {
            let (value, _) = parse_body(parts, body)?;
            subresource::token(core, call, value).await
        }
        ("binding", "create") => {
            let (value, _) = parse_body(parts, body)?;
            core.bind(call, &value).await
        }
        ("eviction", "create") => {
            let (value, _) = parse_body(parts, body)?;
            subresource::evict(core, call, &value).await
        }
        ("scale", _) => Err(Status::no_such_resource().into()),
        (_, "get") => {
            let record = core.get(call)?;
            Ok(Reply::Encoded { code: 200, json: view.record(core, &call.served, &record) })
        }
        (_, "list") => {
            let filter = Filter::parse(&call.served, &call.query)?;
            let list = core.list(call, &filter)?;
            Ok(Reply::Encoded { code: 200, json: view.list(core, &call.served, &list.records, list.metadata) })
        }
        (_, "watch") => {
            if !call.name.is_empty() {
                call.query.set("fieldSelector", &format!("metadata.name={}", call.name));
            }
            let filter = Filter::parse(&call.served, &call.query)?;
            let options = WatchOptions::parse(core, call)?;
            let stream = core.watch(call, filter, view, &options);
            Ok(Reply::Raw { code: 200, content_type: negotiated.content_type.into(), body: Body::stream(stream) })
        }
        ("", "create") => {
            let (value, duplicates) = parse_body(parts, body)?;
            let outcome = core.create(call, value, &duplicates).await?;
            Ok(show(core, call, outcome, view))
        }
        (_, "update") => {
            let (value, duplicates) = parse_body(parts, body)?;
            let outcome = core.update(call, value, &duplicates).await?;
            Ok(show(core, call, outcome, view))
        }
        (_, "patch") => {
            let format = patch_format(call, parts)?;
            let (value, duplicates) = match format {
                Format::Apply { .. } => parse_yaml(body)?,
                _ => decode::json(body)?,
            };
            let outcome = core.patch(call, format, value, &duplicates).await?;
            Ok(show(core, call, outcome, view))
        }
        ("", "delete") => {
            let options = delete_options(call, parts, body)?;
            let outcome = core.delete(call, &options).await?;
            Ok(show(core, call, outcome, view))
        }
        ("", "deletecollection") => {
            let options = delete_options(call, parts, body)?;
            let filter = Filter::parse(&call.served, &call.query)?;
            let value = core.delete_collection(call, &options, &filter).await?;
            Ok(Reply::Value { code: 200, value })
        }
        _ => Err(Status::method_not_allowed().into()),
    }
}

fn show(core: &Core, call: &Call, outcome: Outcome, view: View) -> Reply {
    match outcome {
        Outcome::Stored { code, record } => Reply::Encoded { code, json: view.record(core, &call.served, &record) },
        Outcome::Value { code, value } if value["kind"] == "Status" => Reply::Value { code, value },
        Outcome::Value { code, value } => Reply::Encoded { code, json: view.value(&call.served, value, true) },
    }
}

fn verb(method: &Method, target: &Target, query: &Query) -> Option<&'static str> {
    Some(match (method.as_str(), target.name.is_empty()) {
        ("GET" | "HEAD", _) if query.flag("watch") && target.subresource.is_empty() => "watch",
        ("GET" | "HEAD", true) => "list",
        ("GET" | "HEAD", false) => "get",
        ("POST", true) => "create",
        ("POST", false) if !target.subresource.is_empty() => "create",
        ("PUT", false) => "update",
        ("PATCH", false) => "patch",
        ("DELETE", false) => "delete",
        ("DELETE", true) => "deletecollection",
        _ => return None,
    })
}

/// Returns the one name that a field selector lets through.
fn only_name(query: &Query) -> Option<&str> {
    let mut clauses = query.get("fieldSelector")?.split(',').filter_map(|clause| clause.split_once('='));
    let (_, name) = clauses.find(|(field, _)| field.trim() == "metadata.name")?;
    Some(name.trim_start_matches('=').trim()).filter(|name| !name.is_empty())
}

/// Name that owns the fields: as asked for, or the program in the user agent.
fn manager(query: &Query, headers: &HeaderMap) -> String {
    let asked = query.get("fieldManager").map(str::to_owned);
    asked.unwrap_or_else(|| {
        let agent = header(headers, USER_AGENT.as_str()).unwrap_or("unknown");
        agent.split('/').next().unwrap_or("unknown").chars().take(128).collect()
    })
}

fn dry_run(query: &Query) -> Result<bool, Failure> {
    match query.get("dryRun") {
        None => Ok(false),
        Some("All") => Ok(true),
        Some(other) => {
            let path = embedded_apimachinery::field::Path::Root;
            let mistake = embedded_apimachinery::field::Error::not_supported(&path.child("dryRun"), other, &["All"]);
            let kind = embedded_apimachinery::Qualified::new("meta.k8s.io", "CreateOptions");
            Err(Status::invalid(kind, "", &[mistake]).into())
        }
    }
}

fn content_type(parts: &Parts) -> &str {
    let header = header(&parts.headers, CONTENT_TYPE.as_str()).unwrap_or("application/json");
    header.split(';').next().unwrap_or_default().trim()
}

fn patch_format(call: &Call, parts: &Parts) -> Result<Format, Failure> {
    match content_type(parts) {
        "application/json-patch+json" => Ok(Format::Json),
        "application/merge-patch+json" => Ok(Format::Merge),
        "application/strategic-merge-patch+json" if !call.served.is_custom() => Ok(Format::Strategic),
        "application/apply-patch+yaml" => {
            if call.query.get("fieldManager").is_none() {
                let path = embedded_apimachinery::field::Path::Root;
                let text = "is required for apply patch";
                let mistake = embedded_apimachinery::field::Error::required(&path.child("fieldManager"), text);
                let kind = embedded_apimachinery::Qualified::new("meta.k8s.io", "PatchOptions");
                return Err(Status::invalid(kind, "", &[mistake]).into());
            }
            Ok(Format::Apply { force: call.query.flag("force") })
        }
        _ => {
            let accepted: Vec<&str> =
                ACCEPTED.iter().copied().filter(|one| !call.served.is_custom() || !one.contains("strategic")).collect();
            Err(Status::unsupported_media_type(&accepted).into())
        }
    }
}

/// Decodes a body by its content type; returns it with the paths of fields that occur twice.
fn parse_body(parts: &Parts, body: &[u8]) -> Result<(Value, Vec<String>), Failure> {
    match content_type(parts) {
        "application/json" | "" => Ok(decode::json(body)?),
        "application/yaml" => parse_yaml(body),
        "application/vnd.kubernetes.protobuf" => protobuf::decode(body)
            .map(|value| (value, Vec::new()))
            .map_err(|error| Status::bad_request(error.to_string()).into()),
        _ => {
            let accepted = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
            Err(Status::unsupported_media_type(&accepted).into())
        }
    }
}

fn parse_yaml(body: &[u8]) -> Result<(Value, Vec<String>), Failure> {
    // Clients mostly send JSON under this name; its parser also finds duplicate fields.
    if body.first() == Some(&b'{') {
        return Ok(decode::json(body)?);
    }
    let text = std::str::from_utf8(body).map_err(|error| Status::bad_request(error.to_string()))?;
    let value: Value =
        serde_saphyr::from_str(text).map_err(|error| Status::bad_request(format!("error decoding YAML: {error}")))?;
    Ok((value, Vec::new()))
}

fn delete_options(call: &Call, parts: &Parts, body: &[u8]) -> Result<DeleteOptions, Failure> {
    let value = if body.is_empty() { Value::Null } else { parse_body(parts, body)?.0 };
    DeleteOptions::parse(&value, call)
}

/// Puts on another user's shoes where the headers ask for it and the roles allow it.
fn impersonated(core: &Core, user: User, headers: &HeaderMap) -> Result<User, Failure> {
    let Some(name) = header(headers, "impersonate-user").filter(|name| !name.is_empty()) else {
        let asks = |name: &http::HeaderName| {
            matches!(name.as_str(), "impersonate-group" | "impersonate-uid") || name.as_str().starts_with(EXTRA)
        };
        if headers.keys().any(asks) {
            return Err(Status::bad_request("requested impersonation without impersonating a user").into());
        }
        return Ok(user);
    };
    let allowed = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
        let target = Target {
            group: group.into(),
            version: "v1".into(),
            namespace: namespace.into(),
            resource: resource.into(),
            name: name.into(),
            subresource: subresource.into(),
        };
        core.authorize(&user, &Attributes::resource("impersonate", &target))
    };
    let account = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    match account {
        Some((namespace, name)) => allowed("", "serviceaccounts", "", namespace, name)?,
        None => allowed("", "users", "", "", name)?,
    }
    let mut groups: Vec<String> = Vec::new();
    for group in headers.get_all("impersonate-group").iter().filter_map(|group| group.to_str().ok()) {
        allowed("", "groups", "", "", group)?;
        groups.push(group.to_owned());
    }
    let mut shoes = match account {
        Some((namespace, name)) if groups.is_empty() => User::service_account(namespace, name),
        _ if name == User::anonymous().name && groups.is_empty() => User::anonymous(),
        _ => User::new(name, groups),
    };
    if let Some(uid) = header(headers, "impersonate-uid") {
        allowed(AUTHENTICATION, "uids", "", "", uid)?;
        uid.clone_into(&mut shoes.uid);
    }
    for (key, value) in headers {
        let (Some(key), Ok(value)) = (key.as_str().strip_prefix(EXTRA), value.to_str()) else { continue };
        allowed(AUTHENTICATION, "userextras", key, "", value)?;
        shoes.extra.entry(key.to_owned()).or_default().push(value.to_owned());
    }
    Ok(shoes)
}

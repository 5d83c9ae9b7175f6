//! What is answered without being stored: logs, tokens, reviews.

use std::sync::Arc;

use embedded_apimachinery::{Status, field};
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::auth::{Attributes, Bound};
use crate::core::{Call, Core};
use crate::failure::Failure;
use crate::http::{Body, Reply};
use crate::logs::{LogError, LogOptions};
use crate::rest::DeleteOptions;
use crate::rest::bind::{check_kind, created};
use crate::store::ObjectName;
use crate::user::User;

/// Shortest and default life of a service account token, and the longest, in seconds.
const TOKEN_SECONDS: (i64, i64, i64) = (600, 3600, 1 << 32);

/// Streams the log of a pod's container.
pub(crate) async fn log(core: &Arc<Core>, call: &Call) -> Result<Reply, Failure> {
    let pod = core.get(call)?.value();
    let query = &call.query;
    let mut options = LogOptions {
        container: query.get("container").map(str::to_owned),
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        tail_lines: query.number("tailLines"),
        since_seconds: query.number("sinceSeconds"),
        since_time: query.get("sinceTime").map(str::to_owned),
        timestamps: query.flag("timestamps"),
        limit_bytes: query.number("limitBytes"),
    };
    let names = |list: &str| -> Vec<&str> {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers.filter_map(|container| container["name"].as_str()).collect()
    };
    let (containers, init) = (names("containers"), names("initContainers"));
    match &options.container {
        Some(name) if !containers.contains(&name.as_str()) && !init.contains(&name.as_str()) => {
            let text = format!("container {name} is not valid for pod {}", call.name);
            return Err(Status::bad_request(text).into());
        }
        Some(_) => {}
        None => match containers.as_slice() {
            [only] if init.is_empty() => options.container = Some((*only).to_owned()),
            [only] if query.get("container").is_none() => options.container = Some((*only).to_owned()),
            _ => {
                let mut text = format!(
                    "a container name must be specified for pod {}, choose one of: [{}]",
                    call.name,
                    containers.join(" ")
                );
                if !init.is_empty() {
                    text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
                }
                return Err(Status::bad_request(text).into());
            }
        },
    }
    let stream = core.logs.logs(&pod, options).await.map_err(|error| match error {
        LogError::BadRequest(text) => Failure::from(Status::bad_request(text)),
        LogError::NotFound(text) => Failure::new(404, "NotFound", &text),
        LogError::Internal(text) => Status::internal(text).into(),
    })?;
    let shutdown = core.shutdown.clone();
    let bytes = stream.map(|next| next.map_err(std::io::Error::other));
    let body = Body::stream(bytes.take_until(async move { shutdown.cancelled().await }).boxed());
    Ok(Reply::Raw { code: 200, content_type: "text/plain".into(), body })
}

/// Issues a token for a service account (`TokenRequest`).
pub(crate) async fn token(core: &Core, call: &mut Call, mut request: Value) -> Result<Reply, Failure> {
    let account = core.get(call)?;
    let (least, default, most) = TOKEN_SECONDS;
    let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(default);
    let path = field::Path::Root;
    let spec = path.child("spec");
    let path = spec.child("expirationSeconds");
    let mistake = match seconds {
        short if short < least => Some("may not specify a duration less than 10 minutes"),
        long if long > most => Some("may not specify a duration larger than 2^32 seconds"),
        _ => None,
    };
    if let Some(text) = mistake {
        let kind = embedded_apimachinery::Qualified::new("authentication.k8s.io", "TokenRequest");
        return Err(Status::invalid(kind, "", &[field::Error::invalid(&path, seconds, text)]).into());
    }
    let audiences: Vec<String> = request["spec"]["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| one.as_str().map(str::to_owned))
        .collect();
    let audiences = if audiences.is_empty() { vec![crate::auth::ISSUER.to_owned()] } else { audiences };
    let reference = request["spec"]["boundObjectRef"].clone();
    let (kind, name) = (reference["kind"].as_str().unwrap_or(""), reference["name"].as_str().unwrap_or(""));
    let bound_uid = match kind {
        "" => None,
        "Pod" | "Secret" => {
            let table = if kind == "Pod" { "/pods" } else { "/secrets" };
            let plural = &table[1..];
            let record = core.store.get(table, &ObjectName::new(call.namespace.as_str(), name));
            let resource = embedded_apimachinery::Qualified::new("", plural);
            let record = record.ok_or_else(|| Failure::from(Status::not_found(resource, name)))?;
            let wanted = reference["uid"].as_str().unwrap_or_default();
            if !wanted.is_empty() && wanted != record.uid() {
                let why = format!(
                    "the UID in the bound object reference ({wanted}) does not match the UID in record. The object \
                     might have been deleted and then recreated"
                );
                return Err(Status::conflict(resource, name, &why).into());
            }
            Some(record.uid().to_owned())
        }
        other => {
            let text = format!("cannot bind token for serviceaccount to a type {other}");
            return Err(Status::bad_request(text).into());
        }
    };
    let bound = Bound {
        namespace: &call.namespace,
        account: &call.name,
        account_uid: account.uid(),
        object: bound_uid.as_deref().map(|uid| (kind, name, uid)),
        audiences: audiences.clone(),
    };
    let token = core.tokens.for_account(&bound, call.now, seconds);
    let end = call.now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(call.now);
    request["apiVersion"] = json!("authentication.k8s.io/v1");
    request["kind"] = json!("TokenRequest");
    request["metadata"] = json!({
        "name": call.name, "namespace": call.namespace, "creationTimestamp": crate::rest::seconds(call.now),
    });
    request["spec"]["audiences"] = json!(audiences);
    request["spec"]["expirationSeconds"] = json!(seconds);
    request["status"] = json!({"token": token, "expirationTimestamp": crate::rest::seconds(end)});
    Ok(Reply::Value { code: 201, value: request })
}

/// Evicts a pod: a deletion that something could object to; here nothing does, there are no disruption budgets.
pub(crate) async fn evict(core: &Core, call: &mut Call, eviction: &Value) -> Result<Reply, Failure> {
    check_kind(eviction, "policy/v1", "Eviction")?;
    let name = eviction["metadata"]["name"].as_str().unwrap_or_default();
    if name != call.name {
        let text = format!("name in URL does not match name in Eviction object: {:?} vs {name:?}", call.name);
        return Err(Status::bad_request(text).into());
    }
    let options = DeleteOptions::parse(&eviction["deleteOptions"], call)?;
    call.subresource.clear();
    core.delete(call, &options).await?;
    Ok(created())
}

/// Answers the review kinds.
pub(crate) fn review(core: &Core, call: &Call, mut review: Value) -> Result<Reply, Failure> {
    let spec = review["spec"].clone();
    review["status"] = match call.served.plural.as_str() {
        "selfsubjectaccessreviews" => access(core, &call.user, &spec),
        "subjectaccessreviews" => access(core, &subject(&spec), &spec),
        "localsubjectaccessreviews" => {
            if spec["resourceAttributes"]["namespace"].as_str().unwrap_or_default() != call.namespace {
                let text = "must match metadata.namespace";
                return Err(Status::bad_request(format!("spec.resourceAttributes.namespace: {text}")).into());
            }
            access(core, &subject(&spec), &spec)
        }
        "selfsubjectreviews" => json!({"userInfo": call.user.info()}),
        "tokenreviews" => {
            let token = spec["token"].as_str().unwrap_or_default();
            let asked: Vec<&str> =
                spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let audiences = if asked.is_empty() { vec![crate::auth::ISSUER] } else { asked };
            match core.tokens.check(&core.store, token, &audiences, Timestamp::now()) {
                Ok((user, audiences)) => json!({"authenticated": true, "user": user.info(), "audiences": audiences}),
                Err(refused) => json!({"user": {}, "error": refused.to_string()}),
            }
        }
        "selfsubjectrulesreviews" => {
            let namespace = spec["namespace"].as_str().unwrap_or_default();
            if namespace.is_empty() {
                return Err(Status::bad_request("no namespace on request").into());
            }
            core.roles.summary(&core.store, &call.user, namespace)
        }
        _ => return Err(Status::no_such_resource().into()),
    };
    if !review["metadata"].is_object() {
        review["metadata"] = json!({"creationTimestamp": null});
    }
    Ok(Reply::Value { code: 201, value: review })
}

fn subject(spec: &Value) -> User {
    let groups = spec["groups"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    User {
        name: spec["user"].as_str().unwrap_or_default().to_owned(),
        uid: spec["uid"].as_str().unwrap_or_default().to_owned(),
        groups: groups.collect(),
        ..User::default()
    }
}

fn access(core: &Core, user: &User, spec: &Value) -> Value {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let attributes = if spec["nonResourceAttributes"].is_object() {
        let wanted = &spec["nonResourceAttributes"];
        Attributes::path(&text(&wanted["verb"]), &text(&wanted["path"]))
    } else {
        let wanted = &spec["resourceAttributes"];
        Attributes {
            verb: text(&wanted["verb"]),
            group: text(&wanted["group"]),
            version: text(&wanted["version"]),
            resource: text(&wanted["resource"]),
            subresource: text(&wanted["subresource"]),
            namespace: text(&wanted["namespace"]),
            name: text(&wanted["name"]),
            path: None,
        }
    };
    json!({"allowed": core.allows(user, &attributes)})
}

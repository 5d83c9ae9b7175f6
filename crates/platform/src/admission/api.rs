//! Questions to the API server, as plain requests: what comes back is passed on as it is.

use std::fmt::Write;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::BodyExt;
use kratix_core::admission::{Answer, Question, Refusal};
use kratix_core::object::Kind;
use kube::Client;
use kube::client::Body;
use serde_json::Value;

/// Answers a question about objects.
pub(super) async fn answer(api: &Client, question: &Question) -> Answer {
    let named = |object: &Value| object["metadata"]["name"].as_str().map(str::to_owned);
    let placed = |object: &Value| object["metadata"]["namespace"].as_str().map(str::to_owned);
    let (method, path, body) = match question {
        Question::Get { kind, key } => {
            (Method::GET, path(kind, key.namespace.as_deref(), Some(&key.name), &[]), Bytes::new())
        }
        Question::List { kind, labels } => {
            let selector: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            (Method::GET, path(kind, None, None, &[("labelSelector", &selector.join(","))]), Bytes::new())
        }
        Question::Create { kind, object } => {
            (Method::POST, path(kind, placed(object).as_deref(), None, &DRY_RUN), object.to_string().into())
        }
        Question::Update { kind, object } => {
            let (namespace, name) = (placed(object), named(object));
            (Method::PUT, path(kind, namespace.as_deref(), name.as_deref(), &DRY_RUN), object.to_string().into())
        }
        Question::Download(_) => return Answer::Refused(internal("a document is not an object")),
    };
    let reply = match send(api, method, &path, body).await {
        Ok(reply) => reply,
        Err(cause) => return Answer::Refused(internal(&cause)),
    };
    let (code, mut reply) = reply;
    if code >= 400 {
        let text = |key: &str| reply[key].as_str().unwrap_or_default().to_owned();
        let (reason, message) = (text("reason"), text("message"));
        return Answer::Refused(Refusal { code, reason, message, details: reply["details"].take() });
    }
    match question {
        Question::List { kind, .. } => Answer::Objects(items(kind, reply)),
        _ => Answer::Object(reply),
    }
}

const DRY_RUN: [(&str, &str); 1] = [("dryRun", "All")];

async fn send(api: &Client, method: Method, path: &str, body: Bytes) -> Result<(u16, Value), String> {
    let request = Request::builder().method(method).uri(path).header(http::header::CONTENT_TYPE, "application/json");
    let request = request.body(Body::from(body.to_vec())).map_err(|error| format!("{path}: {error}"))?;
    let response = api.send(request).await.map_err(|error| format!("{path}: {error}"))?;
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.map_err(|error| format!("{path}: {error}"))?.to_bytes();
    let reply = serde_json::from_slice(&body).map_err(|error| format!("{path}: the answer is no JSON: {error}"))?;
    Ok((code, reply))
}

/// Returns the elements of a list with the kind and version that they lack in it.
fn items(kind: &Kind, mut list: Value) -> Vec<Value> {
    let Some(items) = list["items"].as_array_mut().map(std::mem::take) else { return Vec::new() };
    let complete = |mut item: Value| {
        item["apiVersion"] = kind.api_version().into();
        item["kind"] = kind.kind.as_str().into();
        item
    };
    items.into_iter().map(complete).collect()
}

fn path(kind: &Kind, namespace: Option<&str>, name: Option<&str>, query: &[(&str, &str)]) -> String {
    let mut path = if kind.group.is_empty() {
        format!("/api/{}", kind.version)
    } else {
        format!("/apis/{}/{}", kind.group, kind.version)
    };
    let places = namespace.into_iter().flat_map(|namespace| ["namespaces", namespace]);
    for segment in places.chain([kind.plural.as_str()]).chain(name) {
        path.push('/');
        escape(&mut path, segment);
    }
    for (index, (key, value)) in query.iter().enumerate() {
        path.push(if index == 0 { '?' } else { '&' });
        path.push_str(key);
        path.push('=');
        escape(&mut path, value);
    }
    path
}

/// A name under review may be any text: as a segment of a path it stays one segment.
fn escape(path: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => path.push(char::from(byte)),
            // A dot alone is a step in the path, and a name otherwise.
            b'.' if text.bytes().any(|byte| byte != b'.') => path.push('.'),
            byte => write!(path, "%{byte:02X}").expect("writing to a String succeeds"),
        }
    }
}

fn internal(message: &str) -> Refusal {
    Refusal { code: 500, reason: "InternalError".into(), message: message.into(), details: Value::Null }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leaves_its_place_in_the_path() {
        let jobs = Kind::new("batch", "v1", "Job", "jobs");
        for (namespace, expected) in [
            ("team-a", "/apis/batch/v1/namespaces/team-a/jobs?dryRun=All"),
            ("a/../b?x#y", "/apis/batch/v1/namespaces/a%2F..%2Fb%3Fx%23y/jobs?dryRun=All"),
            ("..", "/apis/batch/v1/namespaces/%2E%2E/jobs?dryRun=All"),
        ] {
            assert_eq!(path(&jobs, Some(namespace), None, &DRY_RUN), expected);
        }
        let promises = Kind::new("platform.kratix.io", "v1alpha1", "Promise", "promises");
        let found = path(&promises, None, Some("redis"), &[("labelSelector", "a.b/c=d")]);
        assert_eq!(found, "/apis/platform.kratix.io/v1alpha1/promises/redis?labelSelector=a.b%2Fc%3Dd");
        assert_eq!(path(&Kind::new("", "v1", "Namespace", "namespaces"), None, None, &[]), "/api/v1/namespaces");
    }
}

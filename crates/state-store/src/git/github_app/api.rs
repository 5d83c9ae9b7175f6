//! The one request that is made of GitHub's API.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, PROXY_AUTHORIZATION, RETRY_AFTER, USER_AGENT};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

use crate::config::Secret;
use crate::connection::{self, Connector};
use crate::error::{AppRemedy, Trouble};

/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// The longest text of the server that is passed on.
const MESSAGE_CHARS_MAX: usize = 500;

/// A token, and when it ends.
pub(super) struct Granted {
    pub(super) token: Secret,
    pub(super) expires_at: Option<SystemTime>,
}

/// Why there is none.
pub(super) struct Refusal {
    pub(super) reason: String,
    pub(super) remedy: AppRemedy,
    /// For how long the server does not want to be asked.
    pub(super) pause: Option<Duration>,
}

impl Refusal {
    fn new(reason: impl Into<String>, remedy: AppRemedy) -> Self {
        Self { reason: reason.into(), remedy, pause: None }
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: String,
    expires_at: Option<String>,
}

#[derive(Deserialize)]
struct Complaint {
    message: String,
}

/// Exchanges what an app has signed for a token of its installation.
///
/// # Errors
/// What concerns the store's own settings, such as a file of authorities that cannot be read, is the outer one.
pub(super) async fn exchange(
    connector: &Connector,
    endpoint: &Uri,
    jwt: &Secret,
    deadline: Duration,
) -> Result<Result<Granted, Refusal>, Trouble> {
    let failed =
        |reason: String, remedy| Refusal::new(format!("GitHub API request failed: POST {endpoint}: {reason}"), remedy);
    let exchange = async {
        let response = send(connector, endpoint, jwt).await?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| Trouble::Unreachable(connection::last_cause(&*error)))?;
        Ok((parts, body.to_bytes()))
    };
    let refusal = match tokio::time::timeout(deadline, exchange).await {
        Ok(Ok((parts, body))) => return Ok(read(parts.status, &parts.headers, &body, jwt)),
        Ok(Err(trouble @ Trouble::Untrusted(_))) => failed(trouble.to_string(), AppRemedy::Authority),
        Ok(Err(trouble @ Trouble::UnknownHost(_))) => failed(trouble.to_string(), AppRemedy::Host),
        Ok(Err(Trouble::Unreachable(reason))) => failed(reason, AppRemedy::Time),
        Ok(Err(trouble @ (Trouble::Authority { .. } | Trouble::Config(_)))) => return Err(trouble),
        Ok(Err(trouble)) => failed(trouble.to_string(), AppRemedy::Time),
        Err(_) => failed(format!("no answer within {} s", deadline.as_secs_f32()), AppRemedy::Time),
    };
    Ok(Err(refusal))
}

async fn send(connector: &Connector, endpoint: &Uri, jwt: &Secret) -> Result<Response<Incoming>, Trouble> {
    let plain = |error: &dyn std::fmt::Display| Trouble::Unreachable(error.to_string());
    let mut bearer = HeaderValue::try_from(format!("Bearer {}", jwt.expose())).map_err(|error| plain(&error))?;
    bearer.set_sensitive(true);
    let mut request = Request::post(endpoint)
        .header(AUTHORIZATION, bearer)
        .header(ACCEPT, "application/vnd.github+json")
        .header("x-github-api-version", "2022-11-28")
        .header(USER_AGENT, "kratix")
        .body(Empty::<Bytes>::new())
        .map_err(|error| plain(&error))?;
    if let Some(authorization) = connector.authorization(endpoint) {
        request.headers_mut().insert(PROXY_AUTHORIZATION, authorization);
    }
    // Asked once in an hour: the connection is not kept.
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector.clone());
    let host = endpoint.host().unwrap_or_default();
    client.request(request).await.map_err(|error| connection::trouble(host, &error))
}

/// Understands an answer.
fn read(status: StatusCode, headers: &HeaderMap, body: &[u8], jwt: &Secret) -> Result<Granted, Refusal> {
    if status == StatusCode::CREATED {
        let empty = || Refusal::new("empty installation token received", AppRemedy::Time);
        let answer: Answer = serde_json::from_slice(body).map_err(|_| empty())?;
        let expires_at = answer.expires_at.and_then(|time| time.parse::<jiff::Timestamp>().ok());
        return match answer.token.is_empty() {
            true => Err(empty()),
            false => Ok(Granted { token: Secret::new(answer.token), expires_at: expires_at.map(SystemTime::from) }),
        };
    }
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let is_limited = status == StatusCode::TOO_MANY_REQUESTS
        || header(RETRY_AFTER.as_str()).is_some()
        || header("x-ratelimit-remaining") == Some("0");
    let remedy = match status {
        StatusCode::UNAUTHORIZED => AppRemedy::Identity,
        StatusCode::NOT_FOUND => AppRemedy::Installation,
        StatusCode::FORBIDDEN if !is_limited => AppRemedy::Permission,
        _ => AppRemedy::Time,
    };
    let message = message(body, status).replace(jwt.expose(), "…");
    let reason = format!("GitHub API error: status={}, message={message}", status.as_u16());
    let pause = is_limited.then(|| pause(header(RETRY_AFTER.as_str()), header("x-ratelimit-reset"))).flatten();
    Err(Refusal { pause, ..Refusal::new(reason, remedy) })
}

/// Returns what the server says, on one line, without what differs from request to request.
fn message(body: &[u8], status: StatusCode) -> String {
    let said = serde_json::from_slice::<Complaint>(body).map(|complaint| complaint.message).unwrap_or_default();
    let lasting = said.split(" If you reach out to GitHub Support").next().unwrap_or_default();
    let line: String = lasting.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX).collect();
    match line.trim() {
        "" => status.canonical_reason().unwrap_or("unknown status").to_owned(),
        line => line.to_owned(),
    }
}

/// Returns how long to wait by either of the two ways to say so: seconds from now, or a point in time.
fn pause(retry_after: Option<&str>, reset: Option<&str>) -> Option<Duration> {
    if let Some(seconds) = retry_after.and_then(|text| text.trim().parse().ok()) {
        return Some(Duration::from_secs(seconds));
    }
    let reset = Duration::from_secs(reset?.trim().parse().ok()?);
    (SystemTime::UNIX_EPOCH.checked_add(reset)?).duration_since(SystemTime::now()).ok()
}

#[cfg(test)]
mod tests;

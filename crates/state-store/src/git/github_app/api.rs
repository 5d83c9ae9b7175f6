//! The one request that is made of GitHub's API.

use std::error::Error;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

use crate::config::Secret;
use crate::error::AppRemedy;
use crate::tls;

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

/// Exchanges what an app has signed for a token of its installation, by way of the proxy that the environment names.
pub(super) async fn exchange(
    endpoint: &Uri,
    jwt: &Secret,
    tls: rustls::ClientConfig,
    deadline: Duration,
) -> Result<Granted, Refusal> {
    exchange_through(&Matcher::from_env(), endpoint, jwt, tls, deadline).await
}

async fn exchange_through(
    proxies: &Matcher,
    endpoint: &Uri,
    jwt: &Secret,
    tls: rustls::ClientConfig,
    deadline: Duration,
) -> Result<Granted, Refusal> {
    let failed =
        |reason: String, remedy| Refusal::new(format!("GitHub API request failed: POST {endpoint}: {reason}"), remedy);
    let exchange = async {
        let response = send(proxies, endpoint, jwt, tls).await?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| (root(&*error), false))?;
        Ok((parts, body.to_bytes()))
    };
    match tokio::time::timeout(deadline, exchange).await {
        Ok(Ok((parts, body))) => read(parts.status, &parts.headers, &body, jwt),
        Ok(Err((reason, is_untrusted))) => {
            Err(failed(reason, if is_untrusted { AppRemedy::Authority } else { AppRemedy::Time }))
        }
        Err(_) => Err(failed(format!("no answer within {} s", deadline.as_secs_f32()), AppRemedy::Time)),
    }
}

/// Sends the request; an error comes with whether the server is not who it should be.
async fn send(
    proxies: &Matcher,
    endpoint: &Uri,
    jwt: &Secret,
    tls: rustls::ClientConfig,
) -> Result<Response<Incoming>, (String, bool)> {
    let plain = |error: &dyn std::fmt::Display| (error.to_string(), false);
    let mut bearer = HeaderValue::try_from(format!("Bearer {}", jwt.expose())).map_err(|error| plain(&error))?;
    bearer.set_sensitive(true);
    let request = Request::post(endpoint)
        .header(AUTHORIZATION, bearer)
        .header(ACCEPT, "application/vnd.github+json")
        .header("x-github-api-version", "2022-11-28")
        .header(USER_AGENT, "kratix")
        .body(Empty::<Bytes>::new())
        .map_err(|error| plain(&error))?;
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
    let client = Client::builder(TokioExecutor::new());
    let response = match proxies.intercept(endpoint) {
        None => client.build(https.wrap_connector(tcp)).request(request).await,
        Some(proxy) if proxy.uri().scheme_str() == Some("http") => {
            let mut tunnel = Tunnel::new(proxy.uri().clone(), tcp);
            if let Some(authorization) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(authorization.clone());
            }
            client.build(https.wrap_connector(tunnel)).request(request).await
        }
        Some(_) => return Err(("only proxies with http:// are supported here".to_owned(), false)),
    };
    response.map_err(|error| match tls::untrusted(&error) {
        Some(reason) => (format!("the server's certificate is not trusted: {reason}"), true),
        None => (root(&error), false),
    })
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

/// Returns the first cause, which is the one that tells something.
fn root(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.last().map_or_else(String::new, ToString::to_string)
}

#[cfg(test)]
mod tests;

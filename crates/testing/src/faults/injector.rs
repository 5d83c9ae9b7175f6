//! What stands between a client and the service that answers it.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::fault::{Blow, Fault, Whose};
use super::seed::Seed;
use super::watch::{self, Shown};

/// How far lists from the past may be behind, in versions.
const PAST_MAX: usize = 60;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Observer = Box<dyn Fn(&Call) -> BoxFuture<'static, ()> + Send + Sync>;
type Revision = Box<dyn Fn() -> u64 + Send + Sync>;

/// A call that changes something.
#[derive(Clone, Debug)]
pub struct Call {
    /// Counted from 1, or 0 for one that does not count.
    pub number: usize,
    /// The verb; `COMMIT` for a batch of a state store.
    pub method: Method,
    /// The path without the query, or `/` and the name of the store.
    pub path: String,
    /// What was sent.
    pub body: Value,
    /// What was answered; nothing while the call is on its way, and when it was not made.
    pub answer: Option<(u16, Value)>,
}

impl Call {
    /// Tells whether it is about an Event.
    pub fn is_event(&self) -> bool {
        self.path.contains("/events")
    }

    /// Tells whether the server did what was asked for.
    pub fn succeeded(&self) -> bool {
        self.answer.as_ref().is_some_and(|(code, _)| (200..300).contains(code))
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { number, method, path, .. } = self;
        let code = self.answer.as_ref().map_or(0, |(code, _)| *code);
        let name = self.body.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let name = if *method == Method::POST { format!("/{name}") } else { String::new() };
        write!(f, "{number:>4} {method} {path}{name} {code}")
    }
}

/// The life of one program: once it is over no call of it is made or answered any more.
#[derive(Clone, Debug, Default)]
pub struct Life {
    over: CancellationToken,
    lists_the_past: bool,
}

impl Life {
    /// Begins a life that is shown lists from the past.
    #[must_use]
    pub fn in_the_past() -> Self {
        Self { lists_the_past: true, ..Self::default() }
    }

    /// Ends it.
    pub fn end(&self) {
        self.over.cancel();
    }

    /// Waits for its end.
    pub async fn ended(&self) {
        self.over.cancelled().await;
    }

    /// Tells whether it has ended.
    pub fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }
}

/// Does to the calls of a program what a fault says.
#[derive(Clone)]
pub struct Injector(Arc<Inner>);

struct Inner {
    fault: Fault,
    whose: Whose,
    seed: Seed,
    revision: Revision,
    state: Mutex<State>,
    before: Option<Observer>,
}

#[derive(Default)]
struct State {
    counted: usize,
    seen: BTreeSet<String>,
    calls: Vec<Call>,
    hit: Option<Call>,
    /// The program that was started last.
    life: Option<Life>,
    /// How often each collection was watched, and listed.
    watched: BTreeMap<String, usize>,
    listed: BTreeSet<String>,
}

impl Injector {
    /// Returns an injector for the calls of one kind of program. `revision` is the newest version of the server.
    pub fn new(fault: Fault, whose: Whose, seed: &Seed, revision: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        let (seed, state) = (seed.clone(), Mutex::default());
        Self(Arc::new(Inner { fault, whose, seed, revision: Box::new(revision), state, before: None }))
    }

    /// Asks `observer` to look at each call that is about to be made, and makes it afterwards.
    ///
    /// # Panics
    /// After the first client.
    #[must_use]
    pub fn observe(mut self, observer: impl Fn(&Call) -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Self {
        Arc::get_mut(&mut self.0).expect("no client yet").before = Some(Box::new(observer));
        self
    }

    /// Returns a client whose calls are disturbed, for as long as the life lasts.
    pub fn client<S, B>(&self, service: S, life: &Life) -> Client
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let life = life.clone();
        self.0.begin(&life);
        Client::new(Disturbed { inner: service, injector: self.0.clone(), life }, "default")
    }

    /// Returns the life of the program that was started last.
    pub(super) fn life(&self) -> Option<Life> {
        self.0.state.lock().life.clone()
    }

    pub(super) fn judge(&self, method: &Method, path: &str) -> (usize, Option<Blow>) {
        self.0.judge(method, path)
    }

    pub(super) fn note(&self, call: Call, blow: Option<Blow>) {
        self.0.note(call, blow);
    }

    /// Returns what was called so far.
    pub fn calls(&self) -> Vec<Call> {
        self.0.state.lock().calls.clone()
    }

    /// Returns how many calls were counted: those that change something but Events, and commits.
    pub fn counted(&self) -> usize {
        self.0.state.lock().counted
    }

    /// Returns the call that was hit, if the fault is about one and has come to it.
    pub fn hit(&self) -> Option<Call> {
        self.0.state.lock().hit.clone()
    }
}

#[derive(Clone)]
struct Disturbed<S> {
    inner: S,
    injector: Arc<Inner>,
    life: Life,
}

impl Inner {
    /// A program starts: it lists everything for the first time.
    fn begin(&self, life: &Life) {
        let mut state = self.state.lock();
        state.listed.clear();
        state.life = Some(life.clone());
    }

    /// Says what happens to a call that changes something.
    fn judge(&self, method: &Method, path: &str) -> (usize, Option<Blow>) {
        // Events are best effort, and when one is told a second time depends on the clock.
        if path.contains("/events") {
            return (0, None);
        }
        let mut state = self.state.lock();
        state.counted += 1;
        let number = state.counted;
        let is_first = state.seen.insert(format!("{method} {path}"));
        let blow = match self.fault {
            Fault::Call { whose, blow, number: wanted } if whose == self.whose && wanted == number => Some(blow),
            Fault::Past(wanted) if self.whose == Whose::Manager && wanted == number => Some(Blow::CrashAfter),
            Fault::Each { whose, blow } if whose == self.whose && is_first => Some(blow),
            _ => None,
        };
        (number, blow)
    }

    fn note(&self, call: Call, blow: Option<Blow>) {
        let mut state = self.state.lock();
        if blow.is_some() && state.hit.is_none() {
            state.hit = Some(call.clone());
        }
        state.calls.push(call);
    }

    /// Returns the query of a first list as one of the past.
    fn past(&self, path: &str, query: &str) -> Option<String> {
        let is_first = self.state.lock().listed.insert(format!("{path}?{query}"));
        let now = (self.revision)();
        let behind = u64::try_from(self.seed.fork(path).below(PAST_MAX)).unwrap_or(0);
        (is_first && !query.contains("resourceVersion=") && !query.contains("continue=")).then(|| {
            let then = now.saturating_sub(behind).max(1);
            format!("{query}&resourceVersion={then}&resourceVersionMatch=Exact")
        })
    }

    /// Returns how a watch is disturbed.
    fn disturbance(&self, path: &str) -> Option<watch::Plan> {
        let connection = {
            let mut state = self.state.lock();
            let watched = state.watched.entry(path.to_owned()).or_default();
            *watched += 1;
            *watched
        };
        let kind = match self.fault {
            Fault::Watch(disturbance) if self.whose == Whose::Manager => disturbance,
            _ => return None,
        };
        watch::Plan::new(kind, connection, self.seed.fork(&format!("{path} {connection}")))
    }
}

impl<S, B> Service<Request<Body>> for Disturbed<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Shown>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Shown>, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let ready = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, ready);
        let (injector, life) = (self.injector.clone(), self.life.clone());
        if life.is_over() {
            return Box::pin(std::future::pending());
        }
        if request.method() == Method::GET {
            return Box::pin(read(inner, injector, life, request));
        }
        let (number, blow) = injector.judge(request.method(), request.uri().path());
        if blow == Some(Blow::CrashBefore) {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            injector.note(Call { number, method, path, body: Value::Null, answer: None }, blow);
            life.end();
            return Box::pin(std::future::pending());
        }
        Box::pin(change(inner, injector, life, request, number, blow))
    }
}

/// Answers a call that changes nothing.
async fn read<S, B>(
    mut inner: S,
    injector: Arc<Inner>,
    life: Life,
    request: Request<Body>,
) -> Result<Response<Shown>, BoxError>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let is_watch = query.contains("watch=true") || query.contains("watch=1");
    if life.lists_the_past
        && query.contains("limit=")
        && let Some(query) = injector.past(&path, &query)
    {
        parts.uri = format!("{path}?{query}").parse()?;
    }
    let answer = inner.call(Request::from_parts(parts, body)).await.map_err(Into::into)?;
    let plan = if is_watch && answer.status() == StatusCode::OK { injector.disturbance(&path) } else { None };
    Ok(match plan {
        Some(plan) => answer.map(|body| watch::disturb(body, plan)),
        None => answer.map(|body| body.map_err(Into::into).boxed_unsync()),
    })
}

/// Answers a call that changes something.
async fn change<S, B>(
    mut inner: S,
    injector: Arc<Inner>,
    life: Life,
    request: Request<Body>,
    number: usize,
    blow: Option<Blow>,
) -> Result<Response<Shown>, BoxError>
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
    let mut call = Call { number, method, path, body: parse(&body), answer: None };
    let refused = match blow {
        Some(Blow::Conflict) => Some((409, "Conflict")),
        Some(Blow::TooMany) => Some((429, "TooManyRequests")),
        Some(Blow::Internal) => Some((500, "InternalError")),
        _ => None,
    };
    if let Some((code, reason)) = refused {
        injector.note(call, blow);
        return Ok(refusal(code, reason));
    }
    if let Some(observer) = &injector.before {
        observer(&call).await;
    }
    // A task of its own: a program that ends does not call back what is on its way.
    let made = tokio::spawn(async move {
        let answer = inner.call(Request::from_parts(parts, Body::from(body))).await.map_err(Into::into)?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.map_err(Into::into)?.to_bytes();
        call.answer = Some((parts.status.as_u16(), parse(&body)));
        injector.note(call, blow);
        Ok::<_, BoxError>(Response::from_parts(parts, whole(body)))
    });
    let answer = made.await??;
    match blow {
        Some(Blow::Lost) => return Err(io::Error::new(io::ErrorKind::TimedOut, "the answer was lost").into()),
        Some(_) => life.end(),
        None => {}
    }
    // The program is over: by this call or by another one that was on its way at the same time.
    if life.is_over() {
        std::future::pending::<()>().await;
    }
    Ok(answer)
}

fn whole(body: Bytes) -> Shown {
    Full::new(body).map_err(|never| match never {}).boxed_unsync()
}

fn parse(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_default()
}

fn refusal(code: u16, reason: &str) -> Response<Shown> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "refused by the test",
        "reason": reason, "code": code, "details": { "retryAfterSeconds": 1 },
    });
    let mut response = Response::new(whole(Bytes::from(status.to_string())));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    if code == 429 {
        headers.insert(http::header::RETRY_AFTER, http::HeaderValue::from_static("1"));
    }
    response
}

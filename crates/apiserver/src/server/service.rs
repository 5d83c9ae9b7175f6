//! The server as a `tower` service: the one entrance of in-process clients and of TLS connections.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use embedded_apimachinery::Status;
use http::{Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use jiff::Timestamp;

use super::activity::Activity;
use crate::auth::ISSUER;
use crate::core::Core;
use crate::failure::Failure;
use crate::http::{self as wire, BODY_BYTES_MAX, Body};
use crate::user::{AUTHENTICATED, User};

/// Time for the body of a request to arrive, as for whole requests at the real server.
const BODY_TIME_MAX: Duration = Duration::from_secs(60);

/// Answers HTTP requests, either all as one user or each as its bearer token says.
#[derive(Clone, Debug)]
pub struct Service {
    core: Arc<Core>,
    user: Option<User>,
    /// Of the connection, where there is one.
    activity: Option<Arc<Activity>>,
}

impl Service {
    pub(super) fn new(core: Arc<Core>, user: Option<User>) -> Self {
        Self { core, user, activity: None }
    }

    /// Returns the service of one connection.
    pub(super) fn network(core: Arc<Core>, activity: Arc<Activity>) -> Self {
        Self { core, user: None, activity: Some(activity) }
    }

    /// Answers, and keeps the request open until the reply has been sent.
    async fn serve<B>(self, request: Request<B>) -> Response<Body>
    where
        B: hyper::body::Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let open = self.activity.as_ref().map(Activity::begin);
        let response = self.answer(request).await;
        match open {
            Some(open) => response.map(|body| body.until_sent(open)),
            None => response,
        }
    }

    async fn answer<B>(self, request: Request<B>) -> Response<Body>
    where
        B: hyper::body::Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let user = match self.user {
            Some(user) => user,
            None => match bearer(&self.core, &parts) {
                Ok(user) => {
                    if let Some(activity) = &self.activity
                        && user.is_in(AUTHENTICATED)
                    {
                        activity.recognise();
                    }
                    user
                }
                Err(status) => return wire::refuse(&status.into()),
            },
        };
        // Nobody's body is read before it is known that they may send one.
        let wants_body = match wire::wants_body(&self.core, &user, &parts) {
            Ok(wants_body) => wants_body,
            Err(failure) => return wire::refuse(&failure),
        };
        if !wants_body {
            return wire::answer(&self.core, user, &parts, Bytes::new()).await;
        }
        let bytes_max = match length(&body) {
            Ok(bytes_max) => bytes_max,
            Err(failure) => return wire::refuse(&failure),
        };
        // Requests in process are the embedder's own. Admission may make one on behalf of another, and must not wait
        // for that one's place.
        let _place = match &self.activity {
            None => None,
            Some(_) => match self.core.bodies.place(bytes_max).await {
                Ok(place) => Some(place),
                Err(status) => return wire::refuse(&status.into()),
            },
        };
        match read(body).await {
            Ok(body) => wire::answer(&self.core, user, &parts, body).await,
            Err(failure) => wire::refuse(&failure),
        }
    }
}

/// Returns how many bytes a body may have.
fn length<B: hyper::body::Body>(body: &B) -> Result<usize, Failure> {
    let hint = body.size_hint();
    if hint.lower() > BODY_BYTES_MAX as u64 {
        return Err(Status::too_large(BODY_BYTES_MAX).into());
    }
    let upper = hint.upper().and_then(|upper| usize::try_from(upper).ok());
    Ok(upper.unwrap_or(BODY_BYTES_MAX).min(BODY_BYTES_MAX))
}

/// Reads a body to its end.
async fn read<B>(body: B) -> Result<Bytes, Failure>
where
    B: hyper::body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let body = Limited::new(body, BODY_BYTES_MAX).collect();
    let Ok(body) = tokio::time::timeout(BODY_TIME_MAX, body).await else {
        return Err(Status::timeout("the body of the request did not arrive", 1).into());
    };
    match body {
        Ok(body) => {
            let mut body = body.aggregate();
            Ok(body.copy_to_bytes(body.remaining()))
        }
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => {
            Err(Status::too_large(BODY_BYTES_MAX).into())
        }
        // Half a body is none: what is missing may be what makes the request harmless.
        Err(error) => Err(Status::bad_request(format!("cannot read the body of the request: {error}")).into()),
    }
}

/// Returns the user of a request that came over the network.
fn bearer(core: &Core, parts: &http::request::Parts) -> Result<User, Status> {
    let Some(header) = wire::header(&parts.headers, "authorization") else { return Ok(User::anonymous()) };
    let token = header.strip_prefix("Bearer ").or_else(|| header.strip_prefix("bearer "));
    let token = token.ok_or_else(Status::unauthorized)?.trim();
    let checked = core.tokens.check(&core.store, token, &[ISSUER], Timestamp::now());
    checked.map(|(user, _)| user).map_err(|_| Status::unauthorized())
}

impl<B> tower::Service<Request<B>> for Service
where
    B: hyper::body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let service = self.clone();
        if request.method() == http::Method::GET {
            return Box::pin(async move { Ok(service.serve(request).await) });
        }
        // A task of its own: a client that goes away must not cut a write off between the store and the catalog.
        let task = tokio::spawn(service.serve(request));
        Box::pin(async move { Ok(task.await.unwrap_or_else(|error| wire::refuse(&Status::internal(error).into()))) })
    }
}

//! The server as a `tower` service: the one entrance of in-process clients and of TLS connections.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Buf;
use embedded_apimachinery::Status;
use http::{Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use jiff::Timestamp;

use super::activity::Activity;
use crate::auth::ISSUER;
use crate::core::Core;
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
        let body = Limited::new(body, BODY_BYTES_MAX).collect();
        let Ok(body) = tokio::time::timeout(BODY_TIME_MAX, body).await else {
            return wire::refuse(&Status::timeout("the body of the request did not arrive", 1).into());
        };
        let body = match body {
            Ok(body) => {
                let mut body = body.aggregate();
                body.copy_to_bytes(body.remaining())
            }
            Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => {
                return wire::refuse(&Status::too_large(BODY_BYTES_MAX).into());
            }
            // Half a body is none: what is missing may be what makes the request harmless.
            Err(error) => {
                let text = format!("cannot read the body of the request: {error}");
                return wire::refuse(&Status::bad_request(text).into());
            }
        };
        wire::answer(&self.core, user, &parts, body).await
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

//! The server as a `tower` service: the one entrance of in-process clients and of TLS connections.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use embedded_apimachinery::Status;
use http::{Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use jiff::Timestamp;

use crate::core::Core;
use crate::http::{self as wire, BODY_BYTES_MAX, Body};
use crate::user::User;

/// Answers HTTP requests, either all as one user or each as its bearer token says.
#[derive(Clone, Debug)]
pub struct Service {
    core: Arc<Core>,
    user: Option<User>,
}

impl Service {
    pub(super) fn new(core: Arc<Core>, user: Option<User>) -> Self {
        Self { core, user }
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
                Ok(user) => user,
                Err(status) => return wire::refuse(&status.into()),
            },
        };
        let body = match Limited::new(body, BODY_BYTES_MAX).collect().await {
            Ok(body) => {
                let mut body = body.aggregate();
                body.copy_to_bytes(body.remaining())
            }
            Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => {
                return wire::refuse(&Status::too_large(BODY_BYTES_MAX).into());
            }
            Err(_) => Bytes::new(),
        };
        wire::answer(&self.core, user, &parts, body).await
    }
}

/// Returns the user of a request that came over the network.
fn bearer(core: &Core, parts: &http::request::Parts) -> Result<User, Status> {
    let Some(header) = wire::header(&parts.headers, "authorization") else { return Ok(User::anonymous()) };
    let token = header.strip_prefix("Bearer ").or_else(|| header.strip_prefix("bearer "));
    let token = token.ok_or_else(Status::unauthorized)?.trim();
    core.tokens.check(&core.store, token, Timestamp::now()).ok_or_else(Status::unauthorized)
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
            return Box::pin(async move { Ok(service.answer(request).await) });
        }
        // A task of its own: a client that goes away must not cut a write off between the store and the catalog.
        let task = tokio::spawn(service.answer(request));
        Box::pin(async move { Ok(task.await.unwrap_or_else(|error| wire::refuse(&Status::internal(error).into()))) })
    }
}

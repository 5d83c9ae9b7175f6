//! Requests to the API server as spans of the pass that sends them.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::task::{Context as TaskContext, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response};
use kube::Client;
use kube::client::Body;
use opentelemetry::trace::{SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;
use tower::Service;

use super::pass::from_own;

/// Requests for other objects get no span.
const GROUP: &str = "/apis/platform.kratix.io/";

tokio::task_local! {
    static CURRENT: Arc<Current>;
}

/// The span that requests of this task belong to.
struct Current {
    span: Context,
    tracer: SdkTracer,
    client: OnceLock<Client>,
}

/// Runs `pass` so that requests sent through [`client`] belong to `span`.
pub(super) async fn within<T>(span: Context, tracer: SdkTracer, pass: impl Future<Output = T>) -> T {
    let current = Arc::new(Current { span, tracer, client: OnceLock::new() });
    CURRENT.scope(current, pass).await
}

/// Returns a client whose requests belong to the span of this task; `platform` itself without one.
pub(crate) fn client(platform: &Client) -> Client {
    CURRENT.try_with(|current| current.client(platform)).unwrap_or_else(|_| platform.clone())
}

impl Current {
    fn client(&self, platform: &Client) -> Client {
        let client = self.client.get_or_init(|| {
            let traced = Traced { platform: platform.clone(), span: self.span.clone(), tracer: self.tracer.clone() };
            Client::new(traced, platform.default_namespace())
        });
        client.clone()
    }
}

/// Sends requests as child spans.
struct Traced {
    platform: Client,
    span: Context,
    tracer: SdkTracer,
}

impl Service<Request<Body>> for Traced {
    type Response = Response<Body>;
    type Error = kube::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, kube::Error>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), kube::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let platform = self.platform.clone();
        if !request.uri().path().contains(GROUP) {
            return async move { platform.send(request).await }.boxed();
        }
        let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
        let span = self
            .tracer
            .span_builder(format!("k8s {method} {path}"))
            .with_kind(SpanKind::Client)
            .with_attributes([KeyValue::new("http.request.method", method), KeyValue::new("url.path", path)])
            .start_with_context(&self.tracer, &self.span);
        let cx = Context::new().with_span(span);
        let context = from_own(&cx);
        let headers = [("traceparent", context.to_string()), ("tracestate", context.state)];
        for (name, value) in headers.into_iter().filter(|(_, value)| !value.is_empty()) {
            if let Ok(value) = HeaderValue::try_from(value) {
                request.headers_mut().insert(name, value);
            }
        }
        async move {
            let result = platform.send(request).await;
            let span = cx.span();
            match &result {
                Ok(response) => {
                    let code = response.status();
                    span.set_attribute(KeyValue::new("http.response.status_code", i64::from(code.as_u16())));
                    if code.is_client_error() || code.is_server_error() {
                        span.set_status(Status::error(code.to_string()));
                    }
                }
                Err(error) => span.set_status(Status::error(error.to_string())),
            }
            span.end();
            result
        }
        .boxed()
    }
}

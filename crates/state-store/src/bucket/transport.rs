//! The exchanges with an object store's servers: HTTP/1.1 over whatever connections there are.

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpService,
};

use super::answer::{self, Answer, Last};
use super::service::PAUSE_MAX;
use crate::config::{Proxies, Tls};
use crate::connection::{self, Connector, Trust};
use crate::error::Trouble;

/// How long a connection is kept for the next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest answer: a file that is read back, or a page of a listing.
const ANSWER_BYTES_MAX: usize = 128 << 20;
const TOO_LONG: &str = "its answer has more than 128 MiB";

/// Makes the exchanges of one store. Clones share connections.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    client: Client<Connector, HttpRequestBody>,
    connector: Connector,
    /// How long one exchange may take.
    timeout: Duration,
}

impl Transport {
    pub(super) fn new(tls: &Tls, proxies: &Proxies, timeout: Duration) -> Result<Self, Trouble> {
        let connector = Connector::new(tls, Trust::Beside, proxies, timeout)?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(connector.clone());
        Ok(Self { client, connector, timeout })
    }

    /// Asks for headers without credentials.
    pub(super) async fn head(&self, url: &str) -> Result<http::HeaderMap, Trouble> {
        let request = http::Request::head(url).body(HttpRequestBody::empty());
        let request = request.map_err(|error| Trouble::Config(format!("address {url:?} is none: {error}")))?;
        match self.exchange(request).await {
            Ok(response) => Ok(response.headers().clone()),
            Err((trouble, _)) => Err(trouble),
        }
    }

    async fn exchange(&self, mut request: HttpRequest) -> Result<http::Response<Bytes>, (Trouble, HttpErrorKind)> {
        let agent = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
        request.headers_mut().entry(http::header::USER_AGENT).or_insert(http::HeaderValue::from_static(agent));
        if let Some(authorization) = self.connector.authorization(request.uri()) {
            request.headers_mut().insert(http::header::PROXY_AUTHORIZATION, authorization);
        }
        let exchange = async {
            let host = request.uri().host().unwrap_or_default().to_owned();
            let response = self.client.request(request).await.map_err(|error| {
                // Everything that is asked of a store can be asked twice.
                (connection::trouble(&host, &error), HttpErrorKind::Request)
            })?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| match error
                .is::<LengthLimitError>()
            {
                true => (Trouble::Answer(TOO_LONG.to_owned()), HttpErrorKind::Unknown),
                false => (Trouble::Unreachable(connection::last_cause(&*error)), HttpErrorKind::Request),
            })?;
            Ok(http::Response::from_parts(parts, body.to_bytes()))
        };
        let timeout = (Trouble::Timeout(self.timeout), HttpErrorKind::Timeout);
        tokio::time::timeout(self.timeout, exchange).await.unwrap_or(Err(timeout))
    }
}

#[async_trait]
impl HttpService for Transport {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let host = request.uri().authority().map_or("", |authority| authority.as_str()).to_owned();
        match self.exchange(request).await {
            Ok(response) => {
                let (mut parts, body) = response.into_parts();
                if parts.status.is_success() {
                    answer::note(Last::Well { host });
                    return Ok(HttpResponse::from_parts(parts, body.into()));
                }
                let refusal = Answer::read(&host, parts.status, &parts.headers, &body);
                // What a server does not know it will not know the next time either, and who asks to be left alone is.
                if parts.status == StatusCode::NOT_IMPLEMENTED || refusal.retry_after > Some(PAUSE_MAX) {
                    parts.status = StatusCode::METHOD_NOT_ALLOWED;
                }
                answer::note(Last::Answer(refusal));
                Ok(HttpResponse::from_parts(parts, body.into()))
            }
            Err((trouble, kind)) => {
                let text = trouble.to_string();
                // What does not go away by itself is not tried again.
                let kind = match trouble {
                    Trouble::Untrusted(_)
                    | Trouble::UnknownHost(_)
                    | Trouble::NotTls
                    | Trouble::Authority { .. }
                    | Trouble::Config(_) => HttpErrorKind::Unknown,
                    _ => kind,
                };
                answer::note(Last::Silence { host, trouble });
                Err(HttpError::new(kind, io::Error::other(text)))
            }
        }
    }
}

impl HttpConnector for Transport {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

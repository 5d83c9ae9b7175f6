//! The HTTP client of exporters: on the runtime of the process, since exporters call it from threads of their own.

use std::time::Duration;

use async_trait::async_trait;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{Bytes, HttpError};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::Handle;

use super::export::CERTIFICATE;

/// Longest answer that is read; collectors answer in a few bytes.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Longest time for one request, as the default of `OTEL_EXPORTER_OTLP_TIMEOUT`.
const REQUEST_MAX: Duration = Duration::from_secs(10);

/// Why TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("{CERTIFICATE} names a file without readable certificates: {0}")]
    Certificate(String),
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// Sends requests of exporters.
#[derive(Clone, Debug)]
pub(super) struct HttpClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: Handle,
}

impl HttpClient {
    /// Returns a client that trusts the system's authorities and those in `pem`. Must be called inside the runtime.
    pub(super) fn new(pem: Option<&[u8]>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(pem) = pem {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| TlsError::Certificate(error.to_string()))?;
                roots.add(certificate).map_err(|error| TlsError::Certificate(error.to_string()))?;
            }
        }
        let provider = rustls::crypto::ring::default_provider();
        let tls = ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, runtime: Handle::current() })
    }
}

#[async_trait]
impl opentelemetry_http::HttpClient for HttpClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let exchange = async move {
            let (parts, body) = client.request(request.map(Full::new)).await?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?;
            Ok::<_, HttpError>(Response::from_parts(parts, body.to_bytes()))
        };
        self.runtime.spawn(async move { tokio::time::timeout(REQUEST_MAX, exchange).await }).await??
    }
}

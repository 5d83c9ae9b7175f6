//! Exporters of spans and metrics to a collector.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use kratix_core::config::{Protocol, Telemetry};
use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig};
use opentelemetry_otlp::{
    ExporterBuildError, MetricExporter, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::SpanData;

use super::http::{HttpClient, TlsError};

/// Names a file with authorities in PEM that are trusted beside those of the system.
pub(super) const CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE";

pub(super) type Spans = Reported<SpanExporter>;
pub(super) type Metrics = Reported<MetricExporter>;

/// The exporters of one configuration.
#[derive(Default)]
pub(super) struct Exporters {
    pub(super) spans: Option<Spans>,
    pub(super) metrics: Option<Metrics>,
    pub(super) is_exporting: bool,
}

/// Why there are no exporters.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Exporter(#[from] ExporterBuildError),
    /// Values of headers are secret.
    #[error("telemetry header {name:?} has a name or a value that HTTP does not allow")]
    Header { name: String },
    #[error("reading {path:?}, which {CERTIFICATE} names, failed: {cause}")]
    Certificate { path: String, cause: std::io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Exporters {
    /// Makes the exporters; nothing is connected before there is something to send.
    pub(super) fn new(config: &Telemetry) -> Result<Self, Error> {
        let Some(endpoint) = &config.endpoint else { return Ok(Self::default()) };
        let scheme = if config.insecure { "http" } else { "https" };
        let address = if endpoint.contains("://") { endpoint.clone() } else { format!("{scheme}://{endpoint}") };
        let (spans, metrics) = match config.protocol {
            Protocol::Grpc => grpc(config, &address)?,
            Protocol::Http => over_http(config, address.trim_end_matches('/'))?,
        };
        Ok(Self {
            spans: config.traces.then(|| Reported::new("traces", spans)),
            metrics: config.metrics.then(|| Reported::new("metrics", metrics)),
            is_exporting: true,
        })
    }
}

fn grpc(config: &Telemetry, address: &str) -> Result<(SpanExporter, MetricExporter), Error> {
    let metadata = MetadataMap::from_headers(headers(config)?);
    let mut tls = None;
    if address.starts_with("https://") {
        let roots = ClientTlsConfig::new().with_native_roots();
        tls = Some(match certificates()? {
            Some(pem) => roots.ca_certificate(Certificate::from_pem(pem)),
            None => roots,
        });
    }
    let mut spans = SpanExporter::builder().with_tonic().with_endpoint(address).with_metadata(metadata.clone());
    let mut metrics = MetricExporter::builder().with_tonic().with_endpoint(address).with_metadata(metadata);
    if let Some(tls) = tls {
        spans = spans.with_tls_config(tls.clone());
        metrics = metrics.with_tls_config(tls);
    }
    Ok((spans.build()?, metrics.build()?))
}

fn over_http(config: &Telemetry, address: &str) -> Result<(SpanExporter, MetricExporter), Error> {
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let headers: HashMap<String, String> =
        headers(config)?.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let client = HttpClient::new(certificates()?.as_deref())?;
    let spans = SpanExporter::builder()
        .with_http()
        .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
        .with_http_client(client.clone())
        .with_endpoint(format!("{address}/v1/traces"))
        .with_headers(headers.clone());
    let metrics = MetricExporter::builder()
        .with_http()
        .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
        .with_http_client(client)
        .with_endpoint(format!("{address}/v1/metrics"))
        .with_headers(headers);
    Ok((spans.build()?, metrics.build()?))
}

fn headers(config: &Telemetry) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    for (name, value) in &config.headers {
        let refused = || Error::Header { name: name.clone() };
        let key = HeaderName::try_from(name).map_err(|_| refused())?;
        let mut value = HeaderValue::try_from(value).map_err(|_| refused())?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(headers)
}

fn certificates() -> Result<Option<Vec<u8>>, Error> {
    let Some(path) = std::env::var(CERTIFICATE).ok().filter(|path| !path.is_empty()) else { return Ok(None) };
    match std::fs::read(&path) {
        Ok(pem) => Ok(Some(pem)),
        Err(cause) => Err(Error::Certificate { path, cause }),
    }
}

/// An exporter whose first failure and recovery are logged: nothing else would tell that a collector is not reached.
pub(super) struct Reported<E> {
    signal: &'static str,
    exporter: E,
    is_failing: AtomicBool,
}

impl<E> Reported<E> {
    fn new(signal: &'static str, exporter: E) -> Self {
        Self { signal, exporter, is_failing: AtomicBool::new(false) }
    }

    fn report(&self, outcome: OTelSdkResult) -> OTelSdkResult {
        let was_failing = self.is_failing.swap(outcome.is_err(), Ordering::Relaxed);
        match &outcome {
            Err(error) if !was_failing => {
                tracing::warn!(logger = "telemetry", signal = self.signal, %error, "telemetry cannot be exported");
            }
            Ok(()) if was_failing => {
                tracing::info!(logger = "telemetry", signal = self.signal, "telemetry is exported again");
            }
            _ => {}
        }
        outcome
    }
}

impl<E> fmt::Debug for Reported<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reported").field("signal", &self.signal).finish_non_exhaustive()
    }
}

impl<E: opentelemetry_sdk::trace::SpanExporter> opentelemetry_sdk::trace::SpanExporter for Reported<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.report(self.exporter.export(batch).await)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl<E: PushMetricExporter> PushMetricExporter for Reported<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        self.report(self.exporter.export(metrics).await)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}

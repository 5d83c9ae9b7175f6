//! Traces and metrics: counted always, exported as configured.
//!
//! Counters live in [`Metrics`], whatever the configuration says; an exporter reads them. Spans exist only while tracing is
//! on. A changed configuration takes effect at once: new exporters are made, the old ones send what they have.
//!
//! # Source
//! `06-operations.md` §10

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kratix_api::ObjectMeta;
use kratix_core::config;
use kratix_core::trace::{self, Subject};
use opentelemetry_sdk::metrics::{Instrument, SdkMeterProvider, Stream};
use opentelemetry_sdk::trace::SdkTracerProvider;
use parking_lot::Mutex;

mod export;
mod http;
mod metrics;
mod pass;
mod requests;
mod resource;

pub use self::metrics::Metrics;
pub(crate) use self::pass::Pass;
pub(crate) use self::requests::client;

/// How long what is left may take to reach the collector when the process ends.
const FLUSH_MAX: Duration = Duration::from_secs(5);

/// Traces and metrics of the process.
#[derive(Default)]
pub(crate) struct Telemetry {
    metrics: Metrics,
    signals: Mutex<Arc<Signals>>,
}

/// What a configuration has switched on.
#[derive(Default)]
struct Signals {
    config: Option<config::Telemetry>,
    tracer: Option<SdkTracerProvider>,
    meter: Option<SdkMeterProvider>,
}

impl Telemetry {
    /// Switches on what `config` says, and nothing without it. Must be called inside a runtime: exporters use it.
    pub(crate) fn start(config: Option<&config::Telemetry>) -> Self {
        let telemetry = Self::default();
        let signals = Signals::start(config, &telemetry.metrics);
        *telemetry.signals.lock() = Arc::new(signals);
        telemetry
    }

    /// Returns what is counted.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Follows a change of the configuration; nothing happens if it is the present one.
    pub(crate) fn follow(&self, config: Option<&config::Telemetry>) {
        if self.signals.lock().config.as_ref() == config {
            return;
        }
        let signals = Arc::new(Signals::start(config, &self.metrics));
        let before = std::mem::replace(&mut *self.signals.lock(), signals);
        drop(retire(before));
    }

    /// Sends what is left, for at most [`FLUSH_MAX`].
    pub(crate) async fn stop(&self) {
        let signals = std::mem::take(&mut *self.signals.lock());
        if tokio::time::timeout(FLUSH_MAX, retire(signals)).await.is_err() {
            tracing::warn!("telemetry could not be sent in time and is lost");
        }
    }

    /// Begins a pass over an object: with a span if tracing is on.
    pub(crate) fn begin(&self, metadata: &ObjectMeta, now: Timestamp, subject: impl FnOnce() -> Subject) -> Pass {
        let signals = Arc::clone(&self.signals.lock());
        let pass = match &signals.tracer {
            Some(provider) => Pass::traced(provider, metadata, now, subject()),
            None => Pass::untraced(trace::SpanContext::of(metadata)),
        };
        pass.label_logs();
        pass
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        drop(retire(std::mem::take(&mut *self.signals.lock())));
    }
}

/// Shuts providers down on a thread of its own: it blocks, and what it waits for may need the runtime.
fn retire(signals: Arc<Signals>) -> impl Future<Output = ()> {
    let (sender, done) = tokio::sync::oneshot::channel();
    let has_any = signals.tracer.is_some() || signals.meter.is_some();
    let end = move || {
        signals.end();
        // Nobody has to wait for it.
        let _ = sender.send(());
    };
    let thread = has_any.then(|| std::thread::Builder::new().name("telemetry-end".into()).spawn(end));
    if let Some(Err(error)) = thread {
        tracing::warn!(%error, "telemetry could not be sent and is lost");
    }
    async move {
        let _ = done.await;
    }
}

impl Signals {
    fn start(config: Option<&config::Telemetry>, metrics: &Metrics) -> Self {
        let Some(config) = config.filter(|config| config.traces || config.metrics) else {
            tracing::info!(logger = "telemetry", "OpenTelemetry tracing and metrics disabled via configuration");
            return Self { config: config.cloned(), ..Self::default() };
        };
        let exporters = match export::Exporters::new(config) {
            Ok(exporters) => exporters,
            Err(error) => {
                tracing::error!(logger = "telemetry", %error, "unable to create OTLP exporters");
                export::Exporters::default()
            }
        };
        let endpoint = config.endpoint.as_deref().unwrap_or_default();
        let tracer = config.traces.then(|| tracer(exporters.spans));
        let has_meter = config.metrics && exporters.metrics.is_some();
        match (config.traces, exporters.is_exporting) {
            (true, true) => tracing::info!(logger = "telemetry", endpoint, "OpenTelemetry tracing enabled"),
            (true, false) => {
                tracing::info!(logger = "telemetry", "OpenTelemetry tracing configured without exporter");
            }
            (false, _) => tracing::info!(logger = "telemetry", "OpenTelemetry tracing disabled via configuration"),
        }
        match (config.metrics, has_meter) {
            (true, true) => tracing::info!(logger = "telemetry", endpoint, "OpenTelemetry metrics enabled"),
            (true, false) => {
                tracing::info!(logger = "telemetry", "OpenTelemetry metrics configured without exporter");
            }
            (false, _) => tracing::info!(logger = "telemetry", "OpenTelemetry metrics disabled via configuration"),
        }
        let meter = exporters.metrics.filter(|_| config.metrics).map(|exporter| meter(exporter, metrics));
        Self { config: Some(config.clone()), tracer, meter }
    }

    fn end(&self) {
        // Both at once: the limit is for all of it.
        std::thread::scope(|scope| {
            scope.spawn(|| self.meter.as_ref().map(SdkMeterProvider::shutdown));
            if let Some(Err(error)) = self.tracer.as_ref().map(|tracer| tracer.shutdown_with_timeout(FLUSH_MAX)) {
                tracing::debug!(%error, "spans could not be sent at the end");
            }
        });
    }
}

fn tracer(exporter: Option<export::Spans>) -> SdkTracerProvider {
    let builder = SdkTracerProvider::builder().with_resource(resource::resource());
    match exporter {
        Some(exporter) => builder.with_batch_exporter(exporter).build(),
        None => builder.build(),
    }
}

fn meter(exporter: export::Metrics, metrics: &Metrics) -> SdkMeterProvider {
    // The limit is that of what is counted, with room for those that count the rest.
    let all = |_: &Instrument| {
        Stream::builder().with_cardinality_limit(metrics::SERIES_MAX + metrics::RESULTS_MAX).build().ok()
    };
    let provider = SdkMeterProvider::builder()
        .with_resource(resource::resource())
        .with_view(all)
        .with_periodic_exporter(exporter)
        .build();
    metrics.register(&provider);
    provider
}

//! Settings of traces and metrics.

use std::collections::BTreeMap;

use super::reader::Section;

/// Traces and metrics.
#[derive(Clone, PartialEq, Eq)]
pub struct Telemetry {
    /// `host:port` of the collector; `None`: nothing is exported.
    pub endpoint: Option<String>,
    /// Wire protocol.
    pub protocol: Protocol,
    /// Plain text instead of TLS.
    pub insecure: bool,
    /// Sent with each export; values are secret.
    pub headers: BTreeMap<String, String>,
    /// Whether spans and trace annotations are produced.
    pub traces: bool,
    /// Whether counters are produced.
    pub metrics: bool,
}

/// Header values are credentials and are not shown.
impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telemetry")
            .field("endpoint", &self.endpoint)
            .field("protocol", &self.protocol)
            .field("insecure", &self.insecure)
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("traces", &self.traces)
            .field("metrics", &self.metrics)
            .finish()
    }
}

/// Wire protocol of telemetry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP over gRPC.
    #[default]
    Grpc,
    /// OTLP over HTTP.
    Http,
}

impl Telemetry {
    pub(super) fn read(section: &mut Section) -> Self {
        let endpoint = section.text("endpoint").map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let protocol = match section.text("protocol").unwrap_or_default().trim() {
            "" | "grpc" => Protocol::Grpc,
            "http" | "http/protobuf" => Protocol::Http,
            other => {
                section.unreadable("protocol", &other.into(), "grpc or http");
                Protocol::Grpc
            }
        };
        let insecure = section.flag("insecure", false);
        let headers = section.headers("headers");
        let traces = section.within("traces", |signal| signal.flag("enabled", true));
        let metrics = section.within("metrics", |signal| signal.flag("enabled", true));
        Self { endpoint, protocol, insecure, headers, traces, metrics }
    }
}

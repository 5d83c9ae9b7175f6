//! `/metrics`: the API server asks the controllers, which start later than the server.

use std::sync::OnceLock;

use embedded_apiserver::Exposition;

/// Reads what the controllers count, once they run.
#[derive(Default)]
pub(crate) struct Metrics(OnceLock<kratix_controllers::Metrics>);

impl Metrics {
    /// Connects the controllers. Only the first call counts.
    pub(crate) fn connect(&self, metrics: kratix_controllers::Metrics) {
        let _ = self.0.set(metrics);
    }
}

impl Exposition for Metrics {
    fn exposition(&self) -> String {
        self.0.get().map(kratix_controllers::Metrics::exposition).unwrap_or_default()
    }
}

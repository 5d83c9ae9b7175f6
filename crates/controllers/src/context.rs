//! What every controller reaches: the caches it observes, the API it acts on.

use std::sync::Arc;

use kratix_core::config::Config;
use kratix_core::plan::Plan;
use kube::Client;
use tokio::sync::watch;

use crate::act;
use crate::caches::Caches;
use crate::error::Error;
use crate::events::Events;
use crate::options::Options;

/// Shared by all controllers of the process.
pub(crate) struct Context {
    /// The platform cluster.
    pub(crate) platform: Client,
    /// Its watched objects.
    pub(crate) caches: Caches,
    /// Where events go.
    pub(crate) events: Events,
    /// The platform configuration as last read.
    pub(crate) config: watch::Receiver<Arc<Config>>,
    /// How the process was started.
    pub(crate) options: Options,
}

impl Context {
    /// Executes a plan.
    pub(crate) async fn act<F>(&self, plan: &Plan<F>) -> Result<(), Error> {
        act::act(&self.platform, &self.events, plan).await
    }

    /// Returns the platform configuration as last read.
    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    /// Returns the time, the only one a snapshot carries.
    pub(crate) fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }
}

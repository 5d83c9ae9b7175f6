//! What every controller reaches: the caches it observes, the API it acts on.

use std::sync::Arc;

use kratix_core::config::Config;
use kratix_core::plan::Plan;
use kube::Client;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::act::{self, Acted};
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
        self.execute(plan).await.outcome
    }

    /// Executes a plan and tells what was made, also when a later write failed.
    pub(crate) async fn execute<F>(&self, plan: &Plan<F>) -> Acted {
        act::act(&self.platform, &self.events, plan).await
    }

    /// Returns the platform configuration as last read.
    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    /// Calls `observer` whenever the interval has changed at which what is in the stores is written again.
    pub(crate) fn on_interval_change(self: &Arc<Self>, observer: impl Fn() + Send + Sync + 'static) {
        let known = Mutex::new(self.config().state_store_reconciliation_interval);
        let context = Arc::downgrade(self);
        self.caches.config.on_change(move |_, _| {
            let Some(context) = context.upgrade() else { return };
            let now = context.config().state_store_reconciliation_interval;
            if std::mem::replace(&mut *known.lock(), now) != now {
                observer();
            }
        });
    }

    /// Returns the time, the only one a snapshot carries.
    pub(crate) fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }
}

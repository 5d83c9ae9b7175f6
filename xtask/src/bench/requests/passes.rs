//! Counts the passes of this process's controllers.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};

/// Passes so far, by controller.
#[derive(Clone, Default)]
pub(super) struct Passes(Arc<Mutex<BTreeMap<String, u64>>>);

impl Passes {
    /// Begins to count, for as long as the process lives.
    pub(super) fn count() -> anyhow::Result<Self> {
        let passes = Self::default();
        tracing::subscriber::set_global_default(passes.clone())?;
        Ok(passes)
    }

    pub(super) fn so_far(&self) -> BTreeMap<String, u64> {
        self.0.lock().clone()
    }
}

impl tracing::Subscriber for Passes {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_span() && metadata.name() == "pass"
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        struct Controller(String);
        impl Visit for Controller {
            fn record_str(&mut self, field: &Field, value: &str) {
                if field.name() == "controller" {
                    value.clone_into(&mut self.0);
                }
            }

            fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
        }
        let mut controller = Controller(String::new());
        attributes.record(&mut controller);
        *self.0.lock().entry(controller.0).or_default() += 1;
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &tracing::Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

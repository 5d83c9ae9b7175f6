//! Since when a store owes an answer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What a store is being asked, as far as those who wait may know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exchange(Arc<Mutex<Option<Instant>>>);

impl Exchange {
    /// Notes that the store is asked something, until the value is dropped.
    pub(crate) fn begin(&self) -> Asked {
        self.set(Some(Instant::now()));
        Asked(self.clone())
    }

    /// Returns for how long the store has owed an answer.
    pub(crate) fn age(&self) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map(|since| since.elapsed())
    }

    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }
}

/// A question that is not answered yet.
pub(crate) struct Asked(Exchange);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

//! When a worker looks at its pod again although nothing has happened.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// When to look again although nothing has happened.
#[derive(Default)]
pub(super) struct Wake {
    at: Option<Timestamp>,
}

impl Wake {
    pub(super) fn at(&mut self, at: Timestamp) {
        self.at = Some(self.at.map_or(at, |known| known.min(at)));
    }

    pub(super) fn maybe(&mut self, at: Option<Timestamp>) {
        if let Some(at) = at {
            self.at(at);
        }
    }

    pub(super) fn until(&self, now: Timestamp) -> Duration {
        // Without a reason to wake an hour is as good as never, and heals whatever was forgotten.
        let at = self.at.map_or(SignedDuration::from_hours(1), |at| at.duration_since(now));
        Duration::try_from(at).unwrap_or(Duration::ZERO)
    }
}

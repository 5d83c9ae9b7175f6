//! Stopping Jobs whose outcome nobody wants any more.
//!
//! # Source
//! `02-workflows.md` §8.4, §11.1

use k8s_openapi::api::batch::v1;
use kratix_api::pipeline::Action;

use super::{Outcome, Snapshot, history};
use crate::object::Target;
use crate::plan::{Event, Write};

/// Reason of the event that tells of a Job that is stopped.
pub(crate) const PIPELINE_SUSPENDED: &str = "PipelineSuspended";

/// Returns the write that stops a running Job, as it was seen: what is told of it is told once, and by whoever has done it.
pub(crate) fn stop(job: &v1::Job) -> Write {
    Write::Patch { target: Target::of(job), patch: serde_json::json!({ "spec": { "suspend": true } }) }
}

/// Returns what is told of a Job that is stopped.
pub(crate) fn stopped(job: &v1::Job) -> String {
    let action = match history::action(job) {
        Action::Configure => "Configure",
        Action::Delete => "Delete",
    };
    format!("{action} Pipeline suspended: {}", history::pipeline(job))
}

impl Outcome {
    /// Adds the write that stops a Job, and the event that tells of it.
    pub(super) fn stop(&mut self, snapshot: &Snapshot<'_>, job: &v1::Job) {
        let stop = stop(job);
        self.events.push(snapshot.event(Event::normal, PIPELINE_SUSPENDED, stopped(job)).of(&stop));
        self.writes.push(stop);
    }
}

impl Snapshot<'_> {
    /// Stops a running Job whose outcome nobody wants any more and that may wait for ever (an image that is not there, a node
    /// that is never free); returns whether it does. What has begun is left to end by itself.
    pub(super) fn stop_before_start(&self, job: &v1::Job, outcome: &mut Outcome) -> bool {
        let stops = !history::is_told_to_suspend(job) && self.surroundings.sight(job).is_before_start();
        if stops {
            outcome.stop(self, job);
        }
        stops
    }
}

//! Whether a Promise takes requests.
//!
//! # Source
//! `03-promises.md` §14.1, §25 (2–6); decision 15

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use kratix_api::condition::Status;
use kratix_api::pipeline::Action;

use super::{Finding, Seen, Walk, Workflows, api, requirement, revision};
use crate::workflow::history;

/// Sets the three signals of availability: condition, `status` and `kratix.status`.
pub(super) fn keep(walk: &mut Walk<'_>, seen: &Seen) {
    let snapshot = walk.snapshot;
    if seen.workflow == Workflows::Suspended {
        walk.status.set_available(Status::False, "WorkflowSuspended", "Suspended");
        return;
    }
    if !is_available(walk, seen) {
        walk.status.set_available(Status::False, "PromiseUnavailable", "Cannot fulfil resource requests");
        return;
    }
    walk.findings.push(Finding::Available);
    if walk.status.set_available(Status::True, "PromiseAvailable", "Ready to fulfil resource requests") {
        walk.events.push(snapshot.normal("Available", "Promise is available"));
    }
}

fn is_available(walk: &Walk<'_>, seen: &Seen) -> bool {
    let was_available = walk.status.was_available();
    let has_workflow_run = match seen.workflow {
        Workflows::Finished => true,
        // Running the same spec once more changes nothing for those who use it.
        Workflows::InProgress => was_available && is_rerun(walk),
        Workflows::Relabelled | Workflows::Held | Workflows::Suspended | Workflows::Failed => false,
    };
    // The first request must find a latest revision; later a change of revision does not take the Promise down.
    let has_revision = seen.revision == revision::State::Latest || was_available;
    let has_api = match seen.api {
        api::State::Absent | api::State::Established => true,
        // A new schema on the way replaces one that is served.
        api::State::Changing => was_available,
        api::State::Pending | api::State::Refused => false,
    };
    seen.requirements == requirement::State::Fulfilled && has_workflow_run && has_revision && has_api
}

/// Returns whether the workflow has been completed with this spec before.
fn is_rerun(walk: &Walk<'_>) -> bool {
    let snapshot = walk.snapshot;
    let generation = snapshot.generation();
    // Generation 1 is not always on record: the original never wrote it.
    if walk.status.stored().observed_generation == generation || generation == 1 {
        return true;
    }
    // Requests may still be told of this generation, a few at a time.
    let Ok(workflow) = snapshot.definition.promise_workflow(snapshot.name(), Action::Configure) else { return false };
    let Some(last) = workflow.pipelines.last() else { return false };
    let is_done = |job: &Arc<Job>| {
        history::belongs_to(job, &workflow, last.name()) && history::state(job) == history::State::Completed
    };
    snapshot.own_jobs.iter().any(is_done)
}

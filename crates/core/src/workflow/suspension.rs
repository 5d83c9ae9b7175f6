//! Suspension: what the label `kratix.io/workflow-suspended` holds back, and what releases it.
//!
//! # Source
//! `02-workflows.md` §10, weaknesses 10, 13, 14, 16, 30

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use kratix_api::condition::{self, Status};
use kratix_api::pipeline::{Action, WorkflowType};
use kratix_api::{Timestamp, keys};
use kube_core::ResourceExt;
use serde_json::json;

use super::configure::next_run_after;
use super::history::History;
use super::status::Document;
use super::{GENERATION, Outcome, Progress, RESUME, Snapshot, failure, retention};
use crate::plan::{Event, Next, Write};
use crate::text::line;

/// Reason of `Reconciled` while the label holds a workflow.
pub(crate) const SUSPENDED: &str = "WorkflowSuspended";
/// Longest message of a pipeline that is repeated.
const MESSAGE_BYTES_MAX: usize = 400;

/// Returns what a deletion waits for while its workflow is held, with the time and the message that its pipeline gave.
pub(crate) fn release(document: &Document) -> String {
    let mut release = format!("label {} to be removed", keys::WORKFLOW_SUSPENDED);
    let suspended = document.suspended();
    if let Some(at) = suspended.and_then(|entry| entry.next_retry_at()) {
        release.push_str(&format!(", or for {}, when its pipeline runs again", line(at, MESSAGE_BYTES_MAX)));
    }
    let message = suspended.map(|entry| line(entry.message(), MESSAGE_BYTES_MAX));
    if let Some(message) = message.filter(|message| !message.is_empty()) {
        release.push_str(": ");
        release.push_str(&message);
    }
    release
}

/// Decides about a workflow whose parent carries the label.
pub(super) fn hold(snapshot: &Snapshot<'_>, history: &History<'_>) -> Outcome {
    let document = snapshot.document();
    if restarts(snapshot, history, &document) {
        let labels =
            [(keys::WORKFLOW_SUSPENDED, None), (keys::MANUAL_RECONCILIATION, None), (keys::RUN_FROM_START, None)];
        // A program that repeats itself may ask for the hold once more while the run that follows it waits for its pod.
        let is_to_come = history.latest().is_some_and(|job| super::history::run(job) < snapshot.parent.run());
        let runs: Vec<_> = (!is_to_come).then(|| snapshot.next_run()).into_iter().collect();
        return snapshot.relabel(&labels, &runs);
    }
    let retry = retry_at(&document);
    if retry.is_some_and(|retry| retry <= snapshot.now) {
        return resume(snapshot, history);
    }
    let mut outcome = held(snapshot, document);
    outcome.writes = retention::removals_while_suspended(snapshot, history);
    // What is held by hand is settled, and the interval overrides the label.
    outcome.next = match retry {
        Some(retry) => Next::After(until(snapshot.now, retry)),
        None => next_run_after(snapshot, &snapshot.document()),
    };
    outcome
}

/// Releases the label, if there is one, and marks the suspended pipeline as to be run again. A pipeline that asks for that again and
/// again leaves no more Jobs than any other.
pub(super) fn resume(snapshot: &Snapshot<'_>, history: &History<'_>) -> Outcome {
    let mark: Vec<_> = history.latest().map(|job| (RESUME, mark(job))).into_iter().collect();
    let mut outcome = snapshot.relabel(&[(keys::WORKFLOW_SUSPENDED, None)], &mark);
    outcome.writes.extend(retention::removals_while_suspended(snapshot, history));
    outcome
}

/// Returns whether [`resume`] has marked the pipeline that the latest Job suspended.
pub(super) fn is_resumed(snapshot: &Snapshot<'_>, history: &History<'_>) -> bool {
    let Some((latest, marked)) = history.latest().zip(snapshot.parent.annotations.get(RESUME)) else { return false };
    *marked == mark(latest) || *marked == number(latest)
}

/// Returns what tells a Job from all others, those of an earlier object of the same name included.
fn mark(job: &Job) -> String {
    job.uid().unwrap_or_else(|| number(job))
}

/// Returns what earlier versions told a Job by. A saved document may hold such a number as well: the engine drops what is there
/// before the first Job.
fn number(job: &Job) -> String {
    super::history::sequence(job).to_string()
}

impl Snapshot<'_> {
    /// Returns the outcome that only drops the mark of [`resume`].
    pub(super) fn forget_resume(&self) -> Outcome {
        let patch = json!({ "annotations": { RESUME: null } });
        let mut outcome = Outcome::new(self.document(), Progress::Relabelled);
        outcome.writes.extend(Write::metadata(self.parent.target.clone(), &patch));
        outcome
    }
}

/// A manual run, or a change of the spec since the suspended pipeline has read it, starts over.
fn restarts(snapshot: &Snapshot<'_>, history: &History<'_>, document: &Document) -> bool {
    // The number stays on record until the run is over, also where the pipeline that asked for the hold has gone on since.
    let suspended = document.suspended().map_or(0, |_| document.suspended_generation());
    let follows_spec =
        snapshot.workflow.action == Action::Configure || snapshot.workflow.kind == WorkflowType::Resource;
    let has_read_another = history.latest().is_some_and(|job| is_of_another_spec(snapshot, job));
    let changed = suspended != 0 && (snapshot.parent.generation > suspended || has_read_another);
    snapshot.parent.has_label(keys::MANUAL_RECONCILIATION) || (follows_spec && changed)
}

/// Returns whether the spec of the parent has changed since the Job was made: its pod notes down the generation only when it asks to
/// be held. What a Promise says does not count for a request.
fn is_of_another_spec(snapshot: &Snapshot<'_>, job: &Job) -> bool {
    match snapshot.workflow.kind {
        WorkflowType::Promise => job.labels().get(keys::HASH).is_some_and(|hash| *hash != snapshot.workflow.hash),
        WorkflowType::Resource => {
            let made_for = job.annotations().get(GENERATION).and_then(|generation| generation.parse::<i64>().ok());
            made_for.is_some_and(|made_for| made_for < snapshot.parent.generation)
        }
    }
}

/// Returns when the first pipeline that asked for it is to be run again. A time that nobody can read has come: the run
/// writes a new one, while a wait for it would never end.
fn retry_at(document: &Document) -> Option<Timestamp> {
    let suspended = |entry: &super::status::Entry<'_>| entry.phase() == kratix_api::promise::Phase::Suspended;
    let retry = document.pipelines().into_iter().filter(suspended).find_map(|entry| entry.next_retry_at());
    retry.map(|retry| retry.parse().unwrap_or(Timestamp::MIN))
}

fn held(snapshot: &Snapshot<'_>, mut document: Document) -> Outcome {
    let now = snapshot.now;
    let is_new = !document.has_condition(condition::RECONCILED, &Status::Unknown, SUSPENDED);
    if is_new {
        document.set_condition(condition::RECONCILED, Status::Unknown, SUSPENDED, "Suspended", now);
    }
    if snapshot.workflow.action == Action::Delete {
        let message = "The delete workflow is suspended";
        document.set_condition(
            condition::DELETE_WORKFLOW_COMPLETED,
            Status::False,
            "DeleteWorkflowSuspended",
            message,
            now,
        );
    }
    // One that is held by hand may have a pod that runs on, or a Job that has failed.
    let trouble = failure::follow(snapshot.view(), snapshot.jobs, &mut document);
    let pipeline = document.suspended().map(|entry| entry.name().to_owned());
    let mut outcome = Outcome::new(document, Progress::Suspended { pipeline });
    if is_new {
        let parent = match snapshot.workflow.kind {
            WorkflowType::Promise => "promise",
            WorkflowType::Resource => "resource request",
        };
        let note = format!("'{}' label set to 'true' for {parent}; skipping reconciliation", keys::WORKFLOW_SUSPENDED);
        outcome.events.push(snapshot.event(Event::warning, SUSPENDED, note));
    }
    outcome.events.extend(trouble);
    outcome
}

/// Returns the time from `now` to `then`, at least a millisecond.
pub(super) fn until(now: Timestamp, then: Timestamp) -> Duration {
    let wait = then.duration_since(now);
    Duration::try_from(wait).unwrap_or_default().max(Duration::from_millis(1))
}

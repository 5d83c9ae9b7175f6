//! The status of a request whose workflow is done.
//!
//! # Source
//! `04-resource-requests.md` §11, weaknesses 4–7, 12; decision 14

use kratix_api::condition::{self, Status};

use super::binding::Bound;
use super::revision::Chosen;
use super::{Finding, Pass};
use crate::plan::Event;
use crate::workflow::history::{self, History};
use crate::workflow::status::{Document, PENDING, rfc3339};
use crate::workflow::{self, PREVIOUS_VERSION, works};

const LAST_SUCCESS: &str = "lastSuccessfulConfigureWorkflowTime";

impl Pass<'_> {
    /// Brings the status up to date with the finished workflow and its Works; returns what to tell.
    pub(super) fn settle(
        &self,
        document: &mut Document,
        chosen: &Chosen<'_>,
        bound: &Bound,
        engine: &workflow::Snapshot<'_>,
    ) -> (Vec<Event>, Finding) {
        let now = self.snapshot.now;
        document.set("observedGeneration", self.parent.generation);
        if engine.workflow.pipelines.is_empty() {
            settle_without_pipelines(document, now);
        }
        let was_reconciled = is_reconciled(&self.document());
        let summary = works::summary(engine, was_reconciled);
        let mut events = Vec::new();
        events.extend(self.tell_works(document, &summary));
        let turned = self.tell_reconciled(document, engine.workflow.is_dry_run);
        if turned {
            events.push(self.reconciled());
        }
        events.extend(self.tell_versions(document, chosen, bound, engine));
        if let Some(completed) = document.condition(condition::CONFIGURE_WORKFLOW_COMPLETED)
            && completed.status == Status::True
            && completed.reason == "PipelinesExecutedSuccessfully"
            && let Some(time) = completed.last_transition_time
            && !engine.workflow.pipelines.is_empty()
        {
            document.set(LAST_SUCCESS, rfc3339(time.0));
            document.set_workflow(LAST_SUCCESS, rfc3339(time.0));
        }
        let finding = if is_reconciled(document) { Finding::Reconciled } else { Finding::Works(summary) };
        (events, finding)
    }

    /// Returns the event that tells of success.
    pub(super) fn reconciled(&self) -> Event {
        self.event(Event::normal, "ReconcileSucceeded", "Successfully reconciled".into())
    }

    pub(super) fn tell_works(&self, document: &mut Document, summary: &works::Summary) -> Option<Event> {
        let text = |what: &str, names: &[String]| {
            format!("Some works associated with this resource {what}: [{}]", names.join(","))
        };
        let pending: Vec<String> = summary.pending.iter().chain(&summary.awaited).cloned().collect();
        let (status, reason, message) = if !summary.failing.is_empty() {
            (Status::False, "WorksFailing", text("failed", &summary.failing))
        } else if !pending.is_empty() {
            (Status::Unknown, "WorksPending", text("are not ready", &pending))
        } else if !summary.misplaced.is_empty() {
            (Status::False, "WorksMisplaced", text("are misplaced", &summary.misplaced))
        } else {
            (Status::True, "WorksSucceeded", "All works associated with this resource are ready".to_owned())
        };
        let event = match status {
            Status::True => Some(Event::normal as fn(_, _, _, _) -> _),
            Status::False => Some(Event::warning as fn(_, _, _, _) -> _),
            _ => None,
        };
        let changed = document.set_condition(condition::WORKS_SUCCEEDED, status, reason, &message, self.snapshot.now);
        event.filter(|_| changed).map(|event| self.event(event, reason, message))
    }

    /// Sums up the conditions; returns whether the request has become reconciled.
    pub(super) fn tell_reconciled(&self, document: &mut Document, is_dry_run: bool) -> bool {
        let before = self.document();
        let works = document.condition(condition::WORKS_SUCCEEDED).map(|works| works.status);
        let (status, reason, message) = match works {
            Some(Status::True) if is_dry_run => (Status::True, "DryRunSucceeded", "Dry run completed"),
            Some(Status::True) => (Status::True, "Reconciled", "Reconciled"),
            Some(Status::False) => (Status::False, "WorksFailing", "Failing"),
            _ => (Status::Unknown, "WorksPending", PENDING),
        };
        let is_true = status == Status::True;
        let changed = document.set_condition(condition::RECONCILED, status.clone(), reason, message, self.snapshot.now);
        changed && is_true && !before.has_condition(condition::RECONCILED, &status, reason)
    }

    fn tell_versions(
        &self,
        document: &mut Document,
        chosen: &Chosen<'_>,
        bound: &Bound,
        engine: &workflow::Snapshot<'_>,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        let version = chosen.version();
        let stored = document.text("promiseVersion").to_owned();
        if stored != version {
            document.set("promiseVersion", version);
        }
        // Told together with success, which may come later than the version: once the files are written. The first version is
        // no news beside it; the original's recorder folds the two into one event.
        let turned = is_reconciled(document) && !is_reconciled(&self.document());
        let is_another = !stored.is_empty() && stored != version;
        if is_reconciled(document) && (is_another || (turned && rolled_out(engine, version))) {
            let promise = self.snapshot.promise_name;
            let note = format!("Resource request reconciled with promise {promise} version {version}");
            events.push(self.event(Event::normal, "ReconcileSucceeded", note));
        }
        if document.text("resourceBindingVersion") != bound.version {
            document.set("resourceBindingVersion", bound.version.as_str());
            let note = format!("Resource binding version updated to {}", bound.version);
            events.push(self.event(Event::normal, "ResourceBindingVersionUpdated", note));
        }
        events
    }
}

/// Returns whether the last run brought a version other than the one that the request had before.
fn rolled_out(engine: &workflow::Snapshot<'_>, version: &str) -> bool {
    let history = History::of(engine.jobs, engine.workflow);
    let latest = history.latest().filter(|job| history::sequence(job) > 0);
    let annotations = latest.and_then(|job| job.metadata.annotations.as_ref());
    let before = annotations.and_then(|annotations| annotations.get(PREVIOUS_VERSION));
    before.is_some_and(|before| !before.is_empty() && before != version)
}

/// Says what a request whose pipelines are gone still waits for: nothing else that it shows would tell.
pub(super) fn await_the_last_job(document: &mut Document, waits_for: &str, now: kratix_api::Timestamp) {
    let message = format!("{PENDING}: waits for {waits_for}");
    document.set_condition(condition::RECONCILED, Status::Unknown, "WorkflowPending", &message, now);
}

/// A workflow without pipelines leaves nothing to wait for: no stale message, no condition of a run that no longer exists.
fn settle_without_pipelines(document: &mut Document, now: kratix_api::Timestamp) {
    let counters = ["workflows", "workflowsSucceeded", "workflowsFailed"];
    if counters.iter().any(|key| document.number(key) != Some(0)) {
        document.set_counters(0, 0, 0);
    }
    if !document.lists(&[]) {
        document.reset(&[], now);
    }
    if document.text("message") == PENDING {
        document.remove("message");
    }
    let completed = document.condition(condition::CONFIGURE_WORKFLOW_COMPLETED);
    if completed.is_some_and(|completed| completed.status == Status::False) {
        document.remove_condition(condition::CONFIGURE_WORKFLOW_COMPLETED);
    }
}

fn is_reconciled(document: &Document) -> bool {
    let reconciled = document.condition(condition::RECONCILED);
    reconciled.is_some_and(|reconciled| reconciled.status == Status::True)
}

//! What holds up a request before its workflow is looked at: a pause, an unavailable Promise, a mistake that somebody must mend.
//!
//! Nothing new starts meanwhile, and what runs already runs on: what its pod does is told as before.
//!
//! # Source
//! `04-resource-requests.md` §7, §14, §15

use std::time::Duration;

use kratix_api::condition::{self, Status};
use kratix_api::{Promise, WorkflowType, keys};
use kube_core::ResourceExt;

use super::{Finding, Pass, revision};
use crate::plan::{Event, Next, Plan};
use crate::refusal::{PAUSED, PAUSED_MESSAGE, WAITS_FOR_PROMISE};
use crate::workflow::status::{Document, PENDING};
use crate::workflow::{self, failure};

/// How often a request looks at an unavailable Promise although Promises are watched.
const UNAVAILABLE: Duration = Duration::from_secs(60);

impl Pass<'_> {
    /// Tells what becomes of the pod of the last Job.
    pub(super) fn follow_pods(&self, document: &mut Document) -> Option<Event> {
        let snapshot = self.snapshot;
        let view = failure::View { now: snapshot.now, parent: self.parent, surroundings: snapshot.surroundings };
        failure::follow(view, &snapshot.jobs, document)
    }

    pub(super) fn paused_by(&self, promise: &Promise) -> Option<bool> {
        let by_promise = keys::is_set(promise.labels(), keys::PAUSED);
        (by_promise || self.parent.has_label(keys::PAUSED)).then_some(by_promise)
    }

    pub(super) fn paused(&self, by_promise: bool) -> Plan<Finding> {
        let mut document = self.document();
        let (unknown, reason) = (Status::Unknown, PAUSED);
        let is_new = document.set_condition(condition::RECONCILED, unknown, reason, PAUSED_MESSAGE, self.snapshot.now);
        let mut plan = Plan { findings: vec![Finding::Paused { by_promise }], ..Plan::silent() };
        if is_new {
            let text = match by_promise {
                true => "for promise; pausing reconciliation for this resource request",
                false => "for this resource request; pausing reconciliation",
            };
            plan.events.push(self.event(
                Event::warning,
                reason,
                format!("'{}' label set to 'true' {text}", keys::PAUSED),
            ));
        }
        plan.events.extend(self.follow_pods(&mut document));
        let whose = if by_promise { "the Promise" } else { "the request" };
        self.tell_if_deleting(
            &mut plan,
            &mut document,
            reason,
            format!("label {} of {whose} to be removed", keys::PAUSED),
        );
        self.with_status(plan, document)
    }

    pub(super) fn unavailable(&self) -> Plan<Finding> {
        let mut document = self.document();
        let (reason, message) = ("PromiseRequirementsNotInstalled", "Promise Requirements are not installed");
        if document.set_condition(condition::PROMISE_AVAILABLE, Status::False, reason, message, self.snapshot.now) {
            // What a pipeline has said stays: nobody would say it again before the next run.
            if is_of_kratix(&document) {
                document.set("message", PENDING);
            }
        }
        // The reason is the memory of the pause, whose end starts a run; the text is what people see.
        if document.has_condition(condition::RECONCILED, &Status::Unknown, PAUSED) {
            document.set_condition(
                condition::RECONCILED,
                Status::Unknown,
                PAUSED,
                WAITS_FOR_PROMISE,
                self.snapshot.now,
            );
        }
        let events = self.follow_pods(&mut document).into_iter().collect();
        let next = Next::After(UNAVAILABLE);
        self.with_status(Plan { findings: vec![Finding::Unavailable], events, next, ..Plan::silent() }, document)
    }

    pub(super) fn availability_restored(&self, document: &mut Document) {
        let is_false = |condition: kratix_api::Condition| condition.status == Status::False;
        if document.condition(condition::PROMISE_AVAILABLE).is_some_and(is_false) {
            let (reason, message) = ("PromiseAvailable", "Promise Requirements are met");
            document.set_condition(condition::PROMISE_AVAILABLE, Status::True, reason, message, self.snapshot.now);
            restore_message(document);
        }
    }

    pub(super) fn blocked_by(&self, error: &revision::Error) -> Plan<Finding> {
        let event = match error {
            revision::Error::ManyBindings { .. } => error.reason(),
            _ => "FailedPromiseRevisionLookup",
        };
        let cause = error.to_string();
        let mut plan = self.blocked(error.reason(), cause.clone(), event);
        if matches!(error, revision::Error::NoVersion { .. }) {
            plan.writes.extend(self.version_missing(&cause));
        }
        plan
    }

    /// Shows on the request why nothing happens, and tells each cause once. What brings it back is watched.
    pub(super) fn blocked(&self, reason: &str, cause: String, event: &'static str) -> Plan<Finding> {
        let mut document = self.document();
        // The reason is the memory of the pause, as above.
        let is_after_pause = document.has_condition(condition::RECONCILED, &Status::Unknown, PAUSED);
        let told = if is_after_pause { PAUSED } else { reason };
        let is_new = document.set_condition(condition::RECONCILED, Status::Unknown, told, &cause, self.snapshot.now);
        let event = is_new.then(|| self.event(Event::warning, event, cause.clone()));
        let findings = vec![Finding::Blocked { cause: cause.clone() }];
        let events = event.into_iter().chain(self.follow_pods(&mut document)).collect();
        let mut plan = Plan { events, findings, ..Plan::silent() };
        self.tell_if_deleting(&mut plan, &mut document, reason, format!("this to be mended: {cause}"));
        self.with_status(plan, document)
    }
}

/// Says again what the last run has left, where [`Pass::unavailable`] has taken it away: no run may follow that would say it.
fn restore_message(document: &mut Document) {
    if document.text("message") != PENDING {
        return;
    }
    let is_done = |told: kratix_api::Condition| told.status == Status::True;
    if let Some(told) = failure::in_short(document) {
        document.set("message", told);
    } else if document.condition(condition::CONFIGURE_WORKFLOW_COMPLETED).is_some_and(is_done) {
        document.set("message", workflow::message_of_success(WorkflowType::Resource));
    }
}

/// Returns whether the message is one of Kratix's own, of which the state of the request tells more.
fn is_of_kratix(document: &Document) -> bool {
    let shown = document.text("message");
    ["", PENDING, workflow::message_of_success(WorkflowType::Resource)].contains(&shown)
        || failure::in_short(document).is_some_and(|told| told == shown)
}

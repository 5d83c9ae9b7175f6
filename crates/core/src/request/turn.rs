//! Waiting for the word of the Promise: a change of it runs all of its requests again, a bounded number at a time.
//!
//! Only what runs for no other reason waits. A new request, a changed one, a manual run, the end of a request's own pause and
//! what was told already start at once, so a round holds up nobody who has asked for something.
//!
//! # Source
//! `03-promises.md` §13

use kratix_api::condition::{self, Status};
use kratix_api::keys;
use kube_core::ResourceExt;

use super::binding::Bound;
use super::revision::Chosen;
use super::{Finding, Pass};
use crate::plan::Plan;
use crate::promise;
use crate::refusal::{PAUSED, WAITS_FOR_TURN};
use crate::workflow::history::{self, History, State};
use crate::workflow::{GENERATION, Workflow, works};

impl Pass<'_> {
    /// Returns whether the request would run only because its Promise has changed and has not been told yet.
    pub(super) fn awaits_turn(&self, chosen: &Chosen<'_>, bound: &Bound, workflow: &Workflow) -> bool {
        let Some(promise) = self.snapshot.promise.as_deref() else { return false };
        let Some(round) = promise::round(promise) else { return false };
        let is_told = self.parent.annotations.get(promise::RERUN) == Some(&round);
        let is_asked_for =
            [keys::MANUAL_RECONCILIATION, keys::RUN_FROM_START].iter().any(|key| self.parent.has_label(key));
        if is_told || is_asked_for || workflow.pipelines.is_empty() {
            return false;
        }
        let document = self.document();
        if document.has_condition(condition::RECONCILED, &Status::Unknown, PAUSED) {
            return promise::is_after_pause(&round);
        }
        // A suspended pipeline goes on by rules of its own.
        if self.parent.has_label(keys::WORKFLOW_SUSPENDED) || document.suspended().is_some() {
            return false;
        }
        let history = History::of(&self.snapshot.jobs, workflow);
        let Some(latest) = history.latest().filter(|job| history::state(job) != State::Running) else { return false };
        let names = workflow.pipeline_names();
        let is_current = names.iter().any(|name| history::belongs_to(latest, workflow, name));
        let starts_over = history::run(latest) != self.parent.run();
        let made_for = latest.annotations().get(GENERATION).and_then(|generation| generation.parse().ok());
        let made_for = made_for.or_else(|| document.number("observedGeneration"));
        let bound_before = document.text("resourceBindingVersion");
        !is_current
            && !starts_over
            && made_for == Some(self.parent.generation)
            && (bound_before.is_empty() || bound_before == bound.version)
            && chosen.version() == promise.version()
    }

    /// Returns the plan of a request that waits: what its last run has left is still told as it is.
    pub(super) fn await_turn(&self, bound: Bound) -> Plan<Finding> {
        let mut plan = bound.into_plan();
        let mut document = self.document();
        self.availability_restored(&mut document);
        plan.events.extend(self.follow_pods(&mut document));
        if document.has_condition(condition::RECONCILED, &Status::Unknown, PAUSED) {
            document.set_condition(condition::RECONCILED, Status::Unknown, PAUSED, WAITS_FOR_TURN, self.snapshot.now);
        } else if document
            .condition(condition::CONFIGURE_WORKFLOW_COMPLETED)
            .is_some_and(|told| told.status == Status::True)
        {
            let summary = works::of_last_run(&self.snapshot.works);
            plan.events.extend(self.tell_works(&mut document, &summary));
            plan.events.extend(self.tell_reconciled(&mut document, false).then(|| self.reconciled()));
        }
        plan.findings.push(Finding::AwaitsTurn);
        self.with_status(plan, document)
    }
}

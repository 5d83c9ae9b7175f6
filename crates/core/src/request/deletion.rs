//! The end of a request: delete workflow, Works, Jobs, binding, finalizers.
//!
//! # Source
//! `04-resource-requests.md` §16, weaknesses 2, 3, 14–17; `02-workflows.md` §11, weaknesses 28–32; decisions 10, 17

use std::sync::Arc;
use std::time::Duration;

use kratix_api::condition::{PIPELINE_FAILING, RECONCILED, Status};
use kratix_api::keys;
use kratix_api::pipeline::Action;
use kube_core::{DynamicObject, Resource, ResourceExt};
use serde_json::json;

use super::revision::Chosen;
use super::{DELETING, FINALIZERS, Finding, Pass};
use crate::object::{ObjectKey, Target};
use crate::plan::{Event, Next, Plan, Reporter, Write};
use crate::refusal::INVALID_PIPELINE;
use crate::text::listed;
use crate::trace;
use crate::workflow::status::Document;
use crate::workflow::{self, Outcome, Progress, failure, history};

/// A look in between, although everything that a step waits for is watched.
const SAFETY_NET: Duration = Duration::from_secs(5);
/// Reason of `Reconciled` while a deletion does not get on by itself.
const REASON: &str = "Deleting";
const FAILED: &str = "DeleteWorkflowFailed";

impl Pass<'_> {
    /// Decides the next step of a deletion.
    pub(super) fn delete(&self, chosen: &Chosen<'_>) -> Plan<Finding> {
        // A preview has no infrastructure that a delete workflow could remove.
        if !self.has_finalizer(keys::FINALIZER_DELETE_WORKFLOWS) || self.is_for_a_preview() {
            return self.clean_up();
        }
        let definition = self.snapshot.surroundings.definition(chosen.revision);
        let workflow = match self.workflow(&definition, Action::Delete) {
            Ok(workflow) => workflow,
            Err(error) => return self.blocked(INVALID_PIPELINE, error.to_string(), INVALID_PIPELINE),
        };
        if workflow.pipelines.is_empty() {
            return self.clean_up();
        }
        let engine = self.engine(&workflow, None, &[]);
        let Outcome { writes, status, events, progress, next } = workflow::delete(&engine);
        let mut plan = Plan { writes, events, next, ..Plan::silent() };
        let mut document = Document::read(&status);
        let (reason, waits_for) = match progress {
            Progress::Relabelled => return plan,
            Progress::Finished => {
                // Conflicts with anything newer: a completed Job may have asked for suspension.
                plan.writes.extend(self.finalizers_without(&[keys::FINALIZER_DELETE_WORKFLOWS]));
                return plan;
            }
            Progress::InProgress { waits_for } => {
                if !is_as_configure_left_it(&document) || document.condition(PIPELINE_FAILING).is_some() {
                    self.show(&mut document, Status::Unknown, REASON, &waits_for);
                }
                ("DeleteWorkflowRunning", waits_for)
            }
            Progress::Suspended { .. } => ("DeleteWorkflowSuspended", workflow::release(&document)),
            Progress::Failed { pipeline } => {
                let label = keys::MANUAL_RECONCILIATION;
                let cause =
                    format!("label {label}=true or a change of the spec; delete pipeline {pipeline} has failed");
                self.show(&mut document, Status::False, FAILED, &cause);
                (FAILED, cause)
            }
        };
        self.tell(&mut plan, &mut document, reason, waits_for);
        self.with_status(plan, document)
    }

    /// Removes everything but runs no workflow: without a Promise there is none.
    pub(super) fn delete_without_promise(&self) -> Plan<Finding> {
        let mut plan = self.clean_up();
        let promise = self.snapshot.promise_name;
        // The finalizer goes in the first pass, so the event is told once.
        if self.has_finalizer(keys::FINALIZER_DELETE_WORKFLOWS) && !plan.writes.is_empty() {
            let note = format!("Promise {promise} not found; the delete workflow is skipped");
            let target = &self.parent.target;
            let goes = plan.writes.iter().find(|write| write.address() == (&target.kind, &target.key));
            let skipped = self.event(Event::warning, "DeleteWorkflowSkipped", note).of(goes);
            plan.events.push(skipped);
        }
        plan
    }

    /// Removes Works, then Jobs and binding, then the finalizers. Waiting is shown on the request.
    fn clean_up(&self) -> Plan<Finding> {
        // A configure Job that still runs could write a Work after all were removed.
        let live: Vec<_> = self.snapshot.jobs.iter().filter(|job| history::is_live(job)).collect();
        if let Some(first) = live.first() {
            let (mut stops, mut events) = (Vec::new(), Vec::new());
            for job in live.iter().filter(|job| !history::is_told_to_suspend(job)) {
                let stop = workflow::stop(job);
                let note = format!("{}; the request is being deleted", workflow::stopped(job));
                events.push(self.event(Event::normal, workflow::PIPELINE_SUSPENDED, note).of(&stop));
                stops.push(stop);
            }
            let waits_for = format!("Job {} to stop", ObjectKey::of(first.as_ref()));
            let plan = self.waiting(&[], stops, "JobsRunning", waits_for);
            return Plan { events, ..plan };
        }
        let done = [keys::FINALIZER_DELETE_WORKFLOWS];
        if !self.snapshot.works.is_empty() {
            let request = &self.snapshot.request.metadata;
            let mut removals = removals(&self.snapshot.works);
            removals.splice(0..0, trace::last_words_to(request, &self.snapshot.works, usize::MAX));
            let waits_for = format!("Works to be removed: {}", names(&self.snapshot.works));
            return self.waiting(&done, removals, "WorksRemaining", waits_for);
        }
        let done = [keys::FINALIZER_DELETE_WORKFLOWS, keys::FINALIZER_WORK_CLEANUP];
        let bindings: Vec<_> = self.bindings().cloned().collect();
        if !self.snapshot.jobs.is_empty() || !bindings.is_empty() {
            let mut writes = removals(&self.snapshot.jobs);
            writes.extend(removals(&bindings));
            let (reason, waits_for) = match self.snapshot.jobs.is_empty() {
                true => ("ResourceBindingRemaining", format!("ResourceBindings to be removed: {}", names(&bindings))),
                false => ("JobsRemaining", format!("Jobs to be removed: {}", names(&self.snapshot.jobs))),
            };
            return self.waiting(&done, writes, reason, waits_for);
        }
        self.finalizers_without(&FINALIZERS).map_or_else(|| self.wait_for_others(), Plan::from)
    }

    /// Nothing of Kratix is left. Whoever keeps the request is named, so that nobody looks for it among what has gone.
    fn wait_for_others(&self) -> Plan<Finding> {
        let others = self.snapshot.request.finalizers();
        if others.is_empty() {
            return Plan::silent();
        }
        let waits_for = format!("finalizers of others: {}", listed(others));
        Plan { next: Next::OnChange, ..self.waiting(&[], Vec::new(), "FinalizersRemaining", waits_for) }
    }

    /// Returns the plan of a step that is not done: finalizers of the steps before it go, its objects are removed.
    fn waiting(&self, done: &[&str], writes: Vec<Write>, reason: &str, waits_for: String) -> Plan<Finding> {
        let finalizers = self.finalizers_without(done);
        let changes_metadata = finalizers.is_some();
        let writes = finalizers.into_iter().chain(writes).collect();
        let mut plan = Plan { writes, next: Next::After(SAFETY_NET), ..Plan::silent() };
        let mut document = self.document();
        // No pipeline is left that could be failing.
        failure::clear(&mut document);
        self.show(&mut document, Status::Unknown, REASON, &waits_for);
        self.tell(&mut plan, &mut document, reason, waits_for);
        // The watch event of the metadata brings the next pass, which tells the status if there is still anything to wait for.
        if changes_metadata { plan } else { self.with_status(plan, document) }
    }

    /// As [`Pass::tell`], where the same holds up a request that is not being deleted.
    pub(super) fn tell_if_deleting(
        &self,
        plan: &mut Plan<Finding>,
        document: &mut Document,
        reason: &str,
        waits_for: String,
    ) {
        if self.is_deleting() {
            self.tell(plan, document, reason, waits_for);
        }
    }

    /// Shows it where `kubectl get` looks. A delete workflow that gets on leaves there what the last run has left, as the original
    /// does.
    fn show(&self, document: &mut Document, status: Status, reason: &str, waits_for: &str) {
        let message = format!("Deleting: waiting for {waits_for}");
        document.set_condition(RECONCILED, status, reason, &message, self.snapshot.now);
    }

    fn tell(&self, plan: &mut Plan<Finding>, document: &mut Document, reason: &str, waits_for: String) {
        document.set_condition(DELETING, Status::True, reason, &format!("waits for {waits_for}"), self.snapshot.now);
        plan.findings.push(Finding::Deleting { waits_for });
    }

    fn has_finalizer(&self, finalizer: &str) -> bool {
        self.snapshot.request.finalizers().iter().any(|present| present == finalizer)
    }

    fn finalizers_without(&self, done: &[&str]) -> Option<Write> {
        let present = self.snapshot.request.finalizers();
        let left: Vec<&String> = present.iter().filter(|present| !done.contains(&present.as_str())).collect();
        let patch = if left.len() == present.len() { json!({}) } else { json!({ "finalizers": left }) };
        Write::metadata(self.parent.target.clone(), &patch)
    }
}

/// Returns whether `Reconciled` speaks of the last run: of what was in the way of this deletion nothing may stay there.
fn is_as_configure_left_it(document: &Document) -> bool {
    let left = [
        "Reconciled",
        "DryRunSucceeded",
        "WorkflowPending",
        "ConfigureWorkflowFailed",
        "WorksPending",
        "WorksFailing",
        "Unpaused",
    ];
    document.condition(RECONCILED).is_none_or(|reconciled| left.contains(&reconciled.reason.as_str()))
}

/// Returns the plan that goes on without the delete workflow, if `cause` is that the request's own namespace goes.
pub(super) fn skipped_in_terminating_namespace(
    target: &Target,
    request: &DynamicObject,
    cause: &str,
) -> Option<Plan<Finding>> {
    let namespace = target.key.namespace.as_deref()?;
    let terminates = cause.contains(&format!("in namespace {namespace} because it is being terminated"));
    let finalizers = request.finalizers();
    let left: Vec<&String> =
        finalizers.iter().filter(|finalizer| *finalizer != keys::FINALIZER_DELETE_WORKFLOWS).collect();
    if !terminates || left.len() == finalizers.len() || request.metadata.deletion_timestamp.is_none() {
        return None;
    }
    let note =
        format!("namespace {namespace} is being terminated, so no Job can be made; the delete workflow is skipped");
    Some(Plan {
        writes: Write::metadata(target.clone(), &json!({ "finalizers": left })).into_iter().collect(),
        events: vec![Event::warning(Reporter::ResourceRequest, target.clone(), "DeleteWorkflowSkipped", note)],
        ..Plan::silent()
    })
}

pub(super) fn removals<K: Resource<DynamicType = ()>>(objects: &[Arc<K>]) -> Vec<Write> {
    let left = objects.iter().filter(|object| object.meta().deletion_timestamp.is_none());
    left.map(|object| Write::Delete { target: Target::of(object.as_ref()) }).collect()
}

fn names<K: Resource>(objects: &[Arc<K>]) -> String {
    let mut names: Vec<String> = objects.iter().map(|object| ObjectKey::of(object.as_ref()).to_string()).collect();
    names.sort();
    listed(&names)
}

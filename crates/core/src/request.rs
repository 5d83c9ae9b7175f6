//! Resource requests: from the first look at an object of a Promise's API to its last finalizer.
//!
//! Order of writes: label and finalizers together; then the binding; then what the workflow engine asks for (see
//! [`crate::workflow`]); then the one status. A crash between any two is harmless: the finalizers exist before what they
//! protect, names are derived, triggers are consumed by atomic writes, and the status comes last, so it never claims what
//! does not exist. The binding's own status follows a pass later, from what the request's stored status says.
//!
//! Deletion: delete workflow, then Works, then Jobs and binding, each waited for; the finalizers of a step go when it is done.
//!
//! # Source
//! `04-resource-requests.md` Part A; `03-promises.md` §20; decisions 10, 14, 15, 17

mod binding;
mod concern;
mod deletion;
mod held;
mod revision;
mod settled;
#[cfg(test)]
mod tests;
mod turn;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kratix_api::condition::{self, Status};
use kratix_api::pipeline::{Action, WorkflowType};
use kratix_api::promise::RequirementState;
use kratix_api::{Promise, PromiseRevision, ResourceBinding, Timestamp, Work, hash, keys};
use kube_core::{DynamicObject, Resource, ResourceExt};
use serde_json::{Value, json};

use crate::object::{Kind, ObjectKey};
use crate::plan::{Event, Plan, Reporter, Write};
use crate::refusal::{self, INVALID_PIPELINE};
use crate::text;
use crate::workflow::history::{self, History};
use crate::workflow::status::Document;
use crate::workflow::{self, Definition, Outcome, Parent, Progress, Settings, Workflow};

pub use concern::{
    Concerned, binding_concerns_request, concerned_by_promise, is_urgent, job_concerns_request,
    revision_concerns_requests, work_concerns_request,
};

/// Condition of a request that is being deleted: what it waits for.
pub const DELETING: &str = "Deleting";

/// Reason of `Reconciled`, and of the event, of a request whose Promise is gone.
const PROMISE_NOT_FOUND: &str = "PromiseNotFound";

/// The finalizers of a request in the order in which they are added.
pub const FINALIZERS: [&str; 4] = [
    keys::FINALIZER_WORK_CLEANUP,
    keys::FINALIZER_WORKFLOWS_CLEANUP,
    keys::FINALIZER_DELETE_WORKFLOWS,
    keys::FINALIZER_RESOURCE_BINDING_CLEANUP,
];

/// What a pass looks up only when it needs it.
pub trait Surroundings: workflow::Surroundings {
    /// Returns the workflows of a revision; [`Definition::of`] its spec.
    fn definition(&self, revision: &PromiseRevision) -> Arc<Definition>;
}

/// Everything the decision about one request may look at.
#[derive(Clone)]
pub struct Snapshot<'a> {
    /// The only clock.
    pub now: Timestamp,
    /// Resource of the request.
    pub kind: &'a Kind,
    /// Name of the Promise.
    pub promise_name: &'a str,
    /// The Promise; `None` when it is gone.
    pub promise: Option<Arc<Promise>>,
    /// The request.
    pub request: Arc<DynamicObject>,
    /// The Promise's revisions, sorted by name.
    pub revisions: Vec<Arc<PromiseRevision>>,
    /// Bindings that name the request, in all namespaces, or that have the name Kratix would give; sorted. Anybody may make such a
    /// binding.
    pub bindings: Vec<Arc<ResourceBinding>>,
    /// Jobs that name the request, in all namespaces; anybody may make such a Job.
    pub jobs: Vec<Arc<Job>>,
    /// Works that name the request, in all namespaces.
    pub works: Vec<Arc<Work>>,
    /// Settings of Jobs.
    pub settings: &'a Settings,
    /// What only some passes look at.
    pub surroundings: &'a dyn Surroundings,
}

/// What was found out about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Held by the label `kratix.io/paused`.
    Paused {
        /// The Promise carries it, not the request.
        by_promise: bool,
    },
    /// The Promise takes no requests now.
    Unavailable,
    /// Nothing can be done until somebody changes something.
    Blocked {
        /// Why.
        cause: String,
    },
    /// A pipeline runs or is about to.
    InProgress {
        /// What is waited for.
        waits_for: String,
    },
    /// It runs again because its Promise has changed, once others have done so.
    AwaitsTurn,
    /// Held by the label `kratix.io/workflow-suspended`.
    Suspended {
        /// The pipeline that asked for it.
        pipeline: Option<String>,
    },
    /// A pipeline has failed.
    Failed {
        /// The pipeline.
        pipeline: String,
    },
    /// The workflow is done, its Works are not.
    Works(workflow::works::Summary),
    /// Done.
    Reconciled,
    /// On its way out.
    Deleting {
        /// What is waited for.
        waits_for: String,
    },
}

/// Returns whether a Work belongs to the request `key` of a Promise: the same name in another namespace is another request.
pub fn owns_work(work: &Work, promise: &str, key: &ObjectKey) -> bool {
    let label = |key: &str| work.labels().get(key).map(String::as_str);
    let own = work.namespace();
    let namespace = label(keys::RESOURCE_NAMESPACE).or(own.as_deref());
    let name = kratix_api::name::label_value(&key.name);
    let named = label(keys::RESOURCE_NAME);
    label(keys::PROMISE_NAME) == Some(promise)
        && label(keys::WORK_TYPE) == Some(keys::WORK_TYPE_RESOURCE)
        && (named == Some(&key.name) || named == Some(&name))
        && namespace == key.namespace.as_deref()
}

/// Returns how the requests behind a CRD are addressed: by its storage version, which is served longest.
pub fn kind_of(crd: &CustomResourceDefinition) -> Option<Kind> {
    let spec = &crd.spec;
    let served = || spec.versions.iter().filter(|version| version.served);
    let version = served().find(|version| version.storage).or_else(|| served().next())?;
    Some(Kind::new(&spec.group, &version.name, &spec.names.kind, &spec.names.plural))
}

/// Returns whether a finalizer of Kratix keeps the request: somebody must look after it, also when its Promise is gone.
pub fn is_held(request: &DynamicObject) -> bool {
    request.finalizers().iter().any(|finalizer| FINALIZERS.contains(&finalizer.as_str()))
}

/// Decides about one request.
///
/// # Guarantees
/// A request at rest gives a silent plan. Two requests of one name in two namespaces never touch each other's objects.
pub fn decide(snapshot: &Snapshot<'_>) -> Plan<Finding> {
    let mut parent = Parent::of_request(snapshot.kind.clone(), &snapshot.request);
    parent.promise_generation = snapshot.promise.as_ref().and_then(|promise| promise.metadata.generation);
    // A request that changes its revision leaves Jobs where it was before.
    parent.pipeline_namespaces = workflow::pipeline_namespaces(snapshot.promise.as_deref(), &snapshot.revisions);
    if snapshot.jobs.iter().any(|job| !parent.is_at_home(job)) {
        let bound = snapshot.surroundings.bound_namespaces(snapshot.promise_name, WorkflowType::Resource);
        parent.pipeline_namespaces.extend(bound);
    }
    let mut snapshot = snapshot.clone();
    let key = ObjectKey::of(snapshot.request.as_ref());
    // A Job of an early version tells its request only by name: the Promise must be the same as well.
    let promise = |job: &Job| job.labels().get(keys::PROMISE_NAME).is_none_or(|name| name == snapshot.promise_name);
    let mut left_behind = snapshot.jobs.clone();
    left_behind.retain(|job| history::is_left_behind(job, &parent) && promise(job));
    snapshot.jobs.retain(|job| history::is_of(job, &parent) && promise(job));
    snapshot.works.retain(|work| owns_work(work, snapshot.promise_name, &key));
    // Whoever may make bindings in one namespace has no say in another.
    snapshot.bindings.retain(|binding| binding.metadata.namespace == key.namespace);
    let mut plan = Pass { snapshot: &snapshot, parent: &parent }.decide();
    // As the garbage collector does where the Jobs have an owner.
    plan.writes.splice(0..0, deletion::removals(&left_behind));
    plan
}

/// Returns what becomes visible on a request when the API server refused a write for it, so that nobody has to search the
/// log for it: a condition, and one event for each cause. `cause` names the object and says why, in the API server's words.
/// A pause that is on record stays so, because its end starts a run; `None` as long as it lasts, on the request or on its `promise`.
///
/// A delete workflow that can never run, because nothing can be made in the request's namespace any more, is skipped: the
/// namespace would wait for the request, and the request for the namespace.
pub fn refused(
    now: Timestamp,
    kind: &Kind,
    (request, promise): (&DynamicObject, Option<&Promise>),
    cause: &str,
) -> Option<Plan<Finding>> {
    let target = crate::object::Target::with_kind(kind.clone(), request);
    if let Some(plan) = deletion::skipped_in_terminating_namespace(&target, request, cause) {
        return Some(plan);
    }
    let findings = vec![Finding::Blocked { cause: text::cause(cause).to_owned() }];
    let stored = request.data.get("status").unwrap_or(&Value::Null);
    let mut document = Document::read(stored);
    let reconciled = document.condition(condition::RECONCILED);
    let is_paused = [Some(request.labels()), promise.map(ResourceExt::labels)]
        .into_iter()
        .flatten()
        .any(|labels| keys::is_set(labels, keys::PAUSED));
    let told = match refusal::is_pause_on_record(reconciled.as_ref()) {
        true if is_paused => return None,
        true => refusal::verdict_after_pause(cause),
        false => refusal::verdict(cause),
    };
    let is_new = document.set_condition(&told.r#type, told.status, &told.reason, &told.message, now);
    if request.metadata.deletion_timestamp.is_some() {
        let message = format!("waits for what was refused: {}", told.message);
        document.set_condition(DELETING, Status::True, refusal::REASON, &message, now);
    }
    let event = || Event::warning(Reporter::ResourceRequest, target.clone(), refusal::REASON, told.message.clone());
    let events = is_new.then(event).into_iter().collect();
    Some(Plan { status: Write::status(target, stored, &document.into_value()), events, findings, ..Plan::silent() })
}

/// One look at one request.
struct Pass<'a> {
    snapshot: &'a Snapshot<'a>,
    parent: &'a Parent,
}

impl Pass<'_> {
    fn decide(&self) -> Plan<Finding> {
        let Some(promise) = &self.snapshot.promise else {
            if self.is_deleting() {
                return self.delete_without_promise();
            }
            // What Kratix has never touched may be of a CRD that merely carries the label of a Promise.
            if !is_held(&self.snapshot.request) {
                return Plan::silent();
            }
            let cause = format!("Promise {} not found", self.snapshot.promise_name);
            return self.blocked(PROMISE_NOT_FOUND, cause, PROMISE_NOT_FOUND);
        };
        if let Some(by_promise) = self.paused_by(promise) {
            return self.paused(by_promise);
        }
        let chosen = match self.chosen_revision() {
            Ok(chosen) => chosen,
            Err(error) => return self.labelled(|pass| pass.blocked_by(&error)),
        };
        if self.is_deleting() {
            return self.delete(&chosen);
        }
        if !is_serving(promise) {
            return self.labelled(Self::unavailable);
        }
        if let Some(write) = self.missing_metadata(true) {
            return write.into();
        }
        let bound = self.bound(&chosen);
        if promise.meta().deletion_timestamp.is_some() {
            // No run begins any more; one that does not end holds up the Promise.
            let (mut plan, mut document) = (bound.into_plan(), self.document());
            plan.events.extend(self.follow_pods(&mut document));
            return self.with_status(plan, document);
        }
        let definition = self.snapshot.surroundings.definition(chosen.revision);
        match self.workflow(&definition, Action::Configure) {
            Ok(workflow) => self.configure(&chosen, bound, &workflow),
            Err(error) => self.blocked(INVALID_PIPELINE, error.to_string(), INVALID_PIPELINE),
        }
    }

    fn workflow(
        &self,
        definition: &Definition,
        action: Action,
    ) -> Result<Workflow, kratix_api::pipeline::WorkflowError> {
        let dry_run = self.snapshot.settings.config.dry_run;
        definition.request_workflow(self.snapshot.promise_name, &self.snapshot.request, action, dry_run)
    }

    fn engine<'b>(
        &'b self,
        workflow: &'b Workflow,
        revision: Option<&PromiseRevision>,
        annotations_after_pause: &'b [(&'b str, &'b str)],
    ) -> workflow::Snapshot<'b> {
        workflow::Snapshot {
            now: self.snapshot.now,
            parent: self.parent,
            workflow,
            jobs: &self.snapshot.jobs,
            works: &self.snapshot.works,
            surroundings: self.snapshot.surroundings,
            settings: self.snapshot.settings,
            interval: revision.and_then(|revision| self.interval(revision)),
            annotations_after_pause,
        }
    }

    /// Returns whether the request was made to preview another one, and runs as a preview: its labels alone say nothing where
    /// the platform does not act on them.
    fn is_for_a_preview(&self) -> bool {
        let labels = &self.snapshot.request.metadata.labels;
        self.snapshot.settings.config.dry_run
            && hash::Run::of_labels(labels.as_ref()) == hash::Run::Dry
            && self.parent.labels.contains_key(keys::DRY_RUN_OWNER)
    }

    /// Returns how often a settled workflow runs again; previews never do.
    fn interval(&self, revision: &PromiseRevision) -> Option<Duration> {
        if self.is_for_a_preview() {
            return None;
        }
        Some(crate::promise::revision_interval(revision, &self.snapshot.settings.config).0)
    }

    fn configure(&self, chosen: &revision::Chosen<'_>, bound: binding::Bound, workflow: &Workflow) -> Plan<Finding> {
        if self.awaits_turn(chosen, &bound, workflow) {
            return self.await_turn(bound);
        }
        // A Promise that was paused as well tells all of its requests to run. The run at the end of the pause is the one
        // that it asks for: a request of which this is on record is not told again.
        let round = self.snapshot.promise.as_ref().and_then(|promise| promise.annotations().get(crate::promise::RERUN));
        let told: Vec<_> = round.map(|round| (crate::promise::RERUN, round.as_str())).into_iter().collect();
        let engine = self.engine(workflow, Some(chosen.revision), &told);
        let outcome = workflow::configure(&engine);
        let mut plan: Plan<Finding> = Plan { next: outcome.next, ..bound.clone().into_plan() };
        if outcome.progress == Progress::Relabelled {
            plan.writes.extend(outcome.writes);
            plan.events.extend(outcome.events);
            return plan;
        }
        plan.writes.extend(self.upgrade_status(&outcome.progress, chosen, &bound));
        let Outcome { writes, status, events, progress, .. } = outcome;
        let mut document = Document::read(&status);
        self.availability_restored(&mut document);
        let started = writes.iter().find(|write| write.is_irrevocable());
        let started = started.and_then(|job| Some(self.reconcile_started(&document, chosen, workflow)?.of(job)));
        plan.events.extend(started.into_iter().chain(events));
        plan.writes.extend(writes);
        let finding = match progress {
            Progress::Finished => {
                let (events, finding) = self.settle(&mut document, chosen, &bound, &engine);
                plan.events.extend(events);
                finding
            }
            Progress::InProgress { waits_for } => {
                if workflow.pipelines.is_empty() {
                    settled::await_the_last_job(&mut document, &waits_for, self.snapshot.now);
                }
                Finding::InProgress { waits_for }
            }
            Progress::Suspended { pipeline } => Finding::Suspended { pipeline },
            Progress::Failed { pipeline } => Finding::Failed { pipeline },
            Progress::Relabelled => unreachable!("handled above"),
        };
        plan.findings.push(finding);
        self.with_status(plan, document)
    }

    /// Returns the event that tells which revision a run uses, once for each run: with its first Job.
    fn reconcile_started(
        &self,
        document: &Document,
        chosen: &revision::Chosen<'_>,
        workflow: &Workflow,
    ) -> Option<Event> {
        let runs =
            |document: &Document| document.has_condition(condition::RECONCILED, &Status::Unknown, "WorkflowPending");
        // Of some runs it is written down that they begin before there is a Job.
        let latest = History::of(&self.snapshot.jobs, workflow).latest().map(|job| history::run(job));
        let is_first = latest.is_none_or(|run| run < self.parent.run());
        (runs(document) && (is_first || !runs(&self.document()))).then(|| {
            let name = chosen.revision.name_any();
            self.event(
                Event::normal,
                "ReconcileStarted",
                format!("reconciling resource request with promise revision {name}"),
            )
        })
    }

    fn document(&self) -> Document {
        Document::read(&self.parent.status)
    }

    /// Adds the status write, if the document differs from what is stored.
    fn with_status(&self, mut plan: Plan<Finding>, document: Document) -> Plan<Finding> {
        plan.status = Write::status(self.parent.target.clone(), &self.parent.status, &document.into_value());
        plan
    }

    fn event(
        &self,
        event: fn(Reporter, crate::object::Target, &'static str, String) -> Event,
        reason: &'static str,
        note: String,
    ) -> Event {
        event(Reporter::ResourceRequest, self.parent.target.clone(), reason, note)
    }

    fn is_deleting(&self) -> bool {
        self.snapshot.request.metadata.deletion_timestamp.is_some()
    }

    /// Returns the patch that adds the Promise's label and, if asked for, the finalizers that are missing.
    fn missing_metadata(&self, with_finalizers: bool) -> Option<Write> {
        let mut patch = serde_json::Map::new();
        if self.parent.labels.get(keys::PROMISE_NAME).map(String::as_str) != Some(self.snapshot.promise_name) {
            patch.insert("labels".into(), json!({ keys::PROMISE_NAME: self.snapshot.promise_name }));
        }
        let present = self.snapshot.request.finalizers();
        let missing = FINALIZERS.iter().filter(|finalizer| !present.iter().any(|present| present == *finalizer));
        let missing: Vec<String> = missing.map(|&finalizer| finalizer.to_owned()).collect();
        if with_finalizers && !missing.is_empty() {
            let all: Vec<String> = present.iter().cloned().chain(missing).collect();
            patch.insert("finalizers".into(), json!(all));
        }
        Write::metadata(self.parent.target.clone(), &Value::Object(patch))
    }

    /// Sets the Promise's label if it is missing, otherwise goes on.
    fn labelled(&self, otherwise: impl FnOnce(&Self) -> Plan<Finding>) -> Plan<Finding> {
        match self.missing_metadata(false) {
            Some(write) if !self.is_deleting() => write.into(),
            _ => otherwise(self),
        }
    }
}

/// Returns whether requests of the Promise are served: everything it requires is installed, and it is not unavailable.
fn is_serving(promise: &Promise) -> bool {
    let Some(status) = &promise.status else { return true };
    let installed = |state: &Option<RequirementState>| *state == Some(RequirementState::Installed);
    let requirements = status.required_promises.iter().all(|required| installed(&required.state));
    let available = condition::find(&status.conditions, condition::AVAILABLE);
    requirements && available.is_none_or(|available| available.status != Status::False)
}

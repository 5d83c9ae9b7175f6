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
mod deletion;
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
use kratix_api::pipeline::Action;
use kratix_api::promise::RequirementState;
use kratix_api::{Promise, PromiseRevision, ResourceBinding, Timestamp, Work, keys};
use kube_core::{DynamicObject, Resource, ResourceExt};
use serde_json::{Value, json};

use crate::object::{Kind, ObjectKey};
use crate::plan::{Event, Next, Plan, Reporter, Write};
use crate::refusal::{self, PAUSED};
use crate::text;
use crate::workflow::status::{Document, PENDING};
use crate::workflow::{self, Definition, Outcome, Parent, Progress, Settings, Workflow};

/// Condition of a request that is being deleted: what it waits for.
pub const DELETING: &str = "Deleting";

/// The finalizers of a request in the order in which they are added.
pub const FINALIZERS: [&str; 4] = [
    keys::FINALIZER_WORK_CLEANUP,
    keys::FINALIZER_WORKFLOWS_CLEANUP,
    keys::FINALIZER_DELETE_WORKFLOWS,
    keys::FINALIZER_RESOURCE_BINDING_CLEANUP,
];

/// How often a request looks at an unavailable Promise although Promises are watched.
const UNAVAILABLE: Duration = Duration::from_secs(60);

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
    /// Bindings in the request's namespace that name it or that have the name Kratix would give; sorted.
    pub bindings: Vec<Arc<ResourceBinding>>,
    /// Jobs that name the request, in all namespaces.
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

/// Returns whether a change of the Promise concerns all of its requests: it was paused, released, has become available or
/// unavailable, has another version, goes, or nobody is to wait for its word any more.
pub fn concerns_requests(old: Option<&Promise>, new: Option<&Promise>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return true };
    let paused = |promise: &Promise| promise.labels().get(keys::PAUSED).is_some_and(|value| value == keys::TRUE);
    let deleting = |promise: &Promise| promise.meta().deletion_timestamp.is_some();
    let differ = |view: fn(&Promise) -> bool| view(old) != view(new);
    let round = crate::promise::round(old);
    if round.is_some() && round != crate::promise::round(new) {
        return true;
    }
    differ(paused) || differ(is_serving) || differ(deleting) || old.version() != new.version()
}

/// Returns whether a change of a revision concerns the requests that may use it.
pub fn revision_concerns_requests(old: Option<&PromiseRevision>, new: Option<&PromiseRevision>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return true };
    let view = |revision: &PromiseRevision| {
        let deleting = revision.metadata.deletion_timestamp.is_some();
        (revision.is_latest(), deleting, revision.metadata.annotations.clone(), revision.metadata.labels.clone())
    };
    old.spec != new.spec || view(old) != view(new)
}

/// Returns whether a change of a Job concerns the request it is for.
pub fn job_concerns_request(old: Option<&Job>, new: Option<&Job>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return true };
    let view = |job: &Job| {
        let deleting = job.metadata.deletion_timestamp.is_some();
        (workflow::history::state(job), workflow::history::is_live(job), deleting, job.metadata.labels.clone())
    };
    view(old) != view(new)
}

/// Returns whether a change of a Work concerns the request it is of.
pub fn work_concerns_request(old: Option<&Work>, new: Option<&Work>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return true };
    let view = |work: &Work| {
        let deleting = work.metadata.deletion_timestamp.is_some();
        let written_by = work.annotations().get(keys::SEQUENCE).cloned();
        (crate::work::readiness(work), deleting, work.metadata.generation, work.metadata.labels.clone(), written_by)
    };
    view(old) != view(new)
}

/// Returns whether a change of a request is to be looked at as soon as possible. Of a status that somebody has written the pass
/// for what comes next will do, which usually follows at once.
pub fn is_urgent(old: Option<&DynamicObject>, new: Option<&DynamicObject>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return true };
    let view = |request: &DynamicObject| {
        let mut metadata = request.metadata.clone();
        (metadata.resource_version, metadata.managed_fields) = (None, None);
        metadata
    };
    old.data.get("spec") != new.data.get("spec") || view(old) != view(new)
}

/// Returns whether a change of a binding concerns its request.
pub fn binding_concerns_request(old: Option<&ResourceBinding>, new: Option<&ResourceBinding>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return true };
    let deleting = |binding: &ResourceBinding| binding.metadata.deletion_timestamp.is_some();
    old.spec != new.spec || old.metadata.labels != new.metadata.labels || deleting(old) != deleting(new)
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
    let mut snapshot = snapshot.clone();
    let key = ObjectKey::of(snapshot.request.as_ref());
    // A Job of an early version tells its request only by name: the Promise must be the same as well.
    let promise = |job: &Job| job.labels().get(keys::PROMISE_NAME).is_none_or(|name| name == snapshot.promise_name);
    snapshot.jobs.retain(|job| workflow::history::is_of(job, &parent) && promise(job));
    snapshot.works.retain(|work| owns_work(work, snapshot.promise_name, &key));
    Pass { snapshot: &snapshot, parent: &parent }.decide()
}

/// Returns what becomes visible on a request when the API server refused a write for it, so that nobody has to search the
/// log for it. `cause` names the object and says why, in the API server's words.
///
/// A delete workflow that can never run, because nothing can be made in the request's namespace any more, is skipped: the
/// namespace would wait for the request, and the request for the namespace.
///
/// # Guarantees
/// A pause on record stays on record: its end starts a run.
pub fn refused(now: Timestamp, kind: &Kind, request: &DynamicObject, cause: &str) -> Plan<Finding> {
    let target = crate::object::Target::with_kind(kind.clone(), request);
    if let Some(plan) = deletion::skipped_in_terminating_namespace(&target, request, cause) {
        return plan;
    }
    let findings = vec![Finding::Blocked { cause: text::cause(cause).to_owned() }];
    let stored = request.data.get("status").unwrap_or(&Value::Null);
    let mut document = Document::read(stored);
    if let Some(told) = refusal::verdict(document.condition(condition::RECONCILED).as_ref(), cause) {
        document.set_condition(&told.r#type, told.status, &told.reason, &told.message, now);
        if request.metadata.deletion_timestamp.is_some() {
            let message = format!("waits for what was refused: {}", told.message);
            document.set_condition(DELETING, Status::True, &told.reason, &message, now);
        }
    }
    Plan { status: Write::status(target, stored, &document.into_value()), findings, ..Plan::silent() }
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
            return self.blocked("PromiseNotFound", format!("Promise {} not found", self.snapshot.promise_name), None);
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
            return bound.into_plan();
        }
        let definition = self.snapshot.surroundings.definition(chosen.revision);
        match self.workflow(&definition, Action::Configure) {
            Ok(workflow) => self.configure(&chosen, bound, &workflow),
            Err(error) => self.blocked("InvalidPipeline", error.to_string(), None),
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

    /// Returns how often a settled workflow runs again; previews never do.
    fn interval(&self, revision: &PromiseRevision) -> Option<Duration> {
        if self.parent.labels.contains_key(keys::DRY_RUN_OWNER) {
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
        plan.writes.extend(writes);
        let mut document = Document::read(&status);
        self.availability_restored(&mut document);
        let started = self.reconcile_started(&document, chosen);
        plan.events.extend(started.into_iter().chain(events));
        let finding = match progress {
            Progress::Finished => {
                let (events, finding) = self.settle(&mut document, chosen, &bound, &engine);
                plan.events.extend(events);
                finding
            }
            Progress::InProgress { waits_for } => Finding::InProgress { waits_for },
            Progress::Suspended { pipeline } => Finding::Suspended { pipeline },
            Progress::Failed { pipeline } => Finding::Failed { pipeline },
            Progress::Relabelled => unreachable!("handled above"),
        };
        plan.findings.push(finding);
        self.with_status(plan, document)
    }

    /// Returns the event that tells which revision a run uses, once for each run.
    fn reconcile_started(&self, document: &Document, chosen: &revision::Chosen<'_>) -> Option<Event> {
        let runs =
            |document: &Document| document.has_condition(condition::RECONCILED, &Status::Unknown, "WorkflowPending");
        (runs(document) && !runs(&self.document())).then(|| {
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

    fn paused_by(&self, promise: &Promise) -> Option<bool> {
        let by_promise = promise.labels().get(keys::PAUSED).is_some_and(|value| value == keys::TRUE);
        (by_promise || self.parent.has_label(keys::PAUSED)).then_some(by_promise)
    }

    fn paused(&self, by_promise: bool) -> Plan<Finding> {
        let mut document = self.document();
        let (unknown, reason) = (Status::Unknown, PAUSED);
        let is_new = document.set_condition(condition::RECONCILED, unknown, reason, "Paused", self.snapshot.now);
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
        let whose = if by_promise { "the Promise" } else { "the request" };
        self.tell_if_deleting(
            &mut plan,
            &mut document,
            reason,
            format!("label {} of {whose} to be removed", keys::PAUSED),
        );
        self.with_status(plan, document)
    }

    fn unavailable(&self) -> Plan<Finding> {
        let mut document = self.document();
        let (reason, message) = ("PromiseRequirementsNotInstalled", "Promise Requirements are not installed");
        if document.set_condition(condition::PROMISE_AVAILABLE, Status::False, reason, message, self.snapshot.now) {
            document.set("message", PENDING);
        }
        let next = Next::After(UNAVAILABLE);
        self.with_status(Plan { findings: vec![Finding::Unavailable], next, ..Plan::silent() }, document)
    }

    fn availability_restored(&self, document: &mut Document) {
        let is_false = |condition: kratix_api::Condition| condition.status == Status::False;
        if document.condition(condition::PROMISE_AVAILABLE).is_some_and(is_false) {
            let (reason, message) = ("PromiseAvailable", "Promise Requirements are met");
            document.set_condition(condition::PROMISE_AVAILABLE, Status::True, reason, message, self.snapshot.now);
        }
    }

    fn blocked_by(&self, error: &revision::Error) -> Plan<Finding> {
        let event = match error {
            revision::Error::ManyBindings { .. } => None,
            _ => Some("FailedPromiseRevisionLookup"),
        };
        let cause = error.to_string();
        let mut plan = self.blocked(error.reason(), cause.clone(), event);
        if matches!(error, revision::Error::NoVersion { .. }) {
            plan.writes.extend(self.version_missing(&cause));
        }
        plan
    }

    /// Shows on the request why nothing happens. What brings it back is watched.
    fn blocked(&self, reason: &str, cause: String, event: Option<&'static str>) -> Plan<Finding> {
        let mut document = self.document();
        let is_new = document.set_condition(condition::RECONCILED, Status::Unknown, reason, &cause, self.snapshot.now);
        let event = event.filter(|_| is_new).map(|event| self.event(Event::warning, event, cause.clone()));
        let findings = vec![Finding::Blocked { cause: cause.clone() }];
        let mut plan = Plan { events: event.into_iter().collect(), findings, ..Plan::silent() };
        self.tell_if_deleting(&mut plan, &mut document, reason, format!("this to be mended: {cause}"));
        self.with_status(plan, document)
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

//! Workflows: how the pipelines of a Promise become Jobs, one at a time, for the Promise itself and for each request.
//!
//! One engine serves both parents. The caller gathers a [`Snapshot`], asks [`configure`] or [`delete`], merges its own
//! fields into [`Outcome::status`] and writes that document once.
//!
//! **Order of Jobs.** Jobs are ordered by a number of their own ([`SEQUENCE`]), not by creation times of one second's
//! resolution. Their names derive from parent, pipeline, hash and number, so a pass on a stale cache meets the Job that
//! an earlier pass made instead of making a second one.
//!
//! **Runs.** A trigger (a control label, the interval, the end of a pause) is turned into a higher [`RUN`] number on the
//! parent by one atomic write that also removes the label. From then on "the latest Job is of an earlier run" means:
//! start with the first pipeline. So no crash between a trigger and its Job loses the run or doubles it. Resuming a
//! suspended pipeline works the same way with [`RESUME`].
//!
//! **Order of writes.** Supporting objects, then the Job, then the status. A Job never lacks what it needs; a status
//! write that is lost is made up for by the next pass, which finds the Job running. What happened to a pipeline is
//! recorded by a status write that conflicts with anything newer *before* the next pipeline starts: a completed Job seen
//! beside an old parent would otherwise hide that the pipeline asked for suspension.
//!
//! # Source
//! `02-workflows.md` §3–§13

pub mod access;
mod configure;
mod delete;
pub mod failure;
pub mod history;
pub mod job;
pub mod pods;
mod retention;
pub mod status;
mod suspension;
#[cfg(test)]
mod tests;
pub mod works;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1;
use kratix_api::pipeline::{Action, Pipeline, WorkflowError, WorkflowType, decode_workflow};
use kratix_api::promise::DestinationSelector;
use kratix_api::{Promise, PromiseSpec, Timestamp, Work, hash, keys};
use kube_core::{DynamicObject, Resource, ResourceExt};
use serde_json::Value;

use crate::config::Config;
use crate::object::{Kind, ObjectKey, Target};
use crate::plan::{Event, Next, Reporter, Write};

pub use configure::configure;
pub use delete::{delete, live_configure_job};
pub use kratix_api::keys::SEQUENCE;

/// Annotation on parents and Jobs: how often the workflow was told to start over.
pub const RUN: &str = "internal.workflows.kratix.io/run";
/// Annotation on parents: number of the Job whose suspended pipeline is to run again.
pub const RESUME: &str = "internal.workflows.kratix.io/resume";
/// Annotation on Jobs: version of the Promise that the parent had when the Job was made.
pub const PREVIOUS_VERSION: &str = "internal.workflows.kratix.io/previous-version";

/// Annotation on Jobs in another namespace than that of their request, which have no owner: its uid.
pub const PARENT_UID: &str = "internal.workflows.kratix.io/parent-uid";
/// Annotation on Jobs of requests: generation of the Promise when the Job was made.
pub const PROMISE_GENERATION: &str = "internal.workflows.kratix.io/promise-generation";
/// Annotation on Jobs of requests: generation of the request when the Job was made.
pub const GENERATION: &str = "internal.workflows.kratix.io/generation";

/// What one Promise spec says about workflows, decoded once: decoding and hashing cost more than a whole pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    hash: String,
    namespace: String,
    selectors: Vec<DestinationSelector>,
    pipelines: BTreeMap<(WorkflowType, Action), Decoded>,
}

type Decoded = Result<Arc<[Pipeline]>, WorkflowError>;

impl Definition {
    /// Decodes the workflows of a Promise spec. One that is broken is reported only when it is asked for.
    pub fn of(spec: &PromiseSpec) -> Self {
        let all = WorkflowType::ALL.into_iter().flat_map(|kind| Action::ALL.map(|action| (kind, action)));
        let decode = |(kind, action)| ((kind, action), decode_workflow(spec, kind, action).map(Arc::from));
        Self {
            hash: hash::promise_spec(spec),
            namespace: spec.workflows.config.pipeline_namespace.clone(),
            selectors: spec.destination_selectors.clone(),
            pipelines: all.map(decode).collect(),
        }
    }

    fn workflow(&self, promise: &str, kind: WorkflowType, action: Action) -> Result<Workflow, WorkflowError> {
        Ok(Workflow {
            kind,
            action,
            promise: promise.to_owned(),
            pipelines: self.pipelines[&(kind, action)].clone()?,
            counterpart: self.pipelines[&(kind, action.other())].clone().ok(),
            hash: self.hash.clone(),
            namespace: self.namespace.clone(),
            is_shared: !self.namespace.is_empty(),
            selectors: self.selectors.clone(),
            scheduling_key: access::SCHEDULING_KEY.to_owned(),
            is_cluster_scoped: false,
            is_dry_run: false,
        })
    }

    /// Returns a workflow of the Promise itself.
    ///
    /// # Errors
    /// The first of its pipelines that cannot be decoded.
    pub fn promise_workflow(&self, promise: &str, action: Action) -> Result<Workflow, WorkflowError> {
        let mut workflow = self.workflow(promise, WorkflowType::Promise, action)?;
        workflow.is_cluster_scoped = true;
        if !workflow.is_shared {
            workflow.namespace = keys::SYSTEM_NAMESPACE.to_owned();
        }
        Ok(workflow)
    }

    /// Returns a workflow of one request; `self` is that of the revision the request is on, `honours_dry_run` tells
    /// whether the platform acts on the dry-run label.
    ///
    /// # Errors
    /// As [`Definition::promise_workflow`].
    pub fn request_workflow(
        &self,
        promise: &str,
        request: &DynamicObject,
        action: Action,
        honours_dry_run: bool,
    ) -> Result<Workflow, WorkflowError> {
        let mut workflow = self.workflow(promise, WorkflowType::Resource, action)?;
        let own = request.namespace().unwrap_or_default();
        workflow.is_cluster_scoped = own.is_empty();
        if !workflow.is_shared {
            workflow.namespace = own;
        }
        workflow.is_dry_run =
            honours_dry_run && hash::Run::of_labels(request.metadata.labels.as_ref()) == hash::Run::Dry;
        let suffix = if workflow.is_dry_run { "-dry-run" } else { "" };
        let spec = hash::value(request.data.get("spec").unwrap_or(&Value::Null));
        workflow.hash = hash::text(&format!("{}-{spec}{suffix}", self.hash));
        Ok(workflow)
    }
}

/// One workflow and what its Jobs are made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Workflow {
    /// Whose pipelines they are.
    pub kind: WorkflowType,
    /// What they are run for.
    pub action: Action,
    /// Name of the Promise.
    pub promise: String,
    /// The pipelines in order.
    pub pipelines: Arc<[Pipeline]>,
    /// Those of the other action, `None` when they cannot be decoded.
    pub counterpart: Option<Arc<[Pipeline]>>,
    /// Hash of everything the Jobs depend on.
    pub hash: String,
    /// Namespace of Jobs, ServiceAccounts and Works.
    pub namespace: String,
    /// Whether the Promise chose that namespace (`pipelineNamespace`), so that requests of many namespaces meet in it.
    pub is_shared: bool,
    /// Selectors of the Promise.
    pub selectors: Vec<DestinationSelector>,
    /// Where the ConfigMap keeps them.
    pub scheduling_key: String,
    /// Whether the parent has no namespace.
    pub is_cluster_scoped: bool,
    /// Whether its output is a preview only.
    pub is_dry_run: bool,
}

impl Workflow {
    /// Returns the names of the pipelines in order.
    pub fn pipeline_names(&self) -> Vec<&str> {
        self.pipelines.iter().map(Pipeline::name).collect()
    }

    /// Returns the workflow of the same parent for an action, `None` when its pipelines cannot be decoded. Its hash is that
    /// of both: Jobs are told apart by their labels.
    fn for_action(&self, action: Action) -> Option<Self> {
        if action == self.action {
            return Some(self.clone());
        }
        let (pipelines, counterpart) = (self.counterpart.clone()?, Some(Arc::clone(&self.pipelines)));
        Some(Self { action, pipelines, counterpart, ..self.clone() })
    }
}

/// The object a workflow runs for, as far as the engine reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Parent {
    /// Resource, key, uid and version.
    pub target: Target,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Generation of its spec.
    pub generation: i64,
    /// The stored status document, `Null` when absent.
    pub status: Value,
    /// Who reports about it.
    pub reporter: Reporter,
    /// Generation of the Promise, for a request.
    pub promise_generation: Option<i64>,
}

impl Parent {
    /// Returns the view on a Promise.
    pub fn of_promise(promise: &Promise) -> Self {
        let status = promise.status.as_ref().map_or(Value::Null, crate::patch::to_value);
        Self::of(Kind::of::<Promise>(), promise, status, Reporter::Promise)
    }

    /// Returns the view on a request of the given kind.
    pub fn of_request(kind: Kind, request: &DynamicObject) -> Self {
        let status = request.data.get("status").cloned().unwrap_or(Value::Null);
        Self::of(kind, request, status, Reporter::ResourceRequest)
    }

    fn of<K: Resource>(kind: Kind, object: &K, status: Value, reporter: Reporter) -> Self {
        Self {
            target: Target::with_kind(kind, object),
            labels: object.labels().clone(),
            annotations: object.annotations().clone(),
            generation: object.meta().generation.unwrap_or_default(),
            status,
            reporter,
            promise_generation: None,
        }
    }

    /// Returns whether the label has the one value that is effective.
    pub fn has_label(&self, key: &str) -> bool {
        self.labels.get(key).is_some_and(|value| value == keys::TRUE)
    }

    /// Returns how often the workflow was told to start over.
    pub fn run(&self) -> i64 {
        number(&self.annotations, RUN)
    }

    /// Returns the namespace, empty for a Promise.
    pub fn namespace(&self) -> &str {
        self.target.key.namespace.as_deref().unwrap_or_default()
    }
}

fn number(annotations: &BTreeMap<String, String>, key: &str) -> i64 {
    annotations.get(key).and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// What the process and the platform configuration contribute to Jobs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Image of the three Kratix containers.
    pub adapter_image: String,
    /// Pull secret put first into every pod.
    pub adapter_pull_secret: Option<String>,
    /// The platform configuration.
    pub config: Arc<Config>,
}

impl Settings {
    /// Returns the settings of a process that was started with this image and pull secret, under a configuration.
    pub fn new(adapter_image: &str, adapter_pull_secret: Option<&str>, config: Arc<Config>) -> Self {
        let adapter_pull_secret = adapter_pull_secret.filter(|name| !name.is_empty()).map(str::to_owned);
        Self { adapter_image: adapter_image.to_owned(), adapter_pull_secret, config }
    }
}

/// What only the start of a pipeline looks at: too much to gather for every pass.
pub trait Surroundings {
    /// Returns the ServiceAccounts, ConfigMaps, roles and bindings that carry the label of `promise` and that are in
    /// `namespace`, labelled with any pipeline namespace, or without namespace. More do no harm.
    fn existing(&self, promise: &str, namespace: &str) -> access::Existing;

    /// Returns what the revisions say that requests of the Promise use or may use next, the latest first. Their pipelines
    /// share accounts and permissions with this one.
    fn in_use(&self, _promise: &str) -> Vec<Arc<Definition>> {
        Vec::new()
    }

    /// Returns the Jobs of the Promise and of all its requests; looked at only when permissions are to be removed.
    fn jobs(&self, _promise: &str) -> Vec<Arc<v1::Job>> {
        Vec::new()
    }

    /// Returns whether a Job of this key exists that is not `parent`'s; see [`history::is_of`].
    fn is_taken(&self, key: &ObjectKey, parent: &Parent) -> bool;

    /// Returns what is known of a Job's pods; see [`failure::Sight::of`].
    fn sight(&self, _job: &v1::Job) -> failure::Sight {
        failure::Sight::Unseen
    }
}

/// Everything the engine may look at.
#[derive(Clone, Copy)]
pub struct Snapshot<'a> {
    /// The only clock.
    pub now: Timestamp,
    /// The object the workflow runs for.
    pub parent: &'a Parent,
    /// The workflow.
    pub workflow: &'a Workflow,
    /// The parent's Jobs of both actions in all namespaces, those being deleted included, in any order.
    pub jobs: &'a [Arc<v1::Job>],
    /// The parent's Works of this workflow type in all namespaces.
    pub works: &'a [Arc<Work>],
    /// What only the start of a pipeline looks at.
    pub surroundings: &'a dyn Surroundings,
    /// Settings.
    pub settings: &'a Settings,
    /// How old a configure run may become before it is repeated; `None`: never repeated on a timer.
    pub interval: Option<Duration>,
    /// More annotations to set when the end of a pause is acted on.
    pub annotations_after_pause: &'a [(&'a str, &'a str)],
}

/// What the engine asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Writes in order. Those on the parent change its metadata only and come with [`Progress::Relabelled`].
    pub writes: Vec<Write>,
    /// The whole status document after this pass; the caller merges its own fields and writes it once. Not to be
    /// written after [`Progress::Relabelled`].
    pub status: Value,
    /// Events about what the writes did.
    pub events: Vec<Event>,
    /// Where the workflow stands.
    pub progress: Progress,
    /// When to look again.
    pub next: Next,
}

/// Where a workflow stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The parent's labels or annotations change: the pass ends, the watch event of the change brings the next one.
    Relabelled,
    /// A pipeline runs, or waits for something to end.
    InProgress {
        /// What is waited for, as a clause for people: `pipeline build is running (Job a/b)`.
        waits_for: String,
    },
    /// Held by the suspension label; the status says so (for a Promise, `Available` is the caller's to set).
    Suspended {
        /// The pipeline that asked for it, if one did.
        pipeline: Option<String>,
    },
    /// A pipeline has failed; nothing happens until a label, a change of spec or the interval.
    Failed {
        /// The pipeline.
        pipeline: String,
    },
    /// Every pipeline has completed and this is on record, or there are none.
    Finished,
}

impl Outcome {
    fn new(status: status::Document, progress: Progress) -> Self {
        let status = status.into_value();
        Self { writes: Vec::new(), status, events: Vec::new(), progress, next: Next::OnChange }
    }

    /// Sets the writes that start a pipeline, and adds the event that tells of its Job.
    fn start(&mut self, writes: Vec<Write>, started: Event) {
        let job = writes.iter().find(|write| write.is_irrevocable());
        self.events.push(started.of(job));
        self.writes = writes;
    }
}

impl Snapshot<'_> {
    fn document(&self) -> status::Document {
        status::Document::read(&self.parent.status)
    }

    fn view(&self) -> failure::View<'_> {
        failure::View { now: self.now, parent: self.parent, surroundings: self.surroundings }
    }

    /// Returns the outcome that only changes labels and annotations of the parent; `None` removes one.
    ///
    /// The write conflicts with anything newer: a trigger is never consumed twice.
    fn relabel(&self, labels: &[(&str, Option<&str>)], annotations: &[(&str, String)]) -> Outcome {
        let labels: BTreeMap<_, _> = labels
            .iter()
            .filter(|(key, value)| value.is_some() || self.parent.labels.contains_key(*key))
            .map(|(key, value)| (*key, *value))
            .collect();
        let mut patch = serde_json::Map::new();
        if !labels.is_empty() {
            patch.insert("labels".into(), crate::patch::to_value(&labels));
        }
        let annotations: BTreeMap<_, _> = annotations.iter().map(|(key, value)| (*key, value.as_str())).collect();
        if !annotations.is_empty() {
            patch.insert("annotations".into(), crate::patch::to_value(&annotations));
        }
        let mut outcome = Outcome::new(self.document(), Progress::Relabelled);
        outcome.writes.extend(Write::metadata(self.parent.target.clone(), &Value::Object(patch)));
        outcome
    }

    /// Returns the annotation that starts the workflow over: a number above those of all Jobs, also when the parent has
    /// lost its own.
    fn next_run(&self) -> (&'static str, String) {
        let highest = self.jobs.iter().map(|job| history::run(job)).max().unwrap_or_default();
        (RUN, self.parent.run().max(highest).saturating_add(1).to_string())
    }

    /// Returns what the revisions in use say of this workflow.
    fn in_use(&self) -> access::InUse {
        let own = self.workflow;
        let definitions = self.surroundings.in_use(&own.promise);
        let workflows = definitions.iter().filter_map(|other| other.workflow(&own.promise, own.kind, own.action).ok());
        let here = |other| Workflow { namespace: own.namespace.clone(), is_shared: own.is_shared, ..other };
        let workflows = workflows.map(here).collect();
        let mut namespaces = vec![(own.is_shared || own.kind == WorkflowType::Promise).then(|| own.namespace.clone())];
        namespaces.extend(definitions.iter().map(|other| match (other.namespace.as_str(), own.kind) {
            ("", WorkflowType::Resource) => None,
            ("", WorkflowType::Promise) => Some(keys::SYSTEM_NAMESPACE.to_owned()),
            (namespace, _) => Some(namespace.to_owned()),
        }));
        access::InUse { workflows, namespaces: namespaces.into_iter().collect() }
    }

    /// Returns the removal of permissions that no pipeline has any more.
    fn outdated_access(&self) -> Vec<Write> {
        let existing = self.surroundings.existing(&self.workflow.promise, &self.workflow.namespace);
        access::outdated(self.workflow, &self.in_use(), &existing, || self.earlier_jobs())
    }

    /// Returns the Jobs of the Promise and its requests that were made for an earlier spec of the Promise.
    fn earlier_jobs(&self) -> Vec<Arc<v1::Job>> {
        let mut jobs = self.surroundings.jobs(&self.workflow.promise);
        let now = self.parent.promise_generation;
        jobs.retain(|job| now.is_none_or(|now| number(job.annotations(), PROMISE_GENERATION) < now));
        jobs
    }

    /// Stops a running Job whose outcome nobody wants any more and that may wait for ever (an image that is not there, a node
    /// that is never free); returns whether it does. What has begun is left to end by itself.
    fn stop_before_start(&self, job: &v1::Job, outcome: &mut Outcome) -> bool {
        let stops = !history::is_told_to_suspend(job) && self.surroundings.sight(job).is_before_start();
        if stops {
            let action = match history::action(job) {
                Action::Configure => "Configure",
                Action::Delete => "Delete",
            };
            let note = format!("{action} Pipeline suspended: {}", history::pipeline(job));
            let stop = stop(job);
            outcome.events.push(self.event(Event::normal, "PipelineSuspended", note).of(&stop));
            outcome.writes.push(stop);
        }
        stops
    }

    /// Returns the writes that start the pipeline at `index`: what its Job needs, then the Job.
    fn start(&self, index: usize, next_sequence: i64) -> Vec<Write> {
        let parent = self.parent;
        let in_use = self.in_use();
        let scheduling_key = access::scheduling_key(self.workflow, &in_use.workflows);
        let workflow = &Workflow { scheduling_key, ..self.workflow.clone() };
        let pipeline = &workflow.pipelines[index];
        let existing = self.surroundings.existing(&workflow.promise, &workflow.namespace);
        let mut writes = access::writes(parent, workflow, pipeline, &existing, &in_use, || self.earlier_jobs());
        // Only requests are on several revisions, and only they know which.
        if (workflow.kind, workflow.action) == (WorkflowType::Resource, Action::Configure) {
            let definitions = self.surroundings.in_use(&workflow.promise);
            let selectors: Vec<_> = definitions.iter().map(|one| one.selectors.as_slice()).collect();
            let jobs = || self.surroundings.jobs(&workflow.promise);
            writes.extend(access::outdated_selectors(workflow, &selectors, &existing, jobs));
        }
        // Five digits of a hash can coincide with those of another Job of a similar name.
        let is_taken = |sequence: i64| {
            let key = job::key(parent, workflow, pipeline, sequence);
            let own = self.jobs.iter().any(|job| ObjectKey::of(job.as_ref()) == key);
            own || self.surroundings.is_taken(&key, parent)
        };
        // Works outlive Jobs that somebody removed; a number twice would make an old output pass for a new one.
        let written = self.works.iter().filter_map(|work| works::written_by(work)).max().unwrap_or_default();
        let mut sequence = next_sequence.max(written.saturating_add(1));
        while is_taken(sequence) {
            sequence = sequence.saturating_add(1);
        }
        let document = self.document();
        let previous_version = document.text("promiseVersion");
        let attempt = job::Attempt { index, sequence, run: parent.run(), previous_version };
        let job = job::job(parent, workflow, self.settings, attempt);
        writes.push(Write::create(Kind::of::<v1::Job>(), crate::patch::to_value(&job)).given(&parent.target));
        writes
    }

    fn event(
        &self,
        event: fn(Reporter, Target, &'static str, String) -> Event,
        reason: &'static str,
        note: String,
    ) -> Event {
        event(self.parent.reporter, self.parent.target.clone(), reason, note)
    }
}

/// Returns the write that stops a running Job.
pub(crate) fn stop(job: &v1::Job) -> Write {
    Write::Patch { target: Target::of(job).unpinned(), patch: serde_json::json!({ "spec": { "suspend": true } }) }
}

/// Names a Job and what it does, for people.
fn describe(job: &v1::Job) -> String {
    let action = history::action(job);
    format!("{action} pipeline {} to end (Job {})", history::pipeline(job), ObjectKey::of(job))
}

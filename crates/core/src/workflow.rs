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
//! write that is lost is made up for by the next pass, which finds the Job running. Only a status that itself asks for the
//! run (by a pause, a suspension, a time that has passed) is written before the Job: it would ask again once that has
//! ended. What happened to a pipeline is
//! recorded by a status write that conflicts with anything newer *before* the next pipeline starts: a completed Job seen
//! beside an old parent would otherwise hide that the pipeline asked for suspension.
//!
//! # Source
//! `02-workflows.md` §3–§13

pub mod access;
mod configure;
mod definition;
mod delete;
pub mod failure;
pub mod history;
pub mod job;
pub mod pods;
mod retention;
mod start;
pub mod status;
mod stop;
mod suspension;
#[cfg(test)]
mod tests;
pub mod works;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1;
use kratix_api::pipeline::WorkflowType;
use kratix_api::{Promise, PromiseRevision, Timestamp, Work, keys};
use kube_core::{DynamicObject, Resource, ResourceExt};
use serde_json::Value;

use crate::config::Config;
use crate::object::{Kind, ObjectKey, Target};
use crate::plan::{Event, Next, Reporter, Write};

pub use configure::configure;
pub(crate) use configure::message_of_success;
pub use definition::{Definition, Workflow};
pub use delete::{delete, live_configure_job};
pub use kratix_api::keys::SEQUENCE;
pub(crate) use stop::{PIPELINE_SUSPENDED, stop, stopped};
pub(crate) use suspension::{SUSPENDED, release};

/// Annotation on parents and Jobs: how often the workflow was told to start over.
pub const RUN: &str = "internal.workflows.kratix.io/run";
/// Annotation on parents: the Job whose suspended pipeline is to run again. It may come back with a saved document, so it holds what no
/// other Job has; earlier versions wrote the number of the Job.
pub const RESUME: &str = "internal.workflows.kratix.io/resume";
/// Annotation on Jobs: version of the Promise that the parent had when the Job was made.
pub const PREVIOUS_VERSION: &str = "internal.workflows.kratix.io/previous-version";

/// Annotation on Jobs in another namespace than that of their request, which have no owner: its uid.
pub const PARENT_UID: &str = "internal.workflows.kratix.io/parent-uid";
/// Annotation on Jobs of requests: generation of the Promise when the Job was made.
pub const PROMISE_GENERATION: &str = "internal.workflows.kratix.io/promise-generation";
/// Annotation on Jobs of requests: hash of the Promise spec that the Job was made for, which may be an earlier revision's.
pub const SPEC_HASH: &str = "internal.workflows.kratix.io/spec-hash";
/// Annotation on Jobs of requests: generation of the request when the Job was made.
pub const GENERATION: &str = "internal.workflows.kratix.io/generation";

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
    /// Where its pipelines may run besides its own namespace: each `pipelineNamespace` of the Promise and its revisions, and those of
    /// earlier in which accounts still work for it.
    pub pipeline_namespaces: BTreeSet<String>,
}

impl Parent {
    /// Returns the view on a Promise.
    pub fn of_promise(promise: &Promise) -> Self {
        let status = promise.status.as_ref().map_or(Value::Null, crate::patch::to_value);
        let mut pipeline_namespaces = pipeline_namespaces(Some(promise), &[]);
        pipeline_namespaces.insert(keys::SYSTEM_NAMESPACE.to_owned());
        Self { pipeline_namespaces, ..Self::of(Kind::of::<Promise>(), promise, status, Reporter::Promise) }
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
            pipeline_namespaces: BTreeSet::new(),
        }
    }

    /// Returns whether the label has the one value that is effective.
    pub fn has_label(&self, key: &str) -> bool {
        keys::is_set(&self.labels, key)
    }

    /// Returns how often the workflow was told to start over.
    pub fn run(&self) -> i64 {
        number(&self.annotations, RUN).unwrap_or_default()
    }

    /// Returns the namespace, empty for a Promise.
    pub fn namespace(&self) -> &str {
        self.target.key.namespace.as_deref().unwrap_or_default()
    }

    /// Returns whether its pipelines may run where the Job is.
    pub(crate) fn is_at_home(&self, job: &v1::Job) -> bool {
        history::is_at_home(job, history::Subject::from(&self.target), &self.pipeline_namespaces)
    }
}

/// Returns each `pipelineNamespace` that a Promise or one of its revisions chooses.
pub(crate) fn pipeline_namespaces(promise: Option<&Promise>, revisions: &[Arc<PromiseRevision>]) -> BTreeSet<String> {
    let specs =
        revisions.iter().map(|revision| &revision.spec.promise_spec).chain(promise.map(|promise| &promise.spec));
    let namespaces = specs.map(|spec| &spec.workflows.config.pipeline_namespace);
    namespaces.filter(|namespace| !namespace.is_empty()).cloned().collect()
}

/// Returns the number in an annotation, if there is a readable one.
///
/// Above the highest that counts there would be none for the next: beyond it, Jobs are ordered by time, as those of the original.
pub(crate) fn number(annotations: &BTreeMap<String, String>, key: &str) -> Option<i64> {
    let number: i64 = annotations.get(key)?.parse().ok()?;
    Some(number.clamp(0, keys::SEQUENCE_MAX))
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

    /// Returns the namespaces of the requests of the Promise, those being deleted included; looked at only when something was made
    /// in a pipeline namespace of earlier.
    fn request_namespaces(&self, _promise: &str) -> BTreeSet<String> {
        BTreeSet::new()
    }

    /// Returns the namespaces that were given to pipelines of a type ([`access::bound_namespaces`]).
    fn bound_namespaces(&self, _promise: &str, _kind: WorkflowType) -> BTreeSet<String> {
        BTreeSet::new()
    }

    /// Returns the Jobs labelled with the Promise; looked at only when permissions are to be removed.
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

    /// Returns, for people, whose pods are at work although their Job was stopped or removed, and how to see them: on a node that was
    /// lost they stay until somebody removes them.
    fn last_pods(&self) -> Option<String> {
        let job = ObjectKey::of(self.jobs.iter().find(|job| history::is_leaving(job))?.as_ref());
        let look =
            format!("kubectl get pods -n {} -l job-name={}", job.namespace.as_deref().unwrap_or_default(), job.name);
        Some(format!("the last pod of Job {job} to end; {look}"))
    }

    /// Returns the annotation that starts the workflow over: a number above those of all Jobs, also when the parent has
    /// lost its own.
    fn next_run(&self) -> (&'static str, String) {
        let highest = self.jobs.iter().map(|job| history::run(job)).max().unwrap_or_default();
        (RUN, (self.parent.run().max(highest) + 1).to_string())
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

/// Names a Job and what it does, for people.
fn describe(job: &v1::Job) -> String {
    let action = history::action(job);
    format!("{action} pipeline {} to end (Job {})", history::pipeline(job), ObjectKey::of(job))
}

//! What the Jobs of a parent tell: in which order they ran, for which run, and how they ended.
//!
//! # Source
//! `02-workflows.md` §8.1, §8.2

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::batch::v1;
use kratix_api::pipeline::{Action, WorkflowType};
use kratix_api::{OwnerReference, Timestamp, keys};
use kube_core::{Resource, ResourceExt};

use super::{PARENT_UID, Parent, RUN, SEQUENCE, SPEC_HASH, Workflow, number};
use crate::object::{Kind, ObjectKey, Target};

/// How a Job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It may still do something.
    Running,
    /// Kubernetes gave up on it, or it was suspended.
    Failed,
    /// It has done everything.
    Completed,
}

/// Returns how a Job stands.
///
/// # Guarantees
/// Only conditions that hold count: a Job that was once suspended and released again is judged like any other.
pub fn state(job: &v1::Job) -> State {
    if active_pods(job) > 0 {
        return State::Running;
    }
    if has(job, "Failed") || has(job, "Suspended") {
        State::Failed
    } else if has(job, "Complete") {
        State::Completed
    } else {
        State::Running
    }
}

/// Returns whether the Job can still change anything: it runs, or its last pods are on their way out.
pub fn is_live(job: &v1::Job) -> bool {
    state(job) == State::Running || terminating_pods(job) > 0
}

/// Returns whether the Job was stopped or removed while its containers ran, and they are still at work: for as long as they are given
/// to end.
pub(crate) fn is_leaving(job: &v1::Job) -> bool {
    terminating_pods(job) > 0 || (job.metadata.deletion_timestamp.is_some() && active_pods(job) > 0)
}

/// Returns whether somebody asked for the Job to be suspended.
pub fn is_told_to_suspend(job: &v1::Job) -> bool {
    job.spec.as_ref().and_then(|spec| spec.suspend).unwrap_or_default()
}

/// Of a Job that is over Kubernetes before 1.31 may count a pod for ever: it looks at no such Job again. Later versions end none
/// before its pods are gone.
fn terminating_pods(job: &v1::Job) -> i32 {
    if has(job, "Failed") || has(job, "Complete") {
        return 0;
    }
    job.status.as_ref().and_then(|status| status.terminating).unwrap_or_default()
}

fn active_pods(job: &v1::Job) -> i32 {
    job.status.as_ref().and_then(|status| status.active).unwrap_or_default()
}

fn has(job: &v1::Job, r#type: &str) -> bool {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == r#type && condition.status == "True")
}

/// Returns the number by which Jobs of one parent are ordered; 0 for Jobs of the original.
pub fn sequence(job: &v1::Job) -> i64 {
    number(job.annotations(), SEQUENCE).unwrap_or_default()
}

/// Returns the run a Job belongs to; 0 for Jobs of the original.
pub fn run(job: &v1::Job) -> i64 {
    number(job.annotations(), RUN).unwrap_or_default()
}

/// Returns the hash of the Promise spec that a Job was made for; `None` where it is not known, as with Jobs of the original.
pub fn spec_hash(job: &v1::Job) -> Option<&str> {
    let is_promise = job.labels().get(keys::WORKFLOW_TYPE).is_some_and(|value| value == WorkflowType::Promise.as_str());
    let own = || is_promise.then(|| job.labels().get(keys::HASH)).flatten();
    job.annotations().get(SPEC_HASH).or_else(own).map(String::as_str)
}

/// Returns when the Job was made.
pub fn created(job: &v1::Job) -> Option<Timestamp> {
    job.meta().creation_timestamp.as_ref().map(|time| time.0)
}

/// Returns the name of the Job's pipeline.
pub fn pipeline(job: &v1::Job) -> &str {
    job.labels().get(keys::PIPELINE_NAME).map_or("", String::as_str)
}

/// Returns the Job's action, also in the spelling of early versions.
pub fn action(job: &v1::Job) -> Action {
    let label = job.labels().get(keys::WORKFLOW_ACTION).or_else(|| job.labels().get(keys::WORK_ACTION));
    if label.is_some_and(|value| value == Action::Delete.as_str()) { Action::Delete } else { Action::Configure }
}

/// Sorts Jobs into the order in which they ran: those of the original first, by time and name.
pub(super) fn order(job: &v1::Job) -> (i64, Option<Timestamp>, String) {
    (sequence(job), created(job), job.name_any())
}

/// Jobs of one parent and one workflow, oldest first, without those that are being deleted.
#[derive(Clone, Debug)]
pub struct History<'a> {
    jobs: Vec<&'a Arc<v1::Job>>,
    next_sequence: i64,
}

impl<'a> History<'a> {
    /// Selects the Jobs of `workflow`'s type and action among the parent's Jobs.
    pub fn of(jobs: &'a [Arc<v1::Job>], workflow: &Workflow) -> Self {
        let r#type = |job: &v1::Job| {
            let label = job.labels().get(keys::WORKFLOW_TYPE).or_else(|| job.labels().get(keys::WORK_TYPE));
            label.is_some_and(|value| value == workflow.kind.as_str())
        };
        let next_sequence = jobs.iter().map(|job| sequence(job)).max().unwrap_or_default() + 1;
        let selected = |job: &&Arc<v1::Job>| {
            job.meta().deletion_timestamp.is_none() && r#type(job) && action(job) == workflow.action
        };
        let mut jobs: Vec<_> = jobs.iter().filter(selected).collect();
        jobs.sort_by_cached_key(|job| order(job));
        Self { jobs, next_sequence }
    }

    /// Returns the Jobs, oldest first.
    pub fn jobs(&self) -> &[&'a Arc<v1::Job>] {
        &self.jobs
    }

    /// Returns the Job that ran last.
    pub fn latest(&self) -> Option<&'a Arc<v1::Job>> {
        self.jobs.last().copied()
    }

    /// Returns the Job that ran last for a pipeline.
    pub fn latest_of(&self, pipeline_name: &str) -> Option<&'a Arc<v1::Job>> {
        self.jobs.iter().rev().find(|job| pipeline(job) == pipeline_name).copied()
    }

    /// Returns the number of the next Job. Counts Jobs of the other action too, so that numbers order all of a parent's.
    pub fn next_sequence(&self) -> i64 {
        self.next_sequence
    }
}

/// Returns the labels among those of a Job by which the Jobs of its parent are found, in its namespace: all of them, and
/// perhaps those of another parent whose name is long and begins in the same way.
pub fn siblings(labels: &BTreeMap<String, String>) -> BTreeMap<&str, &str> {
    let shared = [keys::PROMISE_NAME, keys::WORKFLOW_TYPE, keys::RESOURCE_NAME, keys::RESOURCE_NAMESPACE];
    shared.into_iter().filter_map(|key| Some((key, labels.get(key)?.as_str()))).collect()
}

/// Returns whether the Job was made for pipeline `name` of the workflow as it is now.
pub fn belongs_to(job: &v1::Job, workflow: &Workflow, name: &str) -> bool {
    let label = |key: &str| job.labels().get(key).map_or("", String::as_str);
    label(keys::HASH) == workflow.hash
        && label(keys::WORKFLOW_TYPE) == workflow.kind.as_str()
        && label(keys::WORKFLOW_ACTION) == workflow.action.as_str()
        && label(keys::PIPELINE_HASH).is_empty()
        && label(keys::PIPELINE_NAME) == name
}

/// Returns the key of the parent a Job is for, from its annotations; from its labels for Jobs of early versions.
pub fn parent_key(job: &v1::Job) -> Option<ObjectKey> {
    let annotation = |key: &str| job.annotations().get(key).filter(|value| !value.is_empty()).cloned();
    match annotation(keys::JOB_RESOURCE_NAME) {
        Some(name) => Some(ObjectKey { namespace: annotation(keys::JOB_RESOURCE_NAMESPACE), name }),
        None => early_parent_key(job),
    }
}

/// Returns the key of the parent of a Job that has no annotations: a Job of an early version, which ran in the namespace
/// of its request.
pub fn early_parent_key(job: &v1::Job) -> Option<ObjectKey> {
    let label = |key: &str| job.labels().get(key).cloned();
    if job.annotations().contains_key(keys::JOB_RESOURCE_NAME) {
        return None;
    }
    match (label(keys::RESOURCE_NAME), label(keys::PROMISE_NAME)?) {
        (Some(name), _) => Some(ObjectKey { namespace: job.namespace(), name }),
        (None, promise) => Some(ObjectKey::cluster(promise)),
    }
}

/// An object for which Jobs are made, as those who look at very many have it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its resource.
    pub kind: &'a Kind,
    /// Its namespace, if it has one.
    pub namespace: Option<&'a str>,
    /// Its name.
    pub name: &'a str,
    /// Its identity.
    pub uid: Option<&'a str>,
}

impl<'a> From<&'a Target> for Subject<'a> {
    fn from(target: &'a Target) -> Self {
        let Target { kind, key, uid, .. } = target;
        Self { kind, namespace: key.namespace.as_deref(), name: &key.name, uid: uid.as_deref() }
    }
}

/// Returns whether the Job is one of this very parent: see [`is_made_for`].
pub fn is_of(job: &v1::Job, parent: &Parent) -> bool {
    is_made_for(job, Subject::from(&parent.target), &parent.pipeline_namespaces)
}

/// Returns whether the Job is one of this very object, whose pipelines run in its own namespace or one of `pipeline_namespaces`: not of
/// another kind, nor of an earlier object of the same name, nor one that somebody has made to look like it in another namespace.
///
/// Whoever may read an object knows its uid; only those who may work for it can make a Job where its pipelines run. Those of the
/// original in a `pipelineNamespace` do not say the uid.
pub fn is_made_for(job: &v1::Job, subject: Subject<'_>, pipeline_namespaces: &BTreeSet<String>) -> bool {
    let uid = parent_uid(job, subject);
    is_at_home(job, subject, pipeline_namespaces)
        && is_of_namesake(job, subject)
        && uid.is_none_or(|uid| Some(uid) == subject.uid)
}

/// Returns whether the Job was left behind: by an earlier object of the same kind and name, if it has no owner with which the garbage
/// collector would remove it, or where the parent's pipelines do not run any more, once it has ended.
pub fn is_left_behind(job: &v1::Job, parent: &Parent) -> bool {
    let subject = Subject::from(&parent.target);
    let uid = job.annotations().get(PARENT_UID);
    let is_of_forerunner = || uid.is_some_and(|uid| Some(uid.as_str()) != subject.uid);
    let is_elsewhere = || {
        let is_its_own = parent_uid(job, subject).is_some_and(|uid| Some(uid) == subject.uid);
        is_its_own && !is_at_home(job, subject, &parent.pipeline_namespaces) && !is_live(job)
    };
    is_of_namesake(job, subject) && (is_of_forerunner() || is_elsewhere())
}

/// Returns whether pipelines of the object may run where the Job is.
pub(super) fn is_at_home(job: &v1::Job, subject: Subject<'_>, pipeline_namespaces: &BTreeSet<String>) -> bool {
    let own = job.metadata.namespace.as_deref();
    own.is_some_and(|own| subject.namespace == Some(own) || pipeline_namespaces.contains(own))
}

/// Returns the uid of the object that a Job was made for, where it is known.
fn parent_uid<'a>(job: &'a v1::Job, subject: Subject<'_>) -> Option<&'a str> {
    let is_it = |owner: &&OwnerReference| owner.kind == subject.kind.kind && owner.name == subject.name;
    let owner = job.owner_references().iter().find(is_it).map(|owner| owner.uid.as_str());
    owner.or_else(|| job.annotations().get(PARENT_UID).map(String::as_str))
}

fn is_of_namesake(job: &v1::Job, subject: Subject<'_>) -> bool {
    let annotation = |key: &str| job.annotations().get(key).map(String::as_str);
    let named = |key: &str| annotation(key).filter(|value| !value.is_empty());
    let is_named = match named(keys::JOB_RESOURCE_NAME) {
        Some(name) => name == subject.name && named(keys::JOB_RESOURCE_NAMESPACE) == subject.namespace,
        None => early_parent_key(job)
            .is_some_and(|key| key.name == subject.name && key.namespace.as_deref() == subject.namespace),
    };
    // The version may change while the object stays the same.
    let group = |api_version: &str| api_version.rsplit_once('/').map_or("", |(group, _)| group) == subject.kind.group;
    is_named
        && annotation(keys::JOB_RESOURCE_KIND).is_none_or(|kind| kind == subject.kind.kind)
        && annotation(keys::JOB_RESOURCE_API_VERSION).is_none_or(group)
}

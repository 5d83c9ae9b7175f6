//! Permissions that no pipeline has any more, and pods that still need them.
//!
//! # Source
//! `02-workflows.md` §5.6, weaknesses 23 and 25

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use kratix_api::pipeline::Action;
use kratix_api::{keys, name};
use kube_core::{Resource, ResourceExt};

use super::{Existing, InUse, Wanted, user_permissions};
use crate::object::{Kind, ObjectKey, Target};
use crate::plan::Write;
use crate::workflow::Workflow;
use crate::workflow::history::{self, State};

/// A role for one permission namespace serves pipelines of several namespaces, of which its label names one.
const SHARED: &str = "ClusterRole";

/// Returns the removal of permissions beyond the default ones that no pipeline of this Promise, type and namespace has any
/// more: of the present pipelines, of those that were removed or renamed, and of delete pipelines, which remove nothing
/// themselves; and of those in namespaces in which pipelines of this type ran before, and run no more. What cannot be decoded is not
/// judged, and a Job that still runs for another parent, and for a spec that is not in use, keeps what its pod may do: the start that
/// follows it removes that.
pub(in crate::workflow) fn outdated(
    workflow: &Workflow,
    in_use: &InUse,
    existing: &Existing,
    jobs: impl FnOnce() -> Vec<Arc<Job>>,
) -> Vec<Write> {
    let mut kept = Vec::new();
    let mut judged = Vec::from(Action::ALL);
    for action in Action::ALL {
        for one in std::iter::once(workflow).chain(&in_use.workflows) {
            match one.for_action(action) {
                Some(one) => kept.extend(one.pipelines.iter().flat_map(|pipeline| user_permissions(&one, pipeline))),
                None => judged.retain(|judged| *judged != action),
            }
        }
    }
    let rule = Outdated { workflow, in_use, kept, judged };
    let mut found = Vec::new();
    // Bindings first: a binding never names a role that is gone.
    rule.apply(&existing.cluster_role_bindings, &mut found);
    rule.apply(&existing.role_bindings, &mut found);
    rule.apply(&existing.cluster_roles, &mut found);
    rule.apply(&existing.roles, &mut found);
    if found.is_empty() {
        return Vec::new();
    }
    let mut earlier = running(jobs());
    earlier.retain(|job| in_use.is_earlier(workflow, job));
    let unused =
        found.into_iter().filter(|(target, labels)| !earlier.iter().any(|job| serves(&target.kind, labels, job)));
    unused.map(|(target, _)| Write::Delete { target }).collect()
}

pub(super) fn running(mut jobs: Vec<Arc<Job>>) -> Vec<Arc<Job>> {
    jobs.retain(|job| history::state(job) == State::Running);
    jobs
}

/// Returns whether the pod of a Job of the same Promise may do what it does because of a permission with these labels.
pub(super) fn serves(kind: &Kind, labels: &BTreeMap<String, String>, job: &Job) -> bool {
    is_of_pipeline(labels, job)
        && (kind.kind == SHARED || labels.get(keys::PIPELINE_NAMESPACE) == job.namespace().as_ref())
}

/// Returns whether a permission with these labels is one of the pipeline that a Job of the same Promise runs.
pub(super) fn is_of_pipeline(labels: &BTreeMap<String, String>, job: &Job) -> bool {
    let r#type = label(labels, keys::WORKFLOW_TYPE, keys::WORK_TYPE);
    labels.get(keys::PIPELINE_NAME).map(String::as_str) == Some(history::pipeline(job))
        && r#type == label(job.labels(), keys::WORKFLOW_TYPE, keys::WORK_TYPE)
        && label(labels, keys::WORKFLOW_ACTION, keys::WORK_ACTION) == Some(history::action(job).as_str())
}

/// Returns the value of a label, in the spelling of early versions as well.
fn label<'a>(labels: &'a BTreeMap<String, String>, key: &str, legacy: &str) -> Option<&'a str> {
    labels.get(key).or_else(|| labels.get(legacy)).map(String::as_str)
}

/// Which permission objects are to be removed.
struct Outdated<'a> {
    workflow: &'a Workflow,
    in_use: &'a InUse,
    kept: Vec<Wanted>,
    /// Actions of which all pipelines in use are known.
    judged: Vec<Action>,
}

impl Outdated<'_> {
    fn apply<'a, K: Resource<DynamicType = ()>>(
        &self,
        objects: &'a [Arc<K>],
        found: &mut Vec<(Target, &'a BTreeMap<String, String>)>,
    ) {
        let kind = Kind::of::<K>();
        for object in objects {
            let key = ObjectKey::of(object.as_ref());
            let is_kept = || self.kept.iter().any(|kept| kept.kind == kind && kept.key == key);
            let is_ours = self.covers(&kind, object.labels()) && is_named_by_us(&key.name, object.labels());
            if is_ours && !is_kept() && object.meta().deletion_timestamp.is_none() {
                found.push((Target::of(object.as_ref()), object.labels()));
            }
        }
    }

    /// Returns whether the labels are those of a permission of this Promise, type and namespace, or of a namespace in which no
    /// pipeline runs any more; in the spelling of early versions as well.
    fn covers(&self, kind: &Kind, labels: &BTreeMap<String, String>) -> bool {
        let action = label(labels, keys::WORKFLOW_ACTION, keys::WORK_ACTION);
        let namespace = labels.get(keys::PIPELINE_NAMESPACE);
        let is_left = || namespace.is_some_and(|namespace| self.in_use.is_left(namespace));
        let is_here = kind.kind == SHARED || namespace == Some(&self.workflow.namespace) || is_left();
        labels.get(keys::PROMISE_NAME) == Some(&self.workflow.promise)
            && labels.contains_key(keys::PIPELINE_NAME)
            && namespace.is_some()
            && is_here
            && label(labels, keys::WORKFLOW_TYPE, keys::WORK_TYPE) == Some(self.workflow.kind.as_str())
            && self.judged.iter().any(|judged| action == Some(judged.as_str()))
    }
}

/// Returns whether a permission object with these labels has a name that Kratix gives: a copy that somebody has made of it,
/// labels and all, is theirs.
fn is_named_by_us(name: &str, labels: &BTreeMap<String, String>) -> bool {
    let text = |key: &str| labels.get(key).map_or("", String::as_str);
    let r#type = label(labels, keys::WORKFLOW_TYPE, keys::WORK_TYPE).unwrap_or_default();
    let action = label(labels, keys::WORKFLOW_ACTION, keys::WORK_ACTION).unwrap_or_default();
    let id = [text(keys::PROMISE_NAME), r#type, action, text(keys::PIPELINE_NAME)].join("-");
    name.starts_with(name::stem(&id))
}

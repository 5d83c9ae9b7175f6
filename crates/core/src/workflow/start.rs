//! The start of a pipeline: what its Job needs and what nobody needs any more, then the Job.
//!
//! Accounts and permissions are those of a Promise, not of a request, so a start looks at everybody else's: revisions that other requests
//! use, Jobs that still run, namespaces in which pipelines ran before.
//!
//! # Source
//! `02-workflows.md` §5, §8.5

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::batch::v1;
use kratix_api::keys;
use kratix_api::pipeline::{Action, WorkflowType};
use kube_core::ResourceExt;

use super::{Definition, Snapshot, Workflow, access, history, job, works};
use crate::object::{Kind, ObjectKey};
use crate::plan::Write;

impl Snapshot<'_> {
    /// Returns what the revisions in use say of this workflow.
    fn in_use(&self, definitions: &[Arc<Definition>], existing: &access::Existing) -> access::InUse {
        let own = self.workflow;
        let workflows = definitions.iter().filter_map(|other| other.workflow(&own.promise, own.kind, own.action).ok());
        let here = |other| Workflow { namespace: own.namespace.clone(), is_shared: own.is_shared, ..other };
        let workflows = workflows.map(here).collect();
        let mut namespaces = vec![(own.is_shared || own.kind == WorkflowType::Promise).then(|| own.namespace.clone())];
        namespaces.extend(definitions.iter().map(|other| match (other.namespace.as_str(), own.kind) {
            ("", WorkflowType::Resource) => None,
            ("", WorkflowType::Promise) => Some(keys::SYSTEM_NAMESPACE.to_owned()),
            (namespace, _) => Some(namespace.to_owned()),
        }));
        let is_beside_requests = namespaces.contains(&None);
        let namespaces = namespaces.into_iter().flatten().collect();
        let mut in_use = access::InUse { workflows, namespaces, is_beside_requests, left: BTreeSet::new() };
        in_use.left = self.left(&in_use, existing);
        in_use
    }

    /// Returns the namespaces that were a `pipelineNamespace` and in which no pipeline of this type runs any more.
    fn left(&self, in_use: &access::InUse, existing: &access::Existing) -> BTreeSet<String> {
        let workflow = self.workflow;
        let mut left = access::bound_namespaces(&workflow.promise, workflow.kind, &existing.cluster_role_bindings);
        left.retain(|namespace| !in_use.namespaces.contains(namespace) && *namespace != workflow.namespace);
        if left.is_empty() {
            return left;
        }
        if in_use.is_beside_requests {
            let requests = self.surroundings.request_namespaces(&workflow.promise);
            left.retain(|namespace| !requests.contains(namespace));
        }
        for job in self.jobs_at_home(existing) {
            if history::is_live(&job) {
                left.retain(|namespace| job.namespace().as_ref() != Some(namespace));
            }
        }
        left
    }

    /// Returns the Jobs of the Promise and its requests in the namespaces where their pipelines run, or ran: anywhere else anybody could
    /// keep a permission from being removed, with a Job that looks like one of them.
    fn jobs_at_home(&self, existing: &access::Existing) -> Vec<Arc<v1::Job>> {
        let promise = &self.workflow.promise;
        let mut jobs = self.surroundings.jobs(promise);
        if jobs.iter().all(|job| self.parent.is_at_home(job)) {
            return jobs;
        }
        let bindings = &existing.cluster_role_bindings;
        let mut homes = self.surroundings.request_namespaces(promise);
        homes.extend(WorkflowType::ALL.into_iter().flat_map(|kind| access::bound_namespaces(promise, kind, bindings)));
        jobs.retain(|job| self.parent.is_at_home(job) || job.namespace().is_some_and(|own| homes.contains(&own)));
        jobs
    }

    /// Returns the removal of permissions that no pipeline has any more.
    pub(super) fn outdated_access(&self) -> Vec<Write> {
        let existing = self.surroundings.existing(&self.workflow.promise, &self.workflow.namespace);
        let in_use = self.in_use(&self.surroundings.in_use(&self.workflow.promise), &existing);
        let mut writes = self.left_access(&in_use);
        let jobs = || self.jobs_at_home(&existing);
        writes.extend(access::outdated(self.workflow, &in_use, &existing, jobs));
        writes.extend(access::last_of_left(self.workflow, &in_use, &existing));
        writes
    }

    /// Returns the removal of accounts and of what every pipeline may do from the namespaces that were left.
    fn left_access(&self, in_use: &access::InUse) -> Vec<Write> {
        let existing_in = |namespace: &str| self.surroundings.existing(&self.workflow.promise, namespace);
        access::left_behind(self.workflow, in_use, existing_in)
    }

    /// Returns the writes that start the pipeline at `index`: what its Job needs, then the Job.
    pub(super) fn start(&self, index: usize, next_sequence: i64) -> Vec<Write> {
        let parent = self.parent;
        let existing = self.surroundings.existing(&self.workflow.promise, &self.workflow.namespace);
        let definitions = self.surroundings.in_use(&self.workflow.promise);
        let in_use = self.in_use(&definitions, &existing);
        let scheduling_key = access::scheduling_key(self.workflow, &in_use.workflows);
        let workflow = &Workflow { scheduling_key, ..self.workflow.clone() };
        let pipeline = &workflow.pipelines[index];
        let jobs = || self.jobs_at_home(&existing);
        let mut writes = Vec::new();
        let is_configure = workflow.action == Action::Configure;
        if is_configure {
            writes.extend(self.left_access(&in_use));
        }
        writes.extend(access::writes(parent, workflow, pipeline, &existing, &in_use, jobs));
        if is_configure {
            writes.extend(access::last_of_left(workflow, &in_use, &existing));
        }
        // Only requests are on several revisions, and only they know which.
        if (workflow.kind, workflow.action) == (WorkflowType::Resource, Action::Configure) {
            let selectors: Vec<_> = definitions.iter().map(|one| one.selectors.as_slice()).collect();
            writes.extend(access::outdated_selectors(workflow, &selectors, &existing, jobs));
        }
        // Five digits of a hash can coincide with those of another Job of a similar name.
        let is_taken = |sequence: i64| {
            let key = job::key(parent, workflow, pipeline, sequence);
            let own = self.jobs.iter().any(|job| ObjectKey::of(job.as_ref()) == key);
            own || self.surroundings.is_taken(&key, parent)
        };
        // Works outlive Jobs that somebody removed; a number twice would make an old output pass for a new one. Those elsewhere are
        // not this workflow's output, and may be anybody's.
        let here = self.works.iter().filter(|work| work.namespace().as_deref() == Some(workflow.namespace.as_str()));
        let written = here.filter_map(|work| works::written_by(work)).max().unwrap_or_default();
        let first = next_sequence.max(written + 1);
        // Far more numbers are left than there are Jobs.
        let sequence = (first..i64::MAX).find(|sequence| !is_taken(*sequence)).unwrap_or(first);
        let document = self.document();
        let previous_version = document.text("promiseVersion");
        let attempt = job::Attempt { index, sequence, run: parent.run(), previous_version };
        let job = job::job(parent, workflow, self.settings, attempt);
        writes.push(Write::create(Kind::of::<v1::Job>(), crate::patch::to_value(&job)).given(&parent.target));
        writes
    }
}

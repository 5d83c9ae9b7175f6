//! Promise: from what an author wrote to an API that takes requests.
//!
//! Order of writes: finalizers alone; then revision, CRD, access to the API, Work of the dependencies, the next Job of the
//! promise workflow, the requests that are to run again; then status; then events. A crash between any two is harmless:
//! the finalizers exist before what they protect; every object has a derived name or is found by its labels, so a repeated
//! pass meets it; a request that was told to run again carries the token of that round; status comes last, so nothing
//! says Available or Reconciled before it is. Changes to the Promise's own labels and annotations are plans of their own,
//! and their watch event brings the next pass.
//!
//! A deleting Promise is taken apart in the order of [`deletion`], one finalizer at a time, and names what it waits for.
//!
//! # Source
//! `03-promises.md` §4–§17, §21, §25; decisions 6, 7, 11, 14, 15, 17

mod api;
mod availability;
mod closing;
pub mod deletion;
mod dependencies;
mod fault;
pub(crate) mod interval;
mod pause;
pub(crate) mod requirement;
mod rerun;
mod revision;
mod status;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod trigger;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kratix_api::condition::{self, Status};
use kratix_api::pipeline::{Action, WorkflowType};
use kratix_api::{Promise, PromiseRevision, ResourceBinding, Work, keys};
use kube_core::ResourceExt;
use serde_json::json;

use crate::object::{Kind, Target};
use crate::plan::{Event, Next, Plan, Reporter, Write};
use crate::workflow::history;
use crate::workflow::status::Document;
use crate::workflow::works::{self, Summary};
use crate::workflow::{self, Definition, Parent, Progress, Settings, Surroundings, access, failure};

pub use api::access_name;
pub use fault::{Fault, refused};
pub use interval::{Source as IntervalSource, of_promise as interval, of_revision as revision_interval};
pub use rerun::{Call, REQUESTS_UP_TO_DATE, RERUN, Refusal, Request, Standing, awaited, follows_requests};
pub(crate) use rerun::{going_on as round, is_after_pause};
pub use revision::candidate_names as revision_names;

/// How long a Promise rests before it looks again at what no watch reports: a CRD of somebody else that is in its way.
const SAFETY_NET: Duration = Duration::from_secs(60);

/// Everything that the decision about one Promise may look at. Lists are sorted by key.
#[derive(Clone)]
pub struct Snapshot {
    /// The only clock.
    pub now: Timestamp,
    /// The Promise.
    pub promise: Arc<Promise>,
    /// What its spec says about workflows.
    pub definition: Arc<Definition>,
    /// All Promises, this one included.
    pub promises: Vec<Arc<Promise>>,
    /// Revisions labelled with this Promise, and whatever holds one of [`revision_names`].
    pub revisions: Vec<Arc<PromiseRevision>>,
    /// Revisions of the Promises that this one requires.
    pub required_revisions: Vec<Arc<PromiseRevision>>,
    /// The CRD named by the API, whoever owns it; without a usable API the one labelled with this Promise.
    pub crd: Option<Arc<CustomResourceDefinition>>,
    /// The role that gives the manager access to the API.
    pub cluster_role: Option<Arc<ClusterRole>>,
    /// Its binding.
    pub cluster_role_binding: Option<Arc<ClusterRoleBinding>>,
    /// Works labelled with this Promise that are its own ([`is_own_work`]), in all namespaces, those being deleted included.
    pub own_works: Vec<Arc<Work>>,
    /// Jobs labelled with this Promise that are of its own workflows ([`is_own_job`]), in all namespaces.
    pub own_jobs: Vec<Arc<Job>>,
    /// Jobs of those requests whose Jobs matter ([`awaited`]). More do no harm.
    pub awaited_jobs: Vec<Arc<Job>>,
    /// Everything that was made for it and its requests, which are many: gathered only while it is being deleted.
    pub remains: Remains,
    /// Requests of its API in all namespaces; `None` while they are not known yet.
    pub requests: Option<Vec<Arc<Request>>>,
    /// Accounts, roles, bindings and ConfigMaps labelled with this Promise.
    pub access: access::Existing,
    /// What only the start of a pipeline looks at.
    pub surroundings: Arc<dyn Surroundings + Send + Sync>,
    /// Process settings and platform configuration.
    pub settings: Settings,
}

/// What is to be gone before a Promise may go. Nothing unless the Promise is being deleted.
#[derive(Clone, Debug, Default)]
pub struct Remains {
    /// Works labelled with the Promise, in all namespaces, those being deleted included.
    pub works: Vec<Arc<Work>>,
    /// Jobs labelled with the Promise, in all namespaces.
    pub jobs: Vec<Arc<Job>>,
    /// Bindings labelled with the Promise.
    pub bindings: Vec<Arc<ResourceBinding>>,
}

impl Snapshot {
    fn name(&self) -> &str {
        self.promise.metadata.name.as_deref().unwrap_or_default()
    }

    fn target(&self) -> Target {
        Target::of(&*self.promise)
    }

    fn generation(&self) -> i64 {
        self.promise.metadata.generation.unwrap_or_default()
    }

    fn has_label(&self, key: &str) -> bool {
        keys::is_set(self.promise.labels(), key)
    }

    fn configure_pipelines(&self) -> usize {
        self.promise.spec.pipelines(WorkflowType::Promise, Action::Configure).len()
    }

    /// Returns the Jobs of its own workflows that are of this very Promise.
    fn jobs_of(&self, parent: &Parent) -> Vec<Arc<Job>> {
        self.own_jobs.iter().filter(|job| history::is_of(job, parent)).cloned().collect()
    }

    /// Returns the Promise as the workflow engine looks at it.
    fn parent(&self) -> Parent {
        let mut parent = Parent::of_promise(&self.promise);
        parent.pipeline_namespaces.extend(self.pipeline_namespaces(WorkflowType::Promise));
        parent
    }

    /// Returns each namespace that is or was a `pipelineNamespace` for pipelines of this type.
    fn pipeline_namespaces(&self, kind: WorkflowType) -> BTreeSet<String> {
        let mut namespaces = workflow::pipeline_namespaces(Some(&self.promise), &self.revisions);
        namespaces.extend(access::bound_namespaces(self.name(), kind, &self.access.cluster_role_bindings));
        namespaces
    }

    /// Returns the Works of one origin, those being deleted included.
    fn works_of<'a>(&'a self, origin: &'a str) -> impl Iterator<Item = &'a Arc<Work>> {
        let is_it = move |work: &&Arc<Work>| work.labels().get(keys::WORK_TYPE).is_some_and(|label| label == origin);
        self.own_works.iter().filter(is_it)
    }

    fn normal(&self, reason: &'static str, note: impl Into<String>) -> Event {
        Event::normal(Reporter::Promise, self.target(), reason, note)
    }

    fn warning(&self, reason: &'static str, note: impl Into<String>) -> Event {
        Event::warning(Reporter::Promise, self.target(), reason, note)
    }
}

/// What a pass over a Promise asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Writes, status, events.
    pub plan: Plan<Finding>,
    /// Requests that are told to run again, after the plan. Each stands for itself: one that is refused, because its
    /// request does not fit the schema any more, holds up no other, and is noted in [`Request::refusal`].
    pub calls: Vec<Call>,
    /// What is told once the first of the calls was made, and with none of them made is not true yet.
    pub announcement: Option<Event>,
    /// Whether requests of its API are looked after; put into effect after the writes.
    pub requests: Requests,
}

impl Decision {
    /// Returns the decision that tells no request to run.
    fn of(plan: Plan<Finding>, requests: Requests) -> Self {
        Self { plan, calls: Vec::new(), announcement: None, requests }
    }
}

/// Whether requests of a Promise's API are looked after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requests {
    /// The controller of this API runs, whatever the state of the Promise: it reports what requests wait for.
    Running {
        /// Group, version, kind and plural of the requests.
        api: Kind,
    },
    /// Nothing to change: the API is not there yet, or it is not known whether it is.
    Unchanged,
    /// There are no requests any more, or never were.
    Stopped,
}

/// What was found out about a Promise. Conditions, events and explanations are renderings of these values.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    /// Reconciling is paused by label.
    Paused,
    /// Something is wrong that somebody must mend.
    Faulty(Fault),
    /// Requirements that are not met, in the order of the spec.
    Unfulfilled {
        /// Name and state of each.
        requirements: Vec<(String, String)>,
    },
    /// The CRD is on its way.
    ApiPending {
        /// Name of the CRD.
        crd: String,
    },
    /// The promise workflow is not done.
    Workflow {
        /// What it waits for.
        waits_for: String,
    },
    /// Requests are being told to run again.
    Rerunning {
        /// How many are left after this pass.
        left: usize,
    },
    /// The Promise is being deleted and waits.
    Deleting {
        /// For what.
        waits_for: String,
    },
    /// Requests are accepted.
    Available,
}

/// Returns whether a Job is one of a Promise's own workflows, be it with labels of the old scheme.
pub fn is_own_job(job: &Job) -> bool {
    let is_promise = |key| job.labels().get(key).is_some_and(|value| value == WorkflowType::Promise.as_str());
    is_promise(keys::WORKFLOW_TYPE) || is_promise(keys::WORK_TYPE)
}

/// Returns whether a Work is a Promise's own: of its dependencies, or of its own workflow.
pub fn is_own_work(work: &Work) -> bool {
    let own = [keys::WORK_TYPE_PROMISE, keys::WORK_TYPE_STATIC_DEPENDENCY];
    !keys::is_set(work.labels(), keys::DRY_RUN_SUMMARY)
        && work.labels().get(keys::WORK_TYPE).is_some_and(|origin| own.contains(&origin.as_str()))
}

/// Returns the whole answer to the state of one Promise.
pub fn decide(snapshot: &Snapshot) -> Decision {
    if snapshot.has_label(keys::PAUSED) {
        return pause::decide(snapshot);
    }
    if snapshot.promise.metadata.deletion_timestamp.is_some() {
        return deletion::decide(snapshot);
    }
    if let Some(write) = finalizers(snapshot).or_else(|| labels(snapshot)).or_else(|| rerun::own_metadata(snapshot)) {
        let requests = api::requests(snapshot);
        return Decision::of(Plan::from(write), requests);
    }
    if let Some(plan) = pause::leave(snapshot) {
        return Decision::of(plan, api::requests(snapshot));
    }
    walk(snapshot)
}

/// Returns the write of missing finalizers, and removes that of a delete pipeline which is gone.
fn finalizers(snapshot: &Snapshot) -> Option<Write> {
    let spec = &snapshot.promise.spec;
    let is_wanted = |finalizer: &str| match finalizer {
        keys::FINALIZER_RESOURCE_REQUEST_CLEANUP
        | keys::FINALIZER_DYNAMIC_CONTROLLER_CLEANUP
        | keys::FINALIZER_API_CRD_CLEANUP => spec.has_api(),
        keys::FINALIZER_DELETE_WORKFLOWS => !spec.pipelines(WorkflowType::Promise, Action::Delete).is_empty(),
        _ => true,
    };
    let mut wanted: Vec<&str> = snapshot.promise.finalizers().iter().map(String::as_str).collect();
    wanted.retain(|finalizer| *finalizer != keys::FINALIZER_DELETE_WORKFLOWS || is_wanted(finalizer));
    for finalizer in keys::PROMISE_FINALIZERS {
        if is_wanted(finalizer) && !wanted.contains(&finalizer) {
            wanted.push(finalizer);
        }
    }
    if wanted.iter().eq(snapshot.promise.finalizers()) {
        return None;
    }
    Write::metadata(snapshot.target(), &json!({ "finalizers": wanted }))
}

/// Returns the write that removes labels which nothing else would ever consume.
fn labels(snapshot: &Snapshot) -> Option<Write> {
    let mut useless = Vec::new();
    if snapshot.configure_pipelines() == 0 {
        useless.push(keys::RUN_FROM_START);
        // It stops the Job of a pipeline that is gone.
        if !snapshot.has_label(keys::MANUAL_RECONCILIATION) || !is_configuring(snapshot) {
            useless.push(keys::MANUAL_RECONCILIATION);
        }
    }
    if !snapshot.promise.spec.has_api() {
        useless.push(keys::RECONCILE_RESOURCES);
    }
    useless.retain(|key| snapshot.promise.labels().contains_key(*key));
    let removed: serde_json::Map<_, _> =
        useless.into_iter().map(|key| (key.to_owned(), serde_json::Value::Null)).collect();
    if removed.is_empty() {
        return None;
    }
    Write::metadata(snapshot.target(), &json!({ "labels": removed }))
}

/// Returns whether a Job of the promise workflow runs.
fn is_configuring(snapshot: &Snapshot) -> bool {
    let jobs = snapshot.jobs_of(&snapshot.parent());
    let runs = |job: &Arc<Job>| history::state(job) == history::State::Running;
    jobs.iter().any(|job| history::action(job) == Action::Configure && runs(job))
}

/// Collects what the steps of one pass ask for.
struct Walk<'a> {
    snapshot: &'a Snapshot,
    writes: Vec<Write>,
    calls: Vec<Call>,
    announcement: Option<Event>,
    status: status::Draft,
    events: Vec<Event>,
    faults: Vec<Fault>,
    findings: Vec<Finding>,
    next: Next,
}

impl Walk<'_> {
    fn fault(&mut self, fault: Fault) {
        self.findings.push(Finding::Faulty(fault.clone()));
        self.faults.push(fault);
    }

    /// Looks again after `delay` at the latest.
    fn look_again(&mut self, delay: Duration) {
        self.next = match self.next {
            Next::After(earlier) if earlier <= delay => Next::After(earlier),
            _ => Next::After(delay),
        };
    }

    fn finish(self, requests: Requests) -> Decision {
        let status = self.status.write(self.snapshot);
        let plan = Plan { writes: self.writes, status, events: self.events, next: self.next, findings: self.findings };
        Decision { calls: self.calls, announcement: self.announcement, ..Decision::of(plan, requests) }
    }
}

fn walk(snapshot: &Snapshot) -> Decision {
    let mut walk = Walk {
        snapshot,
        writes: Vec::new(),
        calls: Vec::new(),
        announcement: None,
        status: status::Draft::of(snapshot),
        events: Vec::new(),
        faults: Vec::new(),
        findings: Vec::new(),
        next: Next::OnChange,
    };
    let revision = revision::keep(&mut walk);
    walk.status.set_version(snapshot);
    let requirements = requirement::keep(&mut walk);
    walk.status.required_by(requirement::required_by(snapshot));
    let api = api::keep(&mut walk);
    let requests = api::requests(snapshot);
    // Nothing of a Promise whose API cannot be had goes out to Destinations.
    let (workflow, output) = if api == api::State::Refused {
        walk.look_again(SAFETY_NET);
        walk.events.extend(follow_pods(snapshot, &mut walk.status));
        (Workflows::Held, Summary::default())
    } else {
        dependencies::keep(&mut walk);
        run_workflow(&mut walk)
    };
    if workflow == Workflows::Relabelled {
        // What was found out is found out again once the Promise carries its new labels: no status beside them.
        walk.status = status::Draft::of(snapshot);
        walk.events.retain(|event| event.reason == "RevisionCreated");
        return walk.finish(requests);
    }
    let seen = Seen { revision, requirements, api, workflow };
    availability::keep(&mut walk, &seen);
    rerun::keep(&mut walk, &seen);
    closing::keep(&mut walk, &seen, output);
    walk.finish(requests)
}

/// What the steps of a pass found, as far as later steps look at it.
struct Seen {
    revision: revision::State,
    requirements: requirement::State,
    api: api::State,
    workflow: Workflows,
}

/// Where the promise workflow stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Workflows {
    Relabelled,
    /// It cannot be run, see the faults.
    Held,
    InProgress,
    Suspended,
    Failed,
    Finished,
}

/// Where the promise workflow stands, and what the Works it wrote tell.
fn run_workflow(walk: &mut Walk<'_>) -> (Workflows, Summary) {
    let snapshot = walk.snapshot;
    let workflow = match snapshot.definition.promise_workflow(snapshot.name(), Action::Configure) {
        Ok(workflow) => workflow,
        Err(error) => {
            walk.fault(Fault::pipeline(&error));
            walk.events.extend(follow_pods(snapshot, &mut walk.status));
            return (Workflows::Held, Summary::default());
        }
    };
    let parent = snapshot.parent();
    let own = &snapshot.own_jobs;
    let jobs = snapshot.jobs_of(&parent);
    let written: Vec<_> = snapshot.works_of(keys::WORK_TYPE_PROMISE).cloned().collect();
    let view = workflow::Snapshot {
        now: snapshot.now,
        parent: &parent,
        workflow: &workflow,
        jobs: &jobs,
        works: &written,
        surroundings: &*snapshot.surroundings,
        settings: &snapshot.settings,
        interval: Some(interval::of_promise(&snapshot.promise, &snapshot.revisions, &snapshot.settings.config).0),
        // The end of a pause is this module's own business: requests are told as well.
        annotations_after_pause: &[],
    };
    let left_behind = own.iter().filter(|job| history::is_left_behind(job, &parent));
    let left_behind = left_behind.filter(|job| job.metadata.deletion_timestamp.is_none());
    walk.writes.extend(left_behind.map(|job| Write::Delete { target: Target::of(job.as_ref()) }));
    let outcome = workflow::configure(&view);
    walk.writes.extend(outcome.writes);
    walk.events.extend(outcome.events);
    if let Next::After(delay) = outcome.next {
        walk.look_again(delay);
    }
    if outcome.progress != Progress::Relabelled {
        walk.status.take_over(outcome.status);
    }
    let waits_for = match outcome.progress {
        Progress::Relabelled => return (Workflows::Relabelled, Summary::default()),
        Progress::Finished if workflow.pipelines.is_empty() => {
            forget_workflow(walk, &written);
            return (Workflows::Finished, Summary::default());
        }
        Progress::InProgress { waits_for } if workflow.pipelines.is_empty() => {
            // What is gone from the spec keeps nobody from using the Promise, however long its pod runs.
            walk.findings.push(Finding::Workflow { waits_for });
            let last = workflow::live_configure_job(&view).map(|job| history::pipeline(job).to_owned());
            return (Workflows::Finished, Summary { awaited: last.into_iter().collect(), ..Summary::default() });
        }
        Progress::Finished => {
            let is_settled =
                walk.status.before(condition::RECONCILED).is_some_and(|before| before.status == Status::True);
            return (Workflows::Finished, works::summary(&view, is_settled));
        }
        Progress::InProgress { ref waits_for } => waits_for.clone(),
        Progress::Suspended { pipeline: Some(ref pipeline) } => format!("pipeline {pipeline} is suspended"),
        Progress::Suspended { pipeline: None } => "the workflow is suspended by label".to_owned(),
        Progress::Failed { ref pipeline } => format!("pipeline {pipeline} has failed"),
    };
    walk.findings.push(Finding::Workflow { waits_for });
    let stands = match outcome.progress {
        Progress::Suspended { .. } => Workflows::Suspended,
        Progress::Failed { .. } => Workflows::Failed,
        _ => Workflows::InProgress,
    };
    (stands, Summary::default())
}

/// Tells what becomes of the pod of the last Job of the promise workflow, which runs on whatever holds up the Promise.
fn follow_pods(snapshot: &Snapshot, draft: &mut status::Draft) -> Option<Event> {
    let parent = snapshot.parent();
    let view = failure::View { now: snapshot.now, parent: &parent, surroundings: &*snapshot.surroundings };
    let stored = Document::read(&parent.status);
    let mut document = stored.clone();
    let event = failure::follow(view, &snapshot.jobs_of(&parent), &mut document);
    if document != stored {
        draft.take_over(document.into_value());
    }
    event
}

/// Removes what an earlier spec with pipelines has left: what they wrote, and what the status says of them.
fn forget_workflow(walk: &mut Walk<'_>, written: &[Arc<Work>]) {
    let left = written.iter().filter(|work| work.metadata.deletion_timestamp.is_none());
    walk.writes.extend(left.map(|work| Write::Delete { target: Target::of(&**work) }));
    walk.status.forget_workflow();
}

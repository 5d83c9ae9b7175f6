//! Taking a deleted Promise apart, one finalizer at a time.
//!
//! | # | Step | Ends when |
//! |---|---|---|
//! | 1 | delete workflow, after running configure Jobs of requests | it has succeeded, or there is none |
//! | 2 | Jobs of the Promise's own workflows | none is left |
//! | 3 | requests | none is left; a CRD that is gone or somebody else's has none |
//! | 4 | accounts that revisions name, then revisions and bindings | none is left |
//! | 5 | accounts, roles and ConfigMaps; requests are no longer looked after | none is left |
//! | 6 | Works, of dependencies and workflows | none is left, so their files are removed |
//! | 7 | CRD | it is gone |
//!
//! The delete workflow runs while there are requests; revisions outlive requests, whose own deletion needs them; the
//! CRD goes last. Every step is looked at in every pass, with or without its finalizer: a Promise without API carries
//! fewer finalizers and is cleaned up as completely. Only the list of requests is not waited for once step 3 has been
//! done: from step 5 on there is no controller any more that would bring it, nor the right to do so. A finalizer is removed by a write of its own, in the pass that finds
//! its step done, so what made it go is always the present state. While a step waits, `Reconciled` says for what.
//!
//! # Source
//! `03-promises.md` §16, §25 (18–22); decision 17

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kratix_api::condition::{self, Status};
use kratix_api::pipeline::{Action, WorkflowType};
use kratix_api::{ObjectMeta, PromiseSpec, keys};
use kube_core::{Resource, ResourceExt};
use serde_json::json;

use super::{Decision, Fault, Finding, Request, Requests, Snapshot, api, fault, follow_pods, revision, status};
use crate::object::{Kind, ObjectKey, Target};
use crate::plan::{Event, Next, Plan, Reporter, Write};
use crate::text::listed;
use crate::trace;
use crate::workflow::status::Document;
use crate::workflow::{self, Progress, history};

/// How long a step waits at most before it looks again although everything it waits for is watched.
const SAFETY_NET: Duration = Duration::from_secs(15);
/// What to do about Jobs of requests that are waited for: a container of theirs has begun, and nobody but a person can tell whether
/// it still has something to do.
const REMEDY: &str = "kubectl delete job -n NAMESPACE NAME ends one that does not get on";
/// Objects deleted per pass.
const DELETIONS_MAX: usize = 200;

/// What a step of the deletion found.
enum Step {
    /// Nothing is left of what it takes apart.
    Done,
    /// It deletes something or waits for something.
    Waits { writes: Vec<Write>, waits_for: String },
    /// The delete workflow speaks for itself through the status.
    Workflow(Box<Waiting>),
}

/// What the delete workflow asks for while it is not done.
struct Waiting {
    writes: Vec<Write>,
    events: Vec<Event>,
    status: Option<serde_json::Value>,
    outcome: Ending,
    next: Next,
}

enum Ending {
    /// Labels change; no status beside them.
    Relabelled,
    /// It waits.
    Runs(String),
    /// Held by the suspension label, until this.
    Suspended(String),
    /// The pipeline has failed.
    Failed(String),
    /// The pipeline cannot be decoded.
    Faulty(Fault),
}

/// Returns the next step of taking the Promise apart.
pub fn decide(snapshot: &Snapshot) -> Decision {
    let finalizers = snapshot.promise.finalizers();
    let has = |finalizer: &str| finalizers.iter().any(|present| present == finalizer);
    if !keys::PROMISE_FINALIZERS.iter().any(|finalizer| has(finalizer)) {
        // Nothing of Kratix is left; whoever keeps the Promise is named.
        let plan = match finalizers {
            [] => Plan::silent(),
            others => {
                let waits_for = format!("finalizers of others: {}", listed(others));
                Plan { next: Next::OnChange, ..wait(snapshot, Vec::new(), waits_for) }
            }
        };
        return Decision::of(plan, Requests::Stopped);
    }
    let running = api::requests(snapshot);
    // Requests go by their revision.
    if has(keys::FINALIZER_RESOURCE_REQUEST_CLEANUP)
        && let Some(write) = revision::mend(snapshot)
    {
        return Decision::of(Plan::from(write), running);
    }
    type Take = fn(&Snapshot) -> Step;
    let steps: [(&str, Take, bool); 7] = [
        (keys::FINALIZER_DELETE_WORKFLOWS, delete_workflow, true),
        (keys::FINALIZER_WORKFLOWS_CLEANUP, own_jobs, true),
        (keys::FINALIZER_RESOURCE_REQUEST_CLEANUP, requests, true),
        (keys::FINALIZER_REVISION_CLEANUP, revisions, true),
        (keys::FINALIZER_DYNAMIC_CONTROLLER_CLEANUP, access, false),
        (keys::FINALIZER_DEPENDENCIES_CLEANUP, works, false),
        (keys::FINALIZER_API_CRD_CLEANUP, crd, false),
    ];
    for (finalizer, take, has_requests) in steps {
        // The delete workflow has run once its finalizer is gone; the other steps look for what is left.
        if finalizer == keys::FINALIZER_DELETE_WORKFLOWS && !has(finalizer) {
            continue;
        }
        let requests = if has_requests { running.clone() } else { Requests::Stopped };
        match take(snapshot) {
            Step::Done if has(finalizer) => return Decision::of(release(snapshot, finalizer), requests),
            Step::Done => {}
            Step::Waits { writes, waits_for } => {
                return Decision::of(wait(snapshot, writes, waits_for), requests);
            }
            Step::Workflow(waiting) => return Decision::of(tell(snapshot, *waiting), requests),
        }
    }
    Decision::of(Plan::silent(), Requests::Stopped)
}

/// Returns the removal of one finalizer, in a write of its own.
fn release(snapshot: &Snapshot, finalizer: &str) -> Plan<Finding> {
    let left: Vec<&String> = snapshot.promise.finalizers().iter().filter(|present| *present != finalizer).collect();
    let write = Write::metadata(snapshot.target(), &json!({ "finalizers": left }));
    Plan { writes: write.into_iter().collect(), ..Plan::silent() }
}

fn wait(snapshot: &Snapshot, writes: Vec<Write>, waits_for: String) -> Plan<Finding> {
    let mut draft = status::Draft::of(snapshot);
    draft.kratix();
    // No pipeline is left that could be failing.
    draft.forget_failing();
    draft.set(condition::RECONCILED, Status::Unknown, "Deleting", format!("Deleting: waiting for {waits_for}"));
    let status = draft.write(snapshot);
    Plan {
        writes,
        status,
        events: Vec::new(),
        next: Next::After(SAFETY_NET),
        findings: vec![Finding::Deleting { waits_for }],
    }
}

/// Puts the state of the delete workflow on the Promise.
fn tell(snapshot: &Snapshot, waiting: Waiting) -> Plan<Finding> {
    let Waiting { writes, mut events, status, outcome, next } = waiting;
    let mut draft = status::Draft::of(snapshot);
    match status {
        Some(document) => draft.take_over(document),
        None => events.extend(follow_pods(snapshot, &mut draft)),
    }
    draft.kratix();
    let waits_for = match outcome {
        Ending::Relabelled => return Plan { writes, events, next, ..Plan::silent() },
        Ending::Runs(waits_for) => {
            draft.set(condition::RECONCILED, Status::Unknown, "Deleting", format!("Deleting: waiting for {waits_for}"));
            waits_for
        }
        Ending::Suspended(waits_for) => {
            draft.set_available(Status::False, workflow::SUSPENDED, "Suspended");
            let message = "The delete workflow is suspended";
            draft.set(condition::DELETE_WORKFLOW_COMPLETED, Status::False, "DeleteWorkflowSuspended", message);
            let text = format!("Suspended: the deletion waits for {waits_for}");
            draft.set(condition::RECONCILED, Status::Unknown, workflow::SUSPENDED, text);
            waits_for
        }
        Ending::Failed(pipeline) => {
            let message = "The Delete Pipeline has failed";
            let reason = "DeleteWorkflowFailed";
            if draft.set(condition::DELETE_WORKFLOW_COMPLETED, Status::False, reason, message) {
                events.push(snapshot.warning("Failed Pipeline", message));
            }
            let text = format!(
                "Deleting: delete pipeline {pipeline:?} has failed; mend it, or run it again with label \
                 kratix.io/manual-reconciliation=true"
            );
            draft.set(condition::RECONCILED, Status::False, reason, text);
            format!("delete pipeline {pipeline}, which has failed")
        }
        Ending::Faulty(found) => {
            events.extend(fault::show(&mut draft, snapshot, &found));
            found.message
        }
    };
    Plan { writes, status: draft.write(snapshot), events, next, findings: vec![Finding::Deleting { waits_for }] }
}

fn delete_workflow(snapshot: &Snapshot) -> Step {
    let waiting = |outcome| {
        Step::Workflow(Box::new(Waiting {
            writes: Vec::new(),
            events: Vec::new(),
            status: None,
            outcome,
            next: Next::After(SAFETY_NET),
        }))
    };
    let of_requests = |job: &&Arc<Job>| {
        let is = |key, value: &str| job.labels().get(key).is_some_and(|label| label == value);
        is(keys::WORKFLOW_TYPE, WorkflowType::Resource.as_str())
            && is(keys::WORKFLOW_ACTION, Action::Configure.as_str())
    };
    let running: Vec<String> = snapshot
        .remains
        .jobs
        .iter()
        .filter(of_requests)
        .filter(|job| history::is_live(job))
        .map(|job| key_of(&**job))
        .collect();
    if !running.is_empty() {
        let (writes, events) = stuck(snapshot, of_requests);
        let jobs = listed(&running);
        return Step::Workflow(Box::new(Waiting {
            writes,
            events,
            status: None,
            outcome: Ending::Runs(format!("running jobs of requests: {jobs}; {REMEDY}")),
            next: Next::After(SAFETY_NET),
        }));
    }
    let workflow = match snapshot.definition.promise_workflow(snapshot.name(), Action::Delete) {
        Ok(workflow) => workflow,
        Err(error) => {
            return waiting(Ending::Faulty(Fault::pipeline(&error)));
        }
    };
    let parent = snapshot.parent();
    let jobs = snapshot.jobs_of(&parent);
    let outcome = workflow::delete(&workflow::Snapshot {
        now: snapshot.now,
        parent: &parent,
        workflow: &workflow,
        jobs: &jobs,
        works: &[],
        surroundings: &*snapshot.surroundings,
        settings: &snapshot.settings,
        interval: None,
        annotations_after_pause: &[],
    });
    let ending = match outcome.progress {
        Progress::Finished => return Step::Done,
        Progress::Relabelled => Ending::Relabelled,
        Progress::InProgress { waits_for } => Ending::Runs(waits_for),
        Progress::Suspended { .. } => Ending::Suspended(workflow::release(&Document::read(&outcome.status))),
        Progress::Failed { pipeline } => Ending::Failed(pipeline),
    };
    Step::Workflow(Box::new(Waiting {
        writes: outcome.writes,
        events: outcome.events,
        status: Some(outcome.status),
        outcome: ending,
        next: outcome.next,
    }))
}

/// Stops the Jobs that may wait for ever: their requests, held up by the deletion, decide nothing. They are told.
fn stuck(snapshot: &Snapshot, of_requests: impl Fn(&&Arc<Job>) -> bool) -> (Vec<Write>, Vec<Event>) {
    let (mut writes, mut events) = (Vec::new(), Vec::new());
    let kind = api::established_kind(snapshot);
    let running = snapshot.remains.jobs.iter().filter(of_requests);
    let running = running.filter(|job| history::is_live(job) && !history::is_told_to_suspend(job));
    for job in running.filter(|job| snapshot.surroundings.sight(job).is_before_start()) {
        let stop = workflow::stop(job);
        let request = history::parent_key(job).and_then(|key| {
            let is_it = |request: &&Arc<Request>| key == ObjectKey::namespaced(&request.namespace, &request.name);
            snapshot.requests.iter().flatten().find(is_it)
        });
        if let Some((request, kind)) = request.zip(kind.as_ref()) {
            let why = format!("Promise {} is being deleted, and its pod cannot begin", snapshot.name());
            let note = format!("{}; {why}", workflow::stopped(job));
            let target = request.target(kind).unpinned();
            let told = Event::normal(Reporter::ResourceRequest, target, workflow::PIPELINE_SUSPENDED, note);
            events.push(told.of(&stop));
        }
        writes.push(stop);
    }
    (writes, events)
}

fn own_jobs(snapshot: &Snapshot) -> Step {
    let targets = snapshot.own_jobs.iter().map(|job| (Target::of(&**job), &job.metadata));
    remove("jobs of the promise workflow", targets)
}

fn requests(snapshot: &Snapshot) -> Step {
    let finalizers = snapshot.promise.finalizers();
    let is_pending = finalizers.iter().any(|present| present == keys::FINALIZER_RESOURCE_REQUEST_CLEANUP);
    let Some(kind) = api::established_kind(snapshot) else {
        // A kind that is gone, or that is somebody else's, has no requests of this Promise.
        let Some(crd) = api::unserved(snapshot).filter(|_| is_pending) else { return Step::Done };
        let waits_for = format!(
            "a version of CRD {crd} to be served, without which its requests cannot be deleted (patch the CRD)"
        );
        return Step::Waits { writes: Vec::new(), waits_for };
    };
    let Some(requests) = &snapshot.requests else {
        if !is_pending {
            return Step::Done;
        }
        let waits_for = format!("the list of requests of {}.{}", kind.plural, kind.group);
        return Step::Waits { writes: Vec::new(), waits_for };
    };
    if requests.is_empty() {
        return Step::Done;
    }
    let promise = &snapshot.promise.metadata;
    let writes = requests
        .iter()
        .filter(|request| !request.is_deleting)
        .take(DELETIONS_MAX)
        .flat_map(|request| {
            let target = request.target(&kind);
            let words = (!request.has_trace).then(|| trace::last_words(promise, target.clone(), request.generation));
            words.flatten().into_iter().chain([Write::Delete { target: target.unpinned() }])
        })
        .collect();
    let names: Vec<String> = requests.iter().map(|request| format!("{}/{}", request.namespace, request.name)).collect();
    Step::Waits { writes, waits_for: format!("resource requests: {}", listed(&names)) }
}

fn revisions(snapshot: &Snapshot) -> Step {
    let of_promise = |name: &str| name == snapshot.name();
    let revisions = snapshot.revisions.iter().filter(|revision| of_promise(&revision.spec.promise_ref.name));
    // Once the revisions are gone nothing tells which accounts were made because pipelines name them.
    let specs = revisions.clone().map(|revision| &revision.spec.promise_spec);
    match remove("service accounts", named_accounts(snapshot, specs)) {
        Step::Done => {}
        step => return step,
    }
    match remove("revisions", revisions.map(|revision| (Target::of(&**revision), &revision.metadata))) {
        Step::Done => {}
        step => return step,
    }
    let bindings = snapshot.remains.bindings.iter().filter(|binding| of_promise(&binding.spec.promise_ref.name));
    remove("resource bindings", bindings.map(|binding| (Target::of(&**binding), &binding.metadata)))
}

fn access(snapshot: &Snapshot) -> Step {
    let access = &snapshot.access;
    let promise = snapshot.name();
    let scheduling = format!("destination-selectors-{promise}");
    let of_pipeline = |(target, _): &(Target, &ObjectMeta)| is_of_pipeline(promise, &target.key.name);
    let in_cluster = |(target, _): &(Target, &ObjectMeta)| {
        is_of_pipeline(promise, &target.key.name) || target.key.name == api::access_name(promise)
    };
    let accounts = &access.service_accounts;
    let steps = [
        remove("cluster role bindings", targets(&access.cluster_role_bindings).filter(in_cluster)),
        remove("cluster roles", targets(&access.cluster_roles).filter(in_cluster)),
        remove("role bindings", targets(&access.role_bindings).filter(of_pipeline)),
        remove("roles", targets(&access.roles).filter(of_pipeline)),
        remove("service accounts", targets(accounts).filter(of_pipeline)),
        remove("service accounts", named_accounts(snapshot, [&snapshot.promise.spec])),
        remove("config maps", targets(&access.config_maps).filter(|(target, _)| target.key.name == scheduling)),
    ];
    // All at once: no step needs the one before it to be over, and one write after the other is slow.
    let mut writes = Vec::new();
    let mut waits_for = Vec::new();
    for step in steps {
        if let Step::Waits { writes: more, waits_for: what } = step {
            writes.extend(more);
            waits_for.push(what);
        }
    }
    if waits_for.is_empty() { Step::Done } else { Step::Waits { writes, waits_for: waits_for.join("; ") } }
}

fn targets<K: Resource<DynamicType = ()>>(objects: &[Arc<K>]) -> impl Iterator<Item = (Target, &ObjectMeta)> {
    objects.iter().map(|object| (Target::of(&**object), object.meta()))
}

fn workflows() -> impl Iterator<Item = (WorkflowType, Action)> {
    WorkflowType::ALL.into_iter().flat_map(|workflow| Action::ALL.map(|action| (workflow, action)))
}

/// Returns whether a name is one that Kratix gives to what a pipeline of a Promise needs: a user may have put the Promise's
/// label on an object of their own.
pub(super) fn is_of_pipeline(promise: &str, name: &str) -> bool {
    workflows().any(|(workflow, action)| {
        let id = kratix_api::name::pipeline_id(promise, workflow, action, "");
        name.starts_with(&id) || is_cut(&id, name)
    })
}

/// Returns whether a name is a derived one of which not even `id` has been kept whole.
fn is_cut(id: &str, name: &str) -> bool {
    let stem = kratix_api::name::stem(id);
    let suffix = name.strip_prefix(stem).and_then(|rest| rest.strip_prefix('-'));
    let is_digest = |suffix: &str| suffix.len() == 5 && suffix.bytes().all(|byte| byte.is_ascii_hexdigit());
    stem.len() + 1 < id.len() && suffix.is_some_and(is_digest)
}

/// Returns the accounts that pipelines of these specs name and that were made for them: those of users lack the label.
fn named_accounts<'a>(
    snapshot: &'a Snapshot,
    specs: impl IntoIterator<Item = &'a PromiseSpec>,
) -> impl Iterator<Item = (Target, &'a ObjectMeta)> {
    let mut names = BTreeSet::new();
    for spec in specs {
        let pipelines = workflows().flat_map(|(workflow, action)| spec.pipelines(workflow, action));
        names.extend(pipelines.filter_map(|pipeline| pipeline.pointer("/spec/rbac/serviceAccount")?.as_str()));
    }
    targets(&snapshot.access.service_accounts).filter(move |(target, _)| names.contains(target.key.name.as_str()))
}

fn works(snapshot: &Snapshot) -> Step {
    let mut step = remove("works, whose files are being removed", targets(&snapshot.remains.works));
    if let Step::Waits { writes, .. } = &mut step {
        writes.splice(0..0, trace::last_words_to(&snapshot.promise.metadata, &snapshot.remains.works, DELETIONS_MAX));
    }
    step
}

fn crd(snapshot: &Snapshot) -> Step {
    let Some(crd) = api::own_crd(snapshot) else { return Step::Done };
    let kind = Kind::of::<CustomResourceDefinition>();
    let name = crd.metadata.name.clone().unwrap_or_default();
    let target = Target { kind, key: ObjectKey::cluster(&name), uid: crd.uid(), resource_version: None };
    let is_deleting = crd.metadata.deletion_timestamp.is_some();
    let writes = if is_deleting { Vec::new() } else { vec![Write::Delete { target }] };
    Step::Waits { writes, waits_for: format!("CustomResourceDefinition {name}") }
}

/// Deletes what is not being deleted yet; done when nothing is left at all.
fn remove<'a>(what: &str, objects: impl Iterator<Item = (Target, &'a ObjectMeta)>) -> Step {
    let mut names = Vec::new();
    let mut writes = Vec::new();
    for (target, metadata) in objects {
        names.push(target.key.to_string());
        if metadata.deletion_timestamp.is_none() && writes.len() < DELETIONS_MAX {
            writes.push(Write::Delete { target: target.unpinned() });
        }
    }
    if names.is_empty() { Step::Done } else { Step::Waits { writes, waits_for: format!("{what}: {}", listed(&names)) } }
}

fn key_of<K: Resource>(object: &K) -> String {
    ObjectKey::of(object).to_string()
}

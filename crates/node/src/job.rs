//! Job: which Pods it needs next and what its status says. The decision is a pure function of the Job, its Pods and the time.
//!
//! Order of writes: Pods are created or deleted first, then the status, then events. A Pod's name is derived from the Job's uid and the
//! number of the attempt, so a repeated pass after a crash or a lost reply meets the Pod instead of making a second one.
//!
//! Differences to the controller of Kubernetes, all on the safe side: a replacement is created only when the old Pod has ended,
//! whatever `podReplacementPolicy` says; Pods carry no finalizer, because this controller lives with the node and counts a Pod's
//! end in the moment it reports it; indexed Jobs, success policies and failure policies are refused visibly.

pub(crate) mod controller;
mod name;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::event::Event;

/// First pause before another Pod follows one that failed; it doubles with each failure.
pub(crate) const FAILURE_BACKOFF: SignedDuration = SignedDuration::from_secs(10);
/// Longest pause before another Pod.
const FAILURE_BACKOFF_MAX: SignedDuration = SignedDuration::from_mins(10);
/// Attempts whose Pods are known by their names. A Job that fails this often is far beyond any sensible limit.
const ATTEMPTS_MAX: u32 = 1_000;
/// Kubernetes' default.
const BACKOFF_LIMIT: i32 = 6;

/// Everything the decision may look at. Pods are sorted by name.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) now: Timestamp,
    pub(crate) job: Arc<Job>,
    /// Pods controlled by this Job, by uid.
    pub(crate) pods: Vec<Arc<Pod>>,
    /// Pause after the first failure; [`FAILURE_BACKOFF`] but in tests.
    pub(crate) backoff: SignedDuration,
    /// Node that new Pods are assigned to.
    pub(crate) node: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) create: Vec<Pod>,
    /// Names of Pods to delete.
    pub(crate) delete: Vec<String>,
    /// The new status, `None` if it is the same.
    pub(crate) status: Option<JobStatus>,
    pub(crate) events: Vec<Event>,
    /// Delete the Job itself, with its Pods.
    pub(crate) expire: bool,
    /// When to look again even if nothing changes.
    pub(crate) next: Option<Timestamp>,
}

/// Decides what a Job needs.
pub(crate) fn decide(snapshot: &Snapshot) -> Plan {
    let job = &snapshot.job;
    if managed_elsewhere(job) {
        return Plan::default();
    }
    if job.metadata.deletion_timestamp.is_some() {
        return decide_deleting(snapshot);
    }
    if let Some(done) = status::finished(job) {
        return decide_expiry(snapshot, done);
    }
    let mut plan = Plan::default();
    let tally = Tally::of(snapshot);
    let mut next = status::Draft::of(snapshot, &tally);

    if let Some(unsupported) = unsupported(job) {
        next.fail("NotSupported", unsupported);
    } else if next.failure().is_none() && next.success().is_none() {
        next.judge(snapshot, &tally);
    }

    let suspended = job.spec.as_ref().and_then(|spec| spec.suspend).unwrap_or(false);
    if next.failure().is_some() || next.success().is_some() {
        // Over: whatever still runs is stopped, and the last condition waits for it.
        plan.delete = tally.to_stop();
        next.conclude(&tally);
    } else if suspended {
        plan.delete = tally.to_stop();
        next.suspend(&tally);
    } else {
        next.run();
        (plan.create, plan.delete, plan.next) = scale(snapshot, &tally);
        next.expect(plan.create.len(), plan.delete.len());
        plan.next = earliest(plan.next, deadline(snapshot, &next));
    }
    for pod in &plan.create {
        plan.events.push(Event::normal("SuccessfulCreate", format!("Created pod: {}", name_of(pod))));
    }
    for name in &plan.delete {
        plan.events.push(Event::normal("SuccessfulDelete", format!("Deleted pod: {name}")));
    }
    let (status, events) = next.finish(snapshot);
    plan.events.extend(events);
    plan.status = status;
    plan
}

/// Garbage collection takes the Pods. A Job that somebody keeps with a finalizer still tells which of them are at work.
fn decide_deleting(snapshot: &Snapshot) -> Plan {
    if status::finished(&snapshot.job).is_some() {
        return Plan::default();
    }
    let (status, events) = status::Draft::of(snapshot, &Tally::of(snapshot)).finish(snapshot);
    Plan { status, events, ..Plan::default() }
}

/// Counts of the Job's Pods.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Neither ended nor being deleted.
    active: Vec<Arc<Pod>>,
    terminating: Vec<Arc<Pod>>,
    ready: i32,
    succeeded: i32,
    failed: i32,
    /// Failures since the last success, and when the latest was.
    failures_in_a_row: u32,
    last_failure: Option<Timestamp>,
    /// Restarts of containers in active Pods.
    restarts: i32,
}

impl Tally {
    fn of(snapshot: &Snapshot) -> Self {
        let mut tally = Self::default();
        let mut ends: Vec<(Timestamp, bool)> = Vec::new();
        for pod in &snapshot.pods {
            let status = pod.status.as_ref();
            match status.and_then(|status| status.phase.as_deref()) {
                Some("Succeeded") => {
                    tally.succeeded += 1;
                    ends.push((ended_at(pod).unwrap_or(snapshot.now), true));
                }
                Some("Failed") => {
                    tally.failed += 1;
                    ends.push((ended_at(pod).unwrap_or(snapshot.now), false));
                }
                _ if pod.metadata.deletion_timestamp.is_some() => tally.terminating.push(pod.clone()),
                _ => {
                    let containers = status.into_iter().flat_map(|status| {
                        let init = status.init_container_statuses.iter().flatten();
                        init.chain(status.container_statuses.iter().flatten())
                    });
                    tally.restarts += containers.map(|container| container.restart_count).sum::<i32>();
                    let ready = status.and_then(|status| status.conditions.as_ref()).is_some_and(|conditions| {
                        conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
                    });
                    tally.ready += i32::from(ready);
                    tally.active.push(pod.clone());
                }
            }
        }
        ends.sort();
        for (at, success) in ends {
            if success {
                (tally.failures_in_a_row, tally.last_failure) = (0, None);
            } else {
                tally.failures_in_a_row += 1;
                tally.last_failure = Some(at);
            }
        }
        tally.add_removed(snapshot);
        tally
    }

    /// Pods may be removed after they were counted; what was counted stays counted.
    fn add_removed(&mut self, snapshot: &Snapshot) {
        let Some(status) = &snapshot.job.status else { return };
        let (succeeded, failed) = (status.succeeded.unwrap_or(0), status.failed.unwrap_or(0));
        let counted = u32::try_from(succeeded.saturating_add(failed)).unwrap_or(0);
        let alone = snapshot.job.spec.as_ref().and_then(|spec| spec.parallelism).unwrap_or(1) == 1;
        let last = counted.saturating_add(u32::try_from(snapshot.pods.len()).unwrap_or(u32::MAX));
        let attempts: BTreeMap<String, u32> =
            (0..=last.min(ATTEMPTS_MAX)).map(|attempt| (name::of_pod(&snapshot.job, attempt), attempt)).collect();
        let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
        let over = |pod: &Pod| matches!(phase(pod).as_str(), "Succeeded" | "Failed");
        let in_order =
            |pod: &Arc<Pod>| attempts.get(name_of(pod)).is_some_and(|attempt| over(pod) || *attempt >= counted);
        if alone && snapshot.pods.iter().all(in_order) {
            // One Pod after the other: the number of the attempt says how many were counted before it.
            let new = |wanted: &str| {
                let is_new = |pod: &&Arc<Pod>| phase(pod) == wanted && attempts[name_of(pod)] >= counted;
                i32::try_from(snapshot.pods.iter().filter(is_new).count()).unwrap_or(i32::MAX)
            };
            self.succeeded = succeeded.saturating_add(new("Succeeded"));
            self.failed = failed.saturating_add(new("Failed"));
        } else {
            // Which of several at once were counted cannot be told: a removed one hides the next end, and one more is run.
            self.succeeded = self.succeeded.max(succeeded);
            self.failed = self.failed.max(failed);
        }
    }

    fn active(&self) -> i32 {
        i32::try_from(self.active.len()).unwrap_or(i32::MAX)
    }

    fn to_stop(&self) -> Vec<String> {
        self.active.iter().map(|pod| name_of(pod).to_owned()).collect()
    }
}

/// Says which Pods to create and delete so that as many run as should, and when to look again.
fn scale(snapshot: &Snapshot, tally: &Tally) -> (Vec<Pod>, Vec<String>, Option<Timestamp>) {
    let spec = snapshot.job.spec.as_ref();
    let parallelism = spec.and_then(|spec| spec.parallelism).unwrap_or(1).max(0);
    let wanted = match spec.and_then(|spec| spec.completions) {
        Some(completions) => parallelism.min((completions - tally.succeeded).max(0)),
        // A work queue: once one has succeeded no new Pod is started, and the others may finish.
        None if tally.succeeded > 0 => tally.active(),
        None => parallelism,
    };
    let active = tally.active();
    if active > wanted {
        let mut surplus = tally.active.clone();
        surplus.sort_by_key(|pod| std::cmp::Reverse(pod.metadata.creation_timestamp.clone()));
        let surplus = surplus.iter().take(usize::try_from(active - wanted).unwrap_or(0));
        return (Vec::new(), surplus.map(|pod| name_of(pod).to_owned()).collect(), None);
    }
    let terminating = i32::try_from(tally.terminating.len()).unwrap_or(i32::MAX);
    let missing = wanted - active - terminating;
    if missing <= 0 {
        return (Vec::new(), Vec::new(), None);
    }
    if let Some(last) = tally.last_failure {
        let exponent = tally.failures_in_a_row.saturating_sub(1).min(16);
        let pause = snapshot.backoff.checked_mul(1 << exponent).unwrap_or(FAILURE_BACKOFF_MAX).min(FAILURE_BACKOFF_MAX);
        let due = last.saturating_add(pause).expect("a pause has no calendar units");
        if due > snapshot.now {
            return (Vec::new(), Vec::new(), Some(due));
        }
    }
    // The name tells the attempt: names that are taken belong to earlier ones.
    let mut attempt = u32::try_from(tally.succeeded + tally.failed).unwrap_or(0);
    let mut pods = Vec::new();
    while pods.len() < usize::try_from(missing).unwrap_or(0) {
        let name = name::of_pod(&snapshot.job, attempt);
        attempt += 1;
        if !snapshot.pods.iter().any(|pod| name_of(pod) == name) {
            pods.push(pod(snapshot, name));
        }
    }
    (pods, Vec::new(), None)
}

/// Makes the Pod of one attempt from the Job's template.
fn pod(snapshot: &Snapshot, name: String) -> Pod {
    let job = &snapshot.job;
    let template = job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut metadata = template.metadata.unwrap_or_default();
    let job_name = job.metadata.name.clone().unwrap_or_default();
    let uid = job.metadata.uid.clone().unwrap_or_default();
    let labels = metadata.labels.get_or_insert_default();
    for (key, value) in [
        ("batch.kubernetes.io/controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &job_name),
        ("controller-uid", &uid),
        ("job-name", &job_name),
    ] {
        labels.insert(key.into(), value.clone());
    }
    metadata.generate_name = Some(format!("{job_name}-"));
    metadata.name = Some(name);
    metadata.namespace = job.metadata.namespace.clone();
    metadata.owner_references = Some(vec![OwnerReference {
        api_version: "batch/v1".into(),
        kind: "Job".into(),
        name: job_name,
        uid,
        controller: Some(true),
        block_owner_deletion: Some(true),
    }]);
    let mut spec = template.spec.unwrap_or_default();
    // There is one node: choosing it here saves the write that a scheduler would need.
    spec.node_name.get_or_insert_with(|| snapshot.node.clone());
    Pod { metadata, spec: Some(spec), status: None }
}

/// A finished Job is only ever deleted, when its time has come.
fn decide_expiry(snapshot: &Snapshot, done: Timestamp) -> Plan {
    let ttl = snapshot.job.spec.as_ref().and_then(|spec| spec.ttl_seconds_after_finished);
    let Some(ttl) = ttl else { return Plan::default() };
    let due =
        done.saturating_add(SignedDuration::from_secs(i64::from(ttl.max(0)))).expect("seconds are no calendar unit");
    if due <= snapshot.now {
        return Plan { expire: true, ..Plan::default() };
    }
    Plan { next: Some(due), ..Plan::default() }
}

fn deadline(snapshot: &Snapshot, next: &status::Draft) -> Option<Timestamp> {
    let seconds = snapshot.job.spec.as_ref()?.active_deadline_seconds?;
    next.start_time()?.checked_add(SignedDuration::from_secs(seconds)).ok()
}

fn unsupported(job: &Job) -> Option<&'static str> {
    let spec = job.spec.as_ref()?;
    if spec.completion_mode.as_deref().is_some_and(|mode| mode != "NonIndexed") {
        return Some("indexed Jobs are not supported by this node");
    }
    if spec.pod_failure_policy.is_some() {
        return Some("spec.podFailurePolicy is not supported by this node");
    }
    spec.success_policy.is_some().then_some("spec.successPolicy is not supported by this node")
}

fn managed_elsewhere(job: &Job) -> bool {
    let manager = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
    manager.is_some_and(|manager| manager != "kubernetes.io/job-controller")
}

/// Returns when the last container of an ended Pod ended.
fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let containers = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let ends = containers.filter_map(|container| container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
    ends.map(|time| time.0).max().or_else(|| pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    a.into_iter().chain(b).min()
}

fn name_of(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests;

//! The status of a Job, as the Job controller writes it.

use k8s_openapi::api::batch::v1::Job;
use kratix_api::Timestamp;
use serde_json::{Value, json};

/// Kubernetes' default.
const BACKOFF_LIMIT: i32 = 6;

fn condition<'a>(job: &'a Job, kind: &str) -> Option<&'a str> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind).map(|condition| condition.status.as_str())
}

/// Tells whether nothing of the Job runs any more.
pub(super) fn is_over(job: &Job) -> bool {
    job.metadata.deletion_timestamp.is_some()
        || ["Complete", "Failed"].iter().any(|kind| condition(job, kind) == Some("True"))
}

/// Tells whether the Job is to stand still.
pub(super) fn is_suspended(job: &Job) -> bool {
    job.spec.as_ref().and_then(|spec| spec.suspend).unwrap_or(false)
}

/// Returns how many containers may fail before the Job does.
pub(super) fn failures_max(job: &Job) -> i32 {
    // With restarts in place the limit is reached by the restart, except that 0 allows one failure.
    job.spec.as_ref().and_then(|spec| spec.backoff_limit).unwrap_or(BACKOFF_LIMIT).max(1)
}

fn with_conditions(job: &Job, now: Timestamp, new: &[(&str, &str, &str, &str)]) -> Value {
    let old = job.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let kept = old.into_iter().filter(|condition| new.iter().all(|(kind, ..)| condition.type_ != *kind));
    let mut conditions: Vec<Value> = kept.map(|condition| json!(condition)).collect();
    let now = seconds(now);
    conditions.extend(new.iter().map(|(kind, status, reason, message)| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastProbeTime": now, "lastTransitionTime": now,
        })
    }));
    json!(conditions)
}

fn seconds(time: Timestamp) -> Value {
    json!(kratix_api::Time(kratix_api::condition::whole_seconds(time)))
}

/// A Pod runs.
pub(super) fn started(job: &Job, now: Timestamp) -> Value {
    let mut status =
        json!({ "active": 1, "ready": 0, "terminating": 0, "uncountedTerminatedPods": {}, "startTime": seconds(now) });
    if condition(job, "Suspended") == Some("True") {
        status["conditions"] = with_conditions(job, now, &[("Suspended", "False", "JobResumed", "Job resumed")]);
    }
    status
}

/// No Pod may run, and the one that did has been told to end.
pub(super) fn suspended(job: &Job, now: Timestamp) -> Option<Value> {
    let ran = job.status.as_ref().and_then(|status| status.active);
    (condition(job, "Suspended") != Some("True")).then(|| {
        let conditions = with_conditions(job, now, &[("Suspended", "True", "JobSuspended", "Job suspended")]);
        json!({ "active": null, "ready": 0, "terminating": ran, "startTime": null, "conditions": conditions })
    })
}

/// It has ended.
pub(super) fn gone() -> Value {
    json!({ "terminating": 0 })
}

/// The Pod has ended well.
pub(super) fn completed(job: &Job, now: Timestamp) -> Value {
    let message = "Reached expected number of succeeded pods";
    let conditions = with_conditions(
        job,
        now,
        &[
            ("SuccessCriteriaMet", "True", "CompletionsReached", message),
            ("Complete", "True", "CompletionsReached", message),
        ],
    );
    json!({ "active": null, "ready": 0, "succeeded": 1, "completionTime": seconds(now), "conditions": conditions })
}

/// The Pod has failed too often.
pub(super) fn failed(job: &Job, now: Timestamp) -> Value {
    let (reason, message) = ("BackoffLimitExceeded", "Job has reached the specified backoff limit");
    let conditions =
        with_conditions(job, now, &[("FailureTarget", "True", reason, message), ("Failed", "True", reason, message)]);
    json!({ "active": null, "ready": 0, "failed": 1, "conditions": conditions })
}

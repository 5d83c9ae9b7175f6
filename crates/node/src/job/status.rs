//! The status of a Job: counts, times, conditions, and the events that go with their changes.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus, UncountedTerminatedPods};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{BACKOFF_LIMIT, Snapshot, Tally};
use crate::event::Event;

/// A status in the making.
pub(super) struct Draft {
    status: JobStatus,
    now: Timestamp,
    events: Vec<Event>,
}

/// Returns when the Job finished, if it has.
pub(super) fn finished(job: &Job) -> Option<Timestamp> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let last = conditions
        .iter()
        .find(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True")?;
    let at = last.last_transition_time.as_ref().or(last.last_probe_time.as_ref()).map(|time| time.0);
    Some(at.unwrap_or(Timestamp::UNIX_EPOCH))
}

impl Draft {
    pub(super) fn of(snapshot: &Snapshot, tally: &Tally) -> Self {
        let mut status = snapshot.job.status.clone().unwrap_or_default();
        status.active = positive(tally.active());
        // Readiness alone is not worth a write: the number is right whenever something else changes.
        status.ready = Some(tally.ready);
        status.terminating = Some(i32::try_from(tally.terminating.len()).unwrap_or(i32::MAX));
        status.succeeded = positive(tally.succeeded);
        status.failed = positive(tally.failed);
        status.uncounted_terminated_pods = Some(UncountedTerminatedPods::default());
        Self { status, now: snapshot.now, events: Vec::new() }
    }

    pub(super) fn start_time(&self) -> Option<Timestamp> {
        self.status.start_time.as_ref().map(|time| time.0)
    }

    pub(super) fn failure(&self) -> Option<&JobCondition> {
        self.condition("FailureTarget")
    }

    pub(super) fn success(&self) -> Option<&JobCondition> {
        self.condition("SuccessCriteriaMet")
    }

    fn condition(&self, kind: &str) -> Option<&JobCondition> {
        let conditions = self.status.conditions.iter().flatten();
        conditions.into_iter().find(|condition| condition.type_ == kind && condition.status == "True")
    }

    fn set(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let now = Some(Time(self.now));
        let condition = JobCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_probe_time: now.clone(),
            last_transition_time: now,
        };
        let conditions = self.status.conditions.get_or_insert_default();
        match conditions.iter_mut().find(|existing| existing.type_ == kind) {
            Some(existing) if existing.status == status => {}
            Some(existing) => *existing = condition,
            None => conditions.push(condition),
        }
    }

    pub(super) fn fail(&mut self, reason: &str, message: &str) {
        self.set("FailureTarget", "True", reason, message);
    }

    /// Decides whether the Job has reached its goal or given up.
    pub(super) fn judge(&mut self, snapshot: &Snapshot, tally: &Tally) {
        let Some(spec) = snapshot.job.spec.as_ref() else { return };
        let limit = spec.backoff_limit.unwrap_or(BACKOFF_LIMIT);
        let on_failure = spec.template.spec.as_ref().and_then(|pod| pod.restart_policy.as_deref()) == Some("OnFailure");
        // With restarts in place the containers count the attempts, otherwise the Pods do.
        let restarted_too_often = on_failure && if limit == 0 { tally.restarts > 0 } else { tally.restarts >= limit };
        let suspended = spec.suspend.unwrap_or(false);
        let expired = !suspended
            && spec.active_deadline_seconds.zip(self.start_time()).is_some_and(|(seconds, start)| {
                start.checked_add(SignedDuration::from_secs(seconds)).is_ok_and(|due| due <= self.now)
            });
        let complete = match spec.completions {
            Some(completions) => tally.succeeded >= completions,
            None => tally.succeeded > 0 && tally.active.is_empty() && tally.terminating.is_empty(),
        };
        if tally.failed > limit || restarted_too_often {
            self.fail("BackoffLimitExceeded", "Job has reached the specified backoff limit");
        } else if expired {
            self.fail("DeadlineExceeded", "Job was active longer than specified deadline");
        } else if complete {
            self.set("SuccessCriteriaMet", "True", "CompletionsReached", "Reached expected number of succeeded pods");
        }
    }

    /// Sets the last condition once no Pod is left running.
    pub(super) fn conclude(&mut self, tally: &Tally) {
        self.begin();
        if !tally.active.is_empty() {
            self.status.terminating = Some(self.status.terminating.unwrap_or(0).saturating_add(tally.active()));
            self.status.active = None;
            self.status.ready = Some(0);
            return;
        }
        if !tally.terminating.is_empty() {
            return;
        }
        let text = |condition: &JobCondition| {
            (condition.reason.clone().unwrap_or_default(), condition.message.clone().unwrap_or_default())
        };
        if let Some((reason, message)) = self.failure().map(text) {
            self.set("Failed", "True", &reason, &message);
            self.events.push(Event::warning(reason, message));
        } else if let Some((reason, message)) = self.success().map(text) {
            self.set("Complete", "True", &reason, &message);
            self.status.completion_time = Some(Time(self.now));
            self.events.push(Event::normal("Completed", "Job completed"));
        }
    }

    pub(super) fn suspend(&mut self, tally: &Tally) {
        if self.condition("Suspended").is_none() {
            self.events.push(Event::normal("Suspended", "Job suspended"));
        }
        self.set("Suspended", "True", "JobSuspended", "Job suspended");
        self.status.start_time = None;
        self.status.terminating = Some(self.status.terminating.unwrap_or(0).saturating_add(tally.active()));
        self.status.active = None;
        self.status.ready = Some(0);
    }

    pub(super) fn run(&mut self) {
        if self.condition("Suspended").is_some() {
            self.set("Suspended", "False", "JobResumed", "Job resumed");
            self.status.start_time = None;
            self.events.push(Event::normal("Resumed", "Job resumed"));
        }
        self.begin();
    }

    /// Counts Pods that this pass creates or deletes, so that one write tells the whole truth.
    pub(super) fn expect(&mut self, created: usize, deleted: usize) {
        let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        let active = self.status.active.unwrap_or(0) + count(created) - count(deleted);
        self.status.active = positive(active);
        self.status.terminating = Some(self.status.terminating.unwrap_or(0) + count(deleted));
    }

    fn begin(&mut self) {
        self.status.start_time.get_or_insert(Time(self.now));
    }

    /// Returns the status if it differs from the Job's, and what happened.
    pub(super) fn finish(self, snapshot: &Snapshot) -> (Option<JobStatus>, Vec<Event>) {
        let mut before = snapshot.job.status.clone().unwrap_or_default();
        let unstarted = before == JobStatus::default();
        // See `of`: a Pod that becomes ready changes nothing that anybody waits for.
        before.ready = self.status.ready;
        let same = !unstarted && before == self.status;
        ((!same).then_some(self.status), self.events)
    }
}

/// Kubernetes leaves counts out that are zero.
fn positive(count: i32) -> Option<i32> {
    (count > 0).then_some(count)
}

//! What keeps the pod of a pipeline from getting on: which container, why, and where to look.
//!
//! A Job tells that it has failed only once Kubernetes has given up on it, and not why. The status of its pods tells at once:
//! an image that cannot be pulled, a container that exits, is killed or refused. It is shown by the condition
//! [`PIPELINE_FAILING`], which exists only as long as something is wrong, and by one event for each cause. Conditions and
//! events of the original keep their words.
//!
//! Trouble that repeating cannot heal (a malformed file, a path that leads outside) is told by Kratix's own containers with
//! an exit code of its own. Then the Job's `backoffLimit` is set to 0, so that it fails by Kubernetes' own rules, once.
//!
//! A Job that may wait for ever ([`Sight::is_before_start`]) can be stopped once it is no longer wanted: see `configure` and `delete`.
//!
//! # Guarantees
//! One cause, one event. A cause is a pipeline, what has happened to which of its containers, and the reason; what others say about
//! it may hold numbers and times that differ from attempt to attempt: the condition follows that, and nobody is told again.
//! # Source
//! `02-workflows.md` §14, §15

mod pod;
mod telling;
mod turn;

use k8s_openapi::api::batch::v1;
use k8s_openapi::api::core::v1 as core;
use kratix_api::Timestamp;
use kube_core::ResourceExt;

pub use self::pod::of_pod;
pub(crate) use self::telling::{View, clear, follow, in_short};
pub(super) use self::telling::{tell_failed, tell_running};
pub use self::turn::Turn;
use super::history::{self, State};
use crate::object::ObjectKey;
use crate::text::line;

/// Condition of a parent whose pipeline does not get on. It is there, and True, only while that lasts.
pub use kratix_api::condition::PIPELINE_FAILING;

/// Reason for what repeating cannot heal.
const REFUSED: &str = "InvalidOutput";
/// Reason of a container that has not come to run.
const NOT_STARTED: &str = "ContainerNotStarted";
const IMAGE: &str = "ImageUnavailable";
const POD_NOT_STARTED: &str = "PodNotStarted";
const POD_REFUSED: &str = "PodRefused";
/// Reason of a Job that has failed while no pod tells why.
const JOB_FAILED: &str = "JobFailed";
/// Longest cause that is repeated from a pod's status.
const DETAIL_BYTES_MAX: usize = 400;

/// Returns whether a pod with this reason cannot begin for want of something that may never come.
pub(crate) fn may_wait_for_ever(reason: &str) -> bool {
    [IMAGE, NOT_STARTED, POD_NOT_STARTED, POD_REFUSED].contains(&reason)
}

/// Something that keeps a pod, or the making of one, from getting on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Reason of the condition and of the event.
    reason: &'static str,
    /// What has happened to what: `container render exited with code 1`.
    subject: String,
    /// The cause in the words of whoever noticed it; may be empty.
    detail: String,
    /// The command that shows more.
    command: String,
    /// Whether doing the same again is useless.
    is_final: bool,
    /// Whether it may last for ever and no container of a pipeline has begun.
    is_before_start: bool,
}

/// What is known of a Job's pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Nothing: there is none yet, or they cannot be seen.
    Unseen,
    /// They get on.
    Fine {
        /// The container that runs, as far as that is known.
        container: Option<String>,
    },
    /// They do not.
    Trouble(Trouble),
    /// Nothing was wrong with them, and they are on their way out.
    Going {
        /// See [`Turn::when`].
        when: Option<String>,
    },
    /// None is left.
    Gone {
        /// How far the last one had come when it was removed, where that is known.
        when: Option<String>,
    },
}

/// A pod of a Job, as far as anything of it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When it was made.
    pub created: Option<Timestamp>,
    /// What keeps it from getting on.
    pub trouble: Option<Trouble>,
    /// It is being deleted, so that it gets on no more says nothing.
    pub is_going: bool,
    /// How far it has come.
    pub turn: Turn,
}

impl Sight {
    /// Sums up what is known of one Job. `refusal` is what the API server said when a pod was to be made.
    ///
    /// The newest trouble counts, also while another attempt is under way: it is over only when the pipeline is.
    pub fn of(job: &v1::Job, pods: &[Attempt], refusal: Option<&str>) -> Self {
        let troubled = pods.iter().filter(|pod| pod.trouble.is_some());
        if let Some(mut trouble) = troubled.max_by_key(|pod| pod.created).and_then(|pod| pod.trouble.clone()) {
            trouble.is_before_start &= !pods.iter().any(|pod| pod.turn.has_begun);
            return Self::Trouble(trouble);
        }
        let present = pods.iter().filter(|pod| !pod.is_going).max_by_key(|pod| pod.created);
        if let Some(present) = present {
            return Self::Fine { container: present.turn.running().map(str::to_owned) };
        }
        let newest = pods.iter().max_by_key(|pod| pod.created);
        match (newest, refusal) {
            (Some(newest), _) => Self::Going { when: newest.turn.when() },
            (None, _) if has_had_pods(job) => Self::Gone { when: None },
            // An old refusal says nothing about a pod that was there since.
            (None, Some(refusal)) => Self::Trouble(refused(job, refusal)),
            // A pod that was removed is not always counted.
            (None, None) if history::state(job) == State::Failed => Self::Gone { when: None },
            (None, None) => Self::Unseen,
        }
    }

    fn trouble(self) -> Option<Trouble> {
        match self {
            Self::Trouble(trouble) => Some(trouble),
            Self::Unseen | Self::Fine { .. } | Self::Going { .. } | Self::Gone { .. } => None,
        }
    }

    /// Adds what is remembered of the last pod, where none is left.
    #[must_use]
    pub fn with_last(self, when: impl FnOnce() -> Option<String>) -> Self {
        match self {
            Self::Gone { when: None } => Self::Gone { when: when() },
            known => known,
        }
    }

    /// Returns whether the Job waits for something that may never come, while no container of a pipeline runs or has run in
    /// any of its pods: ending it interrupts nothing.
    pub fn is_before_start(&self) -> bool {
        matches!(self, Self::Trouble(trouble) if trouble.is_before_start)
    }
}

impl Attempt {
    /// Returns how far the pod has come, if it is removed before anything was wrong with it.
    pub fn cut_short(&self) -> Option<String> {
        self.turn.when().filter(|_| self.is_going && self.trouble.is_none())
    }
}

impl Trouble {
    /// Returns whether doing the same again is useless.
    pub fn is_final(&self) -> bool {
        self.is_final
    }

    /// Returns what has happened to what, without what others say about it.
    fn about(&self, pipeline: &str) -> String {
        format!("pipeline {pipeline}: {}", self.subject)
    }

    /// Returns what is wrong, without the command that shows more.
    fn cause(&self, pipeline: &str) -> String {
        let about = self.about(pipeline);
        if self.detail.is_empty() { about } else { format!("{about}: {}", self.detail) }
    }
}

/// Adds to what has happened during what.
fn while_it(subject: &str, when: Option<&str>) -> String {
    when.map_or_else(|| subject.to_owned(), |when| format!("{subject} {when}"))
}

/// Returns a cause in one line, cut to what is needed to act; what to do follows it, so it ends without a full stop.
fn detail(text: &str) -> String {
    let text = text.trim_end();
    line(text.strip_suffix('.').filter(|text| !text.ends_with('.')).unwrap_or(text), DETAIL_BYTES_MAX)
}

/// No pod could be made at all: a quota, an admission webhook, a ServiceAccount that is not there.
fn refused(job: &v1::Job, refusal: &str) -> Trouble {
    let detail = detail(refusal.strip_prefix("Error creating: ").unwrap_or(refusal));
    Trouble {
        reason: POD_REFUSED,
        subject: "no pod can be made".to_owned(),
        detail,
        command: of_job(job),
        is_final: false,
        is_before_start: true,
    }
}

fn has_had_pods(job: &v1::Job) -> bool {
    let Some(status) = &job.status else { return false };
    [status.active, status.failed, status.succeeded].into_iter().flatten().any(|count| count > 0)
}

fn of_job(job: &v1::Job) -> String {
    format!("kubectl describe job -n {} {}", job.namespace().unwrap_or_default(), job.name_any())
}

/// Returns the command that shows what is left of a Job whose pods are gone, and how to keep them.
fn without_pods(job: &v1::Job) -> String {
    let pod = job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let is_kept = pod.is_some_and(|pod| pod.restart_policy.as_deref() == Some("Never"));
    let hint = if is_kept { "" } else { "; restartPolicy: Never keeps it" };
    format!("{} (the pod is gone, and its log{hint})", of_job(job))
}

/// Returns what a Job that has failed tells of it by itself. `when` is what ran in its pod.
fn of_failed_job(job: &v1::Job, when: Option<&str>) -> Option<Trouble> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let failed = conditions.iter().find(|condition| condition.type_ == "Failed" && condition.status == "True")?;
    let reason = match failed.reason.as_deref()? {
        "DeadlineExceeded" => "DeadlineExceeded",
        _ => JOB_FAILED,
    };
    let subject = while_it(&format!("Job {} has failed", ObjectKey::of(job)), when);
    let detail = detail(failed.message.as_deref().unwrap_or_default());
    Some(Trouble { reason, subject, detail, command: of_job(job), is_final: false, is_before_start: false })
}

/// Returns whether a change of a pod matters to the workflow it belongs to. A pod that appears does so only where one `was_refused`
/// before.
pub fn concerns(old: Option<&Attempt>, new: Option<&Attempt>, was_refused: bool) -> bool {
    let trouble = |pod: Option<&Attempt>| pod.and_then(|pod| pod.trouble.clone());
    let may_act = |pod: &Attempt| pod.turn.has_begun;
    // What is to be stopped waits until nothing runs in an earlier pod.
    let has_stopped = old.is_some_and(|old| old.is_going && may_act(old)) && !new.is_some_and(may_act);
    trouble(old) != trouble(new) || (was_refused && old.is_none()) || has_stopped
}

/// Returns the digest of a pod.
pub fn attempt(pod: &core::Pod) -> Attempt {
    Attempt {
        created: pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
        trouble: of_pod(pod),
        is_going: pod.metadata.deletion_timestamp.is_some(),
        turn: Turn::of(pod),
    }
}
